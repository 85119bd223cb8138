"""The training loop with real vLLM in the same process: weights arrive after every step, adapters merged."""

import json

import pytest
from conftest import tiny_model

import rloo_tilted
from common.run import parse

pytest.importorskip("vllm")


@pytest.mark.parametrize("extra", [[], ["--lora-rank", "2"]])
def test_the_engine_samples_from_the_weights_of_the_step(tmp_path, extra):
    tiny_model(tmp_path / "model", "qwen3", head_dim=32)  # vLLM on a CPU has no smaller heads
    lines = "".join(json.dumps({"problem": f"{i}+{i}=", "answer": str(2 * i)}) + "\n" for i in range(6))
    (tmp_path / "problems.jsonl").write_text(lines)
    (tmp_path / "bare.txt").write_text("{problem}")
    words = f"""--alpha 2 --beta 0.1 --model {tmp_path / "model"} --dataset {tmp_path / "problems.jsonl"}
        --validation-dataset {tmp_path / "problems.jsonl"} --prompt-file {tmp_path / "bare.txt"} --sampler vllm
        --num-problems 3 --group-size 4 --num-steps 3 --eval-every 3 --max-total-tokens 24 --learning-rate 1e-2
        --warmup-steps 0 --output-dir {tmp_path / "runs"} --num-grading-workers 1"""
    rloo_tilted.main(parse(rloo_tilted.Args, words.split() + extra))
    run = next((tmp_path / "runs").iterdir())
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][:-1]
    assert len(steps) == 3
    assert steps[-1]["objective/kl_base"] > 0.01  # the policy has moved, far beyond the difference of two programs
    for line in steps:
        assert line["sampling/logp_difference_mean"] < 1e-4
