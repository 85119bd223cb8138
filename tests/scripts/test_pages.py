"""What the pages name exists: files, functions, metrics, flags, links. The table of metrics is that of the code."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import pytest
from programs import PARSERS

from common.run.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "common/README.md", "benchmark/README.md")
# Scripts that a reader makes, and the copy in a run folder.
NOT_OURS = ("script.py", "my_idea.py")
# Folders of a run, of results, and names on the hub.
ELSEWHERE = ("runs/", "results/", "checkpoints/", "resume/", "samples/", "step_")
# Flags of programs other than those in PARSERS.
OTHER_FLAGS = {"resume", "dry_run", "rows", "in_process", "quick"}
FILE = re.compile(r"([\w.-]+/)*[\w.-]*\.(py|sh|md|toml|txt|jsonl|json|cff|yml|yaml)")


@functools.cache
def names_in(path: Path) -> set[str]:
    """What a Python file defines: f, Class, Class.method, CONSTANT."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@functools.cache
def files_below(folder: Path) -> list[Path]:
    parts = [folder] if folder != ROOT else [ROOT / name for name in ("common", "benchmark", "tests")]
    return [path for part in parts for path in part.rglob("*.*")]


def faults(text: str, folder: Path) -> list[str]:
    """Every file, folder, function, metric and flag between backticks that does not exist. Paths are relative to the
    root or to the page's folder; a file's name alone may be anywhere below that folder."""
    missing = []
    flags = {field.name for parser in PARSERS.values() for field in dataclasses.fields(parser)} | OTHER_FLAGS
    for span in re.findall(r"`([^`\n]+)`", text):
        if match := re.match(r"--(?:no-)?([a-z][a-z-]*)", span):
            if match[1].replace("-", "_") not in flags:
                missing.append(f"flag {span}")
            continue
        name, _, member = span.partition(":")
        is_metric = re.fullmatch(r"[a-z]+/[a-z0-9_<>/]+", span)
        if is_metric and name.split("/")[0] in {key.split("/")[0] for key in METRICS}:
            if span not in METRICS:
                missing.append(f"metric {span}")
            continue
        if name.startswith(ELSEWHERE) and not (folder / name).exists() or " " in name or "*" in name or "<" in name:
            continue
        first = name.split("/")[0]
        in_repository = "/" in name and any((place / first).is_dir() for place in (ROOT, folder))
        is_program = FILE.fullmatch(name) and name.endswith((".py", ".sh", ".md")) and name not in NOT_OURS
        if not (in_repository or is_program):
            continue
        path = next((place / name for place in (ROOT, folder) if (place / name).exists()), None)
        if path is None and "/" not in name:
            path = next((file for file in files_below(folder) if file.name == name), None)
        if path is None:
            missing.append(f"file {span}")
        elif member and member not in names_in(path / "__init__.py" if path.is_dir() else path):
            missing.append(f"name {span}")
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page):
    path = ROOT / page
    assert faults(path.read_text(), path.parent) == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, page: Path) -> list[str]:
    """Links of a page, within the repository, to a file or heading that does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            if not path.exists() or (anchor and anchor not in anchors(path)):
                broken.append(link)
    return broken


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_of_a_page_lead_somewhere(page):
    assert broken_links((ROOT / page).read_text(), ROOT / page) == []


@pytest.mark.parametrize(
    "text,fault",
    [
        ("see `tests/common/test_nothing.py`", "file tests/common/test_nothing.py"),
        ("see `nothing.py`", "file nothing.py"),
        ("see `rloo_task.py:returns_of`", "name rloo_task.py:returns_of"),
        ("see `common/run/__init__.py:Run.record`", "name common/run/__init__.py:Run.record"),
        ("see `run/nothing.py`", "file run/nothing.py"),
        ("see `objective/reward`", "metric objective/reward"),
        ("with `--no-checkpoints`", "flag --no-checkpoints"),
    ],
)
def test_a_name_that_does_not_exist_is_seen(text, fault):
    assert faults(f"`rloo_task.py:objective` and {text}", ROOT / "common") == [fault]


def test_a_broken_link_is_seen():
    text = "[a](README.md#names) [b](README.md#nothing) [c](nothing.md) [d](https://arxiv.org)"
    assert broken_links(text, ROOT / "common/README.md") == ["README.md#nothing", "nothing.md"]


def test_the_table_of_metrics_is_that_of_the_code():
    text = (ROOT / "common/README.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z]+/[^`]+)` \| (.*) \|$", text, re.M))
    assert {key: meaning.replace(r"\|", "|") for key, meaning in documented.items()} == METRICS


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page):
    """A bar within a cell is written \\|, or it would begin another cell."""
    columns = 0
    for line in (ROOT / page).read_text().splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not bars or not columns or bars == columns, line
        columns = bars
