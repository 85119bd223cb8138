"""Beam search: the most probable response, or the best by the score below, without training (Table 1, "Beam Search").

    score(y) = log p(y) / |y|^penalty        penalty 0: log p, as in the paper (App. A); 1: its mean over tokens

    python beam_eval.py --model Qwen/Qwen2.5-3B-Instruct --num-beams 4 --length-penalty 0 1 --dataset math500 minerva
    python beam_eval.py --model toy --dataset toy_test --max-total-tokens 128

A step extends all live beams of a problem by their likeliest tokens and ranks the children together by log p; `choose`
is the whole rule. A problem leaves when its answer is settled: `bound` says what its live beams can still reach.

    --rule transformers  the top answer of generate(num_beams=W, do_sample=False, early_stopping="never"): a child that
                         stops is finished if it ranks in the first W; |y| counts response tokens
    --rule vllm-0.11     LLM.beam_search, which the paper ran: one that stops is finished at any rank; one stop token;
                         |y| counts prompt and response, without that token, and both are graded together

Under both, beams that reach the window unfinished compete as they are. Beams do not depend on the penalty, so that one
search answers for several. Shapes: W beams wanted, b <= W live beams of a problem, K likeliest tokens of each.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch.distributed as dist

from common.branching import run_branching
from common.data import Problem, load_datasets, load_tokenizer
from common.evaluate import ResponsesFile, grade_records, identity, new_record, results_dir, write_results
from common.grading import Grader
from common.rollout import start_sampler, stop_token_ids
from common.run import compute_dtype, resolve_model, start, start_processes
from common.run.arguments import AtLeastTwo, FiniteFloat, NonNegativeInt, PositiveInt, check_arguments


@dataclass
class Args:
    model: str = "Qwen/Qwen2.5-3B-Instruct"
    """Hugging Face id or folder; toy for the built-in miniature"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
    num_beams: PositiveInt = 4
    """W, beams a problem; 1 is greedy decoding"""
    length_penalty: list[FiniteFloat] = field(default_factory=lambda: [0.0])
    """one or several exponents of the length; several cost no more than the costliest alone"""
    rule: Literal["transformers", "vllm-0.11"] = "transformers"
    """which beam search, see above"""
    max_total_tokens: AtLeastTwo = 2048
    """window: prompt and response together"""
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM on a GPU, transformers on a CPU"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """compute precision; auto: bfloat16 on a GPU, float32 on a CPU"""
    prompt_file: str = ""
    """wording of the prompt, with {problem}; empty for the one that belongs to the data set"""
    examples_file: str = ""
    """worked examples (.jsonl with problem and solution) before every problem"""
    system_prompt: str = ""
    """system turn to put before the conversation; empty for the chat template's own"""
    chat_template_kwargs: str = ""
    """arguments for the chat template as a JSON object, such as '{"enable_thinking": false}'"""
    limit: PositiveInt | None = None
    """only the first so many problems"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, else results/<model>"""
    num_grading_workers: NonNegativeInt = 0
    """grading processes; 0 for one a core, at most 16"""

    def __post_init__(self):
        check_arguments(self)
        if not self.length_penalty:
            raise ValueError("--length-penalty needs one or several numbers.")


# --- the rule ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    name: str  # "transformers" or "vllm-0.11"
    num_beams: int  # W
    stop_ids: frozenset[int]

    @property
    def num_children(self) -> int:
        """K, and for transformers also the number of children that are ranked."""
        return self.num_beams * (2 if self.name == "vllm-0.11" else max(2, 1 + len(self.stop_ids)))

    def length(self, prompt: int, response: int, finished: bool) -> int:
        """|y| of so many response tokens, its stop token counted among them."""
        return prompt + response - finished if self.name == "vllm-0.11" else response


Child = tuple[int, int, float]  # parent's place among the live beams, token, log p of the response up to it (nats)


def choose(rule: Rule, logp, tokens, token_logp, last: bool) -> tuple[list[Child], list[Child]]:
    """Gives the children that live on and those that end, best first; unfinished ones end at the last step only.

    logp (b,): of the live beams, nats; tokens, token_logp (b, K): their likeliest next tokens.
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
    greedy = rule.name == "transformers" and rule.num_beams == 1  # which ends with its first stop token
    return [] if last or (greedy and ended) else live, ended


def bound(rule: Rule, penalty: float, logp: float, prompt: int, response: int, room: int) -> float:
    """Gives a score that no descendant of a beam exceeds; room: the most response tokens.

    log p(y) <= logp <= 0, and |y| lies between one more token and the room. A power of the length is monotone, so that
    the best that could become of logp lies at one of the two ends, whatever the sign of the penalty.
    """
    lengths = rule.length(prompt, response + 1, True), rule.length(prompt, room, False)
    return max(logp / length**penalty for length in lengths)


@dataclass
class Answer:
    tokens: list[int]
    logp: float  # nats
    score: float
    finished: bool
    steps: int = 0  # until it was settled
    generated_tokens: int = 0  # positions run through the model until then


class Search:
    """Beam search for one problem; it is over when no beam is live."""

    def __init__(self, rule: Rule, prompt: list[int], room: int, penalties: list[float]):
        self.rule, self.prompt, self.room = rule, prompt, room
        self.beams, self.logp = [[]], np.zeros(1)  # b responses, best first; (b,)
        self.steps = self.generated_tokens = 0
        self.answers = {penalty: Answer([], -math.inf, -math.inf, False) for penalty in penalties}
        self.open = set(penalties)  # not yet settled

    def step(self, tokens: np.ndarray, token_logp: np.ndarray) -> list[int]:
        """Takes the live beams' likeliest tokens and their log p, (b, K); gives the parents of the new live beams."""
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
        live = live if self.open else []
        self.beams, self.logp = [[*self.beams[i], token] for i, token, _ in live], np.array([x[2] for x in live])
        return [parent for parent, _, _ in live]


def beam_search(
    sampler, rule: Rule, prompts: list[list[int]], max_total_tokens: int, penalties: list[float]
) -> Iterator[list[tuple[int, dict[float, Answer]]]]:
    """Gives lists of (place in prompts, answer by penalty) as problems are settled. Raises as `run_branching` does."""
    places = {Search(rule, prompt, max_total_tokens - len(prompt), penalties): i for i, prompt in enumerate(prompts)}
    for settled in run_branching(sampler, list(places), rule.num_children, rule.num_beams):
        yield [(places[search], search.answers) for search in settled]


# --- the program ------------------------------------------------------------------------------------------------------


def record_of(rule: Rule, tokenizer, problem: Problem, prompt: list[int], answer: Answer, seconds: float) -> dict:
    """Gives the record of common/evaluate.py, not yet graded, with the score, and the steps until it was settled."""
    text = tokenizer.decode(answer.tokens[: len(answer.tokens) - answer.finished], skip_special_tokens=True)
    if rule.name == "vllm-0.11":
        text = tokenizer.decode(prompt + answer.tokens)
    columns = [text], [len(answer.tokens)], [answer.finished], [answer.logp]
    record = new_record(problem, prompt, *columns, seconds=seconds, generated_tokens=answer.generated_tokens)
    return record | {"score": [answer.score], "steps": answer.steps}


def print_row(results: dict, records: list[dict]) -> None:
    right, settings = results["metrics"]["authors"], results["settings"]
    keys = ("logp", "tokens", "steps", "generated_tokens")
    means = [f"{key} {np.mean([record[key] for record in records]):.1f}" for key in keys]
    name = f"{settings['dataset']}  W {settings['num_beams']}  penalty {settings['length_penalty']:g}"
    share = f"right {100 * right['pass_at_1']:.1f} ± {100 * right['pass_at_1_se']:.1f} %"
    print(f"{name}  {share}  finished {100 * right['finished_frac']:.1f} %  {'  '.join(means)}")


def main(args: Args, sampler=None, grader=None) -> list[dict]:
    """Searches, and returns the results for each data set and penalty. A sampler or grader that is given is used
    instead of a new one, and left open."""
    device = start_processes(seed=0)
    rank, world = dist.get_rank(), dist.get_world_size()
    model = resolve_model(args.model, args.max_total_tokens)
    tokenizer = load_tokenizer(model)
    stop_ids = [tokenizer.eos_token_id] if args.rule == "vllm-0.11" else stop_token_ids(model, tokenizer)
    rule = Rule(args.rule, args.num_beams, frozenset(stop_ids))
    work = []
    keys = ("num_beams", "rule", "max_total_tokens", "sampler", "dtype")
    settings = {"n": 1} | identity(args.model, model, stop_ids) | {key: getattr(args, key) for key in keys}
    for problems, prompts, what in load_datasets(tokenizer, args):
        files = {}  # by penalty
        for penalty in args.length_penalty:
            stem = f"{problems[0].dataset}__beam{args.num_beams}__penalty{penalty:g}__{args.rule}"
            path = results_dir(args.model, args.output_dir) / f"{stem}.json"
            files[penalty] = path, ResponsesFile(path, settings | what | {"length_penalty": penalty}, rank)
        work.append((problems, prompts, files))
    with nullcontext(grader) if grader else Grader(args.num_grading_workers) as grader:
        if sampler is None:
            rows = dict(max_num_seqs=max(512, args.num_beams), max_logprobs=rule.num_children)
            dtype = compute_dtype(args.dtype, device)
            sampler = start_sampler(args.sampler, model, args.max_total_tokens, dtype=dtype, device=device, **rows)
        for problems, prompts, files in work:
            done = [file.records() for _, file in files.values()]
            todo = [i for i in range(rank, len(problems), world) if any(problems[i].id not in ids for ids in done)]
            begun = before = shown = time.perf_counter()
            count = 0
            asked = [prompts[i] for i in todo], args.max_total_tokens, args.length_penalty
            for settled in beam_search(sampler, rule, *asked):
                seconds = (time.perf_counter() - before) / len(settled)
                before = time.perf_counter()
                mine = [problems[todo[place]] for place, _ in settled]
                for penalty, (_, file) in files.items():
                    records = [
                        record_of(rule, tokenizer, problems[todo[i]], prompts[todo[i]], answers[penalty], seconds)
                        for i, answers in settled
                    ]
                    grade_records(grader, mine, records)
                    file.append(records)
                count += len(settled)
                if before > shown + 10 or count == len(todo):
                    shown, left = before, (before - begun) / count * (len(todo) - count)
                    print(f"{mine[0].dataset}  {count}/{len(todo)} problems  left {left / 60:.0f} min", flush=True)
    dist.barrier()  # every rank's file is complete
    summaries = []
    for problems, _, files in work if rank == 0 else []:
        for path, file in files.values():
            done = file.records()
            records = [done[problem.id] for problem in problems]
            summaries.append(write_results(path, records, method="beam", settings=file.settings))
            print_row(summaries[-1], records)
            print(f"results in {path}")
    return summaries


if __name__ == "__main__":
    start(main, Args)
