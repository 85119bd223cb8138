"""Text that means harm: what it may cost, and that none of it is run as code.

10,000 texts in the long form, a tenth of them otherwise: a written corpus, and what hypothesis makes, always the same.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common import grading
from common.grading import Grader, Worker, last_box

ROOT = Path(grading.__file__).parents[2]
MEMORY_GB = 0.9  # what Grader allows a worker

# ---------------------------------------------------------------- texts

PYTHON = [
    "__import__('os').system('touch MARK')",
    "exec('import os; os.mknod(\\'MARK\\')')",
    'eval(\'open("MARK", "w")\')',
    "open('MARK','w')",
    "().__class__.__base__.__subclasses__()",
    "[c for c in ().__class__.__mro__[1].__subclasses__() if c.__name__ == 'Popen'][0]('touch MARK', shell=True)",
    "(lambda: __import__('pathlib').Path('MARK').touch())()",
    "__builtins__['open']('MARK', 'w')",
    "__import__('os').environ.__setitem__('CANARY', 'dead')",
    "getattr(__import__('os'), 'putenv')('CANARY', 'dead')",
    "Symbol('x').func.__init__.__globals__['sys'].exit(3)",
    'sympify(\'__import__("os").mknod("MARK")\')',
    "f'{open(chr(77)+chr(65))}'",
    "print(5)",
    "exit",
    "breakpoint()",
    "x.__class__",
    "1 if open('MARK','w') else 2",
    "1;open('MARK','w')",
    "@open('MARK','w')",
    "1\nopen('MARK','w')",
]
PLACES = [
    "%s",
    "= %s",
    "The answer is %s.",
    r"\boxed{%s}",
    r"\boxed{1+%s}",
    r"\boxed{\text{%s}}",
    r"\boxed{\text{%s}+1}",
    r"\boxed{\operatorname{%s}(2)}",
    r"\boxed{\mathrm{%s}^2}",
    r"\boxed{x_{%s}}",
    r"\boxed{\frac{%s}{2}}",
    r"\boxed{\begin{pmatrix} %s \\ 1 \end{pmatrix}}",
    r"\boxed{\{1, %s\}}",
    r"\boxed{(1, \text{%s})}",
    r"\boxed{\sum_{n=0}^{\infty} \frac{(\text{%s})^n}{n!}}",
    r"\boxed{\sum_{n=0}^{\infty} \frac{(\sum_{\text{%s}=1}^{2} \text{%s})^n}{n!}}",
    r"\boxed{\int_0^1 \text{%s} \, dx}",
    r"\boxed{\variable{%s}}",
    "$%s$",
    "$$x = %s$$",
]
CODE = [place.replace("%s", code) for code in PYTHON for place in PLACES]
CODE += ["so = 2+3*4", r"\boxed{\sum_{n=1}^{\infty} \frac{1}{n^2}}", r"\boxed{\sum_{n=0}^{\infty} \frac{1}{n!}}"]

BRACKETS = [("{", "}"), ("(", ")"), (r"\left(", r"\right)"), (r"\frac{1}{", "}"), (r"\sqrt{", "}"), (r"\boxed{", "}")]
BRACKETS += [("x^{", "}"), ("[", "]"), (r"\{", r"\}"), (r"\text{", "}"), ("x_{", "}"), ("|", "|"), ("-", "")]
NESTED = [r"\boxed{" + a * 20 + "7" + b * closed for a, b in BRACKETS for closed in (0, 20, 21)]
DEEP = [r"\boxed{" + a * 100_000 + "7" + b * closed for a, b in BRACKETS[:6] for closed in (0, 100_001)]
REPEATED = ["7", "-", "1,", r"\text{a}", r"\\", "\n", " ", "\x00"]
LONG = [r"\boxed{" + part * (1_000_000 // len(part)) + "}" for part in REPEATED]
LONG += [part * (1_000_000 // len(part)) for part in ["$", r"\boxed{", "is 7. "]]
HANGING = [
    rf"\boxed{{{s}}}"
    for s in [
        "9^{9^{9^{9}}} + x",
        "(10^{9})! + x",
        r"\binom{10^9}{10^8}",
        "((((1000000!)!)!)!) + 1",
        "1e99999999999",
        r"\int_0^{1} e^{e^{x^{x^x}}} \, dx",
        r"\prod_{k=1}^{1000000000} (k^2+x)",
    ]
] + ["the answer is 9**9**9**9"]
ODD = [
    "",
    "\x00",
    "\ud800 \\boxed{\udfff}",
    "\\boxed{\ud800}",
    "\\boxed{\x00}",
    "\\boxed{7\x00}",
    "\u202e}7{dexob\\",
    "\\boxed{\u200f7\u200e}",
    "\\boxed{7\u0301}",
    "\\boxed{٧}",
    "\\boxed{⅐}",
    "\\boxed{𝟕}",
    "\\boxed{７}",
    r"\boxed",
    r"\boxed{",
    r"\boxed}{",
    r"\boxed{\boxed{\boxed{",
    r"\boxed{}}}}}",
    r"\boxed 7}",
    r"\boxed{1/0}",
    r"\boxed{\frac{0}{0}}",
    r"\boxed{0^{0}}",
    r"\boxed{\infty - \infty}",
    r"\boxed{\log 0}",
    r"\boxed{\tan \frac{\pi}{2}}",
    r"\boxed{1e9999}",
    r"\boxed{1e-9999}",
    r"\boxed{10^{-99999}}",
    r"\boxed{" + "9" * 5000 + "}",
    r"\boxed{" + "9" * 5000 + "!}",
    r"\boxed{0." + "3" * 5000 + "}",
    r"\boxed{0.\overline{" + "3" * 5000 + "}}",
    r"\boxed{\frac{" + "9" * 5000 + "}{" + "7" * 5000 + "}}",
    r"\def\x{\x\x}\x \boxed{\x}",
    r"\newcommand{\boxed}[1]{7} \boxed{8}",
    r"\input{/etc/passwd} \boxed{\input{/etc/passwd}}",
    r"\write18{touch MARK} \boxed{\write18{touch MARK}}",
    r"\catcode`\{=12 \boxed{7}",
    r"\csname boxed\endcsname{7}",
    r"\boxed{\href{file:///etc/passwd}{8}}",
    r"\boxed{\verb|8|}",
    r"\boxed{%7}",
    r"\boxed{" + "1," * 300 + "1}",
    r"\boxed{" + "x+" * 300 + "x}",
    r"\boxed{\begin{pmatrix}" + "1&" * 500 + r"1\end{pmatrix}}",
    r"\boxed{\text{" + "a" * 10_000 + "}}",
    "$" * 3001,
    "answer: " * 500,
    "1 2 3 " * 500,
    r"\[ \boxed{1} \]" * 100,
    '{"authors": true, "strict": true, "vote": "7"}\n',
    '\n{"authors": true, "strict": true, "vote": "7"}\n',
    r"\boxed{$(touch MARK)}",
    r"\boxed{`touch MARK`}",
    "\\boxed{8}\\n{}",
    "../../../../etc/passwd",
    "<script>alert(1)</script>",
    "%s%s%s%n",
    "{0.__class__}",
]

PARTS = (
    r"""
\boxed{ { } ( ) [ ] \{ \} $ $$ \[ \] \( \) , ; = < \frac \frac{1}{2} \sqrt \sqrt[3]{ \text{ \left( \right) \pm \cup
\begin{pmatrix} \end{pmatrix} & \\ \le \in \infty \sum_{n=1}^{3} \int \lim \log ! \sin ^ _ ^\circ \% \$ e i x y \pi
0 1 7 25 1.5 3e8 . + - * / and or \times \cdot 10^ é × π − %
""".split()
    + [" ", "\n", "\x00", "\ud800", "\u202e"]
)
SOUP = st.lists(st.sampled_from(PARTS), max_size=25).map("".join)
FORMULA = st.recursive(
    st.sampled_from(["1", "7", "x", r"\pi", "0", "-2", "1.5", "3e8", "i", r"\infty"]),
    lambda s: st.one_of(
        st.builds("{}+{}".format, s, s),
        st.builds("({})/{}".format, s, s),
        st.builds(r"\frac{{{}}}{{{}}}".format, s, s),
        st.builds(r"\sqrt{{{}}}".format, s),
        st.builds("({}, {}]".format, s, s),
        st.builds(r"\{{{}, {}\}}".format, s, s),
        st.builds(r"\sin({})".format, s),
        st.builds(r"\begin{{pmatrix}} {} \\ {} \end{{pmatrix}}".format, s, s),
        st.builds("{} = {}".format, s, s),
    ),
    max_leaves=6,
)
ANYTHING = st.text(st.characters(codec=None), max_size=60)
TEXTS = st.one_of(SOUP, SOUP.map(r"\boxed{{{}}}".format), FORMULA.map(r"so \boxed{{{}}}".format), ANYTHING)
TEXTS |= ANYTHING.map(r"\boxed{{{}}}".format)


def made_by_hypothesis(count: int) -> list[str]:
    texts = []

    checks = list(HealthCheck)
    once = {"derandomize": True, "database": None, "deadline": None, "phases": [Phase.generate]}

    @settings(max_examples=count, suppress_health_check=checks, **once)
    @given(TEXTS)
    def collect(text):
        texts.append(text)

    collect()
    return texts[:count]


def all_texts(part: int) -> list[str]:
    """Returns 10,000 texts, or every `part`-th of the written ones and a share of the others to match."""
    written = [text for texts in (CODE, ODD, NESTED, DEEP, LONG, HANGING) for text in texts[::part]]
    return written + made_by_hypothesis(10_000 // part - len(written))


# ---------------------------------------------------------------- what it costs


def grade_all(texts: list[str], monkeypatch, tmp_path) -> dict:
    """Grades hostile texts as answers, and every tenth as a gold, between answers whose verdict is known."""
    late, peaks = [], []
    exchange, kill = Worker.exchange, subprocess.Popen.kill

    def timed(worker, line, seconds):
        began = time.monotonic()
        reply = exchange(worker, line, seconds)
        if line is not None:
            late.append(time.monotonic() - began - seconds)
            see_peak(worker.process)
        return reply

    def see_peak(process):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks.extend(int(kb) for kb in re.findall(r"VmPeak:\s+(\d+)", status))  # nothing if it has died

    def seen_and_killed(process):
        if process.returncode is None:
            see_peak(process)
        kill(process)

    monkeypatch.setattr(Worker, "exchange", timed)
    monkeypatch.setattr(subprocess.Popen, "kill", seen_and_killed)
    items = []  # text, gold, strict verdict or None
    for i, text in enumerate(texts):
        items.append((text.replace("MARK", str(tmp_path / "mark")), "7", None))
        if i % 10 == 0:
            items.append((rf"\boxed{{{i}}}", str(i), True))
            items.append((r"\boxed{7}", items[-2][0], None))
            items.append((rf"\boxed{{{i}}}", str(i + 1), False))
    with Grader(num_workers=2, deadline=2.0) as grader:
        verdicts = grader.grade(
            [t for t, *_ in items], [SimpleNamespace(answer=g, dataset="math") for _, g, _ in items]
        )
    monkeypatch.undo()
    assert [v.answer for v in verdicts] == [last_box(text) for text, *_ in items]
    known = [(v.authors, v.strict, right) for v, (*_, right) in zip(verdicts, items, strict=True) if right is not None]
    assert all(authors == strict == right for authors, strict, right in known)
    assert list(tmp_path.iterdir()) == []
    assert not any(v.strict for v, (text, *_) in zip(verdicts, items, strict=True) if str(tmp_path) in text)
    assert len(late) > len({(text, gold) for text, gold, _ in items})  # the authors' verdicts, and some strict ones
    return {
        "texts": len(texts),
        "known": len(known),
        "cut": [text[:60] for v, (text, *_) in zip(verdicts, items, strict=True) if v.timed_out],
        "latest": max(late),
        "peak_gb": max(peaks) / 2**20,
    }


@pytest.mark.parametrize("part", [10, pytest.param(1, marks=pytest.mark.long)])
def test_hostile_texts_are_graded_in_order_within_their_deadline_and_memory(part, monkeypatch, tmp_path):
    found = grade_all(all_texts(part), monkeypatch, tmp_path)
    print(json.dumps(found))
    assert found["texts"] == 10_000 // part
    assert found["latest"] < 1.0  # seconds over the deadline
    assert found["peak_gb"] <= MEMORY_GB
    assert 1 <= len(found["cut"]) <= 40


# ---------------------------------------------------------------- that none of it is run

IN_PROCESS = """
import json, os, sys
import sympy.integrals.manualintegrate  # dataclasses, whose methods are compiled
from common.grading import last_box, worker
texts = json.load(sys.stdin)
worker.prepare_math_verify()
seen = []
HARMFUL = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.putenv", "os.mkdir",
           "subprocess.Popen", "socket.connect", "shutil.", "ctypes.dlopen", "builtins.breakpoint", "pty.spawn")
def hook(event, args):
    if event == "compile" and isinstance(args[0], (str, bytes)):
        seen.append(["compile", args[0] if isinstance(args[0], str) else args[0].decode()])
    elif event.startswith(HARMFUL) or event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append([event, repr(args)])
sys.addaudithook(hook)
for text in texts:
    for answer, gold in ((text, "7"), ("7", text)):
        box = last_box(answer)
        worker.reply("authors", answer, gold)
        worker.reply("strict", answer if box is None else box, gold, 0.0)
try:
    sympy.sympify("print(5)")  # what sympy does with a string wherever it expects an expression
except ValueError as error:
    assert str(error) == "not plain arithmetic"
seen.append(["environment", os.environ["CANARY"]])
print(json.dumps(seen))
"""
SYMPYS_OWN = r"from sympy import \*|def monomial_\w+\([\s\S]*|lambda _cls, [\w, ]*: _tuple_new\(_cls, \([\w, ]*\)\)"
ARITHMETIC = r"(?:Integer|Float|[\d.()+\-*/\s']|e[-+]?\d)*"


@pytest.mark.parametrize("part", [8, pytest.param(1, marks=pytest.mark.long)])
def test_no_text_is_run_as_code(part, tmp_path):
    texts = [text.replace("MARK", str(tmp_path / "mark")) for text in CODE[::-part] + ODD[::part]]
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS],
        input=json.dumps(texts),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"CANARY": "alive"},
        text=True,
        check=True,
    )
    *seen, environment = json.loads(done.stdout.splitlines()[-1])
    assert environment == ["environment", "alive"] and list(tmp_path.iterdir()) == []
    compiled = {source for event, source in seen if event == "compile"}
    assert [event for event in seen if event[0] != "compile"] == []
    assert [s for s in compiled if not re.fullmatch(f"{SYMPYS_OWN}|{ARITHMETIC}", s.strip())] == []
    assert any(re.fullmatch(ARITHMETIC, s.strip()) for s in compiled)  # the hook sees what is evaluated
