"""Pass@k, Maj@k and standard errors: exact values by enumeration, and wrong variants that must fail."""

from itertools import combinations, product
from math import comb, sqrt

import numpy as np
import pytest

from common import grading
from common.grading import maj_at_k, maj_strings, mean_and_se, pass_at_k, subsets


def pass_by_enumeration(n, c, k):
    picks = list(combinations([True] * c + [False] * (n - c), k))
    return sum(any(p) for p in picks) / len(picks)


def test_pass_at_k_equals_enumeration():
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(pass_by_enumeration(n, c, k), abs=1e-12)


def test_wrong_pass_at_k_variants_differ():
    with_replacement = 1 - (1 - 3 / 8) ** 4
    exact = pass_by_enumeration(8, 3, 4)
    assert pass_at_k(8, 3, 4) == pytest.approx(exact)
    assert abs(with_replacement - exact) > 0.05
    assert abs((1 - comb(8 - 3, 3) / comb(8, 3)) - exact) > 0.05  # k off by one


def test_pass_at_1_is_the_share_right_and_pass_at_n_says_whether_any_is():
    assert pass_at_k(16, 5, 1) == pytest.approx(5 / 16)
    assert [pass_at_k(16, c, 16) for c in (0, 1, 16)] == [0.0, 1.0, 1.0]
    assert pass_at_k(256, 1, 128) == pytest.approx(0.5)  # no overflow, no loss


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


def maj_by_enumeration(right, classes, k):
    total = 0.0
    for picked in combinations(range(len(right)), k):
        votes = {}
        for i in picked:
            label = "right" if right[i] else classes[i]
            if label is not None:
                votes[label] = votes.get(label, 0) + 1
        leaders = [label for label, count in votes.items() if count == max(votes.values())]
        total += ("right" in leaders) / max(len(leaders), 1)
    return total / comb(len(right), k)


CASES = [
    ([True, True, False, False], [0, 0, 1, 2]),
    ([True, True, False, False], [0, 1, 2, 2]),  # right ones of two classes are one
    ([True, False, False, False, False], [0, None, None, None, None]),  # no answer never wins
    ([False, False, False], [None, None, None]),
    ([False, False, True, True, False, True, False, False], [0, 0, 1, 1, 2, 3, None, 2]),
    ([True] * 5, [0, None, 1, 2, 3]),
    ([False] * 4, [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("right", "classes"), CASES)
def test_maj_at_k_equals_enumeration(right, classes):
    for k in range(1, len(right) + 1):
        assert maj_at_k(right, classes, k) == pytest.approx(maj_by_enumeration(right, classes, k), abs=1e-12)


def test_maj_at_k_known_values():
    assert maj_at_k(*CASES[0], 4) == 1.0
    assert maj_at_k(*CASES[1], 4) == 0.5  # two against two; two classes of right ones would lose with 1/3
    assert maj_at_k(*CASES[2], 5) == 1.0  # if no answer voted, it would win with four of five
    assert maj_at_k(*CASES[3], 3) == 0.0
    assert maj_at_k([True, False, False, False], [0, 1, 2, 3], 4) == 0.25  # tie in expectation, not by order
    assert maj_at_k([False, False, False, True], [1, 2, 3, 0], 4) == 0.25
    assert maj_at_k([True, False], [0, 1], 1) == 0.5  # Maj@1 is Pass@1


def test_maj_at_k_by_random_subsets_is_near_enumeration_and_repeatable():
    right, classes = [True] * 5 + [False] * 9, [0] * 5 + [1] * 4 + [2] * 3 + [None, 3]
    assert comb(14, 7) > grading.MAJORITY_SUBSETS
    exact = maj_by_enumeration(right, classes, 7)
    value = maj_at_k(right, classes, 7)
    assert 0.1 < exact < 0.9
    assert abs(value - exact) < 4 * sqrt(exact * (1 - exact) / grading.MAJORITY_SUBSETS)
    assert value == maj_at_k(right, classes, 7)


def test_subsets_are_without_repetition_and_all_equally_likely():
    assert subsets(5, 5).tolist() == [[0, 1, 2, 3, 4]]
    assert len(subsets(5, 2)) == 10
    drawn = subsets(30, 10)
    assert drawn.shape == (1000, 10)
    assert all(len(set(row)) == 10 for row in drawn.tolist())
    counts = np.bincount(drawn.ravel(), minlength=30)
    assert abs(counts - 1000 / 3).max() < 5 * sqrt(1000 * (1 / 3) * (2 / 3))


def test_maj_strings_is_the_authors_vote():
    # of equal counts the first seen wins; right if the first response with the winning string is
    assert maj_strings([True, False], ["7", "8"], 2) == 1.0
    assert maj_strings([False, True], ["8", "7"], 2) == 0.0
    assert maj_strings([True, True, False, False, False], ["7", "7", "1", "1", "1"], 5) == 0.0  # wrong ones pool
    assert maj_strings([True, False, False], ["7", None, None], 3) == 0.0  # no answer votes
    assert maj_strings([True, False, False], ["7", "1", None], 3) == 1.0
    assert maj_strings([True, True, True], ["1/2", "2", "0"], 3) == 1.0
    assert maj_strings([True, False], ["7", "8"], 1) == 0.5


def test_the_two_votes_differ_where_their_definitions_do():
    right, classes, votes = [True, True, False, False], [0, 0, 1, 2], ["1/2", "0", "1", "1"]
    assert maj_at_k(right, classes, 4) == 1.0
    assert maj_strings(right, votes, 4) == 0.0


def test_scoring_an_unreadable_response_twice_would_inflate_pass_at_k():
    """Some versions of NeMo RL do so, and groups of n shift; test_evaluate holds that ours do not."""
    right = [[True, None, None, True], [False, False, False, False]]  # None: unreadable
    assert np.mean([pass_at_k(4, sum(r is True for r in row), 4) for row in right]) == 0.5
    doubled = [score for row in right for r in row for score in ([False, False] if r is None else [r])]
    groups = [doubled[i : i + 4] for i in range(0, len(doubled), 4)]
    assert sum(any(group) for group in groups) / len(right) == 1.0


def test_standard_error_is_that_of_the_mean_over_problems():
    """Its square is unbiased: averaged over all samples of two equally likely values, it is exact."""
    rng = np.random.default_rng(1)
    values = rng.random(40) ** 2
    mean, se = mean_and_se(values)
    resampled = values[rng.integers(40, size=(20_000, 40))].mean(1)
    assert mean == pytest.approx(values.mean())
    assert se == pytest.approx(resampled.std() * sqrt(40 / 39), rel=0.03)
    assert mean_and_se([0.5, 0.5, 0.5])[1] == 0.0

    for count in (2, 3, 5):
        samples = np.array(list(product([0.0, 1.0], repeat=count)))  # all equally likely: variance of a value 1/4
        squares = [mean_and_se(sample)[1] ** 2 for sample in samples]
        assert np.mean(squares) == pytest.approx(0.25 / count)


def test_the_standard_error_of_one_problem_is_unknown():
    for one in (mean_and_se([0.25]), mean_and_se([0.0, 0.5], ["a", "a"])):
        assert one[0] == 0.25 and np.isnan(one[1])


def test_repeats_of_a_problem_are_one_draw():
    values, ids = [0.0, 1.0, 0.5, 0.25], ["a", "b", "c", "d"]
    once = mean_and_se(values, ids)
    thrice = mean_and_se(values * 3, ids * 3)
    assert thrice == pytest.approx(once)
    assert mean_and_se(values * 3)[1] < 0.6 * once[1]  # rows as if independent: too small
    assert mean_and_se([0, 1, 1, 1], ["a", "a", "b", "b"]) == pytest.approx((0.75, 0.25))


def test_no_problems_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        mean_and_se([])
