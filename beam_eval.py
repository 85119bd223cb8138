"""Beam search: the most probable response, or the best by the score below, without training (Table 1, "Beam Search").

    score(y) = log p(y) / |y|^penalty        penalty 0: log p, as in the paper (App. A); 1: its mean over tokens

    python beam_eval.py --model Qwen/Qwen2.5-3B-Instruct --num-beams 4 --length-penalty 0 1 --dataset math500 minerva
    python beam_eval.py --model toy --dataset toy_test --max-total-tokens 128

Each step extends all live beams of a problem by their likeliest tokens and ranks these children together by log p;
`choose` is the whole rule. A problem is settled when no live beam can still beat its best answer (see `bound`).

    --rule transformers  the top answer of generate(num_beams=W, do_sample=False, early_stopping="never"): a child that
                         stops is finished if it ranks among the first W; |y| counts response tokens
    --rule vllm-0.11     LLM.beam_search, which the paper ran: a child that stops is finished at any rank; there is one
                         stop token; |y| counts prompt and response without that token, and both are graded together

Under both rules, beams that fill the window without a stop token compete as they are. Beams do not depend on the
penalty, so one search answers for several penalties.
Shapes: W beams wanted, b <= W live beams of a problem, K likeliest tokens of each.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from common.data import Problem, load_datasets, load_tokenizer
from common.evaluate import (
    ResponsesFile,
    add_to_summary,
    grade_records,
    identity,
    new_record,
    results_dir,
    step_of,
    summary_row,
    write_results,
)
from common.grading import Grader
from common.rollout import start_sampler, stop_token_ids
from common.rollout.transformers import TransformersSampler
from common.rollout.vllm import VLLMSampler
from common.run import compute_dtype, resolve_model, start, start_processes
from common.run.arguments import AtLeastTwo, Exponent, PositiveInt, Share, Workers, check_arguments


@dataclass
class Args:
    # --- method ---
    num_beams: PositiveInt = 4
    """W, the number of beams of a problem; 1 is greedy decoding"""
    length_penalty: list[Exponent] = field(default_factory=lambda: [0.0])
    """one or several exponents of the length; several cost no more than the costliest one alone"""
    rule: Literal["transformers", "vllm-0.11"] = "transformers"
    """which beam search, see above"""

    # --- model and data ---
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """folder, Hugging Face id, or `toy` for the built-in miniature"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
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
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """compute precision; auto: bfloat16 on a GPU, float32 on a CPU"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, otherwise results/<model>"""
    num_grading_workers: Workers = 0
    """grading processes; 0 for one per core, at most 16"""

    def __post_init__(self):
        check_arguments(self)
        if not self.length_penalty:
            raise ValueError("--length-penalty needs one or several numbers.")


# --- the rule ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Which children of the live beams are ranked, which of them end, and how length is counted."""

    name: str  # "transformers" or "vllm-0.11"
    num_beams: int  # W
    stop_ids: frozenset[int]

    @property
    def num_children(self) -> int:
        """Returns K, the number of likeliest tokens of each beam; the transformers rule also ranks only K children."""
        return self.num_beams * (2 if self.name == "vllm-0.11" else max(2, 1 + len(self.stop_ids)))

    def length(self, prompt: int, response: int, finished: bool) -> int:
        """Returns |y| of a response with `response` tokens, its stop token included, to a prompt of `prompt` tokens."""
        return prompt + response - finished if self.name == "vllm-0.11" else response


Child = tuple[int, int, float]  # its parent's place among the live beams, its token, log p of the response (nats)


def choose(rule: Rule, logp, tokens, token_logp, last: bool) -> tuple[list[Child], list[Child]]:
    """Returns the children that live on and those that end, best first. Unfinished ones end only at the last step.

    logp (b,): log p of the live beams, nats; tokens, token_logp (b, K): their likeliest next tokens.
    """
    total = (logp[:, None] + token_logp).ravel()
    order = np.argsort(-total, kind="stable")
    if rule.name == "transformers":
        order = order[: rule.num_children]
    parents = order // tokens.shape[1]
    ranked = list(zip(parents.tolist(), tokens.ravel()[order].tolist(), total[order].tolist(), strict=True))
    live = [child for child in ranked if child[1] not in rule.stop_ids][: rule.num_beams]
    if rule.name == "transformers":
        ranked = ranked[: rule.num_beams]
    ended = [child for child in ranked if child[1] in rule.stop_ids or (last and child in live)]
    # With one beam, transformers' generate is greedy decoding, which ends with its first stop token.
    greedy = rule.name == "transformers" and rule.num_beams == 1
    return [] if last or (greedy and ended) else live, ended


def bound(rule: Rule, penalty: float, logp: float, prompt: int, response: int, room: int) -> float:
    """Returns a score that no descendant of a beam exceeds; room: the largest number of response tokens.

    log p(y) <= logp <= 0, and |y| lies between one more token and the room. A power of the length is monotone, so the
    best possible score is at one of these two lengths, whatever the sign of the penalty.
    """
    lengths = rule.length(prompt, response + 1, True), rule.length(prompt, room, False)
    return max(logp / length**penalty for length in lengths)


@dataclass
class Answer:
    """The best response of a search under one penalty, and what finding it took."""

    tokens: list[int]
    logp: float  # nats
    score: float
    finished: bool
    steps: int = 0  # until it was settled
    generated_tokens: int = 0  # positions that went through the model until then


class Search:
    """Beam search for one problem. It is over when no beam is live."""

    def __init__(self, rule: Rule, prompt: list[int], room: int, penalties: list[float]):
        self.rule, self.prompt, self.room = rule, prompt, room
        self.beams: list[list[int]] = [[]]  # b responses so far, best first
        self.logp = np.zeros(1)  # (b,)
        self.steps = self.generated_tokens = 0
        self.answers = {penalty: Answer([], -math.inf, -math.inf, False) for penalty in penalties}
        self.open = set(penalties)  # those whose answer is not settled yet

    def step(self, tokens: np.ndarray, token_logp: np.ndarray) -> list[int]:
        """Takes the likeliest tokens of the live beams and their log p, (b, K), and makes the new beams. Returns the
        place that the parent of each new beam had among the old ones."""
        self.steps += 1
        self.generated_tokens += len(self.beams)
        live, ended = choose(self.rule, self.logp, tokens, token_logp, last=self.steps == self.room)
        for penalty in sorted(self.open):
            for parent, token, logp in ended:
                finished = token in self.rule.stop_ids
                score = logp / self.rule.length(len(self.prompt), self.steps, finished) ** penalty
                if score > self.answers[penalty].score:
                    self.answers[penalty] = Answer([*self.beams[parent], token], logp, score, finished)
            best, reach = self.answers[penalty], (len(self.prompt), self.steps, self.room)
            if not live or bound(self.rule, penalty, live[0][2], *reach) <= best.score:
                best.steps, best.generated_tokens = self.steps, self.generated_tokens
                self.open.remove(penalty)
        if not self.open:
            live = []
        self.beams = [[*self.beams[parent], token] for parent, token, _ in live]
        self.logp = np.array([logp for _, _, logp in live])
        return [parent for parent, _, _ in live]


# --- many searches on one sampler -------------------------------------------------------------------------------------


def beam_search(
    sampler: TransformersSampler | VLLMSampler,
    rule: Rule,
    prompts: list[list[int]],
    max_total_tokens: int,
    penalties: list[float],
) -> Iterator[list[tuple[int, dict[float, Answer]]]]:
    """Yields lists of (place in prompts, answer by penalty) as problems are settled.

    vLLM was started with max_logprobs of at least `rule.num_children`. As many problems run at a time as the sampler
    has room for. Raises ValueError if a prompt is empty or leaves no room for a token.
    """
    searches = [Search(rule, prompt, max_total_tokens - len(prompt), penalties) for prompt in prompts]
    for i, search in enumerate(searches):
        if not search.prompt or search.room < 1:
            count = f"prompt {i} has {len(search.prompt)} tokens and room for {search.room}"
            raise ValueError(f"{count}: drop it (fit_window) or widen the window")
    places = {search: i for i, search in enumerate(searches)}
    at_once = max(1, sampler.capacity(sampler.max_total_tokens) // rule.num_beams)
    if isinstance(sampler, VLLMSampler):
        settled = search_with_vllm(sampler, searches, rule.num_children, at_once)
    else:
        chunks = (searches[first : first + at_once] for first in range(0, len(searches), at_once))
        settled = (some for chunk in chunks for some in search_with_transformers(sampler, chunk, rule.num_children))
    for some in settled:
        yield [(places[search], search.answers) for search in some]


def search_with_vllm(
    sampler: VLLMSampler, searches: list[Search], num_tokens: int, at_once: int
) -> Iterator[list[Search]]:
    """Yields lists of searches as they end; `at_once` of them run at a time. num_tokens: K, or V if that is smaller.

    Every search runs at its own pace: it takes a step when the next tokens of all its beams have arrived. A live beam
    is a request that goes on by itself, greedily. If the request's own token is one of the beam's children that live
    on, which is so for most, the child takes the request over. Any other child becomes a new request; the engine has
    the keys and values of its beginning in its cache, up to the last full block. A request without an heir is aborted.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = sampler.llm.llm_engine
    waiting, number = iter(searches), itertools.count()
    live: dict[Search, list[str]] = {}  # the request of each live beam
    arrived: dict[str, deque] = {}  # per request: tokens and log p of each step, the chosen token first, then the best

    def ask(search: Search, beam: list[int]) -> str:
        """Starts a request that goes on after `beam`; returns its name."""
        params = SamplingParams(
            temperature=0,
            max_tokens=search.room - len(beam),
            ignore_eos=True,
            logprobs=min(num_tokens, engine.model_config.get_vocab_size()),
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"beam-{next(number)}"
        engine.add_request(name, {"prompt_token_ids": search.prompt + beam}, params)
        arrived[name] = deque()
        return name

    def take_step(search: Search, names: list[str]) -> list[str]:
        """Advances a search whose requests, `names`, all have a step waiting; returns the requests of its new beams."""
        tokens, logp = map(np.array, zip(*(arrived[name].popleft() for name in names), strict=True))
        parents = search.step(tokens[:, 1:], logp[:, 1:])
        after = []
        for parent, beam in zip(parents, search.beams, strict=True):
            follows = beam[-1] == tokens[parent, 0]
            after.append(names[parent] if follows else ask(search, beam))
        without_heir = set(names).difference(after)
        engine.abort_request(list(without_heir))
        for name in without_heir:
            del arrived[name]
        return after

    try:
        while True:
            for search in itertools.islice(waiting, at_once - len(live)):
                live[search] = [ask(search, [])]
            if not live:
                return
            for output in sampler.step():
                found = output.outputs[0].logprobs
                for i, j in zip(found.start_indices, found.end_indices, strict=True):
                    if output.request_id in arrived:  # otherwise it has been aborted in the meantime
                        arrived[output.request_id].append((found.token_ids[i:j], found.logprobs[i:j]))
            for search in live:
                while live[search] and all(arrived[name] for name in live[search]):
                    live[search] = take_step(search, live[search])
            ended = [search for search, names in live.items() if not names]
            for search in ended:
                del live[search]
            if ended:
                yield ended
    finally:
        engine.abort_request(list(arrived))


@torch.inference_mode()
def search_with_transformers(
    sampler: TransformersSampler, searches: list[Search], num_tokens: int
) -> Iterator[list[Search]]:
    """Yields lists of searches as they end. All take every step together; each live beam is a row of the cache."""
    device, num_tokens = sampler.device, min(num_tokens, sampler.model.config.vocab_size)
    steps = max(search.room for search in searches)
    logits, length, mask, cache = sampler.prefill([search.prompt for search in searches], steps)
    prompt_columns = mask.shape[-1] - steps
    live = searches
    for t in range(steps):
        logp, tokens = (x.cpu().numpy() for x in logits.float().log_softmax(-1).topk(num_tokens))
        parent_rows, row = [], 0
        for search in live:
            end = row + len(search.beams)
            parent_rows += [row + parent for parent in search.step(tokens[row:end], logp[row:end])]
            row = end
        if ended := [search for search in live if not search.beams]:
            yield ended
        live = [search for search in live if search.beams]
        if not live:
            return
        rows = torch.tensor(parent_rows, device=device)
        cache.expand(rows)
        mask, length = mask[rows], length[rows]
        chosen = torch.tensor([beam[-1:] for search in live for beam in search.beams], device=device)
        logits = sampler.forward(chosen, mask[..., : prompt_columns + t + 1], length[:, None] + t, cache)


# --- the program ------------------------------------------------------------------------------------------------------


def record_of(rule: Rule, tokenizer, problem: Problem, prompt: list[int], answer: Answer, seconds: float) -> dict:
    """Returns the record of common/evaluate.py, not yet graded, with the score and the steps until it was settled."""
    text = tokenizer.decode(answer.tokens[: len(answer.tokens) - answer.finished], skip_special_tokens=True)
    if rule.name == "vllm-0.11":
        text = tokenizer.decode(prompt + answer.tokens)
    columns = [text], [len(answer.tokens)], [answer.finished], [answer.logp]
    record = new_record(problem, prompt, *columns, seconds=seconds, generated_tokens=answer.generated_tokens)
    return record | {"score": [answer.score], "steps": answer.steps}


def print_row(results: dict) -> None:
    """Prints a results file in one line: accuracy, share finished, and means over problems."""
    right, settings, records = results["metrics"]["authors"], results["settings"], results["problems"]
    keys = ("logp", "tokens", "steps", "generated_tokens")
    means = [f"{key} {np.mean([record[key] for record in records]):.1f}" for key in keys]
    name = f"{settings['dataset']}  W {settings['num_beams']}  penalty {settings['length_penalty']:g}"
    share = f"right {100 * right['pass_at_1']:.1f} ± {100 * right['pass_at_1_se']:.1f} %"
    print(f"{name}  {share}  finished {100 * right['finished_frac']:.1f} %  {'  '.join(means)}")


@dataclass
class Work:
    """One data set; each penalty has its own results file and responses."""

    problems: list[Problem]
    prompts: list[list[int]]
    files: dict[float, tuple[Path, ResponsesFile]]

    def todo(self) -> list[int]:
        """Returns the places of this process's problems that lack an answer for some penalty."""
        done = [file.records() for _, file in self.files.values()]
        places = range(dist.get_rank(), len(self.problems), dist.get_world_size())
        return [i for i in places if any(self.problems[i].id not in records for records in done)]


def main(args: Args, sampler=None, grader=None) -> list[dict]:
    """Searches, and returns the results for each data set and penalty. A sampler or grader that is given is used
    instead of a new one, and left open."""
    device = start_processes(seed=0)
    model, folder = resolve_model(args.model, args.max_total_tokens), results_dir(args.model, args.output_dir)
    tokenizer = load_tokenizer(model)
    stop_ids = [tokenizer.eos_token_id] if args.rule == "vllm-0.11" else stop_token_ids(model, tokenizer)
    rule = Rule(args.rule, args.num_beams, frozenset(stop_ids))
    keys = ("num_beams", "rule", "max_total_tokens", "sampler", "dtype")
    settings = {"n": 1} | identity(args.model, model, stop_ids) | {key: getattr(args, key) for key in keys}
    work = []
    for problems, prompts, what in load_datasets(tokenizer, args):
        files = {}
        for penalty in args.length_penalty:
            path = folder / f"{what['dataset']}__beam{args.num_beams}__penalty{penalty:g}__{args.rule}.json"
            own = settings | what | {"length_penalty": penalty}
            files[penalty] = path, ResponsesFile(path, own, len(problems), dist.get_rank())
        work.append(Work(problems, prompts, files))
    with ExitStack() as started:
        if grader is None:
            grader = started.enter_context(Grader(args.num_grading_workers))
        if sampler is None:
            options: dict[str, Any] = dict(max_num_seqs=max(512, args.num_beams), max_logprobs=rule.num_children)
            options |= dict(dtype=compute_dtype(args.dtype, device), device=device)
            options |= dict(gpu_memory_utilization=args.gpu_memory_utilization)
            sampler = start_sampler(args.sampler, model, args.max_total_tokens, **options)
            started.callback(sampler.close)
        for item in work:
            search_all(item, sampler, tokenizer, grader, rule, args)
        dist.barrier()  # every process's file is complete
        rank = dist.get_rank()
    return write_all(work, folder) if rank == 0 else []


def search_all(item: Work, sampler, tokenizer, grader: Grader, rule: Rule, args: Args) -> None:
    """Searches and grades this process's problems that lack an answer, and prints its progress every ten seconds."""
    todo = item.todo()
    begun = before = shown = time.perf_counter()
    count = 0
    prompts = [item.prompts[i] for i in todo]
    for settled in beam_search(sampler, rule, prompts, args.max_total_tokens, args.length_penalty):
        now = time.perf_counter()
        seconds, before = (now - before) / len(settled), now
        places = [todo[i] for i, _ in settled]
        problems = [item.problems[place] for place in places]
        for penalty, (_, file) in item.files.items():
            answers = [by_penalty[penalty] for _, by_penalty in settled]
            records = [
                record_of(rule, tokenizer, item.problems[place], item.prompts[place], answer, seconds)
                for place, answer in zip(places, answers, strict=True)
            ]
            grade_records(grader, problems, records)
            file.append(records)
        count += len(settled)
        if now > shown + 10 or count == len(todo):
            shown, left = now, (now - begun) / count * (len(todo) - count)
            print(f"{problems[0].dataset}  {count}/{len(todo)} problems  left {left / 60:.0f} min", flush=True)


def write_all(work: list[Work], folder: Path) -> list[dict]:
    """Writes the results files and the summary, prints a line for each, and returns the results."""
    written, rows = [], []
    for item in work:
        for path, file in item.files.values():
            done = file.records()
            records = [done[problem.id] for problem in item.problems]
            results = write_results(path, records, method="beam", settings=file.settings)
            rows.append({"checkpoint": None, "step": step_of(results["settings"]["model"])})
            rows[-1] |= summary_row(folder, [(path, results)])
            written.append(results)
            print_row(results)
            print(f"results in {path}")
    add_to_summary(folder, rows)
    return written


if __name__ == "__main__":
    start(main, Args)
