"""Runs the rows of a table: python -m benchmark.run_rows --folder FOLDER < ROWS

ROWS, on standard input, is what the table scripts print:

    # NAME [needs OTHER...]          begins a row; the rows that it needs must be complete
    #   Math-500 66.9 87.9 72.1      two spaces or more after the #: a note, shown above the commands by --dry-run
    torchrun ... rloo_task.py ...    a command; the commands of a row run in order, up to the first that fails

A word with a `*` stands for the one path that matches it. Rows run in order. FOLDER/logs/NAME.log keeps what a row
printed. FOLDER/done/NAME lists the commands that have succeeded: a complete row is skipped, and a row that was stopped
continues with its next command, a training run from its newest saved state. If a command of a row has changed, the row
starts again, and its run folder is moved to FOLDER/replaced. When a row is complete, the resume/ folder of its run is
deleted, since it takes 12 bytes a parameter. A row that fails does not stop the others: the failed rows are listed at
the end with their logs, and the exit code is 1.

Each command is a process of its own, so it may be torchrun. With --in-process N, the rows run inside N processes
instead, which import the scripts once and share one sampler and one pool of grading workers between training and
evaluation rows of the same model: much faster for small models. On a GPU N is 1, and the process can hold one vLLM
engine, so power sampling and beam search need an input of their own, without --in-process.
"""

import argparse
import fcntl
import gc
import glob
import importlib.util
import inspect
import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TextIO

# Only the standard library is imported here: --dry-run works before anything is installed.

ROOT = Path(__file__).resolve().parent.parent
STOPPED = 75  # exit code of a script that was stopped by a signal, see common/run


class RowError(Exception):
    """A row that cannot run, with what to do about it."""


@dataclass
class Row:
    name: str
    needs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The row as it stands in the input."""
        header = " ".join(["#", self.name, *(["needs", *self.needs] if self.needs else [])])
        return "\n".join([header, *(f"#   {note}" for note in self.notes), *self.commands])


def read_rows(text: str) -> list[Row]:
    """Returns the rows of an input. Raises ValueError for a command before the first name, a name that occurs twice,
    and a row without commands."""
    rows: list[Row] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("# ") and line[2] != " ":
            name, *needs = line[2:].split()
            rows.append(Row(name, needs[1:]))
        elif not rows:
            raise ValueError(f"'{line}' belongs to no row: begin the input with a line '# NAME'.")
        elif line.startswith("#"):
            rows[-1].notes.append(line.lstrip("# "))
        else:
            rows[-1].commands.append(line)
    names = [row.name for row in rows]
    wrong = sorted({row.name for row in rows if names.count(row.name) > 1 or not row.commands})
    if wrong:
        raise ValueError(f"rows that occur twice or have no command: {', '.join(wrong)}.")
    return rows


# --- what has been done -----------------------------------------------------------------------------------------------


def completed_commands(name: str, folder: Path) -> list[str]:
    """The commands that a row has completed: all of them are in done/NAME, some of them in done/NAME.part."""
    for mark in (folder / "done" / name, folder / "done" / f"{name}.part"):
        if mark.exists():
            return mark.read_text().splitlines()
    return []


def is_complete(row: Row, folder: Path) -> bool:
    return (folder / "done" / row.name).exists() and completed_commands(row.name, folder) == row.commands


def start_again(name: str, folder: Path) -> None:
    """Moves what a row has left out of the way, since its commands have changed."""
    for run in sorted(folder.glob(f"{name}__*")):
        (folder / "replaced").mkdir(exist_ok=True)
        shutil.move(run, folder / "replaced" / run.name)
    for mark in (folder / "done" / name, folder / "done" / f"{name}.part"):
        mark.unlink(missing_ok=True)


def argument(words: list[str], name: str, default: str = "") -> str:
    """The value of an argument of a command line."""
    return words[words.index(name) + 1] if name in words[:-1] else default


def to_call(command: str) -> str | None:
    """The command as it has to be called now: with --resume for a training run that was stopped, None for one that is
    finished. A run that was stopped before its first checkpoint is deleted and starts again. Other commands are
    returned as they are: they know themselves what they have done."""
    words = shlex.split(command)
    name, output = argument(words, "--exp-name"), Path(argument(words, "--output-dir", "runs"))
    runs = output.glob(f"{name}__*") if name else []
    for run in sorted(runs, key=lambda run: run.name.rsplit("__", 1)[-1], reverse=True):  # the newest first
        checkpoints = {path.parent.name for path in run.glob("checkpoints/step_*/config.json")}
        if f"step_{int(argument(words, '--num-steps', '500')):06d}" in checkpoints:
            return None
        if (run / "resume" / "latest.json").exists():
            return f"{command} --resume {run}"
        if checkpoints:
            raise RowError(f"{run} was stopped and has no resume/ to continue from: move it away.")
        shutil.rmtree(run)
    return command


def with_paths(command: str) -> str:
    """The command with each word that has a `*` replaced by the one path that matches it."""

    def one_path(match: re.Match) -> str:
        found = sorted(glob.glob(match[0]))
        if len(found) != 1:
            raise RowError(f"{match[0]} matches {len(found)} paths, not one{': ' * bool(found)}{', '.join(found)}.")
        return shlex.quote(found[0])

    return re.sub(r"\S*\*\S*", one_path, command)


# --- a row ------------------------------------------------------------------------------------------------------------


def run_row(row: Row, folder: Path, run_command: Callable[[str, TextIO], None]) -> float:
    """Runs what is left of a row and returns the seconds it took. Output goes to the row's log, with the traceback of
    what went wrong, which is raised again. `run_command` gets a command and the log."""
    start = time.perf_counter()
    part = folder / "done" / f"{row.name}.part"
    with (folder / "logs" / f"{row.name}.log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            lock(log, row.name)
            if is_complete(row, folder):  # another process has finished it since this one began
                return 0.0
            done = completed_commands(row.name, folder)
            if done != row.commands[: len(done)]:
                start_again(row.name, folder)
                done = []
            missing = [other for other in row.needs if not (folder / "done" / other).exists()]
            if missing:
                raise RowError(f"needs {', '.join(missing)}, which is not complete")
            for command in row.commands[len(done) :]:
                call = to_call(command)
                if call:
                    print(f"+ {call}", flush=True)
                    run_command(with_paths(call), log)
                with part.open("a") as mark:
                    mark.write(f"{command}\n")
            part.rename(folder / "done" / row.name)
        except BaseException:
            traceback.print_exc()
            raise
    for resume in folder.glob(f"{row.name}__*/resume"):
        shutil.rmtree(resume)
    return time.perf_counter() - start


def lock(log: TextIO, name: str) -> None:
    """Locks a row by its log until that is closed. Raises RowError if another process holds the lock: after the shell
    script alone was killed, for instance, the rows that it started run on."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RowError(f"{name} is running in another process: wait for it, or stop it, and call again") from None


class Processes:
    """Runs each command as a process of its own. A signal is passed on to the process that runs, which may need a while
    to save its state, and no other is started."""

    def __init__(self):
        self.running: subprocess.Popen | None = None
        self.stopping = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, _) -> None:
        self.stopping = True
        if self.running:
            self.running.send_signal(number)

    def __call__(self, command: str, log: TextIO) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        pipes = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.running = subprocess.Popen(["bash", "-c", command], start_new_session=True, **pipes)
        code = self.running.wait()
        if self.stopping or code == STOPPED:
            raise KeyboardInterrupt
        if code:
            raise RowError(f"exit code {code}")


# --- in a process that runs rows --------------------------------------------------------------------------------------


class Open:
    """A sampler or a pool of grading workers that outlives the scripts that close it."""

    def __init__(self, part):
        self._part = part

    def __getattr__(self, name: str):
        return getattr(self._part, name)

    def close(self) -> None:
        pass


ENGINE_SHARE = 0.4  # of a GPU's memory at most, also for evaluation: training has to fit beside the engine


class Shared:
    """The samplers and grading workers of this process. Scripts get them as arguments of their `main`."""

    def __init__(self):
        self.samplers, self.graders = {}, {}

    def grader(self, args) -> Open:
        from common.grading import Grader

        workers = args.num_grading_workers
        if workers not in self.graders:
            self.graders[workers] = Open(Grader(workers))
        return self.graders[workers]

    def sampler(self, args, trains: bool) -> Open:
        """The sampler that another row has left, if model shape, window, stop ids and precision agree; else a new one.
        For an evaluation of a model it has the model's weights. A training run, and an evaluation of its checkpoints,
        push weights themselves: for these it sleeps."""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from common.logprob import weights
        from common.rollout import start_sampler, stop_token_ids
        from common.run import compute_dtype, resolve_model, start_processes

        device, model = start_processes(args.seed), resolve_model(args.model or a_checkpoint(args.run[0]))
        shape = AutoConfig.from_pretrained(model).to_diff_dict()
        no_part = ("transformers_version", "use_cache", "dtype", "_name_or_path")
        token_ids = ("bos_token_id", "eos_token_id", "pad_token_id")  # a checkpoint has [2] where the model had 2
        for name in (*no_part, *token_ids):
            shape.pop(name, None)
        options = {
            "dtype": compute_dtype(getattr(args, "dtype", "auto"), device),
            "stop_ids": stop_token_ids(model, AutoTokenizer.from_pretrained(model)),
            "gpu_memory_utilization": min(args.gpu_memory_utilization, ENGINE_SHARE),
        }
        key = json.dumps([args.sampler, args.max_total_tokens, shape, options], sort_keys=True, default=str)
        if key not in self.samplers:
            engines = [sampler for sampler in self.samplers.values() if hasattr(sampler, "llm")]
            if device.type == "cuda" and args.sampler != "transformers" and engines:
                raise RowError("this row needs a second engine on the GPU: put it into another input, see run_rows.py.")
            started = start_sampler(args.sampler, model, args.max_total_tokens, device=device, **options)
            self.samplers[key] = Open(started)
        if trains or not args.model:
            self.samplers[key].sleep()
        else:
            self.samplers[key].push(weights(AutoModelForCausalLM.from_pretrained(model, dtype="auto")))
        return self.samplers[key]

    def sleep(self) -> None:
        for sampler in self.samplers.values():
            sampler.sleep()


def a_checkpoint(run: str) -> str:
    """One of the checkpoints of a run; they have one shape."""
    found = sorted(Path(run).glob("checkpoints/step_*"))
    if not found:
        raise RowError(f"{run} has no checkpoint to evaluate.")
    return str(found[0])


@cache
def shared() -> Shared:
    return Shared()


def set_up_process() -> None:
    """For a process that runs rows: it ends with the program that started it, lest two of them work in one folder."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@cache
def load(program: str) -> ModuleType:
    """A script by its path, or a module by its dotted name."""
    if not program.endswith(".py"):
        return importlib.import_module(program)
    path = Path(program) if Path(program).is_absolute() else ROOT / program
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_here(command: str, _: TextIO) -> None:
    """Runs a command of a script or module of this project inside this process."""
    import tyro

    words = [word for word in shlex.split(command) if word not in ("python", "python3", "-m")]
    module = load(words[0])
    args = tyro.cli(module.Args, args=words[1:])
    parts = {}
    if "grader" in inspect.signature(module.main).parameters:
        parts["grader"] = shared().grader(args)
    if hasattr(module, "objective") or module.__name__ == "common.evaluate":  # others start samplers of another kind
        parts["sampler"] = shared().sampler(args, trains=hasattr(module, "objective"))
    module.main(args, **parts)
    gc.collect()
    shared().sleep()


def run_row_here(row: Row, folder: Path) -> float:
    """`run_row` inside this process."""
    try:
        return run_row(row, folder, run_here)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) == STOPPED:
            os._exit(STOPPED)  # else this process would begin the next row
        raise


# --- the program ------------------------------------------------------------------------------------------------------


def run_one_by_one(rows: list[Row], folder: Path) -> Iterator[tuple[Row, Callable[[], float]]]:
    """Yields each row with a function that runs it."""
    run_command = Processes()
    for row in rows:
        print(f"{row.name}: begun {time.strftime('%F %T')}, log {folder / 'logs' / row.name}.log", flush=True)
        yield row, partial(run_row, row, folder, run_command)


def run_in_processes(rows: list[Row], folder: Path, processes: int) -> Iterator[tuple[Row, Callable[[], float]]]:
    """Yields each row as it ends, with a function that returns its seconds or raises what it raised. Raises RowError
    for several processes on a GPU."""
    import torch

    if processes > 1 and torch.cuda.is_available():
        raise RowError(
            f"--in-process {processes}: the processes would share one GPU, where vLLM fails: --in-process 1."
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), set_up_process) as pool:
        futures = {pool.submit(run_row_here, row, folder): row for row in rows}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def run(rows: list[Row], folder: Path, processes: int, show: str) -> int:
    """Runs the rows that are not complete. Returns the exit code."""
    for name in ("done", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    todo = [row for row in rows if not is_complete(row, folder)]
    print(f"{len(rows) - len(todo)} of {len(rows)} rows are complete", flush=True)
    failed, start = [], time.perf_counter()
    ended = run_in_processes(todo, folder, processes) if processes else run_one_by_one(todo, folder)
    for count, (row, result) in enumerate(ended, 1):
        log = folder / "logs" / f"{row.name}.log"
        try:
            said = f"{result():.0f} s"
        except BrokenProcessPool:
            sys.exit("a process was killed, perhaps for lack of memory: call again to continue, or use fewer processes")
        except (Exception, SystemExit) as error:  # whatever a script raises, the other rows run
            failed.append(f"{row.name}: {error if isinstance(error, RowError) else type(error).__name__}, log {log}")
            said = "FAILED"
        minutes = (time.perf_counter() - start) / count * (len(todo) - count) / 60
        print(f"{count}/{len(todo)}  {row.name}  {said}  left {minutes:.0f} min", flush=True)
        for line in log.read_text(errors="replace").splitlines() if show else []:
            if re.search(show, line):
                print(f"    {line}", flush=True)
    if failed:
        print("\n".join(["rows that failed:", *failed]), file=sys.stderr)
    return int(bool(failed))


def chosen(rows: list[Row], patterns: list[str], part: bool) -> list[Row]:
    """The rows whose name matches every pattern. Raises ValueError for a malformed pattern, and if no row matches
    unless the rows are only a `part` of all. No rows at all are no error: table scripts check their arguments so."""
    for pattern in patterns:
        compiled(pattern, "--rows")
    found = [row for row in rows if all(re.search(pattern, row.name) for pattern in patterns)]
    if rows and not found:
        nothing = f"{' '.join(f'--rows {pattern}' for pattern in patterns)}: no row matches"
        if not part:
            raise ValueError(f"{nothing}. The rows are {', '.join(row.name for row in rows)}.")
        print(f"{nothing} in this part of the rows.", file=sys.stderr)
    return found


def compiled(pattern: str, flag: str) -> re.Pattern:
    """Raises ValueError, naming the flag, if a regular expression is malformed."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{flag} {pattern}: no regular expression ({error}).") from None


def main() -> int:
    shown_as_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown_as_is, allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="where logs and the marks of complete rows are kept")
    parser.add_argument("--rows", action="append", default=[], metavar="REGEX", help="only rows whose name matches")
    parser.add_argument("--part", action="store_true", help="other inputs have the rest: --rows may match nothing here")
    parser.add_argument("--dry-run", action="store_true", help="print the rows and run nothing")
    parser.add_argument("--in-process", type=int, default=0, metavar="N", help="run rows inside N processes")
    parser.add_argument("--show", default="", metavar="REGEX", help="print the lines of a row's log that match")
    args = parser.parse_args()
    try:
        compiled(args.show, "--show")
        rows = chosen(read_rows(sys.stdin.read()), args.rows, args.part)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.part and not rows:
        return 0
    if args.dry_run:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" may close the pipe
        print("\n\n".join(row.text() for row in rows))
        return 0
    try:
        return run(rows, args.folder, args.in_process, args.show)
    except RowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        sys.exit("stopped: call again to continue")


if __name__ == "__main__":
    sys.exit(main())
