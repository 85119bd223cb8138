"""Estimators of the KL divergence, and what they converge to (question 7).

    python -m benchmark.miniature.beyond.estimators OUTPUT

Every library for reinforcement learning with a KL penalty estimates KL(pi || pi_base) by one of three functions of a
sampled log-ratio d = log pi - log pi_base,

    k1 = d        k2 = d^2 / 2        k3 = exp(-d) - 1 + d

either in the return, where it is data, or in the loss, where it is differentiated, and either of a whole response (d is
the sum over its tokens) or of each token (k is summed over them). For the paper's objectives d = log pi - alpha log
pi_base. At which policy is the expected update zero, and how far is it from the optimum that is meant,

    pi* = pi_base^alpha exp(r / beta) / Z ?                                                    (Eq. 4)

Nothing is sampled. On models whose responses can be listed, the expected update

    sum_y pi(y) sum_t w_yt grad log pi(y_t | y_<t),   w = r - beta k          in the return
                                                      w_yt = r - beta k'(d)   in the loss

is followed, as a natural gradient from pi = pi_base, until the policy stands still. In the loss, k' is 1, d and
1 - exp(-d), and d is the response's or the token's.

Rules, written before the first run. A variant is RIGHT if the total variation between its end and pi* is below 0.001,
CLOSE below 0.02, and WRONG otherwise. Where the policy still moves after STEPS steps, the end is marked as not settled.
Expected: only k1 in the return and k2 of the whole response in the loss are right, because these are the gradient of
KL(pi || pi_base^alpha); k1 in the loss has no effect, so the policy ends at the largest reward.
"""

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmark.miniature.beyond.enumerated import Tree, power_law, total_variation
from benchmark.miniature.beyond.section import Section
from benchmark.report import figures

STEPS, RATE = 50_000, 0.05
SMALLEST = 1e-7  # a policy that moves by less, for a step of length 1, stands still
LARGEST_LOGIT = 60.0  # a policy that gives up a response does so to within exp(-60)
RIGHT, CLOSE = 1e-3, 2e-2

Function = Callable[[np.ndarray], np.ndarray]
ESTIMATORS: dict[str, tuple[Function, Function]] = {  # k and its derivative
    "k1": (lambda d: d, np.ones_like),
    "k2": (lambda d: d**2 / 2, lambda d: d),
    "k3": (lambda d: np.exp(-d) - 1 + d, lambda d: 1 - np.exp(-d)),
}
PLACES, EXTENTS = ("return", "loss"), ("response", "token")
VARIANTS = list(itertools.product(ESTIMATORS, PLACES, EXTENTS))
USED_BY = {  # as read in their sources in summer 2026
    ("k1", "return", "response"): "this repository; TRL's RLOO trainer",
    ("k1", "loss", "token"): "NeMo RL up to 0.6, as an option",
    ("k2", "loss", "token"): "verl and OpenRLHF, as an option; TRL's GRPO trainer with its bias correction",
    ("k3", "loss", "token"): "TRL's GRPO trainer without it; NeMo RL up to 0.6; SkyRL; open-instruct",
}


def update_weights(tree: Tree, logits, base, reward, alpha: float, beta: float, variant) -> np.ndarray:
    """Returns w (Y, L), the weight of every token's score in the expected update of a variant."""
    estimator, place, extent = variant
    k, derivative = ESTIMATORS[estimator]
    token_ratio = tree.token_logp(logits) - alpha * tree.token_logp(base)  # (Y, L)
    ratio = token_ratio.sum(1, keepdims=True)  # (Y, 1)
    shape = tree.real.shape
    with np.errstate(over="ignore"):  # exp(-d) of a response that the policy has given up
        if place == "return" and extent == "response":
            penalty = k(ratio)
        elif place == "return":
            penalty = np.where(tree.real, k(token_ratio), 0.0).sum(1, keepdims=True)
        else:
            penalty = derivative(ratio if extent == "response" else token_ratio)
    return np.broadcast_to(reward[:, None] - beta * penalty, shape)


def fixed_point(tree: Tree, base, reward, alpha: float, beta: float, variant) -> tuple[np.ndarray, float]:
    """Returns the policy (Y,) at which a variant ends that starts from the base, and how fast it still moves there."""
    logits, policy, speed = base.copy(), np.exp(tree.logp(base)), math.inf
    for _ in range(STEPS):
        step = tree.advantages(logits, update_weights(tree, logits, base, reward, alpha, beta, variant))
        logits = logits + RATE * np.clip(step, -10, 10)  # the clip changes the path, not where it ends
        logits = np.maximum(logits - logits.max(1, keepdims=True), -LARGEST_LOGIT)
        before, policy = policy, np.exp(tree.logp(logits))
        speed = float(np.abs(policy - before).max()) / RATE
        if speed < SMALLEST:
            break
    return policy, speed


def one_token() -> tuple[Tree, np.ndarray, np.ndarray]:
    """Three answers of one token: base .7 .2 .1, reward 0 .1 .1."""
    return Tree(3, 1), np.log([[0.7, 0.2, 0.1]]), np.array([0.0, 0.1, 0.1])


def three_tokens() -> tuple[Tree, np.ndarray, np.ndarray]:
    """Fifteen responses of one to three tokens over {stop, a, b} under a random base; an odd number of a is right."""
    tree = Tree(3, 3)
    base = np.random.default_rng(0).normal(size=(tree.num_contexts, 3))
    return tree, base, np.array([float(y.count(1) % 2) for y in tree.responses])


def verdict(distance: float) -> str:
    return "right" if distance < RIGHT else "close" if distance < CLOSE else "wrong"


def measure() -> list[dict]:
    """Returns a row for each variant: its distance from the optimum for both models and alpha 1 and 2."""
    models = {"one token": (one_token(), 1.0), "three tokens": (three_tokens(), 0.5)}
    rows = []
    for variant in VARIANTS:
        estimator, place, extent = variant
        row: dict = {"estimator": estimator, "place": place, "extent": extent, "distance": {}, "speed": {}}
        for (name, ((tree, base, reward), beta)), alpha in itertools.product(models.items(), (1.0, 2.0)):
            policy, speed = fixed_point(tree, base, reward, alpha, beta, variant)
            optimum = power_law(tree.logp(base), reward, alpha, beta)
            case = f"{name}, α {alpha:g}"
            row["distance"][case], row["speed"][case] = total_variation(policy, optimum), speed
            if name == "one token" and alpha == 1:
                row["policy"] = policy.tolist()
        rows.append(row)
    return rows


def figure(rows: list[dict]) -> plt.Figure:
    """Bars of the distance by variant, a panel for each model."""
    drawn, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    labels = [f"{row['estimator']}, {row['place']}, {row['extent']}" for row in rows]
    for ax, model in zip(axes, ("one token", "three tokens"), strict=True):
        for shift, alpha, colour, hatch in ((-0.2, 1, figures.BLUE, ""), (0.2, 2, figures.ORANGE, "//")):
            heights = [row["distance"][f"{model}, α {alpha}"] for row in rows]
            places = np.arange(len(rows)) + shift
            ax.barh(places, heights, 0.36, color=colour, hatch=hatch, edgecolor="black", lw=0.5, label=f"α = {alpha}")
        ax.set(title=f"responses of {model if model == 'one token' else 'one to three tokens'}")
        ax.set_xlabel("distance from the optimum (total variation)")
        ax.set_yticks(range(len(rows)), labels)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    axes[1].legend()
    return drawn


def main(folder: Path) -> None:
    rows = measure()
    cases = [*rows[0]["distance"]]
    section = Section("estimators", "7. Which estimators of the KL are right?", __doc__)
    header = ["Estimator", "in the", "of the whole", *cases, "Verdict", "Used by"]
    lines = []
    for row in rows:
        cells = []
        for case in cases:
            unsettled = " (not settled)" * (row["speed"][case] >= SMALLEST)
            cells.append(f"{row['distance'][case]:.4f}{unsettled}")
        key = (row["estimator"], row["place"], row["extent"])
        worst = max(row["distance"].values())
        lines.append([*key, *cells, verdict(worst), USED_BY.get(key, "")])
    right = [" ".join(line[:3]) for line in lines if line[-2] == "right"]
    shown = ", ".join(f"{p:.3f}" for p in next(row for row in rows if row["estimator"] == "k3")["policy"])
    optimum = ", ".join(f"{p:.3f}" for p in power_law(np.log([0.7, 0.2, 0.1]), np.array([0, 0.1, 0.1]), 1, 1))
    section.say(
        f"Right in every case: {', '.join(right)}. Distances are total variations between the policy at which the "
        "expected update is zero and the optimum; the verdict is on the largest of the four.",
        f"An example: with k3 of the response in the return, one token and α = β = 1, training ends at ({shown}); the "
        f"optimum is ({optimum}).",
    )
    section.table(header, lines)
    section.figure(figure(rows), "Distance from the optimum at which each estimator stops.")
    section.write(folder, {"rows": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
