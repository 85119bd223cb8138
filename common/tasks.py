"""Tasks that ask a sampler again and again, each at its own pace: the loop, a journal that survives a kill, progress,
and the records of the answers that they end with.

A task has a `name` (of a file too), `steps`, a generator that yields lists of requests (common/rollout; key: name,
place in the list), is sent their samples in that order and ends when it is done, `step` of `num_steps`, and `chains`,
dataclasses with index, y (the answer, a Sample) and the counts that the record is to hold. What it asks hangs on
earlier samples only: so the journal can take it back to where it was.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

from common.data import Problem
from common.evaluate import ResponsesFile, grade_records, new_record
from common.grading import Grader
from common.rollout import Rollout, Sample


def advance(task, samples: list[Sample] | None = None) -> None:
    """Sends a task what it waits for (None at its beginning); `task.requests` is what it then asks, [] at its end."""
    try:
        task.requests = task.steps.send(samples)
    except StopIteration:
        task.requests = []


class Journal:
    """The samples of unfinished tasks, a file each. Appended to whenever a task goes on."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, task) -> Path:
        return self.folder / f"{task.name}.jsonl"

    def add(self, task, samples: list[Sample]) -> None:
        with self.path(task).open("a") as file:
            file.write(json.dumps([vars(sample) | {"key": None} for sample in samples]) + "\n")

    def replay(self, task) -> None:
        """Takes a task that has begun to where the one of its name was interrupted."""
        lines = self.path(task).read_text().splitlines(keepends=True) if self.path(task).exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # a kill cut the last one off
            self.path(task).write_text("".join(whole))
        for line in whole:
            advance(task, [Sample(**sample) for sample in json.loads(line)])


class Progress:
    """A line every ten seconds and at the end: moves, acceptance, tokens a second, time left."""

    def __init__(self, title: str, num_tasks: int):
        self.title, self.num_tasks, self.tokens, self.ended = title, num_tasks, 0, Counter()
        self.start = self.shown = time.perf_counter()
        self.share_before: float | None = None  # done by an earlier start of the program

    @staticmethod
    def tally(task) -> Counter:
        moves, accepted = (sum(getattr(chain, key) for chain in task.chains) for key in ("moves", "accepted"))
        return Counter(moves=moves, accepted=accepted, share=task.step / task.num_steps if task.requests else 1)

    def show(self, running: Iterable) -> None:
        now, running = time.perf_counter(), list(running)
        if self.share_before is not None and now - self.shown < 10 and running:
            return
        tally = sum(map(self.tally, running), self.ended)
        share, seconds, self.shown = tally["share"] / max(1, self.num_tasks), now - self.start, now
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


def run_tasks(sampler, tasks: Iterable, at_once: int, journal: Journal, progress: Progress) -> Iterator:
    """Gives the tasks as they end; `at_once` of them run.

    A task's next requests are submitted the moment its last ones are judged: with vLLM no task waits for another. The
    transformers sampler samples all that were submitted in one batch.
    """
    waiting, running, arrived, ended = iter(tasks), {}, {}, []

    def go_on(task) -> None:
        if task.requests:
            running[task.name], arrived[task.name] = task, {}
            for request in task.requests:
                sampler.submit(request)
        else:
            running.pop(task.name, None)
            progress.ended += progress.tally(task)
            ended.append(task)

    while True:
        while len(running) < at_once and (task := next(waiting, None)):
            advance(task)
            journal.replay(task)
            go_on(task)
        progress.show(running.values())
        yield from ended
        ended.clear()
        if not running:
            return
        for sample in sampler.collect():
            name, place = sample.key
            task = running[name]
            arrived[name][place] = sample
            progress.tokens += len(sample.tokens)
            if len(arrived[name]) == len(task.requests):
                samples = [arrived[name][i] for i in range(len(task.requests))]
                journal.add(task, samples)
                advance(task, samples)
                go_on(task)


def sample_problems(sampler, tokenizer, grader: Grader, work: list, at_once: int, path: Path, file: ResponsesFile):
    """Runs the tasks of `work`, a list of (problem, prompt, tasks); a problem is written when its last one ends.

    The record is that of common/evaluate.py with `chains`: a list of each of their fields but index and answer.
    """
    journal = Journal(path.with_suffix(".moves") / file.path.stem)  # each process has its own
    before = sum(part.stat().st_size for part in [*journal.folder.iterdir(), *file.folder.glob(file.path.name)])
    # For vLLM's proposals. A run that is taken up again has written more bytes, so that it draws other numbers.
    sampler.seed_requests(f"power {file.settings['dataset']}", file.settings["seed"], before)

    def write(problem: Problem, prompt: list[int], tasks: list, seconds: float) -> None:
        chains = sorted((chain for task in tasks for chain in task.chains), key=lambda chain: chain.index)
        tokens, token_logp = [chain.y.tokens for chain in chains], [chain.y.logp for chain in chains]
        rollout = Rollout([prompt], tokens, token_logp, [y[-1] in sampler.stop_ids for y in tokens], len(chains))
        texts = rollout.texts(tokenizer, sampler.stop_ids)
        columns = texts, [*map(len, tokens)], rollout.finished, [*map(sum, token_logp)]
        generated = sum(chain.generated_tokens for chain in chains)
        record = new_record(problem, prompt, *columns, seconds=seconds, generated_tokens=generated)
        names = [f.name for f in fields(chains[0]) if f.name not in ("index", "y")]
        record["chains"] = {name: [getattr(chain, name) for chain in chains] for name in names}
        grade_records(grader, [problem], [record])
        file.append([record])
        while tasks:  # frees their memory too
            journal.path(tasks.pop()).unlink(missing_ok=True)

    of = {task.name: item for item in work for task in item[2]}
    ended, written, start = Counter(), [], time.perf_counter()
    with ThreadPoolExecutor(1) as beside:  # a hard case for the grader should not hold up the sampler
        tasks = (task for *_, tasks in work for task in tasks)
        for task in run_tasks(sampler, tasks, max(1, at_once), journal, Progress(path.stem, len(of))):
            problem, prompt, siblings = of[task.name]
            ended[problem.id] += 1
            if ended[problem.id] == len(siblings):
                seconds, start = time.perf_counter() - start, time.perf_counter()
                written.append(beside.submit(write, problem, prompt, siblings, seconds))
    for future in written:
        future.result()
