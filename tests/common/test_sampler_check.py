"""The console warns if tokens were not drawn from the policy, and only then."""

import math

import pytest
import torch
from test_rollout import PROMPTS, STOP, tiny_model
from torch import nn

from common.rollout import transformers as sampling
from common.rollout.transformers import TransformersSampler
from common.run import start_processes
from common.run.metrics import SAMPLER_CHECK, Metrics, sampler_check, standard_errors

EXACT = sampling.inverse_cdf


def top_p(share):
    """The sampler's choice of a token, restricted to the likeliest tokens that together have this probability."""

    def restricted(logits, temperature, numbers):
        p, order = (logits / temperature).softmax(-1).sort(descending=True)
        dropped = (p.cumsum(-1) - p >= share).gather(1, order.argsort(-1))
        return EXACT(logits.masked_fill(dropped, float("-inf")), temperature, numbers)

    return restricted


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model(folder, vocabulary=12)
    start_processes(0)
    return TransformersSampler(folder, 64, [STOP]), model


@torch.no_grad()
def step_of(sampler, model, seed=0, **settings) -> tuple[Metrics, dict[str, float]]:
    """The figures of a step whose tokens the sampler drew: as training does it, response by response."""
    rollout = sampler.generate(PROMPTS, 40, 64, seed, **settings)
    metrics = Metrics(7)
    metrics.rollout(rollout, 12)
    for b, response in enumerate(rollout.responses):
        prompt = rollout.prompts[b // rollout.group_size]
        logp = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        token_logp = logp.gather(1, torch.tensor(response)[:, None])[:, 0]
        metrics.tokens(token_logp, -(logp.exp() * logp).sum(-1), torch.tensor(rollout.sampler_logp[b]))
    return metrics, {key: float(metrics.sums[key]) for key in SAMPLER_CHECK}


def test_tokens_of_the_policy_pass(tiny, capsys):
    for seed in range(3):
        metrics, sums = step_of(*tiny, seed=seed)
        assert abs(standard_errors(sums)) < 3
        figures = metrics.reduce(nn.Linear(1, 1))
        assert not set(SAMPLER_CHECK) & set(figures)
        assert capsys.readouterr().out == ""


def test_truncated_sampling_is_seen(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sampling, "inverse_cdf", top_p(0.8))
    metrics, sums = step_of(*tiny)
    assert standard_errors(sums) < -6
    figures = metrics.reduce(nn.Linear(1, 1))
    assert figures["sampling/logp_difference_mean"] < 1e-4  # which this figure does not show
    warning = capsys.readouterr().out
    assert warning.startswith("warning: step 7: policy/nll and policy/entropy differ by -") and "top-p" in warning
    monkeypatch.setattr(sampling, "inverse_cdf", top_p(1.0))  # the restriction alone changes nothing
    assert abs(standard_errors(step_of(*tiny)[1])) < 3


@pytest.mark.parametrize("temperature, sign", [(0.8, -1), (1.25, 1)])
def test_another_temperature_is_seen(tiny, temperature, sign):
    assert sign * standard_errors(step_of(*tiny, temperature=temperature)[1]) > 4


@pytest.mark.parametrize(
    "vocabulary, scale, tokens", [(50, 1.0, 2000), (50, 3.0, 2000), (5, 5.0, 500), (1000, 2.0, 4000)]
)
def test_the_error_is_that_of_many_repetitions(vocabulary, scale, tokens):
    """Over 400 steps with tokens from known distributions it has mean 0 and a standard deviation near 1 at most."""
    generator = torch.Generator().manual_seed(0)
    logp = (scale * torch.randn(tokens, vocabulary, generator=generator)).log_softmax(-1)
    drawn = torch.multinomial(logp.exp(), 400, replacement=True, generator=generator)  # (tokens, 400)
    h = -(logp.exp() * logp).sum(-1)
    found = torch.tensor([standard_errors(sampler_check(logp.gather(1, y[:, None])[:, 0], h)) for y in drawn.T])
    assert abs(float(found.mean())) < 4 / math.sqrt(400)
    assert 0.5 < float(found.std()) < 1.1
    assert float(found.abs().max()) < 4


def test_a_policy_that_is_nearly_certain_raises_no_alarm():
    """Surprises of probability 0.001: a third of the steps of 1,000 tokens has none, so that d^2 says nothing."""
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.999, 0.001], dtype=torch.float64)
    h = float(-(p * p.log()).sum())
    rare = torch.rand(1000, 1000, generator=generator) < 0.001  # (steps, tokens)
    token_logp = torch.where(rare, p[1].log(), p[0].log())
    sums = [sampler_check(row, torch.full_like(row, h)) for row in token_logp]
    assert max(abs(standard_errors(s)) for s in sums) < 4
    naive = [float(s["check/surprise"] / s["check/variance"].sqrt()) for s in sums]
    assert sum(abs(z) > 4 for z in naive) > 300  # the wrong variant
    assert standard_errors(sampler_check(torch.zeros(5), torch.zeros(5))) == 0.0
