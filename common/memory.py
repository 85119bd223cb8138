"""How much memory a run will need, by part, before anything is loaded; and a refusal where it cannot fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM

GB = 1e9


@dataclass
class Part:
    """One use of memory: bytes on each device, and what makes it smaller."""

    name: str
    size: float
    lower: str


def count_parameters(config) -> int:
    """The number of parameters of a model of this configuration, tied ones once; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def estimate(
    config,
    world: int,
    compute_bytes: int,
    lora_rank: int,
    checkpoint_activations: bool,
    microbatch_tokens: int,
    needs_base: bool,
) -> list[Part]:
    """What training holds on each of `world` devices, in bytes, the sampler's share left out.

    Parameters, gradients and the two Adam moments are float32 and sharded; the frozen base is kept in the compute
    precision, and LoRA needs no copy of it. Activations are what autograd keeps of a decoder layer, token by token."""
    parameters = count_parameters(config)
    layers, hidden, mlp = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    heads = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = heads * config.num_attention_heads, heads * config.num_key_value_heads
    # Inputs and outputs of q and o, k and v, gate and up and down: an adapter has rank times as many weights.
    adapters = lora_rank * layers * (2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + mlp))
    per_layer = compute_bytes * (10 * hidden + 4 * mlp)  # queries to MLP, as autograd keeps them
    stored = layers * compute_bytes * hidden + per_layer if checkpoint_activations else layers * per_layer
    head = 3 * 1024 * config.vocab_size * 4  # logits of one chunk, their softmax and gradient
    parts = [
        Part("activations", microbatch_tokens * stored + head, "--checkpoint-activations, --microbatch-tokens"),
        Part(
            "base model",
            needs_base * (not lora_rank) * compute_bytes * parameters / world,
            "--no-base-curves, --lora-rank",
        ),
    ]
    if lora_rank:
        parts.append(Part("frozen parameters", compute_bytes * parameters / world, "more GPUs"))
        parts.append(Part("adapters, gradients, Adam", 16 * adapters / world, "--lora-rank"))
    else:
        parts.append(Part("parameters", 4 * parameters / world, "--lora-rank, more GPUs"))
        parts.append(Part("gradients", 4 * parameters / world, "--lora-rank, more GPUs"))
        parts.append(Part("Adam moments", 8 * parameters / world, "--lora-rank, more GPUs"))
    return parts


def available(device: torch.device) -> float:
    """Bytes free now, on the GPU or in this machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024.0 for line in file if line.startswith("MemAvailable"))


def check_memory(path: str, args, device: torch.device, dtype: torch.dtype, needs_base: bool) -> None:
    """Prints the estimate; raises MemoryError with it where training or sampling would not fit.

    The sampler is asleep while training on a GPU, and gradients and activations are gone while it is awake; on a CPU
    its copy of the weights stays."""
    config, world = AutoConfig.from_pretrained(path), torch.distributed.get_world_size()
    parts = estimate(
        config,
        world,
        dtype.itemsize,
        args.lora_rank,
        args.checkpoint_activations,
        args.microbatch_tokens,
        needs_base,
    )
    free = available(device) / (1 if device.type == "cuda" else world)
    size = {part.name: part.size for part in parts}
    if device.type == "cuda":
        engine = args.gpu_memory_utilization * torch.cuda.get_device_properties(device).total_memory
        training = sum(size.values())
    else:
        engine = dtype.itemsize * count_parameters(config)
        training = sum(size.values()) + engine
    sampling = sum(size.values()) - size["activations"] - size.get("gradients", 0) + engine
    parts.append(Part("sampler", engine, "--gpu-memory-utilization"))
    lines = [f"  {part.name:26}{part.size / GB:8.2f} GB   lower it by {part.lower}" for part in parts]
    lines.append(f"  {'while training':26}{training / GB:8.2f} GB")
    lines.append(f"  {'while sampling':26}{sampling / GB:8.2f} GB   of {free / GB:.2f} GB free")
    table = f"memory, estimated, on each of {world} device(s):\n" + "\n".join(lines)
    if max(training, sampling) > free:
        raise MemoryError(f"this run would not fit.\n{table}")
    if torch.distributed.get_rank() == 0:
        print(table, flush=True)
