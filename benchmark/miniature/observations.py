"""The paper's five observations on the miniature: python -m benchmark.miniature.observations OUTPUT [--quick]

OUTPUT is the folder of benchmark/miniature/observations.sh. Leaves observations.{md,html,json} and figures/ in
OUTPUT/page.

The rules below were written down before the first run; nothing here was chosen after a number was seen.

Accuracy is Pass@1 at T = 1 of the last checkpoint on 200 held-out problems x 16 (the authors' verdict), averaged over
seeds where there are several. The error of a difference is sqrt(s_problems^2 + s_seeds^2): standard error over problems
of the paired difference, and over seeds. A is BETTER than B if the difference is more than MARGIN points and more than
two errors; WORSE the other way round. CONDITIONS: variable and fixed length, the hard level, more and fewer guesses.

1. "Distribution sharpening can sometimes bridge the gap to task reward, but is unreliable; task reward is consistent."
   a. task reward is better than Base in every condition
   b. sharpening or tempered 2 is better than Base in some condition, and there within BRIDGE points of task reward
   c. sharpening or tempered 2 is not better than Base in some other condition
   agree: a, b and c. disagree: not a, or not c. undecided: only b fails.
2. "The optima of sharpening are unfavourable; better optimisation does not systematically mean better performance."
   a. on the easy level, and b. on the hard level: some answers that are less likely than the argmax of pi_base (the
      exact optimum) are better than it: those of T = 1/2, T = 1/4 or a beam of width 4 (penalty 0)
   c. in a run of sharpening at variable length, from its best validated step to the end the return rises and validation
      accuracy falls by more than MARGIN points and two errors: in most seeds on the easy level, or on the hard level
   agree: a, b and c. disagree: neither a nor b. undecided: otherwise.
3. "Inference-time sharpening helps because its compute does not reach the optimum."
   a. beam search (penalty 0): the widest beam is likelier and worse than some narrower one, on either level
   b. power sampling (exact, alpha 2 or 4): after some number of moves it is better than the exact optimum pi_base^alpha
   agree: a and b. disagree: neither. undecided: otherwise.
4. "Keeping everything else constant, more reliance on task reward improves performance and stability."
   For alpha 1.25, 2 and 4, beta going down inf, 0.3, 0.1 (one seed each, variable length):
   a. beta 0.1 is better than beta inf, for each alpha
   b. no step down in beta is worse than the one before
   c. the fall from best validated step to the last is not larger at 0.1 than at inf by MARGIN points and two errors
   agree: a, b and c. disagree: a fails for two alphas or more. undecided: otherwise.
5. "Tilted sampling only sometimes gives marginal improvements over task reward; it is unstable for high beta or alpha."
   a. no tilted run (beta 0.3 or 0.1) is better than task reward by more than BRIDGE points and two errors
   b. some run with alpha 4 or beta inf (alpha > 1) is worse than task reward
   agree: a and b. disagree: not a. undecided: only b fails.
And Section 4.1: gains of task reward are larger where Base is weak: its gain on the hard level is better than on the
easy one.
"""

import json
import math
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

from benchmark.miniature.figures import STYLES, Shown, inference_figure, likelihood_figure
from benchmark.miniature.rows import (
    BEAMS,
    CONTROLS,
    GRID,
    KS,
    METHODS,
    MODES,
    MOVES,
    OTHERS,
    POWERS,
    QUICK,
    SEEDS,
    grid_name,
)
from benchmark.report import figures
from benchmark.report.page import Page, Table
from benchmark.report.results import Missing, ResultsFile, TrainingRun, mean, read_json
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


@dataclass
class Args:
    folder: tyro.conf.Positional[Path]
    """output of benchmark/miniature/observations.sh"""
    quick: bool = False
    """the six runs of --quick: a table, no verdicts"""


# --- what was measured ------------------------------------------------------------------------------------------------


read_results = cache(ResultsFile)  # several verdicts, tables and figures ask for the same file


class Measured:
    """What benchmark/miniature/observations.sh left in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def only(self, pattern: str) -> Path:
        paths = sorted(self.folder.glob(pattern))
        if len(paths) != 1:
            raise Missing(f"{self.folder}/{pattern}: {len(paths)} of these")
        return paths[0]

    def sample(self, name: str, pattern: str = "toy*_test__n*__seed1.json") -> ResultsFile:
        return read_results(self.only(f"results/{name}/{pattern}"))

    def samples(self, name: str) -> list[ResultsFile]:
        """The last checkpoint of a run, or of the runs of a name with several seeds; or results without training."""
        return [self.sample(each) for each in self.names(name)]

    def names(self, name: str, suffix: str = "") -> list[str]:
        """The rows of a name: one a seed, or the row itself."""
        of_seeds = [f"{name}_{seed}{suffix}" for seed in SEEDS]
        return [each for each in of_seeds if (self.folder / "results" / each).exists()] or [name + suffix]

    def accuracy(self, name: str) -> Accuracy:
        return accuracy(self.samples(name))

    def run(self, name: str) -> TrainingRun:
        return TrainingRun(self.only(f"{name}__*/"))

    def runs(self, name: str) -> list[TrainingRun]:
        return [self.run(each) for each in self.names(name)]

    def power(self, name: str) -> ResultsFile:
        return self.sample(name, "power_*__seed1.json")

    def beam(self, width: int, level: str, penalty: int = 0) -> ResultsFile:
        return self.sample(f"beam{width}", f"{level}_test__beam{width}__penalty{penalty}__transformers.json")

    def guesses(self, samples: list[ResultsFile]) -> float:
        """Share of responses that are guesses, per cent."""
        from common.toy import response_kind

        kinds = []
        for sample in samples:
            lines = sample.path.with_suffix("").with_suffix(".responses.jsonl").read_text().splitlines()[1:]
            kinds += [response_kind(text) for line in lines for text in json.loads(line)["responses"]]
        return 100 * kinds.count("guess") / len(kinds)

    @cached_property
    def optima(self) -> dict[str, dict]:
        """The exact optimum of every objective on its base, by the name of its row; kept in optima.json."""
        path = self.folder / "optima.json"
        if not path.exists():
            from benchmark.miniature.optima import compute_optima  # imports torch

            write_json(path, compute_optima(self.folder, objectives_of_bases()))
        return read_json(path)

    def optimum(self, name: str) -> Accuracy:
        return Accuracy({id: 100 * x for id, x in self.optima[name]["accuracies"].items()})


def objectives_of_bases() -> dict[tuple, dict[str, tuple[float, float]]]:
    """{(base, level, fixed length): {row: (alpha, beta)}} of every row that is compared with its optimum."""
    found = {("toy", "toy", False): POWERS | {grid_name(a, b): (a, float(b)) for a, b in GRID}}
    found["toy", "toy", True] = {f"{name}_fixed": power for name, power in POWERS.items()}
    found["toy", "toy_hard", False] = {f"{name}_hard": POWERS[name] for name in ("task", "sharpen")}
    for shares in OTHERS:
        found[shares, "toy", False] = {f"{name}_{shares}": POWERS[name] for name in ("task", "sharpen")}
    return found


# --- the verdicts -----------------------------------------------------------------------------------------------------


CONDITIONS = {  # suffix of a row, its Base
    "variable": ("", "base"),
    "fixed": ("_fixed", "base"),
    "hard level": ("_hard", "base_hard"),
    "more guesses": ("_more-guesses", "base_more-guesses"),
    "fewer guesses": ("_fewer-guesses", "base_fewer-guesses"),
}


def observation_1(m: Measured) -> tuple[list[Claim], str]:
    task, gains, bridged, failed = [], [], [], []
    for condition, (suffix, base) in CONDITIONS.items():
        base, reward = m.accuracy(base), m.accuracy("task" + suffix)
        task.append((condition, difference(reward, base)))
        for method in ("sharpen", "tempered") if suffix in ("", "_fixed") else ("sharpen",):
            row = m.accuracy(method + suffix)
            gains.append((f"{METHODS[method].lower()}, {condition}", difference(row, base), difference(reward, row)))
            if not better(row, base):
                failed.append(condition)
            elif difference(reward, row)[0] < BRIDGE:
                bridged.append(condition)
    a, b, c = all(exceeds(gain) for _, gain in task), bool(bridged), bool(set(failed) - set(bridged))
    said = "; ".join(f"{name} {points(gain)} over Base, {points(left)} short of task" for name, gain, left in gains)
    claims = [
        Claim("task reward is better than Base everywhere", "; ".join(f"{n} {points(g)}" for n, g in task), a),
        Claim(f"sharpening bridges the gap (within {BRIDGE:g} points) somewhere", said, b),
        Claim("and is not better than Base elsewhere", f"not better: {', '.join(dict.fromkeys(failed)) or 'none'}", c),
    ]
    return claims, verdict(a and b and c, not a or not c)


def observation_2(m: Measured) -> tuple[list[Claim], str]:
    claims = []
    for level, suffix, base in (("toy", "", "base"), ("toy_hard", "_hard", "base_hard")):
        optimum = m.optimum("sharpen" + suffix)
        less_likely = {f"T = {t}": m.accuracy(f"{base}_T{t}") for t in ("0.5", "0.25")}
        less_likely["beam 4"] = accuracy([m.beam(4, level)])
        said = "; ".join(f"{name} {points(difference(row, optimum))}" for name, row in less_likely.items())
        text = f"{'hard' if suffix else 'easy'} level: less likely answers are better than the argmax"
        holds = any(better(row, optimum) for row in less_likely.values())
        claims.append(Claim(text, f"the argmax {optimum.value:.1f} %; {said}", holds))
    runs = [*m.runs("sharpen"), m.run("sharpen_hard")]
    falls = [(run.name, fall(run), rise(run)) for run in runs]
    fell = [exceeds(f) and r > 0 for _, f, r in falls]
    said = "; ".join(f"{name}: accuracy {points((-f[0], f[1]))}, return {r:+.2f}" for name, f, r in falls)
    claims.append(
        Claim("from the best step on the return rises and accuracy falls", said, sum(fell[:3]) > 1 or fell[3])
    )
    a, b, c = (claim.holds for claim in claims)
    return claims, verdict(a and b and c, not a and not b)


def observation_3(m: Measured) -> tuple[list[Claim], str]:
    beams, widens = [], []
    for level in ("toy", "toy_hard"):
        rows = [m.beam(width, level) for width in BEAMS]
        widest, logp = accuracy(rows[-1:]), mean(rows[-1:], "logp")[0]
        for row in rows[:-1]:
            widens.append(better(accuracy([row]), widest) and logp > mean([row], "logp")[0])
        said = [
            f"{w}: {accuracy([r]).value:.1f} % at {mean([r], 'logp')[0]:.2f}" for w, r in zip(BEAMS, rows, strict=True)
        ]
        beams.append(f"{'hard' if 'hard' in level else 'easy'} level, width: accuracy at log π_base {', '.join(said)}")
    powers, early = [], []
    for alpha, name, optimum in ((2, "power_exact", "tempered"), (4, "power4_exact", grid_name(4, "inf"))):
        best = m.optimum(optimum)
        rows = {moves: accuracy([m.power(f"{name}_{moves}")]) for moves in MOVES}
        early += [better(row, best) for row in rows.values()]
        said = ", ".join(f"{moves}: {row.value:.1f}" for moves, row in rows.items())
        powers.append(f"α {alpha}, moves: accuracy {said}; exact optimum {best.value:.1f}")
    claims = [
        Claim("the widest beam is likelier and worse than a narrower one", "; ".join(beams), any(widens)),
        Claim(
            "power sampling is better than its own exact optimum before it gets there", "; ".join(powers), any(early)
        ),
    ]
    a, b = (claim.holds for claim in claims)
    return claims, verdict(a and b, not a and not b)


def observation_4(m: Measured) -> tuple[list[Claim], str]:
    gains, steps, falls, lower, unstable = [], [], [], [], []
    for alpha in (1.25, 2, 4):
        inf, middle, low = (m.accuracy(name) for name in (grid_name(alpha, beta) for beta in ("inf", "0.3", "0.1")))
        gains.append((alpha, better(low, inf)))
        steps.append(f"α {alpha:g}: {inf.value:.1f}, {middle.value:.1f}, {low.value:.1f}")
        lower += [better(inf, middle), better(middle, low)]
        (at_inf, inf_error), (at_low, low_error) = (fall(m.run(grid_name(alpha, beta))) for beta in ("inf", "0.1"))
        unstable.append(exceeds((at_low - at_inf, math.hypot(inf_error, low_error))))
        falls.append(f"α {alpha:g}: {at_inf:.1f} ± {inf_error:.1f} at inf, {at_low:.1f} ± {low_error:.1f} at 0.1")
    said = "accuracy at β inf, 0.3, 0.1: " + "; ".join(steps)
    claims = [
        Claim("β 0.1 is better than β inf for α 1.25, 2, 4", said, all(holds for _, holds in gains)),
        Claim("no step down in β is worse", "as above", not any(lower)),
        Claim("the fall from the best step to the last is not larger at 0.1", "; ".join(falls), not any(unstable)),
    ]
    agree = all(claim.holds for claim in claims)
    return claims, verdict(agree, sum(not holds for _, holds in gains) > 1)


def observation_5(m: Measured) -> tuple[list[Claim], str]:
    task = m.accuracy("task")
    over = {(a, b): difference(m.accuracy(grid_name(a, b)), task) for a, b in GRID}
    tilted = {cell: found for cell, found in over.items() if cell[1] != "inf"}
    extreme = {cell: found for cell, found in over.items() if cell[0] == 4 or (cell[1] == "inf" and cell[0] > 1)}
    said = ["; ".join(f"({a:g}, {b}) {points(found)}" for (a, b), found in x.items()) for x in (tilted, extreme)]
    a = not any(exceeds(found, BRIDGE) for found in tilted.values())
    b = any(exceeds((-value, error)) for value, error in extreme.values())
    claims = [
        Claim(f"no tilted run is more than {BRIDGE:g} points better than task reward", said[0], a),
        Claim("some run with α 4 or β inf is worse than task reward", said[1], b),
    ]
    return claims, verdict(a and b, not a)


def section_4_1(m: Measured) -> tuple[list[Claim], str]:
    (easy, easy_error), (hard, hard_error) = (
        difference(m.accuracy("task" + suffix), m.accuracy(base))
        for suffix, base in (("", "base"), ("_hard", "base_hard"))
    )
    more = (hard - easy, math.hypot(easy_error, hard_error))
    said = f"easy {points((easy, easy_error))}, hard {points((hard, hard_error))}; difference {points(more)}"
    holds, fails = exceeds(more), exceeds((-more[0], more[1]))
    return [Claim("task reward gains more on the hard level", said, holds)], verdict(holds, fails)


OBSERVATIONS = {
    "1. Sharpening can bridge the gap but is unreliable; task reward is consistent": observation_1,
    "2. The optima of sharpening are unfavourable": observation_2,
    "3. Inference-time sharpening helps because it does not reach the optimum": observation_3,
    "4. More reliance on task reward improves performance and stability": observation_4,
    "5. Tilted sampling improves marginally at most, and is unstable at high β or α": observation_5,
    "Section 4.1. Gains of task reward are larger where Base is weak": section_4_1,
}


# --- tables -----------------------------------------------------------------------------------------------------------


def training_rows(quick: bool) -> list[tuple[str, str, str]]:
    """Label, name and Base of each row that was trained."""
    if quick:
        return [(METHODS[name.split("_")[0]], name, "base_hard" if "hard" in name else "base") for name in QUICK]
    rows = [(label, name, "base") for name, label in METHODS.items()]
    rows += [(f"{label}, fixed length", f"{name}_fixed", "base") for name, label in METHODS.items()]
    names = {(alpha, beta): grid_name(alpha, beta) for alpha, beta in GRID}
    rows += [(f"α {a:g}, β {b}", name, "base") for (a, b), name in names.items() if "seed" not in name]
    rows += [(label, name, "base") for name, label in CONTROLS.items()]
    for suffix, words in {"hard": "hard level", **OTHERS}.items():
        rows += [(f"{METHODS[name]}, {words}", f"{name}_{suffix}", f"base_{suffix}") for name in ("task", "sharpen")]
    return rows


def pass_at_16(samples: list[ResultsFile]) -> str:
    """Pass@16 in per cent, averaged over seeds."""
    return f"{np.mean([sample.percent('pass_at_16')[0] for sample in samples]):.1f}"


def training_table(m: Measured, quick: bool) -> Table:
    header = ["Run", "Seeds", "Pass@1", "over Base", "Pass@16", "Guesses %", "Tokens", "log π_base", "Best (step)"]
    header += ["Pass@1 at T = 1/α", "Optimum: Pass@1", "Guesses %", "Tokens", "log π_base", "ESS"]
    rows, bases = [], []
    optima = {} if quick else m.optima
    for label, name, base in training_rows(quick):
        if base not in bases:
            bases.append(base)
            samples = m.samples(base)
            line = [
                f"Base, {base[5:].replace('_', ' ')}".removesuffix(", "),
                "",
                plus_minus(samples[0].percent("pass_at_1")),
                "",
            ]
            line += [pass_at_16(samples), f"{m.guesses(samples):.1f}"]
            rows.append(line + [f"{mean(samples, 'spent')[0]:.1f}", f"{mean(samples, 'logp')[0]:.2f}"] + [""] * 7)
        samples, runs, row = m.samples(name), m.runs(name), m.accuracy(name)
        best = [max(zip(*reversed(run.curve("eval/authors")), strict=True)) for run in runs]
        cool = [m.sample(each) for each in m.names(name, "_cool") if (m.folder / "results" / each).exists()]
        logp = np.mean([np.mean(run.curve("objective/logp_base")[1][-5:]) for run in runs])
        line = [label, " ".join(f"{x:.1f}" for x in row.by_seed) if len(row.by_seed) > 1 else ""]
        line += [plus_minus(difference(row)), points(difference(row, m.accuracy(base)))]
        line += [pass_at_16(samples), f"{m.guesses(samples):.1f}"]
        line += [f"{mean(samples, 'spent')[0]:.1f}", f"{logp:.2f}"]
        line.append(", ".join(f"{100 * value:.1f} ({step})" for value, step in best))
        line.append(plus_minus(difference(accuracy(cool))) if cool else "")
        if name in optima:
            o = optima[name]
            line += [plus_minus(difference(m.optimum(name))), f"{100 * o['guess_share']:.1f}", f"{o['length']:.1f}"]
            line += [f"{o['logp_base']:.2f}", f"{o['effective_samples']:.0f}"]
        rows.append(line + [""] * (len(header) - len(line)))
    notes = [
        "Pass@1 ± error (over problems, and over seeds if there are several), last checkpoint, T = 1, per cent; "
        "over Base: paired. log π_base: of a response, nats, mean of the last five steps (Base: on the test problems). "
        "Best: validation accuracy of the best step, one sample a problem.",
        "T = 1/α: 1/2 for task reward, sharpening and the controls. Optimum: of the row's objective, exact, on "
        "its own base; ESS: effective samples per problem of its estimate; below 10, trust only the argmax.",
    ]
    return Table("Training", header, rows, notes)


def inference_table(m: Measured) -> Table:
    header = ["Method", "Easy: Pass@1", "log π_base", "Tokens", "Hard: Pass@1", "log π_base", "Tokens"]

    def three(sample: ResultsFile | None) -> list[str]:
        if sample is None:
            return [""] * 3
        logp, spent = (mean([sample], name)[0] for name in ("logp", "spent"))
        return [plus_minus(sample.percent("pass_at_1")), f"{logp:.2f}", f"{spent:.0f}"]

    pairs = [
        (f"T = {t}", *(m.sample(f"{base}_T{t}") for base in ("base", "base_hard"))) for t in ("0.8", "0.5", "0.25")
    ]
    for penalty in (0, 1):
        label = f"length penalty {penalty}"
        pairs += [(f"Beam {w}, {label}", m.beam(w, "toy", penalty), m.beam(w, "toy_hard", penalty)) for w in BEAMS]
    for mode in MODES:
        pairs += [(f"Power, {mode}, α 2, {k} moves", m.power(f"power_{mode}_{k}"), None) for k in MOVES]
        if mode == "exact":
            pairs += [(f"Power, exact, α 4, {k} moves", m.power(f"power4_exact_{k}"), None) for k in MOVES]
        else:
            label = f"Power, {mode}, α 2, as published: 10 moves a block of 4"
            pairs.append((label, m.power(f"power_{mode}_blocks"), None))
    rows = [[label, *three(easy), *three(hard)] for label, easy, hard in pairs]
    note = (
        "Base's own answers, without training. log π_base of an answer, nats; tokens generated for an answer, kept or "
    )
    note += "not. Power sampling: 100 problems x 4 chains, moves of whole answers; the rest 200 problems (x 16)."
    return Table("Inference", header, rows, [note])


PASS_AT_K = {
    "easy": {
        "Base": "base_256",
        "Task reward": "task_seed1_256",
        "Sharpening": "sharpen_seed1_256",
        "Tilted (2, 0.1)": "tilted_seed1_256",
    },
    "hard": {"Base": "base_hard_256", "Task reward": "task_hard_256", "Sharpening": "sharpen_hard_256"},
}


def pass_at_k_table(m: Measured) -> Table:
    rows, notes = [], []
    for level, names in PASS_AT_K.items():
        curves = {}
        for label, name in names.items():
            curves[label] = [m.sample(name).percent(f"pass_at_{k}") for k in KS]
            rows.append([f"{label}, {level}", *map(plus_minus, curves[label])])
        for label, curve in list(curves.items())[1:]:
            over = [k for k, (ours, _), (base, _) in zip(KS, curve, curves["Base"], strict=True) if base > ours]
            said = f"Base is ahead from k = {over[0]}" if over else "Base is nowhere ahead"
            notes.append(f"{label}, {level} level: {said}.")
    return Table("Pass@k, per cent", ["", *(f"k = {k}" for k in KS)], rows, [*notes, "100 problems x 256, T = 1."])


# --- figures ----------------------------------------------------------------------------------------------------------


def grid_figure(m: Measured, album: figures.Album) -> None:
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for beta, (colour, marker, style) in zip(("inf", "0.3", "0.1"), figures.BETA_STYLES.values(), strict=True):
        names = [grid_name(alpha, beta) for alpha in (1, 1.25, 2, 4)]
        found = [difference(m.accuracy(name)) for name in names]
        ax.errorbar(
            range(4), *zip(*found, strict=True), color=colour, marker=marker, ls=style, capsize=2, label=f"β {beta}"
        )
        best = [m.optimum(name).value for name in names]
        ax.plot(
            range(4), best, color=colour, marker=marker, mfc="white", ls=":", lw=0.8, label=f"β {beta}, exact optimum"
        )
    ax.axhline(m.accuracy("task").value, color=figures.RED, ls=(0, (5, 2)), lw=1.3, label="task reward")
    ax.set_xticks(range(4), ["1", "1.25", "2", "4"])
    ax.set(xlabel="α", ylabel="Pass@1, %")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    note = "Easy level, variable length, one seed (task reward: all). Open: exact optima."
    album.save(figure, "grid", "Reliance on the task reward", note)


def pass_at_k_figure(m: Measured, album: figures.Album) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for ax, (level, names) in zip(axes, PASS_AT_K.items(), strict=True):
        for (label, name), style in zip(names.items(), ("-", "--", ":", "-."), strict=False):
            colour, marker = STYLES[name.split("_")[0] if label != "Base" else "Base"]
            found = [m.sample(name).percent(f"pass_at_{k}") for k in KS]
            ax.errorbar(
                KS, *zip(*found, strict=True), color=colour, marker=marker, ls=style, ms=5, capsize=2, label=label
            )
        ax.set_xscale("log", base=2)
        ax.set(title=f"{level} level", xlabel="k")
        ax.legend()
    axes[0].set_ylabel("Pass@k, %")
    album.save(figure, "pass_at_k", "Pass@k: do the curves cross?", "100 problems x 256 samples, seed 1.")


# --- the program ------------------------------------------------------------------------------------------------------


def main(args: Args) -> int:
    m, made = Measured(args.folder), args.folder / "page"
    (made / "figures").mkdir(parents=True, exist_ok=True)
    album = figures.Album(None, made / "figures")
    trained = [*METHODS] if not args.quick else [f"{name}_seed1" for name in METHODS]
    trained += [] if args.quick else ["sharpen_fixed"]
    names = {name: label for label, name, _ in training_rows(args.quick)}
    shown = [(names[name], m.runs(name)) for name in (*trained, "task_hard", "sharpen_hard")]
    tables, paragraphs = [training_table(m, args.quick)], []
    figures.health(album, "training", "Training health", shown, "")
    if not args.quick:
        rows, told = [], {}
        for title, observe in OBSERVATIONS.items():
            claims, told[title] = observe(m)
            rows += [
                [title if i == 0 else "", c.text, c.measured, "yes" if c.holds else "no"] for i, c in enumerate(claims)
            ]
        paragraphs = ["\n".join(f"- {title}: **{word}**" for title, word in told.items())]
        paragraphs.append("The rule of each verdict was written into benchmark/miniature before the first run.")
        tables.insert(
            0, Table("What each observation predicts", ["Observation", "Predicts", "Measured", "Holds"], rows)
        )
        tables += [inference_table(m), pass_at_k_table(m)]
        likelihood_figure(Shown(tables), album)
        inference_figure(Shown(tables), album)
        grid_figure(m, album)
        pass_at_k_figure(m, album)
        write_json(
            made / "observations.json",
            {
                "verdicts": told,
                "optima": {k: v | {"accuracies": None} for k, v in m.optima.items()},
                "tables": [vars(table) for table in tables],
            },
        )
    for image in album.images:
        image.sources = [str(args.folder)]
    versions = read_json(m.sample("base").path)["versions"]
    made_with = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    command = f"bash benchmark/miniature/observations.sh{' --quick' if args.quick else ''}"
    paragraphs.append(f"Made by `{command}` with {made_with}.")
    Page("The five observations on the miniature", paragraphs, tables, album.images).write(made, "observations")
    print(f"page: {made / 'observations.html'}, {made / 'observations.md'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except Missing as error:
        sys.exit(f"missing: {error}")
