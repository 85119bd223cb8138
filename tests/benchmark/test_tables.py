"""The scripts of benchmark/tables: every row of the paper, its numbers and its command, as --dry-run prints them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tyro
from conftest import ROOT
from programs import PARSERS

from benchmark.run_rows import Row, read_rows

TABLES = ROOT / "benchmark" / "tables"
PAPER = json.loads((TABLES / "paper.json").read_text())
FILES = {  # tables, model in row names, length
    "table_03_04.sh": ((3, 4), "qwen2.5-3b", "variable"),
    "table_05_06.sh": ((5, 6), "qwen2.5-3b", "fixed"),
    "table_07_08.sh": ((7, 8), "llama-3.2-3b", "variable"),
    "table_09_10.sh": ((9, 10), "llama-3.2-3b", "fixed"),
    "table_11_12.sh": ((11, 12), "qwen3-4b", "variable"),
}
DATASETS = {"math500": "Math-500", "minerva": "Minerva", "aime24": "AIME 2024", "aime25": "AIME 2025"}
DATASETS |= {"hmmt25": "HMMT 2025"}
MODES = ("mh-llm-signfix", "mh-llm", "karan-du", "exact")
BETAS = {"inf": "inf", 0.01: "1e-2", 0.0001: "1e-4"}


@cache
def rows(file: str) -> dict[str, Row]:
    """The rows that a script prints, by name."""
    command = ["bash", f"benchmark/tables/{file}", "--dry-run"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {row.name: row for row in read_rows(output)}


def parsed(row: Row) -> list[tuple[str, object]]:
    """Program and its arguments, for each command of a row that is one of the project's."""
    found = []
    for words in map(shlex.split, row.commands):
        program = next((i for i, word in enumerate(words) if word in PARSERS), None)
        if program is not None:
            found.append((words[program], tyro.cli(PARSERS[words[program]], args=words[program + 1 :])))
    return found


def names_of(tag: str, length: str, method: str, alpha, beta) -> list[str]:
    """The rows that stand for a row of the paper."""
    trained = {"task_reward": "task", "dist_sharpen": "sharpen"}
    if method == "base":
        return [f"{tag}_base"]
    if method == "mh_llm":
        return [f"{tag}_power_{mode}_alpha{alpha:g}" for mode in MODES]
    if method == "beam_search":
        return [f"{tag}_beam_vllm-0.11"]
    if method in trained:
        return [f"{tag}_{length}_{trained[method]}"]
    if (alpha, beta) == (1.0, "inf"):  # copied from Base, or trained once, for Llama
        return ["llama-3.2-3b_variable_tilted_alpha1_betainf" if tag.startswith("llama") else f"{tag}_base"]
    return [f"{tag}_{length}_tilted_alpha{alpha:g}_beta{BETAS[beta]}"]


@pytest.mark.parametrize("file", FILES)
def test_each_row_of_the_paper_is_printed_under_its_numbers(file):
    tables, tag, length = FILES[file]
    numbers = {}  # by row: its lines in the two tables
    for table, which in zip(tables, ("last", "best"), strict=True):
        for row in PAPER["tables"][str(table)]["rows"]:
            cells = [f"{DATASETS[d]} {' '.join(f'{x:.1f}' for x in row[d].values())}" for d in DATASETS if d in row]
            for name in names_of(tag, length, row["method"], row["alpha"], row["beta"]):
                numbers.setdefault(name, {})[which] = ", ".join(cells)
    elsewhere = {name for name in numbers if f"_{length}_" not in name} if length == "fixed" else set()
    found = rows(file)
    assert {*numbers} - elsewhere <= {*found}
    for name, row in found.items():
        wanted = numbers.get(name, {})
        if not wanted:
            assert row.notes == ["not in the paper"]
        elif wanted["last"] == wanted["best"]:
            assert row.notes == [wanted["last"]], name
        else:
            assert row.notes == [f"last {wanted['last']}", f"best {wanted['best']}"], name


@pytest.mark.parametrize("file", FILES)
def test_rows_that_the_paper_lacks_are_plain_sampling_and_another_rule_of_beam_search(file):
    _, tag, length = FILES[file]
    ours = {f"{tag}_plain_T{t}" for t in ("0.8", "0.5", "0.25")} | {f"{tag}_beam_transformers"}
    found = {name for name, row in rows(file).items() if row.notes == ["not in the paper"]}
    assert found == (ours if length == "variable" else set())


@pytest.mark.parametrize("file", FILES)
def test_the_comments_of_a_script_are_the_numbers_that_it_prints(file):
    """The comment beside `tilted 2 inf` is what --dry-run prints above that row."""
    _, tag, length = FILES[file]
    table = (TABLES / file).read_text().split("table() {\n")[1].split("\n}\n")[0]
    comments: dict[str, list[str]] = {}
    for line in table.splitlines():
        call, comment = re.fullmatch(r"    (.*?) *# (.*)", line).groups()
        if call:
            last = comments.setdefault(call, [])
        elif comment.startswith("tilted 1 inf:"):  # a row that is not run here
            continue
        last.append(comment)
    for call, notes in comments.items():
        kind, name, *rest = call.split()
        prefix = {"power": "power_exact_alpha", "beam": "beam_", "tilted": f"{length}_tilted_alpha"}.get(kind, "")
        prefix = f"{length}_" if kind == "train" else prefix
        name = f"{tag}_{prefix}{name}" + (f"_beta{rest[0]}" if kind == "tilted" else "")
        assert [note.split(":")[0] for note in notes] == rows(file)[name].notes, call
    printed = {re.sub("power_(mh-llm-signfix|mh-llm|karan-du)_", "power_exact_", name) for name in rows(file)}
    assert len(comments) == len(printed)


def test_a_row_is_run_by_one_script():
    names = [name for file in (*FILES, "figure_6.sh", "figure_7.sh") for name in rows(file)]
    assert len(names) == len({*names})
    for file in (*FILES, "figure_6.sh", "figure_7.sh"):
        assert all({*row.needs} <= {*names} for row in rows(file).values())


def test_table_2_runs_its_eight_rows_and_no_other():
    wanted = {
        name
        for row in PAPER["table_2"]
        for name in names_of(row["model"].lower().removesuffix("-instruct"), row["length"], row["method"], None, None)
    }
    assert {*rows("table_02.sh")} == wanted and len(wanted) == 8
    for file in FILES:
        assert all(row == rows("table_02.sh").get(name, row) for name, row in rows(file).items())


@pytest.mark.parametrize("file", FILES)
def test_the_command_of_a_trained_row_is_the_row(file):
    _, tag, length = FILES[file]
    big = tag == "qwen3-4b"
    trained = {name: row for name, row in rows(file).items() if "rloo_" in row.commands[0]}
    assert len(trained) == 13 + (file == "table_07_08.sh")  # there alpha 1, beta inf is trained
    for name, row in trained.items():
        (script, args), (program, evaluation) = parsed(row)
        method = name.removeprefix(f"{tag}_{length}_")
        assert script == f"rloo_{method.split('_')[0]}.py"
        if script == "rloo_tilted.py":
            assert method == f"tilted_alpha{args.alpha:g}_beta{BETAS[args.beta if args.beta < 1 else 'inf']}"
        assert (args.exp_name, args.output_dir, args.resume) == (name, "runs/paper", "")
        assert args.fixed_length == (length == "fixed") and not args.grade_after_eos
        recipe = (args.dataset, args.num_steps, args.num_problems, args.group_size, args.max_total_tokens)
        assert recipe == (("deepscaler", 1000, 64, 8, 4096) if big else ("math", 500, 32, 8, 2048))
        assert (args.seed, args.learning_rate, args.warmup_steps, args.weight_decay) == (42, 1e-6, 50, 0.01)
        assert program == "common.evaluate" and evaluation.run == [f"runs/paper/{name}__*"]
        assert evaluation.checkpoint == ["last", "best_authors", "best_held_out"]
        e = evaluation
        assert (e.n, e.repeats, e.seed, e.temperature, e.output_dir) == (16, 3, 1, 1.0, None)
        assert e.dataset == (["aime24", "aime25", "hmmt25"] if big else ["math500", "minerva"])
        assert e.max_total_tokens == args.max_total_tokens


@pytest.mark.parametrize("file", [file for file, (_, _, length) in FILES.items() if length == "variable"])
def test_the_command_of_an_inference_row_is_the_row(file):
    _, tag, _ = FILES[file]
    window = 4096 if tag == "qwen3-4b" else 2048
    found = [row for row in rows(file).values() if "rloo_" not in row.commands[0]]
    assert len(found) == 1 + 3 + 12 + 2
    for row in found:
        ((_, args),) = parsed(row)
        assert args.max_total_tokens == window and args.model.split("/")[1].lower().startswith(tag)
        kind, _, rest = row.name.removeprefix(f"{tag}_").partition("_")
        if kind == "beam":
            assert (args.rule, args.num_beams, args.length_penalty) == (rest, 4, [0.0, 1.0])
            assert args.output_dir == f"runs/paper/{tag}"
            continue
        assert (args.n, args.repeats, args.seed) == (16, 3, 1)
        if kind == "power":
            assert f"{args.mode}_alpha{args.alpha:g}" == rest and args.num_moves == 10
            assert args.block_size == (0 if args.mode == "exact" else window // 16)
            assert args.output_dir == f"runs/paper/{tag}"
            needs = [f"{tag}_base"] + [f"{tag}_plain_T{1 / args.alpha:g}"] * (args.alpha != 1)
            assert row.needs == needs  # power_sampling.py would sample them again, in every job
        else:
            temperature = 1.0 if kind == "base" else float(rest.removeprefix("T"))
            assert args.temperature == temperature
            assert args.output_dir == f"runs/paper/{tag}/plain_T{temperature:g}"


def test_the_commands_of_the_figures_parse_and_need_what_they_read():
    six, seven = rows("figure_6.sh"), rows("figure_7.sh")
    assert len(six) == 3 and len(seven) == 4
    assert all(parsed(row) for row in [*six.values(), *seven.values()])
    for name, row in six.items():
        ((_, args),) = parsed(row)
        assert args.n == 256 and row.needs == [run[11:-3] for run in args.run]  # without runs/paper/ and __*
        assert name.startswith("figure_6_")
    assert {name for name, row in seven.items() if row.needs} == {name for name in seven if "power" in name}


# --- every script -----------------------------------------------------------------------------------------------------

SCRIPTS = [f"tables/{file}" for file in (*FILES, "table_02.sh", "figure_6.sh", "figure_7.sh")]
SCRIPTS += ["miniature/observations.sh", "miniature/beyond.sh", "small_model/smollm2.sh", "smoke.sh", "speed/gpu.sh"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The repository before set-up: no .venv, a Python that finds no package, and a set-up that leaves a trace."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(ROOT / "benchmark", folder / "benchmark", ignore=shutil.ignore_patterns("results", "__pycache__"))
    (folder / "benchmark" / "setup.sh").write_text("touch set-up\nexit 1\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S -B "$@"\n')
    (folder / "bin" / "python3").chmod(0o755)
    return folder


def bare_call(bare: Path, script: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{bare / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", f"benchmark/{script}", *arguments]
    return subprocess.run(command, cwd=bare, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_commands_without_set_up_and_leaves_nothing(bare, script):
    before = {path for path in bare.rglob("*")}
    done = bare_call(bare, script, "--dry-run")
    assert done.returncode == 0 and done.stderr == "" and read_rows(done.stdout)
    assert {path for path in bare.rglob("*")} == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_argument_is_refused_before_set_up(bare, script):
    done = bare_call(bare, script, "--dryrun")
    assert done.returncode != 0 and "--dryrun" in done.stderr
    assert not (bare / "set-up").exists()


# The first two have no --rows. table_02.sh calls other tables, of which each may have none of the rows.
CHOOSING = [script for script in SCRIPTS if script not in ("smoke.sh", "speed/gpu.sh", "tables/table_02.sh")]


@pytest.mark.parametrize("arguments", [["--rows", "nosuch"], ["--rows", "("]], ids=" ".join)
@pytest.mark.parametrize("script", CHOOSING)
def test_an_expression_that_chooses_no_row_is_refused_before_set_up(bare, script, arguments):
    done = bare_call(bare, script, *arguments)
    assert done.returncode == 2 and f"--rows {arguments[1]}" in done.stderr
    assert not (bare / "set-up").exists()
