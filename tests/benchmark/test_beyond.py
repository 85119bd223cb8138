"""The studies of benchmark/miniature/beyond on models whose responses can be listed."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.miniature.beyond import (
    alpha_one,
    base,
    compute,
    distance,
    estimators,
    frontier,
    landscape,
    length_aware,
    mixture,
    new_skills,
    taught,
)
from benchmark.miniature.beyond.enumerated import Tree, log_softmax, power_law, total_variation
from benchmark.miniature.beyond.estimators import VARIANTS, fixed_point, one_token, three_tokens
from benchmark.miniature.beyond.section import Section
from benchmark.miniature.optima import Candidates
from benchmark.report.verdicts import Accuracy, difference
from common.rollout import Sample

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


# --- the distance to the optimum --------------------------------------------------------------------------------------


def run_of(**curves) -> SimpleNamespace:
    """A run with these logged figures, (steps, values) each."""
    return SimpleNamespace(curve=lambda key: curves[key.replace("/", "_")], args={"num_problems": 2, "group_size": 4})


def test_the_distance_is_zero_for_a_run_that_returns_log_z():
    tree, table, reward = three_tokens()
    logp, alpha, beta = tree.logp(table), 2.0, 0.5
    log_z = float(np.log(np.exp(alpha * logp + reward / beta).sum()))
    best = power_law(logp, reward, alpha, beta)
    other = np.exp(logp)
    for policy, wanted in ((best, 0.0), (other, float((other * np.log(other / best)).sum()))):
        value = float((policy * (reward - beta * (np.log(policy) - alpha * logp))).sum())
        run = run_of(objective_return=([*range(10)], [value] * 10), eval_authors=([0, 10], [0.5, 0.5]))
        steps, (kl,) = distance.distances(run, beta, log_z)
        assert steps == [10] and kl == pytest.approx(wanted, abs=1e-9)
        assert distance.distances(run, 0.4, log_z)[1][0] != pytest.approx(wanted, abs=1e-3)


def test_ascent_ends_on_one_response_which_is_the_likeliest_of_a_model_without_a_trap():
    for reached, best, probability in landscape.ends(0, width=4, scale=1.0, steps=1500):
        assert reached == best < 0 and probability > 0.99


def test_ascent_that_is_cut_short_has_not_settled():
    assert min(probability for *_, probability in landscape.ends(1, width=4, scale=0.5, steps=10)) < 0.9


# --- powers of the base -----------------------------------------------------------------------------------------------


@pytest.fixture
def listed(monkeypatch) -> Candidates:
    """One problem twice, all of whose responses are listed: base .6 .3 .1, the second one is right."""
    logp = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    columns = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 3.0, 2.0]]
    reward, guessed, length = (torch.tensor(column, dtype=torch.float64) for column in columns)
    one = Candidates(logp, torch.zeros(3, dtype=torch.float64), reward, guessed, length, enumerated=3)
    monkeypatch.setattr(base, "candidates", lambda level, temperature: [one, one])
    return one


def test_the_optimum_of_a_listed_problem_is_exact(listed):
    p, right = np.array([0.6, 0.3, 0.1]), np.array([0, 1, 0])
    for alpha, beta in ((1.0, math.inf), (2.0, math.inf), (2.0, 0.5)):
        weights = p**alpha * np.exp(right / beta)
        policy = weights / weights.sum()
        law = base.optimum("toy", alpha, beta)
        assert law.accuracy[0] == pytest.approx(100 * policy[1]) and law.log_z[0] == pytest.approx(
            np.log(weights.sum())
        )
        assert law.kl[0] == pytest.approx((policy * np.log(policy / p)).sum())
    law = base.optimum("toy", math.inf)
    assert law.accuracy[0] == 0 and law.kl[0] == pytest.approx(-math.log(0.6))


@pytest.mark.parametrize("alpha,gamma", [(0.5, 1.0), (2.0, 0.0), (2.0, 1.0), (4.0, 0.5)])
def test_at_the_length_aware_fixed_point_all_responses_have_one_return(listed, alpha, gamma):
    weights = length_aware.fixed_point(listed, alpha, gamma)
    returns = (alpha * listed.logp - weights.log()) / listed.length**gamma
    assert float(weights.sum()) == pytest.approx(1) and float(returns.std()) == pytest.approx(0, abs=1e-9)
    power = (alpha * listed.logp).softmax(0)
    assert bool(torch.allclose(weights, power)) == (gamma == 0)  # pi_base^alpha is another law if length counts


# --- matched distance and compute -------------------------------------------------------------------------------------


def test_no_policy_beats_the_frontier_at_its_distance():
    rng = np.random.default_rng(3)
    p = np.array([0.1, 0.5, 0.8])  # three problems of two responses each, one of them right
    for _ in range(40):
        a = rng.uniform(0.01, 0.99, 3)
        kl = float((a * np.log(a / p) + (1 - a) * np.log((1 - a) / (1 - p))).mean())
        assert 100 * a.mean() <= frontier.frontier_at(p, kl) + 0.05
    at_one = frontier.frontier(p, 1.0)
    powered = p**2 / (p**2 + (1 - p) ** 2)  # pi_base^2 goes somewhere and is no frontier
    kl = float(frontier.coin_kl(powered, p).mean())
    assert 100 * powered.mean() < frontier.frontier_at(p, kl) - 1
    assert at_one[0] > 0 and frontier.frontier(p, 0.0) == (0.0, pytest.approx(100 * p.mean()))


def test_best_of_n_is_the_law_of_the_first_right_one():
    p = np.array([0.3])
    right = 1 - 0.7**4
    by_hand = right * math.log(right / 0.3) + (1 - right) * math.log((1 - right) / 0.7)
    assert frontier.best_of(p, 4) == (pytest.approx(by_hand), pytest.approx(100 * right))
    assert by_hand < math.log(4) - 3 / 4  # the bound that is known for any reward
    assert frontier.coin_kl(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx([math.log(2)] * 2)


def test_a_path_has_the_distance_of_the_five_steps_before_a_checkpoint():
    curves = {"objective_kl_base": ([*range(10)], [float(i) for i in range(10)])}
    curves |= {"eval_authors": ([0, 10], [0.5, 0.75]), "eval_authors_se": ([0, 10], [0.1, 0.1])}
    assert frontier.path_of(run_of(**curves)) == [(0.0, 50.0, 10.0), (7.0, 75.0, 10.0)]


def test_training_is_spread_over_the_questions_and_the_front_leaves_out_what_is_beaten():
    run = run_of(policy_response_length=([0, 1], [10.0, 20.0]))
    assert compute.training_tokens(run) == 5 * 8 * 30
    rows = [
        {"method": "cheap", "kind": "sampling", "accuracy": 50.0, "answer": 10.0, "training": 0.0},
        {"method": "beaten", "kind": "vote", "accuracy": 50.0, "answer": 20.0, "training": 0.0},
        {"method": "verified", "kind": compute.VERIFIED, "accuracy": 99.0, "answer": 15.0, "training": 0.0},
        {"method": "trained", "kind": "training", "accuracy": 90.0, "answer": 10.0, "training": 1000.0},
        {"method": "dear", "kind": "power", "accuracy": 80.0, "answer": 100.0, "training": 0.0},
    ]
    assert compute.front(rows, 1) == ["cheap", "dear", "trained"]
    assert compute.front(rows, 10**6) == ["cheap", "trained"]


# --- taught or sharpened, mixtures ------------------------------------------------------------------------------------


def test_the_split_adds_up_to_the_gain():
    plain, best, run = (Accuracy({"a": a, "b": b}) for a, b in ((20.0, 40.0), (50.0, 60.0), (90.0, 95.0)))
    gain, sharpened, rest = difference(run, plain), difference(best, plain), difference(run, best)
    assert gain[0] == sharpened[0] + rest[0] and taught.word(gain, rest) == "teaches"
    assert taught.word(gain, (1.0, 0.1)) == "sharpens" and taught.word((1.0, 0.1), (-30.0, 1.0)) == "neither"


def test_log_p_right_tells_apart_what_pass_at_k_does_not():
    files = [SimpleNamespace(n=256, right={"authors": [right] * 3}) for right in (128, 250)]
    low, high = (taught.log_p_right(file)[0] for file in files)
    assert low == pytest.approx(math.log(0.5)) and high == pytest.approx(math.log(250.5 / 257))


def test_the_mixture_has_both_levels_in_turn_and_validates_on_others(tmp_path):
    mixture.write(tmp_path)
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"mixed_{name}.jsonl").open()]
        for name in ("train", "validation")
    }
    assert [len(part) for part in rows.values()] == [4096, 200]
    for part in rows.values():
        assert [row["id"].split("-")[0] for row in part[:4]] == ["toy", "toy_hard"] * 2
    assert not {row["problem"] for row in rows["train"]} & {row["problem"] for row in rows["validation"]}
    assert [mixture.word(found) for found in ((3.0, 1.0), (-3.0, 1.0), (3.0, 2.0))] == ["helps", "hurts", "neither"]


@pytest.mark.parametrize(
    "response,worked",
    [
        ("8a-7=1\nso 1b*7=7\nthen 7c-2=5\n\\boxed{5}", True),
        ("8a-7=1\n1b*7=7\n\\boxed{7}", False),  # stops after two operations
        ("8a-7=2\n2b*7=4\n4c-2=2\n\\boxed{5}", False),  # a slip, then the right box
        ("8a-7=1\n1b*7=7\n7c-2=5\n\\boxed{4}", False),
        ("\\boxed{5}", False),  # a guess that is right
    ],
)
def test_a_response_is_worked_if_every_line_and_the_box_are_right(response, worked):
    assert new_skills.is_worked("8a-7b*7c-2?", response) is worked


def test_a_skill_is_taught_only_where_more_samples_of_the_base_do_not_have_it():
    assert new_skills.word((60.0, 2.0), (1.0, 0.5), 20.0) == "taught"
    assert new_skills.word((60.0, 2.0), (10.0, 0.5), 95.0) == "likelier"
    assert new_skills.word((3.0, 2.0), (1.0, 0.5), 20.0) == "no change"
    assert new_skills.share([0, 256], 1) == (50.0, pytest.approx(50.0)) and new_skills.share([1, 1], 256)[0] == 100


def test_the_problems_of_the_skills_are_long_and_disjoint(tmp_path):
    new_skills.write(tmp_path)
    parts = {
        name: [json.loads(line) for line in (tmp_path / f"skills_{name}.jsonl").open()] for name in ("train", "test")
    }
    assert {row["level"] for row in parts["train"]} == {4, 5, 6} and len(parts["test"]) == 60
    assert not {row["problem"] for row in parts["train"]} & {row["problem"] for row in parts["test"]}


# --- the anomaly at alpha 1 -------------------------------------------------------------------------------------------


def test_each_defect_changes_the_acceptance_as_it_says():
    y = Sample(tokens=[1, 2, 3], logp=[-1.0, -2.0, -3.0], log_z=[-0.1, -0.2, -0.3])
    z = Sample(tokens=[1, 5], logp=[-1.0, -0.5], log_z=[-0.1, -0.7])
    exact = -0.7 - (-0.2 - 0.3) + math.log(3 / 2)
    wanted = {"": exact, "overlap": exact - 0.3, "no lengths": exact - math.log(3 / 2)}
    wanted["inverted"] = 2 * 2 * (-0.5 + 5.0) + 0.2 + math.log(3 / 2)
    for defect, value in wanted.items():
        assert alpha_one.log_acceptance(y, z, 1, 2.0, defect) == pytest.approx(value), defect


def test_a_section_shows_its_rules_its_table_and_where_its_numbers_are(tmp_path):
    section = Section("estimators", "7. A title", estimators.__doc__)
    section.say("A sentence.")
    section.table(["a", "b"], [["1", "2"]])
    section.write(tmp_path, {"rows": [1]})
    text = (tmp_path / "estimators.md").read_text()
    assert text.startswith("## 7. A title\n\nA sentence.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    assert "Rules, written before the first run. A variant is RIGHT" in text
    assert json.loads((tmp_path / "estimators.json").read_text())["rows"] == [1]
