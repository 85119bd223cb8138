"""New skills: does training teach chains that are longer than any the base has seen? (question 8, second part)

    python -m benchmark.miniature.beyond.new_skills write FOLDER           the problems with four to six operations
    python -m benchmark.miniature.beyond.new_skills OUTPUT RUNS

The base of this study (`short-chains` in common/toy.py) was pre-trained on chains of one or two operations only, with
letters from a to i. It is trained on chains of four to six, and evaluated on each number of operations with 256
responses to a problem. The curriculum trains on chains of two to six.

Pass@k alone cannot answer the question: an answer is a digit, so that by chance one response in ten is right and
Pass@256 is near 100 % whatever the model can do. So a response counts as WORKED only if it has a right line for every
operation of the problem, in order, and then the right box. Worked@k is the chance that one of k responses is, by the
same estimator as Pass@k.

Rules, written before the first run. A run has TAUGHT a number of operations if its share of worked responses is more
than 2 points and two errors above Base's and Base's Worked@256 is below 50 %: then more samples from Base would not
have given what the run gives in one. Where Base's Worked@256 is higher, the run has made it LIKELIER. Otherwise NO
CHANGE.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmark.miniature.beyond.section import Section
from benchmark.miniature.observations import Measured
from benchmark.report import figures
from benchmark.report.results import ResultsFile
from benchmark.report.verdicts import exceeds, plus_minus
from common.grading import pass_at_k
from common.toy import PREFIXES, apply, parse, solve, toy_problems

LENGTHS = (4, 5, 6)
TEST_EACH, MANY = 20, 256  # test problems of each length, and responses to each
ROWS = {"skills_base": "Base", "skills_task": "Task reward", "skills_sharpen": "Sharpening"}
ROWS["skills_curriculum"] = "Task reward, curriculum"


def of_length(split: str, lengths: tuple[int, ...]) -> list[dict]:
    """Returns the easy level's problems with so many operations, as rows of a data set; the length is the level."""
    return [
        {"id": id, "problem": text, "answer": answer, "level": count}
        for id, text, answer, count in toy_problems("toy", split)
        if count in lengths
    ]


def write(folder: Path) -> None:
    """Writes skills_{train,curriculum,validation,test}.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = of_length("test", LENGTHS)
    test = [row for length in LENGTHS for row in [row for row in held_out if row["level"] == length][:TEST_EACH]]
    taken = {row["id"] for row in test}
    parts = {"train": of_length("train", LENGTHS), "curriculum": of_length("train", (2, 3, 4, 5, 6)), "test": test}
    parts["validation"] = [row for row in held_out if row["id"] not in taken][:200]
    for name, rows in parts.items():
        (folder / f"skills_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def is_worked(problem: str, response: str) -> bool:
    """Returns whether a response has a right line for every operation, in order, and then the right box."""
    value, operations = parse(problem)
    lines = response.split("\n")
    if len(lines) != len(operations) + 1 or lines[-1] != f"\\boxed{{{solve(problem)}}}":
        return False
    for line, (letter, operator, operand) in zip(lines, operations, strict=False):
        result = apply(value, operator, operand)
        right = f"{value}{letter}{operator}{operand}={result}"
        if line not in {prefix + right for prefix in PREFIXES}:
            return False
        value = result
    return True


def worked(file: ResultsFile, problems: dict[str, str]) -> dict[str, int]:
    """Returns the number of worked responses to each problem of a results file; problems: text by id."""
    path = file.path.with_suffix("").with_suffix(".responses.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {r["id"]: sum(is_worked(problems[r["id"]], text) for text in r["responses"]) for r in records}


def share(counts: list[int], k: int) -> tuple[float, float]:
    """Returns Worked@k over problems, per cent, and its error."""
    values = [100 * pass_at_k(MANY, count, k) for count in counts]
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


def word(ours: tuple[float, float], base: tuple[float, float], base_at_most: float) -> str:
    over = ours[0] - base[0], (ours[1] ** 2 + base[1] ** 2) ** 0.5
    if not exceeds(over):
        return "no change"
    return "taught" if base_at_most < 50 else "likelier"


def figure(found: dict[str, dict[int, list[int]]]) -> plt.Figure:
    drawn, axes = plt.subplots(1, len(LENGTHS), figsize=(10, 3.4), layout="constrained", sharey=True)
    styles = (figures.GREY, "o", "-"), (figures.BLUE, "^", "-"), (figures.RED, "v", "--"), (figures.GREEN, "s", "-.")
    ks = [2**i for i in range(9)]
    for ax, length in zip(axes, LENGTHS, strict=True):
        for (row, counts), (colour, marker, style) in zip(found.items(), styles, strict=True):
            values = [share(counts[length], k)[0] for k in ks]
            ax.plot(ks, values, color=colour, marker=marker, ls=style, ms=4, label=ROWS[row])
        ax.set_xscale("log", base=2)
        ax.set(title=f"{length} operations", xlabel="k", ylim=(-2, 102))
    axes[0].set_ylabel("Worked@k, %")
    axes[0].legend(fontsize=7.5)
    return drawn


def main(folder: Path, runs: Path) -> None:
    own = Measured(runs)
    rows = [json.loads(line) for line in (runs / "skills_test.jsonl").read_text().splitlines()]
    problems, lengths = {row["id"]: row["problem"] for row in rows}, {row["id"]: row["level"] for row in rows}
    files = {name: own.sample(name, "skills_test__n*__seed1.json") for name in ROWS}
    found = {}
    for name, file in files.items():
        counts = worked(file, problems)
        found[name] = {length: [c for id, c in counts.items() if lengths[id] == length] for length in LENGTHS}
    lines, numbers = [], []
    for length in LENGTHS:
        base, base_at_most = (share(found["skills_base"][length], k) for k in (1, MANY))
        for name, label in ROWS.items():
            file = files[name]
            right = [r / file.n for id, r in zip(file.ids, file.right["authors"], strict=True) if lengths[id] == length]
            once, at_most = (share(found[name][length], k) for k in (1, MANY))
            said = "" if name == "skills_base" else word(once, base, base_at_most[0])
            lines.append([f"{label}, {length} operations", f"{100 * np.mean(right):.1f}", plus_minus(once)])
            lines[-1] += [plus_minus(at_most), said]
            numbers.append({"row": name, "operations": length, "worked": once, "worked_at_256": at_most, "word": said})
    section = Section("new_skills", "8. New skills", __doc__)
    section.table(["Model", "Pass@1, %", "Worked@1, %", "Worked@256, %", ""], lines)
    section.figure(figure(found), "Share of problems of which one of k responses is worked rightly, line by line.")
    section.write(folder, {"rows": numbers})


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:3]))
