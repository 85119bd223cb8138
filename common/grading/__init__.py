r"""Grading in worker processes, and the metrics made of verdicts.

Every response gets two verdicts:
- `authors`: math-verify over the whole response, no box needed, the gold answer wrapped in \boxed{}. The rule of
  NeMo RL's HFVerifyWorker, which the paper's runs used, with the same settings.
- `strict`: the last box alone. It repairs what that rule gets wrong: e-notation (4.5e33 is read as 4.5 * e * 33), tiny
  values (compared after rounding to 6 decimals), several boxes, words (read as products of letters: east = seat).

Responses are untrusted text, and sympy can hang or take all memory on them. So they are graded in worker processes with
bounded memory, which the parent kills at a deadline. Text travels as lines of JSON; none of it is evaluated as code
(worker.py).
"""

import json
import math
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------- the last box

BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(\{)|((?![A-Za-z]{2}|[,.;:!?)])(?:[^\s{}$]|\{[^{}\s]*\})+))"  # \boxed{5} and \boxed 5,
    # not "in \boxed form" or "\boxed, as asked"
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


# ---------------------------------------------------------------- verdicts and worker processes


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
            [sys.executable, "-c", f"from common.grading.worker import serve; serve({deadline!r}, {memory_gb!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parents[2],
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
