"""The paper's tables and figures from our runs: python -m benchmark.tables.report runs/paper

Writes report.md, report.html (one file that loads nothing else) and figures/*.{png,svg} to --output. A cell shows our
value ± standard error over problems, repeats joined, and below it the paper's and the difference. Where a row has not
been run, the cell says so, and what was looked for is listed at the end; the exit code is then 1.

Two verdicts: `authors` is math-verify on the whole response with a vote on strings, as the paper's numbers were made;
`strict` is the last box with a vote on values (common/grading). Two best checkpoints: selected as the authors did, with
test problems among the validation problems, and selected on held-out problems, which are in no table.

Runs and results in the folders that belong to no table are listed after the tables.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from benchmark.report.page import Cell, Page, Table
from benchmark.report.results import VERDICTS, Broken, Evaluation, Missing, Results, TrainingRun, mean, mean_of_last
from benchmark.tables.paper import CHECKPOINTS, DATASETS, METRICS, MODELS, TABLES, rows_of, table_2_rows, wanted_rows

LEGEND = (
    "Per cent. Black: ours ± standard error. Grey italics: the paper's number, and ours minus the paper's. "
    "Rows marked (ours) are not in the paper."
)


@dataclass
class Args:
    runs: tyro.conf.Positional[list[Path]]
    """folders with runs and results, such as runs/paper"""
    tables: list[int] = field(default_factory=lambda: list(range(2, 13)))
    """numbers of the tables; none with an empty --tables"""
    output: Path | None = None
    """folder of the report; default: report/ in the first of the folders"""


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
                    evaluation = results.evaluation(row, dataset, chosen)
                    ours = evaluation.cells(verdict) if evaluation else {}
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
    for best in ("best_authors", "best_held_out"):
        for verdict in VERDICTS:
            header = ["Model", "Method", "Length"]
            header += [f"{DATASETS[d]} {name}" for name in ("last", "best") for d in ("math500", "minerva")]
            rows = []
            for printed, tag, row in table_2_rows():
                line = [MODELS[tag].short, row.label, printed["length"]]
                for which, chosen in (("last", "last"), ("best", best)):
                    for dataset in ("math500", "minerva"):
                        evaluation = results.evaluation(row, dataset, chosen)
                        ours = evaluation.percent("pass_at_1", verdict) if evaluation else None
                        line.append(Cell(ours, printed[which][dataset] if verdict == "authors" else None))
                rows.append(line)
            selection = CHECKPOINTS[best].split(", ")[1]
            views.append(Table(f"Table 2: Pass@1, {selection}, verdict {verdict}", header, rows))
    return views


def other_table(results: Results) -> list[Table]:
    header = ["Results", "Repeats", "Samples", "Pass@1", "Pass@n", "Maj@n", "Pass@1 strict"]
    header += ["Tokens generated per answer", "log π_base in training", "KL to base in training"]
    rows = []
    for name, evaluation in results.other_evaluations().items():
        authors, n = evaluation.cells("authors"), evaluation.n
        line = [name, str(evaluation.repeats), str(n), Cell(authors["pass@1"])]
        line += [Cell(authors.get(key)) if n > 1 else Cell() for key in (f"pass@{n}", f"maj@{n}")]
        line += [Cell(evaluation.percent("pass_at_1", "strict")), spent(evaluation)]
        rows.append(line + training_columns(evaluation))
    note = "log π_base and KL: mean over the last 20 steps of the run, on training problems, nats per response."
    return [Table("Other results", header, rows, [note])] if rows else []


def spent(evaluation: Evaluation) -> str:
    try:
        return f"{mean(evaluation.files, 'spent')[0]:.1f}"
    except (Missing, Broken):  # a summary may be kept without its results files
        return ""


def training_columns(evaluation: Evaluation) -> list[str]:
    """log pi_base and KL at the end of the training run, if this is its last checkpoint."""
    folder = next((f for f in evaluation.folder.parents if (f / "args.json").exists()), None)
    if folder is None or not (folder / "metrics.jsonl").exists():
        return ["", ""]
    run = TrainingRun(folder)
    if evaluation.step != run.args["num_steps"]:
        return ["", ""]
    values = [mean_of_last(run, key) for key in ("objective/logp_base", "objective/kl_base")]
    return ["" if value is None else f"{value:.2f}" for value in values]


# --- the program -----------------------------------------------------------------------------------------------------


def missing_lines(results: Results) -> list[str]:
    lines = []
    for name, faults in sorted(results.faults.items()):
        lines += [f"{name}: {fault}" for fault in faults]
    return lines


def main(args: Args) -> int:
    """Writes the report and returns the exit code."""
    absent = [str(root) for root in args.runs if not root.is_dir()]
    unknown = sorted(set(args.tables) - {2, *TABLES})
    if unknown:
        raise ValueError(f"--tables {unknown[0]}: the paper's tables with results are 2 to 12.")
    if not args.runs:
        raise ValueError("name one folder with runs or several, such as runs/paper.")
    if absent:
        raise ValueError(f"{', '.join(absent)}: no such folder. Give folders with runs, such as runs/paper.")
    output = args.output or args.runs[0] / "report"
    in_the_way = next((path for path in (output, *output.parents) if path.exists() and not path.is_dir()), None)
    if in_the_way:
        raise ValueError(f"--output {output}: {in_the_way} is a file. Name a folder, which need not exist.")
    results = Results(args.runs)
    if results.is_empty():
        raise ValueError(
            f"{', '.join(map(str, args.runs))}: there is nothing to report yet, neither results (summary.json) nor a "
            "training run (metrics.jsonl). Run rows first, for instance with bash benchmark/tables/table_03_04.sh."
        )
    from benchmark.report import figures  # here, because matplotlib takes a second

    tables = [view for n in args.tables for view in (table_2(results) if n == 2 else table_views(results, n))]
    tables += other_table(results)
    (output / "figures").mkdir(parents=True, exist_ok=True)
    images = figures.draw_all(results, args.tables, output / "figures")
    wanted = {row.name for row in wanted_rows(args.tables)}
    complete = len([name for name in wanted if name not in results.faults])
    summary = f"{complete} of {len(wanted)} rows of these tables have their results. " if wanted else ""
    summary += f"Read from {', '.join(map(str, args.runs))}."
    if wanted and not complete:
        summary += " None of our rows is complete: numbers in grey italics are the paper's, not ours."
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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
