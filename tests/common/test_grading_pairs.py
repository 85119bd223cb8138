"""A table of gold and answer pairs: what a mathematician would say beside what the two verdicts say.

The column `right` of grading_pairs.jsonl was written, and committed, before the grader ran on it; `authors` and
`strict` are what the grader says. Where one differs from `right`, `authors_why` or `strict_why` says why.
"""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.grading import Grader
from common.grading.strict import same_answer

PAIRS = [json.loads(line) for line in Path(__file__).with_name("grading_pairs.jsonl").read_text().splitlines()]
SHARE = {"authors": 787 / 931, "strict": 931 / 931}  # of verdicts that agree with `right`, measured


def test_the_table_is_large_and_half_of_it_is_wrong_answers():
    assert len(PAIRS) == len({(p["dataset"], p["gold"], p["answer"]) for p in PAIRS}) == 931
    assert sum(not p["right"] for p in PAIRS) == 513
    assert Counter(p["dataset"] for p in PAIRS) == {"math": 534, "gsm8k": 51, "aime": 45, "hmmt": 65, "minerva": 236}


@pytest.mark.parametrize("rule", ["authors", "strict"])
def test_every_disagreement_with_a_mathematician_has_a_reason_and_there_are_no_more_than_measured(rule):
    for pair in PAIRS:
        assert (pair[rule] != pair["right"]) == bool(pair.get(f"{rule}_why")), pair
    assert sum(pair[rule] == pair["right"] for pair in PAIRS) >= SHARE[rule] * len(PAIRS)


def test_strict_takes_no_wrong_answer_for_right():
    assert not [pair for pair in PAIRS if pair["strict"] and not pair["right"]]


def check(pairs):
    golds = [SimpleNamespace(answer=pair["gold"], dataset=pair["dataset"]) for pair in pairs]
    with Grader(num_workers=2, deadline=30.0) as grader:
        verdicts = grader.grade([rf"\boxed{{{pair['answer']}}}" for pair in pairs], golds)
    for pair, verdict in zip(pairs, verdicts, strict=True):
        assert (verdict.authors, verdict.strict) == (pair["authors"], pair["strict"]), pair
    assert not any(verdict.timed_out for verdict in verdicts)


def test_the_recorded_verdicts_are_the_graders_on_a_fifth_of_the_table():
    check(PAIRS[::5])


@pytest.mark.long
def test_the_recorded_verdicts_are_the_graders():
    check(PAIRS)


@pytest.mark.parametrize("tolerance", [0.0, 1e-2])
def test_tiny_values_are_not_off_by_powers_of_ten(tolerance):
    for exponent in range(1, 60):
        gold = rf"2.5 \times 10^{{-{exponent}}}"
        assert same_answer(f"2.5e-{exponent}", gold, tolerance)
        assert same_answer(f"0.{'0' * (exponent - 1)}25", gold, tolerance)
        for off in (exponent - 1, exponent + 1, exponent + 20):
            assert not same_answer(f"2.5e-{off}", gold, tolerance)
        assert not same_answer("0", gold, tolerance) and not same_answer(f"-2.5e-{exponent}", gold, tolerance)
    for power in (40, 80, 160):
        assert same_answer(f"2^{{-{power}}}", rf"\frac{{1}}{{2^{{{power}}}}}", tolerance)
        assert not same_answer(f"2^{{-{power + 1}}}", rf"\frac{{1}}{{2^{{{power}}}}}", tolerance)
        assert not same_answer(rf"\frac{{\pi}}{{10^{{{power + 1}}}}}", rf"\frac{{\pi}}{{10^{{{power}}}}}", tolerance)
