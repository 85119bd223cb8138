"""Beam search through the real vLLM engine, on a CPU: equal to the transformers sampler, and to LLM.beam_search."""

import random

import pytest
import torch
from conftest import tiny_model
from test_beam_eval import PENALTIES, differing, gaps, search  # noqa: F401 (gaps is a fixture)
from transformers import AutoTokenizer

from beam_eval import Rule, beam_search
from common.rollout import start_sampler

pytest.importorskip("vllm")
if torch.cuda.is_available():
    pytest.skip("these tests are of the engine on a CPU, in float32", allow_module_level=True)
WINDOW, STOPS = 64, [1, 5]  # a window of several blocks of the prefix cache
RNG = random.Random(0)
PROMPTS = [[RNG.randrange(2, 64) for _ in range(length)] for _ in range(4) for length in (5, 12, 40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"), "qwen3", seed=5, head_dim=32)


@pytest.fixture(scope="module")
def engine(folder):
    few = dict(max_num_seqs=16, kv_cache_memory_bytes=16 << 20, max_logprobs=24)  # 4 searches of width 4 at a time
    sampler = start_sampler("vllm", folder, WINDOW, stop_ids=STOPS, **few)
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def plain(folder):
    return start_sampler("transformers", folder, WINDOW, stop_ids=STOPS)


@pytest.mark.parametrize("name", ["transformers", "vllm-0.11"])
@pytest.mark.parametrize("width", [1, 4, 8])
def test_answers_are_those_of_the_transformers_sampler(engine, plain, gaps, name, width):  # noqa: F811
    rule = Rule(name, width, frozenset(STOPS))
    found, expected = (search(sampler, rule, PROMPTS, WINDOW, PENALTIES) for sampler in (engine, plain))
    for penalty in PENALTIES:
        tokens = [answer[penalty].tokens for answer in expected]
        assert differing(found, tokens, PROMPTS, penalty, gaps) == 0
        for mine, theirs in zip(found, expected, strict=True):
            if mine[penalty].tokens == theirs[penalty].tokens:
                assert mine[penalty].logp == pytest.approx(theirs[penalty].logp, abs=1e-4)
                assert mine[penalty].finished == theirs[penalty].finished


def test_a_search_wider_than_the_engine_is_the_same(engine, plain, gaps, monkeypatch):  # noqa: F811
    rule = Rule("transformers", 24, frozenset([1]))  # beams wait while their siblings run ahead
    monkeypatch.setattr(engine.llm.llm_engine.model_config, "max_logprobs", 48)
    found, expected = (search(sampler, rule, PROMPTS[:4], WINDOW, [0.0]) for sampler in (engine, plain))
    assert differing(found, [answer[0.0].tokens for answer in expected], PROMPTS[:4], 0.0, gaps) == 0


def test_answers_are_those_of_vllm_itself_without_a_length_penalty(engine, folder, gaps, monkeypatch):  # noqa: F811
    """Its rule differs from 0.11 only in the length, which is then of no account."""
    from vllm.sampling_params import BeamSearchParams

    tokenizer = AutoTokenizer.from_pretrained(folder)
    monkeypatch.setattr(engine.llm.renderer, "get_tokenizer", lambda: tokenizer)  # ours starts without
    prompts = [prompt for prompt in PROMPTS if len(prompt) == 40]
    params = BeamSearchParams(beam_width=4, max_tokens=WINDOW - 40, length_penalty=0.0)
    theirs = engine.llm.beam_search([{"prompt_token_ids": prompt} for prompt in prompts], params)
    expected = [output.sequences[0].tokens[40:] for output in theirs]
    for name, equal in (("vllm-0.11", True), ("transformers", False)):
        found = search(engine, Rule(name, 4, frozenset([tokenizer.eos_token_id])), prompts, WINDOW, [0.0])
        assert (differing(found, expected, prompts, 0.0, gaps) == 0) == equal


def test_no_request_is_left_in_the_engine(engine):
    rule = Rule("transformers", 4, frozenset(STOPS))
    for _ in beam_search(engine, rule, PROMPTS, WINDOW, [0.0]):
        pass
    assert not engine.llm.llm_engine.has_unfinished_requests()
    interrupted = beam_search(engine, rule, PROMPTS, WINDOW, [0.0])
    next(interrupted)
    assert engine.llm.llm_engine.has_unfinished_requests()
    interrupted.close()
    assert not engine.llm.llm_engine.has_unfinished_requests()
