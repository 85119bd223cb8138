"""The paper's tables and figures from our runs, ours beside theirs: python -m benchmark.tables.report runs/paper

Leaves report.md, report.html (one file, nothing is loaded from elsewhere) and figures/*.{png,svg} in --output. A cell
is ours ± standard error over problems, repeats joined, then the paper's number and ours less the paper's. What is not
there stays empty and is listed with the file that was looked for; the exit code is then 1.

Two verdicts: `authors` is math-verify over the whole response and votes on strings, as the paper's numbers were made,
so they stand beside it; `strict` is the last box and votes on values (common/grading.py). Two best checkpoints: chosen
as the authors did, with test problems among the validation problems, and by problems outside every table (honest).

Runs and results under RUNS that belong to no table are listed after the tables.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from benchmark.report.page import Cell, Page, Table
from benchmark.report.results import VERDICTS, Results, TrainingRun, cells, mean, mean_of_last, other_samples
from benchmark.tables.paper import CHECKPOINTS, DATASETS, METRICS, MODELS, TABLES, rows_of, table_2_rows, wanted_rows

LEGEND = (
    "A cell: ours ± standard error, then the paper's and ours less the paper's, per cent. Empty: not run. "
    "(ours): a row that the paper lacks."
)


@dataclass
class Args:
    runs: tyro.conf.Positional[list[Path]]
    """folders with runs and results, such as runs/paper"""
    tables: list[int] = field(default_factory=lambda: list(range(2, 13)))
    """tables of the paper; none with an empty --tables"""
    output: Path | None = None
    """folder of the report; default: report/ in the first of the runs"""
    has: str = ""
    """make no report; say what this row of benchmark/*.sh lacks, exit code 1 if anything"""


# --- tables ----------------------------------------------------------------------------------------------------------


def table_views(results: Results, number: int) -> list[Table]:
    """A table of the paper for each selection and verdict."""
    tag, length, checkpoint = TABLES[number]
    model, views = MODELS[tag], []
    header = ["Strategy", "α", "β"] + [f"{DATASETS[d]} {m}" for d in model.datasets for m in METRICS.values()]
    for chosen in [name for name in CHECKPOINTS if name.startswith(checkpoint)]:
        for verdict in VERDICTS:
            title = f"Table {number}: {model.short}, {length} length, {CHECKPOINTS[chosen]}, verdict {verdict}"
            rows, distances = [], {}
            for row in rows_of(number):
                printed = row.paper(number) if verdict == "authors" else {}
                line = [row.label + ("" if row.paper(number) else " (ours)"), row.alpha, row.beta.replace("inf", "∞")]
                for dataset in model.datasets:
                    samples = results.samples(row, dataset, chosen)
                    ours = cells(samples, verdict) if samples else {}
                    for metric in METRICS:
                        cell = Cell(ours.get(metric), printed.get(dataset, {}).get(metric))
                        line.append(cell)
                        if cell.ours and cell.paper is not None:
                            distances.setdefault(row.label, []).append(abs(cell.ours[0] - cell.paper))
                rows.append(line)
            views.append(Table(title, header, rows, nearest(distances)))
    return views


def nearest(distances: dict[str, list[float]]) -> list[str]:
    """Which reading of a row that the paper leaves open comes nearest to its numbers."""
    notes = []
    for kind in ("Power sampling", "Beam"):
        found = {k: sum(v) / len(v) for k, v in distances.items() if k.startswith(kind) and v}
        if len(found) > 1:
            order = sorted(found, key=found.get)
            listed = "; ".join(f"{label} {found[label]:.1f} ({len(distances[label])} cells)" for label in order)
            notes.append(f"Mean distance to the paper's row, points, nearest first: {listed}.")
    return notes


def table_2(results: Results) -> list[Table]:
    """Table 2, from the runs of Tables 3-10."""
    views = []
    for best in ("best_authors", "best_honest"):
        for verdict in VERDICTS:
            header = ["Model", "Method", "Length"]
            header += [f"{DATASETS[d]} {name}" for name in ("last", "best") for d in ("math500", "minerva")]
            rows = []
            for printed, tag, row in table_2_rows():
                line = [MODELS[tag].short, row.label, printed["length"]]
                for which, chosen in (("last", "last"), ("best", best)):
                    for dataset in ("math500", "minerva"):
                        samples = results.samples(row, dataset, chosen)
                        ours = cells(samples, verdict)["pass@1"] if samples else None
                        line.append(Cell(ours, printed[which][dataset] if verdict == "authors" else None))
                rows.append(line)
            selection = CHECKPOINTS[best].split(", ")[1]
            views.append(Table(f"Table 2: Pass@1, {selection}, verdict {verdict}", header, rows))
    return views


def other_table(results: Results) -> list[Table]:
    header = ["Results", "Repeats", "Samples", "Pass@1", "Pass@n", "Maj@n", "Pass@1 strict"]
    header += ["Tokens generated an answer", "log π_base in training", "KL to base in training"]
    rows = []
    for (folder, name), samples in other_samples(results).items():
        authors, n = cells(samples, "authors"), samples[0].n
        line = [f"{next(f'{folder.relative_to(r)}' for r in results.roots if folder.is_relative_to(r))}/{name}"]
        line += [str(len(samples)), str(n), Cell(authors["pass@1"])]
        line += [Cell(authors.get(key)) if n > 1 else Cell() for key in (f"pass@{n}", f"maj@{n}")]
        line += [Cell(cells(samples, "strict")["pass@1"]), f"{mean(samples, 'spent')[0]:.1f}"]
        run = TrainingRun(folder.parent.parent)
        training = []
        if folder.parent.name == "results" and (run.folder / "metrics.jsonl").exists():
            if folder.name == run.checkpoint("last"):
                training = [mean_of_last(run, key) for key in ("objective/logp_base", "objective/kl_base")]
        rows.append(line + [f"{x:.2f}" if x is not None else "" for x in training] + [""] * (2 - len(training)))
    note = "log π_base and KL: mean over the last 20 steps of a run, on training problems, nats a response."
    return [Table("Other results", header, rows, [note])] if rows else []


# --- the program -----------------------------------------------------------------------------------------------------


def missing_lines(results: Results) -> list[str]:
    lines = []
    for name, faults in sorted(results.faults.items()):
        lines += [f"{name}: {fault}" for fault in faults]
    return lines


def main(args: Args) -> int:
    """Writes the report; gives the exit code."""
    absent = [str(root) for root in args.runs if not root.is_dir()]
    unknown = sorted(set(args.tables) - {2, *TABLES})
    if unknown:
        raise ValueError(f"--tables {unknown[0]}: the paper's tables with results are 2 to 12.")
    results = Results(args.runs)
    if args.has:
        lacks = results.lacks(args.has)
        print("\n".join(lacks) or f"{args.has}: has its results")
        return int(bool(lacks))
    if absent:
        raise ValueError(f"{', '.join(absent)}: no such folder. Give folders with runs, such as runs/paper.")
    from benchmark.report import figures  # here, because matplotlib takes a second

    tables = [view for n in args.tables for view in (table_2(results) if n == 2 else table_views(results, n))]
    tables += other_table(results)
    output = args.output or args.runs[0] / "report"
    (output / "figures").mkdir(parents=True, exist_ok=True)
    images = figures.draw_all(results, args.tables, output / "figures")
    wanted = {row.name for row in wanted_rows(args.tables)}
    complete = len([name for name in wanted if name not in results.faults])
    summary = f"{complete} of {len(wanted)} rows complete; read from {', '.join(map(str, args.runs))}."
    lines = missing_lines(results)
    Page("Beyond Distribution Sharpening: ours beside the paper's", [summary, LEGEND], tables, images, lines).write(
        output, "report"
    )
    for line in lines:
        print(line)
    print(f"{summary}\nreport: {output / 'report.html'}, {output / 'report.md'}, {output / 'figures'}")
    return int(bool(results.faults))


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except ValueError as error:
        sys.exit(f"error: {error}")
