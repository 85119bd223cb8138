"""The rows of the paper's tables and figures, the numbers it prints, and where our results are in a folder of runs.

python -m benchmark.tables.paper TABLE... copies rows from standard input and adds the paper's numbers to each.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

PAPER = json.loads(Path(__file__).with_name("paper.json").read_text())
SEEDS, SAMPLED = (1, 2, 3), "{dataset}__n16__seed{seed}.json"
ALPHAS, BETAS = (1, 1.25, 2, 4), {"inf": "inf", "1e-2": 0.01, "1e-4": 0.0001}
MODES = ("mh-llm-signfix", "mh-llm", "karan-du", "exact")
METRICS = {"pass@1": "Pass@1", "pass@16": "Pass@16", "maj@16": "Maj@16"}
DATASETS = {"math500": "Math-500", "minerva": "Minerva", "aime24": "AIME 2024", "aime25": "AIME 2025"}
DATASETS |= {"hmmt25": "HMMT 2025"}


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
    "best_held_out": "best checkpoint, selected on held-out problems",
}


@dataclass(frozen=True)
class Row:
    """A row of a table: what the paper prints, and where our results are."""

    name: str  # in the table scripts; one command may serve several rows
    label: str
    alpha: str
    beta: str
    key: tuple  # method, alpha and beta in paper.json
    folder: str  # under a folder of runs: of the results, or with a * of the training run
    file: str  # name of a results file there, with {dataset} and {seed}
    datasets: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ("last",)  # that are evaluated
    seeds: tuple[int, ...] = SEEDS
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
    datasets = MODELS[tag].datasets
    rows = [Row(f"{tag}_base", "Base", "", "", ("base", None, None), f"{tag}/plain_T1", SAMPLED, datasets)]
    for alpha in ALPHAS[1:]:
        name = f"plain_T{1 / alpha:g}"
        label = f"Plain sampling, T = {1 / alpha:g}"
        rows.append(Row(f"{tag}_{name}", label, f"{alpha:g}", "", (), f"{tag}/{name}", SAMPLED, datasets))
    for alpha in (1, 2, 4):
        for mode in MODES:
            name = f"power_{mode}_alpha{alpha}"
            key = ("mh_llm", float(alpha), None)
            label = f"Power sampling, {mode}"
            rows.append(Row(f"{tag}_{name}", label, str(alpha), "", key, tag, f"{name}__{SAMPLED}", datasets))
    for rule in ("vllm-0.11", "transformers"):
        for penalty in (0, 1):
            key = ("beam_search", None, None) if rule == "vllm-0.11" else ()
            file = f"{{dataset}}__beam4__penalty{penalty}__{rule}.json"
            label = f"Beam, {rule}, length penalty {penalty}"
            rows.append(Row(f"{tag}_beam_{rule}", label, "", "", key, tag, file, datasets, seeds=(0,)))
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
    datasets = MODELS[tag].datasets
    return Row(name, label, alpha, beta, key, f"{name}__*", SAMPLED, datasets, tuple(CHECKPOINTS), expect=expect)


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
        name, file = f"figure_6_{row.name}", row.file.replace("n16", "n256")
        found.append(replace(row, name=name, file=file, checkpoints=checkpoints, seeds=(1,)))
    return found


def figure_7_rows() -> list[Row]:
    """Inference methods timed one by one on one GPU."""
    files = {
        "plain": ("Plain sampling, 16 answers", "figure_7/plain_T1", SAMPLED),
        "beam": ("Beam search, 4 beams, 1 answer", "figure_7", "{dataset}__beam4__penalty0__vllm-0.11.json"),
    }
    for mode in ("exact", "mh-llm-signfix"):
        label = f"Power sampling, {mode}, 16 answers"
        files[f"power_{mode}"] = (label, "figure_7", f"power_{mode}_alpha4__{SAMPLED}")
    return [
        Row(f"figure_7_{name}", label, "", "", (), folder, file, ("math500",), seeds=(1,))
        for name, (label, folder, file) in files.items()
    ]


def wanted_rows(tables: list[int]) -> list[Row]:
    """The rows of tables, and of the figures that go with them."""
    rows = [row for n in tables for row in ([r for _, _, r in table_2_rows()] if n == 2 else rows_of(n))]
    rows += figure_6_rows() if {11, 12} & {*tables} else []
    return rows + (figure_7_rows() if {3, 4} & {*tables} else [])


# --- notes for the table scripts --------------------------------------------------------------------------------------


def numbers_of(row: Row, table: int) -> str:
    """The paper's numbers in a row of a table, such as "Math-500 58.3 87.5 66.3, Minerva 23.0 47.8 27.2": Pass@1,
    Pass@16 and Maj@16 in per cent (beam search: Pass@1). Empty where the paper has none."""
    printed = row.paper(table)
    return ", ".join(
        f"{DATASETS[d]} {' '.join(f'{x:.1f}' for x in printed[d].values())}" for d in row.datasets if d in printed
    )


def notes(name: str, tables: list[int]) -> list[str]:
    """What stands beside a row in a table script: its numbers in these tables, "last" and "best" where they differ."""
    found: dict[str, set[str]] = {}
    for table in tables:
        for row in rows_of(table):
            if row.name == name and numbers_of(row, table):
                found.setdefault(numbers_of(row, table), set()).add(TABLES[table][2])
    return [f"{min(which)} {text}" if len(which) == 1 else text for text, which in found.items()] or [
        "not in the paper"
    ]


if __name__ == "__main__":
    for line in sys.stdin:
        print(line, end="")
        if line.startswith("# "):
            print("".join(f"#   {note}\n" for note in notes(line.split()[1], [int(n) for n in sys.argv[1:]])), end="")
