"""What pages with verdicts share: accuracies by problem, their differences with errors, and claims that hold or not.

The error of a difference is sqrt(s_problems^2 + s_seeds^2): the standard error over problems of the paired difference,
and over seeds. A is better than B if the difference is more than MARGIN points and more than two errors.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from benchmark.report.results import ResultsFile, TrainingRun

MARGIN, BRIDGE = 2.0, 5.0  # points of accuracy


@dataclass
class Accuracy:
    """Accuracy of a method by problem, per cent, seeds averaged; and of each seed, over problems."""

    by_problem: dict[str, float]
    by_seed: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return sum(self.by_problem.values()) / len(self.by_problem)


def accuracy(files: list[ResultsFile], verdict: Literal["authors", "strict"] = "authors") -> Accuracy:
    """Returns the accuracy of a method from its results, one file a seed."""
    rows = [{id: 100 * right / f.n for id, right in zip(f.ids, f.right[verdict], strict=True)} for f in files]
    by_problem = {id: sum(row[id] for row in rows) / len(rows) for id in rows[0]}
    return Accuracy(by_problem, [sum(row.values()) / len(row) for row in rows])


def difference(a: Accuracy, b: Accuracy | None = None) -> tuple[float, float]:
    """Returns a less b over the problems that both have, points, and its error; without b, a itself."""
    ids = [id for id in a.by_problem if b is None or id in b.by_problem]
    values = np.array([a.by_problem[id] - (b.by_problem[id] if b else 0.0) for id in ids])
    of_seeds = [np.var(x.by_seed, ddof=1) / len(x.by_seed) for x in (a, b) if x and len(x.by_seed) > 1]
    return float(values.mean()), math.sqrt(values.var(ddof=1) / len(values) + sum(of_seeds))


def exceeds(found: tuple[float, float], margin: float = MARGIN) -> bool:
    """Returns whether a difference is more than `margin` points and more than two errors."""
    return found[0] > margin and found[0] > 2 * found[1]


def better(a: Accuracy, b: Accuracy) -> bool:
    return exceeds(difference(a, b))


def fall(run: TrainingRun, key: str = "eval/authors") -> tuple[float, float]:
    """Returns validation accuracy at a run's best step less that at its last, points, and the error."""
    (_, values), (_, errors) = run.curve(key), run.curve(f"{key}_se")
    best = int(np.argmax(values))
    return 100 * (values[best] - values[-1]), 100 * math.hypot(errors[best], errors[-1])


def rise(run: TrainingRun, key: str = "eval/authors") -> float:
    """Returns the mean return of a run's last five steps less that of the five from its best validated step on."""
    (steps, values), (_, returned) = run.curve(key), run.curve("objective/return")
    best = min(steps[int(np.argmax(values))], len(returned) - 5)
    return float(np.mean(returned[-5:]) - np.mean(returned[best : best + 5]))


@dataclass
class Claim:
    """A part of an observation: what it predicts, what was measured, and whether it holds."""

    text: str
    measured: str
    holds: bool


def verdict(agree: bool, disagree: bool) -> str:
    return "agree" if agree else "disagree" if disagree else "undecided"


def points(found: tuple[float, float]) -> str:
    """Returns a difference with its sign and error."""
    return f"{found[0]:+.1f} ± {found[1]:.1f}"


def plus_minus(found: tuple[float, float]) -> str:
    return f"{found[0]:.1f} ± {found[1]:.1f}"
