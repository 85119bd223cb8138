"""Random numbers of different purposes, seeds, steps, processes and data sets are never shared."""

import itertools

import numpy as np
import pytest
import torch
from test_rollout import STOP, tiny_model

from common import rollout
from common.rollout import generator, problem_word, uniforms, vllm
from common.rollout.transformers import TransformersSampler

# What one experiment draws with one seed: (stream, step).
PURPOSES = [("train", step) for step in range(4)]
PURPOSES += [("validation", 0), ("evaluate math500", 0), ("evaluate aime", 0), ("power tokens", 0), ("power cuts", 0)]
SEEDS = (1, 2)  # of two runs, and of two repeats of an evaluation, which are seed and seed + 1


def all_different(draws: list) -> bool:
    return len(set(map(tuple, draws))) == len(draws)


def test_no_two_draws_share_their_numbers():
    draws = [
        uniforms(seed, step, problem_word(problem), sample, 4, stream)
        for (stream, step), seed, problem, sample in itertools.product(PURPOSES, SEEDS, "ab", (0, 1))
    ]
    assert len(draws) == len(PURPOSES) * 8
    assert len({number for draw in draws for number in draw.tolist()}) == 4 * len(draws)
    assert np.array_equal(draws[0], uniforms(1, 0, problem_word("a"), 0, 4))  # "train" is the default


def test_a_subset_and_the_first_batch_are_independent():
    """Of one seed: `default_rng(seed)` and `default_rng([seed, 0])` are the same generator."""
    subset, batch = (generator(stream, 42).permutation(1000)[:32] for stream in ("subset", "batches"))
    assert len(set(subset) & set(batch)) < 8
    assert np.array_equal(batch, generator("batches", 42).permutation(1000)[:32])


def test_the_transformers_sampler_draws_other_samples_for_each_purpose_seed_and_process(tmp_path, monkeypatch):
    tiny_model(tmp_path)
    sampler = TransformersSampler(tmp_path, 48, [STOP])
    responses = []
    for (stream, step), seed in itertools.product(PURPOSES, SEEDS):
        responses += sampler.generate(
            [[5, 6]] * 2, 2, 48, seed, step, ["a", "b"], fixed_length=True, stream=stream
        ).responses
        for process in (0, 1):  # without ids
            monkeypatch.setattr(rollout, "rank", lambda process=process: process)
            responses += sampler.generate([[5, 6]], 1, 48, seed, step, fixed_length=True, stream=stream).responses
    assert len(responses) == len(PURPOSES) * 2 * 6
    assert all_different(responses)


def test_the_vllm_sampler_seeds_each_batch_by_purpose_seed_and_process(monkeypatch):
    """The key of every batch, by an engine that only looks at its generators. The real one: test_rollout_vllm.py."""

    class Engine:
        def generate(self, prompts, params, use_tqdm):
            drawn.append((torch.randint(2**62, ()).item(), int(np.random.randint(2**62))))
            return []

    drawn: list = []
    sampler = vllm.VLLMSampler.__new__(vllm.VLLMSampler)
    sampler.llm, sampler.threads, sampler.stale, sampler.max_total_tokens = Engine(), vllm.EngineThreads(), False, 48
    sampler.stop_ids = [STOP]
    monkeypatch.setattr(sampler, "_params", lambda *_: None, raising=False)
    for (stream, step), seed, process in itertools.product(PURPOSES, SEEDS, (0, 1)):
        monkeypatch.setattr(vllm, "rank", lambda process=process: process)
        for ids in (["a", "b"], ["a", "c"]):
            sampler.generate([[5, 6]] * 2, 2, 48, seed, step, ids, stream=stream)
        state = torch.get_rng_state(), np.random.get_state()
        sampler.seed_requests(stream, seed, step)
        sampler.llm.generate([], [], False)
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])
    assert len(drawn) == len(PURPOSES) * 2 * 2 * 3
    assert all_different(drawn) and all(len(set(column)) == len(drawn) for column in zip(*drawn, strict=True))


@pytest.mark.long
def test_an_evaluation_with_vllm_ends_without_a_word(tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    from conftest import sums
    from conftest import tiny_model as characters_model

    pytest.importorskip("vllm")
    characters_model(tmp_path / "model", "qwen3", head_dim=32)
    sums(tmp_path, 2)
    words = f"""--model {tmp_path / "model"} --dataset {tmp_path / "problems.jsonl"} --sampler vllm --n 2
        --prompt-file {tmp_path / "bare.txt"} --max-total-tokens 24 --num-grading-workers 1
        --output-dir {tmp_path / "results"}"""
    quiet = {key: value for key, value in os.environ.items() if key != "VLLM_LOGGING_LEVEL"}
    root = Path(__file__).parents[2]
    program = [sys.executable, "-m", "common.evaluate", *words.split()]
    done = subprocess.run(program, cwd=root, env=quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "INFO" not in done.stderr + done.stdout
    # Two lines come from compiled code and from torch, and only on a CPU.
    left = [line for line in done.stderr.splitlines() if "NUMA" not in line and "Triton not available" not in line]
    assert left == []
