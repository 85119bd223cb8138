"""The rules of the house: the scripts agree, common/ knows no method, commands parse. Pages: test_pages.py."""

import ast
import difflib
import io
import math
import re
import shlex
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import pytest
from programs import PARSERS

import common.rollout
import rloo_task
import rloo_tilted
from common.run.arguments import parse

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("rloo_task.py", "rloo_sharpen.py", "rloo_tilted.py")


def shared_tree(source: str) -> str:
    """The syntax tree without what may differ: docstring, import math, alpha and beta with their docs, `objective`."""
    tree = ast.parse(source)
    body = []
    for node in tree.body[1:]:
        if isinstance(node, ast.Import) and node.names[0].name == "math":
            continue
        if isinstance(node, ast.FunctionDef) and node.name == "objective":
            node.body = []
        elif isinstance(node, ast.ClassDef) and node.name == "Args":
            fields = iter(node.body)
            node.body = []
            for field in fields:
                if isinstance(field, ast.AnnAssign) and field.target.id in ("alpha", "beta"):
                    next(fields)  # its docstring
                else:
                    node.body.append(field)
        body.append(node)
    return "\n".join(ast.dump(node) for node in body)


def test_the_three_scripts_are_one_script_but_for_the_science():
    trees = [shared_tree((ROOT / name).read_text()) for name in SCRIPTS]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize(
    "old,new",
    [
        ("8\n", "4\n"),
        ("batch_indices(len", "batch_indices(1 + len"),
        ("clamp(max", "clamp(min"),
        ("float(getattr", "-float(getattr"),
    ],
)
def test_a_copy_that_drifts_is_seen(old, new):
    source = (ROOT / "rloo_task.py").read_text()
    assert old in source
    assert shared_tree(source) != shared_tree(source.replace(old, new, 1))


@pytest.mark.parametrize("a,b", [(0, 1), (0, 2), (1, 2)])
def test_a_diff_of_two_scripts_shows_the_science_and_little_else(a, b):
    lines = [(ROOT / SCRIPTS[i]).read_text().splitlines() for i in (a, b)]
    changed = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    assert len(changed) <= 27, "\n".join(changed)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_read_in_one_sitting(name):
    lines = (ROOT / name).read_text().splitlines()
    assert 200 <= len(lines) <= 280
    generate = next(i for i, line in enumerate(lines) if "sampler.generate(" in line)
    step = next(i for i, line in enumerate(lines) if "optimizer.step()" in line)
    assert step - generate <= 52


@pytest.mark.parametrize("path", sorted((ROOT / "common").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_method_stands_in_the_scripts_and_never_in_common(path):
    if path.name == "toy.py":
        pytest.skip("pre-trains the miniature and knows its exact optima")
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    assert not names & {"alpha", "beta", "advantages", "leave_one_out", "returns", "objective"}


# --- every command in README and benchmark/ parses --------------------------------------------------------------------


DRY_RUNS = ["smoke.sh", "miniature/observations.sh", "miniature/observations.sh --quick", "small_model/smollm2.sh"]
DRY_RUNS += ["miniature/beyond.sh", "small_model/smollm2.sh --cpu"]
DRY_RUNS += [f"tables/{path.name}" for path in sorted((ROOT / "benchmark/tables").glob("[tf]*.sh"))]
PROGRAM = r"(?:\S*python3?|torchrun [^|#]*?)\s+(?:-m\s+(?:--\s+)?)?"


def commands() -> list[tuple[str, str]]:
    """(where, command) of every python and torchrun command in the pages and in quickstart.sh: continuation lines
    joined, variables that the file sets filled in, other variables replaced by 1. The other scripts print theirs."""
    found = []
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "common/README.md", "benchmark/README.md")]
    for path in [*pages, ROOT / "benchmark" / "quickstart.sh"]:
        text = path.read_text().replace("\\\n", " ")
        variables = dict(re.findall(r'^ *(?:local )?(\w+)="([^"]*)"', text, re.M)) if path.suffix == ".sh" else {}
        for line in text.splitlines():
            match = re.search(PROGRAM + r"((?:common\.evaluate|\w+\.py)\b[^|#>`]*)", line)
            if match:
                words = match.group(1).replace('"$@"', "1")
                while "$" in words:  # a variable may be made of others
                    words = re.sub(r"\$\{?(\w+)\}?", lambda m, known=variables: known.get(m.group(1), "1"), words)
                found.append((path.name, " ".join(words.split())))
    return found


@pytest.mark.parametrize("where,command", commands())
def test_every_documented_command_parses(where, command):
    words = [word for word in shlex.split(command) if word != "..."]
    parser = PARSERS.get(words[0])
    if parser is None:
        pytest.skip(f"{words[0]} is not one of the scripts: the reader's own copy")
    parse(parser, words[1:])


@pytest.mark.parametrize("script", DRY_RUNS)
def test_every_command_of_a_dry_run_parses(script):
    command = ["bash", *f"benchmark/{script} --dry-run".split()]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        words = shlex.split(line)
        place = next((i for i, word in enumerate(words) if word in PARSERS), None)
        if place is not None:
            parse(PARSERS[words[place]], words[place + 1 :])
        else:  # a changed copy of a script, made by the script that runs it; a report; what describes the machine
            other = words[1].startswith("runs/") or words[2].startswith("benchmark.")
            assert other or words[0] in ("mkdir", "nvidia-smi")


def test_help_may_be_cut_off_by_what_reads_it():
    """`--help | head -1` printed a traceback."""
    code = (
        "import beam_eval, common.run as r; print('imported', flush=True); input(); r.parse(beam_eval.Args, ['--help'])"
    )
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as program:
        assert program.stdout.readline() == b"imported\n"
        program.stdout.close()
        program.stdin.write(b"\n")
        program.stdin.close()
        assert program.wait() == 0 and program.stderr.read() == b""


def test_a_command_with_an_unknown_flag_fails():
    with pytest.raises(SystemExit):
        parse(rloo_task.Args, ["--alpha", "2"])


TRAINING = [
    *("--beta 0", "--beta -1", "--beta nan", "--alpha 0", "--alpha nan", "--alpha inf", "--group-size 1"),
    *("--max-grad-norm 0", "--max-grad-norm -1", "--max-grad-norm nan", "--importance-weight-cap 0"),
    *("--importance-weight-cap -1", "--importance-weight-cap nan", "--validation-size -3", "--seed -1"),
    *("--seed 4294967296", "--lora-rank -4", "--weight-decay nan", "--weight-decay -1", "--weight-decay inf"),
    *("--learning-rate inf", "--learning-rate 0", "--learning-rate nan", "--warmup-steps -1", "--num-steps 0"),
    *("--num-problems 0", "--eval-every 0", "--max-total-tokens 1"),
    *("--gpu-memory-utilization 0", "--gpu-memory-utilization 1.5", "--num-grading-workers -1", "--exp-name a/b"),
    *("--num-grading-workers 100000", f"--exp-name {'é' * 51}"),
]
OTHERS = {
    "power_sampling.py": ["--alpha inf", "--alpha nan", "--n 0", "--repeats 0", "--num-moves -1", "--block-size -1"]
    + ["--num-particles 0", "--limit -3", "--limit 0", "--seed -1", "--max-total-tokens 0"]
    + ["--gpu-memory-utilization 1.5"],
    "beam_eval.py": ["--num-beams 0", "--length-penalty nan", "--length-penalty 0 inf", "--limit -3"]
    + ["--length-penalty 1e300", "--length-penalty -21", "--num-grading-workers 100000"],
    "common.evaluate": [
        f"{words} --model toy"
        for words in ("--n 0", "--repeats -1", "--temperature nan", "--temperature -1", "--batch-size 0", "--limit -3")
    ],
}
REFUSED = [("rloo_tilted.py", words) for words in TRAINING] + [(p, words) for p in OTHERS for words in OTHERS[p]]


@pytest.mark.parametrize("program,words", REFUSED)
def test_an_argument_out_of_its_domain_is_refused_in_one_line_when_the_command_line_is_read(program, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(PARSERS[program], words.split())
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words.split()[0]} ") and ("must be" in line or "finite" in line)


def test_a_name_of_a_hundred_bytes_makes_a_run_folder_and_every_power_of_a_length_is_finite(tmp_path):
    name = "é" * 50
    assert parse(rloo_task.Args, ["--exp-name", name]).exp_name == name
    (tmp_path / f"{name}__{'m' * 96}__{2**32 - 1}__20250101-000000-999").mkdir()
    for penalty in parse(PARSERS["beam_eval.py"], ["--length-penalty", "20", "-20"]).length_penalty:
        assert 0 < 1e6**penalty < math.inf


@pytest.mark.parametrize("script", SCRIPTS)
def test_grading_after_eos_is_refused_without_fixed_length(script, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(PARSERS[script], ["--grade-after-eos"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and "--grade-after-eos has no effect without --fixed-length" in line
    assert parse(PARSERS[script], ["--grade-after-eos", "--fixed-length"]).grade_after_eos


def test_infinity_is_allowed_where_it_means_something():
    args = parse(rloo_tilted.Args, "--beta inf --max-grad-norm inf --importance-weight-cap inf".split())
    assert args.beta == args.max_grad_norm == args.importance_weight_cap == math.inf


def test_arguments_made_in_code_are_checked_too():
    with pytest.raises(ValueError, match="--max-grad-norm 0.0: must be a number above 0, or inf"):
        rloo_task.Args(max_grad_norm=0.0)


class Started(Exception):
    pass


@pytest.mark.parametrize("program", OTHERS)
def test_the_share_of_a_gpu_that_others_use_too_reaches_the_sampler(program, tmp_path, monkeypatch):
    def start(*_, **options):
        raise Started(options["gpu_memory_utilization"])

    module = sys.modules[PARSERS[program].__module__]
    for place in {module, common.rollout}:
        monkeypatch.setattr(place, "start_sampler", start, raising=place is common.rollout)
    words = f"--model toy --dataset toy_test --limit 2 --max-total-tokens 64 --output-dir {tmp_path}"
    words += " --num-grading-workers 1 --gpu-memory-utilization 0.25"
    with pytest.raises(Started, match=r"^0.25$"):
        module.main(parse(PARSERS[program], words.split()))


@pytest.mark.parametrize("program", PARSERS)
def test_every_number_among_the_arguments_has_a_domain_and_every_argument_help_of_its_own(program, capsys):
    hints = get_type_hints(PARSERS[program], include_extras=True)
    for name, hint in hints.items():
        if get_origin(hint) is not Literal and re.search("int|float", str(hint)):
            assert "Domain" in str(hint), f"{program}: {name} takes any number"
    with pytest.raises(SystemExit):
        parse(PARSERS[program], ["--help"])
    shown = capsys.readouterr().out
    opening = sys.modules[PARSERS[program].__module__].__doc__.split(".")[0].split("\n")[0]
    assert opening[:50] in shown
    if program.startswith("rloo"):
        headings = ("objective", "model-and-data", "optimization", "speed-and-memory", "output")
        places = [shown.index(f" {heading} options ") for heading in headings]
        assert places == sorted(places)
        for word in ("of batches", "so many", "but for"):
            assert word not in shown
