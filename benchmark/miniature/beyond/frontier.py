"""Accuracy at matched distance from the base (question 3).

    python -m benchmark.miniature.beyond.frontier OUTPUT OBSERVATIONS

Methods differ in how far they go from the base, and a policy that goes further can be better for that reason alone. So
accuracy is shown against KL(pi || pi_base), nats a response. No policy is better at its KL than the family

    pi_base exp(r / beta) / Z        (Eq. 4 with alpha = 1)

because it maximises E[r] - beta KL. With r in {0, 1} it depends on a problem only through p = P(right | x) under the
base: its accuracy is a = p e^(1/beta) / (1 - p + p e^(1/beta)), its KL that of two coins, a log(a/p) + (1-a)
log((1-a)/(1-p)); both are averaged over problems at a common beta, which is the best way to spend an average KL. The
frontier knows which guess is right, as best-of-n with a verifier does and no trained policy can; on a level where Base
guesses much it is therefore out of reach.

p is the share of right responses among 256. The KL of a training run is the mean of log pi - log pi_base in the five
steps before a checkpoint, its accuracy that of validation. Best-of-n picks a right one of n responses if there is one:
a = 1 - (1-p)^n, and its KL is that of two coins as well. A method that gives one answer has KL -log pi_base(answer).
Power sampling is shown where its law is known: at its target pi_base^alpha, which many moves reach.

Rules, written before the first run. A run's GAP is the frontier's accuracy at the run's KL less the run's accuracy, at
the last checkpoint, with the error of its accuracy. A method is EFFICIENT if its gap is below 5 points, WASTEFUL if it
is above 20, and MIDDLING otherwise. The question is answered by the order of task reward, tilted, tempered and
sharpening: if tilted and task reward differ in accuracy by less than their errors at matched KL (interpolated along
their checkpoints at the smaller of their last KLs), their difference is one of distance alone.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmark.miniature.beyond import base
from benchmark.miniature.beyond.section import Section
from benchmark.miniature.figures import STYLES
from benchmark.miniature.observations import Measured
from benchmark.miniature.rows import METHODS
from benchmark.report import figures
from benchmark.report.results import TrainingRun, mean
from benchmark.report.verdicts import accuracy, difference, plus_minus

EFFICIENT, WASTEFUL = 5.0, 20.0  # points


def coin_kl(a: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Returns KL(a || p) of coins, nats; 0 log 0 is 0, and no policy can reach a right answer that the base lacks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a > 0, a * np.log(a / p), 0.0) + np.where(a < 1, (1 - a) * np.log((1 - a) / (1 - p)), 0.0)


def frontier(p: np.ndarray, inverse_beta: float) -> tuple[float, float]:
    """Returns mean KL, nats, and accuracy, per cent, of pi_base exp(r / beta) / Z over problems of P(right) p."""
    a = p * np.exp(inverse_beta) / (1 - p + p * np.exp(inverse_beta))
    return float(coin_kl(a, p).mean()), 100 * float(a.mean())


def best_of(p: np.ndarray, n: int) -> tuple[float, float]:
    """Returns mean KL and accuracy of the best of n responses by a verifier."""
    a = 1 - (1 - p) ** n
    return float(coin_kl(a, p).mean()), 100 * float(a.mean())


def frontier_at(p: np.ndarray, kl: float) -> float:
    """Returns the largest accuracy of any policy at a mean KL, per cent."""
    points = [frontier(p, b) for b in np.linspace(0, 30, 601)]
    kls, accuracies = zip(*points, strict=True)
    return float(np.interp(kl, kls, accuracies))


def path_of(run: TrainingRun) -> list[tuple[float, float, float]]:
    """Returns (KL, accuracy, its error) at each validated step of a run; the KL is 0 before the first step."""
    (steps, kls), (validated, values) = run.curve("objective/kl_base"), run.curve("eval/authors")
    errors = run.curve("eval/authors_se")[1]
    by_step = dict(zip(steps, kls, strict=True))
    path = []
    for step, value, error in zip(validated, values, errors, strict=True):
        before = [by_step[s] for s in range(step - 5, step) if s in by_step]
        path.append((float(np.mean(before)) if before else 0.0, 100 * value, 100 * error))
    return path


def measure(m: Measured, level: str) -> dict:
    """Returns the points of a level: the frontier, best-of-n, temperatures, powers, beams, and the paths of runs."""
    hard = level == "toy_hard"
    p = base.p_right(m.sample("base_hard_256" if hard else "base_256"))
    rows = [f"{name}_hard" for name in ("task", "sharpen")] if hard else [*METHODS]
    points = {"best of n": [(n, *best_of(p, n)) for n in (1, 2, 4, 8, 16)]}
    points["temperature"] = []
    for t in ("0.8", "0.5", "0.25"):
        found = m.accuracy(f"base_hard_T{t}" if hard else f"base_T{t}").value
        points["temperature"].append((float(t), base.temperature_kl(level, float(t))[0], found))
    powers = [(alpha, base.optimum(level, alpha)) for alpha in base.ALPHAS]
    points["pi_base^alpha"] = [(alpha, law.kl[0], law.accuracy[0]) for alpha, law in powers]
    beams = [(width, m.beam(width, level)) for width in (1, 4, 64)]
    points["beam"] = [(width, -mean([file], "logp")[0], accuracy([file]).value) for width, file in beams]
    runs = {name: [path_of(run) for run in m.runs(name)] for name in rows}
    lasts = {name: plus_minus(difference(m.accuracy(name))) for name in rows}
    curve = [frontier(p, b) for b in np.linspace(0, 20, 401)]
    return {"p": p.tolist(), "frontier": curve, "points": points, "runs": runs, "last": lasts}


def mean_path(paths: list[list[tuple[float, float, float]]]) -> np.ndarray:
    """Returns the mean over seeds, (checkpoints, 3); the error is that of the mean over problems of one seed."""
    return np.mean(np.array(paths), axis=0)


def figure(found: dict[str, dict]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    marks = {"best of n": ("k", "x"), "temperature": (figures.GREY, "s"), "beam": (figures.SKY, "D")}
    marks["pi_base^alpha"] = (figures.ORANGE, "o")
    names = {"pi_base^alpha": r"exact $\pi_{\mathrm{base}}^\alpha$", "best of n": "best of n, by a verifier"}
    for ax, (level, one) in zip(axes, found.items(), strict=True):
        ax.plot(*zip(*one["frontier"], strict=True), color="black", lw=1, label="the best possible")
        for name, points in one["points"].items():
            colour, marker = marks[name]
            label = names.get(name, name)
            ax.plot([x for _, x, _ in points], [y for *_, y in points], marker, color=colour, mfc="none", label=label)
        for name, paths in one["runs"].items():
            colour, marker = STYLES[name.split("_")[0]]
            path = mean_path(paths)
            label = METHODS[name.split("_")[0]]
            ax.plot(path[:, 0], path[:, 1], color=colour, lw=1.2, label=label)
            ax.plot(path[-1, 0], path[-1, 1], marker, color=colour, ms=8)
        ax.set_title("easy level" if level == "toy" else "hard level")
        ax.set(xlabel=r"$\mathrm{KL}(\pi\,\|\,\pi_{\mathrm{base}})$, nats a response", ylim=(0, 102), xlim=(0, None))
    axes[0].set_ylabel("Pass@1, %")
    axes[0].legend(fontsize=7.5, loc="lower right")
    return drawn


def main(folder: Path, observations: Path) -> None:
    m = Measured(observations)
    found = {level: measure(m, level) for level in ("toy", "toy_hard")}
    section = Section("frontier", "3. Accuracy at matched distance from the base", __doc__)
    lines = []
    for level, one in found.items():
        p = np.array(one["p"])
        where = "easy" if level == "toy" else "hard"
        for name, paths in one["runs"].items():
            kl, value, _ = mean_path(paths)[-1]
            best = frontier_at(p, kl)
            gap = best - value
            word = "efficient" if gap < EFFICIENT else "wasteful" if gap > WASTEFUL else "middling"
            label = METHODS[name.split("_")[0]]
            lines.append(
                [f"{label}, {where}", f"{kl:.2f}", f"{value:.1f}", one["last"][name], f"{best:.1f}", f"{gap:.1f}", word]
            )
        for name, points in one["points"].items():
            for setting, kl, value in points:
                best = frontier_at(p, kl)
                lines.append(
                    [
                        f"{name} {setting:g}, {where}",
                        f"{kl:.2f}",
                        f"{value:.1f}",
                        "",
                        f"{best:.1f}",
                        f"{best - value:.1f}",
                        "",
                    ]
                )
    task, tilted = (mean_path(found["toy"]["runs"][name]) for name in ("task", "tilted"))
    kl = min(task[-1, 0], tilted[-1, 0])
    at = [float(np.interp(kl, path[:, 0], path[:, 1])) for path in (task, tilted)]
    section.say(
        f"At {kl:.2f} nats, the smaller of their last distances, task reward has {at[0]:.1f} % and tilted (2, 0.1) "
        f"{at[1]:.1f} % in validation (error {task[-1, 2]:.1f} for one seed, over problems).",
    )
    header = [
        "Method",
        "KL, nats",
        "Pass@1, validation or samples",
        "last checkpoint, test",
        "best possible at this KL",
        "gap",
        "",
    ]
    section.table(header, lines)
    section.figure(figure(found), "Accuracy against the distance from the base; lines: training, a marker at its end.")
    section.write(folder, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
