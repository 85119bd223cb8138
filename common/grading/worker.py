"""The worker process: it reads questions and writes replies as lines of JSON until its standard input is closed.

`Grader` starts it and kills it at the deadline.
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

from common.grading.strict import same_answer


@lru_cache(4096)
def read_gold(gold: str) -> list:
    """Returns what math-verify reads in a gold answer: sympy expressions, and the string they were read from."""
    from math_verify import LatexExtractionConfig, parse

    return parse(rf"\boxed{{{gold}}}", [LatexExtractionConfig()], parsing_timeout=None)


def authors_verdict(text: str, gold: str) -> tuple[bool, str | None]:
    """Returns NeMo RL's verdict on a response, and the string that its majority vote counts (None: nothing was read).

    math-verify's own alarms (5 s to parse and 5 s to compare) are off, because an alarm cannot interrupt a long
    operation inside C. The parent's deadline replaces them.

    The vote is defined as in nemo_rl/environments/math_environment.py. It is the extracted string if this is spelled
    like the gold answer, and otherwise only its first character. Wrong answers with the same first character are
    therefore counted together, as are right answers that are spelled differently from the gold answer.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    golds = read_gold(gold)
    found = parse(text, [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    printed_golds, printed = [str(e) for e in golds], [str(e) for e in found]  # raises, as there, if too large to print
    vote = next((p for p in printed if p.strip() in printed_golds), printed[0][:1] if printed else None)
    return verify(golds, found, float_rounding=6, timeout_seconds=None), vote


def arithmetic_only(parse_expr: Callable) -> Callable:
    """Returns sympy's `parse_expr`, which passes its argument to Python's eval, restricted to digits and operators.

    math-verify's regular expressions already let nothing else through; this guard holds if they change.
    """

    def guarded(s, *args, **kwargs):
        if not re.fullmatch(r"[\d.\s+\-*/^()×÷]*", str(s)):
            raise ValueError("not plain arithmetic")
        return parse_expr(s, *args, **kwargs)

    return guarded


def refuse(*_, **__):
    """Replaces sympy's `lambdify`. On this exception sympy sums an infinite series in another way."""
    raise NotImplementedError("no expression becomes Python code")


def prepare_math_verify() -> None:
    """Imports math-verify, with everything that sympy would import later, and closes both ways from text to eval.

    These are `parse_expr`, which reads strings, and `lambdify`, which sympy calls to sum an infinite series.
    """
    import math_verify
    import sympy.parsing.sympy_parser
    import sympy.physics.units  # noqa: F401  (its import calls parse_expr with names, which the guard would refuse)

    logging.disable(logging.CRITICAL)
    math_verify.verify(read_gold("x^2+1"), read_gold(r"\frac{1}{2}"), float_rounding=6, timeout_seconds=None)
    guards = {"parse_expr": (sympy.parse_expr, arithmetic_only(sympy.parse_expr)), "lambdify": (sympy.lambdify, refuse)}
    for module in list(sys.modules.values()):
        for name, (original, guard) in guards.items():
            if vars(module).get(name) is original:
                setattr(module, name, guard)


def answer_classes(answers: Sequence[str], tolerance: float) -> list[int]:
    """Returns a class number 0, 1, ... for each answer. Answers that mean the same have the same number."""
    leaders: list[str] = []
    classes = []
    for answer in answers:
        found = next((i for i, leader in enumerate(leaders) if same_answer(answer, leader, tolerance)), len(leaders))
        leaders += [answer] * (found == len(leaders))
        classes.append(found)
    return classes


def serve(deadline: float, memory_gb: float) -> None:
    """Writes an empty line of JSON once it is ready, then answers every line with a line until stdin is closed.

    The parent kills a process that exceeds its deadline. The alarm comes later and only matters if the parent is gone.
    """
    replies = os.fdopen(os.dup(1), "w")
    prepare_math_verify()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that a library prints may mix with the replies
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_gb * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies.write("{}\n")
    replies.flush()
    for line in sys.stdin.buffer:
        signal.alarm(int(deadline) + 10)
        replies.write(json.dumps(reply(*json.loads(line))) + "\n")
        replies.flush()
        signal.alarm(0)
        if len(line) > 50_000:  # what the caches keep of such texts would fill the memory of this process
            clear_caches()


def clear_caches() -> None:
    """Empties sympy's caches and the `lru_cache` of every function in this package."""
    from sympy.core.cache import clear_cache

    clear_cache()
    for name, module in list(sys.modules.items()):
        if name.startswith("common.grading"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def reply(question: str, *arguments):
    """Answers "authors" (text, gold), "strict" (answer, gold, tolerance) or "classes" (answers, tolerance).

    sympy raises nearly every type of exception on odd input. It counts as a wrong response, as in NeMo RL. Only a lack
    of memory ends the process: earlier questions may have taken the memory, and the parent asks a fresh process.
    """
    try:
        if question == "authors":
            return authors_verdict(*arguments)
        if question == "strict":
            return same_answer(*arguments)
        return answer_classes(*arguments)
    except MemoryError:
        raise
    except Exception:
        return {"authors": (False, None), "strict": False, "classes": None}[question]
