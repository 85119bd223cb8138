"""The paper's observations 1 to 4 on a small real model: python -m benchmark.small_model.page OUTPUT

OUTPUT is the folder of `benchmark/small_model/smollm2.sh --cpu`. Leaves smollm2.{md,html,json}, samples.md and figures/
in OUTPUT/page. Rows that are not complete are listed, and what needs them is undecided.

The rules below were written down before the first row was run.

Accuracy is Pass@1 at T = 1 of the last checkpoint on the 100 test problems, 8 responses each, by the strict verdict,
which also pays in training; averaged over seeds where there are two. Errors, MARGIN, BRIDGE and "better" are those of
benchmark/report/verdicts.py. Validation is that of training, 60 problems with one response each. Sharpening has three
rows: variable length, fixed length, and tempered (alpha 2, beta inf).

1. "Distribution sharpening can sometimes bridge the gap to task reward, but is unreliable; task reward is consistent."
   a. task reward is better than Base
   b. some row of sharpening is better than Base and within BRIDGE points of task reward
   c. some row of sharpening is not better than Base
   agree: a, b and c. disagree: not a, or not c. undecided: only b fails.
2. "The optima of sharpening are unfavourable; better optimisation does not systematically mean better performance."
   a. some answers that are less likely than those of the widest beam (width 4, penalty 0) are better than these: those
      of T = 1/2, T = 1/4 or a beam of width 1
   b. in some run of sharpening, from its best validated step to the end the return rises and validation accuracy falls
      by more than MARGIN points and two errors
   agree: a and b. disagree: neither. undecided: otherwise.
3. "Inference-time sharpening helps because its compute does not reach the optimum."
   a. the beam of width 4 is likelier and worse than that of width 1
   b. power sampling (alpha 2 or 4) is better than Base, and better than a trained row of sharpening at variable length
      whose responses are likelier
   agree: a and b. disagree: neither. undecided: otherwise.
4. "Keeping everything else constant, more reliance on task reward improves performance and stability."
   a. tilted (alpha 2, beta 1e-2) is better than tempered (alpha 2, beta inf)
   b. task reward is not worse than tilted
   c. the fall from the best validated step to the last is not larger with task reward than in tempered sampling, by
      MARGIN points and two errors
   agree: a, b and c. disagree: not a, and tempered is better than tilted. undecided: otherwise.

A response's log pi_base comes from evaluation for Base, power sampling and beams, and is the mean of the last five
steps of training for trained rows.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tyro

from benchmark.report import figures
from benchmark.report.page import Page, Table
from benchmark.report.results import Missing, ResultsFile, TrainingRun, mean, read_json, read_summary
from benchmark.report.verdicts import (
    BRIDGE,
    Accuracy,
    Claim,
    accuracy,
    better,
    difference,
    exceeds,
    fall,
    plus_minus,
    points,
    rise,
    verdict,
)
from common.run import write_json

VALIDATION = "eval/held_out"
TRAINED = {  # row, and the row of its second seed: label
    ("task", "task_seed2"): "Task reward",
    ("sharpen", "sharpen_seed2"): "Sharpening",
    ("fixed_sharpen",): "Sharpening, fixed length",
    ("tilted_alpha2_betainf",): "Tempered 2",
    ("tilted_alpha2_beta1e-2",): "Tilted (2, 1e-2)",
    ("task_authors",): "Task reward, the authors' verdict pays",
}
TASK, SHARPEN, FIXED, TEMPERED, TILTED, AUTHORS = TRAINED
SHARPENING = {SHARPEN: "variable length", FIXED: "fixed length", TEMPERED: "tempered 2"}
TEMPERATURES = ("1", "0.5", "0.25")
EXAMPLES = 10  # responses of each model that are shown


@dataclass
class Args:
    folder: tyro.conf.Positional[Path]
    """output of benchmark/small_model/smollm2.sh --cpu"""


# --- what was measured ------------------------------------------------------------------------------------------------


read_results = cache(ResultsFile)  # several verdicts and tables ask for the same file


@dataclass
class Measured:
    """What the rows have left in a folder. Each method raises Missing for a row that is not complete."""

    folder: Path

    def run(self, name: str) -> TrainingRun:
        found = sorted(self.folder.glob(f"{name}__*/"))
        if len(found) != 1 or not (self.folder / "done" / name).exists():
            raise Missing(f"row {name}")
        return TrainingRun(found[0])

    def runs(self, names: tuple[str, ...]) -> list[TrainingRun]:
        """The runs of a trained row: the first seed, and the others as far as they are complete."""
        return [self.run(names[0]), *(self.run(name) for name in names[1:] if (self.folder / "done" / name).exists())]

    def last(self, names: tuple[str, ...]) -> list[ResultsFile]:
        """The results of the last checkpoint of each seed."""
        found = []
        for run in self.runs(names):
            rows = [row for row in read_summary(run.folder / "results") if row.checkpoint == "last"]
            found += [read_results(path) for row in rows for path in row.paths]
        return found

    def plain(self, temperature: str) -> ResultsFile:
        return self._only(f"plain_T{temperature}", f"plain_T{temperature}/small_test__n8__seed1.json")

    def power(self, alpha: int) -> ResultsFile:
        return self._only(f"power_exact_alpha{alpha}", f"power_exact_alpha{alpha}__small_test__n*__seed1.json")

    def beam(self, width: int, penalty: int = 0) -> ResultsFile:
        return self._only(f"beam{width}", f"small_test__beam{width}__penalty{penalty}__vllm-0.11.json")

    def _only(self, row: str, pattern: str) -> ResultsFile:
        found = sorted((self.folder / "results").glob(pattern))
        if len(found) != 1 or not (self.folder / "done" / row).exists():
            raise Missing(f"row {row}")
        return read_results(found[0])

    def accuracy(self, names: tuple[str, ...]) -> Accuracy:
        return accuracy(self.last(names), "strict")

    def base(self) -> Accuracy:
        return accuracy([self.plain("1")], "strict")

    def logp_base(self, names: tuple[str, ...]) -> float:
        """Mean log pi_base of a response in the last five steps of training, nats, over seeds."""
        return float(np.mean([run.curve("objective/logp_base")[1][-5:] for run in self.runs(names)]))


# --- the verdicts -----------------------------------------------------------------------------------------------------


def observation_1(m: Measured) -> tuple[list[Claim], str]:
    base, task = m.base(), m.accuracy(TASK)
    gain = difference(task, base)
    rows = {label: m.accuracy(names) for names, label in SHARPENING.items()}
    helps = {label: better(row, base) for label, row in rows.items()}
    bridges = [label for label, row in rows.items() if helps[label] and difference(task, row)[0] < BRIDGE]
    said = "; ".join(
        f"{label} {points(difference(row, base))} over Base, {points(difference(task, row))} short of task reward"
        for label, row in rows.items()
    )
    useless = [label for label, help in helps.items() if not help]
    claims = [
        Claim("task reward is better than Base", points(gain), exceeds(gain)),
        Claim(f"sharpening bridges the gap (within {BRIDGE:g} points) somewhere", said, bool(bridges)),
        Claim("and is not better than Base elsewhere", f"not better: {', '.join(useless) or 'none'}", bool(useless)),
    ]
    a, b, c = (claim.holds for claim in claims)
    return claims, verdict(a and b and c, not a or not c)


def observation_2(m: Measured) -> tuple[list[Claim], str]:
    widest = m.beam(4)
    likeliest, logp = accuracy([widest], "strict"), mean([widest], "logp")[0]
    others = {f"T = {t}": m.plain(t) for t in TEMPERATURES[1:]} | {"beam 1": m.beam(1)}
    said, good = [f"beam 4 {likeliest.value:.1f} % at {logp:.2f}"], False
    for label, file in others.items():
        over, its_logp = difference(accuracy([file], "strict"), likeliest), mean([file], "logp")[0]
        said.append(f"{label} {points(over)} at {its_logp:.2f}")
        good |= exceeds(over) and its_logp < logp
    runs = [run for names in SHARPENING for run in m.runs(names)]
    falls = {run.name: (fall(run, VALIDATION), rise(run, VALIDATION)) for run in runs}
    fell = [exceeds(by) and risen > 0 for by, risen in falls.values()]
    told = [f"{name}: accuracy {points((-by[0], by[1]))}, return {r:+.2f}" for name, (by, r) in falls.items()]
    claims = [
        Claim("less likely answers are better than the beam's", "; ".join(said), good),
        Claim("from the best step on the return rises and accuracy falls", "; ".join(told), any(fell)),
    ]
    a, b = (claim.holds for claim in claims)
    return claims, verdict(a and b, not a and not b)


def observation_3(m: Measured) -> tuple[list[Claim], str]:
    narrow, wide = m.beam(1), m.beam(4)
    worse = difference(accuracy([narrow], "strict"), accuracy([wide], "strict"))
    gained = mean([wide], "logp")[0] - mean([narrow], "logp")[0]
    said, holds = [], False
    for alpha in (2, 4):
        file = m.power(alpha)
        row, logp = accuracy([file], "strict"), mean([file], "logp")[0]
        over = difference(row, m.base())
        said.append(f"α {alpha}: {points(over)} over Base at {logp:.2f}")
        for names in (SHARPEN, TEMPERED):
            likelier = m.logp_base(names) > logp
            said.append(f"{points(difference(row, m.accuracy(names)))} over {TRAINED[names].lower()}")
            holds |= exceeds(over) and likelier and better(row, m.accuracy(names))
    text = f"width 1 {points(worse)} over width 4, whose answers are {gained:+.2f} nats likelier"
    claims = [
        Claim("the wider beam is likelier and worse", text, exceeds(worse) and gained > 0),
        Claim("power sampling is better than Base and than a likelier trained row", "; ".join(said), holds),
    ]
    a, b = (claim.holds for claim in claims)
    return claims, verdict(a and b, not a and not b)


def observation_4(m: Measured) -> tuple[list[Claim], str]:
    tempered, tilted, task = (m.accuracy(names) for names in (TEMPERED, TILTED, TASK))
    over, under = difference(tilted, tempered), difference(tilted, task)
    (of_task, task_error), (of_tempered, tempered_error) = (
        max((fall(run, VALIDATION) for run in m.runs(names)), key=lambda found: found[0]) for names in (TASK, TEMPERED)
    )
    larger = (of_task - of_tempered, math.hypot(task_error, tempered_error))
    told = f"{of_task:.1f} ± {task_error:.1f} and {of_tempered:.1f} ± {tempered_error:.1f}"
    claims = [
        Claim("tilted (2, 1e-2) is better than tempered 2", points(over), exceeds(over)),
        Claim("task reward is not worse than tilted", f"tilted {points(under)} over task reward", not exceeds(under)),
        Claim("task reward does not fall further from its best step than tempered 2", told, not exceeds(larger)),
    ]
    agree = all(claim.holds for claim in claims)
    return claims, verdict(agree, exceeds((-over[0], over[1])))


OBSERVATIONS: dict[str, Callable[[Measured], tuple[list[Claim], str]]] = {
    "1. Sharpening can bridge the gap but is unreliable; task reward is consistent": observation_1,
    "2. The optima of sharpening are unfavourable": observation_2,
    "3. Inference-time sharpening helps because it does not reach the optimum": observation_3,
    "4. More reliance on task reward improves performance and stability": observation_4,
}


def verdicts(m: Measured) -> tuple[Table, dict[str, str]]:
    """The table of what each observation predicts, and the verdict on each."""
    rows, told = [], {}
    for title, observe in OBSERVATIONS.items():
        try:
            claims, told[title] = observe(m)
        except Missing as missing:
            claims, told[title] = [Claim("", f"not run: {missing}", False)], "undecided"
        for i, claim in enumerate(claims):
            holds = ("yes" if claim.holds else "no") if claim.text else ""
            rows.append([title if i == 0 else "", claim.text, claim.measured, holds])
    return Table("What each observation predicts", ["Observation", "Predicts", "Measured", "Holds"], rows), told


# --- tables -----------------------------------------------------------------------------------------------------------


def verdict_cells(files: list[ResultsFile]) -> list[str]:
    """Pass@1 by the strict and by the authors' verdict, and Pass@8 by the strict one."""
    both = [plus_minus(difference(accuracy(files, verdict))) for verdict in ("strict", "authors")]
    return [*both, f"{np.mean([file.percent('pass_at_8', 'strict')[0] for file in files]):.1f}"]


def training_table(m: Measured) -> tuple[Table, list[str]]:
    header = ["Run", "Seeds", "Pass@1", "by the authors' verdict", "Pass@8", "over Base", "Tokens", "log π_base"]
    header += ["KL to Base", "Best validation (step)", "Minutes a step"]
    base = [m.plain("1")]
    line = ["Base", "", *verdict_cells(base), "", f"{mean(base, 'spent')[0]:.0f}", f"{mean(base, 'logp')[0]:.1f}"]
    rows: list[list] = [line + [""] * (len(header) - len(line))]
    missing = []
    for names, label in TRAINED.items():
        try:
            runs, files, row = m.runs(names), m.last(names), m.accuracy(names)
        except Missing as fault:
            missing.append(f"{label}: {fault}")
            continue
        missing += [f"{label}: row {name}" for name in names if name not in {run.name for run in runs}]
        best = [max(zip(*reversed(run.curve(VALIDATION)), strict=True)) for run in runs]
        has_base = all(run.curve("objective/logp_base")[1] for run in runs)
        kl = np.mean([run.curve("objective/kl_base")[1][-5:] for run in runs]) if has_base else math.nan
        line = [label, " ".join(f"{x:.1f}" for x in row.by_seed) if len(runs) > 1 else "", *verdict_cells(files)]
        line += [points(difference(row, m.base())), f"{mean(files, 'spent')[0]:.0f}"]
        line += [f"{m.logp_base(names):.1f}", f"{kl:.2f}"] if has_base else ["", ""]
        line.append(", ".join(f"{100 * value:.1f} ({step})" for value, step in best))
        line.append(f"{np.mean([x for run in runs for x in run.curve('time/step')[1]]) / 60:.2f}")
        rows.append(line)
    notes = [
        "Pass@1 ± error, last checkpoint, T = 1, per cent, by the strict verdict if no other is named; over Base: "
        "paired. log π_base and the KL, nats a response, are means of the last five steps (Base: on the test problems)."
    ]
    return Table("Training", header, rows, notes), missing


def inference_table(m: Measured) -> tuple[Table, list[str]]:
    found: dict[str, Callable[[], ResultsFile]] = {f"T = {t}": lambda t=t: m.plain(t) for t in TEMPERATURES}
    for width in (1, 4):
        for penalty in (0, 1):
            label = f"Beam {width}, length penalty {penalty}"
            found[label] = lambda width=width, penalty=penalty: m.beam(width, penalty)
    found |= {f"Power, exact, α {alpha}, 10 moves": lambda alpha=alpha: m.power(alpha) for alpha in (2, 4)}
    rows, missing = [], []
    for label, read in found.items():
        try:
            file = read()
        except Missing as fault:
            missing.append(f"{label}: {fault}")
            continue
        both = [plus_minus(difference(accuracy([file], verdict))) for verdict in ("strict", "authors")]
        rows.append([label, *both, f"{mean([file], 'logp')[0]:.1f}", f"{mean([file], 'spent')[0]:.0f}"])
    header = ["Method", "Pass@1", "by the authors' verdict", "log π_base", "Tokens generated"]
    note = "Base's own answers, without training. log π_base of an answer, nats; tokens for an answer, kept or not."
    return Table("Inference", header, rows, [note]), missing


# --- responses to read ------------------------------------------------------------------------------------------------


def first_responses(file: ResultsFile) -> list[tuple[str, str, bool, bool]]:
    """(problem's id, first response, authors' verdict, strict verdict) of the first problems of a results file."""
    path = file.path.with_suffix("").with_suffix(".responses.jsonl")
    problems = {problem["id"]: problem for problem in read_json(file.path)["problems"]}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        record = json.loads(line)
        found[record["id"]] = record["responses"][0]
    ids = [id for id in file.ids if id in found][:EXAMPLES]
    return [(id, found[id], problems[id]["authors"][0], problems[id]["strict"][0]) for id in ids]


def samples(m: Measured) -> str:
    """The first response to the first test problems before training and after it, as Markdown."""
    parts = ["# Ten responses from each end of training", "The first response to each of the first ten test problems."]
    rows: dict[str, Callable[[], ResultsFile]] = {"Base": lambda: m.plain("1")}
    rows |= {label: lambda names=names: m.last(names)[0] for names, label in TRAINED.items()}
    for label, read in rows.items():
        try:
            shown = first_responses(read())
        except Missing:
            continue
        parts.append(f"## {label}")
        for id, text, authors, strict in shown:
            word = "right" if strict else "right only by the authors' verdict" if authors else "wrong"
            parts.append(f"`{id}`: {word}\n\n" + "\n".join(f"> {line}" for line in (text or " ").splitlines()))
    return "\n\n".join(parts) + "\n"


# --- the program ------------------------------------------------------------------------------------------------------


def main(args: Args) -> int:
    m, made = Measured(args.folder), args.folder / "page"
    (made / "figures").mkdir(parents=True, exist_ok=True)
    album = figures.Album(None, made / "figures")
    table, told = verdicts(m)
    (training, not_trained), (inference, not_sampled) = training_table(m), inference_table(m)
    shown = []
    for names, label in TRAINED.items():
        try:
            shown.append((label, m.runs(names)))
        except Missing:
            continue
    figures.health(album, "training", "Training health", shown, "")
    for image in album.images:
        image.sources = [Path(source).name for source in image.sources]  # not where the runs were made
    versions = read_json(m.plain("1").path)["versions"]
    made_with = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    paragraphs = [
        "\n".join(f"- {title}: **{word}**" for title, word in told.items()),
        "The rule of each verdict stands in benchmark/small_model/page.py and was written before the first row.",
        f"Made by `bash benchmark/small_model/smollm2.sh --cpu` with {made_with}.",
    ]
    command = "bash benchmark/small_model/smollm2.sh --cpu --rows"
    missing = [f"{line}: `{command} '^{line.split()[-1]}$'`" for line in not_trained + not_sampled]  # "...: row NAME"
    tables = [table, training, inference]
    Page("A small real model on two cores", paragraphs, tables, album.images, missing).write(made, "smollm2")
    (made / "samples.md").write_text(samples(m), encoding="utf-8")
    write_json(made / "smollm2.json", {"verdicts": told, "tables": [vars(table) for table in tables]})
    print(f"page: {made / 'smollm2.html'}, {made / 'smollm2.md'}, {made / 'samples.md'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except Missing as error:
        sys.exit(f"missing: {error}")
