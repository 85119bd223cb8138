"""How far from its optimum does a run stop: a bad optimum or a bad optimiser? (question 1)

    python -m benchmark.miniature.beyond.distance OUTPUT OBSERVATIONS

For tilted and tempered sampling the distance of a policy from its optimum pi* (Eq. 4 and 6) is known up to log Z:

    KL(pi || pi*) = log Z - E[R] / beta        Z(x) = sum_y pi_base(y)^alpha exp(r(y) / beta)

with R the script's return, for beta inf R = alpha log pi_base - log pi and no division. E[R] is the mean of
`objective/return` in the five steps before a checkpoint. log Z is exact up to its error of importance sampling
(benchmark/miniature/beyond/base.py), averaged over test problems; the problems of training are others of the same
distribution, so the error over problems of log Z is part of the KL's.

Without enumeration, `power_sampling.py --method smc` estimates Z. That estimate is unbiased, so by Jensen's inequality
its logarithm is too low on average, and so is the KL that is computed with it: a lower bound. It is shown beside the
exact value.

Sharpening has no such distance: its optimum is one response. There, log pi_base of the run's responses is compared with
that of the likeliest one; landscape.py asks whether that one can be reached.

Rules, written before the first run. The OPTIMUM is to blame for what a run lacks in accuracy if the exact optimum is
less accurate than task reward's run by more than 5 points; the OPTIMISER if the run is less accurate than its own exact
optimum by more than 5 points; both or none otherwise.
"""

import json
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import power_sampling
from benchmark.miniature.beyond import base
from benchmark.miniature.beyond.section import Section
from benchmark.miniature.observations import Measured
from benchmark.miniature.rows import grid_name
from benchmark.report import figures
from benchmark.report.results import TrainingRun
from benchmark.report.verdicts import BRIDGE, plus_minus
from common.run import parse

RUNS = [(alpha, beta) for alpha in (1.25, 2, 4) for beta in ("inf", "0.3", "0.1")]


def distances(run: TrainingRun, beta: float, log_z: float) -> tuple[list[int], list[float]]:
    """Returns the validated steps of a run after the first, and KL(pi || pi*) at each, nats a response."""
    steps, returns = run.curve("objective/return")
    by_step = dict(zip(steps, returns, strict=True))
    validated = [step for step in run.curve("eval/authors")[0] if step >= 5]
    scale = 1.0 if beta == math.inf else beta
    means = [np.mean([by_step[s] for s in range(step - 5, step)]) for step in validated]
    return validated, [log_z - float(value) / scale for value in means]


def smc_log_z(folder: Path, alpha: float) -> tuple[float, float]:
    """Returns the mean over problems of log Z of pi_base^alpha as estimated by SMC with 8 particles, and its error."""
    words = f"--model toy --dataset toy_test --max-total-tokens 64 --limit {base.PROBLEMS} --n 4 --alpha {alpha:g}"
    words += f" --method smc --sampler transformers --num-grading-workers 1 --output-dir {folder}"
    power_sampling.main(parse(power_sampling.Args, words.split()))
    (path,) = folder.glob("power_smc_*.responses.jsonl")
    chains = [json.loads(line)["chains"] for line in path.read_text().splitlines()[1:]]
    return base.estimate([float(np.mean(one["log_z"])) for one in chains])


def figure(found: list[dict]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
    colours = dict(
        zip(("inf", "0.3", "0.1"), ((figures.GREEN, "-"), (figures.ORANGE, "--"), (figures.BLUE, "-.")), strict=True)
    )
    for ax, alpha in zip(axes, (1.25, 2, 4), strict=True):
        for one in (one for one in found if one["alpha"] == alpha):
            colour, style = colours[one["beta"]]
            ax.plot(one["steps"], one["kl"], color=colour, ls=style, marker="o", ms=3, label=f"β {one['beta']}")
        ax.set(title=f"α = {alpha:g}", xlabel="step", ylim=(0, None))
    axes[0].set_ylabel(r"$\mathrm{KL}(\pi\,\|\,\pi^*)$, nats a response")
    axes[-1].legend()
    return drawn


def main(folder: Path, observations: Path) -> None:
    m, found, lines = Measured(observations), [], []
    task = m.accuracy("task").value
    for alpha, beta in RUNS:
        name, law = grid_name(alpha, beta), base.optimum("toy", alpha, float(beta))
        steps, kl = distances(m.run(name), float(beta), law.log_z[0])
        value = m.accuracy(name).value
        blamed = ["the optimum"] * (task - law.accuracy[0] > BRIDGE) + ["the optimiser"] * (
            law.accuracy[0] - value > BRIDGE
        )
        one = {"alpha": alpha, "beta": beta, "steps": steps, "kl": kl, "log_z": law.log_z, "optimum": law.accuracy[0]}
        found.append(one | {"accuracy": value, "blamed": blamed})
        lines.append([f"α {alpha:g}, β {beta}", f"{kl[0]:.2f}", f"{kl[-1]:.2f} ± {law.log_z[1]:.2f}", f"{value:.1f}"])
        lines[-1] += [plus_minus(law.accuracy), " and ".join(blamed) or "none"]
    exact, estimated = base.optimum("toy", 2.0).log_z, smc_log_z(folder / "smc", 2.0)
    likeliest = base.estimate([float(one.logp.max()) for one in base.candidates("toy", 0.25)])
    reached = [float(np.mean(run.curve("objective/logp_base")[1][-5:])) for run in m.runs("sharpen")]
    section = Section("distance", "1. How far from its optimum does a run stop?", __doc__)
    section.say(
        f"log Z of π_base², mean over problems: exact {exact[0]:.3f} ± {exact[1]:.3f}, by SMC with 8 particles "
        f"{estimated[0]:.3f} ± {estimated[1]:.3f} (errors over problems, which are the same ones). A KL computed with "
        "the second is a lower bound.",
        f"Sharpening: the likeliest response has log π_base {plus_minus(likeliest)} on average; the runs end at "
        f"{', '.join(f'{value:.2f}' for value in reached)}.",
    )
    header = [
        "Run",
        "KL at step 10, nats",
        "KL at the end",
        "Pass@1",
        "Pass@1 of its exact optimum",
        "what it lacks is due to",
    ]
    section.table(header, lines)
    section.figure(figure(found), "Distance from the exact optimum along training, seed 1.")
    numbers = {"runs": found, "log_z": exact, "log_z_by_smc": estimated, "likeliest": likeliest, "reached": reached}
    section.write(folder, numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
