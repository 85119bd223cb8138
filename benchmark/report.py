"""The paper's tables and figures from our runs, ours beside theirs: python benchmark/report.py runs/paper

Leaves report.md, report.html (one file, nothing is loaded from elsewhere) and figures/*.{png,svg} in --output. A cell
is ours ± standard error over problems, repeats joined, then the paper's number and ours less the paper's. What is not
there stays empty and is listed with the file that was looked for; the exit code is then 1.

Two verdicts: `authors` is math-verify over the whole response and votes on strings, as the paper's numbers were made,
so they stand beside it; `strict` is the last box and votes on values (common/grading.py). Two best checkpoints: chosen
as the authors did, with test problems among the validation problems, and by problems outside every table (honest).

Runs and results under RUNS that belong to no table are listed after the tables.
"""

import base64
import html
import json
import re
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tyro

from common.grading import maj_at_k, maj_strings, mean_and_se, pass_at_k

PAPER = json.loads(Path(__file__).with_name("paper_results.json").read_text())
N, SEEDS = 16, (1, 2, 3)
VERDICTS = ("authors", "strict")
ALPHAS, BETAS = (1, 1.25, 2, 4), {"inf": "inf", "1e-2": 0.01, "1e-4": 0.0001}
MODES = ("mh-llm-signfix", "mh-llm", "karan-du", "exact")
METRICS = {"pass@1": "Pass@1", "pass@16": "Pass@16", "maj@16": "Maj@16"}
DATASETS = {"math500": "Math-500", "minerva": "Minerva", "aime24": "AIME 2024", "aime25": "AIME 2025"}
DATASETS |= {"hmmt25": "HMMT 2025"}


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


# --- what the tables hold ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    id: str
    datasets: tuple[str, ...]
    num_steps: int
    short: str


MODELS = {
    "qwen2.5-3b": Model("Qwen/Qwen2.5-3B-Instruct", ("math500", "minerva"), 500, "Qwen2.5-3B"),
    "llama-3.2-3b": Model("meta-llama/Llama-3.2-3B-Instruct", ("math500", "minerva"), 500, "Llama-3.2-3B"),
    "qwen3-4b": Model("Qwen/Qwen3-4B-Instruct-2507", ("aime24", "aime25", "hmmt25"), 1000, "Qwen3-4B"),
}
TABLES = {  # model, length, checkpoint
    3: ("qwen2.5-3b", "variable", "last"),
    4: ("qwen2.5-3b", "variable", "best"),
    5: ("qwen2.5-3b", "fixed", "last"),
    6: ("qwen2.5-3b", "fixed", "best"),
    7: ("llama-3.2-3b", "variable", "last"),
    8: ("llama-3.2-3b", "variable", "best"),
    9: ("llama-3.2-3b", "fixed", "last"),
    10: ("llama-3.2-3b", "fixed", "best"),
    11: ("qwen3-4b", "variable", "last"),
    12: ("qwen3-4b", "variable", "best"),
}
CHECKPOINTS = {
    "last": "last checkpoint",
    "best_authors": "best checkpoint, the authors' selection",
    "best_honest": "best checkpoint, honest selection",
}


@dataclass(frozen=True)
class Row:
    """A row of a table: what the paper prints, and where our results lie."""

    name: str  # in benchmark/*.sh; one command may serve several rows
    label: str
    alpha: str
    beta: str
    key: tuple  # method, alpha and beta in paper_results.json
    where: str  # under a folder of runs, with {checkpoint}, {dataset} and {seed}
    datasets: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ("last",)  # that are evaluated
    seeds: tuple[int, ...] = SEEDS
    n: int = N
    expect: dict | None = None  # what args.json of a trained row holds

    def paper(self, table: int) -> dict:
        """The paper's numbers by data set, per cent; empty where it has none."""
        for row in PAPER["tables"][str(table)]["rows"]:
            if (row["method"], row["alpha"], row["beta"]) == self.key:
                return row
        return {}


def rows_of(table: int) -> list[Row]:
    """The rows of a table in the paper's order, those that only we have among them."""
    tag, length, _ = TABLES[table]
    sampled, datasets = "{dataset}__n16__seed{seed}.json", MODELS[tag].datasets
    rows = [Row(f"{tag}_base", "Base", "", "", ("base", None, None), f"{tag}/plain_T1/{sampled}", datasets)]
    for alpha in ALPHAS[1:]:
        name = f"plain_T{1 / alpha:g}"
        label = f"Plain sampling, T = {1 / alpha:g}"
        rows.append(Row(f"{tag}_{name}", label, f"{alpha:g}", "", (), f"{tag}/{name}/{sampled}", datasets))
    for alpha in (1, 2, 4):
        for mode in MODES:
            name = f"power_{mode}_alpha{alpha}"
            key = ("mh_llm", float(alpha), None)
            where = f"{tag}/{name}__{sampled}"
            rows.append(Row(f"{tag}_{name}", f"Power sampling, {mode}", str(alpha), "", key, where, datasets))
    for rule in ("vllm-0.11", "transformers"):
        for penalty in (0, 1):
            key = ("beam_search", None, None) if rule == "vllm-0.11" else ()
            where = f"{tag}/{{dataset}}__beam4__penalty{penalty}__{rule}.json"
            label = f"Beam, {rule}, length penalty {penalty}"
            rows.append(Row(f"{tag}_beam_{rule}", label, "", "", key, where, datasets, seeds=(0,), n=1))
    for name, method in (("task", "task_reward"), ("sharpen", "dist_sharpen")):
        label = {"task": "Task reward", "sharpen": "Dist. sharpening"}[name]
        rows.append(trained(tag, length, name, label, "", "", (method, None, None)))
    for alpha in ALPHAS:
        for beta, number in BETAS.items():
            key = ("tilted", float(alpha), number)
            label = "Tempered sampling" if beta == "inf" else "Tilted sampling"
            row = trained(tag, length, f"tilted_alpha{alpha:g}_beta{beta}", label, f"{alpha:g}", beta, key)
            if (alpha, beta) == (1, "inf"):  # its optimum is Base
                row = untrained(tag, row, rows[0])
            rows.append(row)
    return rows


def trained(tag: str, length: str, name: str, label: str, alpha: str, beta: str, key: tuple) -> Row:
    name = f"{tag}_{length}_{name}"
    expect = {"model": MODELS[tag].id, "fixed_length": length == "fixed", "num_steps": MODELS[tag].num_steps}
    if alpha:
        expect |= {"alpha": float(alpha), "beta": float(beta)}
    where = f"{name}__*/results/{{checkpoint}}/{{dataset}}__n16__seed{{seed}}.json"
    return Row(name, label, alpha, beta, key, where, MODELS[tag].datasets, tuple(CHECKPOINTS), expect=expect)


def untrained(tag: str, row: Row, base: Row) -> Row:
    """alpha 1, beta inf as the paper has it: a copy of Base for the Qwen models, and for Llama one run of variable
    length that stands in the tables of fixed length too."""
    if tag == "llama-3.2-3b":
        return trained(tag, "variable", "tilted_alpha1_betainf", row.label, "1", "inf", row.key)
    return replace(base, label="Tempered sampling (is Base)", alpha="1", beta="inf", key=row.key)


def table_2_rows() -> list[tuple[dict, str, Row]]:
    """Each printed row of Table 2, its model, and the row of Tables 3-10 that it repeats."""
    found = []
    for printed in PAPER["table_2"]:
        tag = next(tag for tag, model in MODELS.items() if model.id.endswith(printed["model"]))
        number = next(n for n, table in TABLES.items() if table[:2] == (tag, printed["length"]))
        found.append((printed, tag, next(r for r in rows_of(number) if r.key == (printed["method"], None, None))))
    return found


def figure_6_rows() -> list[Row]:
    """Rows of ours that carry Figure 6's curves on to k = 256, from the runs of Table 11."""
    rows = {row.key: row for row in rows_of(11) if row.key}
    chosen = {"base": ("last",), "task_reward": ("last",), "dist_sharpen": tuple(CHECKPOINTS)}
    found = []
    for method, checkpoints in chosen.items():
        row = rows[method, None, None]
        name, where = f"figure_6_{row.name}", row.where.replace("n16", "n256")
        found.append(replace(row, name=name, where=where, checkpoints=checkpoints, seeds=(1,), n=256))
    return found


def figure_7_rows() -> list[Row]:
    """Inference methods timed one by one on one GPU."""
    files = {
        "plain": ("Plain sampling, 16 answers", "plain_T1/{dataset}__n16__seed{seed}.json", N),
        "beam": ("Beam search, 4 beams, 1 answer", "{dataset}__beam4__penalty0__vllm-0.11.json", 1),
    }
    for mode in ("exact", "mh-llm-signfix"):
        where = f"power_{mode}_alpha4__{{dataset}}__n16__seed{{seed}}.json"
        files[f"power_{mode}"] = (f"Power sampling, {mode}, 16 answers", where, N)
    return [
        Row(f"figure_7_{name}", label, "", "", (), f"figure_7/{where}", ("math500",), seeds=(1,), n=n)
        for name, (label, where, n) in files.items()
    ]


def wanted_rows(tables: list[int]) -> list[Row]:
    """The rows of tables, and of the figures that go with them."""
    rows = [row for n in tables for row in ([r for _, _, r in table_2_rows()] if n == 2 else rows_of(n))]
    rows += figure_6_rows() if {11, 12} & {*tables} else []
    return rows + (figure_7_rows() if {3, 4} & {*tables} else [])


# --- what is on disk --------------------------------------------------------------------------------------------------


class Missing(Exception):
    """A file that is not there."""


class Broken(Exception):
    """A file that is there and of no use."""


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Missing(str(path)) from None
    except (ValueError, OSError) as error:
        raise Broken(f"{path}: {error}") from None


class Sample:
    """A results file of common/evaluate.py, reduced to what tables and figures need."""

    def __init__(self, path: Path, n: int | None = None):
        content, self.path = read_json(path), path
        try:
            problems = content["problems"]
            self.n = n or len(problems[0]["tokens"])
            lists = ("tokens", "logp", "votes", "classes", *VERDICTS)
            other = {len(p[key]) for p in problems for key in lists} - {self.n}
            if other or not problems:
                raise ValueError(f"{min(other)} answers to a problem, not {self.n}" if other else "no problems")
            self.ids = [p["id"].split("#")[0] for p in problems]
            self.right = {v: [sum(p[v]) for p in problems] for v in VERDICTS}
            self.majority = {
                "authors": [maj_strings(p["authors"], p["votes"], self.n) for p in problems],
                "strict": [maj_at_k(p["strict"], p["classes"], self.n) for p in problems],
            }
            self.logp = [sum(p["logp"]) / self.n for p in problems]
            self.spent = [p["generated_tokens"] / self.n for p in problems]
            self.seconds = [p["seconds"] for p in problems]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Broken(f"{path}: not a results file ({type(error).__name__}: {error})") from None


Figure = tuple[float, float]  # value and standard error


def mean(samples: list[Sample], name: str) -> Figure:
    """Mean of a list of a Sample over problems, repeats of a problem joined."""
    return mean_and_se([x for s in samples for x in getattr(s, name)], [id for s in samples for id in s.ids])


def pass_at(samples: list[Sample], k: int, verdict: str) -> Figure:
    """Pass@k, per cent."""
    values = [pass_at_k(s.n, c, k) for s in samples for c in s.right[verdict]]
    value, se = mean_and_se(values, [id for s in samples for id in s.ids])
    return 100 * value, 100 * se


def cells(samples: list[Sample], verdict: str) -> dict[str, Figure]:
    """Pass@1, Pass@n and Maj@n, per cent."""
    n = samples[0].n
    found = {f"pass@{k}": pass_at(samples, k, verdict) for k in sorted({1, n})}
    if n > 1:
        values = [x for s in samples for x in s.majority[verdict]]
        value, se = mean_and_se(values, [id for s in samples for id in s.ids])
        found[f"maj@{n}"] = 100 * value, 100 * se
    return found


@dataclass
class TrainingRun:
    """A run folder of a training script."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name.split("__")[0]

    @cached_property
    def args(self) -> dict:
        return read_json(self.folder / "args.json")

    @cached_property
    def curves(self) -> list[dict]:
        """The lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except FileNotFoundError:
            raise Missing(str(path)) from None
        except ValueError as error:
            raise Broken(f"{path}: {error}") from None

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a logged figure."""
        lines = [line for line in self.curves if key in line]
        return [line["step"] for line in lines], [line[key] for line in lines]

    def checkpoint(self, which: str) -> str:
        """The name of the last or a best checkpoint."""
        if which == "last":
            return f"step_{self.args['num_steps']:06d}"
        path = self.folder / "checkpoints" / f"{which}.json"
        try:
            return read_json(path)["checkpoint"]
        except (KeyError, TypeError):
            raise Broken(f"{path}: names no checkpoint") from None


class Results:
    """What lies in the folders of runs; what was looked for in vain is kept in `faults`, by row."""

    def __init__(self, roots: list[Path]):
        self.roots = roots
        self.cache: dict[Path, Sample] = {}
        self.faults: dict[str, list[str]] = {}

    def run(self, row: Row) -> TrainingRun:
        folders = [folder for root in self.roots for folder in sorted(root.glob(row.where.split("/")[0]))]
        if not folders:
            raise Missing(f"{self.roots[0]}/{row.where.split('/')[0]}/")
        if len(folders) > 1:
            raise Broken(f"{', '.join(map(str, folders))}: several runs of one row, move all but one away")
        run = TrainingRun(folders[0])
        for key, value in row.expect.items():
            if run.args.get(key) != value:
                raise Broken(f"{run.folder}/args.json: {key} is {run.args.get(key)!r}, the row has {value!r}")
        return run

    def samples(self, row: Row, dataset: str, checkpoint: str) -> list[Sample]:
        """The repeats of a row; [] where one is missing or broken, which is noted."""
        try:
            folder, pattern = None, row.where
            if row.expect:
                run = self.run(row)
                folder = run.folder / "results" / run.checkpoint(checkpoint)
                pattern = pattern.split("/")[-1]
            found = []
            for seed in row.seeds:
                file = pattern.format(dataset=dataset, seed=seed)
                places = [folder / file] if folder else [root / file for root in self.roots]
                path = next((place for place in places if place.exists()), places[0])
                if path not in self.cache:
                    self.cache[path] = Sample(path, row.n)
                found.append(self.cache[path])
            return found
        except (Missing, Broken) as fault:
            self.note(row.name, fault)
            return []

    def look(self, row: Row, dataset: str, checkpoint: str) -> list[Sample]:
        """As `samples`, for figures: what is not there has been noted with the tables."""
        kept, self.faults = self.faults, {}
        found = self.samples(row, dataset, checkpoint)
        self.faults = kept
        return found

    def note(self, name: str, fault: Exception) -> None:
        text = f"{'missing' if isinstance(fault, Missing) else 'broken'}: {fault}"
        if text not in self.faults.setdefault(name, []):
            self.faults[name].append(text)

    def lacks(self, name: str) -> list[str]:
        """What a row of benchmark/*.sh lacks in any table."""
        rows = [row for row in wanted_rows([*TABLES]) if row.name == name]
        if not rows:
            raise ValueError(f"no row {name!r}: the names are in benchmark/*.sh")
        for row in rows:
            for dataset in row.datasets:
                for checkpoint in row.checkpoints:
                    self.samples(row, dataset, checkpoint)
        return self.faults.get(name, [])


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """Ours and the paper's, per cent; either may be missing."""

    ours: Figure | None = None
    paper: float | None = None

    def texts(self) -> tuple[str, str]:
        ours = f"{self.ours[0]:.1f} ± {self.ours[1]:.1f}" if self.ours else ""
        paper = f"{self.paper:.1f}" if self.paper is not None else ""
        if ours and paper:
            paper += f", {self.ours[0] - self.paper:+.1f}"
        return ours, paper


@dataclass
class Table:
    title: str
    header: list[str]
    rows: list[list[str | Cell]]
    notes: list[str] = field(default_factory=list)


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


def mean_of_last(run: TrainingRun, key: str, steps: int = 20) -> float | None:
    values = run.curve(key)[1][-steps:]
    return sum(values) / len(values) if values else None


RESULTS_NAME = re.compile(r"(?P<stem>.+)__(?P<rest>seed\d+|beam\d+__penalty[^_]+__[\w.-]+)\.json")


def other_samples(results: Results) -> dict[tuple[Path, str], list[Sample]]:
    """Repeats by (folder, name) of results that belong to no table."""
    found = {}
    for root in results.roots:
        for path in sorted(root.rglob("*.json")):
            match = RESULTS_NAME.fullmatch(path.name)
            if match and path not in results.cache and not belongs_to_a_table(path.relative_to(root)):
                name = match["stem"] if match["rest"].startswith("seed") else f"{match['stem']}__{match['rest']}"
                try:
                    found.setdefault((path.parent, name), []).append(Sample(path))
                except (Missing, Broken) as fault:
                    results.note("other results", fault)
    return found


def belongs_to_a_table(path: Path) -> bool:
    ours = {row.where.split("/")[0].removesuffix("__*") for row in wanted_rows([*TABLES])}
    return path.parts[0].split("__")[0] in ours


def other_runs(results: Results) -> list[TrainingRun]:
    """Run folders that belong to no table."""
    folders = [path.parent for root in results.roots for path in sorted(root.glob("*/metrics.jsonl"))]
    return [TrainingRun(folder) for folder in folders if not belongs_to_a_table(Path(folder.name))]


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


# --- pages ------------------------------------------------------------------------------------------------------------


LEGEND = (
    "A cell: ours ± standard error, then the paper's and ours less the paper's, per cent. Empty: not run. "
    "(ours): a row that the paper lacks."
)


def missing_lines(results: Results) -> list[str]:
    lines = []
    for name, faults in sorted(results.faults.items()):
        lines += [f"{name}: {fault}" for fault in faults]
    return lines


def markdown(tables: list[Table], images: list, results: Results, summary: str) -> str:
    def text(cell: str | Cell) -> str:
        if isinstance(cell, str):
            return cell
        ours, paper = cell.texts()
        return ours + (f" ({paper})" if paper else "")

    parts = ["# Beyond Distribution Sharpening: ours beside the paper's", summary, LEGEND]
    for table in tables:
        lines = [table.header, ["---"] * len(table.header), *[[text(cell) for cell in row] for row in table.rows]]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts += [f"## {table.title}", body, *table.notes]
    for image in images:
        shown = f"![{image.title}](figures/{image.name}.png)"
        parts += [f"## {image.title}", shown, f"{image.choices} {image.made_of}"]
    if results.faults:
        parts += ["## Missing or broken", "\n".join(f"- {line}" for line in missing_lines(results))]
    return "\n\n".join(parts) + "\n"


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; padding: 0 1em; color: #111 }
table { border-collapse: collapse; margin: .6em 0 1em; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { border-bottom: 1px solid #ccc; padding: .22em .6em; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid #333; vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left } small { color: #555; display: block } .scroll { overflow-x: auto }
img { max-width: 100% } summary { cursor: pointer; font-weight: 600; margin: .5em 0 }
pre { font-size: 12px; overflow-x: auto }
.sources { font-size: 11px; color: #555; overflow-wrap: anywhere; max-height: 8em; overflow-y: auto }
"""


def page(tables: list[Table], images: list, results: Results, summary: str) -> str:
    """The report as one HTML file."""

    def td(cell: str | Cell) -> str:
        if isinstance(cell, str):
            return f"<td>{html.escape(cell)}</td>"
        ours, paper = cell.texts()
        return f"<td>{ours}{f'<small>{paper}</small>' if paper else ''}</td>"

    parts = ["<h1>Beyond Distribution Sharpening: ours beside the paper's</h1>", f"<p>{html.escape(summary)}</p>"]
    parts.append(f"<p>{html.escape(LEGEND)}</p>")
    for table in tables:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
        body = "".join(f"<tr>{''.join(map(td, row))}</tr>" for row in table.rows)
        shown = "" if "strict" in table.title else " open"
        parts.append(f"<details{shown}><summary>{html.escape(table.title)}</summary><div class=scroll><table>")
        parts.append(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        parts += [*(f"<p>{html.escape(note)}</p>" for note in table.notes), "</details>"]
    for image in images:
        data = base64.b64encode(image.svg.read_bytes()).decode()
        parts.append(f"<h2>{html.escape(image.title)}</h2>")
        parts.append(f'<img alt="{html.escape(image.title)}" src="data:image/svg+xml;base64,{data}">')
        parts.append(f"<p>{html.escape(image.choices)}</p><p class=sources>{html.escape(image.made_of)}</p>")
    if results.faults:
        lines = "\n".join(map(html.escape, missing_lines(results)))
        parts.append(f"<details><summary>Missing or broken</summary><pre>{lines}</pre></details>")
    head = f"<meta charset=utf-8><title>Ours beside the paper's</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


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
    import figures  # here, because matplotlib takes a second

    tables = [view for n in args.tables for view in (table_2(results) if n == 2 else table_views(results, n))]
    tables += other_table(results)
    output = args.output or args.runs[0] / "report"
    (output / "figures").mkdir(parents=True, exist_ok=True)
    images = figures.draw_all(results, args.tables, output / "figures")
    wanted = {row.name for row in wanted_rows(args.tables)}
    complete = len([name for name in wanted if name not in results.faults])
    summary = f"{complete} of {len(wanted)} rows complete; read from {', '.join(map(str, args.runs))}."
    (output / "report.md").write_text(markdown(tables, images, results, summary))
    (output / "report.html").write_text(page(tables, images, results, summary))
    for line in missing_lines(results):
        print(line)
    print(f"{summary}\nreport: {output / 'report.html'}, {output / 'report.md'}, {output / 'figures'}")
    return int(bool(results.faults))


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except ValueError as error:
        sys.exit(f"error: {error}")
