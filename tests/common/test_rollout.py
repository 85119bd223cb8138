"""The transformers sampler: its law, its log-probs, and that a response does not depend on the batch it ran in."""

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from common import rollout
from common.rollout import Rollout, start_sampler, stop_token_ids
from common.rollout.transformers import TransformersSampler

VOCABULARY, STOP = 12, 0
LLAMA3_ROPE = dict(
    rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip
FAMILIES = {
    "qwen2": (Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen3": (Qwen3Config, dict(tie_word_embeddings=False)),
    "llama": (LlamaConfig, dict(tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)),
}


def tiny_model(folder, family="qwen2", seed=0, vocabulary=VOCABULARY, **changes):
    """Saves a random fp32 model, peaked enough that its law is far from uniform; gives it."""
    config_class, settings = FAMILIES[family]
    size = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    special = dict(eos_token_id=STOP, pad_token_id=STOP, bos_token_id=None)
    config = config_class(
        vocab_size=vocabulary, intermediate_size=96, max_position_embeddings=128, initializer_range=0.2,
        **size | special | settings | changes,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model.eval()


@torch.inference_mode()
def exact_logp(model, prompt, response, temperature=1.0):
    """Log p of each response token by one full forward pass without cache or padding."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def worst_logp_error(model, out: Rollout) -> float:
    errors = [
        (exact_logp(model, out.prompts[b // out.group_size], response) - torch.tensor(out.sampler_logp[b])).abs().max()
        for b, response in enumerate(out.responses)
    ]
    return max(map(float, errors))


def law_p_value(model, prompt, limit, responses, temperature=1.0) -> float:
    """p-value of the chi-square test of sampled responses against the exact law of those of up to `limit` tokens."""
    others = [token for token in range(model.config.vocab_size) if token != STOP]
    space = [[*y, STOP] for length in range(limit) for y in itertools.product(others, repeat=length)]
    space += [list(y) for y in itertools.product(others, repeat=limit)]
    expected = torch.stack([exact_logp(model, prompt, y, temperature).sum().exp() for y in space]) * len(responses)
    assert torch.isclose(expected.sum(), torch.tensor(float(len(responses)), dtype=torch.float64))
    place = {tuple(y): i for i, y in enumerate(space)}
    found = torch.bincount(torch.tensor([place[tuple(y)] for y in responses]), minlength=len(space)).double()
    rare = expected < 5
    if rare.any():
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        found = torch.cat([found[~rare], found[rare].sum()[None]])
    statistic = ((found - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2).double(), statistic / 2))


PROMPTS = [[5], [3, 1, 4, 1, 5, 9, 2, 6] * 7, [7, 8], [0, 0, 6], [2] * 20]  # very unequal; STOP is ordinary in a prompt


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, tiny_model(folder, request.param)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2")
    return folder, tiny_model(folder)


@pytest.fixture
def sampler(qwen2):
    return TransformersSampler(qwen2[0], 64, [STOP], device="cpu")


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_logp_is_that_of_a_full_forward_at_temperature_1(family, temperature):
    folder, model = family
    out = TransformersSampler(folder, 64, [STOP], device="cpu").generate(
        PROMPTS, 4 if temperature else 1, 64, seed=0, temperature=temperature
    )
    assert out.prompts == PROMPTS and len(out.responses) == len(PROMPTS) * out.group_size
    assert max(map(len, out.responses)) > 20 or temperature == 0
    assert worst_logp_error(model, out) < 1e-5


def test_padding_that_is_seen_would_change_logp(sampler, qwen2):
    """The wrong variant of the test above: the prompt with its padding as real tokens has other log-probs."""
    out = sampler.generate(PROMPTS, 1, 64, seed=0)
    padded = Rollout([[0] * 3 + prompt for prompt in PROMPTS], out.responses, out.sampler_logp, out.finished, 1)
    assert worst_logp_error(qwen2[1], padded) > 0.1


def test_greedy_takes_the_most_likely_token(sampler, qwen2):
    out = sampler.generate(PROMPTS, 1, 64, seed=0, temperature=0, fixed_length=True)
    for prompt, response in zip(PROMPTS, out.responses, strict=True):
        with torch.inference_mode():
            logits = qwen2[1](torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        assert response == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature, wrong", [(1.0, 1.1), (0.5, 0.55)])
def test_samples_follow_the_exact_law_and_not_that_of_another_temperature(tmp_path, temperature, wrong):
    model = tiny_model(tmp_path, vocabulary=4)
    sampler = TransformersSampler(tmp_path, 5, [STOP], device="cpu", max_batch=20_000)
    responses = sampler.generate([[1, 2]], 20_000, 5, seed=0, temperature=temperature).responses
    assert law_p_value(model, [1, 2], 3, responses, temperature) > 1e-3
    assert law_p_value(model, [1, 2], 3, responses, wrong) < 1e-6


@pytest.mark.parametrize("settings", [dict(max_batch=1), dict(max_batch=7), dict(kv_cache_memory_bytes=1)])
def test_chunks_and_compaction_change_nothing(sampler, qwen2, settings):
    whole = sampler.generate(PROMPTS, 6, 64, seed=1)
    parts = TransformersSampler(qwen2[0], 64, [STOP], device="cpu", **settings).generate(PROMPTS, 6, 64, seed=1)
    assert len(set(map(len, whole.responses))) > 5  # rows finish at many different steps
    assert whole.responses == parts.responses and whole.finished == parts.finished
    for a, b in zip(whole.sampler_logp, parts.sampler_logp, strict=True):
        assert torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-5)


def test_a_response_depends_on_its_problem_and_not_on_its_batch(sampler):
    ids = [f"problem-{i}" for i in range(len(PROMPTS))]
    together = sampler.generate(PROMPTS, 3, 64, seed=1, step=4, problem_ids=ids)
    for i in reversed(range(len(PROMPTS))):
        alone = sampler.generate([PROMPTS[i]], 2, 64, seed=1, step=4, problem_ids=[ids[i]])
        assert alone.responses == together.responses[3 * i : 3 * i + 2]


def test_seed_step_problem_and_sample_each_name_other_numbers(sampler):
    def sample(seed=0, step=0, problem="a"):
        return sampler.generate([[5, 6]], 2, 40, seed, step, problem_ids=[problem], fixed_length=True).responses

    assert sample() == sample()
    different = [*sample(), *sample(seed=1), *sample(step=1), *sample(problem="b")]
    assert len(set(map(tuple, different))) == 8


def test_equal_prompts_of_different_problems_get_different_samples(sampler):
    out = sampler.generate([[5, 6]] * 4, 2, 40, seed=0, fixed_length=True)
    assert len(set(map(tuple, out.responses))) == 8


def test_fixed_length_fills_the_window_and_runs_past_stop_tokens(sampler):
    out = sampler.generate(PROMPTS, 4, 60, seed=0, fixed_length=True)
    assert [len(r) for r in out.responses] == [60 - len(p) for p in PROMPTS for _ in range(4)]
    assert any(STOP in response[:-1] for response in out.responses)
    assert out.finished == [STOP in response for response in out.responses]
    assert not all(out.finished)


def test_every_stop_id_ends_a_response_and_the_window_counts_the_prompt(qwen2):
    stops = [STOP, 3, 11]
    out = TransformersSampler(qwen2[0], 64, stops, device="cpu").generate(PROMPTS, 40, 58, seed=0)
    assert {response[-1] for response in out.responses if response[-1] in stops} == set(stops)
    for b, response in enumerate(out.responses):
        room = 58 - len(PROMPTS[b // 40])
        assert not set(stops) & set(response[:-1])
        assert out.finished[b] == (response[-1] in stops)
        assert len(response) <= room and (out.finished[b] or len(response) == room)
    assert not all(out.finished)  # the longest prompt leaves two tokens


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])  # tied, untied
def test_push_makes_the_sampler_the_new_model(tmp_path, kind):
    old = tiny_model(tmp_path, kind)
    sampler = TransformersSampler(tmp_path, 64, [STOP], device="cpu")
    new = tiny_model(tmp_path / "new", kind, seed=1)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(new.state_dict())
    sampler.push((name, tensor) for name, tensor in new.state_dict().items())  # a generator is consumed once
    out = sampler.generate(PROMPTS, 2, 64, seed=0)
    assert worst_logp_error(new, out) < 1e-5
    assert worst_logp_error(old, out) > 0.1


def test_push_refuses_a_missing_and_a_foreign_tensor(sampler, qwen2):
    state = qwen2[1].state_dict()
    with pytest.raises(RuntimeError, match="stale: 1 tensors left out .lm_head.weight"):
        sampler.push((name, tensor) for name, tensor in state.items() if name != "lm_head.weight")
    with pytest.raises(ValueError, match="model.norm.weight"):
        sampler.push([("model.norm.weight", torch.ones(1))])  # copy_ alone would broadcast it
    with pytest.raises(ValueError, match="adapter"):
        sampler.push([("adapter", torch.ones(1))])
    sampler.push(state.items())


def test_bfloat16_log_probs_are_near(qwen2):
    out = TransformersSampler(qwen2[0], 64, [STOP], dtype="bfloat16", device="cpu").generate(PROMPTS, 2, 64, seed=0)
    assert 1e-5 < worst_logp_error(qwen2[1], out) < 0.3


class Words:
    eos_token_id = 5

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(map(str, row)) for row in rows]


def test_texts_end_before_the_first_stop_token():
    out = Rollout([[1]], [[4, 0, 6, 0], [4, 9, 6], [0]], [], [], 3)
    assert out.texts(Words(), [0, 9]) == ["4", "4", ""]
    assert out.texts(Words(), [0]) == ["4", "4 9 6", ""]


def test_out_of_vocabulary_counts_ids_the_tokenizer_lacks():
    assert Rollout([[1]], [[4, 9, 10], [11]], [], [], 2).out_of_vocabulary(10) == 2


def test_stop_ids_are_those_of_generation_config_and_tokenizer(tmp_path):
    model = tiny_model(tmp_path)
    model.generation_config.eos_token_id = [7, 3]
    model.generation_config.save_pretrained(tmp_path)
    assert stop_token_ids(tmp_path, Words()) == [3, 5, 7]
    (tmp_path / "generation_config.json").unlink()
    assert stop_token_ids(tmp_path, Words()) == [STOP, 5]
    assert stop_token_ids(tmp_path) == [STOP]


def test_bad_requests_are_named(sampler, qwen2, monkeypatch):
    with pytest.raises(ValueError, match="prompt 1 has 64 tokens"):
        sampler.generate([[5], [5] * 64], 2, 64, seed=0)
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        sampler.generate([[]], 2, 64, seed=0)
    with pytest.raises(ValueError, match="more than the 64"):
        sampler.generate([[5]], 2, 65, seed=0)
    with pytest.raises(ValueError, match="different problem_ids"):
        sampler.generate([[5], [6]], 2, 64, seed=0, problem_ids=["a", "a"])
    with pytest.raises(ValueError, match="n=1"):
        sampler.generate([[5]], 2, 64, seed=0, temperature=0)
    with pytest.raises(ValueError, match="choose auto, vllm or transformers"):
        start_sampler("tgi", qwen2[0], 64)
    with pytest.raises(ValueError, match="128 positions"):
        start_sampler("transformers", qwen2[0], 129)
    monkeypatch.setattr(rollout.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="requirements.txt"):
        start_sampler("vllm", qwen2[0], 64, stop_ids=[STOP])


def test_start_sampler_gives_the_transformers_sampler_where_asked(qwen2):
    sampler = start_sampler("transformers", qwen2[0], 64, stop_ids=[3], max_num_seqs=9, dtype="float32")
    assert isinstance(sampler, TransformersSampler)
    assert (sampler.stop_ids, sampler.max_batch, sampler.max_total_tokens) == ([3], 9, 64)
    sampler.sleep()
