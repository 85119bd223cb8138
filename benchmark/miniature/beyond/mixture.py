"""A mixture of tasks: easy and hard problems together (question 8, first part).

    python -m benchmark.miniature.beyond.mixture write FOLDER             the mixed training and validation problems
    python -m benchmark.miniature.beyond.mixture OUTPUT OBSERVATIONS RUNS

The paper trains on one kind of problems. Here half of the training problems are of the easy level, where the likeliest
response works the problem, and half of the hard one, where it guesses. Task reward and sharpening are trained on the
mixture and evaluated on each level, beside the runs that saw one level only (seed 1, the same number of steps and
responses, so half as many of each level).

Rules, written before the first run. The mixture HELPS a method on a level if it is better there than the run of that
level alone, HURTS if it is worse (2 points and two errors), and does neither otherwise. Expected: task reward loses a
little on each level, since it sees half as many problems of it; sharpening guesses on both.
"""

import json
import sys
from pathlib import Path

from benchmark.miniature.beyond.section import Section
from benchmark.miniature.observations import Measured
from benchmark.report.verdicts import Accuracy, accuracy, difference, exceeds, plus_minus, points
from common.toy import toy_problems

METHODS = {"task": "Task reward", "sharpen": "Sharpening"}
LEVELS = {"toy": ("easy level", "_seed1", "base"), "toy_hard": ("hard level", "_hard", "base_hard")}


def write(folder: Path) -> None:
    """Writes mixed_train.jsonl, 2,048 problems of each level in turn, and mixed_validation.jsonl, 100 of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split, first, last in (("train", "train", 0, 2048), ("validation", "test", 900, 1000)):
        pairs = zip(*(toy_problems(level, split)[first:last] for level in LEVELS), strict=True)
        rows = [{"id": id, "problem": text, "answer": answer} for pair in pairs for id, text, answer, _ in pair]
        (folder / f"mixed_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def word(found: tuple[float, float]) -> str:
    return "helps" if exceeds(found) else "hurts" if exceeds((-found[0], found[1])) else "neither"


def main(folder: Path, observations: Path, runs: Path) -> None:
    m, own = Measured(observations), Measured(runs)
    rows, lines = [], []
    for name, label in METHODS.items():
        for level, (where, suffix, base) in LEVELS.items():
            alone = accuracy([m.sample(name + suffix)])
            files = [own.sample(f"{name}_mixed", f"{level}_test__n*__seed1.json")]
            mixed: Accuracy = accuracy(files)
            over, over_base = difference(mixed, alone), difference(mixed, m.accuracy(base))
            rows.append({"method": name, "level": level, "mixed": difference(mixed), "alone": difference(alone)})
            rows[-1] |= {"over_alone": over, "over_base": over_base, "guesses": own.guesses(files)}
            lines.append([f"{label}, {where}", plus_minus(difference(mixed)), plus_minus(difference(alone))])
            lines[-1] += [points(over), points(over_base), f"{rows[-1]['guesses']:.1f}", word(over)]
    section = Section("mixture", "8. A mixture of tasks", __doc__)
    header = [
        "Method and level",
        "trained on both",
        "trained on this level",
        "difference",
        "over Base",
        "guesses, %",
        "",
    ]
    section.table(header, lines)
    section.write(folder, {"rows": rows})


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:4]))
