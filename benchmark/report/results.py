"""What lies in folders of runs: results files and training runs, and what was looked for in vain."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmark.tables.paper import TABLES, Row, wanted_rows
from common.grading import maj_at_k, maj_strings, mean_and_se, pass_at_k

VERDICTS = ("authors", "strict")


class Missing(Exception):
    """A file that is not there."""


class Broken(Exception):
    """A file that is there and of no use."""


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Missing(str(path)) from None
    except (ValueError, OSError) as error:
        raise Broken(f"{path}: {error}") from None


class Sample:
    """A results file of common/evaluate.py, reduced to what tables and figures need."""

    def __init__(self, path: Path, n: int | None = None):
        content, self.path = read_json(path), path
        try:
            problems = content["problems"]
            self.n = n or len(problems[0]["tokens"])
            lists = ("tokens", "logp", "votes", "classes", *VERDICTS)
            other = {len(p[key]) for p in problems for key in lists} - {self.n}
            if other or not problems:
                raise ValueError(f"{min(other)} answers to a problem, not {self.n}" if other else "no problems")
            self.ids = [p.get("repeat_of") or p["id"] for p in problems]
            self.right = {v: [sum(p[v]) for p in problems] for v in VERDICTS}
            self.majority = {
                "authors": [maj_strings(p["authors"], p["votes"], self.n) for p in problems],
                "strict": [maj_at_k(p["strict"], p["classes"], self.n) for p in problems],
            }
            self.logp = [sum(p["logp"]) / self.n for p in problems]
            self.spent = [p["generated_tokens"] / self.n for p in problems]
            self.seconds = [p["seconds"] for p in problems]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Broken(f"{path}: not a results file ({type(error).__name__}: {error})") from None


Figure = tuple[float, float]  # value and standard error


def mean(samples: list[Sample], name: str) -> Figure:
    """Mean of a list of a Sample over problems, repeats of a problem joined."""
    return mean_and_se([x for s in samples for x in getattr(s, name)], [id for s in samples for id in s.ids])


def pass_at(samples: list[Sample], k: int, verdict: str) -> Figure:
    """Pass@k, per cent."""
    values = [pass_at_k(s.n, c, k) for s in samples for c in s.right[verdict]]
    value, se = mean_and_se(values, [id for s in samples for id in s.ids])
    return 100 * value, 100 * se


def cells(samples: list[Sample], verdict: str) -> dict[str, Figure]:
    """Pass@1, Pass@n and Maj@n, per cent."""
    n = samples[0].n
    found = {f"pass@{k}": pass_at(samples, k, verdict) for k in sorted({1, n})}
    if n > 1:
        values = [x for s in samples for x in s.majority[verdict]]
        value, se = mean_and_se(values, [id for s in samples for id in s.ids])
        found[f"maj@{n}"] = 100 * value, 100 * se
    return found


@dataclass
class TrainingRun:
    """A run folder of a training script."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name.split("__")[0]

    @cached_property
    def args(self) -> dict:
        return read_json(self.folder / "args.json")

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
        """Steps and values of a logged figure."""
        lines = [line for line in self.curves if key in line]
        return [line["step"] for line in lines], [line[key] for line in lines]

    def checkpoint(self, which: str) -> str:
        """The name of the last or a best checkpoint."""
        if which == "last":
            return f"step_{self.args['num_steps']:06d}"
        path = self.folder / "checkpoints" / f"{which}.json"
        try:
            return read_json(path)["checkpoint"]
        except (KeyError, TypeError):
            raise Broken(f"{path}: names no checkpoint") from None


class Results:
    """What lies in the folders of runs; what was looked for in vain is kept in `faults`, by row."""

    def __init__(self, roots: list[Path]):
        self.roots = roots
        self.cache: dict[Path, Sample] = {}
        self.faults: dict[str, list[str]] = {}

    def run(self, row: Row) -> TrainingRun:
        folders = [folder for root in self.roots for folder in sorted(root.glob(row.where.split("/")[0]))]
        if not folders:
            raise Missing(f"{self.roots[0]}/{row.where.split('/')[0]}/")
        if len(folders) > 1:
            raise Broken(f"{', '.join(map(str, folders))}: several runs of one row, move all but one away")
        run = TrainingRun(folders[0])
        for key, value in row.expect.items():
            if run.args.get(key) != value:
                raise Broken(f"{run.folder}/args.json: {key} is {run.args.get(key)!r}, the row has {value!r}")
        return run

    def samples(self, row: Row, dataset: str, checkpoint: str) -> list[Sample]:
        """The repeats of a row; [] where one is missing or broken, which is noted."""
        try:
            folder, pattern = None, row.where
            if row.expect:
                run = self.run(row)
                folder = run.folder / "results" / run.checkpoint(checkpoint)
                pattern = pattern.split("/")[-1]
            found = []
            for seed in row.seeds:
                file = pattern.format(dataset=dataset, seed=seed)
                places = [folder / file] if folder else [root / file for root in self.roots]
                path = next((place for place in places if place.exists()), places[0])
                if path not in self.cache:
                    self.cache[path] = Sample(path, row.n)
                found.append(self.cache[path])
            return found
        except (Missing, Broken) as fault:
            self.note(row.name, fault)
            return []

    def look(self, row: Row, dataset: str, checkpoint: str) -> list[Sample]:
        """As `samples`, for figures: what is not there has been noted with the tables."""
        kept, self.faults = self.faults, {}
        found = self.samples(row, dataset, checkpoint)
        self.faults = kept
        return found

    def note(self, name: str, fault: Exception) -> None:
        text = f"{'missing' if isinstance(fault, Missing) else 'broken'}: {fault}"
        if text not in self.faults.setdefault(name, []):
            self.faults[name].append(text)

    def lacks(self, name: str) -> list[str]:
        """What a row of benchmark/*.sh lacks in any table."""
        rows = [row for row in wanted_rows([*TABLES]) if row.name == name]
        if not rows:
            raise ValueError(f"no row {name!r}: the names are in benchmark/*.sh")
        for row in rows:
            for dataset in row.datasets:
                for checkpoint in row.checkpoints:
                    self.samples(row, dataset, checkpoint)
        return self.faults.get(name, [])


def mean_of_last(run: TrainingRun, key: str, steps: int = 20) -> float | None:
    values = run.curve(key)[1][-steps:]
    return sum(values) / len(values) if values else None


RESULTS_NAME = re.compile(r"(?P<stem>.+)__(?P<rest>seed\d+|beam\d+__penalty[^_]+__[\w.-]+)\.json")


def other_samples(results: Results) -> dict[tuple[Path, str], list[Sample]]:
    """Repeats by (folder, name) of results that belong to no table."""
    found = {}
    for root in results.roots:
        for path in sorted(root.rglob("*.json")):
            match = RESULTS_NAME.fullmatch(path.name)
            if match and path not in results.cache and not belongs_to_a_table(path.relative_to(root)):
                name = match["stem"] if match["rest"].startswith("seed") else f"{match['stem']}__{match['rest']}"
                try:
                    found.setdefault((path.parent, name), []).append(Sample(path))
                except (Missing, Broken) as fault:
                    results.note("other results", fault)
    return found


def belongs_to_a_table(path: Path) -> bool:
    ours = {row.where.split("/")[0].removesuffix("__*") for row in wanted_rows([*TABLES])}
    return path.parts[0].split("__")[0] in ours


def other_runs(results: Results) -> list[TrainingRun]:
    """Run folders that belong to no table."""
    folders = [path.parent for root in results.roots for path in sorted(root.glob("*/metrics.jsonl"))]
    return [TrainingRun(folder) for folder in folders if not belongs_to_a_table(Path(folder.name))]
