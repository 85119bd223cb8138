"""The rows of benchmark/miniature/observations.sh: their names, labels and settings."""

import math

SEEDS = ("seed1", "seed2", "seed3", "seed4", "seed5")  # at fixed length three
METHODS = {"task": "Task reward", "sharpen": "Sharpening", "tempered": "Tempered 2", "tilted": "Tilted (2, 0.1)"}
POWERS = {"task": (1.0, 0.0), "sharpen": (math.inf, math.inf), "tempered": (2.0, math.inf), "tilted": (2.0, 0.1)}
OTHERS = {"more-guesses": "more guesses", "fewer-guesses": "fewer guesses"}
CONTROLS = {"random_reward": "Random reward", "logp_per_token": "log π_base per token"}
GRID = [(alpha, beta) for alpha in (1, 1.25, 2, 4) for beta in ("inf", "0.3", "0.1")]
MODES = ("exact", "karan-du", "mh-llm", "mh-llm-signfix")
MOVES, BEAMS, KS = (0, 1, 10, 100), (1, 4, 16, 64), tuple(2**i for i in range(9))
QUICK = [f"{method}_seed1" for method in METHODS] + ["task_hard", "sharpen_hard"]


def grid_name(alpha: float, beta: str) -> str:
    """The row of an alpha and beta; those that have several seeds by their first."""
    return {(2, "inf"): "tempered_seed1", (2, "0.1"): "tilted_seed1"}.get((alpha, beta), f"alpha{alpha:g}_beta{beta}")
