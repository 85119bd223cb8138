"""Taught or sharpened: what of a gain could have come from the base alone? (question 5)

    python -m benchmark.miniature.beyond.taught OUTPUT OBSERVATIONS

The gain of a run over Base in Pass@1 is split into

    sharpened = best Pass@1 of pi_base^alpha over alpha - Pass@1 of Base      what its own likelihoods could give
    taught    = Pass@1 of the run - best Pass@1 of pi_base^alpha              the rest; negative if it stays below

The powers are exact optima (benchmark/miniature/optima.py), alpha 1 to infinity, the best one chosen on the same
problems, which favours the base. Token temperatures are another family, shown for comparison: they are no powers of the
distribution over responses, and reach more here.

Pass@256 of Base is at 100 % on the easy level, and by that measure nothing can be taught. log P(right | x) still tells
policies apart: it is estimated from 256 responses to a problem as log((c + 1/2) / 257), c of them right. Its mean over
problems rises with what a policy has learned wherever it is not saturated itself.

Rules, written before the first run. A run TEACHES if `taught` is more than 2 points and two errors above zero, SHARPENS
if the run is better than Base by as much and does not teach, and does NEITHER otherwise.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmark.miniature.beyond import base
from benchmark.miniature.beyond.section import Section
from benchmark.miniature.figures import STYLES
from benchmark.miniature.observations import Measured
from benchmark.report import figures
from benchmark.report.results import ResultsFile
from benchmark.report.verdicts import Accuracy, accuracy, difference, exceeds, points

LEVELS = {"toy": "easy level", "toy_hard": "hard level"}
RUNS = {  # row: label, level
    "task": ("Task reward", "toy"),
    "tilted": ("Tilted (2, 0.1)", "toy"),
    "tempered": ("Tempered 2", "toy"),
    "sharpen": ("Sharpening", "toy"),
    "task_fixed": ("Task reward, fixed length", "toy"),
    "sharpen_fixed": ("Sharpening, fixed length", "toy"),
    "task_hard": ("Task reward, hard level", "toy_hard"),
    "sharpen_hard": ("Sharpening, hard level", "toy_hard"),
}
MANY = {  # rows with 256 responses a problem: label, level
    "base_256": ("Base", "toy"),
    "task_seed1_256": ("Task reward", "toy"),
    "tilted_seed1_256": ("Tilted (2, 0.1)", "toy"),
    "sharpen_seed1_256": ("Sharpening", "toy"),
    "base_hard_256": ("Base", "toy_hard"),
    "task_hard_256": ("Task reward", "toy_hard"),
    "sharpen_hard_256": ("Sharpening", "toy_hard"),
}


def first(row: Accuracy, ids: list[str]) -> Accuracy:
    """Returns an accuracy over some problems only."""
    return Accuracy({id: row.by_problem[id] for id in ids}, row.by_seed)


def best_power(level: str, ids: list[str]) -> tuple[float, Accuracy]:
    """Returns the alpha whose pi_base^alpha is right most often, and its accuracy by problem, per cent."""
    found = []
    for alpha in base.ALPHAS:
        by_problem = {}
        for id, problem in zip(ids, base.candidates(level, 1 / min(alpha, 4.0)), strict=True):
            weights = base.optimum_weights(problem.logp, problem.log_proposal, problem.reward, alpha, float("inf"))
            by_problem[id] = 100 * float((weights * problem.reward).sum())
        found.append((alpha, Accuracy(by_problem)))
    return max(found, key=lambda one: one[1].value)


def log_p_right(file: ResultsFile) -> tuple[float, float]:
    """Returns the mean of log P(right | x) over problems, nats, and its error."""
    counts = np.array(file.right["authors"])
    return base.estimate(np.log((counts + 0.5) / (file.n + 1)).tolist())


def word(gain: tuple[float, float], taught: tuple[float, float]) -> str:
    return "teaches" if exceeds(taught) else "sharpens" if exceeds(gain) else "neither"


def figure(lines: list[dict]) -> plt.Figure:
    drawn, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for place, line in enumerate(lines):
        ax.barh(place, line["sharpened"][0], color=figures.SKY, edgecolor="black", lw=0.5, hatch="//")
        ax.barh(place, line["gain"][0], 0.35, color=STYLES[line["row"].split("_")[0]][0], edgecolor="black", lw=0.5)
        ax.errorbar(line["gain"][0], place, xerr=line["gain"][1], color="black", capsize=3, lw=1)
    ax.set_yticks(range(len(lines)), [line["label"] for line in lines])
    ax.invert_yaxis()
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel(r"points of Pass@1 over Base; hatched: the best $\pi_{\mathrm{base}}^\alpha$, narrow: the run")
    ax.grid(axis="y", visible=False)
    return drawn


def main(folder: Path, observations: Path) -> None:
    m = Measured(observations)
    best, bases = {}, {}
    for level, name in (("toy", "base"), ("toy_hard", "base_hard")):
        ids = m.sample(name).ids[: base.PROBLEMS]
        bases[level] = first(m.accuracy(name), ids)
        best[level] = best_power(level, ids)
    lines = []
    for row, (label, level) in RUNS.items():
        run = first(m.accuracy(row), [*bases[level].by_problem])
        gain, taught = difference(run, bases[level]), difference(run, best[level][1])
        sharpened = difference(best[level][1], bases[level])
        line = {"row": row, "label": label, "alpha": best[level][0], "gain": gain}
        lines.append(line | {"sharpened": sharpened, "taught": taught, "word": word(gain, taught)})
    section = Section("taught", "5. Taught or sharpened?", __doc__)
    said = [
        f"On the {LEVELS[level]} the best power of the base is alpha {alpha:g}, with Pass@1 {row.value:.1f} %; Base "
        f"itself has {bases[level].value:.1f} %, and plain sampling at T = 0.25 "
        f"{m.accuracy('base_T0.25' if level == 'toy' else 'base_hard_T0.25').value:.1f} %."
        for level, (alpha, row) in best.items()
    ]
    section.say(" ".join(said))
    header = ["Run", "gain over Base", "sharpened: the best power", "taught: the rest", ""]
    cells = [
        [one["label"], *(points(one[key]) for key in ("gain", "sharpened", "taught")), one["word"]] for one in lines
    ]
    section.table(header, cells)
    rights = []
    for row, (label, level) in MANY.items():
        file = m.sample(row)
        value, error = log_p_right(file)
        one = (f"{x:.1f}" for x in (accuracy([file]).value, file.percent("pass_at_256")[0]))
        rights.append([f"{label}, {LEVELS[level]}", *one, f"{value:.3f} ± {error:.3f}"])
    section.say("By 256 responses to each of 100 problems, seed 1:")
    section.table(["Policy", "Pass@1", "Pass@256", "mean log P(right)"], rights)
    section.figure(figure(lines), "The gain over Base, and what the best power of the base would have given.")
    section.write(folder, {"runs": lines, "log_p_right": rights})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
