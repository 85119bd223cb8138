"""The programs draw different random numbers for different purposes, seeds, data sets and ranks, even with one seed.

That two draws with different (stream, seed, step, problem, sample) share no number is tested in test_streams.py.
"""

import itertools
import json
from types import SimpleNamespace

import pytest
from conftest import ParityGrader, tiny_model

import power_sampling
from common import evaluate, rollout
from common.data import load_problems, load_tokenizer
from common.rollout.transformers import TransformersSampler

WINDOW, STOP, SEEDS = 16, 1, (1, 2)


class Recording(TransformersSampler):
    """Notes what a vLLM engine would be seeded by; its process is added there."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seeded = []

    def generate(self, *args, step=0, problem_ids=None, stream="train", **options):
        self.seeded.append((stream, args[3], step, tuple(problem_ids)))
        return super().generate(*args, step=step, problem_ids=problem_ids, stream=stream, **options)

    def seed_requests(self, stream, seed, step=0):
        self.seeded.append((stream, seed, step))


@pytest.fixture
def draws(tmp_path, monkeypatch):
    """By purpose, seed and data set: what the generators of the transformers sampler and of vLLM are keyed by."""
    tiny_model(tmp_path / "model")
    for name in ("one", "two"):  # two data sets with the same ids
        rows = [{"id": f"p{i}", "problem": f"{i}+{i}=", "answer": str(2 * i)} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bare.txt").write_text("{problem}")
    sampler, keys, found = Recording(tmp_path / "model", WINDOW, [STOP]), [], {}
    real = rollout.generator

    def noted(stream, seed, step=0, *, word=0, sample=0):
        keys.append((stream, seed, step, word, sample))
        return real(stream, seed, step, word=word, sample=sample)

    def note(*purpose):
        found[purpose] = set(keys), set(sampler.seeded)
        keys.clear()
        sampler.seeded.clear()

    monkeypatch.setattr(rollout, "generator", noted)
    monkeypatch.setattr(power_sampling, "sample_plainly", lambda *_: {})  # which is an evaluation like any other
    problems, prompts = load_problems(str(tmp_path / "one.jsonl")), [[5], [6], [7]]
    ids = [problem.id for problem in problems]
    for seed in SEEDS:
        for step in (0, 1):
            sampler.generate(prompts, 2, WINDOW, seed, step=step, problem_ids=ids)
            note("training", seed, step)
        args = SimpleNamespace(max_total_tokens=WINDOW, seed=seed)
        tokenizer = load_tokenizer(tmp_path / "model")
        evaluate.validate(sampler, tokenizer, ParityGrader(), problems, prompts, args)
        note("validation", seed)
        for name in ("one", "two"):
            shared = dict(model=str(tmp_path / "model"), dataset=[str(tmp_path / f"{name}.jsonl")], n=2, seed=seed)
            shared |= dict(max_total_tokens=WINDOW, prompt_file=str(tmp_path / "bare.txt"))
            evaluate.main(evaluate.Args(**shared, output_dir=str(tmp_path / "e")), sampler, ParityGrader())
            note("evaluation", seed, name)
            power = power_sampling.Args(**shared, num_moves=1, output_dir=str(tmp_path / "p"))
            power_sampling.main(power, sampler, ParityGrader())
            note("power sampling", seed, name)
    return found


def test_all_pairs_of_purposes_seeds_and_data_sets_are_disjoint(draws):
    assert len(draws) == 2 * 2 + 2 + 2 * 2 * 2 and all(keys and seeded for keys, seeded in draws.values())
    for (first, a), (second, b) in itertools.combinations(draws.items(), 2):
        for sampler, x, y in zip(("transformers", "vllm"), a, b, strict=True):
            assert x.isdisjoint(y), (sampler, first, second)
    for purpose, (keys, _) in draws.items():
        per_draw = {"training": 1, "validation": 1, "evaluation": 1, "power sampling": 3}[purpose[0]]
        assert len(keys) == 3 * (1 if purpose[0] == "validation" else 2) * per_draw, purpose


def test_repeats_are_the_seeds_that_follow(tmp_path):
    """`--seed 1 --repeats 2` has the numbers of seeds 1 and 2, in files of their own."""
    tiny_model(tmp_path / "model")
    (tmp_path / "one.jsonl").write_text('{"id": "p", "problem": "1+1=", "answer": "2"}')
    (tmp_path / "bare.txt").write_text("{problem}")
    sampler = Recording(tmp_path / "model", WINDOW, [STOP])
    options = dict(model=str(tmp_path / "model"), dataset=[str(tmp_path / "one.jsonl")], repeats=2, num_moves=1, n=2)
    options |= dict(max_total_tokens=WINDOW, prompt_file=str(tmp_path / "bare.txt"), output_dir=str(tmp_path / "p"))
    power_sampling.main(power_sampling.Args(**options), sampler, ParityGrader())
    evaluations = [key[:3] for key in sampler.seeded if key[0] == "evaluate one"]
    proposals = [key[:2] for key in sampler.seeded if key[0] == "power one"]
    assert evaluations == [("evaluate one", seed, 0) for seed in (1, 2, 1, 2)]  # at T = 1 and at 1/alpha
    assert proposals == [("power one", 1), ("power one", 2)]
