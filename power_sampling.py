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

Every run also samples plainly at temperature 1 and 1/alpha and reports what each spent. In the results folder:
    plain_T1/  plain_T0.25/                         by common/evaluate.py
    power_exact_alpha4__math500__n16__seed1.json    like those, and in `chains`, per chain: moves, accepted, generated
        and .responses.jsonl                        and cached tokens, the length after each move
    power_exact_alpha4__math500__n16__seed1.moves/  what unfinished chains have drawn: an interrupted run goes on there
    power_exact_alpha4__math500__n16__report.json   the table that is printed
"""

import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from common import evaluate
from common.data import fit_window, load_problems, prompt_file_of, prompt_hash, render_prompts
from common.evaluate import ResponsesFile, grade_records, new_record, print_table, results_dir, summarise, write_results
from common.grading import Grader
from common.logz import Request, Sample
from common.rollout import Rollout, problem_word, start_sampler, stop_token_ids, uniforms
from common.run import Positive, resolve_model, start, start_processes, write_json
from common.tasks import Journal, Progress, run_tasks

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
    """tokens, 0 for no blocks; default: 0 for exact chains, whose moves then are all of whole answers, else a 16th of
    the window as in the paper (128 of 2048)"""
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
    prompt_file: str | None = None
    """wording of the prompt, with {problem} in it; default: the data set's own"""
    examples_file: str | None = None
    """worked examples that go before the problem (.jsonl with problem and solution)"""
    limit: int | None = None
    """only the first so many problems"""

    # --- speed and output ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto is vllm on a GPU"""
    live_chains: int = 0
    """chains that run at the same time; 0 for as many as the sampler's cache holds, so that prefixes are still there"""
    deterministic: bool = False
    """vllm: draw proposals by counter too: the same answers whatever else runs, as far as its kernels allow; slower"""
    num_grading_workers: int = 0
    """grading processes; 0 for one a core, at most 16"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, else results/<model>"""

    def __post_init__(self):
        if min(self.n, self.repeats, self.num_particles) < 1:
            raise ValueError("--n, --repeats and --num-particles must be at least 1.")
        if min(self.num_moves, self.block_size or 0, self.live_chains) < 0:
            raise ValueError("--num-moves, --block-size and --live-chains must be at least 0.")
        if not 0 < self.alpha < math.inf:
            raise ValueError(
                f"--alpha {self.alpha} must be above 0 and finite; for the most likely answer use beam_eval.py."
            )
        if self.mode != "exact" and (self.method == "smc" or self.cut == "entropy"):
            raise ValueError(f"--mode {self.mode} has Markov chains and uniform cuts: leave out --method and --cut.")
        if self.block_size is None:
            self.block_size = 0 if (self.mode, self.method) == ("exact", "mh") else max(1, self.max_total_tokens // 16)


# --- the method -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A response and what the sampler said at each of its tokens, nats."""

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    log_z: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)

    def redrawn(self, m: int, sample: Sample) -> "Answer":
        """The answer with all from place m on replaced by a sample."""
        keys = ("tokens", "logp", "log_z", "entropy")
        return Answer(*(getattr(self, key)[:m] + getattr(sample, key) for key in keys))


@dataclass
class Chain:
    """A chain, or a particle: its answer and how it came to it."""

    index: int
    y: Answer = field(default_factory=Answer)
    moves: int = 0
    accepted: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    lengths: list[int] = field(default_factory=list)  # |y| after each block's draw and each move
    log_z: float = 0.0  # smc: log of the unbiased estimate of sum_y p(y)^alpha
    effective_particles: float = 1.0  # smc: at the end


def cut_weights(y: Answer, law: str) -> list[float]:
    """The law of the cut, not normalised: a weight for each place of y that hangs on the tokens before it only."""
    return [1.0] * len(y.tokens) if law == "uniform" else [max(h, LEAST_WEIGHT) for h in y.entropy]


def draw_cut(y: Answer, law: str, u: float) -> int:
    """The cut m that a uniform number chooses."""
    cumulative = np.cumsum(cut_weights(y, law))
    return min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), len(y.tokens) - 1)


def log_acceptance(y: Answer, z: Answer, m: int, mode: str, alpha: float, law: str = "uniform") -> float:
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

    `requests` are the proposals it waits for, `advance` takes their samples (common/tasks.py). Every random number is
    that of a counter (seed, step, problem, chain), so what runs beside a task changes nothing.
    """

    def __init__(self, args: Args, seed: int, problem_id: str, prompt: list[int], stop_ids: list[int], indices) -> None:
        self.args, self.seed, self.prompt, self.stop_ids = args, seed, prompt, stop_ids
        self.problem_id, self.word = problem_id, problem_word(problem_id)
        self.name = f"{self.word:016x}-{indices[0]}"
        self.room = args.max_total_tokens - len(prompt)
        self.block_size = args.block_size or self.room
        one_more = args.mode.startswith("mh-llm") and args.block_size > 0
        self.num_blocks = math.ceil(self.room / self.block_size) + one_more
        self.chains = [Chain(i) for i in indices]
        self.step = 0  # the proposals of step 0 would be those of plain sampling
        self.steps = self.metropolis() if args.method == "mh" else self.smc()
        self.requests: list[Request] = next(self.steps)

    def advance(self, samples: list[Sample]) -> None:
        try:
            self.requests = self.steps.send(samples)
        except StopIteration:
            self.requests = []

    def tally(self) -> Counter:
        num_steps = self.num_blocks * (1 + (self.args.num_moves if self.args.method == "mh" else 0))
        done = Counter(share=self.step / num_steps if self.requests else 1.0)
        for chain in self.chains:
            done += Counter(moves=chain.moves, accepted=chain.accepted)
        return done

    def finished(self, chain: Chain) -> bool:
        return bool(chain.y.tokens) and chain.y.tokens[-1] in self.stop_ids

    def uniforms(self, chain: Chain) -> np.ndarray:
        """Two numbers for this step of a chain: one for the cut, one for the acceptance."""
        return uniforms(self.seed, self.step, self.word, chain.index, 2, stream=1)

    def propose(self, chains: list[Chain], cuts: list[int], ends: list[int]) -> Iterator[list[Request]]:
        """Each chain's answer with all from its cut on drawn anew from q, up to a length."""
        requests = []
        for place, (chain, m, end) in enumerate(zip(chains, cuts, ends, strict=True)):
            numbers = uniforms(self.seed, self.step, self.word, chain.index, end - m)
            law = dict(temperature=1 / self.args.alpha, numbers=numbers, entropy=self.args.cut == "entropy")
            requests.append(Request((self.name, place), self.prompt + chain.y.tokens[:m], end - m, **law))
        samples = (yield requests) if requests else []
        for chain, sample in zip(chains, samples, strict=True):
            chain.generated_tokens += len(sample.tokens)
            chain.cached_tokens += sample.cached_tokens
        return [chain.y.redrawn(m, sample) for chain, m, sample in zip(chains, cuts, samples, strict=True)]

    def extend(self, chains: list[Chain], ends: list[int]) -> Iterator[list[Request]]:
        """Draws the next block of each chain from q."""
        self.step += 1
        longer = yield from self.propose(chains, [len(chain.y.tokens) for chain in chains], ends)
        for chain, y in zip(chains, longer, strict=True):
            chain.y = y
            chain.lengths.append(len(y.tokens))

    def metropolis(self) -> Iterator[list[Request]]:
        mode, remaining = self.args.mode, list(self.chains)
        exact, pushed = mode == "exact", mode.startswith("mh-llm")
        for block in range(1, self.num_blocks + 1):
            cap = min(block * self.block_size, self.room)
            growing = [c for c in remaining if len(c.y.tokens) < self.room and (pushed or not self.finished(c))]
            longer = [min(len(c.y.tokens) + self.block_size, self.room) for c in growing]
            yield from self.extend(growing, [cap] * len(growing) if exact else longer)
            for _ in range(self.args.num_moves if remaining else 0):
                self.step += 1
                numbers = [self.uniforms(chain) for chain in remaining]
                cuts = [draw_cut(c.y, self.args.cut, u[0]) for c, u in zip(remaining, numbers, strict=True)]
                ends = [cap if exact else len(c.y.tokens) for c in remaining]
                proposals = yield from self.propose(remaining, cuts, ends)
                for chain, m, z, u in zip(remaining, cuts, proposals, numbers, strict=True):
                    chain.moves += 1
                    log_a = log_acceptance(chain.y, z, m, mode, self.args.alpha, self.args.cut)
                    if u[1] < math.exp(min(0.0, log_a)):
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
            growing = [p for p in particles if not self.finished(p)]
            yield from self.extend(growing, [min(block * self.block_size, self.room)] * len(growing))
            log_w = np.array([sum(p.y.log_z) for p in particles]) - start  # p^alpha / q since the last resampling
            w = np.exp(log_w - log_w.max())
            answer.effective_particles = float(w.sum() ** 2 / (w**2).sum())
            last = block == self.num_blocks or all(map(self.finished, particles))
            if last or answer.effective_particles < N / 2:
                answer.log_z += float(log_w.max() + math.log(w.mean()))
                points = (np.arange(1 if last else N) + self.uniforms(answer)[0]) / (1 if last else N)
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


def sample_dataset(sampler, tokenizer, grader: Grader, problems, prompts, args: Args, file: ResponsesFile) -> None:
    """Runs the chains of this process's problems that the file lacks; a problem is written when its last chain ends."""
    done, rank, world = file.records(), dist.get_rank(), dist.get_world_size()
    mine = zip(problems[rank::world], prompts[rank::world], strict=True)
    todo = {problem.id: (problem, prompt) for problem, prompt in mine if problem.id not in done}
    together = args.n if args.mode.startswith("mh-llm") else 1
    groups = [range(first, first + together) for first in range(0, args.n, together)]
    seed, stop_ids = file.settings["seed"], sampler.stop_ids
    tasks = (Task(args, seed, p.id, prompt, stop_ids, group) for p, prompt in todo.values() for group in groups)
    live = args.live_chains or sampler.capacity(args.max_total_tokens)
    at_once = max(1, live // (args.num_particles if args.method == "smc" else together))
    stem = file.path.stem.replace(".responses", "")
    journal, progress = Journal(file.folder / f"{stem}.moves"), Progress(stem, len(todo) * len(groups))
    taken_up = sum(path.stat().st_size for path in journal.folder.iterdir()) + len(done)
    torch.manual_seed(problem_word(f"{seed} {taken_up}"))  # for vLLM; a run taken up must not draw the same again
    ended = defaultdict(list)

    def write(tasks: list[Task], seconds: float) -> None:
        problem, prompt = todo[tasks[0].problem_id]
        chains = sorted((chain for task in tasks for chain in task.chains), key=lambda chain: chain.index)
        tokens, token_logp = [chain.y.tokens for chain in chains], [chain.y.logp for chain in chains]
        finished = [response[-1] in stop_ids for response in tokens]
        texts = Rollout([prompt], tokens, token_logp, finished, args.n).texts(tokenizer, stop_ids)
        costs = dict(seconds=seconds, generated_tokens=sum(chain.generated_tokens for chain in chains))
        record = new_record(problem, prompt, texts, [*map(len, tokens)], finished, [*map(sum, token_logp)], **costs)
        record["chains"] = {f.name: [getattr(chain, f.name) for chain in chains] for f in fields(Chain)[2:]}
        grade_records(grader, [problem], [record])
        file.append([record])
        for task in tasks:
            journal.path(task).unlink(missing_ok=True)

    with ThreadPoolExecutor(1) as beside:  # a hard case for the grader should not hold up the sampler
        written, last = [], time.perf_counter()
        for task in run_tasks(sampler, tasks, at_once, journal, progress):
            ended[task.problem_id].append(task)
            if len(ended[task.problem_id]) == len(groups):
                now = time.perf_counter()
                written.append(beside.submit(write, ended.pop(task.problem_id), now - last))
                last = now
        for future in written:
            future.result()
    if journal.folder.exists() and not any(journal.folder.iterdir()):
        shutil.rmtree(journal.folder, ignore_errors=True)


def plain_sampling(sampler, args: Args, temperature: float) -> list[dict]:
    """Summaries by data set of the same n answers a problem, drawn plainly, by common/evaluate.py."""
    shared = {f.name: getattr(args, f.name) for f in fields(evaluate.Args) if hasattr(args, f.name)}
    shared["output_dir"] = str(results_dir(args.model, args.output_dir) / f"plain_T{temperature:g}")
    return evaluate.main(evaluate.Args(**shared, temperature=temperature), sampler)


def main(args: Args, sampler=None) -> list[dict]:
    """Runs, prints and writes the report; gives its rows. `sampler` stands in for the one that would be started."""
    device = start_processes(args.seed)
    model, folder = resolve_model(args.model), results_dir(args.model, args.output_dir)
    tokenizer = AutoTokenizer.from_pretrained(model)
    cut = "_entropy_cut" if args.cut == "entropy" else ""
    name = f"power_{'smc' if args.method == 'smc' else args.mode}{cut}_alpha{args.alpha:g}"
    elsewhere = {"dataset", "repeats", "seed", "limit", "prompt_file", "examples_file", "output_dir"}
    settings = {k: v for k, v in vars(args).items() if k not in elsewhere | {"live_chains", "num_grading_workers"}}
    work = []
    for dataset in args.dataset:  # all that can be wrong with the input comes up here, before the model is loaded
        prompt_file, problems = args.prompt_file or prompt_file_of(dataset), load_problems(dataset)[: args.limit]
        prompts = render_prompts(tokenizer, problems, prompt_file, args.examples_file)
        problems, prompts = fit_window(problems, prompts, args.max_total_tokens)
        stem = f"{name}__{problems[0].dataset}__n{args.n}"
        more = {"dataset": problems[0].dataset, "prompt_hash": prompt_hash(prompt_file, args.examples_file)}
        for seed in range(args.seed, args.seed + args.repeats):
            path = folder / f"{stem}__seed{seed}.json"
            file = ResponsesFile(path, settings | more | {"seed": seed}, dist.get_rank())
            work.append((stem, problems, prompts, path, file))
    width = args.num_particles if args.method == "smc" else args.n
    engine = dict(device=device, requests=True, deterministic=args.deterministic)
    engine |= dict(stop_ids=stop_token_ids(model, tokenizer), max_num_seqs=max(256, width, args.live_chains))
    sampler = sampler or start_sampler(args.sampler, model, args.max_total_tokens, **engine)
    plain = {t: plain_sampling(sampler, args, t) for t in dict.fromkeys((1.0, 1 / args.alpha))}
    with Grader(args.num_grading_workers) as grader:
        for _, problems, prompts, _, file in work:
            sample_dataset(sampler, tokenizer, grader, problems, prompts, args, file)
    dist.barrier()  # every process has written its problems
    if dist.get_rank():
        return []
    records, report = defaultdict(list), []
    for stem, problems, _, path, file in work:
        found = file.records()
        records[stem] += (own := [found[problem.id] for problem in problems])
        write_results(path, own, method=name, settings=file.settings)
    for i, (stem, own) in enumerate(records.items()):
        moves, accepted = (sum(sum(record["chains"][key]) for record in own) for key in ("moves", "accepted"))
        rows = [{"row": f"plain T={t:g}", **summaries[i]["metrics"]} for t, summaries in plain.items()]
        for row in rows:
            row["tokens_per_answer"] = row["authors"]["response_length"]
        spent = sum(record["generated_tokens"] for record in own) / len(own) / args.n
        cost = {"tokens_per_answer": spent, "acceptance": accepted / moves if moves else None}
        rows.append({"row": name, **summarise(own)["metrics"]} | cost)
        print_table([(row["row"], row) for row in rows], args.n)
        costs = ", ".join(f"{row['row']} {row['tokens_per_answer']:,.0f}" for row in rows)
        print(f"tokens generated an answer: {costs}")
        print(f"acceptance {accepted / moves:.3f} of {moves:,} moves" if moves else "no moves")
        write_json(folder / f"{stem}__report.json", {"stem": stem, "rows": rows})
        report += rows
    print(f"results in {folder}")
    return report


if __name__ == "__main__":
    start(main, Args)
