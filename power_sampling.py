"""Power sampling: answers drawn from pi_base^alpha / Z without training, by Metropolis-Hastings over whole answers.

    python power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --dataset math500 --n 16
    python power_sampling.py --model toy --dataset toy_test --max-total-tokens 128 --alpha 2      (any machine)

A chain holds one answer y. A move keeps y_<m for a random cut m and draws the rest anew from q, the model at
temperature 1/alpha, until it stops or fills the window. The new answer z is taken with probability min(1, A), where

    log A = sum_{t=m}^{|z|-1} log Z(z_<t) - sum_{t=m}^{|y|-1} log Z(y_<t) + log|y| - log|z|,   Z(h) = sum_v p(v|h)^alpha

since p^alpha / q = Z at every token; |y| counts the stop token. Answers that fill the window without one are answers
too. This leaves pi(y) ~ p(y)^alpha invariant. Modes, named in every output:

    exact           the above. In blocks of B tokens, block k draws and moves up to length k B; chains take all blocks
    karan-du        Karan & Du's program: a proposal ends at |y|, sums over the overlap of y and z, no |y| / |z|, and a
                    chain that is finished after a block stops there
    mh-llm          the harness of the paper as pushed: a proposal ends at |y|, q's ratio upside down, no |y| / |z|, a
                    block more, and at a block's end the chain after a finished one (of the n of a problem) is not
                    looked at: if it is finished too it goes on, beyond its stop token
    mh-llm-signfix  the same with q's ratio the right way up

The last three do not leave pi invariant; they are here to reproduce published rows. Not reproduced: one stop token
instead of all, top-k 50 in Karan & Du's proposals, grading of what stands after a stop token. --method smc instead
weighs --num-particles draws from q by Z, resamples them after blocks where weights have become unequal, and takes one
of the last by weight; with --block-size 0 that is the best of so many by importance weight.

Every run also samples plainly at temperature 1 and 1/alpha. In the results folder, X: power_exact_alpha4__math500__n16
    plain_T1/  plain_T0.25/                     by common/evaluate.py
    X__seed1.json  X__seed1.responses.jsonl     like those, and in `chains` what became of each chain: fields of `Chain`
    X__seed1.moves/                             samples of unfinished chains: an interrupted run goes on there
    X__report.json                              the table that is printed: accuracies, and tokens that each spent
"""

import itertools
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Literal

import numpy as np
import torch.distributed as dist
from transformers import AutoTokenizer

from common import evaluate
from common.data import load_datasets
from common.evaluate import ResponsesFile, print_table, results_dir, summarise, write_results
from common.grading import Grader
from common.rollout import Request, Sample, problem_word, start_sampler, stop_token_ids, uniforms
from common.run import Positive, resolve_model, start, start_processes, write_json
from common.tasks import sample_problems

LEAST_WEIGHT = 1e-3  # nats; with --cut entropy every place is cut now and then


@dataclass
class Args:
    # --- method ---
    alpha: Positive = 4.0
    """power of the base model in the target (paper: 1, 1.25, 2, 4); proposals have temperature 1/alpha"""
    mode: Literal["exact", "karan-du", "mh-llm", "mh-llm-signfix"] = "exact"
    """exact, or a published program with its defects"""
    method: Literal["mh", "smc"] = "mh"
    """mh: Markov chains; smc: particles"""
    num_moves: int = 10
    """moves a block, or in all without blocks (paper: 10); more come nearer to the target and cost in proportion"""
    block_size: int | None = None
    """tokens, 0 for no blocks; default: 0 for exact chains, else a 16th of the window (paper: 128 of 2048)"""
    cut: Literal["uniform", "entropy"] = "uniform"
    """law of the cut: uniform (paper), or in proportion to the entropy of the next token, where answers part"""
    num_particles: int = 8
    """particles of smc, for each of the n answers"""

    # --- model and data ---
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """folder, Hugging Face id, or `toy` for the built-in miniature"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
    n: int = 16
    """answers a problem, each with a chain, or particles, of its own"""
    repeats: int = 1
    """independent runs, with seeds seed, seed + 1, ..."""
    seed: int = 1
    """seed of the first repeat"""
    max_total_tokens: int = 2048
    """longest prompt and response together, tokens"""
    prompt_file: str = ""
    """wording of the prompt, with {problem}; empty for the one that belongs to the data set"""
    examples_file: str = ""
    """worked examples (.jsonl with problem and solution) before every problem"""
    limit: int | None = None
    """only the first so many problems"""

    # --- speed and output ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM on a GPU, transformers on a CPU"""
    deterministic: bool = False
    """vllm: draw proposals by counter too: the same answers whatever else runs, as far as its kernels allow; slower"""
    num_grading_workers: int = 0
    """grading processes; 0 for one a core, at most 16"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, else results/<model>"""

    def __post_init__(self):
        if min(self.n, self.repeats, self.num_particles) < 1 or min(self.num_moves, self.block_size or 0) < 0:
            raise ValueError("--n, --repeats, --num-particles must be at least 1, --num-moves, --block-size at least 0")
        if math.isinf(self.alpha):
            raise ValueError("--alpha must be finite; for the most likely answer use beam_eval.py.")
        if self.mode != "exact" and (self.method == "smc" or self.cut == "entropy"):
            raise ValueError(f"--mode {self.mode} has Markov chains and uniform cuts: leave out --method and --cut.")
        if self.block_size is None:
            self.block_size = 0 if (self.mode, self.method) == ("exact", "mh") else max(1, self.max_total_tokens // 16)


# --- the method -------------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """A chain, or a particle: its answer and how it came to it."""

    index: int
    y: Sample = field(default_factory=Sample)
    moves: int = 0
    accepted: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    lengths: list[int] = field(default_factory=list)  # |y| after each block's draw and each move
    log_z: float = 0.0  # smc: log of the unbiased estimate of sum_y p(y)^alpha
    effective_particles: float = 1.0  # smc: at the end


def cut_weights(y: Sample, law: str) -> list[float]:
    """The law of the cut, not normalised: a weight for each place of y that hangs on the tokens before it only."""
    return [1.0] * len(y.tokens) if law == "uniform" else [max(h, LEAST_WEIGHT) for h in y.entropy]


def draw_cut(y: Sample, law: str, u: float) -> int:
    """The cut m that a uniform number chooses."""
    cumulative = np.cumsum(cut_weights(y, law))
    return min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), len(y.tokens) - 1)


def log_acceptance(y: Sample, z: Sample, m: int, mode: str, alpha: float, law: str = "uniform") -> float:
    """log A of the move from y to z, which agree in their first m tokens."""
    size_y, size_z = sum(cut_weights(y, law)), sum(cut_weights(z, law))  # |y| and |z| if uniform
    if mode == "exact":
        return sum(z.log_z[m:]) - sum(y.log_z[m:]) + math.log(size_y) - math.log(size_z)
    if mode == "karan-du":
        return sum(z.log_z[m:]) - sum(y.log_z[m : len(z.tokens)])
    log_p_ratio = alpha * (sum(z.logp[m:]) - sum(y.logp[m:]))
    log_q_ratio = log_p_ratio - (sum(z.log_z[m:]) - sum(y.log_z[m:]))
    return log_p_ratio - log_q_ratio if mode == "mh-llm-signfix" else log_p_ratio + log_q_ratio


class Task:
    """Chains that wait for one another: one; in mh-llm's modes the n of a problem; for smc the particles of an answer.

    `steps` yields the proposals it waits for and takes their samples (common/tasks.py). Every random number is that of
    a counter (seed, step, problem, chain), so what runs beside a task changes nothing.
    """

    def __init__(self, args: Args, seed: int, stop_ids: list[int], problem_id: str, prompt: list[int], indices):
        self.args, self.seed, self.prompt, self.stop_ids = args, seed, prompt, stop_ids
        self.word = problem_word(problem_id)
        self.name = f"{self.word:016x}-{indices[0]}"
        self.room = args.max_total_tokens - len(prompt)
        self.block_size = args.block_size or self.room
        one_more = args.mode.startswith("mh-llm") and args.block_size > 0
        self.num_blocks = math.ceil(self.room / self.block_size) + one_more
        self.num_steps = self.num_blocks * (1 + args.num_moves if args.method == "mh" else 1)
        self.step = 0  # whose numbers plain sampling takes
        self.chains = [Chain(i) for i in indices]
        self.steps = self.metropolis() if args.method == "mh" else self.smc()

    def finished(self, chain: Chain) -> bool:
        return bool(chain.y.tokens) and chain.y.tokens[-1] in self.stop_ids

    def uniforms(self, chain: Chain, count: int, stream: int) -> np.ndarray:
        return uniforms(self.seed, self.step, self.word, chain.index, count, f"power {stream}")

    def propose(self, asked: list[tuple[Chain, int, int]]) -> Iterator[list[Request]]:
        """For each (chain, cut, end) the chain's answer with all from its cut on drawn anew from q, up to that end."""
        law = dict(temperature=1 / self.args.alpha, entropy=self.args.cut == "entropy")
        requests = [
            Request((self.name, i), self.prompt + c.y.tokens[:m], end - m, numbers=self.uniforms(c, end - m, 0), **law)
            for i, (c, m, end) in enumerate(asked)
        ]
        samples = (yield requests) if requests else []
        for (chain, _, _), sample in zip(asked, samples, strict=True):
            chain.generated_tokens += len(sample.tokens)
            chain.cached_tokens += sample.cached_tokens
        return [sample.after(chain.y, m) for (chain, m, _), sample in zip(asked, samples, strict=True)]

    def extend(self, chains: list[Chain], end_of) -> Iterator[list[Request]]:
        """Draws the next block of each chain from q, up to the length end_of(|y|)."""
        self.step += 1
        asked = [(chain, len(chain.y.tokens), min(end_of(len(chain.y.tokens)), self.room)) for chain in chains]
        for chain, y in zip(chains, (yield from self.propose(asked)), strict=True):
            chain.y = y
            chain.lengths.append(len(y.tokens))

    def metropolis(self) -> Iterator[list[Request]]:
        mode, alpha, law, B = self.args.mode, self.args.alpha, self.args.cut, self.block_size
        exact, pushed, remaining = mode == "exact", mode.startswith("mh-llm"), list(self.chains)
        for block in range(1, self.num_blocks + 1):
            cap = min(block * B, self.room)
            growing = [c for c in remaining if len(c.y.tokens) < self.room and (pushed or not self.finished(c))]
            yield from self.extend(growing, lambda size, cap=cap: cap if exact else size + B)
            for _ in range(self.args.num_moves if remaining else 0):
                self.step += 1
                numbers = [self.uniforms(chain, 2, 1) for chain in remaining]  # for the cut, and for the acceptance
                cuts = [draw_cut(c.y, law, u) for c, (u, _) in zip(remaining, numbers, strict=True)]
                asked = [(c, m, cap if exact else len(c.y.tokens)) for c, m in zip(remaining, cuts, strict=True)]
                proposals = yield from self.propose(asked)
                for (chain, m, _), z, (_, u) in zip(asked, proposals, numbers, strict=True):
                    chain.moves += 1
                    if u < math.exp(min(0.0, log_acceptance(chain.y, z, m, mode, alpha, law))):
                        chain.accepted += 1
                        chain.y = z
                    chain.lengths.append(len(chain.y.tokens))
            for chain in remaining:
                if not exact and self.finished(chain):
                    remaining.remove(chain)  # from the list that is being walked, as published: it skips one

    def smc(self) -> Iterator[list[Request]]:
        (answer,), N = self.chains, self.args.num_particles
        particles, start = [Chain(answer.index * N + j) for j in range(N)], np.zeros(N)
        for block in range(1, self.num_blocks + 1):
            yield from self.extend([p for p in particles if not self.finished(p)], lambda size: size + self.block_size)
            log_w = np.array([sum(p.y.log_z) for p in particles]) - start  # p^alpha / q since the last resampling
            w = np.exp(log_w - log_w.max())
            answer.effective_particles = float(w.sum() ** 2 / (w**2).sum())
            last = block == self.num_blocks or all(map(self.finished, particles))
            if last or answer.effective_particles < N / 2:
                answer.log_z += float(log_w.max() + math.log(w.mean()))
                points = (np.arange(1 if last else N) + self.uniforms(answer, 1, 1)) / (1 if last else N)
                drawn = np.searchsorted(np.cumsum(w) / w.sum(), points, side="right").clip(max=N - 1)
                for particle, y in zip(particles, [particles[j].y for j in drawn], strict=False):
                    particle.y = y
                start = np.array([sum(p.y.log_z) for p in particles])
            if last:
                break
        answer.y, answer.lengths = particles[0].y, [len(particles[0].y.tokens)]
        answer.generated_tokens = sum(p.generated_tokens for p in particles)
        answer.cached_tokens = sum(p.cached_tokens for p in particles)


# --- the program ------------------------------------------------------------------------------------------------------


def report(name: str, records: list[dict], plain: dict[str, dict], n: int) -> list[dict]:
    """Prints a table with plain sampling first, and the tokens that each spent; gives its rows."""
    rows = [{"row": row, "tokens_per_answer": m["authors"]["response_length"]} | m for row, m in plain.items()]
    moves, accepted = (sum(sum(record["chains"][key]) for record in records) for key in ("moves", "accepted"))
    spent = sum(record["generated_tokens"] for record in records) / len(records) / n
    rows.append({"row": name} | summarise(records)["metrics"] | {"tokens_per_answer": spent})
    rows[-1]["acceptance"] = accepted / moves if moves else None
    print_table([(row["row"], row) for row in rows], n)
    print("tokens generated an answer:", ", ".join(f"{row['row']} {row['tokens_per_answer']:,.0f}" for row in rows))
    print(f"acceptance {accepted / moves:.3f} of {moves:,} moves" if moves else "no moves")
    return rows


def main(args: Args, sampler=None) -> list[dict]:
    """Gives the rows of the reports. `sampler` stands in for the one that would be started."""
    device = start_processes(args.seed)
    model, folder = resolve_model(args.model), results_dir(args.model, args.output_dir)
    tokenizer = AutoTokenizer.from_pretrained(model)
    law = ("smc" if args.method == "smc" else args.mode) + "_entropy_cut" * (args.cut == "entropy")
    name = f"power_{law}_alpha{args.alpha:g}"
    keys = ("model", "alpha", "mode", "method", "num_moves", "block_size", "cut", "num_particles", "n")
    settings = {key: getattr(args, key) for key in (*keys, "max_total_tokens", "sampler", "deterministic")}
    work = defaultdict(list)  # by data set: the repeats
    for problems, prompts, what in load_datasets(tokenizer, args):
        stem = f"{name}__{problems[0].dataset}__n{args.n}"
        for seed in range(args.seed, args.seed + args.repeats):
            path = folder / f"{stem}__seed{seed}.json"
            file = ResponsesFile(path, settings | what | {"seed": seed}, dist.get_rank())
            work[stem].append((problems, prompts, path, file))
    if sampler is None:
        engine = dict(stop_ids=stop_token_ids(model, tokenizer), device=device, max_num_seqs=512)
        engine |= dict(requests=True, deterministic=args.deterministic)
        sampler = start_sampler(args.sampler, model, args.max_total_tokens, **engine)
    together = args.n if args.mode.startswith("mh-llm") else 1
    groups = [range(i, i + together) for i in range(0, args.n, together)]
    at_once = sampler.capacity(args.max_total_tokens) // (args.num_particles if args.method == "smc" else together)
    shared = {f.name: getattr(args, f.name) for f in fields(evaluate.Args) if hasattr(args, f.name)}
    plain = {}
    for t in dict.fromkeys((1.0, 1 / args.alpha)):
        print(f"plain sampling, T = {t:g}", flush=True)
        changes = dict(temperature=t, output_dir=str(folder / f"plain_T{t:g}"))
        plain[f"plain T={t:g}"] = evaluate.main(evaluate.Args(**shared | changes), sampler)
    with Grader(args.num_grading_workers) as grader:
        for problems, prompts, path, file in itertools.chain(*work.values()):
            done, new = file.records(), partial(Task, args, file.settings["seed"], sampler.stop_ids)
            mine = list(zip(problems, prompts, strict=True))[dist.get_rank() :: dist.get_world_size()]
            todo = [(p, prompt, [new(p.id, prompt, g) for g in groups]) for p, prompt in mine if p.id not in done]
            sample_problems(sampler, tokenizer, grader, todo, at_once, path, file)
    dist.barrier()  # every process has written its problems
    rows = []
    for i, (stem, repeats) in enumerate(work.items() if dist.get_rank() == 0 else ()):
        records = []
        for problems, _, path, file in repeats:
            found = file.records()
            own = [found[problem.id] for problem in problems]
            write_results(path, own, method=name, settings=file.settings)
            shutil.rmtree(path.with_suffix(".moves"))
            records += own
        rows += (own := report(name, records, {row: found[i]["metrics"] for row, found in plain.items()}, args.n))
        write_json(folder / f"{stem}__report.json", {"stem": stem, "rows": own})
        print(f"results in {folder}")
    return rows


if __name__ == "__main__":
    start(main, Args)
