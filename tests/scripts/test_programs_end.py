"""How programs end: what they started is closed in order; a refusal is one line and exit code 2."""

import runpy
import sys

import pytest
import torch.distributed as dist
from conftest import ROOT, ParityGrader, sums, tiny_model

from common import grading, rollout
from common.rollout.transformers import TransformersSampler

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # runpy's: other tests have imported it
PROGRAMS = {"evaluate": "common.evaluate", "power": ROOT / "power_sampling.py", "beam": ROOT / "beam_eval.py"}


def run(program: str, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    target = PROGRAMS[program]
    if isinstance(target, str):
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(target), run_name="__main__")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_engine_is_closed_before_the_process_group_ends(program, tmp_path, monkeypatch, capsys):
    tiny_model(tmp_path / "model")
    sums(tmp_path, 2)
    seen = []

    class Sampler(TransformersSampler):
        def close(self):
            seen.append(("sampler", dist.is_initialized()))

    class Grader(ParityGrader):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.append(("grader", dist.is_initialized()))

    monkeypatch.setattr(grading, "Grader", Grader)
    monkeypatch.setattr(rollout, "start_sampler", lambda kind, model, window, **_: Sampler(model, window, [1]))
    words = f"--model {tmp_path / 'model'} --dataset {tmp_path / 'problems.jsonl'} --output-dir {tmp_path / 'out'}"
    words += f" --prompt-file {tmp_path / 'bare.txt'} --max-total-tokens 12"
    words += {"evaluate": " --n 2", "power": " --n 2 --num-moves 1", "beam": ""}[program]
    run(program, monkeypatch, *words.split())
    assert seen == [("sampler", True), ("grader", True)] and not dist.is_initialized()
    assert "2/2 problems" in capsys.readouterr().out or program == "power"
    assert (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_refusal_is_one_line_and_exit_code_2(program, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(
            program,
            monkeypatch,
            "--model",
            "toy",
            "--max-total-tokens",
            "64",
            "--dataset",
            str(tmp_path / "none.jsonl"),
        )
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and said.startswith("error: cannot read") and "\n" not in said
