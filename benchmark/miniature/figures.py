"""Figures of the miniature that show the numbers of its tables. They can be drawn again from the page's own file:

python -m benchmark.miniature.figures benchmark/miniature/results
"""

import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from benchmark.miniature.rows import BEAMS, METHODS, MODES, MOVES
from benchmark.report import figures
from benchmark.report.page import Table

LOG_BASE = r"$\log\,\pi_{\mathrm{base}}$ of an answer, nats"
STYLES = {"task": (figures.BLUE, "^"), "sharpen": (figures.RED, "v"), "tempered": (figures.PINK, "P")}
STYLES |= {"tilted": (figures.GREEN, "*"), "Base": (figures.GREY, "o")}
MODE_STYLES = {"exact": (figures.BLUE, "D", "-"), "karan-du": (figures.GREEN, "s", "--")}
MODE_STYLES |= {"mh-llm": (figures.ORANGE, "v", ":"), "mh-llm-signfix": (figures.PINK, "^", "-.")}
TEMPERATURES = {"T = 1": "1", "T = 0.8": "0.8", "T = 0.5": "0.5", "T = 0.25": "0.25"}


class Shown:
    """The numbers that the tables of a page show."""

    def __init__(self, tables: list[Table]):
        self.tables = {table.title: table for table in tables}

    def number(self, title: str, row: str, column: str, of_optimum: bool = False) -> tuple[float, float]:
        """Value and standard error (0 if none is shown) of a cell; of two columns of one name, the first, or of an
        optimum the last."""
        table = self.tables[title]
        cells = next(line for line in table.rows if line[0] == row)
        places = [i for i, name in enumerate(table.header) if name == column]
        found = re.findall(r"-?[\d.]+", cells[places[-1 if of_optimum else 0]])
        return float(found[0]), float(found[1]) if len(found) > 1 else 0.0

    def point(self, row: str) -> tuple[float, float, float]:
        """log pi_base, Pass@1 and its error of a method without training, easy level."""
        if row == "T = 1":
            return self.number("Training", "Base", "log π_base")[0], *self.number("Training", "Base", "Pass@1")
        return self.number("Inference", row, "log π_base")[0], *self.number("Inference", row, "Easy: Pass@1")


def groups(points: list[tuple], names: list[str]) -> list[tuple[tuple, list[str]]]:
    """Names of points that lie on one another, with the place of the last one: they share a label."""
    found = []
    for (x, y, _), name in zip(points, names, strict=True):
        if found and abs(x - found[-1][0][0]) < 0.15 and abs(y - found[-1][0][1]) < 3:
            found[-1] = ((x, y), [*found[-1][1], name])
        else:
            found.append(((x, y), [name]))
    return found


def likelihood_figure(shown: Shown, album: figures.Album) -> None:
    figure, ax = plt.subplots(figsize=(8.6, 4.8), layout="constrained")
    beams = {f"Beam {w}, length penalty 0": f"{w}" for w in BEAMS}
    moves = {f"Power, exact, α 2, {k} moves": f"{k}" for k in MOVES}
    kinds = [("plain sampling at temperature T", figures.GREY, "o", TEMPERATURES, "T = {}", (-34, 6))]
    kinds.append(("beam search", figures.SKY, "X", beams, "width {}", (8, -3)))
    kinds.append(("power sampling, α = 2", figures.ORANGE, "D", moves, "{} moves", (9, -8)))
    for label, colour, marker, rows, words, offset in kinds:
        points = [shown.point(row) for row in rows]
        ax.errorbar(
            *zip(*points, strict=True), color=colour, marker=marker, mec="black", ls=":", capsize=2, label=label
        )
        for place, names in groups(points, [*rows.values()]):
            text = words.format(", ".join(names))
            ax.annotate(text, place, xytext=offset, textcoords="offset points", fontsize=7)
    for name, label in METHODS.items():
        colour, marker = STYLES[name]
        x, (y, error) = shown.number("Training", label, "log π_base")[0], shown.number("Training", label, "Pass@1")
        style = dict(color=colour, marker=marker, ms=10, ls="", capsize=2)
        ax.errorbar(
            x, y, error, mec="black", label=f"{label.replace('Tempered 2', 'Tempered, α = 2')}, trained", **style
        )
        best_x = shown.number("Training", label, "log π_base", of_optimum=True)[0]
        best, best_error = shown.number("Training", label, "Optimum: Pass@1")
        ax.errorbar(best_x, best, best_error, mfc="white", **style)
        ax.annotate("", (best_x, best), (x, y), arrowprops=dict(arrowstyle="->", color=colour, lw=0.8))
    ax.plot([], [], color="black", marker="o", mfc="white", ms=9, ls="", label="exact optimum of the objective")
    ax.margins(x=0.14)
    ax.set_xlim(right=ax.get_xlim()[1] + 0.3)  # room for the label of the widest beams
    ax.set(xlabel=LOG_BASE, ylabel="Pass@1, %")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    note = (
        "Easy level, variable length. Bars: ± standard error. Filled: measured; open: exact optimum of the objective; "
    )
    note += "an arrow leads from a trained policy to its optimum. Dotted lines join rising effort."
    album.save(figure, "likelihood", "Likelier is not better: log π_base against accuracy", note)


def inference_figure(shown: Shown, album: figures.Album) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for mode in MODES:
        colour, marker, style = MODE_STYLES[mode]
        found = [shown.point(f"Power, {mode}, α 2, {k} moves")[1:] for k in MOVES]
        left.errorbar(range(4), *zip(*found, strict=True), color=colour, marker=marker, ls=style, label=mode, capsize=2)
    best, _ = shown.number("Training", "Tempered 2", "Optimum: Pass@1")
    left.axhline(best, color="black", ls=(0, (5, 2)), lw=1, label=r"exact optimum $\pi_{\mathrm{base}}^2 / Z$")
    left.set_xticks(range(4), [str(k) for k in MOVES])
    left.set(xlabel="moves of whole answers", ylabel="Pass@1, %", title="Power sampling, α = 2, easy level")
    for level, run, colour, marker in (
        ("Easy", "Sharpening", figures.SKY, "o"),
        ("Hard", "Sharpening, hard level", figures.RED, "s"),
    ):
        found = [shown.number("Inference", f"Beam {w}, length penalty 0", f"{level}: Pass@1") for w in BEAMS]
        style = dict(color=colour, marker=marker, capsize=2, label=f"{level.lower()} level")
        right.errorbar(range(4), *zip(*found, strict=True), **style)
        best, _ = shown.number("Training", run, "Optimum: Pass@1")
        label = rf"likeliest answer of $\pi_{{\mathrm{{base}}}}$, {level.lower()}"
        right.axhline(best, color=colour, ls=(0, (5, 2)), lw=1, label=label)
    right.set_xticks(range(4), [str(w) for w in BEAMS])
    right.set(xlabel="beam width", ylabel="Pass@1, %", title="Beam search, length penalty 0", ylim=(0, 105))
    right.tick_params(labelleft=True)
    for ax in (left, right):
        ax.legend(loc="center left", bbox_to_anchor=(0.02, 0.42))
    note = "Bars: ± standard error over problems."
    album.save(figure, "inference", "Inference: more effort, nearer the optimum", note)


def draw_again(folder: Path) -> None:
    """Draws the figures of a page from its observations.json."""
    shown = Shown([Table(**table) for table in json.loads((folder / "observations.json").read_text())["tables"]])
    album = figures.Album(None, folder / "figures")
    likelihood_figure(shown, album)
    inference_figure(shown, album)
    for image in album.images:
        image.svg.unlink()  # the page of the repository shows the PNG
        print(image.svg.with_suffix(".png"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw_again(Path(sys.argv[1]))
