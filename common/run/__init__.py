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
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from common.logprob import SUPPORTED
from common.rollout import generator
from common.run import record
from common.run.arguments import REFUSED, parse
from common.run.checkpoint import (
    NOTHING_LOST,
    STATE_REMOVED,
    check_disk,
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
from common.run.curves import Curves, import_wandb
from common.run.memory import moments_to_device
from common.run.metrics import gather

# Exit codes, see `start`.
FAILED, STOPPED, INTERRUPTED = 3, 75, 130
# Errors that common/ raises with a message for the user: they are shown as one line, without a traceback.
USER_ERRORS = (ValueError, MemoryError, FloatingPointError, ImportError, RuntimeError, OSError)

IDLE_STEPS = 10  # steps without a gradient after which the console says so

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
        self.inputs = record.describe_inputs(args, model, data or {})
        self.started, self.idle_steps = time.time(), 0
        self.signalled: float | None = None  # when a signal first asked for a stop
        self.curves: Curves | None = None  # on rank 0
        if args.track:
            import_wandb()  # this and the next check come before a folder is made
        if model:
            self.check_room(model)
        self.folder = Path(args.resume) if args.resume else self._new_folder(Path(script).stem)
        self.resumed_step = self._check_resume() if args.resume else None  # None also before the first save
        self.first_step = self.resumed_step or 0
        self.saved_step = self.resumed_step  # the step whose state is on disk
        if self.rank == 0:
            if args.resume:
                self._cut_back(self.first_step)
                record.keep_script_and_inputs(self.folder, self.script, self.inputs)
            else:
                self._describe()
            self.curves = Curves(self.folder, args, self.first_step if args.resume else None)
            print(f"run folder {self.folder}   curves: tensorboard --logdir {self.folder.parent}", flush=True)

    def check_room(self, model: str) -> None:
        """Raises ValueError if what the run will save does not fit on the disk."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        check_disk(model, self.args, device, compute_dtype(self.args.dtype, device))

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
        record.keep_script_and_inputs(self.folder, self.script, self.inputs)
        (self.folder / "git.txt").write_text(record.git_state())
        (self.folder / "env.txt").write_text(record.environment(self.args))
        for name in ("samples", "checkpoints"):
            (self.folder / name).mkdir()
        # The last file: a folder that has it is complete.
        write_json(self.folder / "args.json", record.plain_arguments(self.args))

    def _check_resume(self) -> int | None:
        """Returns the step to continue from; None for a run that was killed before it first saved. Raises ValueError if
        the folder is not a run's, or if its arguments, script or inputs were different."""
        if not (self.folder / "args.json").exists():
            raise ValueError(f"--resume {self.folder}: no args.json is there, so there is nothing to resume.")
        record.refuse_other_script(self.folder, self.script)
        record.refuse_other_arguments(self.folder, self.args)
        record.refuse_other_inputs(self.folder, self.inputs)
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
        """Adds a line to metrics.jsonl, the same figures without standard errors to TensorBoard, and a short line to
        the console. A script may
        log figures of its own, of any name, beside those that common/run/metrics.py describes. What is not finite is
        null in metrics.jsonl, since JSON has no NaN and no infinity."""
        if self.curves is None:
            return
        path = self.folder / "metrics.jsonl"
        with writing(path):
            with path.open("a") as file:
                finite = {key: value if math.isfinite(value) else None for key, value in figures.items()}
                file.write(json.dumps({"step": step} | finite) + "\n")
            self.curves.add(step, figures)
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
        if self.curves is not None:
            samples = [
                {"id": problem.id, "problem": problem.problem, "gold": problem.answer, "response": text}
                | dataclasses.asdict(verdict)
                for problem, text, verdict in zip(
                    [problem for problem in problems for _ in range(group_size)], texts, verdicts, strict=True
                )
            ][: 8 * group_size]
            lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            write_text(self.folder / "samples" / f"step_{step:06d}.jsonl", lines)
            self.curves.add_samples(step, samples[:2])

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
            if self.curves is not None:
                self.curves.flush()
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
        """Ends the curves."""
        if self.curves is not None:
            self.curves.close()


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
    """Runs a program, ends its process group, and prints in one line why it ended early.

    The exit code: 0 done; 2 refused before the first step; 3 a step could not be done, or the disk could not be
    written; 75 stopped by a signal, state saved; 130 interrupted before there was a state to save; 1 anything else,
    with a traceback."""
    try:
        main(parse(args_class))
        if dist.is_initialized():  # a vLLM engine that was closed has ended it already
            dist.destroy_process_group()
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
