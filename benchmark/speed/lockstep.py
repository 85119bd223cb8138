"""Power sampling with and without lockstep, side by side: the same engine, the same chains, the same moves.

    python -m benchmark.speed.lockstep --model toy --dataset toy_test --max-total-tokens 128
    python -m benchmark.speed.lockstep --layers 36
    python -m benchmark.speed.lockstep --model Qwen/Qwen2.5-3B-Instruct --dataset math500 --alpha 4

Lockstep is how published programs run: as many chains as fit, every move waits for the longest proposal, and the next
chains wait for the last of these. The other loop is power_sampling.py's, which also keeps its journal. Proposals are
drawn by counter (--deterministic), so that both loops make the same moves, up to rounding: the answers
are compared at the end. Both take turns after a warm-up. Printed: seconds, processor seconds, answers and tokens a
second, and engine steps. The bound is what the lengths allow: with `live` rows always full the steps would be
sum(lengths) / live, or those of the longest chain if that is more.

Steps are what time is made of where one costs nearly the same for many rows as for one, as on a GPU. On a CPU it does
not: seconds are a + b rows, and both are fitted and printed. --layers gives the model layers that add zero, so that
answers and lengths stay what they are while a grows: with the miniature's width and the depth of a real model a step
is fixed cost for the most part, on a CPU too. `free` is without --deterministic, which says what that costs.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np
import tyro
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from common.data import fit_window, load_problems, prompt_file_of, render_prompts
from common.rollout import start_sampler, stop_token_ids
from common.run import resolve_model, start_processes
from power_sampling import Args, Chain, ChainGroup, Journal, Progress, run_groups


@dataclass
class Settings:
    model: str = "toy"
    """folder, Hugging Face id, or `toy`"""
    layers: int = 0
    """layers, of which those beyond the model's own add zero; 0 for its own"""
    dataset: str = "toy_test"
    """as in common/data.py"""
    max_total_tokens: int = 128
    """window: prompt and response"""
    alpha: float = 2.0
    """power of the base model in the target"""
    num_moves: int = 10
    """moves a chain"""
    block_size: int = 0
    """tokens a block; 0 for none"""
    num_chains: int = 256
    """chains in all, 16 a problem"""
    live_chains: int = 64
    """chains that run at the same time"""
    turns: int = 2
    """times that each loop is run"""
    seed: int = 1
    """of cuts, proposals and acceptance"""


def deepened(model: str, layers: int, folder: str) -> str:
    """Writes a copy of a model with more layers, whose outputs are zero; returns its folder."""
    config = AutoConfig.from_pretrained(model)
    config.num_hidden_layers, config.layer_types = layers, ["full_attention"] * layers
    deep = AutoModelForCausalLM.from_config(config)
    missing = deep.load_state_dict(AutoModelForCausalLM.from_pretrained(model).state_dict(), strict=False).missing_keys
    for name in missing:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deep.get_parameter(name).data.zero_()
    deep.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def lockstep(sampler, groups: Iterator[ChainGroup], live: int, journal, progress) -> Iterator[ChainGroup]:
    """As `run_groups`, but all move together, and the next ones begin when all have ended."""
    while together := list(itertools.islice(groups, live)):
        for group in together:
            group.advance()
        while moving := [group for group in together if group.requests]:
            for group in moving:
                for request in group.requests:
                    sampler.submit(request)
            samples = {}
            while len(samples) < sum(len(group.requests) for group in moving):
                samples |= {sample.key: sample for sample in sampler.collect()}
            for group in moving:
                group.advance([samples[request.key] for request in group.requests])
        yield from together


def main(settings: Settings) -> None:
    device = start_processes(settings.seed)
    model = resolve_model(settings.model)
    if settings.layers:
        model = deepened(model, settings.layers, mkdtemp())
    tokenizer = AutoTokenizer.from_pretrained(model)
    problems = load_problems(settings.dataset)[: -(-settings.num_chains // 16)]
    prompts = render_prompts(tokenizer, problems, prompt_file_of(settings.dataset))
    problems, prompts = fit_window(problems, prompts, settings.max_total_tokens)
    shared = {key: getattr(settings, key) for key in ("alpha", "num_moves", "block_size", "max_total_tokens")}
    stop_ids = stop_token_ids(model, tokenizer)
    sampler = start_sampler(
        "vllm", model, settings.max_total_tokens, device=device, stop_ids=stop_ids, requests=True, deterministic=True
    )
    engine = sampler.llm.llm_engine
    steps: list[tuple[int, float]] = []  # rows and processor seconds of each
    real_step = engine.step

    def timed():
        rows, start = engine.get_num_unfinished_requests(), time.process_time()
        outputs = real_step()
        steps.append((rows, time.process_time() - start))
        return outputs

    engine.step = timed

    def groups() -> Iterator[ChainGroup]:
        for i in range(settings.num_chains):
            place = i // 16
            yield ChainGroup(Args(**shared), settings.seed, stop_ids, problems[place].id, prompts[place], [i % 16])

    def measure(name: str, loop, journal=None) -> dict[str, Chain]:
        sampler.llm.reset_prefix_cache()
        steps.clear()
        start, cpu_start = time.perf_counter(), time.process_time()
        ended = loop(sampler, groups(), settings.live_chains, journal, Progress("", settings.num_chains))
        chains = {group.name: group.chains[0] for group in ended}
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        tokens, cached = (sum(getattr(c, f"{key}_tokens") for c in chains.values()) for key in ("generated", "cached"))
        print(
            f"{name:12} {seconds:6.1f} s {cpu:6.1f} s cpu  {len(chains) / seconds:6.2f} answers/s "
            f"{tokens / seconds:8,.0f} tokens/s {len(steps):6,} steps {tokens:,} tokens {cached:,} cached",
            flush=True,
        )
        times[name].append((seconds, cpu, len(steps)))
        costs.extend(steps)
        return chains

    times, costs = defaultdict(list), []
    measure("warm-up", lockstep)
    costs.clear()
    with TemporaryDirectory() as folder:
        for turn in range(settings.turns):
            slow = measure("lockstep", lockstep)
            # The program's loop keeps its journal while it is timed, the other one has none.
            fast = measure("no lockstep", run_groups, Journal(Path(folder) / f"{turn}", vars(settings)))
            sampler.deterministic = False
            free = measure("free", run_groups, Journal(Path(folder) / f"{turn}-free", vars(settings)))
            sampler.deterministic = True
    best = {name: [min(column) for column in zip(*found, strict=True)] for name, found in times.items()}
    tokens, free_tokens = (sum(c.generated_tokens for c in chains.values()) for chains in (fast, free))
    full, longest = tokens / settings.live_chains, max(chain.generated_tokens for chain in fast.values())
    print(f"equal answers {sum(slow[name].y.tokens == fast[name].y.tokens for name in fast)} of {len(fast)}")
    print(f"steps: bound {max(full, longest):,.0f} (full rows {full:,.0f}, longest chain {longest:,})")
    rows, seconds = np.array(costs).T
    b, a = np.polyfit(rows, seconds, 1)
    print(f"a step: {1e3 * a:.1f} ms + {1e3 * b:.3f} ms a row")
    ratios = [x / y for x, y in zip(best["lockstep"], best["no lockstep"], strict=True)]
    print("lockstep / no lockstep: time {:.2f}, cpu {:.2f}, steps {:.2f}, ".format(*ratios), end="")
    print(f"bound {best['lockstep'][2] / max(full, longest):.2f}")
    cost = best["no lockstep"][1] / tokens / (best["free"][1] / free_tokens) - 1
    print(f"--deterministic: {cost:+.1%} processor seconds a token")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
