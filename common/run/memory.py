"""How much memory a run will need, part by part, before anything is loaded.

A run that cannot fit is refused. For a run that almost fits, Adam's moments can be kept in host memory outside the
optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from common.logprob import CHUNK, local_tensor
from common.rollout import engine_bytes
from common.run.metrics import gather

GB = 1e9
# What --microbatch-tokens 0 chooses from, largest first. FSDP2 copies all weights for every pass, about 0.03 s for a 3B
# model on a GPU by calculation; beyond the first size of each list that no longer matters.
PASS_TOKENS = {"cuda": (65536, 32768, 16384, 8192, 4096, 2048), "cpu": (16384, 8192, 4096, 2048)}
# The share of the free memory that may be filled when the size of a pass is chosen automatically: the estimate of the
# activations is right to a tenth (tests/common/test_memory.py), and changing shapes fragment the allocator's memory.
AUTO_SHARE = 0.9
# Below this share of the free memory a run is so small that one line says enough.
SMALL_SHARE = 0.1
# CUDA graphs of the sleeping engine, communicators, workspaces and fragmentation: an allowance.
GPU_OVERHEAD = 2 * GB
# Rows that the scripts' sampler runs at the same time: the default of common.rollout.start_sampler.
MAX_NUM_SEQS = 256


@dataclass
class Part:
    """One use of memory: bytes on each device, and what makes it smaller."""

    name: str
    size: float
    lower: str


def count_parameters(config) -> int:
    """Returns the number of parameters of a model of this configuration, tied ones once; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def largest_pass(args, world: int) -> int:
    """Returns the most tokens that a forward pass can have: --microbatch-tokens, or where that is more one group that
    fills the window, but no more than all responses of a rank have."""
    group = args.group_size * args.max_total_tokens
    return min(max(args.microbatch_tokens, group), args.num_problems // world * group)


def estimate(config, args, world: int, compute_bytes: int, needs_base: bool) -> list[Part]:
    """Returns what training with a script's `args` holds on each of `world` devices, in bytes, without the sampler.

    Parameters, gradients and the two Adam moments are float32 and sharded; the frozen base is kept in the compute
    precision, and LoRA needs no copy of it. The largest pass has `largest_pass` tokens. It keeps each layer's input, or
    without checkpoints what autograd keeps of each; beside it one layer or the head is at work."""
    parameters, c = count_parameters(config), compute_bytes
    layers, hidden, mlp, vocab = (
        getattr(config, name) for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    )
    heads = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = heads * config.num_attention_heads, heads * config.num_key_value_heads
    # Inputs and outputs of q and o, k and v, gate and up and down: an adapter has rank times as many weights.
    adapters = args.lora_rank * layers * (2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + mlp))

    tokens = largest_pass(args, world)
    # Of a layer: two norms, which compute in float32; rotated queries, keys and values repeated to their width, and
    # the attention's output; the MLP.
    of_layer = (4 * c + 8) * hidden + 4 * c * queries + 4 * c * mlp
    stored = c * hidden if args.checkpoint_activations else of_layer
    at_work = tokens * (of_layer + 2 * c * mlp)  # the layer recomputed, and gradients inside its MLP
    chunk = min(CHUNK, tokens)
    head = 8 * chunk * vocab  # a chunk's logits, and a copy of them
    if not args.lora_rank:
        # The weight's gradient in float32, beside a chunk's logits and their gradient, or beside the latter and what
        # the chunk adds to it.
        head = max(head, 6 * chunk * vocab + 4 * vocab * hidden, 2 * chunk * vocab + 8 * vocab * hidden)
    # FSDP2 holds the gathered weights of two layers and of the embedding. If weights are trained, there are also the
    # gradients of the layer at work, once more in float32 to be summed, and that of the embedding, which is the head's.
    of_weights = hidden * (2 * queries + 2 * keys + 3 * mlp)
    gathered = 2 * c * of_weights + c * vocab * hidden
    gradients = 0 if args.lora_rank else (c + 4) * of_weights + c * vocab * hidden
    activations = layers * tokens * stored + max(at_work + gradients, head) + gathered

    trained, lower = ("adapter", "--lora-rank") if args.lora_rank else ("parameter", "--lora-rank, more GPUs")
    count = adapters if args.lora_rank else parameters
    parts = [
        Part(f"{trained}s", 4 * count / world, lower),
        Part("gradients", 4 * count / world, lower),
        Part("Adam moments", 8 * count / world, f"{lower}; except in the optimizer step: --moments-on-host"),
        Part("activations", activations, "--checkpoint-activations, --microbatch-tokens, --max-total-tokens"),
    ]
    if args.lora_rank:
        parts.append(Part("frozen parameters", c * parameters / world, "more GPUs"))
    elif needs_base:
        parts.append(Part("base model", c * parameters / world, "--no-base-curves, --lora-rank, more GPUs"))
    return parts


def peaks(parts: list[Part], moments_on_host: bool, engine: float, engine_stays: bool) -> dict[str, float]:
    """Returns the bytes in use on a device while sampling, while training and in the optimizer step, from `estimate`'s
    parts and the bytes of the engine. Gradients and activations are gone while sampling; the engine is gone otherwise,
    unless it stays."""
    size = {part.name: part.size for part in parts}
    always = sum(size.values()) - size["activations"] - size["gradients"] - size["Adam moments"]
    moments = 0 if moments_on_host else size["Adam moments"]
    asleep = engine if engine_stays else 0
    return {
        "while sampling": always + moments + engine,
        "while training": always + moments + size["gradients"] + size["activations"] + asleep,
        "in the optimizer step": always + size["gradients"] + size["Adam moments"] + asleep,
    }


def available(device: torch.device) -> float:
    """Returns the bytes that are free now, on the GPU or in this machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024.0 for line in file if line.startswith("MemAvailable"))


def sampler_bytes(config, args, device: torch.device, compute_bytes: int) -> tuple[float, bool]:
    """Returns the bytes that the sampler of a script with `args` takes on a device, and whether it gives them back
    while the policy trains: vLLM on a GPU sleeps then, any other sampler's copy of the weights stays."""
    parameters = count_parameters(config)
    if device.type != "cuda" or args.sampler == "transformers":
        return compute_bytes * parameters, False
    limit = args.gpu_memory_utilization * torch.cuda.get_device_properties(device).total_memory
    engine, _ = engine_bytes(config, parameters, MAX_NUM_SEQS, args.max_total_tokens, compute_bytes, limit)
    return engine, True


@dataclass(frozen=True)
class Machine:
    """What a run shares each of `world` devices with: the bytes that are free before it starts, and its sampler's."""

    world: int
    on_gpu: bool
    free: float
    engine: float
    engine_stays: bool  # also while the policy trains

    def phases(self, parts: list[Part], moments_on_host: bool) -> dict[str, float]:
        """Returns the bytes in use in each phase of a step, see `peaks`."""
        return peaks(parts, moments_on_host, self.engine, self.engine_stays)


def check_memory(path: str, args, device: torch.device, dtype: torch.dtype, needs_base: bool) -> None:
    """Chooses what `args` leaves open and prints the estimate, for a small run in one line; raises MemoryError with it
    where some phase of a step would not fit, unless args.skip_memory_check.

    --microbatch-tokens 0 is replaced in `args` by the largest of PASS_TOKENS that fits beside everything else. Where
    nothing fits on a GPU unless Adam's moments are on the host, and the host has room for them, args.moments_on_host is
    set. All ranks choose the same."""
    config, world, on_gpu = AutoConfig.from_pretrained(path), torch.distributed.get_world_size(), device.type == "cuda"
    engine, sleeps = sampler_bytes(config, args, device, dtype.itemsize)
    machine = Machine(world, on_gpu, available(device) / (1 if on_gpu else world), engine, not sleeps)

    def parts_of(settings) -> list[Part]:
        allowance = [Part("CUDA graphs, workspaces", GPU_OVERHEAD, "no flag; an allowance")] if on_gpu else []
        return estimate(config, settings, world, dtype.itemsize, needs_base) + allowance

    tokens, on_host = choose(args, machine, parts_of)
    by_itself = [] if args.microbatch_tokens else [f"--microbatch-tokens {tokens}"]
    by_itself += ["--moments-on-host"] if on_host and not args.moments_on_host else []
    args.microbatch_tokens, args.moments_on_host = tokens, on_host
    report(machine, parts_of(args), on_host, by_itself, args.skip_memory_check)


def choose(args, machine: Machine, parts_of: Callable[[Any], list[Part]]) -> tuple[int, bool]:
    """Returns the tokens of a pass and whether Adam's moments are on the host, the same on all ranks: the largest pass
    that fits; the moments go to the host only if no size fits otherwise. If nothing fits, the smallest pass."""
    sizes = [args.microbatch_tokens] if args.microbatch_tokens else PASS_TOKENS["cuda" if machine.on_gpu else "cpu"]
    places = [args.moments_on_host]
    if machine.on_gpu and not args.moments_on_host:
        moments = next(part.size for part in parts_of(args) if part.name == "Adam moments")
        if machine.world * moments < AUTO_SHARE * available(torch.device("cpu")):
            places.append(True)

    def fits(tokens: int, on_host: bool) -> bool:
        settings = copy(args)
        settings.microbatch_tokens, settings.moments_on_host = tokens, on_host
        phases = machine.phases(parts_of(settings), on_host)
        # Beyond the smallest size, some memory is left free: the estimate of the activations is not exact.
        room = AUTO_SHARE * machine.free if tokens > sizes[-1] else machine.free
        return max(phases.values()) <= machine.free and phases["while training"] <= room

    choices = [(tokens, on_host) for on_host in places for tokens in sizes]
    chosen = next((choice for choice in choices if fits(*choice)), (sizes[-1], args.moments_on_host))
    of_ranks = gather([chosen])
    return min(tokens for tokens, _ in of_ranks), any(on_host for _, on_host in of_ranks)


def report(machine: Machine, parts: list[Part], moments_on_host: bool, chosen: list[str], skip_check: bool) -> None:
    """Prints the estimate. Raises MemoryError with it if some phase does not fit, unless `skip_check`. `chosen`: the
    flags that were chosen to fit."""
    phases, free = machine.phases(parts, moments_on_host), machine.free
    shown = [*parts, Part("sampler", machine.engine, "--gpu-memory-utilization, --max-total-tokens")]
    lines = [f"  {part.name:26}{part.size / GB:8.2f} GB   lower it by {part.lower}" for part in shown]
    lines += [f"  {phase:26}{size / GB:8.2f} GB   of {free / GB:.2f} GB free" for phase, size in phases.items()]
    lines += [f"  chosen to fit: {', '.join(chosen)}"] if chosen else []
    where = f"each of the {machine.world} devices" if machine.world > 1 else "the device"
    table = f"memory, estimated, on {where}:\n" + "\n".join(lines)
    if max(phases.values()) > free and not skip_check:
        raise MemoryError(f"this run would not fit; --skip-memory-check starts it anyway.\n{table}")
    if torch.distributed.get_rank() == 0:
        small = max(phases.values()) < SMALL_SHARE * free
        print(_in_one_line(phases, free, where, chosen) if small else table, flush=True)


def _in_one_line(phases: dict[str, float], free: float, where: str, by_itself: list[str]) -> str:
    said = [f"{f'{size / GB:.2f}' if size >= 0.01 * GB else 'under 0.01'} GB {name}" for name, size in phases.items()]
    chosen = f"; chosen to fit: {', '.join(by_itself)}" if by_itself else ""
    return f"memory, estimated, on {where}: {', '.join(said)}, of {free / GB:.2f} GB free{chosen}"


# --- Adam's moments on the host ---------------------------------------------------------------------------------------


def moments_to_host(optimizer: torch.optim.Optimizer) -> None:
    """Puts this rank's part of the optimizer's moments in host memory, on a GPU pinned, as plain tensors."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if value.dim() > 0:  # the step count stays
                local = local_tensor(value)
                host = torch.empty_like(local, device="cpu", pin_memory=local.is_cuda)
                state[key] = host.copy_(local, non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def moments_to_device(optimizer: torch.optim.Optimizer) -> None:
    """Puts the optimizer's state on the device, sharded as the parameters are, as the optimizer needs it. It may be
    plain host tensors before, or be there already."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            moved = torch.empty_like(parameter) if value.dim() > 0 else torch.empty_like(value, device=parameter.device)
            local_tensor(moved).copy_(local_tensor(value), non_blocking=True)
            state[key] = moved


@contextmanager
def moments_on_device(optimizer: torch.optim.Optimizer, from_host: bool) -> Iterator[None]:
    """Around the optimizer step. With `from_host` the moments are on the device in this block only: they are copied
    there and back, bit for bit, 8 bytes a parameter each way. The first block finds none, because the first step
    creates them."""
    if from_host:
        moments_to_device(optimizer)
    yield
    if from_host:
        moments_to_host(optimizer)
