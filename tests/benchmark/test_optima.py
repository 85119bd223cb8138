"""The exact optima of the miniature: weights against enumeration, and the base as its own optimum at alpha 1."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmark.miniature.optima import optimum_candidates, optimum_weights, response_logp, true_optimum
from common.toy import response_kind, toy_problems

# Four responses of one problem, of which the first is enumerated and the others are met by sampling.
LOGP = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
REWARD = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)


def exact_optimum(alpha: float, beta: float) -> torch.Tensor:
    mass = LOGP.exp() ** alpha * (REWARD / beta).exp()
    return mass / mass.sum()


def sampled_optimum(alpha: float, beta: float, forget_proposal: bool = False) -> torch.Tensor:
    proposal = torch.tensor([0.25, 0.15, 0.2, 0.4], dtype=torch.float64)
    drawn = torch.multinomial(proposal, 100_000, replacement=True, generator=torch.Generator().manual_seed(0))
    kept = drawn[drawn != 0]  # the enumerated response is counted once, exactly
    log_proposal = (0.0 if forget_proposal else proposal[kept].log()) + math.log(len(drawn))
    rows = torch.cat([torch.zeros(1, dtype=torch.long), kept])
    log_proposal = torch.cat([torch.zeros(1), torch.zeros(len(kept)) + log_proposal])
    weights = optimum_weights(LOGP[rows], log_proposal, REWARD[rows], alpha, beta)
    return torch.zeros(4, dtype=torch.float64).index_add(0, rows, weights)


@pytest.mark.parametrize("alpha,beta", [(1.0, math.inf), (2.0, math.inf), (0.5, math.inf), (2.0, 0.5), (1.25, 0.1)])
def test_optimum_weights_equal_enumeration(alpha, beta):
    exact = exact_optimum(alpha, beta)
    torch.testing.assert_close(optimum_weights(LOGP, torch.zeros(4), REWARD, alpha, beta), exact)
    assert (sampled_optimum(alpha, beta) - exact).abs().max() < 0.01
    assert (sampled_optimum(alpha, beta, forget_proposal=True) - exact).abs().max() > 0.03


def test_optimum_weights_of_sharpening_and_of_the_task_reward():
    zeros = torch.zeros(4)
    assert optimum_weights(LOGP, zeros, REWARD, math.inf, math.inf).tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(
        optimum_weights(LOGP, zeros, REWARD, 1.0, 0.0), torch.tensor([0, 0.75, 0, 0.25], dtype=torch.float64)
    )


def test_true_optimum_at_alpha_one_is_the_base_itself(toy_dir):
    """At alpha 1 without reward, sampled at temperature 1, all weights are equal: the figures are the sample's."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(toy_dir).eval(), AutoTokenizer.from_pretrained(toy_dir)
    problems, group = toy_problems("toy", "test")[:8], 64
    torch.manual_seed(0)
    responses = []
    for _, problem, _, _ in problems:
        prompt = torch.tensor([tokenizer.encode(problem)])
        rows = model.generate(prompt, do_sample=True, top_k=0, num_return_sequences=group, max_new_tokens=50)
        responses += [row[: row.index(1) + 1] if 1 in row else row for row in rows[:, prompt.shape[1] :].tolist()]
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    right = [text.endswith(f"\\boxed{{{problems[i // group][2]}}}") for i, text in enumerate(texts)]
    guess = sum(response_kind(text) == "guess" for text in texts) / len(texts)
    length = sum(map(len, responses)) / len(responses)

    for enumerate_guesses, tolerance in ((False, 1e-9), (True, 0.04)):
        candidates = optimum_candidates(model, tokenizer, problems, responses, 1.0, enumerate_guesses)
        base = true_optimum(candidates, 1.0)
        assert abs(base.accuracy - sum(right) / len(right)) <= tolerance
        assert abs(base.guess_share - guess) <= tolerance
        assert abs(base.length - length) <= 50 * tolerance
        assert base.effective_samples > 0.8 * group
    boxes = tokenizer([f"\\boxed{{{digit}}}<eos>" for digit in range(10)])["input_ids"]
    prompts = [tokenizer.encode(problem) for _, problem, _, _ in problems for _ in boxes]
    exact_share = response_logp(model, prompts, boxes * len(problems)).exp().sum() / len(problems)
    assert abs(base.guess_share - exact_share) < 0.02
    assert true_optimum(candidates, 1.0, beta=0.0).accuracy == pytest.approx(1.0)
    assert true_optimum(candidates, math.inf).logp_base > base.logp_base + 1
