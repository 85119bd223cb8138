"""Reads what evaluations and training runs have left in folders, and remembers what was missing.

Every number of a table comes from a summary.json, which the evaluation wrote (common/evaluate.py): nothing that is in
it is computed again here. What only some figures need, such as log pi of the answers, is read from the results files.
"""

import json
import math
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from benchmark.tables.paper import TABLES, Row, wanted_rows
from common.grading import mean_and_se

VERDICTS = ("authors", "strict")
MAJORITY = {"authors": "maj_strings_at", "strict": "maj_at"}  # the authors' code votes on strings

Estimate = tuple[float, float]  # value and standard error


class Missing(Exception):
    """A file or a result that is not there."""


class Broken(Exception):
    """A file that is there and cannot be used."""


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Missing(str(path)) from None
    except (ValueError, OSError) as error:
        raise Broken(f"{path}: {error}") from None


# --- evaluations ------------------------------------------------------------------------------------------------------


class ResultsFile:
    """The problems of one data set under one seed, from <dataset>__n16__seed1.json."""

    def __init__(self, path: Path):
        self.path, content = path, read_json(path)
        try:
            problems = content["problems"]
            self.metrics = content["metrics"]
            self.n = len(problems[0]["tokens"])
            self.ids = [p.get("repeat_of") or p["id"] for p in problems]
            self.right = {verdict: [sum(p[verdict]) for p in problems] for verdict in VERDICTS}  # of the n answers
            self.logp = [sum(p["logp"]) / self.n for p in problems]  # nats an answer
            self.spent = [p["generated_tokens"] / self.n for p in problems]  # tokens for an answer
            self.seconds = [p["seconds"] for p in problems]
        except (KeyError, IndexError, TypeError) as error:
            raise Broken(f"{path}: not a results file ({type(error).__name__}: {error})") from None

    def percent(self, metric: str, verdict: str = "authors") -> Estimate:
        """A metric of common/evaluate.py, such as pass_at_1, in per cent; the error of a single problem is NaN."""
        value, se = self.metrics[verdict][metric], self.metrics[verdict][f"{metric}_se"]
        return 100 * value, math.nan if se is None else 100 * se


def mean(files: list[ResultsFile], name: str) -> Estimate:
    """The mean over problems of logp, spent or seconds. The values of one problem in several files are averaged."""
    return mean_and_se([x for file in files for x in getattr(file, name)], [id for file in files for id in file.ids])


class Evaluation:
    """What one model scored on one data set, over all repeats: a row of a summary.json in `folder`."""

    def __init__(self, folder: Path, row: dict):
        try:
            self.folder, self.n, self.checkpoint, self.step = folder, row["n"], row["checkpoint"], row["step"]
            self.metrics, self.repeats = row["metrics"], len(row["files"])
            self.paths = [folder / name for name in row["files"]]
        except (KeyError, TypeError) as error:
            raise Broken(f"{folder}/summary.json: {type(error).__name__}: {error}") from None

    @cached_property
    def files(self) -> list[ResultsFile]:
        return [ResultsFile(path) for path in self.paths]

    percent = ResultsFile.percent

    def cells(self, verdict: str) -> dict[str, Estimate]:
        """Pass@1, Pass@n and Maj@n in per cent."""
        names = {f"pass@{k}": f"pass_at_{k}" for k in (1, self.n)}
        if self.n > 1:
            names[f"maj@{self.n}"] = f"{MAJORITY[verdict]}_{self.n}"
        return {name: self.percent(metric, verdict) for name, metric in names.items()}


def read_summary(folder: Path) -> list[Evaluation]:
    """The evaluations in a folder of results."""
    content = read_json(folder / "summary.json")
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise Broken(f"{folder}/summary.json: not a summary of results")
    return [Evaluation(folder, row) for row in content["results"]]


# --- training runs ----------------------------------------------------------------------------------------------------


@dataclass
class TrainingRun:
    """A run folder of a training script."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name.split("__")[0]

    @cached_property
    def args(self) -> dict:
        """The run's arguments."""
        arguments = read_json(self.folder / "args.json")
        return {name: math.inf if value == "inf" else value for name, value in arguments.items()}

    @cached_property
    def curves(self) -> list[dict]:
        """The lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except FileNotFoundError:
            raise Missing(str(path)) from None
        except ValueError as error:
            raise Broken(f"{path}: {error}") from None

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a logged metric; NaN where it was not finite."""
        lines = [line for line in self.curves if key in line]
        return [line["step"] for line in lines], [math.nan if line[key] is None else line[key] for line in lines]


def mean_of_last(run: TrainingRun, key: str, steps: int = 20) -> float | None:
    values = run.curve(key)[1][-steps:]
    return sum(values) / len(values) if values else None


# --- folders of both --------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """Evaluations and runs in the folders `roots`. `faults` keeps, by row, what a table asked for and was not there."""

    roots: list[Path]
    faults: dict[str, list[str]] = field(default_factory=dict)
    summaries: dict[Path, list[Evaluation]] = field(default_factory=dict)  # those that have been read

    def is_empty(self) -> bool:
        names = ("summary.json", "metrics.jsonl")
        return not any(next(root.rglob(name), None) for root in self.roots for name in names)

    def run(self, row: Row) -> TrainingRun:
        """The training run of a row. Raises Broken if there are several, or if its arguments are not the row's."""
        folders = [folder for root in self.roots for folder in sorted(root.glob(row.folder))]
        if not folders:
            raise Missing(f"{self.roots[0]}/{row.folder}/")
        if len(folders) > 1:
            raise Broken(f"{', '.join(map(str, folders))}: several runs of one row, move all except one away")
        run = TrainingRun(folders[0])
        for key, value in row.expect.items():
            if run.args.get(key) != value:
                raise Broken(f"{run.folder}/args.json: {key} is {run.args.get(key)!r}, the row has {value!r}")
        return run

    def find(self, row: Row, dataset: str, checkpoint: str) -> Evaluation:
        """The evaluation of a row; of a trained row, that of its checkpoint. Raises Missing or Broken."""
        folders = [self.run(row).folder / "results"] if row.expect else [root / row.folder for root in self.roots]
        names = [row.file.format(dataset=dataset, seed=seed) for seed in row.seeds]
        wanted = checkpoint if row.expect else None
        for folder in folders:
            if folder not in self.summaries and (folder / "summary.json").exists():
                self.summaries[folder] = read_summary(folder)
            for evaluation in self.summaries.get(folder, []):
                if evaluation.checkpoint == wanted and [path.name for path in evaluation.paths] == names:
                    return evaluation
        of = f" of checkpoint {checkpoint}" if row.expect else ""
        raise Missing(f"{', '.join(names)}{of} in {folders[0]}/summary.json")

    def evaluation(self, row: Row, dataset: str, checkpoint: str) -> Evaluation | None:
        """As `find`, for a table: None where something is missing or broken, which is noted."""
        try:
            return self.find(row, dataset, checkpoint)
        except (Missing, Broken) as fault:
            self.note(row.name, fault)
            return None

    def note(self, name: str, fault: Exception) -> None:
        text = f"{'missing' if isinstance(fault, Missing) else 'broken'}: {fault}"
        if text not in self.faults.setdefault(name, []):
            self.faults[name].append(text)

    def other_evaluations(self) -> dict[str, Evaluation]:
        """Evaluations that belong to no table, by name: their folder and files, without the seed."""
        found = {}
        for root in self.roots:
            for path in sorted(root.rglob("summary.json")):
                if belongs_to_a_table(path.relative_to(root)):
                    continue
                try:
                    for evaluation in read_summary(path.parent):
                        file = re.sub(r"__seed\d+\.json$|\.json$", "", str(evaluation.paths[0].relative_to(root)))
                        found[file] = evaluation  # a checkpoint that has two names is shown once
                except Broken as fault:
                    self.note("other results", fault)
        return found

    def other_runs(self) -> list[TrainingRun]:
        """Training runs that belong to no table."""
        folders = [path.parent for root in self.roots for path in sorted(root.glob("*/metrics.jsonl"))]
        return [TrainingRun(folder) for folder in folders if not belongs_to_a_table(Path(folder.name))]


@cache
def folders_of_tables() -> frozenset[str]:
    """What the names of the folders begin with in which the rows of all tables have their results."""
    return frozenset(row.folder.split("/")[0].removesuffix("__*") for row in wanted_rows([*TABLES]))


def belongs_to_a_table(path: Path) -> bool:
    return path.parts[0].split("__")[0] in folders_of_tables()
