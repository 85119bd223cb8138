"""benchmark/table_*.sh and figure_*.sh: every row of the paper, its numbers, its command, and what becomes of a row."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from programs import PARSERS

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = ROOT / "benchmark" / "tables"
PAPER = json.loads((BENCHMARK / "paper.json").read_text())
FILES = {
    "table_03_04.sh": (3, 4),
    "table_05_06.sh": (5, 6),
    "table_07_08.sh": (7, 8),
    "table_09_10.sh": (9, 10),
    "table_11_12.sh": (11, 12),
}
SCRIPTS = [*FILES, "table_02.sh", "figure_6.sh", "figure_7.sh"]
DATASETS = {"math500": "Math-500", "minerva": "Minerva", "aime24": "AIME 2024", "aime25": "AIME 2025"}
DATASETS |= {"hmmt25": "HMMT 2025"}
MODES = ("mh-llm-signfix", "mh-llm", "karan-du", "exact")
BETAS = {"inf": "inf", 0.01: "1e-2", 0.0001: "1e-4"}
BLOCK = re.compile(
    r"(?P<comment>(?:^#.*\n)*)"
    r"^(?:row (?P<row>\S+)(?: needs (?P<needs>[^<\n]*))? <<'EOF'\n(?P<commands>(?:.*\n)*?)EOF$|"
    r"link (?P<link>\S+) (?P<file>\S+).*$)",
    re.M,
)


def blocks(text: str) -> list[dict]:
    """The rows and links of a file; one that follows another at once shares its comment."""
    found, end = [], 0
    for match in BLOCK.finditer(text):
        block = match.groupdict()
        if not block["comment"] and found and not text[end : match.start()].strip():
            block["comment"] = found[-1]["comment"]
        block["name"] = block["row"] or block["link"]
        found.append(block)
        end = match.end()
    return found


def parsed(commands: str) -> list[tuple[str, object]]:
    """Program and its arguments, for each command of a row that is one of the project's."""
    found = []
    for line in commands.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        program = next((i for i, word in enumerate(words) if word in PARSERS), None)
        if program is not None:
            found.append((words[program], tyro.cli(PARSERS[words[program]], args=words[program + 1 :])))
    return found


def expected_names(tag: str, length: str, method: str, alpha, beta) -> list[str]:
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


def heading(method: str, alpha, beta) -> str:
    """How the comment of a row of the paper begins."""
    alpha = f"alpha {alpha:g}" if alpha else ""
    return {
        "base": "# Base",
        "mh_llm": f"# MH-LLM, {alpha}:",
        "beam_search": "# Beam search:",
        "task_reward": "# Task-Reward",
        "dist_sharpen": "# Dist. Sharpen",
        "tilted": f"# Tilted Sampling, {alpha}, beta {BETAS.get(beta)}\n",
    }[method]


def tag_and_length(file: str) -> list[str]:
    return {
        "table_03_04.sh": ["qwen2.5-3b", "variable"],
        "table_05_06.sh": ["qwen2.5-3b", "fixed"],
        "table_07_08.sh": ["llama-3.2-3b", "variable"],
        "table_09_10.sh": ["llama-3.2-3b", "fixed"],
        "table_11_12.sh": ["qwen3-4b", "variable"],
    }[file]


@pytest.mark.parametrize("file,tables", FILES.items(), ids=[*FILES])
def test_each_row_of_the_paper_stands_once_under_its_numbers(file, tables):
    tag, length = tag_and_length(file)
    text, found = (BENCHMARK / file).read_text(), blocks((BENCHMARK / file).read_text())
    headings = {}
    for table, which in zip(tables, ("last", "best"), strict=True):
        for row in PAPER["tables"][str(table)]["rows"]:
            names = expected_names(tag, length, row["method"], row["alpha"], row["beta"])
            numbers = ", ".join(
                f"{DATASETS[d]} {' '.join(f'{x:.1f}' for x in row[d].values())}" for d in DATASETS if d in row
            )
            lines = {f"# Table {table}, {which}: {numbers}", f"# Tables {tables[0]}, {tables[1]}: {numbers}"}
            start = heading(row["method"], row["alpha"], row["beta"])
            over = [b for b in found if b["comment"].startswith(start) and lines & {*b["comment"].splitlines()}]
            assert [block["name"] for block in over] == names, row
            headings.setdefault(start, set()).update({*over[0]["comment"].splitlines()} & lines)
    stated = sorted(re.findall(r"^# Tables? \d+, .*\d$", text, re.M))
    assert stated == sorted(line for lines in headings.values() for line in lines), "a number without a row"


@pytest.mark.parametrize("file,tables", FILES.items(), ids=[*FILES])
def test_rows_that_the_paper_lacks_are_marked_as_ours(file, tables):
    tag, length = tag_and_length(file)
    printed = {
        name
        for table in tables
        for row in PAPER["tables"][str(table)]["rows"]
        for name in expected_names(tag, length, row["method"], row["alpha"], row["beta"])
    }
    ours = {f"{tag}_plain_T{t}" for t in ("0.8", "0.5", "0.25")} | {f"{tag}_beam_transformers"}
    found = blocks((BENCHMARK / file).read_text())
    assert {block["name"] for block in found} == printed | ours | {f"{tag}_base"}
    assert {block["name"] for block in found if "# ours" in block["comment"]} == ours


def test_a_row_is_run_by_one_file_and_linked_by_the_others():
    runs = {}
    for file in SCRIPTS:
        for block in blocks((BENCHMARK / file).read_text()):
            if block["row"]:
                assert block["row"] not in runs, f"{block['row']} is run twice"
                runs[block["row"]] = file
    for file in SCRIPTS:
        for block in blocks((BENCHMARK / file).read_text()):
            assert not block["link"] or runs[block["link"]] == block["file"]
            assert {*(block["needs"] or "").split()} <= {*runs}


def test_table_2_links_every_row_with_its_numbers():
    found = blocks((BENCHMARK / "table_02.sh").read_text())
    assert len(found) == len(PAPER["table_2"]) == 8 and not any(block["row"] for block in found)
    for row in PAPER["table_2"]:
        tag = row["model"].lower().removesuffix("-instruct")
        last, best = (f"{row[which]['math500']} {row[which]['minerva']}" for which in ("last", "best"))
        (block,) = [b for b in found if [b["link"]] == expected_names(tag, row["length"], row["method"], None, None)]
        assert f"# Table 2: last {last}, best {best}" in block["comment"]


@pytest.mark.parametrize("file", FILES)
def test_the_command_of_a_trained_row_is_the_row(file):
    tag, length = tag_and_length(file)
    big = tag == "qwen3-4b"
    count = 0
    for block in blocks((BENCHMARK / file).read_text()):
        if not block["row"] or "rloo_" not in block["commands"]:
            continue
        count += 1
        (script, args), *evaluations = parsed(block["commands"])
        method = block["row"].removeprefix(f"{tag}_{length}_")
        assert script == f"rloo_{method.split('_')[0]}.py"
        if script == "rloo_tilted.py":
            assert method == f"tilted_alpha{args.alpha:g}_beta{BETAS[args.beta if args.beta < 1 else 'inf']}"
        assert (args.exp_name, args.output_dir, args.resume) == (block["row"], "runs/paper", "")
        assert args.fixed_length == (length == "fixed") and not args.grade_after_eos
        recipe = (args.dataset, args.num_steps, args.num_problems, args.group_size, args.max_total_tokens)
        assert recipe == (("deepscaler", 1000, 64, 8, 4096) if big else ("math", 500, 32, 8, 2048))
        assert (args.seed, args.learning_rate, args.warmup_steps, args.weight_decay) == (42, 1e-6, 50, 0.01)
        paths = [a.model for _, a in evaluations]
        last = f"step_{args.num_steps:06d}"
        assert paths == [f"$run/checkpoints/{name}" for name in (last, "$best_authors", "$best_held_out")]
        assert f"run=$(echo runs/paper/{block['row']}__*)\n" in block["commands"]
        for program, a in evaluations:
            assert program == "common.evaluate" and (a.n, a.repeats, a.seed, a.temperature) == (16, 3, 1, 1.0)
            assert a.dataset == (["aime24", "aime25", "hmmt25"] if big else ["math500", "minerva"])
            assert a.max_total_tokens == args.max_total_tokens
    assert count == 13 + (file == "table_07_08.sh")  # there alpha 1, beta inf is trained


@pytest.mark.parametrize("file", ["table_03_04.sh", "table_07_08.sh", "table_11_12.sh"])
def test_the_command_of_an_inference_row_is_the_row(file):
    tag, _ = tag_and_length(file)
    window = 4096 if tag == "qwen3-4b" else 2048
    found = [b for b in blocks((BENCHMARK / file).read_text()) if b["row"] and "rloo_" not in b["commands"]]
    assert len(found) == 1 + 3 + 12 + 2
    for block in found:
        ((program, args),) = parsed(block["commands"])
        assert args.max_total_tokens == window and args.model.split("/")[1].lower().startswith(tag)
        kind, _, rest = block["row"].removeprefix(f"{tag}_").partition("_")
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
            assert block["needs"].split() == needs  # power_sampling.py would sample them again, in every job
        else:
            temperature = 1.0 if kind == "base" else float(rest.removeprefix("T"))
            assert args.temperature == temperature
            assert args.output_dir == f"runs/paper/{tag}/plain_T{temperature:g}"


@pytest.mark.parametrize("file", ["figure_6.sh", "figure_7.sh"])
def test_the_commands_of_the_figures_parse(file):
    rows = [block for block in blocks((BENCHMARK / file).read_text()) if block["row"]]
    assert len(rows) == {"figure_6.sh": 3, "figure_7.sh": 4}[file]
    assert all(parsed(block["commands"]) for block in rows)


# --- what becomes of a row --------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    """A project with rows.sh as it is, and stand-ins for set-up, report and torchrun. A row is complete when
    runs/paper/NAME.complete is there; torchrun writes its arguments to calls."""
    (tmp_path / "benchmark" / "tables").mkdir(parents=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "benchmark" / "tables" / "rows.sh").write_text((BENCHMARK / "rows.sh").read_text())
    (tmp_path / "benchmark" / "setup.sh").write_text("touch set-up\n")
    report = "import pathlib, sys\nsys.exit(not pathlib.Path(f'runs/paper/{sys.argv[3]}.complete').exists())\n"
    (tmp_path / "benchmark" / "tables" / "report.py").write_text(report)
    stand_in = tmp_path / ".venv" / "bin" / "torchrun"
    stand_in.write_text('#!/bin/sh\necho "$*" >>calls\n')
    stand_in.chmod(0o755)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def call(copy: Path, rows: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a script with these rows."""
    head = 'set -euo pipefail\n. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"\n'
    (copy / "benchmark" / "tables" / "table.sh").write_text(f"{head}{rows}\nfinish\n")
    command = ["bash", "benchmark/tables/table.sh", *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return done.returncode, done.stdout + done.stderr


def row(name: str, *commands: str, needs: str = "") -> str:
    return f"row {name} {needs} <<'EOF'\n" + "\n".join(commands) + "\nEOF\n"


THREE = (
    row("good", "echo 1 >>ran", "touch runs/paper/good.complete")
    + row("bad", "echo 2 >>ran", "echo the reason >&2; false", "echo never >>ran")
    + row("silent", "echo 3 >>ran")
    + row("after", "echo 4 >>ran", "touch runs/paper/after.complete")
    + row("dependent", "echo 5 >>ran", needs="needs bad")
)


def test_a_failed_row_stops_nothing_and_is_listed_with_its_log(copy):
    code, output = call(copy, THREE)
    assert code == 1 and (copy / "ran").read_text().split() == ["1", "2", "3", "4"]
    listed = output.split("not all rows are complete:\n")[1].splitlines()
    assert listed == [
        "bad: failed, log runs/paper/logs/bad.log",
        "silent: failed, log runs/paper/logs/silent.log",  # all its commands passed, and its results are not there
        "dependent: needs bad, which is not complete",
    ]
    assert "the reason" in (copy / "runs/paper/logs/bad.log").read_text()


def test_a_complete_row_is_skipped(copy):
    call(copy, THREE)
    (copy / "ran").unlink()
    code, output = call(copy, THREE)
    assert code == 1 and (copy / "ran").read_text().split() == ["2", "3"]
    assert "good: has its results" in output and "after: has its results" in output


def test_all_complete_is_exit_code_0(copy):
    assert call(copy, row("good", "touch runs/paper/good.complete"))[0] == 0


def test_rows_are_chosen_by_a_regular_expression(copy):
    call(copy, THREE, "--rows", "^(good|after)$")
    assert (copy / "ran").read_text().split() == ["1", "4"]


def test_dry_run_prints_the_commands_and_runs_nothing(copy):
    code, output = call(copy, THREE, "--dry-run")
    assert code == 0 and "\n# dependent needs bad\necho 5 >>ran\n" in output
    assert not any((copy / name).exists() for name in ("ran", "set-up", "runs"))


@pytest.mark.parametrize("file", SCRIPTS)
def test_dry_run_prints_every_command_of_a_file(file, tmp_path):
    (tmp_path / "benchmark" / "tables").mkdir(parents=True)
    for name in (file, "rows.sh"):
        (tmp_path / "benchmark" / "tables" / name).write_text((BENCHMARK / name).read_text())
    command = ["bash", f"benchmark/tables/{file}", "--dry-run"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for block in blocks((BENCHMARK / file).read_text()):
        assert (block["commands"] or f"# {block['link']}: benchmark/tables/{block['file']}") in output
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark"]


@pytest.mark.parametrize("arguments", [["--dryrun"], ["--rows"]])
def test_an_unknown_argument_is_refused(copy, arguments):
    assert call(copy, THREE, *arguments)[0] != 0
    assert not (copy / "ran").exists()


TRAINED = row(
    "t",
    "torchrun --nproc-per-node gpu rloo_task.py \\",
    "    --num-steps 500 --exp-name t --output-dir runs/paper",
    "run=$(echo runs/paper/t__*)",
    "best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)",
    "best_held_out=$(grep -o 'step_[0-9]*' $run/checkpoints/best_held_out.json)",
    *(
        f"torchrun -m -- common.evaluate --model $run/checkpoints/{name}"
        for name in ("step_000500", "$best_authors", "$best_held_out")
    ),
)


def run_folder(copy: Path, *steps: int, resume: bool = True) -> Path:
    """What training leaves; best by the authors' selection is the last step, the best held out is step 20."""
    run = copy / "runs/paper/t__model__42__now"
    for step in steps:
        (run / f"checkpoints/step_{step:06d}").mkdir(parents=True)
        (run / f"checkpoints/step_{step:06d}/config.json").touch()
    for name, step in (("authors", 500), ("held_out", 20)):
        best = {"step": step, "accuracy": 0.5, "checkpoint": f"step_{step:06d}"}
        (run / f"checkpoints/best_{name}.json").write_text(json.dumps(best, indent=1))
    if resume:
        (run / "resume").mkdir()
        (run / "resume/latest.json").write_text("{}")
    return run


def test_a_stopped_run_goes_on_from_its_newest_checkpoint(copy):
    run_folder(copy, 20, 100)
    call(copy, TRAINED)
    training = (copy / "calls").read_text().splitlines()[0]
    assert training.endswith("--exp-name t --output-dir runs/paper --resume runs/paper/t__model__42__now")


def test_a_trained_run_is_not_trained_again_and_a_checkpoint_is_evaluated_once(copy):
    run = run_folder(copy, 20, 500, resume=False)
    call(copy, TRAINED)
    calls = (copy / "calls").read_text().splitlines()
    assert [line.split("checkpoints/")[1] for line in calls] == ["step_000500", "step_000020"]
    assert run.exists()


def test_a_run_with_checkpoints_but_nothing_to_resume_is_left_alone(copy):
    run = run_folder(copy, 20, resume=False)
    code, _ = call(copy, TRAINED)
    assert code == 1 and run.exists() and not (copy / "calls").exists()
    assert "move it away" in (copy / "runs/paper/logs/t.log").read_text()


def test_a_run_that_died_before_its_first_checkpoint_is_begun_anew(copy):
    (copy / "runs/paper/t__model__42__then/checkpoints").mkdir(parents=True)
    call(copy, TRAINED)
    assert not (copy / "runs/paper/t__model__42__then").exists()
    assert "--resume" not in (copy / "calls").read_text().splitlines()[0]


def test_only_a_complete_row_loses_its_resume_folder(copy):
    run = run_folder(copy, 20, 500)
    call(copy, TRAINED)
    assert (run / "resume").exists()  # the row failed: its results are not there
    call(copy, TRAINED.replace("\nEOF", "\ntouch runs/paper/t.complete\nEOF"))
    assert not (run / "resume").exists() and (run / "checkpoints/step_000500").exists()
