"""Tasks that ask a sampler again and again, each at its own pace: the loop, a journal that survives a kill, progress.

A task has a `name` (of a file too), `requests` (what it waits for: common/logz.py; key: name, place in the list; [] at
its end), `advance(samples)` (takes their samples in that order, then asks anew) and `tally()` (a Counter with moves,
accepted, and share, how much of it is done). What it asks hangs on earlier samples only: so the journal can take it
back to where it was.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.logz import Sample


class Journal:
    """The samples of unfinished tasks, a file each. Appended to whenever a task goes on."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, task) -> Path:
        return self.folder / f"{task.name}.jsonl"

    def add(self, task, samples: list[Sample]) -> None:
        with self.path(task).open("a") as file:
            file.write(json.dumps([list(vars(sample).values())[1:] for sample in samples]) + "\n")

    def replay(self, task) -> None:
        """Takes a new task to where the one of its name was interrupted."""
        lines = self.path(task).read_text().splitlines(keepends=True) if self.path(task).exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # a kill cut the last one off
            self.path(task).write_text("".join(whole))
        for line in whole:
            task.advance([Sample(r.key, *lists) for r, lists in zip(task.requests, json.loads(line), strict=True)])


class Progress:
    """A line every ten seconds: moves, acceptance, tokens a second, time left."""

    def __init__(self, title: str, num_tasks: int):
        self.title, self.num_tasks, self.tokens, self.ended = title, num_tasks, 0, Counter()
        self.start = self.shown = time.perf_counter()
        self.share_before: float | None = None  # done by an earlier start of the program

    def show(self, running: Iterable) -> None:
        now = time.perf_counter()
        if self.share_before is not None and now - self.shown < 10:
            return
        tally = sum((task.tally() for task in running), self.ended)
        share, seconds, self.shown = tally["share"] / self.num_tasks, now - self.start, now
        if self.share_before is None:
            self.share_before = share
        elif share > self.share_before:
            left = seconds * (1 - share) / (share - self.share_before)
            acceptance = tally["accepted"] / max(1, tally["moves"])
            print(
                f"{self.title}  {share:.1%}  {tally['moves']:,} moves  acceptance {acceptance:.3f}  "
                f"{self.tokens / seconds:,.0f} tokens/s  left {left / 60:.1f} min",
                flush=True,
            )


def run_tasks(sampler, tasks: Iterator, at_once: int, journal: Journal, progress: Progress) -> Iterator:
    """Gives the tasks as they end; `at_once` of them run.

    A task's next requests are submitted the moment its last ones are judged: with vLLM no task waits for another. The
    transformers sampler samples all that were submitted in one batch.
    """
    running, arrived, ended = {}, {}, []

    def go_on(task) -> None:
        if task.requests:
            running[task.name], arrived[task.name] = task, {}
            for request in task.requests:
                sampler.submit(request)
        else:
            running.pop(task.name, None)
            progress.ended += task.tally()
            ended.append(task)

    while True:
        while len(running) < at_once and (task := next(tasks, None)):
            journal.replay(task)
            go_on(task)
        yield from ended
        ended.clear()
        if not running:
            return
        progress.show(running.values())
        for sample in sampler.collect():
            name, place = sample.key
            task = running[name]
            arrived[name][place] = sample
            progress.tokens += len(sample.tokens)
            if len(arrived[name]) == len(task.requests):
                samples = [arrived[name][i] for i in range(len(task.requests))]
                journal.add(task, samples)
                task.advance(samples)
                go_on(task)
