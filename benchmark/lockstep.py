"""Power sampling with and without lockstep, side by side: the same engine, the same chains, the same moves.

    python benchmark/lockstep.py --model toy --dataset toy_test --max-total-tokens 128
    python benchmark/lockstep.py --model Qwen/Qwen2.5-3B-Instruct --dataset math500 --alpha 4

Lockstep is how published programs run: so many chains as fit, every move waits for the longest proposal, and the next
chains wait for the last of these. The other loop is power_sampling.py's, which also keeps its journal. Proposals are
drawn by counter (--deterministic), so that both loops make the same moves: the answers are compared at the end. Both
take turns after a warm-up. Printed: seconds, processor seconds, answers and tokens a second, and engine steps, which is
what time is made of where a step costs the same for many rows as for one (a GPU; not a CPU). The bound is what the
lengths allow: with `live` rows always full the steps would be sum(lengths) / live, or those of the longest chain if
that is more.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro
from transformers import AutoTokenizer

from common.data import fit_window, load_problems, prompt_file_of, render_prompts
from common.rollout import start_sampler, stop_token_ids
from common.run import resolve_model, start_processes
from common.tasks import Journal, Progress, run_tasks
from power_sampling import Args, Task


@dataclass
class Settings:
    model: str = "toy"
    """folder, Hugging Face id, or `toy`"""
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


class Journey:
    """Stands in for the journal: keeps how many tokens each proposal of each task took."""

    def __init__(self):
        self.lengths: dict[str, list[int]] = {}

    def total(self) -> int:
        return sum(map(sum, self.lengths.values()))

    def replay(self, task: Task) -> None:
        self.lengths[task.name] = []

    def add(self, task: Task, samples: list) -> None:
        self.lengths[task.name] += [len(sample.tokens) for sample in samples]


def lockstep(sampler, tasks: Iterator[Task], live: int, journal, progress) -> Iterator[Task]:
    """As `run_tasks`, but all move together, and the next ones begin when all have ended."""
    while together := list(itertools.islice(tasks, live)):
        for task in together:
            journal.replay(task)
        while moving := [task for task in together if task.requests]:
            for task in moving:
                for request in task.requests:
                    sampler.submit(request)
            samples = {}
            while len(samples) < sum(len(task.requests) for task in moving):
                samples |= {sample.key: sample for sample in sampler.collect()}
            for task in moving:
                drawn = [samples[request.key] for request in task.requests]
                journal.add(task, drawn)
                task.advance(drawn)
        yield from together


def main(settings: Settings) -> None:
    device = start_processes(settings.seed)
    model = resolve_model(settings.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    problems = load_problems(settings.dataset)[: -(-settings.num_chains // 16)]
    prompts = render_prompts(tokenizer, problems, prompt_file_of(settings.dataset))
    problems, prompts = fit_window(problems, prompts, settings.max_total_tokens)
    shared = {key: getattr(settings, key) for key in ("alpha", "num_moves", "block_size", "max_total_tokens")}
    stop_ids = stop_token_ids(model, tokenizer)
    sampler = start_sampler(
        "vllm", model, settings.max_total_tokens, device=device, stop_ids=stop_ids, requests=True, deterministic=True
    )
    engine, steps = sampler.llm.llm_engine, 0
    real_step = engine.step

    def counted():
        nonlocal steps
        steps += 1
        return real_step()

    engine.step = counted

    def tasks() -> Iterator[Task]:
        for i in range(settings.num_chains):
            place = i // 16
            yield Task(Args(**shared), settings.seed, problems[place].id, prompts[place], stop_ids, [i % 16])

    def measure(loop, journal) -> dict[str, list[int]]:
        nonlocal steps
        sampler.llm.reset_prefix_cache()
        steps, answers, moves, cached = 0, {}, 0, 0
        start, cpu_start = time.perf_counter(), time.process_time()
        for task in loop(sampler, tasks(), settings.live_chains, journal, Progress("", settings.num_chains)):
            (chain,) = task.chains
            answers[task.name], moves, cached = chain.y.tokens, moves + chain.moves, cached + chain.cached_tokens
        seconds, cpu, tokens = time.perf_counter() - start, time.process_time() - cpu_start, lengths.total()
        print(
            f"{loop.__name__:10} {seconds:6.1f} s {cpu:6.1f} s cpu  {len(answers) / seconds:6.2f} answers/s "
            f"{tokens / seconds:8,.0f} tokens/s {steps:6,} steps {moves:,} moves {cached:,} cached tokens",
            flush=True,
        )
        times.setdefault(loop.__name__, []).append((seconds, cpu, steps))
        return answers

    times: dict[str, list[tuple[float, float, int]]] = {}
    lengths, found = Journey(), []
    measure(lockstep, lengths)  # warm-up
    times.clear()
    with TemporaryDirectory() as folder:
        for turn in range(settings.turns):
            found.append(measure(lockstep, lengths))
            # The program's loop keeps its journal while it is timed, the other one has none.
            found.append(measure(run_tasks, Journal(Path(folder) / str(turn))))
    assert all(answers == found[0] for answers in found) or device.type == "cuda", "the two loops made different moves"
    same = sum(found[0][name] == found[1][name] for name in found[0])
    rows, longest = lengths.total() / settings.live_chains, max(map(sum, lengths.lengths.values()))
    slow, fast = (tuple(map(min, zip(*times[name], strict=True))) for name in ("lockstep", "run_tasks"))
    print(f"equal answers {same} of {len(found[0])}")
    print(f"steps: bound {max(rows, longest):,.0f} (full rows {rows:,.0f}, longest chain {longest:,})")
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    print("lockstep / no lockstep: time {:.2f}, cpu {:.2f}, steps {:.2f}, ".format(*ratios), end="")
    print(f"bound {slow[2] / max(rows, longest):.2f}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
