"""The worker process: reads a line of JSON, answers with a line of JSON, until its standard input is closed.

None of the text is evaluated as code (`prepare_math_verify`). The parent (`Grader`) kills a worker at the deadline.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache

from common.grading.reader import read
from common.grading.strict import same_answer


@lru_cache(4096)
def read_gold(gold: str) -> list:
    from math_verify import LatexExtractionConfig, parse

    return parse(rf"\boxed{{{gold}}}", [LatexExtractionConfig()], parsing_timeout=None)


def authors_verdict(text: str, gold: str) -> tuple[bool, str | None]:
    """Gives NeMo RL's verdict on a response, and the string its vote counts for it (None if there was nothing to read).

    math-verify's own alarms (5 s to parse, 5 s to compare) are off: the parent's deadline stands in for them, since an
    alarm cannot interrupt a long operation inside C. The vote is theirs with its oddity: the extracted string if it is
    spelled like the gold answer, else its first character alone (nemo_rl/environments/math_environment.py), so that
    wrong answers pool, and right ones in another spelling with them.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    golds = read_gold(gold)
    found = parse(text, [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    printed_golds, printed = [str(e) for e in golds], [str(e) for e in found]  # raises, as there, if too large to print
    vote = next((p for p in printed if p.strip() in printed_golds), printed[0][:1] if printed else None)
    return verify(golds, found, float_rounding=6, timeout_seconds=None), vote


def arithmetic_only(parse_expr: Callable) -> Callable:
    """Guards sympy's `parse_expr`, which hands its argument to Python's eval: only digits and operators pass.

    math-verify's regular expressions let nothing else through today; this holds if they change.
    """

    def guarded(s, *args, **kwargs):
        if not re.fullmatch(r"[\d.\s+\-*/^()×÷]*", str(s)):
            raise ValueError("not plain arithmetic")
        return parse_expr(s, *args, **kwargs)

    return guarded


def refuse(*_, **__):
    raise NotImplementedError("no expression becomes Python code")  # at this, sympy sums a series by other means


def prepare_math_verify() -> None:
    """Loads math-verify with all that sympy would load later, then closes both ways from text to Python's eval.

    One is `parse_expr`, by which strings are read; the other `lambdify`, which sympy calls to sum an infinite series.
    """
    import math_verify
    import sympy.parsing.sympy_parser
    import sympy.physics.units  # noqa: F401  (passes names of its own through parse_expr when first imported)

    logging.disable(logging.CRITICAL)
    math_verify.verify(read_gold("x^2+1"), read_gold(r"\frac{1}{2}"), float_rounding=6, timeout_seconds=None)
    guards = {"parse_expr": (sympy.parse_expr, arithmetic_only(sympy.parse_expr)), "lambdify": (sympy.lambdify, refuse)}
    for module in list(sys.modules.values()):
        for name, (original, guard) in guards.items():
            if vars(module).get(name) is original:
                setattr(module, name, guard)


def answer_classes(answers: Sequence[str], tolerance: float) -> list[int]:
    """Gives a class number 0, 1, ... per answer; answers that mean the same share one."""
    leaders: list[str] = []
    classes = []
    for answer in answers:
        found = next((i for i, leader in enumerate(leaders) if same_answer(answer, leader, tolerance)), len(leaders))
        leaders += [answer] * (found == len(leaders))
        classes.append(found)
    return classes


def serve(deadline: float, memory_gb: float) -> None:
    """Answers a line of JSON with a line of JSON until stdin is closed."""
    from sympy.core.cache import clear_cache

    replies = os.fdopen(os.dup(1), "w")
    prepare_math_verify()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that a library prints may mix with the replies
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_gb * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies.write("{}\n")  # ready: the first deadline starts now
    replies.flush()
    for line in sys.stdin.buffer:
        signal.alarm(int(deadline) + 10)  # ends this process if the parent is gone; its deadline comes first
        replies.write(json.dumps(answer_task(json.loads(line))) + "\n")
        replies.flush()
        signal.alarm(0)
        if len(line) > 50_000:  # what is kept of such texts would fill the memory of this worker
            read_gold.cache_clear()
            same_answer.cache_clear()
            read.cache_clear()
            clear_cache()


def answer_task(task: dict) -> dict:
    def attempt(function: Callable, *args, otherwise):
        try:
            return function(*args)
        except Exception:  # sympy raises nearly every type there is on odd input; NeMo RL counts all of them as wrong
            return otherwise

    if "answers" in task:
        return {"classes": attempt(answer_classes, task["answers"], task["tolerance"], otherwise=None)}
    answer, gold = task["answer"], task["gold"]
    authors, vote = attempt(authors_verdict, task["text"], gold, otherwise=(False, None))
    strict = answer is not None and attempt(same_answer, answer, gold, task["tolerance"], otherwise=False)
    return {"authors": authors, "strict": strict, "vote": vote}
