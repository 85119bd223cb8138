"""The figures of the reports. Ours is filled and solid, the paper's open or dotted; kinds differ by hatch,
marker or line style as well as by colour (Okabe and Ito's, which colour-blind readers tell apart)."""

import math
import os
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from benchmark.report.page import Image
from benchmark.report.results import Broken, Evaluation, Missing, Results, TrainingRun, mean
from benchmark.tables.paper import ALPHAS, DATASETS, MODELS, TABLES, Row, figure_6_rows, figure_7_rows, rows_of

BLUE, ORANGE, GREEN, RED, SKY, PINK, GREY = "#0072B2 #E69F00 #009E73 #D55E00 #56B4E9 #CC79A7 #777777".split()
BETA_STYLES = {"inf": (GREEN, "o", "-"), "1e-2": (ORANGE, "s", "--"), "1e-4": (BLUE, "^", "-.")}
POWER_ALPHA, POWER_MODE = "4", "mh-llm-signfix"  # the text does not say which alpha Figures 1, 2 and 6 show
SERIES = [  # label, method and alpha, checkpoints by table, colour, hatch
    ("Base", ("base", None), "last", GREY, ""),
    (f"Power sampling, α {POWER_ALPHA}", ("mh_llm", float(POWER_ALPHA)), "last", ORANGE, ".."),
    ("Beam search", ("beam_search", None), "last", SKY, "xx"),
    ("Dist. sharpening, best", ("dist_sharpen", None), "best", "#F4C7B0", "//"),
    ("Dist. sharpening, last", ("dist_sharpen", None), "last", RED, "//"),
    ("Task reward, best", ("task_reward", None), "best", "#B3D4E8", ""),
    ("Task reward, last", ("task_reward", None), "last", BLUE, ""),
]
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "report"})
plt.rcParams.update({"legend.handlelength": 3.2, "legend.frameon": False, "lines.linewidth": 1.3})
plt.rcParams.update({"axes.grid": True, "grid.color": "#e5e5e5", "axes.axisbelow": True, "hatch.linewidth": 0.6})
SQUARE = dict(linestyle="none", marker="D", markersize=5, markerfacecolor="white", markeredgecolor="black")


class Album:
    """Figures as they are drawn, each with what it was made of."""

    def __init__(self, results: Results, folder: Path):
        self.results, self.folder, self.images = results, folder, []
        self.sources: set[str] = set()

    def evaluation(self, row: Row, dataset: str, checkpoint: str) -> Evaluation | None:
        try:
            found = self.results.find(row, dataset, checkpoint)
        except (Missing, Broken):  # noted with the tables
            return None
        self.sources.add(str(found.folder))
        return found

    def run(self, row: Row) -> TrainingRun | None:
        try:
            return self.results.run(row)
        except (Missing, Broken):  # noted with the tables
            return None

    def save(self, figure: plt.Figure, name: str, title: str, choices: str) -> None:
        """PNG and SVG, and what was noted of them."""
        figure.draw_without_rendering()  # lays it out, once for both files
        figure.set_layout_engine("none")
        for suffix in ("png", "svg"):
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(self.folder / f"{name}.{suffix}", dpi=150, metadata=metadata)
        plt.close(figure)
        self.images.append(Image(name, title, choices, sorted(self.sources), self.folder / f"{name}.svg"))
        self.sources = set()


def draw_all(results: Results, tables: list[int], folder: Path) -> list[Image]:
    """The figures that go with these tables, and those of other runs."""
    album, wanted = Album(results, folder), {*tables}
    if wanted & {3, 4, 7, 8}:
        bars(album, 1, ["qwen2.5-3b", "llama-3.2-3b"], "Pass@1 of the 3B models")
    if wanted & {11, 12}:
        bars(album, 2, ["qwen3-4b"], "Pass@1 of Qwen3-4B")
    if wanted & {3, 4, 7, 8}:
        tilted_curves(album, 3, [(3, "math500"), (7, "math500")], "reliance on the task reward, variable length")
    if wanted & {11, 12}:
        health_of_rows(album)
        tilted_curves(album, 5, [(11, d) for d in MODELS["qwen3-4b"].datasets], "reliance on the task reward, Qwen3-4B")
        pass_at_k_curves(album)
    if wanted & {3, 4}:
        inference_time(album)
    if wanted & {5, 6, 9, 10}:
        tilted_curves(album, 8, [(5, "math500"), (9, "math500")], "reliance on the task reward, fixed length")
    runs = [run for n in sorted(wanted - {2}) for row in rows_of(n) if row.expect and (run := album.run(row))]
    runs = list({run.folder: run for run in runs}.values())
    others, which = newest(results.other_runs())
    if others:
        rows = [(run.name, [run]) for run in others]
        health(album, "other_health", "Training health of other runs", rows, which)
    likelihood(album, runs + others, which)
    divergence(album, runs + others, which)
    for tag in MODELS:
        spending(album, tag, [n for n in sorted(wanted - {2}) if TABLES[n][0] == tag])
    return album.images


# --- Figures 1 and 2: bars --------------------------------------------------------------------------------------------


def chosen(row: Row, key: tuple) -> bool:
    """Whether a row is the one that a figure shows for a method and alpha."""
    return row.key[:2] == key and (key[0] != "mh_llm" or f"_{POWER_MODE}_" in row.name) and "penalty 1" not in row.label


def bars(album: Album, number: int, tags: list[str], title: str) -> None:
    panels = [(tag, dataset) for tag in tags for dataset in MODELS[tag].datasets]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.3), layout="constrained")
    for ax, (tag, dataset) in zip(axes, panels, strict=True):
        first = next(n for n, table in TABLES.items() if table == (tag, "variable", "last"))
        for place, (_, key, which, colour, hatch) in enumerate(SERIES):
            table = first + (which == "best")
            row = next(row for row in rows_of(table) if chosen(row, key))
            evaluation = album.evaluation(row, dataset, "best_authors" if which == "best" else "last")
            if evaluation:
                value, se = evaluation.percent("pass_at_1")
                ax.bar(place, value, 0.8, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6, zorder=2)
                ax.errorbar(place, value, se, color="black", capsize=3, linewidth=1, zorder=3)
            ax.plot(place, row.paper(table)[dataset]["pass@1"], **SQUARE, zorder=4)
        ax.set(title=f"{MODELS[tag].short}\n{DATASETS[dataset]}", xticks=[], ylim=(0, None))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("Pass@1, %")
    kinds = [Patch(facecolor=c, hatch=h, edgecolor="black", linewidth=0.6, label=name) for name, _, _, c, h in SERIES]
    kinds.append(Line2D([], [], label="the paper's", **SQUARE))
    figure.legend(handles=kinds, loc="outside lower center", ncols=4)
    choices = f"Power sampling at α {POWER_ALPHA}, mode {POWER_MODE}; beam search at length penalty 0, rule vllm-0.11: "
    choices += "the text does not say which the figure shows. Best: the authors' selection. Bars: ± standard error."
    album.save(figure, f"figure_{number}", f"Figure {number}: {title}", choices)


# --- Figures 3, 5 and 8: alpha and beta -------------------------------------------------------------------------------


def tilted_curves(album: Album, number: int, panels: list[tuple[int, str]], title: str) -> None:
    size = (3.1 * len(panels), 5.2)
    figure, axes = plt.subplots(2, len(panels), figsize=size, layout="constrained", sharey="col", squeeze=False)
    for column, (last, dataset) in enumerate(panels):
        for ax, table, checkpoint in zip(axes[:, column], (last, last + 1), ("last", "best_authors"), strict=True):
            rows = rows_of(table)
            for beta, (colour, marker, style) in BETA_STYLES.items():
                curve = [row for row in rows if row.key[:1] == ("tilted",) and row.beta == beta]
                paper = [row.paper(table)[dataset]["pass@1"] for row in curve]
                ax.plot(range(4), paper, color=colour, marker=marker, linestyle=":", markerfacecolor="white", lw=0.9)
                found = [(i, album.evaluation(row, dataset, checkpoint)) for i, row in enumerate(curve)]
                points = [(i, *evaluation.percent("pass_at_1")) for i, evaluation in found if evaluation]
                if points:
                    x, y, se = zip(*points, strict=True)
                    style_ = dict(color=colour, marker=marker, linestyle=style, elinewidth=0.8, capsize=2)
                    ax.errorbar(x, y, se, **style_, zorder=3)
            task = next(row for row in rows if row.key[:1] == ("task_reward",))
            ax.axhline(task.paper(table)[dataset]["pass@1"], color=RED, linestyle=(0, (1, 4)), lw=1)
            if evaluation := album.evaluation(task, dataset, checkpoint):
                ax.axhline(evaluation.percent("pass_at_1")[0], color=RED, linestyle=(0, (5, 2)), lw=1.3)
            which = "last" if checkpoint == "last" else "best"
            ax.set(title=f"{MODELS[TABLES[table][0]].short}, {DATASETS[dataset]}, {which}")
            ax.set_xticks(range(4), [f"{alpha:g}" for alpha in ALPHAS])
    for ax in axes[:, 0]:
        ax.set_ylabel("Pass@1, %")
    for ax in axes[-1]:
        ax.set_xlabel("α")
    lines = [
        Line2D([], [], color=c, marker=m, linestyle=s, label=f"β {'∞' if beta == 'inf' else beta}")
        for beta, (c, m, s) in BETA_STYLES.items()
    ]
    lines.append(Line2D([], [], color=RED, linestyle=(0, (5, 2)), label="task reward"))
    lines.append(Line2D([], [], color=GREY, marker="o", linestyle=":", markerfacecolor="white", label="the paper's"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    choices = "Filled: ours ± standard error; open and dotted: the paper's. Best: the authors' selection. "
    choices += "α 1, β ∞ is Base for the Qwen models, as in the paper's tables."
    album.save(figure, f"figure_{number}", f"Figure {number}: {title}", choices)


# --- Figure 4: training health ----------------------------------------------------------------------------------------


HEALTH = {
    "objective/return": "return",
    "policy/entropy": "entropy, nats a token",
    "eval/authors": "validation accuracy",
    "policy/response_length": "response length, tokens",
}


def smooth(values: list[float]) -> np.ndarray:
    """Mean over the last twentieth of a run, at most 20 steps; of fewer at its start."""
    width = min(20, max(1, len(values) // 20))
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def health(album: Album, name: str, title: str, rows: list[tuple[str, list[TrainingRun]]], choices: str) -> None:
    """A line of curves for each row: the mean over its runs (seeds) with a band from the lowest to the highest."""
    size = (11, 1.75 * max(1, len(rows)) + 0.4)
    figure, axes = plt.subplots(max(1, len(rows)), 4, figsize=size, layout="constrained", squeeze=False, sharex="row")
    for line, (label, runs) in zip(axes, rows, strict=False):
        album.sources |= {str(run.folder) for run in runs}
        for ax, key in zip(line, HEALTH, strict=True):
            curves = [run.curve(key) for run in runs]
            shortest = min(len(steps) for steps, _ in curves)  # a run may have been stopped
            if not shortest:
                continue
            steps, values = curves[0][0][:shortest], np.array([values[:shortest] for _, values in curves])
            shown = values if key.startswith("eval/") else np.array([smooth(row) for row in values])
            mean_of_runs = shown.mean(0)
            if len(runs) > 1:
                ax.fill_between(steps, shown.min(0), shown.max(0), color="#cccccc", lw=0)
            elif not key.startswith("eval/"):
                ax.plot(steps, values[0], color="#bbbbbb", lw=0.8)
            if key.startswith("eval/"):
                ax.plot(steps, mean_of_runs, color="black", marker="o", markersize=3, lw=1)
                best = int(np.argmax(mean_of_runs))
                ax.plot(steps[best], mean_of_runs[best], marker="*", ms=11, color=ORANGE, markeredgecolor="black")
            else:
                ax.plot(steps, mean_of_runs, color="black", lw=1.4)
        line[0].set_ylabel(re.sub(r", (?![^(]*\))", ",\n", label), rotation=0, ha="right", va="center")
    for column, (key, heading) in zip(axes.T, HEALTH.items(), strict=True):
        column[0].set_title(heading)
        if key != "objective/return":  # its unit depends on the objective
            one_scale(column)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    choices += (
        " Black: mean of up to 20 steps, averaged over seeds; grey: each step, or with several seeds the range of "
    )
    choices += (
        "theirs. Star: best validated step. Columns have one scale, except the return, which is the task reward, or "
    )
    choices += "nats for sharpening and tempered sampling."
    album.save(figure, name, title, choices.strip())


def one_scale(axes) -> None:
    """Lets all axes begin at zero and end where the highest curve does."""
    tops = [ax.get_ylim()[1] for ax in axes if ax.lines]
    for ax in axes if tops else []:
        ax.set_ylim(0, max(tops))


def health_of_rows(album: Album) -> None:
    rows = [row for row in rows_of(11) if row.key[:1] in (("task_reward",), ("dist_sharpen",))]
    runs = [(row.label, [run]) for row in rows if (run := album.run(row))]
    health(album, "figure_4", "Figure 4: training health, Qwen3-4B", runs, "Variable length.")


MOST_OTHERS = 12  # runs of no table in a figure: more leave no room for their curves, and take minutes to draw


def newest(runs: list[TrainingRun]) -> tuple[list[TrainingRun], str]:
    """The runs that figures show of those in no table, and a sentence for their captions if these are not all."""
    by_age = sorted(runs, key=lambda run: (run.folder / "metrics.jsonl").stat().st_mtime, reverse=True)
    chosen = {run.folder for run in by_age[:MOST_OTHERS]}
    shown = [run for run in runs if run.folder in chosen]
    which = f"Of the {len(runs)} runs that are in no table, the {len(shown)} newest."
    return shown, "" if len(shown) == len(runs) else which


# --- Figure 6: Pass@k -------------------------------------------------------------------------------------------------


PASS_AT_K = [  # label, method and alpha, checkpoint, colour, marker, line
    ("Base", ("base", None), "last", GREY, "o", "-"),
    (f"Power sampling, α {POWER_ALPHA}", ("mh_llm", float(POWER_ALPHA)), "last", ORANGE, "D", ":"),
    ("Dist. sharpening, best", ("dist_sharpen", None), "best_authors", GREEN, "s", "--"),
    ("Dist. sharpening, last", ("dist_sharpen", None), "last", RED, "v", "--"),
    ("Task reward, last", ("task_reward", None), "last", BLUE, "^", "-"),
]


def pass_at_k_curves(album: Album) -> None:
    datasets = MODELS["qwen3-4b"].datasets
    for row in figure_6_rows():  # notes what is missing: no table asks for these rows
        for checkpoint in row.checkpoints:
            for dataset in row.datasets:
                album.results.evaluation(row, dataset, checkpoint)
    figure, axes = plt.subplots(1, len(datasets), figsize=(3.5 * len(datasets), 3.4), layout="constrained")
    more = {row.key[:2]: row for row in figure_6_rows()}
    for ax, dataset in zip(axes, datasets, strict=True):
        for label, key, checkpoint, colour, marker, style in PASS_AT_K:
            row = next(row for row in rows_of(11) if chosen(row, key))
            for part, first in ((row, 1), (more.get(key), 16)):
                evaluation = album.evaluation(part, dataset, checkpoint) if part else None
                if evaluation:
                    ks = [k for k in 2 ** np.arange(9) if first <= k <= evaluation.n]
                    found = [evaluation.percent(f"pass_at_{k}") for k in ks]
                    style_ = dict(color=colour, marker=marker, linestyle=style, markersize=4, capsize=2)
                    ax.errorbar(ks, *zip(*found, strict=True), label=label if first == 1 else None, **style_)
            table = 12 if checkpoint.startswith("best") else 11
            printed = row.paper(table)[dataset]
            ax.plot([1, 16], [printed["pass@1"], printed["pass@16"]], color=colour, ls="", marker=marker, mfc="white")
        ax.set_xscale("log", base=2)
        ax.set(title=DATASETS[dataset], xlabel="k")
    axes[0].set_ylabel("Pass@k, %")
    handles = [Line2D([], [], color=c, marker=m, linestyle=s, label=name) for name, _, _, c, m, s in PASS_AT_K]
    handles.append(Line2D([], [], color=GREY, marker="o", ls="", mfc="white", label="the paper's, Tables 11 and 12"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    choices = f"To k = 16 from 3 x 16 samples a problem, beyond it from 256 (ours). Power sampling: mode {POWER_MODE}, "
    choices += "α not said in the text. The task-reward checkpoint: the last."
    album.save(figure, "figure_6", "Figure 6: Pass@k, Qwen3-4B", choices)


# --- Figure 7: time of inference --------------------------------------------------------------------------------------


def inference_time(album: Album) -> None:
    rows = figure_7_rows()
    figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
    for place, row in enumerate(rows):
        album.results.evaluation(row, "math500", "last")  # notes what is missing
        if evaluation := album.evaluation(row, "math500", "last"):
            (seconds, se), (tokens, _) = mean(evaluation.files, "seconds"), mean(evaluation.files, "spent")
            ax.barh(place, seconds, xerr=se, color=(GREY, SKY, ORANGE, "#FBE3B0")[place], edgecolor="black", capsize=3)
            ax.text(
                seconds + np.nan_to_num(se), place, f"   {seconds:.3g} s, {tokens:,.0f} tokens an answer", va="center"
            )
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.invert_yaxis()
    ax.set(xlabel="seconds a problem", xlim=(0, 2.2 * max(ax.get_xlim()[1], 1e-9)))
    ax.grid(axis="y", visible=False)
    machine = [root / "figure_7" / "hardware.txt" for root in album.results.roots]
    machine = next((path.read_text().strip() for path in machine if path.exists()), "not recorded")
    choices = f"{MODELS['qwen2.5-3b'].short}, first 100 problems of Math-500, α 4; the text names neither data nor "
    choices += f"hardware. Ours: {machine}."
    album.save(figure, "figure_7", "Figure 7: time of inference", choices)


# --- ours beside them -------------------------------------------------------------------------------------------------


MARKERS = "os^vDP*X<>hpd8"  # tells runs apart; the colour, their methods
METHODS = {"task": BLUE, "sharpen": RED, "betainf": PINK, "tempered": PINK, "tilted": GREEN}  # by a run's name


def by_model(runs: list[TrainingRun]) -> dict[str, list[TrainingRun]]:
    groups: dict[str, list[TrainingRun]] = {}
    for run in runs:
        names = (Path(run.args[key]).name for key in ("model", "dataset"))
        length = "fixed" if run.args["fixed_length"] else "variable"
        groups.setdefault(f"{' on '.join(names)}, {length} length", []).append(run)
    return groups


def trajectories(album: Album, runs, name: str, title: str, x: str, y: str, labels: tuple[str, str], note: str) -> None:
    """Where training goes in the plane of two logged figures: a line a run, a marker at its end."""
    groups = by_model(runs)
    if not groups:
        return
    columns, lines = min(2, len(groups)), math.ceil(len(groups) / 2)
    size = (6 * columns, 4 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    for ax, (group, members) in zip(axes.flat, groups.items(), strict=False):
        shared = os.path.commonprefix([run.name for run in members]) if len(members) > 1 else ""
        for i, run in enumerate(members):
            album.sources.add(str(run.folder))
            (x_steps, x_values), (y_steps, y_values) = run.curve(x), run.curve(y)
            if not x_values or not y_values:
                continue
            if y.startswith("eval/"):  # some steps only; validation at the end has no step of training beside it
                points = smooth(x_values)[[min(int(np.searchsorted(x_steps, s)), len(x_steps) - 1) for s in y_steps]]
                curve = np.array(y_values)
            else:
                points, curve = smooth(x_values), smooth(y_values)
            colour = next((c for part, c in METHODS.items() if part in run.name), GREY)
            ax.plot(points, curve, color=colour, lw=0.9, alpha=0.8)
            marker = MARKERS[i % len(MARKERS)]
            ax.plot(
                points[-1],
                curve[-1],
                color=colour,
                marker=marker,
                ms=8,
                mec="black",
                ls="",
                label=run.name[len(shared) :],
            )
            ax.plot(points[0], curve[0], color="white", marker="o", markeredgecolor="black", markersize=6, zorder=5)
        ax.set(title=group, xlabel=labels[0], ylabel=labels[1])
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    note = f"A line is a run from its start (open circle, Base) to its end (marker). {note}".strip()
    album.save(figure, name, title, note)


def likelihood(album: Album, runs: list[TrainingRun], which: str) -> None:
    title = "log π_base against accuracy, over training"
    note = "Both on the training problems of the step, means of up to 20 steps. If sharpening were what helps, the "
    note += "likelier responses would be the better ones: all lines would rise to the right."
    labels = ("log π_base of a response, nats", "task reward")
    keys = ("objective/logp_base", "objective/task_reward")
    trajectories(album, runs, "ours_likelihood", title, *keys, labels, f"{note} {which}")


def divergence(album: Album, runs: list[TrainingRun], which: str) -> None:
    title = "Accuracy against KL(policy || base), over training"
    note = "KL on training problems, mean of up to 20 steps; accuracy on the held-out validation problems."
    labels = ("KL(policy || base) of a response, nats", "validation accuracy")
    trajectories(album, runs, "ours_divergence", title, "objective/kl_base", "eval/held_out", labels, f"{note} {which}")


KINDS = {  # by the beginning of a row's label: colour, marker
    "Base": (GREY, "o"),
    "Plain": (GREY, "s"),
    "Power": (ORANGE, "D"),
    "Beam": (SKY, "X"),
    "Task": (BLUE, "^"),
    "Dist.": (RED, "v"),
    "Tempered": (PINK, "P"),
    "Tilted": (GREEN, "*"),
}


def spending(album: Album, tag: str, tables: list[int]) -> None:
    """Accuracy against generated tokens, and against log pi_base where the sampler is the base model."""
    model = MODELS[tag]
    found = {dataset: points_of(album, tag, dataset, tables) for dataset in model.datasets}
    if not any(found.values()):
        return
    size = (4 * len(found), 7)
    figure, axes = plt.subplots(2, len(found), figsize=size, layout="constrained", squeeze=False)
    for (top, bottom), (dataset, points) in zip(axes.T, found.items(), strict=True):
        for kind, evaluation, trained in points:
            colour, marker = KINDS[kind]
            value, se = evaluation.percent("pass_at_1")
            style = dict(color=colour, marker=marker, markeredgecolor="black", elinewidth=0.8, capsize=2, ls="", ms=7)
            top.errorbar(mean(evaluation.files, "spent")[0], value, se, **style)
            if not trained:
                bottom.errorbar(mean(evaluation.files, "logp")[0], value, se, **style)
        top.set(title=DATASETS[dataset], xlabel="tokens generated an answer", xscale="log")
        bottom.set(xlabel="log π_base of an answer, nats")
        bottom.xaxis.set_major_locator(MaxNLocator(5))
    for ax in axes[:, 0]:
        ax.set_ylabel("Pass@1, %")
    handles = [Line2D([], [], color=c, marker=m, mec="black", ls="", label=kind) for kind, (c, m) in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    choices = "Every row that is there, last checkpoints. Tokens are those of inference: what training cost is not in "
    choices += "them. Below: methods of inference, whose answers' log π_base is known on the test problems themselves."
    title = f"{model.short}: accuracy against generated tokens, and against log π_base"
    album.save(figure, f"ours_spending_{tag}", title, choices)


def points_of(album: Album, tag: str, dataset: str, tables: list[int]) -> list[tuple[str, Evaluation, bool]]:
    """Kind, evaluation and whether trained, of each row of a model that has results."""
    rows: dict[tuple, Row] = {}
    for row in (row for n in tables for row in rows_of(n)):
        rows.setdefault((row.folder, row.file), row)  # once: the two tables of a pair have the same rows
    found = [(row, album.evaluation(row, dataset, "last")) for row in rows.values()]
    return [(row.label.split()[0].rstrip(","), evaluation, bool(row.expect)) for row, evaluation in found if evaluation]
