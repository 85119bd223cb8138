r"""Grading in worker processes, and the metrics made of verdicts.

Every response gets two verdicts:
- `authors`: math-verify over the whole response, no box needed, the gold answer wrapped in \boxed{}. The rule of
  NeMo RL's HFVerifyWorker, which the paper's runs used, with the same settings.
- `strict`: the last box alone. It repairs what that rule gets wrong: e-notation (4.5e33 is read as 4.5 * e * 33), tiny
  values (compared after rounding to 6 decimals), several boxes, words (read as products of letters: east = seat).

Responses are untrusted text, and sympy can hang or take all memory on them. So they are graded in worker processes with
bounded memory, which the parent kills at a deadline. Text travels as lines of JSON; none of it is evaluated as code
(`prepare_math_verify`).
"""

import json
import logging
import math
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

# Results files record this number, and math-verify's version, beside their verdicts. Raise it with every change that
# can turn a verdict, an extracted answer or a vote: results with another number are refused.
VERDICTS_VERSION = 1

# ---------------------------------------------------------------- the last box

BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(\{)|((?:[^\s{}$]|\{[^{}\s]*\})+))"  # \boxed{5} and \boxed 5
    r"|\\(?!\\(?:boxed|fbox))."  # an escaped character, such as \{, opens and closes nothing
    r"|[{}]",
    re.DOTALL,
)


def last_box(text: str) -> str | None:
    r"""Gives the content of the last complete \boxed or \fbox, of nested ones the inner, or None. Linear time."""
    last, opened = (-1, -1), []
    for token in BOX.finditer(text):
        if token[1]:
            opened.append(token.end())
        elif token[2]:
            last = max(last, token.span(2))
        elif token[0] == "{":
            opened.append(-1)
        elif token[0] == "}" and opened:
            last = max(last, (opened.pop(), token.start()))
    return None if last[0] < 0 else text[slice(*last)].strip()


# ---------------------------------------------------------------- the strict verdict

IN_TEXT = r"\\(?:text|textrm|textit|textbf|textnormal|mbox|mathrm|mathbf|rm)\s*"
TEXT = IN_TEXT + r"\{([^{}]*)\}"
MAGNITUDE = {"thousand": 3, "million": 6, "billion": 9}
MAGNITUDE_WORD = re.compile(rf"\s*({IN_TEXT}\{{\s*)?\b({'|'.join(MAGNITUDE)})\b(?(1)\s*\}})")
AND_OR = re.compile(rf",?\s*{IN_TEXT}\{{\s*(?:and|or)\s*\}}|,?\s+(?:and|or)\s+")
UNIT_NAME = (  # outside \text{} only these, lest 5x or 2k lose their letter
    r"(?:units?|cents?|dollars?|degrees?|percent|inch(?:es)?|feet|foot|ft|yards?|miles?|mph|met(?:er|re)s?|seconds?|minutes?"
    r"|hours?|hrs?|days?|weeks?|months?|years?|people|ways|[kcmnμ]?m|[km]?g|[mn]?s|[kMG]?Hz|k?J|[kMG]?eV|erg|K|k?W|m?V|m?A|N"
    r"|k?Pa|mol|M|L|\\AA|Å|AU|[kM]?pc|rad|radians?)"
)
POWER = r"(?:\s*\^\s*\{?-?\d\}?)?"
UNIT = re.compile(
    rf"\s*(?:{TEXT}{POWER}|(?<=[\d}}\s]){UNIT_NAME}{POWER}(?:\s*/\s*{UNIT_NAME}{POWER})*"
    r"|(?<=\d)(?:\s+[A-Za-z]{3,})+|\\pmod\{\d+\}"  # 3 red bolts
    r"|(?<=\d)_\{?\d+\}?)$"  # the base of a number: 52_8
)
DECIMAL = r"(?:\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
EXPONENT = r"(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))"
SCIENTIFIC = re.compile(rf"(?:({DECIMAL})(?:[eE]|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*)|10\s*\^\s*){EXPONENT}")
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
FRACTION = re.compile(
    rf"(?:(\d+)\s*(?=\\|\s\d))?"  # the whole number of a mixed fraction
    rf"(?:\\frac\{{\s*([+-]?{DECIMAL})\s*\}}\{{\s*({DECIMAL})\s*\}}|\s*({DECIMAL})\s*/\s*({DECIMAL}))"
)
NAME = r"(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\{\w+\}|\w+))?(?:\([a-z]\))?"
ASSIGNMENT = re.compile(rf"({NAME}|\({NAME}(?:,\s*{NAME})+\))\s*(?:=|\\in(?![a-z]))\s*([^=]+)")
RELATION = re.compile(r"[<>]|\\[lg]eq?(?![a-z])")
DEGREE = r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))"
UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "\u00a0": " "}
    | {"√": r"\sqrt ", "∅": r"\emptyset ", "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup "}
)


def clean(answer: str) -> str:
    """Gives an answer without what has no meaning: spacing, dollars, sizes of brackets, degree and percent signs."""
    s = answer.translate(UNICODE)
    s = s.replace(r"\$", "").replace("$", "").replace(r",\!", "").replace("{,}", ",")
    s = re.sub(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad)(?![A-Za-z])|(?<!\\)\\[!;:]", "", s)
    s = re.sub(r"(?<!\\)\\[, ]|~|\s+", " ", s)
    s = re.sub(rf"(\\(?:sin|cos|tan|cot|sec|csc)\s*\(?\s*)(\d+(?:\.\d+)?)\s*{DEGREE}", r"\1(\2\\pi/180)", s)
    s = re.sub(rf"{DEGREE}|\\?%", "", s)
    s = AND_OR.sub(",", s)
    s = MAGNITUDE_WORD.sub(lambda found: rf" \times 10^{{{MAGNITUDE[found[2]]}}}", s)
    s = re.sub(r"\^\s*\{?\s*\\prime\s*\}?", "'", s).replace(r"\varnothing", r"\emptyset")
    s = re.sub(r"\\mathrm\{([ei])\}", r"\1", s)
    s = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", s)
    s = re.sub(r"\\frac\s*(\d)", r"\\frac{\1}", s)
    s = re.sub(r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}", s)
    s = re.sub(r"(?<![\\A-Za-z])(?:np\.)?(arcsin|arccos|arctan|sin|cos|tan|ln|log|exp)(?![A-Za-z])", r"\\\1", s)
    s = re.sub(r"\\exp\s*\{([^{}]*)\}", r"e^{\1}", s)
    s = re.sub(r"(?<![A-Za-z])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", s)
    s = re.sub(r"_\{(\w)\}", r"_\1", s)
    return s.strip().removesuffix(".").strip()


def split_unit(s: str) -> tuple[str, str]:
    """Gives a cleaned answer without its unit or number base (52_8), and that in one spelling."""
    body, unit = s, ""
    while (found := UNIT.search(body)) and found.start() > 0:
        body, unit = body[: found.start()], found[0] + unit
    unit = re.sub(r"[^a-z0-9/]", "", re.sub(TEXT, r"\1", unit).lower())
    return body.strip(), unit.removesuffix("s")


def number(s: str) -> Fraction | None:
    r"""Gives the exact value of a cleaned answer if a number: 2,125, 4.5 \times 10^3, 1\frac{4}{5}, .\overline{3}."""

    def value(digits: str) -> Fraction:
        return Fraction(re.sub("[, ]", "", digits).removesuffix("."))

    sign = -1 if s.startswith("-") else 1
    s = s.removeprefix("-" if sign < 0 else "+").strip()
    try:
        if found := re.fullmatch(DECIMAL, s):
            return sign * value(s)
        if found := SCIENTIFIC.fullmatch(s):
            return sign * value(found[1] or "1") * Fraction(10) ** int(found[2] or found[3])
        if found := REPEATING.fullmatch(s):
            fixed, period = "0" + found[1] + found[2], found[3]
            return sign * Fraction(int(fixed + period) - int(fixed), 10 ** len(found[2]) * (10 ** len(period) - 1))
        if found := FRACTION.fullmatch(s):
            whole, top, bottom = found[1] or "0", found[2] or found[4], found[3] or found[5]
            top_sign = -1 if top.startswith("-") else 1
            return sign * (value(whole) + top_sign * value(top.lstrip("+-")) / value(bottom))
    except (ValueError, ZeroDivisionError):  # more digits than Python converts; a zero below the line
        pass
    return None


def elements(s: str) -> tuple[str, list[str]]:
    r"""Gives the kind of a cleaned answer and its parts.

    "()" "[]" "(]" "[)" for tuples and intervals; "set" for \{a, b\}, plain a, b and a \pm b; "" and one part else.
    """
    plain = s.replace(r"\{", "⟨").replace(r"\}", "⟩")
    parts, depth, start, whole = [], 0, 0, plain[:1] in "([⟨" and plain[-1:] in ")]⟩"
    for i, c in enumerate(plain):
        depth += (c in "([{⟨") - (c in ")]}⟩")
        whole = whole and (depth > 0 or i == len(plain) - 1)
        if c in ",;" and depth == 0:
            parts.append(plain[start:i])
            start = i + 1
    parts.append(plain[start:])
    if whole and len(plain) > 2:
        kind = "set" if plain[0] == "⟨" else plain[0] + plain[-1]
        inner_kind, parts = elements(plain[1:-1].replace("⟨", r"\{").replace("⟩", r"\}"))
        return (inner_kind, parts) if len(parts) == 1 and kind != "set" else (kind, parts)
    parts = [p.replace("⟨", r"\{").replace("⟩", r"\}").strip() for p in parts]
    if r"\pm" in s:
        signs = (("+", "-"), ("-", "+"))
        parts = [p.replace(r"\pm", upper).replace(r"\mp", lower) for p in parts for upper, lower in signs]
        parts = list(dict.fromkeys(parts))
    return ("set" if len(parts) > 1 else ""), parts


def close(a: Fraction, gold: Fraction, tolerance: float) -> bool:
    return a == gold or abs(a - gold) < Fraction(str(tolerance)) * abs(gold)


@lru_cache(4096)
def same_answer(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    """Says whether two answers mean the same.

    Numbers exactly or within a relative tolerance, tuples and intervals in order, sets and lists in any order, words by
    spelling, the rest by math-verify.
    """
    a, g = whole_a, whole_g = clean(answer), clean(gold)
    left, right = ASSIGNMENT.fullmatch(a), ASSIGNMENT.fullmatch(g)
    if left and (not right or left[1] == right[1]):
        a = left[2].strip()
    if right and (not left or left[1] == right[1]):
        g = right[2].strip()
    spelled_a, spelled_g = (re.sub(r"(?<!\d) | (?!\d)", "", re.sub(TEXT, r"\1", s)) for s in (a, g))  # 7 8 is not 78
    if spelled_a == spelled_g:
        return a != ""
    if word := re.fullmatch(TEXT, g):
        spelling = [re.sub(r"[^\w]", "", re.sub(TEXT, r"\1", w)) for w in (a, word[0])]
        return spelling[0] == spelling[1] or len(spelling[1]) > 1 and spelling[0].casefold() == spelling[1].casefold()
    if (inner := re.fullmatch(TEXT, a)) and re.search(r"[\d,]", inner[1]):
        a = inner[1].strip()
    if RELATION.search(a) or RELATION.search(g):
        return same_expression(a, g, tolerance)
    (a, unit), (g, gold_unit) = split_unit(a), split_unit(g)
    if unit and gold_unit and unit != gold_unit:
        return False
    x, y = number(a), number(g)
    if x is not None and y is not None:
        return close(x, y, tolerance) or ("%" in answer and "%" not in gold and close(x / 100, y, tolerance))
    (kind, parts), (gold_kind, gold_parts) = elements(a), elements(g)
    if kind or gold_kind:
        if kind != gold_kind or len(parts) != len(gold_parts):
            return False
        if kind != "set":
            return all(same_answer(p, q, tolerance) for p, q in zip(parts, gold_parts, strict=True))
        for q in gold_parts:
            match = next((p for p in parts if same_answer(p, q, tolerance)), None)
            if match is None:
                return False
            parts.remove(match)
        return True
    if "=" in whole_a and "=" in whole_g and same_expression(whole_a, whole_g, tolerance):
        return True
    return same_expression(parts[0], gold_parts[0], tolerance)


# ---------------------------------------------------------------- math-verify (imported in the workers only)


def same_expression(answer: str, gold: str, tolerance: float) -> bool:
    """Compares two LaTeX expressions: constants by value (relative 1e-12, or the tolerance), others by math-verify."""
    import sympy

    expressions = [[e for e in read_answer(scientific(s)) if not isinstance(e, str)] for s in (answer, gold)]
    if not all(expressions):
        return False
    a, g = expressions[0][0], expressions[1][0]
    if all(isinstance(e, sympy.Expr) for e in (a, g)):
        if any(e.has(sympy.zoo, sympy.nan) for e in (a, g)):  # \gamma(...) is read as a function and may meet a pole
            return False
        a, g = (e.subs({symbol: sympy.I for symbol in e.free_symbols if symbol.name == "i"}) for e in (a, g))
    if all(isinstance(e, sympy.Expr) and e.is_number for e in (a, g)):
        a, g = a.doit(), g.doit()
        if a.is_Rational and g.is_Rational:
            return close(*(Fraction(int(e.p), int(e.q)) for e in (a, g)), tolerance)
        x, y = sympy.N(a, 30), sympy.N(g, 30)
        if y == 0 or not (y.is_finite and x.is_finite):
            return bool(sympy.simplify(a - g) == 0) or x == y
        return bool(abs(x - y) <= max(tolerance, 1e-12) * abs(y))
    return verify(g, a, allow_set_relation_comp=True)  # 2 < x < 5 is (2,5)


def scientific(s: str) -> str:
    r"""Writes a number in e-notation as a \times 10^{b}, since math-verify reads 4.5e33 as 4.5 * e * 33."""
    return re.sub(rf"(?<![\w.])({DECIMAL})[eE]([+-]?\d+)", r"\1 \\times 10^{\2}", s)


@lru_cache(4096)
def read_latex(s: str, config=None) -> list:
    from math_verify import LatexExtractionConfig, parse

    return parse(rf"\boxed{{{s}}}", [config or LatexExtractionConfig()], parsing_timeout=None)


def read_answer(s: str) -> list:
    """Reads a whole answer or nothing, and no t of 2t as tons: left alone, math-verify does both."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True)
    return read_latex(s, LatexExtractionConfig(try_extract_without_anchor=False, normalization_config=normalization))


def verify(gold, answer, **settings) -> bool:
    import math_verify

    return math_verify.verify(gold, answer, float_rounding=6, timeout_seconds=None, **settings)


def authors_verdict(text: str, gold: str) -> tuple[bool, str | None]:
    """Gives NeMo RL's verdict on a response, and the string its vote counts for it (None if there was nothing to read).

    math-verify's own alarms (5 s to parse, 5 s to compare) are off: the parent's deadline stands in for them, since an
    alarm cannot interrupt a long operation inside C. The vote is theirs with its oddity: the extracted string if it is
    spelled like the gold answer, else its first character alone (nemo_rl/environments/math_environment.py), so that
    wrong answers pool, and right ones in another spelling with them.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    golds = read_latex(gold)
    found = parse(text, [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    printed_golds, printed = [str(e) for e in golds], [str(e) for e in found]  # raises, as there, if too large to print
    vote = next((p for p in printed if p.strip() in printed_golds), printed[0][:1] if printed else None)
    return verify(golds, found), vote


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
    import sympy.parsing.sympy_parser
    import sympy.physics.units  # noqa: F401  (passes names of its own through parse_expr when first imported)

    logging.disable(logging.CRITICAL)
    verify(read_latex("x^2+1"), read_latex(r"\frac{1}{2}"))
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


# ---------------------------------------------------------------- worker processes


def worker(deadline: float, memory_gb: float) -> None:
    """Answers a line of JSON with a line of JSON until stdin is closed; `Grader` runs it in processes of its own."""
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
            same_answer.cache_clear()
            read_latex.cache_clear()
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


@dataclass
class Verdict:
    """Two verdicts on one response."""

    authors: bool
    strict: bool
    answer: str | None  # content of the last box, or None
    timed_out: bool = False  # no verdict before the deadline, or two workers died of it: both are False
    vote: str | None = None  # the string that the authors' majority vote counts


START_DEADLINE = 300.0  # seconds that a worker may take to import math-verify and say that it is ready


class Worker:
    """A worker process and what it is busy with."""

    def __init__(self, deadline: float, memory_gb: float):
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from common.grading import worker; worker({deadline!r}, {memory_gb!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C is for the parent to answer
        )
        self.ready, self.sender = False, None
        self.finish()
        self.until = time.monotonic() + START_DEADLINE

    def start(self, number: int, task: dict, deadline: float) -> None:
        self.number, self.until = number, time.monotonic() + deadline
        # A worker that hangs leaves a long text in the pipe: a thread waits for it, not the parent and its deadlines.
        self.sender = threading.Thread(target=self.send, args=(json.dumps(task).encode() + b"\n",), daemon=True)
        self.sender.start()

    def send(self, line: bytes) -> None:
        try:
            self.process.stdin.write(line)
        except BrokenPipeError:
            pass  # it died: its stdout says so too

    def finish(self) -> None:
        self.number, self.until, self.received = None, math.inf, b""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.sender:
            self.sender.join()
        self.process.stdin.close()
        self.process.stdout.close()


class Grader:
    """Grades texts in worker processes.

    Order is kept, and no text makes `grade` raise: what hangs a worker or kills is marked in `Verdict.timed_out`, and a
    fresh worker takes the next text.

    Args:
        num_workers: processes, 0 for one a core but at most 16; each takes about 80 MB.
        deadline: seconds a response may take (the classes of one problem's answers: the same).
        memory_gb: address space a worker may take.
    """

    def __init__(self, num_workers: int = 0, deadline: float = 10.0, memory_gb: float = 2.0):
        if num_workers < 0:
            raise ValueError(f"--num-grading-workers {num_workers} must be 0 (one a core, at most 16) or more.")
        num_workers = num_workers or min(16, os.cpu_count() or 1)
        self.deadline, self.memory_gb = deadline, memory_gb
        self.workers = [Worker(deadline, memory_gb) for _ in range(num_workers)]

    def grade(self, texts: Sequence[str], problems: Sequence) -> list[Verdict]:
        """Gives a verdict per text; `problems` has as many items, with `.answer` and `.dataset`."""
        answers = [last_box(text) for text in texts]
        tasks = [
            {"text": text, "answer": answer, "gold": problem.answer, "tolerance": tolerance_of(problem.dataset)}
            for text, answer, problem in zip(texts, answers, problems, strict=True)
        ]
        return [
            Verdict(answer=answer, **reply) if reply else Verdict(False, False, answer, timed_out=True)
            for answer, reply in zip(answers, self._run(tasks), strict=True)
        ]

    def equivalence_classes(
        self, answers: Sequence[Sequence[str | None]], problems: Sequence
    ) -> list[list[int | None]]:
        """Gives a class number for each of the answers of each problem (None for no answer), for `maj_at_k`.

        Answers that mean the same share a class; where the comparison hangs, answers that are spelled the same.
        """
        spellings = [list(dict.fromkeys(a for a in row if a is not None)) for row in answers]
        tasks = [
            {"answers": spelled, "tolerance": tolerance_of(problem.dataset)}
            for spelled, problem in zip(spellings, problems, strict=True)
        ]
        several = [i for i, spelled in enumerate(spellings) if len(spelled) > 1]
        replies = dict(zip(several, self._run([tasks[i] for i in several]), strict=True))
        classes = []
        for i, (row, spelled) in enumerate(zip(answers, spellings, strict=True)):
            numbers = (replies.get(i) or {}).get("classes") or range(len(spelled))
            by_spelling = dict(zip(spelled, numbers, strict=True))
            classes.append([None if a is None else by_spelling[a] for a in row])
        return classes

    def close(self) -> None:
        while self.workers:
            self.workers.pop().kill()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _run(self, tasks: list[dict]) -> list[dict | None]:
        """Gives a reply per task, in order; None for one past the deadline, or that saw two workers die."""
        waiting, deaths = deque(range(len(tasks))), Counter()
        replies: list[dict | None] = [None] * len(tasks)
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            while waiting or any(worker.number is not None for worker in self.workers):
                for worker in self.workers:
                    if waiting and worker.ready and worker.number is None:
                        number = waiting.popleft()
                        worker.start(number, tasks[number], self.deadline)
                until = min(worker.until for worker in self.workers)
                events = selector.select(None if until == math.inf else max(0.0, until - time.monotonic()))
                for worker in [key.data for key, _ in events]:
                    chunk = os.read(worker.process.stdout.fileno(), 2**20)
                    worker.received += chunk
                    if not chunk:
                        if not worker.ready:
                            raise RuntimeError("A grading worker could not start: is math-verify installed?")
                        if worker.number is not None:
                            deaths[worker.number] += 1
                            if deaths[worker.number] < 2:  # perhaps not this text's fault
                                waiting.appendleft(worker.number)
                        self._replace(worker, selector)
                    elif worker.received.endswith(b"\n"):
                        if worker.ready:
                            replies[worker.number] = json.loads(worker.received)
                        worker.ready = True
                        worker.finish()
                for worker in list(self.workers):
                    if time.monotonic() > worker.until:
                        if not worker.ready:
                            raise RuntimeError(
                                f"A grading worker did not start in {START_DEADLINE:.0f} s. Is the disk slow?"
                            )
                        self._replace(worker, selector)
        return replies

    def _replace(self, worker: Worker, selector: selectors.BaseSelector) -> None:
        selector.unregister(worker.process.stdout)
        worker.kill()
        fresh = Worker(self.deadline, self.memory_gb)
        self.workers[self.workers.index(worker)] = fresh
        selector.register(fresh.process.stdout, selectors.EVENT_READ, fresh)


def tolerance_of(dataset: str) -> float:
    """Gives the relative tolerance of the strict verdict: 1 % for Minerva, whose answers are rounded, else none."""
    return 1e-2 if "minerva" in dataset.lower() else 0.0


# ---------------------------------------------------------------- metrics

MAJORITY_SUBSETS, MAJORITY_SEED = 1000, 0


def pass_at_k(n: int, c: int, k: int) -> float:
    """Gives the chance that k of n responses hold at least one of the c right ones: 1 - C(n-c,k)/C(n,k)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def subsets(n: int, k: int) -> np.ndarray:
    """Gives subsets of k of n places, (S, k): all if at most 1,000, else 1,000 random ones, always the same."""
    if math.comb(n, k) <= MAJORITY_SUBSETS:
        return np.array(list(combinations(range(n), k)))
    rng = np.random.default_rng(MAJORITY_SEED)
    return rng.permuted(np.tile(np.arange(n), (MAJORITY_SUBSETS, 1)), axis=1)[:, :k]


def maj_at_k(right: Sequence[bool], classes: Sequence[int | None], k: int) -> float:
    """Gives the chance that a majority vote of k of the n responses is right.

    All right responses are one class, wrong ones are classed by `classes` (None: no answer, which cannot win); a tie
    counts as the chance to pick the right class among the leaders.
    """
    labels = [-1 if r else c for r, c in zip(right, classes, strict=True)]
    names = [-1, *sorted({c for c in labels if c is not None and c >= 0})]
    belongs = np.array([[label == name for name in names] for label in labels])  # (n, classes)
    votes = belongs[subsets(len(labels), k)].sum(1)  # (S, classes)
    leads = (votes == votes.max(1, keepdims=True)) & (votes > 0)
    return float((leads[:, 0] / np.maximum(leads.sum(1), 1)).mean())


def maj_strings(right: Sequence[bool], votes: Sequence[str | None], k: int) -> float:
    """Gives the majority vote of k of n as the authors' code takes it: on extracted strings (`Verdict.vote`).

    No answer (None) is a string like any other. Of equal counts the first seen wins; it is right if its first one is.
    """
    wins = []
    for subset in subsets(len(votes), k).tolist():
        winner = Counter(votes[i] for i in subset).most_common(1)[0][0]
        wins.append(next(right[i] for i in subset if votes[i] == winner))
    return float(np.mean(wins))


def mean_and_se(values: Sequence[float], ids: Sequence[str] | None = None) -> tuple[float, float]:
    """Gives the mean over problems and its standard error.

    Rows with the same id (repeats of a problem) are averaged first: they are one draw of a problem, not several. The
    standard error is that of the bootstrap over problems in closed form: resampled means spread by std / sqrt(P).
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        raise ValueError("mean_and_se needs at least one problem.")
    if ids is not None:
        _, problem = np.unique(np.asarray(ids), return_inverse=True)
        values = np.bincount(problem, weights=values) / np.bincount(problem)
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
