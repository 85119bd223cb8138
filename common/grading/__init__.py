r"""Grading in worker processes, and the metrics computed from verdicts.

Every response gets two verdicts:
- `authors`: math-verify reads the whole response, with or without a box, and compares it with the gold answer in
  \boxed{}. This is the rule of NeMo RL's HFVerifyWorker, with its settings, which the paper's runs used.
- `strict`: only the last box is read, by a grammar of answers (answers/reader.py), and compared by the rule of the kind
  of answer that the gold is (strict.py). This corrects what the first rule gets wrong: e-notation (4.5e33 is read as
  4.5 * e * 33), tiny values (compared after rounding to 6 decimals), several boxes (read as one set), words (read as
  products of letters, so that east equals seat), capital letters (read as small ones), and much else.

Responses are untrusted text, on which sympy can hang or use up all memory. They are therefore graded in worker
processes (worker.py) with limited memory, which are killed at a deadline. Text travels as lines of JSON and is never
evaluated as code.
"""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

# Results files record this number, and math-verify's version, beside their verdicts. Raise it with every change that
# can turn a verdict, an extracted answer or a vote: results with another number are refused.
VERDICTS_VERSION = 2

# ---------------------------------------------------------------- the last box

BOX = re.compile(
    # \boxed{5} and \boxed 5, but neither "in \boxed form" nor "\boxed, as asked"
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(\{)|((?![A-Za-z]{2}|[,.;:!?)]+(?:\s|$))(?:[^\s{}$]|\{[^{}\s]*\})+))"
    r"|\\(?!\\(?:boxed|fbox))."  # an escaped character, such as \{, is not a brace that opens or closes
    r"|[{}]",
    re.DOTALL,
)
PLACEHOLDER = re.compile(r"\s*(?:\.\.\.|…|\\[lc]?dots|\\text\{(?:your |final )?answer\}|(?:your |final )?answer)?\s*")


def last_box(text: str) -> str | None:
    r"""Returns the content of the last complete \boxed or \fbox (of nested boxes the inner one), or None.

    A box that is empty or holds dots or the word "answer", as in "given in \boxed{} as asked", only counts if no other
    box does. Takes linear time.
    """
    last = blank = (-1, -1)  # where the contents of the last box and of the last such placeholder start and end
    opened = []  # for every open brace, where the content of its box starts; -1 for a brace that opens no box
    for token in BOX.finditer(text):
        if token[1]:
            opened.append(token.end())
            continue
        if token[0] == "{":
            opened.append(-1)
            continue
        span = token.span(2) if token[2] else (opened.pop(), token.start()) if token[0] == "}" and opened else (-1, -1)
        if span[0] >= 0 and span[1] - span[0] < 30 and PLACEHOLDER.fullmatch(text, *span):
            blank = max(blank, span)
        else:
            last = max(last, span)
    if last[0] < 0 or last[0] < blank[0] < last[1]:
        last = blank
    return None if last[0] < 0 else text[slice(*last)].strip()


# ---------------------------------------------------------------- verdicts and worker processes

START_DEADLINE = 300.0  # seconds a worker process may take to import math-verify


@dataclass
class Verdict:
    """The two verdicts on one response."""

    authors: bool
    strict: bool
    answer: str | None  # content of the last box; None without a box
    timed_out: bool = False  # at least one of the verdicts could not be computed, and is False for this reason
    vote: str | None = None  # the string that the authors' majority vote counts


class Worker:
    """A worker process, which is asked one question at a time by one thread at a time.

    A worker that hangs or dies over a question is replaced by a fresh process.
    """

    def __init__(self, deadline: float, memory_gb: float):
        self.deadline, self.memory_gb = deadline, memory_gb
        self.closed = False
        self.start()

    def start(self) -> None:
        serve = f"from common.grading.worker import serve; serve({self.deadline!r}, {self.memory_gb!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C in a terminal reaches the parent only, which may finish its step first
        )
        self.ready = False

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()  # waits for the end and closes both pipes

    def ask(self, question: tuple, seconds: float):
        """Returns the answer, or None if there is none within `seconds` or if two processes die over the question.

        The first death may have another cause, such as a machine short of memory, so the question is asked once more.

        Raises:
            RuntimeError: the process cannot be started.
        """
        for _ in range(2):
            self.wait_until_ready()
            asked = time.monotonic()
            line = self.exchange(json.dumps(question), seconds)
            if line:
                return json.loads(line)
            late = time.monotonic() - asked >= seconds
            self.stop()
            if self.closed:
                return None
            self.start()
            if late:
                return None
        return None

    def wait_until_ready(self) -> None:
        """Waits for the line that a process writes after its imports, so that no deadline includes them."""
        if self.ready:
            return
        began = time.monotonic()
        self.ready = bool(self.exchange(None, START_DEADLINE))
        if not self.ready and time.monotonic() - began >= START_DEADLINE:
            raise RuntimeError(f"A grading worker did not start in {START_DEADLINE:.0f} s. Is the disk slow?")
        if not self.ready:
            raise RuntimeError("A grading worker could not start: is math-verify installed?")

    def exchange(self, line: str | None, seconds: float) -> str:
        """Sends a line, if any, and returns the line that comes back; "" if the process dies or `seconds` run out."""
        timer = threading.Timer(seconds, self.process.kill)  # ends both the write and the read below
        timer.start()
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None  # they are pipes, see `start`
        try:
            if line is not None:
                stdin.write(line.encode() + b"\n")
                stdin.flush()
            reply = stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            timer.cancel()
        return reply.decode() if reply.endswith(b"\n") else ""  # a killed process may leave half a line


class Grader:
    """Grades texts in worker processes, each driven by a thread.

    No text makes `grade` raise, and every verdict has its own time limit: where one cannot be computed, it is False,
    `Verdict.timed_out` is set, and the other verdict is still given.

    Args:
        num_workers: number of processes; 0 for one per core, at most 16. A worker usually takes about 80 MB.
        deadline: seconds spent on one response, half of them for each verdict, and on the equivalence classes of one
            problem's answers. Time in which a process starts does not count.
        memory_gb: GiB of address space per worker. 16 workers can never take more than 14.4 GiB by default.
    """

    def __init__(self, num_workers: int = 0, deadline: float = 10.0, memory_gb: float = 0.9):
        if num_workers < 0:
            raise ValueError(f"--num-grading-workers {num_workers} must be 0 (one a core, at most 16) or more.")
        num_workers = num_workers or min(16, os.cpu_count() or 1)
        self.deadline = deadline
        self.workers = [Worker(deadline, memory_gb) for _ in range(num_workers)]
        self.threads = ThreadPoolExecutor(num_workers, thread_name_prefix="grading")
        self.idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.workers:
            self.idle.put(worker)

    def grade(self, texts: Sequence[str], problems: Sequence) -> list[Verdict]:
        """Returns one verdict per text, in order.

        Args:
            texts: B responses.
            problems: the problem of each response (B), with `.answer` and `.dataset`.
        """
        boxes = [last_box(text) for text in texts]
        authors, strict = [], []
        for text, box, problem in zip(texts, boxes, problems, strict=True):
            authors.append(("authors", text, problem.answer))
            strict.append(None if box is None else ("strict", box, problem.answer, tolerance_of(problem.dataset)))
        replies = self._ask_all([*authors, *strict], self.deadline / 2)

        verdicts = []
        for box, authors_question, strict_question in zip(boxes, authors, strict, strict=True):
            authors_reply = replies[authors_question]
            strict_reply = False if strict_question is None else replies[strict_question]
            right, vote = authors_reply or (False, None)
            timed_out = authors_reply is None or strict_reply is None
            verdicts.append(Verdict(right, bool(strict_reply), box, timed_out, vote))
        return verdicts

    def equivalence_classes(
        self, answers: Sequence[Sequence[str | None]], problems: Sequence
    ) -> list[list[int | None]]:
        """Returns a class number for each answer of each problem (None for no answer), for `maj_at_k`.

        Answers that mean the same share a class. If the comparison of a problem's answers hangs or fails, only answers
        with the same spelling do.
        """
        spellings = [tuple(dict.fromkeys(a for a in row if a is not None)) for row in answers]
        questions = [
            ("classes", spelled, tolerance_of(problem.dataset)) if len(spelled) > 1 else None
            for spelled, problem in zip(spellings, problems, strict=True)
        ]
        replies = self._ask_all(questions, self.deadline)
        classes = []
        for row, spelled, question in zip(answers, spellings, questions, strict=True):
            numbers = (question and replies[question]) or range(len(spelled))
            class_of = dict(zip(spelled, numbers, strict=True))
            classes.append([None if a is None else class_of[a] for a in row])
        return classes

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        for worker in self.workers:
            worker.closed = True
            worker.process.kill()
        self.threads.shutdown(cancel_futures=True)
        while self.workers:
            self.workers.pop().stop()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask_all(self, questions: Sequence[tuple | None], seconds: float) -> dict[tuple, Any]:
        """Returns the reply to each question, None if there was none. Equal questions are asked once."""
        distinct = [question for question in dict.fromkeys(questions) if question is not None]

        def ask(question: tuple):
            worker = self.idle.get()
            try:
                return worker.ask(question, seconds)
            finally:
                self.idle.put(worker)

        try:
            return dict(zip(distinct, self.threads.map(ask, distinct), strict=True))
        except KeyboardInterrupt:
            self.close()  # else Python would wait for its threads, and they for their deadlines
            raise


def tolerance_of(dataset: str) -> float:
    """Returns the relative tolerance of the strict verdict: 1 % for Minerva, whose answers are rounded, otherwise 0."""
    return 1e-2 if "minerva" in dataset.lower() else 0.0


# ---------------------------------------------------------------- metrics

MAJORITY_SUBSETS, MAJORITY_SEED = 1000, 0  # number of random subsets, and the seed that makes them always the same


def pass_at_k(n: int, c: int, k: int) -> float:
    """Returns the probability that k responses, drawn from n without replacement, contain at least one of the c right
    ones: 1 - C(n-c, k) / C(n, k).

    Raises:
        ValueError: not 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def subsets(n: int, k: int) -> np.ndarray:
    """Returns subsets of k of the indices 0 ... n-1, (S, k): all of them if there are at most 1,000, otherwise 1,000
    random ones, the same at every call."""
    if math.comb(n, k) <= MAJORITY_SUBSETS:
        return np.array(list(combinations(range(n), k)))
    rng = np.random.default_rng(MAJORITY_SEED)
    return rng.permuted(np.tile(np.arange(n), (MAJORITY_SUBSETS, 1)), axis=1)[:, :k]


def maj_at_k(right: Sequence[bool], classes: Sequence[int | None], k: int) -> float:
    """Returns the probability that a majority vote of k responses, drawn from n without replacement, is right.

    All right responses form one class. Ties are broken at random: a right class among m leaders counts as 1/m.

    Args:
        right: the verdict on each response (n).
        classes: the equivalence class of each response's answer (n); None for no answer, which gets no vote.
        k: number of responses that vote.
    """
    labels = [-1 if r else c for r, c in zip(right, classes, strict=True)]
    names = [-1, *sorted({c for c in labels if c is not None and c >= 0})]
    belongs = np.array([[label == name for name in names] for label in labels])  # (n, classes)
    votes = belongs[subsets(len(labels), k)].sum(1)  # (S, classes)
    leads = (votes == votes.max(1, keepdims=True)) & (votes > 0)
    return float((leads[:, 0] / np.maximum(leads.sum(1), 1)).mean())


def maj_strings(right: Sequence[bool], votes: Sequence[str | None], k: int) -> float:
    """Returns the probability that a majority vote is right as the authors' code counts it, by extracted strings.

    None (nothing was extracted) is counted like a string. Of several strings with the most votes, the one seen first
    wins. The winner is right if the first response with this string is.

    Args:
        right: the verdict on each response (n).
        votes: `Verdict.vote` of each response (n).
        k: number of responses that vote.
    """
    wins = []
    for subset in subsets(len(votes), k).tolist():
        winner = Counter(votes[i] for i in subset).most_common(1)[0][0]
        wins.append(next(right[i] for i in subset if votes[i] == winner))
    return float(np.mean(wins))


def mean_and_se(values: Sequence[float], problems: Sequence[str] | None = None) -> tuple[float, float]:
    """Returns the mean over problems and its standard error, s / sqrt(P) with the unbiased variance s^2.

    The standard error of a single problem is unknown: nan.

    Args:
        values: a value per row.
        problems: the problem of each row. Rows of the same problem are averaged first, since they are one draw of a
            problem and not several. By default each row is a problem of its own.

    Raises:
        ValueError: there are no values.
    """
    samples = np.asarray(values, dtype=float)
    if len(samples) == 0:
        raise ValueError("mean_and_se needs at least one problem.")
    if problems is not None:
        _, rows = np.unique(np.asarray(problems), return_inverse=True)
        samples = np.bincount(rows, weights=samples) / np.bincount(rows)
    se = samples.std(ddof=1) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan
    return float(samples.mean()), float(se)
