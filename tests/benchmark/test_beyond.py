"""The studies of benchmark/miniature/beyond on models whose responses can be listed."""

import math

import numpy as np
import pytest

from benchmark.miniature.beyond import estimators
from benchmark.miniature.beyond.enumerated import Tree, log_softmax, power_law, total_variation
from benchmark.miniature.beyond.estimators import VARIANTS, fixed_point, one_token, three_tokens

# --- enumerated models ------------------------------------------------------------------------------------------------


def test_a_tree_lists_every_response_once_and_their_probabilities_add_up_to_one():
    tree = Tree(3, 3)
    assert len(tree.responses) == len(set(tree.responses)) == 1 + 2 + 4 + 8
    logits = np.random.default_rng(1).normal(size=(tree.num_contexts, 3))
    assert np.exp(tree.logp(logits)).sum() == pytest.approx(1)
    y = tree.responses.index((1, 2, 0))  # by hand: the context of its first token is the empty one
    by_hand = log_softmax(logits)[0, 1] + tree.token_logp(logits)[y, 1:].sum()
    assert tree.logp(logits)[y] == pytest.approx(by_hand)


def test_the_natural_direction_is_the_gradient_divided_by_the_probability_of_the_choice():
    tree = Tree(3, 2)
    rng = np.random.default_rng(2)
    logits, weights = rng.normal(size=(tree.num_contexts, 3)), rng.normal(size=tree.real.shape)

    def surrogate(logits, probability):
        return (probability * (weights * tree.token_logp(logits)).sum(1)).sum()

    probability, step = np.exp(tree.logp(logits)), 1e-5
    gradient = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        moved = logits.copy()
        moved[place] += step
        gradient[place] = (surrogate(moved, probability) - surrogate(logits, probability)) / step
    occupied = tree.sum_by_choice(np.broadcast_to(probability[:, None], weights.shape))
    np.testing.assert_allclose(tree.advantages(logits, weights) * occupied, gradient, atol=1e-4)


def test_the_power_law_is_the_best_policy_and_its_neighbours_are_worse():
    tree, base, reward = three_tokens()
    logp, alpha, beta = tree.logp(base), 2.0, 0.5

    def objective(policy):
        return (policy * (reward - beta * (np.log(policy) - alpha * logp))).sum()

    best = power_law(logp, reward, alpha, beta)
    log_z = np.log(np.exp(alpha * logp + reward / beta).sum())
    assert objective(best) == pytest.approx(beta * log_z)  # so KL(pi || pi*) = log Z - E[R] / beta
    for other in (power_law(logp, reward, alpha, 0.6), power_law(logp, reward, 1.9, beta), np.exp(logp)):
        assert objective(other) < objective(best) - 1e-4
    assert total_variation(best, best) == 0 and total_variation(np.eye(2)[0], np.eye(2)[1]) == 1


# --- estimators -------------------------------------------------------------------------------------------------------


def test_k3_in_the_return_gives_up_the_likeliest_answer():
    tree, base, reward = one_token()
    policy, speed = fixed_point(tree, base, reward, 1.0, 1.0, ("k3", "return", "response"))
    np.testing.assert_allclose(policy, [0, 2 / 3, 1 / 3], atol=1e-3)
    assert speed < estimators.SMALLEST
    policy, _ = fixed_point(tree, base, reward, 1.0, 1.0, ("k1", "return", "response"))
    np.testing.assert_allclose(policy, [0.679, 0.214, 0.107], atol=5e-4)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_only_the_gradient_of_the_kl_ends_at_the_optimum(alpha):
    tree, base, reward = three_tokens()
    optimum = power_law(tree.logp(base), reward, alpha, 0.5)
    ends = {v: total_variation(fixed_point(tree, base, reward, alpha, 0.5, v)[0], optimum) for v in VARIANTS}
    right = {variant for variant, distance in ends.items() if distance < estimators.RIGHT}
    assert right == {("k1", "return", "response"), ("k1", "return", "token"), ("k2", "loss", "response")}
    assert min(distance for variant, distance in ends.items() if variant not in right) > 0.03


def test_k1_in_the_loss_leaves_the_reward_alone():
    tree, base, reward = three_tokens()
    policy, _ = fixed_point(tree, base, reward, 1.0, 0.5, ("k1", "loss", "token"))
    assert policy[reward == 1].sum() > 1 - 1e-4


def test_of_single_tokens_the_extent_makes_no_difference():
    tree, base, reward = one_token()
    for estimator in ("k1", "k2", "k3"):
        for place in ("return", "loss"):
            ends = [
                fixed_point(tree, base, reward, 2.0, 1.0, (estimator, place, extent))[0]
                for extent in ("response", "token")
            ]
            np.testing.assert_allclose(*ends, atol=1e-9)
    assert estimators.verdict(0.0005) == "right" and estimators.verdict(0.01) == "close"
    assert estimators.verdict(math.inf) == "wrong"
