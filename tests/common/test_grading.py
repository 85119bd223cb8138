"""Extraction, the two verdicts, and the worker processes."""

import gzip
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, SHARED_DATA

from common import grading
from common.grading import Grader, last_box, worker
from common.grading.strict import same_answer
from common.grading.worker import arithmetic_only


@dataclass
class Gold:
    answer: str
    dataset: str = "math500"


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=1, deadline=5.0) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{7}", "7"),
        (r"\boxed{\frac{1}{2}} in all", r"\frac{1}{2}"),
        (r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed 5", "5"),
        (r"\boxed 42.", "42."),
        (r"$\boxed 5$", "5"),
        (r"\boxed \frac{1}{2}", r"\frac{1}{2}"),
        (r"\fbox{9}", "9"),
        (r"\fbox{1} \boxed{2}", "2"),
        (r"\boxed {3}", "3"),
        (r"\\boxed{3}", "3"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{\text{a } \fbox{4}}", "4"),
        (r"} } \boxed{5}", "5"),
        (r"{ { \boxed{5}", "5"),
        (r"\boxed{5} then \boxed{6", "5"),
        (r"\boxed{5 \} and \boxed{6", None),
        (r"\boxed{5", None),
        ("boxed{5}", None),
        (r"\boxedx{5}", None),
        ("no box: 5", None),
        ("", None),
        (r"\boxed{}", ""),
        ("\\boxed{1\n2}", "1\n2"),
    ],
)
def test_last_box(text, box):
    assert last_box(text) == box


def test_last_box_takes_linear_time_on_nested_and_unclosed_boxes():
    opened = r"\boxed{" * 100_000  # in quadratic time: minutes
    assert last_box(opened) is None
    assert last_box(opened + "}" * 100_000) == ""
    assert last_box("{" * 100_000 + r"\boxed{1}") == "1"
    assert last_box("\\" * 100_000) is None


# Answer, gold, strict verdict. What a mathematician would say, written before the grader was run on it.
TABLE = [
    # numbers
    ("7", "7", True),
    ("7.0", "7", True),
    ("007", "7", True),
    ("+7", "7", True),
    ("-7", "7", False),
    ("− 7", "-7", True),
    ("8", "7", False),
    ("2,125", "2125", True),
    ("2125", "2,125", True),
    (r"10,\!080", "10080", True),
    (r"11,\! 111,\! 111,\! 100", "11111111100", True),
    ("32{,}348", r"\$32,\!348", True),
    ("2.125", "2,125", False),
    ("18.9", r"\$18.90", True),
    (r"\$18.90", "18.9", True),
    (".35625", "0.35625", True),
    (".5", r"\frac12", True),
    (r"\frac{1}{2}", "0.5", True),
    ("1/2", r"\frac{1}{2}", True),
    (r"\dfrac{3}{6}", r"\frac12", True),
    (r"\frac{1}{3}", r"\frac{1}{2}", False),
    ("0.333", r"\frac13", False),
    ("0.3333333333", r"\frac13", False),
    (r"-\frac{35}{9}", r"\frac{-35}{9}", True),
    (r"\frac9{19}", "9/19", True),
    (r"1\frac{4}{5}", "1.8", True),
    (r"1\frac{4}{5}", r"\frac{9}{5}", True),
    (r"1\frac{4}{5}", r"\frac{4}{5}", False),
    (r"-1\frac12", "-1.5", True),
    ("137 1/2", r"137 \frac{1}{2}", True),
    ("0.0000672", ".0000672", True),
    ("0.0000671", ".0000672", False),
    (r"6.72 \times 10^{-5}", ".0000672", True),
    (r"6.72e-5", ".0000672", True),
    (r"6.72 \cdot 10^{-6}", ".0000672", False),
    ("10^6", "1000000", True),
    ("1e6", "10^{6}", True),
    (r"2^{25} \cdot 26!", r"26! \cdot 2^{25}", True),
    (r"2^{24} \cdot 26!", r"2^{25} \cdot 26!", False),
    ("2^{10}", "1024", True),
    # units and signs
    ("90", r"90^\circ", True),
    (r"90^{\circ}", "90", True),
    ("90°", r"90^\circ", True),
    (r"90 \text{ degrees}", r"90^\circ", True),
    (r"\frac{270}{7}", r"\frac{270}7\text{ degrees}", True),
    ("80", r"90^\circ", False),
    ("10", r"10\%", True),
    (r"10\%", "10", True),
    ("5.4", r"5.4 \text{ cents}", True),
    (r"5.4 \text{ cent}", r"5.4 \text{ cents}", True),
    (r"5.4 \text{ dollars}", r"5.4 \text{ cents}", False),
    ("5.4 cents", r"5.4 \text{ cents}", True),
    (r"15", r"15\mbox{ cm}^2", True),
    (r"15 \text{ cm}^2", r"15\mbox{ cm}^2", True),
    (r"15 \text{ cm}^3", r"15\mbox{ cm}^2", False),
    (r"864", r"864 \mbox{ inches}^2", True),
    (r"9\pi \text{ cm}", r"9\pi", True),
    ("5x", "5", False),
    ("2k", "2", False),
    ("2k", "2k", True),
    # expressions
    (r"\sqrt{51}", r"\sqrt{51}", True),
    (r"2\sqrt{13}", r"\sqrt{52}", True),
    (r"7.141428", r"\sqrt{51}", False),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
    (r"\sqrt{3}/3", r"\frac{\sqrt{3}}{3}", True),
    (r"288\pi", r"\pi \cdot 288", True),
    ("288π", r"288 \pi", True),
    (r"\frac{20000}{\pi}", r"\frac{20000}{\pi}", True),
    ("6366.2", r"\frac{20000}{\pi}", False),
    (r"6 - 5i", r"-5i + 6", True),
    (r"6 + 5i", r"6 - 5i", False),
    (r"(a+5)(b+2)", r"ab + 2a + 5b + 10", True),
    (r"(a+5)(b+3)", r"(a+5)(b+2)", False),
    (r"p-q", r"q-p", False),
    (r"x^2+1", r"1+x^2", True),
    (r"x^2-1", r"1+x^2", False),
    (r"\cot x", r"\frac{\cos x}{\sin x}", True),
    ("5", "x=5", True),
    ("x=5", "5", True),
    ("x=5", "x=5.0", True),
    ("y=5", "x=5", False),
    ("2x+3", "y = 2x + 3", True),
    (r"[-2,7]", r"x \in [-2,7]", True),
    # tuples, intervals, sets, lists
    ("(3,4)", "(3,4)", True),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", True),
    ("(4,3)", "(3,4)", False),
    ("(3,4]", "(3,4)", False),
    ("(3,4]", "(3,4]", True),
    ("[3,4]", "(3,4]", False),
    (r"(-\infty, 0]", r"(-\infty,0]", True),
    (r"(-\infty, 1]", r"(-\infty,0]", False),
    (r"(2,\infty)", r"(2, +\infty)", True),
    (r"(3,\infty) \cup (-\infty,2)", r"(-\infty, 2) \cup (3, \infty)", True),
    (r"(3,\infty) \cup (-\infty,1)", r"(-\infty, 2) \cup (3, \infty)", False),
    ("1, -2", "-2,1", True),
    (r"1 \text{ and } -2", "-2,1", True),
    ("1 or -2", "-2,1", True),
    ("1, -2, 3", "-2,1", False),
    ("1, 1", "-2,1", False),
    ("3, 5, and 7", "3, 5, 7", True),
    (r"\{3, 5, 7\}", "7, 5, 3", True),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}", True),
    (r"\frac{-1\pm\sqrt{17}}{2}", r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}", True),
    (r"1 + \sqrt{19}", r"1 \pm \sqrt{19}", False),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt5, 1-\sqrt5", True),
    ("(1e-9, 2)", "(1e-8, 2)", False),
    (r"\begin{pmatrix} -2 \\ -14 \end{pmatrix}", r"\begin{pmatrix} -2 \\ -14 \end{pmatrix}", True),
    (r"\begin{pmatrix} -2 \\ 14 \end{pmatrix}", r"\begin{pmatrix} -2 \\ -14 \end{pmatrix}", False),
    (r"\begin{pmatrix} 0.2 \\ -3.6 \end{pmatrix}", r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", True),
    # words, letters, bases
    ("Evelyn", r"\text{Evelyn}", True),
    (r"\text{evelyn}", r"\text{Evelyn}", True),
    (r"\textbf{Evelyn}.", r"\text{Evelyn}", True),
    ("Angela", r"\text{Evelyn}", False),
    ("C", r"\text{(C)}", True),
    ("(C)", r"\text{(C)}", True),
    ("B", r"\text{(C)}", False),
    ("seat", r"\text{east}", False),
    ("52_{8}", "52_8", True),
    ("52_9", "52_8", False),
    ("MR = SRMC", "MR=SRMC", True),
    ("SRMC=MR", "MR=SRMC", True),
    ("", "0", False),
    ("$7$", "7", True),
    ("7.", "7", True),
    ("7 8", "78", False),
    ("none", "0", False),
    # large whole numbers, complex numbers, repeating decimals, percent, degrees within a sine
    ("2^{100}", "2^{100}-1", False),
    (r"2^{25} \cdot 26! + 1", r"2^{25} \cdot 26!", False),
    (r"\frac{1}{i}", "-i", True),
    (r"16e^{4\pi i/3}", r"-8-8\sqrt{3} i", True),
    (r"-3.\overline{8}", r"-\frac{35}{9}", True),
    (r"0.\overline{27}", r"\frac{5}{18}", False),
    (r"25\%", r"\frac14", True),
    (r"0.25", r"25\%", False),
    (r"\sin 77^\circ", r"\cos 13^\circ", True),
    (r"\sin 77", r"\cos 13^\circ", False),
    # magnitudes, words after a number, moduli, several names
    (r"1.5 \text{ million}", "1500000", True),
    (r"1.5 \text{ million}", "1.5", False),
    ("260 sheep", "260", True),
    (r"248 \pmod{1000}", "248", True),
    ("(x,y)=(2,-3)", "(2,-3)", True),
    (r"\text{A and C}", "A,C", True),
    # an interval as an inequality, an equation in another form
    (r"2 \le x < 5", "[2,5)", True),
    (r"2 < x < 5", "[2,5)", False),
    ("2x - y + 3 = 0", "y = 2x+3", True),
    (r"\sum_{i=1}^{3} i", "6", True),
    # read as a whole, with every letter
    ("2", "2t", False),
    (r"\frac{2}{3}", r"\frac{1}{3} E_{1} + \frac{2}{3} E_{2}", False),
    (r"(\gamma^2-3)m", r"(\gamma^2-1)m", False),
]


@pytest.mark.parametrize(("answer", "gold", "right"), TABLE)
def test_strict_verdict_agrees_with_a_mathematician(answer, gold, right):
    assert same_answer(answer, gold) is right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("9.59", "9.6", True),
        ("9.4", "9.6", False),
        ("101", "100", False),
        (r"4.5 \times 10^{33}", "4.5e33", True),
        (r"4.52 \times 10^{33} \text{ erg/s}", "4.5e33", True),
        (r"4.5 \times 10^{33} \, \mathrm{erg} \, \mathrm{s}^{-1}", "4.5e33", True),
        (r"4.5 \times 10^{32}", "4.5e33", False),
        ("4.5e+33", "4.5e33", True),
        ("4.5E33", r"4.5 \times 10^{33}", True),
        (r"2.88 \times 10^{-20}", "2.88e-19", False),
        ("0", "2.88e-19", False),
        (r"\arcsin(10/13)", "np.arcsin(10/13)", True),
        (r"\sin^{-1}\left(\frac{10}{13}\right)", "np.arcsin(10/13)", True),
        ("0.878", "np.arcsin(10/13)", True),
        ("0.778", "np.arcsin(10/13)", False),
        (r"-\frac{1}{3}", "-1./3", True),
        ("-1.5", "-3./2", True),
        ("2", "+2", True),
        (r"\frac{1}{2a}(e^{at} - e^{-at})", r"\frac{1}{2a}(\exp{a*t} - \exp{-a*t})", True),
        ("E_1, E_2", "E_{1},E_{2}", True),
        ("1.57", r"\frac{\pi}{2}", True),
        ("1.6 cm", "1.6", True),
        (r"9.6 \AA", "9.6", True),
        ("3e8 m/s", "3e8", True),
        (r"7.6 Z", "7.6 Z", True),
        (r"2.2 \tau", r"2.2\tau", True),
    ],
)
def test_minerva_numbers_have_a_relative_tolerance(answer, gold, right):
    assert same_answer(answer, gold, 1e-2) is right


def test_all_e_notation_golds_of_minerva_are_right_both_ways_and_no_factor_of_ten_is():
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    golds = [json.loads(line)["answer"] for line in (SHARED_DATA / "minerva_math.jsonl").open()]
    golds = [g for g in golds if re.fullmatch(r"[\d.]+e-?\d+", g)]
    assert len(golds) == 58
    for gold in golds:
        mantissa, exponent = gold.split("e")
        assert same_answer(rf"{mantissa} \times 10^{{{exponent}}}", gold, 1e-2)
        assert same_answer(gold, rf"{mantissa} \times 10^{{{exponent}}}", 1e-2)
        assert same_answer(gold, gold, 1e-2)
        for off in (int(exponent) - 1, int(exponent) + 1):
            assert not same_answer(rf"{mantissa} \times 10^{{{off}}}", gold, 1e-2)


# Response, gold, authors' verdict, strict verdict: how the two differ.
RESPONSES = [
    (r"So $x=3$ and $\boxed{7}$.", "7", True, True),
    ("So the answer is 42.", "42", True, False),  # no box
    (r"\boxed{3} and then \boxed{4}", "4", False, True),  # several boxes are one set
    (r"\boxed{4.5 \times 10^{33}}", "4.5e33", False, True),
    (r"\boxed{4.5e33}", "4.5e33", True, True),
    (r"\boxed{2.88 \times 10^{-20}}", r"2.88 \times 10^{-19}", True, False),  # both round to 0
    (r"\boxed{\text{seat}}", r"\text{east}", False, False),
    (r"\boxed{0.333333}", r"\frac13", True, False),
    (r"\boxed{8}", "7", False, False),
    (r"\boxed{7", "7", False, False),
    (r"It is \boxed{\text{set 7}} = 7", "7", False, False),
    ("so 1b*7=7\n\\boxed{7}", "7", True, True),
    ("", "7", False, False),
]


def test_both_verdicts_and_their_differences(grader):
    verdicts = grader.grade([t for t, *_ in RESPONSES], [Gold(g) for _, g, *_ in RESPONSES])
    assert [(v.authors, v.strict) for v in verdicts] == [(a, s) for *_, a, s in RESPONSES]
    assert verdicts[0].answer == "7" and verdicts[1].answer is None
    assert not any(v.timed_out for v in verdicts)


def test_the_tolerance_is_that_of_the_data_set(grader):
    golds = [Gold("9.6", dataset) for dataset in ("minerva", "minerva_math", "math500", "aime24")]
    assert [v.strict for v in grader.grade([r"\boxed{9.59}"] * 4, golds)] == [True, True, False, False]


def test_the_authors_verdict_is_that_of_math_verify_as_nemo_rl_calls_it(grader):
    """On MATH solutions against their own and the next problem's answer, math_metric's score is ours."""
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    from math_verify import ExprExtractionConfig, LatexExtractionConfig
    from math_verify.metric import math_metric

    metric = math_metric((LatexExtractionConfig(),), (ExprExtractionConfig(), LatexExtractionConfig()))
    with gzip.open(SHARED_DATA / "math_train.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(40), strict=False)]
    texts = [r["solution"] for r in rows] * 2 + [r["solution"].replace("boxed", "") for r in rows]
    golds = [r["answer"] for r in rows] + [r["answer"] for r in rows[1:] + rows[:1]] + [r["answer"] for r in rows]

    def score(text, gold):
        try:
            return metric([rf"\boxed{{{gold}}}"], [text])[0] == 1.0
        except Exception:
            return False

    verdicts = [v.authors for v in grader.grade(texts, [Gold(g) for g in golds])]
    assert verdicts == [score(t, g) for t, g in zip(texts, golds, strict=True)]
    assert sum(verdicts[:40]) >= 39 and sum(verdicts[40:80]) < 8


def test_the_vote_is_the_authors_string(grader):
    texts = [r"\boxed{7}", r"\boxed{12}", r"\boxed{2\sqrt{13}}", "nothing"]
    votes = [v.vote for v in grader.grade(texts, [Gold("7"), Gold("7"), Gold(r"\sqrt{52}"), Gold("7")])]
    assert votes == ["7", "1", "2", None]  # a wrong answer, and a right one in another spelling: the first character


def test_equal_answers_share_a_class_and_no_answer_has_none(grader):
    answers = [["1/2", "7", "0.5", None, r"\frac{2}{4}", "7.0", "8"], [], [None, None], ["x"]]
    classes = grader.equivalence_classes(answers, [Gold("3")] * 4)
    assert classes == [[0, 1, 0, None, 0, 1, 2], [], [None, None], [0]]


HANGING = r"\boxed{9^{9^{9^{9}}} + x}"  # the authors' verdict


@pytest.fixture
def starts(monkeypatch):
    """The worker processes that are started, in order."""
    started, start = [], grading.Worker.start

    def counting(worker):
        start(worker)
        started.append(worker.process)

    monkeypatch.setattr(grading.Worker, "start", counting)
    return started


def test_a_hanging_text_is_cut_and_the_others_keep_their_order_and_verdict(starts):
    texts = [rf"\boxed{{{i}}}" for i in range(20)]
    texts[3] = texts[11] = HANGING
    with Grader(num_workers=2, deadline=2.0) as grader:
        verdicts = grader.grade(texts, [Gold(str(i)) for i in range(20)])
        cut = starts[: len(starts) - 2]
        again = grader.grade([r"\boxed{5}"] * 3, [Gold("5")] * 3)
    assert [i for i, v in enumerate(verdicts) if v.timed_out] == [3, 11]
    assert [v.strict for v in verdicts] == [v.authors for v in verdicts] == [i not in (3, 11) for i in range(20)]
    assert [v.answer for v in verdicts][:4] == ["0", "1", "2", HANGING[7:-1]]
    assert all(v.strict for v in again)
    assert {process.returncode for process in cut} == {-signal.SIGKILL}  # the parent's deadline, not their own alarm


def test_copies_of_a_hanging_text_cost_one_deadline(starts):
    texts = [text for i in range(32) for text in (HANGING, rf"\boxed{{{i}}}")]
    with Grader(num_workers=2, deadline=2.0) as grader:
        verdicts = grader.grade(texts, [Gold("7")] * 64)
    assert [v.timed_out for v in verdicts] == [True, False] * 32
    assert [v.strict for v in verdicts] == [v.authors for v in verdicts] == [i == 2 * 7 + 1 for i in range(64)]
    assert len(starts) == 2 + 1  # the authors' verdict ends one worker, the strict one none
    verdicts[0].vote = "changed"
    assert verdicts[2].vote is None  # equal verdicts are not the same object


def test_equal_responses_are_graded_once_for_each_gold_answer_and_tolerance(grader, monkeypatch):
    asked, ask = [], grading.Worker.ask

    def counting(worker, question, seconds):
        asked.append(question)
        return ask(worker, question, seconds)

    monkeypatch.setattr(grading.Worker, "ask", counting)
    texts = [r"\boxed{9.59}", r"so \boxed{9.59}", r"\boxed{9.59}", r"\boxed{9.59}", "9.59", "9.59"]
    golds = [Gold("9.6", "minerva"), Gold("9.6", "minerva"), Gold("9.6"), Gold("9.59"), Gold("9.59"), Gold("9.59")]
    verdicts = grader.grade(texts, golds)
    assert [v.strict for v in verdicts] == [True, True, False, True, False, False]
    assert [v.authors for v in verdicts] == [False, False, False, True, True, True]
    assert sorted(question[0] for question in asked) == ["authors"] * 4 + ["strict"] * 3


def test_the_strict_verdict_is_given_where_the_authors_hangs(starts):
    """Where there are several boxes, math-verify reads all of them, and the strict verdict only the last."""
    text = HANGING + r", no: \boxed{7}"
    with Grader(num_workers=1, deadline=2.0) as grader:
        right, wrong = grader.grade([text, text], [Gold("7"), Gold("8")])
    assert (right.strict, right.authors, right.timed_out) == (True, False, True)
    assert (wrong.strict, wrong.authors, wrong.timed_out) == (False, False, True)
    assert len(starts) == 1 + 2


def test_the_authors_verdict_is_given_where_the_strict_hangs(monkeypatch):
    command = grading.subprocess.Popen

    def hanging_at_the_strict_verdict(words, **options):
        words[-1] = "import time; from common.grading import worker; worker.same_answer = time.sleep; " + words[-1]
        words[-1] = words[-1].replace("time.sleep", "lambda *_: time.sleep(60)")
        return command(words, **options)

    monkeypatch.setattr(grading.subprocess, "Popen", hanging_at_the_strict_verdict)
    with Grader(num_workers=1, deadline=2.0) as grader:
        right, without_box, wrong = grader.grade([r"\boxed{7}", "7", r"\boxed{7}"], [Gold("7"), Gold("7"), Gold("8")])
    assert (right.authors, right.strict, right.vote, right.timed_out) == (True, False, "7", True)
    assert (without_box.authors, without_box.strict, without_box.timed_out) == (True, False, False)
    assert (wrong.authors, wrong.strict, wrong.timed_out) == (False, False, True)


def test_classes_of_hanging_answers_are_by_spelling():
    with Grader(num_workers=1, deadline=1.0) as grader:
        answers = ["9^{9^{9^{9}}}+x", "9^{9^{9^{9}}}+y", "9^{9^{9^{9}}}+x"]
        assert grader.equivalence_classes([answers], [Gold("3")]) == [[0, 1, 0]]


def test_a_killed_worker_is_replaced_and_its_text_tried_again(grader):
    grader.grade([r"\boxed{1}"], [Gold("1")])
    os.kill(grader.workers[0].process.pid, signal.SIGKILL)  # idle
    assert grader.grade([r"\boxed{2}"], [Gold("2")])[0].strict

    with Grader(num_workers=1, deadline=2.0) as other:
        other.grade(["warm"], [Gold("1")])
        threading.Timer(0.3, os.kill, (other.workers[0].process.pid, signal.SIGKILL)).start()  # busy
        hanging, after = other.grade([HANGING, r"\boxed{2}"], [Gold("1"), Gold("2")])
    assert hanging.timed_out and after.strict and not after.timed_out


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_text_whose_worker_dies_is_tried_again_and_given_up_at_the_second_death(deaths, monkeypatch, starts):
    exchange, left = grading.Worker.exchange, [r"\boxed{1}"] * deaths

    def exchange_and_die(worker, line, seconds):
        if line is not None and left and json.loads(line)[:2] == ["authors", left[-1]]:
            left.pop()
            os.kill(worker.process.pid, signal.SIGSTOP)  # no reply before it dies
            threading.Timer(0.1, worker.process.kill).start()
        return exchange(worker, line, seconds)

    monkeypatch.setattr(grading.Worker, "exchange", exchange_and_die)
    with Grader(num_workers=1, deadline=60.0) as grader:
        first, second = grader.grade([r"\boxed{1}", r"\boxed{2}"], [Gold("1"), Gold("2")])
    assert left == [] and len(starts) == 1 + deaths
    assert second.authors and second.strict and not second.timed_out
    assert first.strict and first.authors == (deaths == 1) and first.timed_out == (deaths == 2)


def test_a_worker_that_hangs_while_it_starts_is_an_error_in_one_line(monkeypatch):
    monkeypatch.setattr(grading, "START_DEADLINE", 1.0)
    with Grader(num_workers=1) as grader:
        os.kill(grader.workers[0].process.pid, signal.SIGSTOP)
        with pytest.raises(RuntimeError, match="did not start in 1 s"):
            grader.grade([r"\boxed{1}"], [Gold("1")])
    with Grader(num_workers=1) as late:  # called long after it was made, as a training run does
        assert select.select([late.workers[0].process.stdout], [], [], 60)[0]  # it has said that it is ready
        time.sleep(1.1)
        assert late.grade([r"\boxed{1}"], [Gold("1")])[0].strict


def test_a_worker_that_cannot_start_is_an_error_in_one_line(monkeypatch):
    monkeypatch.setattr(grading.sys, "executable", "/bin/false")
    with Grader(num_workers=2) as grader, pytest.raises(RuntimeError, match="is math-verify installed"):
        grader.grade([r"\boxed{1}"], [Gold("1")])


@pytest.mark.parametrize("length", [10, 1_000_000])  # the pipe to a worker holds 64 KiB
def test_a_worker_that_stops_is_replaced_at_the_deadline_and_its_text_marked(length):
    with Grader(num_workers=1, deadline=2.0) as grader:
        grader.grade([r"\boxed{1}"], [Gold("1")])
        os.kill(grader.workers[0].process.pid, signal.SIGSTOP)
        first, second = grader.grade(["so" * length + r"\boxed{1}", r"\boxed{2}"], [Gold("1"), Gold("2")])
    assert first.timed_out and not first.authors and first.strict
    assert second.authors and second.strict and not second.timed_out


INTERRUPTED = r"""
import signal, sys, threading, time
from types import SimpleNamespace
from common.grading import Grader

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
grader = Grader(num_workers=2, deadline=600.0)
problems = [SimpleNamespace(answer="7", dataset="math")] * 20
grader.grade([r"\boxed{7}"] * 2, problems[:2])
pids = [worker.process.pid for worker in grader.workers]
threading.Timer(0.5, print, (*pids,), {"flush": True}).start()
grader.grade([r"\boxed{9^{9^{9^{9}}} + %d}" % i for i in range(20)], problems)
"""


def test_an_interrupt_ends_workers_that_hang_and_reaches_no_worker_by_itself():
    done = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    pids = [int(pid) for pid in done.stdout.readline().split()]
    try:
        assert len(pids) == 2 and all(os.getsid(pid) == pid for pid in pids)  # out of reach of the terminal's Ctrl-C
        os.killpg(done.pid, signal.SIGINT)
        _, errors = done.communicate(timeout=60)  # the deadline is ten minutes
        assert "KeyboardInterrupt" in errors and "CancelledError" not in errors
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    finally:
        done.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_sixteen_workers_cannot_take_more_than_16_gb():
    with Grader(num_workers=1) as grader:
        grader.grade(["ready"], [Gold("1")])
        limits = Path(f"/proc/{grader.workers[0].process.pid}/limits").read_text()
    assert 16 * int(re.search(r"Max address space +(\d+) ", limits)[1]) <= 16e9


def test_caches_are_emptied_whatever_functions_have_them():
    worker.read_gold("7")
    same_answer("7", "7")
    assert worker.read_gold.cache_info().currsize and same_answer.cache_info().currsize
    worker.clear_caches()
    assert worker.read_gold.cache_info().currsize == same_answer.cache_info().currsize == 0


def test_a_lack_of_memory_is_no_verdict_as_earlier_texts_may_have_taken_the_memory(monkeypatch):
    def raising(*_):
        raise MemoryError

    monkeypatch.setattr(worker, "authors_verdict", raising)
    with pytest.raises(MemoryError):  # the process ends, and the parent asks a fresh one
        worker.reply("authors", "7", "7")
    monkeypatch.setattr(worker, "authors_verdict", lambda *_: 1 / 0)
    assert worker.reply("authors", "7", "7") == (False, None)


def test_a_text_too_large_for_a_workers_memory_is_counted_and_the_next_is_graded():
    with Grader(num_workers=1, deadline=20.0, memory_gb=0.3) as grader:
        limits = Path(f"/proc/{grader.workers[0].process.pid}/limits")
        grader.grade(["ready"], [Gold("1")])
        before = limits.read_text()
        big, small = grader.grade(["7" * 60_000_000, r"\boxed{2}"], [Gold("1"), Gold("2")])
    assert big.timed_out and small.strict
    assert re.search(rf"Max address space +{int(0.3 * 2**30)} ", before) and re.search("Max file size +0 ", before)


def test_a_worker_knows_no_torch():
    code = "import sys; from common.grading import worker; worker.prepare_math_verify(); "
    code += "print({'torch', 'datasets'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_only_arithmetic_reaches_evaluation():
    calls = []
    guarded = arithmetic_only(lambda s, **_: calls.append(s))
    guarded("-(1+2)*3 **4/5.0")
    for text in ("x+1", "__import__('os')", "1 if 1 else 2", "lambda: 1", "1;2", "[1]", "'a'", "1_0"):
        with pytest.raises(ValueError):
            guarded(text)
    assert calls == ["-(1+2)*3 **4/5.0"]


def test_a_negative_number_of_workers_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="--num-grading-workers"):
        Grader(num_workers=-1)
