"""Two processes do what one does: the same recorded responses, very unequal lengths, rloo_tilted.main, gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, sums, tiny_model
from transformers import AutoModelForCausalLM

WORKER = Path(__file__).with_name("parallel_worker.py")
STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    tiny_model(folder / "model", tied=True)
    sums(folder, 8)
    return folder


def run(folder: Path, processes: int) -> dict:
    """{"right" | "wrong": gradients and parameters} of parallel_worker.py in `processes` processes."""
    out = folder / f"{processes}.pt"
    arguments = f"""--alpha 2 --beta 0.1 --model {folder / "model"} --dataset {folder / "problems.jsonl"}
        --validation-dataset {folder / "problems.jsonl"} --prompt-file {folder / "bare.txt"} --num-problems 8
        --group-size 2 --num-steps {STEPS} --learning-rate 1e-3 --warmup-steps 1 --microbatch-tokens 200
        --max-total-tokens 80 --output-dir {folder / "runs"}""".split()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launch, str(WORKER), str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def worst(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Largest difference, relative to the largest entry of the tensor."""
    return max(((x - y).abs().max() / y.abs().max().clamp(min=1e-12)).item() for x, y in zip(a, b, strict=True))


def initial(folder: Path) -> list[torch.Tensor]:
    return [p.detach() for p in AutoModelForCausalLM.from_pretrained(folder / "model").parameters()]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_more_processes_give_the_same_gradients_and_parameters(folder, processes):
    one, many = run(folder, 1)["right"], run(folder, processes)
    assert len(one["gradients"]) == STEPS
    for step in range(STEPS):
        assert worst(many["right"]["gradients"][step], one["gradients"][step]) < 1e-5, step
    moved = max((a - b).abs().max().item() for a, b in zip(one["parameters"], initial(folder), strict=True))
    apart = max((a - b).abs().max().item() for a, b in zip(many["right"]["parameters"], one["parameters"], strict=True))
    assert moved > 1e-3 and apart < 1e-5
    # A variant that normalises by the tokens of its own rank must fail this comparison.
    assert worst(many["wrong"]["gradients"][0], one["gradients"][0]) > 1e-2
