"""Accuracy at matched compute (question 4).

    python -m benchmark.miniature.beyond.compute OUTPUT OBSERVATIONS

Inference-time methods pay for every question, training pays once. Compute is counted in tokens that go through the
model: one for a sampled token; for a response token in training, one for sampling it, three for the policy's forward
and backward pass, and one for the base's forward pass. Prompts are left out: here they are short. The training tokens
are spread over 1, 10^3 and 10^6 answered questions, and what an answer takes itself is added.

Majority and best of n are computed from the same responses: Maj@n is a vote without knowledge of the answer, Pass@n
needs a verifier. Both take n responses.

Rules, written before the first run. For each number of questions, a method is on the FRONT if no other method has at
least its accuracy for fewer tokens; methods that need a verifier at test time are left out of it. No verdict: the table
says which methods are on the front.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from benchmark.miniature.beyond.section import Section
from benchmark.miniature.observations import Measured
from benchmark.miniature.rows import METHODS, MOVES
from benchmark.report import figures
from benchmark.report.results import TrainingRun, mean
from benchmark.report.verdicts import accuracy

QUESTIONS = (1, 10**3, 10**6)
IN_TRAINING = 5  # tokens through a model for a response token: sampling, forward, backward (two), base
VERIFIED = "verifier"


def training_tokens(run: TrainingRun) -> float:
    """Returns the tokens that went through the models in training, with those of the base."""
    responses = run.args["num_problems"] * run.args["group_size"]
    return IN_TRAINING * responses * sum(run.curve("policy/response_length")[1])


def measure(m: Measured) -> list[dict]:
    """Returns for each method: accuracy in per cent, tokens for an answer, and tokens of training."""
    base = m.sample("base")
    spent = mean([base], "spent")[0]
    rows = [
        {"method": "Base", "kind": "sampling", "accuracy": accuracy([base]).value, "answer": spent, "training": 0.0}
    ]

    def add(method: str, kind: str, value: float, answer: float, training: float = 0.0) -> None:
        rows.append({"method": method, "kind": kind, "accuracy": value, "answer": answer, "training": training})

    for n in (2, 4, 8, 16):
        add(f"Maj@{n}", "vote", base.percent(f"maj_at_{n}")[0], n * spent)
        add(f"Pass@{n}", VERIFIED, base.percent(f"pass_at_{n}")[0], n * spent)
    for t in ("0.8", "0.5", "0.25"):
        file = m.sample(f"base_T{t}")
        add(f"T = {t}", "temperature", accuracy([file]).value, mean([file], "spent")[0])
    for width in (1, 4, 16):
        file = m.beam(width, "toy")
        add(f"Beam {width}", "beam", accuracy([file]).value, mean([file], "spent")[0])
    for moves in MOVES:
        file = m.power(f"power_exact_{moves}")
        add(f"Power 2, {moves} moves", "power", accuracy([file]).value, mean([file], "spent")[0])
    for name, label in METHODS.items():
        runs, files = m.runs(name), m.samples(name)
        tokens = sum(training_tokens(run) for run in runs) / len(runs)
        add(label, "training", m.accuracy(name).value, mean(files, "spent")[0], tokens)
    return rows


def cost(row: dict, questions: int) -> float:
    """Returns the tokens for an answer with its share of the training."""
    return row["answer"] + row["training"] / questions


def front(rows: list[dict], questions: int) -> list[str]:
    """Returns the methods that no other one beats in accuracy for fewer tokens, cheapest first."""
    best, found = -1.0, []
    usable = [row for row in rows if row["kind"] != VERIFIED]
    for row in sorted(usable, key=lambda row: (cost(row, questions), -row["accuracy"])):
        if row["accuracy"] > best:
            best = row["accuracy"]
            found.append(row["method"])
    return found


def figure(rows: list[dict]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True, sharex=True)
    kinds = {"sampling": ("k", "o"), "vote": (figures.GREEN, "s"), VERIFIED: (figures.GREY, "x")}
    kinds |= {"temperature": (figures.SKY, "v"), "beam": (figures.PINK, "D"), "power": (figures.ORANGE, "^")}
    kinds["training"] = (figures.BLUE, "*")
    for ax, questions in zip(axes, QUESTIONS, strict=True):
        for kind, (colour, marker) in kinds.items():
            some = [row for row in rows if row["kind"] == kind]
            x = [cost(row, questions) for row in some]
            ax.plot(x, [row["accuracy"] for row in some], marker, color=colour, label=kind, ms=7)
        ax.set(xscale="log", xlabel="tokens for an answer", title=f"{questions:,} questions")
    axes[0].set_ylabel("Pass@1, %")
    axes[-1].legend(fontsize=7.5)
    return drawn


def main(folder: Path, observations: Path) -> None:
    rows = measure(Measured(observations))
    fronts = {questions: front(rows, questions) for questions in QUESTIONS}
    section = Section("compute", "4. Accuracy at matched compute", __doc__)
    section.say(
        *(f"On the front for {questions:,} questions: {', '.join(names)}." for questions, names in fronts.items())
    )
    header = ["Method", "accuracy, %", "tokens an answer", "tokens of training"]
    header += [f"tokens at {questions:,} questions" for questions in QUESTIONS]
    lines = [
        [row["method"], f"{row['accuracy']:.1f}", f"{row['answer']:,.0f}", f"{row['training']:,.0f}"]
        + [f"{cost(row, questions):,.0f}" for questions in QUESTIONS]
        for row in rows
    ]
    section.table(header, lines)
    section.figure(figure(rows), "Accuracy against tokens for an answer, training spread over the questions asked.")
    section.write(folder, {"rows": rows, "fronts": {str(questions): names for questions, names in fronts.items()}})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
