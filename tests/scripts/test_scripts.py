"""The rules of the house: the scripts agree, common/ knows no method, what is logged is documented, commands parse."""

import ast
import difflib
import io
import re
import shlex
import subprocess
import tokenize
from pathlib import Path

import pytest
from programs import PARSERS

import rloo_task
import rloo_tilted
from common.run import METRICS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("rloo_task.py", "rloo_sharpen.py", "rloo_tilted.py")


def shared_tree(source: str) -> str:
    """The syntax tree without what may differ: docstring, RETURN_READS, alpha and beta with their docs, `objective`."""
    tree = ast.parse(source)
    body = []
    for node in tree.body[1:]:
        if isinstance(node, ast.FunctionDef) and node.name == "objective":
            node.body = []
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN_READS":
            continue
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
    "old,new", [("8\n", "4\n"), ("batch_indices(len", "batch_indices(1 + len"), ("clamp(max", "clamp(min")]
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
    assert 200 <= len(lines) <= 250
    generate = next(i for i, line in enumerate(lines) if "sampler.generate(" in line)
    step = next(i for i, line in enumerate(lines) if "optimizer.step()" in line)
    assert step - generate <= 45


@pytest.mark.parametrize("path", sorted((ROOT / "common").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_method_stands_in_the_scripts_and_never_in_common(path):
    if path.name == "toy.py":
        pytest.skip("pre-trains the miniature and knows its exact optima")
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    assert not names & {"alpha", "beta", "advantages", "leave_one_out", "returns", "objective"}


def test_every_figure_that_is_logged_is_documented_in_readme():
    readme = (ROOT / "README.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+/[^`]+)` \|", readme, re.M))
    assert documented == set(METRICS)


def test_the_readme_says_of_each_figure_what_the_code_says():
    readme = (ROOT / "README.md").read_text()
    for key, meaning in METRICS.items():
        assert f"| `{key}` | {meaning} |" in readme, key


# --- every command in README and benchmark/ parses --------------------------------------------------------------------


DRY_RUNS = ("observations.sh", "observations.sh --quick", "small_smollm2-135m.sh")
PROGRAM = r"(?:\S*python3?|torchrun [^|#]*?)\s+(?:-m\s+(?:--\s+)?)?"


def commands() -> list[tuple[str, str]]:
    """(where, command) of every python and torchrun command in README and benchmark/: continuation lines joined,
    variables that the file sets filled in, other variables replaced by 1. Without scripts that make their commands of
    parts: `DRY_RUNS` prints these."""
    found, made = [], {name.split()[0] for name in DRY_RUNS}
    scripts = [path for path in sorted((ROOT / "benchmark").glob("*.sh")) if path.name not in made]
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *scripts]:
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
    import tyro

    words = [word for word in shlex.split(command) if word != "..."]
    parser = PARSERS.get(words[0])
    if parser is None:
        pytest.skip(f"{words[0]} is not one of the scripts: the reader's own copy")
    tyro.cli(parser, args=words[1:])


@pytest.mark.parametrize("script", DRY_RUNS)
def test_every_command_of_a_dry_run_parses(script):
    import tyro

    command = ["bash", *f"benchmark/{script} --dry-run".split()]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        program, *words = [word for word in shlex.split(line) if word not in ("python", "-m")]
        if not program.startswith("runs/"):  # a changed copy of a script, made by the script that runs it
            tyro.cli(PARSERS[program], args=words)


def test_a_command_with_an_unknown_flag_fails():
    import tyro

    with pytest.raises(SystemExit):
        tyro.cli(rloo_task.Args, args=["--alpha", "2"])


@pytest.mark.parametrize(
    "arguments", [["--beta", "0"], ["--beta", "-1"], ["--beta", "nan"], ["--alpha", "0"], ["--group-size", "1"]]
)
def test_arguments_out_of_range_are_refused_when_the_command_line_is_read(arguments, capsys):
    from common.run import parse

    with pytest.raises(SystemExit) as stop:
        parse(rloo_tilted.Args, arguments)
    assert stop.value.code != 0
    assert arguments[0] in capsys.readouterr().err
