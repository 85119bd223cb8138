"""Sharpening without its taste for short answers (question 6).

    python -m benchmark.miniature.beyond.length_aware OUTPUT OBSERVATIONS RUNS

log pi_base of a response is a sum over its tokens, so a short response is likelier than a long one that is as good word
by word. The return

    R(y) = (alpha log pi_base(y) - log pi(y)) / |y|^gamma

with gamma 0 is tempered sampling (Eq. 6) and with gamma 1 compares tokens. Each row is a copy of rloo_tilted.py with
one line changed. The return is data, so training stands still where R is the same for all responses of a problem, at

    pi(y) = pi_base(y)^alpha exp(c |y|^gamma),     c such that the probabilities add up to 1.

For gamma 0 this is pi_base^alpha / Z. For alpha > 1 the powers add up to less than 1, so c > 0: long responses gain,
and the more so the larger gamma is. The fixed point is computed exactly (benchmark/miniature/beyond/base.py).

Rules, written before the first run. Sharpening SURVIVES at a gamma > 0 if the run is better than Base by 2 points and
two errors with a mean length of at least nine tenths of Base's; its price is what it lacks to task reward's accuracy.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmark.miniature.beyond import base
from benchmark.miniature.beyond.section import Section
from benchmark.miniature.observations import Measured
from benchmark.miniature.optima import Candidates
from benchmark.report import figures
from benchmark.report.results import mean
from benchmark.report.verdicts import difference, exceeds, plus_minus, points

ALPHAS, GAMMAS = (0.5, 2.0, 4.0), (0.0, 0.5, 1.0)
KNOWN = {(2.0, 0.0): "tempered_seed1", (4.0, 0.0): "alpha4_betainf"}  # rows of observations.sh


def row_name(alpha: float, gamma: float) -> str:
    return f"length_alpha{alpha:g}_gamma{gamma:g}"


def fixed_point(problem: Candidates, alpha: float, gamma: float) -> torch.Tensor:
    """Returns the probability of each candidate (N,) at the fixed point, by bisection of c."""
    log_weight, size = alpha * problem.logp - problem.log_proposal, problem.length**gamma
    low, high = -50.0, 50.0
    for _ in range(100):
        c = (low + high) / 2
        if torch.logsumexp(log_weight + c * size, 0) > 0:
            high = c
        else:
            low = c
    return (log_weight + low * size).softmax(0)


def exact(alpha: float, gamma: float) -> tuple[tuple[float, float], float]:
    """Returns accuracy, per cent, with its error over problems, and mean length of the fixed point, tokens."""
    accuracy, length = [], []
    for problem in base.candidates("toy", 1 / max(1.0, alpha)):
        weights = fixed_point(problem, alpha, gamma)
        accuracy.append(100 * float((weights * problem.reward).sum()))
        length.append(float((weights * problem.length).sum()))
    return base.estimate(accuracy), base.estimate(length)[0]


def main(folder: Path, observations: Path, runs: Path) -> None:
    m, own = Measured(observations), Measured(runs)
    plain, task = m.accuracy("base"), m.accuracy("task")
    base_length = mean([m.sample("base")], "spent")[0]
    rows, lines = [], []
    for alpha in ALPHAS:
        for gamma in GAMMAS:
            name = KNOWN.get((alpha, gamma))
            source, name = (m, name) if name else (own, row_name(alpha, gamma))
            row, files = source.accuracy(name), [source.sample(name)]
            length, gain = mean(files, "spent")[0], difference(row, plain)
            best, best_length = exact(alpha, gamma)
            survives = gamma > 0 and alpha > 1 and exceeds(gain) and length >= 0.9 * base_length
            one = {"alpha": alpha, "gamma": gamma, "accuracy": difference(row), "gain": gain, "length": length}
            rows.append(one | {"guesses": source.guesses(files), "exact": best, "exact_length": best_length})
            lines.append([f"α {alpha:g}, γ {gamma:g}", plus_minus(one["accuracy"]), points(gain)])
            lines[-1] += [points(difference(row, task)), f"{length:.1f}", f"{rows[-1]['guesses']:.1f}"]
            lines[-1] += [plus_minus(best), f"{best_length:.1f}", "survives" if survives else ""]
    section = Section("length_aware", "6. Sharpening without its taste for short answers", __doc__)
    section.say(f"Base has {plain.value:.1f} % with {base_length:.1f} tokens, task reward {task.value:.1f} %.")
    header = ["Target", "Pass@1", "over Base", "over task reward", "tokens", "guesses, %"]
    section.table([*header, "fixed point: Pass@1", "tokens", ""], lines)
    section.figure(figure(rows), "Accuracy and length by the power of the length that divides the return.")
    section.write(folder, {"rows": rows})


def figure(rows: list[dict]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    styles = dict(
        zip(ALPHAS, ((figures.SKY, "o", "-"), (figures.GREEN, "s", "--"), (figures.RED, "v", "-.")), strict=True)
    )
    for alpha, (colour, marker, style) in styles.items():
        some = [row for row in rows if row["alpha"] == alpha]
        values = [row["accuracy"][0] for row in some]
        axes[0].plot(GAMMAS, values, color=colour, marker=marker, ls=style, label=f"α = {alpha:g}")
        exacts = [row["exact"][0] for row in some]
        axes[0].plot(GAMMAS, exacts, color=colour, marker=marker, ls=":", mfc="white", lw=0.8)
        axes[1].plot(GAMMAS, [row["length"] for row in some], color=colour, marker=marker, ls=style)
    axes[0].set(xlabel="γ", ylabel="Pass@1, % (open: the fixed point)", xticks=GAMMAS)
    axes[1].set(xlabel="γ", ylabel="tokens", xticks=GAMMAS, ylim=(0, None))
    axes[0].legend()
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
