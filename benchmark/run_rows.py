"""Many rows in one process, so that imports, engine and grading workers are paid once.

    python -m benchmark.run_rows --folder runs/observations --processes 2 < ROWS

ROWS, on standard input: a line `# NAME` begins a row, each line after it is a command of the row: a script or module of
this project and its arguments, as on a command line. A `*` in an argument stands for the one path that matches, and a
path to best_authors.json or best_honest.json for the checkpoint that it names. Commands of a row run in order; rows run
in order too, each in whichever of the processes is free, so none may need another of the same input.

A row that is done leaves FOLDER/done/NAME with its commands and is skipped from then on, while they stay the same; its
run folder FOLDER/NAME__* loses resume/. A row that was stopped begins anew, its run folder is removed. A row that fails
stops nothing: it is listed at the end with its log, FOLDER/logs/NAME.log, and the exit code is 1.

On a GPU a process can have one vLLM engine, so its rows agree in shape of the model, window and options of the engine:
power sampling and beam search have inputs of their own.
"""

import gc
import glob
import importlib.util
import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import tyro

ROOT = Path(__file__).resolve().parent.parent
STOPPED = (
    75  # exit code of a script that a signal stopped: that of common/run/__init__.py, which takes seconds to import
)


@dataclass
class Args:
    folder: Path
    """where logs and marks of finished rows are kept"""
    processes: int = 1
    """rows that run at the same time, each process with an engine of its own; one for each GPU or CPU core"""
    rows: str = "."
    """only rows whose name matches this regular expression"""
    dry_run: bool = False
    """print the rows and run nothing"""


@dataclass(frozen=True)
class Row:
    name: str
    commands: tuple[str, ...]


def read_rows(text: str) -> list[Row]:
    """The rows of an input. Raises ValueError for a command before the first name, a name that comes twice, or a row
    without commands."""
    rows: list[Row] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("#"):
            rows.append(Row(line.lstrip("# "), ()))
        elif rows:
            rows[-1] = Row(rows[-1].name, (*rows[-1].commands, line))
        else:
            raise ValueError(f"'{line}' belongs to no row: begin the input with a line '# NAME'.")
    names = [row.name for row in rows]
    wrong = sorted({row.name for row in rows if names.count(row.name) > 1 or not row.commands})
    if wrong:
        raise ValueError(f"rows that come twice or have no command: {', '.join(wrong)}.")
    return rows


def is_done(row: Row, folder: Path) -> bool:
    mark = folder / "done" / row.name
    return mark.exists() and mark.read_text().splitlines() == list(row.commands)


# --- in a process that runs rows --------------------------------------------------------------------------------------


SAMPLERS = {}  # by what two scripts must agree in to share one; their weights are pushed anew for each
ENGINE_SHARE = 0.4  # of the GPU's memory, also where evaluation starts it: training has to fit beside it


def set_up_process() -> None:
    """For a process that runs rows: it shares what is slow to start, and ends when the program that started it does."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)  # a row that began anew would find this one at work in its folder

    threading.Thread(target=end_with_parent, daemon=True).start()
    share_samplers_and_graders()


def share_samplers_and_graders() -> None:
    """From now on a sampler that a script starts is the one that another left, with the new model's weights pushed, if
    all else is equal; likewise the grading workers. Comes before any script is imported."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from common import grading, rollout
    from common.logprob import weights
    from common.run import compute_dtype

    start, grader = rollout.start_sampler, cache(grading.Grader)

    def start_sampler(kind, model, max_total_tokens, **options):
        shape = AutoConfig.from_pretrained(model).to_diff_dict()
        for name in ("transformers_version", "use_cache", "dtype", "_name_or_path"):  # not of the shape
            shape.pop(name, None)
        options["dtype"] = options.get("dtype") or compute_dtype("auto", options["device"])
        options["stop_ids"] = rollout.stop_token_ids(model, AutoTokenizer.from_pretrained(model))
        options.setdefault("gpu_memory_utilization", ENGINE_SHARE)
        key = json.dumps([kind, max_total_tokens, shape, options], sort_keys=True, default=str)
        if key in SAMPLERS:
            getattr(SAMPLERS[key], "waiting", []).clear()  # requests that a script left when it failed
            SAMPLERS[key].push(weights(AutoModelForCausalLM.from_pretrained(model, dtype="auto")))
        elif kind != "transformers" and torch.cuda.is_available() and any(hasattr(s, "llm") for s in SAMPLERS.values()):
            raise ValueError("this needs a second vLLM engine: put it into another input, see benchmark/run_rows.py.")
        else:
            SAMPLERS[key] = start(kind, model, max_total_tokens, **options)
            SAMPLERS[key].close = lambda: None
        return SAMPLERS[key]

    def shared_grader(*args, **options):
        shared = grader(*args, **options)
        shared.close = lambda: None
        return shared

    rollout.start_sampler, grading.Grader = start_sampler, shared_grader


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


def path_of(word: str) -> str:
    """The one path that a word with a `*` stands for, or the checkpoint that such a file names."""
    found = glob.glob(word)
    if len(found) != 1:
        raise ValueError(f"{word} stands for {len(found)} paths, not for one.")
    path = Path(found[0])
    return str(path.parent / json.loads(path.read_text())["checkpoint"] if path.suffix == ".json" else path)


def run_command(command: str) -> None:
    words = [word for word in shlex.split(command) if word not in ("python", "-m")]
    words = [path_of(word) if "*" in word else word for word in words]
    module = load(words[0])
    module.main(tyro.cli(module.Args, args=words[1:]))
    gc.collect()
    for sampler in SAMPLERS.values():
        sampler.sleep()


def run_row(row: Row, folder: Path) -> float:
    """Seconds that the row took."""
    start = time.perf_counter()
    for unfinished in folder.glob(f"{row.name}__*"):
        shutil.rmtree(unfinished)
    with (folder / "logs" / f"{row.name}.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            for command in row.commands:
                print(f"+ {command}", flush=True)
                run_command(command)
        except BaseException as error:
            traceback.print_exc()
            if isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) == STOPPED:
                log.flush()
                os._exit(STOPPED)  # else this process would begin the next row
            raise
    (folder / "done" / row.name).write_text("".join(f"{command}\n" for command in row.commands))
    for resume in folder.glob(f"{row.name}__*/resume"):
        shutil.rmtree(resume)
    return time.perf_counter() - start


# --- the program ------------------------------------------------------------------------------------------------------


def main(args: Args) -> int:
    wanted = [row for row in read_rows(sys.stdin.read()) if re.search(args.rows, row.name)]
    if args.dry_run:
        print("\n\n".join("\n".join([f"# {row.name}", *row.commands]) for row in wanted))
        return 0
    for name in ("done", "logs"):
        (args.folder / name).mkdir(parents=True, exist_ok=True)
    rows = [row for row in wanted if not is_done(row, args.folder)]
    print(f"{len(wanted) - len(rows)} of {len(wanted)} rows have their results", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed, start = [], time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context, set_up_process) as pool:
        running = {pool.submit(run_row, row, args.folder): row.name for row in rows}
        try:
            for count, future in enumerate(as_completed(running), 1):
                name = running[future]
                try:
                    said = f"{future.result():.0f} s"
                except (Exception, SystemExit) as error:  # whatever a script of the user's raises, the others go on
                    if isinstance(error, BrokenProcessPool):
                        sys.exit("a process was killed, perhaps for memory: call again to go on, or lower --processes")
                    failed.append(f"{name}: {type(error).__name__}, log {args.folder / 'logs' / name}.log")
                    said = "FAILED"
                left = (time.perf_counter() - start) / count * (len(rows) - count) / 60
                print(f"{count}/{len(rows)}  {name}  {said}  left {left:.0f} min", flush=True)
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            sys.exit("stopped: call again to go on")
    if failed:
        print("\n".join(["rows that failed:", *failed]), file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Args, description=__doc__)))
    except ValueError as error:
        sys.exit(f"error: {error}")
