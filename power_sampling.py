"""Power sampling: answers drawn from pi_base^alpha / Z without training, by Metropolis-Hastings over whole answers.

    python power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --dataset math500 --n 16
    python power_sampling.py --model toy --dataset toy_test --max-total-tokens 128 --alpha 2      (any machine)

A chain holds one answer y. A move keeps y_<m for a random cut m and draws the rest anew from q, the model at
temperature 1/alpha, until it stops or fills the window. The new answer z is accepted with probability min(1, A), where

    log A = sum_{t=m}^{|z|-1} log Z(z_<t) - sum_{t=m}^{|y|-1} log Z(y_<t) + log|y| - log|z|,   Z(h) = sum_v p(v|h)^alpha

since p^alpha / q = Z at every token; |y| counts the stop token. Answers that fill the window without a stop token are
answers too. This leaves pi(y) ~ p(y)^alpha invariant. Modes, named in every output:

    exact           as above. With blocks of B tokens, block k draws and moves up to length k B, and every chain goes
                    through all blocks
    karan-du        Karan & Du's program: a proposal ends at |y|, log Z is summed over the overlap of y and z, |y| / |z|
                    is missing, and a chain that is finished after a block stops there
    mh-llm          the program of the paper as it was published: a proposal ends at |y|, the ratio of q is inverted,
                    |y| / |z| is missing, and there is one block more. Finished chains are removed after each block,
                    but the chain after a removed one is skipped: if it is finished as well, it stays and runs past its
                    stop token
    mh-llm-signfix  the same with the ratio of q the right way up

The last three do not leave pi invariant. They are here to reproduce published rows and to show what the difference
costs. Not reproduced: their single stop token, top-k 50 in Karan & Du's proposals, grading beyond the stop token.
--method smc instead draws --num-particles answers from q, weighs them by Z, resamples them after blocks in which the
weights have become unequal, and takes one of the last by weight. With --block-size 0 that is importance resampling.

Every run also samples plainly at temperature 1 and 1/alpha. Files, where X is power_exact_alpha4__math500__n16:

    plain_T1/  plain_T0.25/                       as common/evaluate.py writes them
    X__seed1.json  X__seed1.responses.jsonl       the same, and for each chain the fields of `Chain`, in `chains`
    X__seed1.moves/                               the journal: samples of unfinished chains, from which an interrupted
                                                  run continues
    X__report.json                                the table that is printed: accuracies, and tokens for each answer
    summary.json                                  one row per data set, as in common/evaluate.py
"""

import json
import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.distributed as dist

from common import evaluate
from common.data import Problem, load_datasets, load_tokenizer
from common.evaluate import ResponsesFile, grade_records, new_record, print_table, results_dir, write_results
from common.grading import Grader
from common.rollout import Request, Rollout, Sample, problem_word, start_sampler, stop_token_ids, uniforms
from common.run import resolve_model, start, start_processes, write_json
from common.run.arguments import (
    AtLeastTwo,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Workers,
    check_arguments,
)

LEAST_WEIGHT = 1e-3  # nats: with --cut entropy, places where the model has no doubt are still cut now and then


@dataclass
class Args:
    # --- method ---
    alpha: PositiveFloat = 4.0
    """power of the base model in the target (paper: 1, 1.25, 2, 4); proposals have temperature 1/alpha"""
    mode: Literal["exact", "karan-du", "mh-llm", "mh-llm-signfix"] = "exact"
    """exact, or a published program with its defects"""
    method: Literal["mh", "smc"] = "mh"
    """mh: Markov chains; smc: particles"""
    num_moves: NonNegativeInt = 10
    """moves per block, or in all without blocks (paper: 10); more come nearer to the target and cost in proportion"""
    block_size: NonNegativeInt | None = None
    """tokens, 0 for no blocks; default: 0 for exact chains, otherwise a 16th of the window (paper: 128 of 2048)"""
    cut: Literal["uniform", "entropy"] = "uniform"
    """distribution of the cut: uniform (paper), or in proportion to the entropy of the next token"""
    num_particles: PositiveInt = 8
    """smc: particles for each of the n answers"""

    # --- model and data ---
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """folder, Hugging Face id, or `toy` for the built-in miniature"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
    n: PositiveInt = 16
    """answers per problem, each with a chain, or particles, of its own"""
    repeats: PositiveInt = 1
    """independent runs, with seeds seed, seed + 1, ..."""
    seed: Seed = 1
    """seed of the first repeat"""
    max_total_tokens: AtLeastTwo = 2048
    """longest prompt and response together, tokens"""
    prompt_file: str = ""
    """wording of the prompt, with {problem} in it; empty for the one that belongs to the data set"""
    examples_file: str = ""
    """worked examples (.jsonl with problem and solution) that go before every problem"""
    system_prompt: str = ""
    """system turn to put before the conversation; empty for the chat template's own"""
    chat_template_kwargs: str = ""
    """arguments for the chat template as a JSON object, such as '{"enable_thinking": false}'"""
    limit: PositiveInt | None = None
    """use the first `limit` problems only"""

    # --- speed and output ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM on a GPU, transformers on a CPU"""
    gpu_memory_utilization: Share = 0.9
    """share of the GPU's memory that vLLM may take; less if other programs use the card"""
    deterministic: bool = False
    """vllm: choose tokens by counter too, so that answers do not depend on what else runs, up to rounding; slower"""
    num_grading_workers: Workers = 0
    """grading processes; 0 for one per core, at most 16"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, otherwise results/<model>"""

    def __post_init__(self):
        if math.isinf(self.alpha):
            raise ValueError("--alpha must be finite; for the most likely answer use beam_eval.py.")
        check_arguments(self)
        if self.mode != "exact" and (self.method == "smc" or self.cut == "entropy"):
            raise ValueError(f"--mode {self.mode} has Markov chains and uniform cuts: leave out --method and --cut.")
        if self.block_size is None:
            self.block_size = 0 if (self.mode, self.method) == ("exact", "mh") else max(1, self.max_total_tokens // 16)


# --- the method -------------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """A chain or a particle: its answer, and the statistics of how it got there."""

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
    """Returns a weight for each place of y: the distribution of the cut, not normalised. A weight depends only on the
    tokens before its place, so that y and a proposal have equal weights up to the cut."""
    if law == "uniform":
        return [1.0] * len(y.tokens)
    return [max(entropy, LEAST_WEIGHT) for entropy in y.entropy]


def draw_cut(y: Sample, law: str, u: float) -> int:
    """Returns the cut m that a uniform number u in [0, 1) chooses."""
    cumulative = np.cumsum(cut_weights(y, law))
    return min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), len(y.tokens) - 1)


def log_acceptance(y: Sample, z: Sample, m: int, mode: str, alpha: float, law: str = "uniform") -> float:
    """Returns log A of the move from y to z, which agree in their first m tokens."""
    size_y, size_z = sum(cut_weights(y, law)), sum(cut_weights(z, law))  # |y| and |z| if the cut is uniform
    if mode == "exact":
        return sum(z.log_z[m:]) - sum(y.log_z[m:]) + math.log(size_y) - math.log(size_z)
    if mode == "karan-du":  # over the overlap of y and z, without |y| / |z|
        return sum(z.log_z[m:]) - sum(y.log_z[m : len(z.tokens)])
    log_p_ratio = alpha * (sum(z.logp[m:]) - sum(y.logp[m:]))  # p(z)^alpha / p(y)^alpha
    log_q_ratio = log_p_ratio - (sum(z.log_z[m:]) - sum(y.log_z[m:]))  # q(z) / q(y), since p^alpha / q = Z
    if mode == "mh-llm-signfix":
        return log_p_ratio - log_q_ratio
    return log_p_ratio + log_q_ratio  # mh-llm: the ratio of q the wrong way up


Asked = tuple[Chain, int, int]  # a chain, the cut, and the length up to which its answer is drawn anew
Steps = Generator[list[Request], list[Sample], None]  # yields requests and is sent their samples


class ChainGroup:
    """The chains of a problem that wait for one another: one chain; in the mh-llm modes all n; for smc the particles of
    one answer.

    `steps` is a generator that yields lists of requests and is sent their samples in the same order, until the group is
    done. Its next requests depend only on earlier samples, and every random number comes from a counter (stream, seed,
    step, problem, chain). So replaying the journal restores a group, and what runs beside it changes nothing.
    """

    def __init__(
        self,
        args: Args,
        seed: int,
        stop_ids: list[int],
        problem_id: str,
        prompt: list[int],
        indices: range,
        stream: str = "power",
    ):
        self.args, self.seed, self.prompt, self.stop_ids, self.stream = args, seed, prompt, stop_ids, stream
        self.word = problem_word(problem_id)
        self.name = f"{self.word:016x}-{indices[0]}"  # also that of its file in the journal
        self.room = args.max_total_tokens - len(prompt)
        self.block_size = args.block_size or self.room
        one_more = args.mode.startswith("mh-llm") and bool(args.block_size)
        self.num_blocks = math.ceil(self.room / self.block_size) + one_more
        self.num_steps = self.num_blocks * (1 + args.num_moves if args.method == "mh" else 1)
        self.step = 0  # counts the draws
        self.chains = [Chain(i) for i in indices]
        kernel = self.smc if args.method == "smc" else self.exact if args.mode == "exact" else self.published
        self.steps = kernel()
        self.requests: list[Request] = []  # what it waits for; [] before its beginning and after its end

    def advance(self, samples: list[Sample] | None = None) -> None:
        """Sends the group the samples of its requests (None at its beginning) and takes its next requests."""
        try:
            self.requests = next(self.steps) if samples is None else self.steps.send(samples)
        except StopIteration:
            self.requests = []

    def finished(self, chain: Chain) -> bool:
        """Returns whether the chain's answer ends with a stop token."""
        return bool(chain.y.tokens) and chain.y.tokens[-1] in self.stop_ids

    def uniforms(self, chain: Chain, count: int, purpose: str) -> np.ndarray:
        """Returns `count` uniform numbers for the next draw of the chain."""
        return uniforms(self.seed, self.step, self.word, chain.index, count, f"{self.stream} {purpose}")

    def propose(self, asked: list[Asked]) -> Generator[list[Request], list[Sample], list[Sample]]:
        """Draws each chain's answer anew from q, from its cut on and up to length `end`. Yields the requests, is sent
        their samples, and returns the new answers."""
        requests = [
            Request(
                key=(self.name, place),
                prompt=self.prompt + chain.y.tokens[:cut],
                max_new_tokens=end - cut,
                temperature=1 / self.args.alpha,
                numbers=self.uniforms(chain, end - cut, "tokens"),
                entropy=self.args.cut == "entropy",
            )
            for place, (chain, cut, end) in enumerate(asked)
        ]
        samples = (yield requests) if requests else []
        for (chain, _, _), sample in zip(asked, samples, strict=True):
            chain.generated_tokens += len(sample.tokens)
            chain.cached_tokens += sample.cached_tokens
        return [sample.after(chain.y, cut) for (chain, cut, _), sample in zip(asked, samples, strict=True)]

    def extend(self, chains: list[Chain], end: int | None = None) -> Steps:
        """Draws the next tokens of each chain from q: up to the length `end`, or a block where it is None."""
        self.step += 1
        asked = []
        for chain in chains:
            size = len(chain.y.tokens)
            asked.append((chain, size, min(size + self.block_size, self.room) if end is None else end))
        answers = yield from self.propose(asked)
        for chain, y in zip(chains, answers, strict=True):
            chain.y = y
            chain.lengths.append(len(y.tokens))

    def move(self, chains: list[Chain], end: int | None = None) -> Steps:
        """Makes one Metropolis-Hastings move of each chain. Proposals are drawn up to length `end`, or |y| if None."""
        mode, alpha, law = self.args.mode, self.args.alpha, self.args.cut
        self.step += 1
        numbers = [self.uniforms(chain, 2, "moves") for chain in chains]  # one for the cut, one for the acceptance
        asked = [
            (chain, draw_cut(chain.y, law, u), len(chain.y.tokens) if end is None else end)
            for chain, (u, _) in zip(chains, numbers, strict=True)
        ]
        proposals = yield from self.propose(asked)
        for (chain, cut, _), z, (_, u) in zip(asked, proposals, numbers, strict=True):
            chain.moves += 1
            if u < math.exp(min(0.0, log_acceptance(chain.y, z, cut, mode, alpha, law))):
                chain.accepted += 1
                chain.y = z
            chain.lengths.append(len(chain.y.tokens))

    def exact(self) -> Steps:
        """Runs the exact kernel. Every chain goes through all blocks: freezing a chain at the first block in which it
        is finished would bias the result."""
        for block in range(1, self.num_blocks + 1):
            end = min(block * self.block_size, self.room)
            growing = [chain for chain in self.chains if len(chain.y.tokens) < end and not self.finished(chain)]
            yield from self.extend(growing, end)
            for _ in range(self.args.num_moves):
                yield from self.move(self.chains, end)

    def published(self) -> Steps:
        """Runs a published kernel: its proposals end at |y|, and chains that are finished after a block leave."""
        running = self.chains
        for _ in range(self.num_blocks):
            growing = [chain for chain in running if len(chain.y.tokens) < self.room]
            if self.args.mode == "karan-du":  # the other program also draws on after a stop token
                growing = [chain for chain in growing if not self.finished(chain)]
            yield from self.extend(growing)
            for _ in range(self.args.num_moves if running else 0):
                yield from self.move(running)
            running = self.without_finished(running)

    def without_finished(self, chains: list[Chain]) -> list[Chain]:
        """Returns the chains that go on after a block in the published programs.

        These remove finished chains from the list while they iterate over it. A removal moves the chains behind it one
        place forward, so the loop skips the next one, which stays in even if it is finished as well.
        """
        kept, skip = [], False
        for chain in chains:
            remove = self.finished(chain) and not skip
            skip = remove
            if not remove:
                kept.append(chain)
        return kept

    def smc(self) -> Steps:
        """Runs sequential Monte Carlo: draws blocks from q, and resamples when the weights have become so unequal that
        the effective number of particles is below half of their number."""
        (answer,), count = self.chains, self.args.num_particles
        particles = [Chain(answer.index * count + j) for j in range(count)]
        resampled_at = np.zeros(count)  # log Z of the particles' tokens at the last resampling
        for block in range(1, self.num_blocks + 1):
            yield from self.extend([particle for particle in particles if not self.finished(particle)])
            last = block == self.num_blocks or all(map(self.finished, particles))
            # The weight of a particle is p^alpha / q of its tokens since the last resampling.
            log_weights = np.array([sum(particle.y.log_z) for particle in particles]) - resampled_at
            weights = np.exp(log_weights - log_weights.max())
            answer.effective_particles = float(weights.sum() ** 2 / (weights**2).sum())
            if not last and answer.effective_particles >= count / 2:
                continue
            answer.log_z += float(log_weights.max() + math.log(weights.mean()))
            drawn = self.draw_by_weight(weights, 1 if last else count)
            answers = [particles[j].y for j in drawn]
            if last:
                answer.y, answer.lengths = answers[0], [len(answers[0].tokens)]
                break
            for particle, y in zip(particles, answers, strict=True):
                particle.y = y
            resampled_at = np.array([sum(particle.y.log_z) for particle in particles])
        answer.generated_tokens = sum(particle.generated_tokens for particle in particles)
        answer.cached_tokens = sum(particle.cached_tokens for particle in particles)

    def draw_by_weight(self, weights: np.ndarray, count: int) -> np.ndarray:
        """Returns the places of `count` particles, drawn in proportion to their weights by systematic resampling: one
        uniform number shifts `count` equally spaced points."""
        points = (np.arange(count) + self.uniforms(self.chains[0], 1, "resampling")) / count
        return np.searchsorted(np.cumsum(weights) / weights.sum(), points, side="right").clip(max=len(weights) - 1)


# --- running many groups on one sampler -------------------------------------------------------------------------------


class Journal:
    """The samples of unfinished groups, a file per group, appended to whenever a group goes on. An interrupted run
    replays them instead of sampling again.

    Raises ValueError if the folder was written with other settings.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.settings = folder, settings
        self.made_with = folder / "settings.json"
        if self.made_with.exists():
            evaluate.refuse_other_settings(folder, json.loads(self.made_with.read_text()), settings)

    def path(self, group: ChainGroup) -> Path:
        """Returns the group's file."""
        return self.folder / f"{group.name}.jsonl"

    def add(self, group: ChainGroup, samples: list[Sample]) -> None:
        """Appends the samples that a group is about to be sent."""
        if not self.made_with.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.made_with, self.settings)
        with self.path(group).open("a") as file:
            file.write(json.dumps([vars(sample) | {"key": None} for sample in samples]) + "\n")

    def replay(self, group: ChainGroup) -> None:
        """Takes a group that has just begun to the point where its namesake was interrupted."""
        path = self.path(group)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # the last line was cut off by a kill
            path.write_text("".join(whole))
        for line in whole:
            group.advance([Sample(**sample) for sample in json.loads(line)])


class Progress:
    """Prints a line every ten seconds and at the end: moves, acceptance, tokens per second, time left."""

    def __init__(self, title: str, num_groups: int):
        self.title, self.num_groups, self.tokens = title, num_groups, 0
        self.ended = np.zeros(3)  # the tallies of the groups that have ended, added up
        self.start = self.shown = time.perf_counter()
        self.share_before: float | None = None  # the share that an earlier start of the program has done

    @staticmethod
    def tally(group: ChainGroup) -> np.ndarray:
        """Returns the group's moves and accepted moves, and the share of its steps that is done."""
        moves, accepted = (sum(getattr(chain, key) for chain in group.chains) for key in ("moves", "accepted"))
        return np.array([moves, accepted, group.step / group.num_steps if group.requests else 1])

    def show(self, running: Iterable[ChainGroup]) -> None:
        """Prints the line if ten seconds have passed, or if no group is running any more."""
        now, running = time.perf_counter(), list(running)
        if self.share_before is not None and now - self.shown < 10 and running:
            return
        moves, accepted, shares = sum(map(self.tally, running), self.ended)
        share, seconds, self.shown = shares / max(1, self.num_groups), now - self.start, now
        if self.share_before is None:
            self.share_before = share
        elif share > self.share_before:
            left = seconds * (1 - share) / (share - self.share_before)
            acceptance = accepted / max(1, moves)
            print(
                f"{self.title}  {share:.1%}  {moves:,.0f} moves  acceptance {acceptance:.3f}  "
                f"{self.tokens / seconds:,.0f} tokens/s  left {left / 60:.1f} min",
                flush=True,
            )


def run_groups(sampler, groups: Iterable[ChainGroup], at_once: int, journal, progress: Progress) -> Iterator:
    """Yields the groups as they end; `at_once` of them run at a time.

    A group's next requests are submitted as soon as its last samples are judged, so that with vLLM no group waits for
    another. The transformers sampler samples everything that was submitted in one batch.
    """
    waiting = iter(groups)
    running: dict[str, ChainGroup] = {}
    arrived: dict[str, dict[int, Sample]] = {}  # by group, the samples of its requests so far
    ended: list[ChainGroup] = []

    def go_on(group: ChainGroup) -> None:
        if group.requests:
            running[group.name], arrived[group.name] = group, {}
            for request in group.requests:
                sampler.submit(request)
        else:
            running.pop(group.name, None)
            progress.ended += progress.tally(group)
            ended.append(group)

    while True:
        while len(running) < at_once and (group := next(waiting, None)):
            group.advance()
            journal.replay(group)
            go_on(group)
        progress.show(running.values())
        yield from ended
        ended.clear()
        if not running:
            return
        for sample in sampler.collect():
            name, place = sample.key
            group = running[name]
            arrived[name][place] = sample
            progress.tokens += len(sample.tokens)
            if len(arrived[name]) == len(group.requests):
                samples = [arrived[name][i] for i in range(len(group.requests))]
                journal.add(group, samples)
                group.advance(samples)
                go_on(group)


# --- the program ------------------------------------------------------------------------------------------------------


@dataclass
class Work:
    """One data set under one seed."""

    problems: list[Problem]
    prompts: list[list[int]]
    path: Path  # of the results file
    file: ResponsesFile
    journal: Journal


def record_of(problem: Problem, prompt: list[int], chains: list[Chain], seconds: float, tokenizer, stop_ids) -> dict:
    """Returns the record of common/evaluate.py, not yet graded, with the chains' fields except index and answer."""
    tokens, token_logp = [chain.y.tokens for chain in chains], [chain.y.logp for chain in chains]
    finished = [y[-1] in stop_ids for y in tokens]
    texts = Rollout([prompt], tokens, token_logp, finished, len(chains)).texts(tokenizer, stop_ids)
    columns = texts, [*map(len, tokens)], finished, [*map(sum, token_logp)]
    generated = sum(chain.generated_tokens for chain in chains)
    record = new_record(problem, prompt, *columns, seconds=seconds, generated_tokens=generated)
    names = [f.name for f in fields(Chain) if f.name not in ("index", "y")]
    return record | {"chains": {name: [getattr(chain, name) for chain in chains] for name in names}}


def sample_all(item: Work, args: Args, sampler, tokenizer, grader: Grader) -> None:
    """Runs the chains of this process's problems; a problem is written when its last group ends."""
    # In the mh-llm modes the chains of a problem share a group, because one that is removed affects the next.
    size = args.n if args.mode.startswith("mh-llm") else 1
    at_once = sampler.capacity(args.max_total_tokens) // (args.num_particles if args.method == "smc" else size)
    seed, done = item.file.settings["seed"], item.file.records()
    stream = f"power {item.problems[0].dataset}"
    groups_of: dict[str, list[ChainGroup]] = {}  # by problem id
    owner: dict[str, int] = {}  # by name of a group, the place of its problem
    for i in range(dist.get_rank(), len(item.problems), dist.get_world_size()):
        id = item.problems[i].id
        if id not in done:
            groups_of[id] = [
                ChainGroup(args, seed, sampler.stop_ids, id, item.prompts[i], range(first, first + size), stream)
                for first in range(0, args.n, size)
            ]
            owner |= {group.name: i for group in groups_of[id]}

    written = [path for path in (item.file.path, *item.journal.folder.glob("*")) if path.exists()]
    # For vLLM's proposals. A run that continues has written more bytes, so it does not repeat the numbers of its start.
    sampler.seed_requests(stream, seed, step=sum(path.stat().st_size for path in written))

    def write(i: int, seconds: float) -> None:
        problem = item.problems[i]
        groups = groups_of.pop(problem.id)  # which frees the memory of its samples
        chains = sorted((chain for group in groups for chain in group.chains), key=lambda chain: chain.index)
        record = record_of(problem, item.prompts[i], chains, seconds, tokenizer, sampler.stop_ids)
        grade_records(grader, [problem], [record])
        item.file.append([record])
        for group in groups:
            item.journal.path(group).unlink(missing_ok=True)

    num_ended: Counter[int] = Counter()  # by place of the problem, its groups that have ended
    writes, start = [], time.perf_counter()
    progress = Progress(item.path.stem, len(owner))
    groups = (group for some in list(groups_of.values()) for group in some)
    with ThreadPoolExecutor(1) as beside:  # a hard case for the grader should not hold up the sampler
        for group in run_groups(sampler, groups, max(1, at_once), item.journal, progress):
            i = owner[group.name]
            num_ended[i] += 1
            if num_ended[i] == args.n // size:
                seconds, start = time.perf_counter() - start, time.perf_counter()
                writes.append(beside.submit(write, i, seconds))
    for future in writes:
        future.result()  # raises what went wrong there


def report(name: str, records: list[dict], plain: dict[str, dict], n: int) -> list[dict]:
    """Prints a table with plain sampling first, and the tokens generated for each answer; returns its rows."""
    rows = [{"row": row, "tokens_per_answer": m["authors"]["response_length"]} | m for row, m in plain.items()]
    moves, accepted = (sum(sum(record["chains"][key]) for record in records) for key in ("moves", "accepted"))
    spent = sum(record["generated_tokens"] for record in records) / len(records) / n
    rows.append({"row": name} | evaluate.summarise(records)["metrics"] | {"tokens_per_answer": spent})
    rows[-1]["acceptance"] = accepted / moves if moves else None
    print_table([(row["row"], row) for row in rows], n)
    print("tokens generated per answer:", ", ".join(f"{row['row']} {row['tokens_per_answer']:,.0f}" for row in rows))
    print(f"acceptance {accepted / moves:.3f} of {moves:,} moves" if moves else "no moves")
    return rows


def main(args: Args, sampler=None, grader=None) -> list[dict]:
    """Samples, and returns the rows of the reports. A sampler or grader that is given is used instead of a new one, and
    left open."""
    device = start_processes(args.seed)
    model, folder = resolve_model(args.model, args.max_total_tokens), results_dir(args.model, args.output_dir)
    tokenizer = load_tokenizer(model)
    stop_ids = stop_token_ids(model, tokenizer)
    kind = ("smc" if args.method == "smc" else args.mode) + "_entropy_cut" * (args.cut == "entropy")
    name = f"power_{kind}_alpha{args.alpha:g}"
    keys = ("alpha", "mode", "method", "num_moves", "block_size", "cut", "num_particles", "n")
    settings = evaluate.identity(args.model, model, stop_ids)
    settings |= {key: getattr(args, key) for key in (*keys, "max_total_tokens", "sampler", "deterministic")}
    work: dict[str, list[Work]] = defaultdict(list)  # by stem of the files: the repeats of a data set
    for problems, prompts, what in list(load_datasets(tokenizer, args)):
        stem = f"{name}__{what['dataset']}__n{args.n}"
        for seed in range(args.seed, args.seed + args.repeats):
            path = folder / f"{stem}__seed{seed}.json"
            file = ResponsesFile(path, settings | what | {"seed": seed}, len(problems), dist.get_rank())
            journal = Journal(path.with_suffix(".moves") / file.path.stem, file.settings)  # one per process
            work[stem].append(Work(problems, prompts, path, file, journal))
    with ExitStack() as started:
        if grader is None:
            grader = started.enter_context(Grader(args.num_grading_workers))
        if sampler is None:
            options: dict[str, Any] = dict(stop_ids=stop_ids, device=device, max_num_seqs=512)
            options |= dict(requests=True, deterministic=args.deterministic)
            options |= dict(gpu_memory_utilization=args.gpu_memory_utilization)
            sampler = start_sampler(args.sampler, model, args.max_total_tokens, **options)
            started.callback(sampler.close)
        plain = sample_plainly(args, folder, sampler, grader)
        for repeats in work.values():
            for item in repeats:
                sample_all(item, args, sampler, tokenizer, grader)
        dist.barrier()  # every process has written its problems
        rank = dist.get_rank()
    rows = []
    for i, (stem, repeats) in enumerate(work.items() if rank == 0 else ()):
        written, records = [], []
        for item in repeats:
            done = item.file.records()
            own = [done[problem.id] for problem in item.problems]
            written.append((item.path, write_results(item.path, own, method=name, settings=item.file.settings)))
            shutil.rmtree(item.path.with_suffix(".moves"), ignore_errors=True)  # absent if there was nothing to do
            records += own
        summary = {"checkpoint": None, "step": evaluate.step_of(args.model)} | evaluate.summary_row(folder, written)
        evaluate.add_to_summary(folder, [summary])
        own_rows = report(name, records, {row: found[i]["metrics"] for row, found in plain.items()}, args.n)
        write_json(folder / f"{stem}__report.json", {"stem": stem, "rows": own_rows})
        print(f"results in {folder}")
        rows += own_rows
    return rows


def sample_plainly(args: Args, folder: Path, sampler, grader: Grader) -> dict[str, list[dict]]:
    """Evaluates plain sampling at temperature 1 and 1/alpha; returns the rows of each, one per data set."""
    shared = {f.name: getattr(args, f.name) for f in fields(evaluate.Args) if hasattr(args, f.name)}
    found = {}
    for temperature in dict.fromkeys((1.0, 1 / args.alpha)):
        print(f"plain sampling, T = {temperature:g}", flush=True)
        changes = dict(temperature=temperature, output_dir=str(folder / f"plain_T{temperature:g}"))
        found[f"plain T={temperature:g}"] = evaluate.main(evaluate.Args(**shared | changes), sampler, grader)
    return found


if __name__ == "__main__":
    start(main, Args)
