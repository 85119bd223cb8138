"""Log-probabilities of sampled responses: packed rows, one forward pass, never a [tokens, vocabulary] tensor.

A micro-batch is one row of tokens with no padding: a prompt, once, the G responses to it, the next prompt, ... Each
response attends to its prompt and to itself, so whatever is computed for a prompt serves its whole group. The head
scores response tokens only, in chunks, and recomputes its logits in the backward pass. FSDP2 is the only training
wrapper, on one device and on many: fp32 parameters and optimizer state, compute in bf16 on a GPU.

Shapes: P problems, G group, B = P*G responses; in one micro-batch b responses, S packed tokens, N response tokens, K
keys: the tokens of b sequences, each a prompt and a response; V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AutoConfig, PreTrainedModel

from common.rollout import Rollout

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    Policy: TypeAlias = PreTrainedModel | PeftModel

HALF = (torch.bfloat16, torch.float16)


@dataclass
class Packed:
    """Some groups of a rollout, end to end in one row, each prompt before the responses to it.

    Attention takes b sequences. The keys of a response are the prompt's tokens and its own. Its queries are its own
    tokens; the first response of a group also has the prompt's, which stand before it in the row."""

    groups: list[int]  # which groups of the rollout
    rows: torch.Tensor  # (b,) which responses of the rollout
    input_ids: torch.Tensor  # (1, S)
    position_ids: torch.Tensor  # (1, S) from 0 in each prompt, and on from its end in each response to it
    keys: torch.Tensor  # (K,) the position in S of each key, sequence by sequence
    cu_queries: torch.Tensor  # (b + 1,) int32, where each sequence begins in S, and S
    cu_keys: torch.Tensor  # (b + 1,) int32, where each sequence begins in K, and K
    longest: int  # keys of the longest sequence
    bound: int  # `longest` rounded up to a power of two: a kernel's upper bound, with few different values
    predictors: torch.Tensor  # (N,) the position in S whose hidden state predicts each response token
    targets: torch.Tensor  # (N,) the response tokens
    segment: torch.Tensor  # (N,) 0..b-1, which response each token belongs to
    length: torch.Tensor  # (b,) tokens of each response, float64
    sampler_logp: torch.Tensor  # (N,) nats, float32

    def sum(self, token_values: torch.Tensor) -> torch.Tensor:
        """Returns the sum over the tokens of each response, in float64: (N,) -> (b,)."""
        total = torch.zeros(len(self.rows), dtype=torch.float64, device=token_values.device)
        return total.index_add_(0, self.segment, token_values.double())

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Returns each response's value repeated for its tokens: (b,) -> (N,) float32."""
        return values[self.segment].float()


def pack(rollout: Rollout, groups: list[int], device: torch.device | str = "cpu") -> Packed:
    """Packs whole groups of `rollout`. With no groups, returns a dummy row of two tokens and N = 0: a pass that costs
    and changes nothing, for a rank that has run out of work while others have not.

    For example, the prompt p q with the responses a b and c (S = 5 tokens, N = 3, K = 7):

        position in the row   0  1  2  3  4     keys        0 1 2 3   0 1 4   (p q a b, then p q c)
        input_ids             p  q  a  b  c     cu_keys     0 4 7
        position_ids          0  1  2  3  2     cu_queries  0 4 5
        targets               a b c             predictors  1 2 1   (q predicts a and c)     segment  0 0 1

    The row is laid out with numpy. Copies to a GPU come from pinned memory, so that the host does not wait for the
    GPU to finish its work."""
    size = rollout.group_size
    rows = [row for group in groups for row in range(group * size, (group + 1) * size)]
    prompts, responses = [rollout.prompts[group] for group in groups], [rollout.responses[row] for row in rows]
    pieces = [piece for g, prompt in enumerate(prompts) for piece in (prompt, *responses[g * size : (g + 1) * size])]
    tokens = _flat(pieces, np.int64)  # (S,)
    lengths = np.array([len(piece) for piece in pieces], np.int64).reshape(len(groups), 1 + size)
    starts = (lengths.cumsum() - lengths.ravel()).reshape(lengths.shape)
    prompt_start, prompt_length = np.repeat(starts[:, 0], size), np.repeat(lengths[:, 0], size)  # (b,) each
    start, length = starts[:, 1:].ravel(), lengths[:, 1:].ravel()

    own = _ranges(start, length)  # (N,) the position in S of each response token
    predictors = own - 1
    first = (length.cumsum() - length)[length > 0]
    predictors[first] = (prompt_start + prompt_length - 1)[length > 0]  # the prompt's last token predicts the first
    positions_from = np.concatenate([np.zeros_like(starts[:, :1]), np.repeat(lengths[:, :1], size, 1)], 1)
    position_ids = _ranges(positions_from.ravel(), lengths.ravel())
    keys = _ranges(np.stack([prompt_start, start], 1).ravel(), np.stack([prompt_length, length], 1).ravel())
    cu_queries, cu_keys = np.append(0, start + length), np.append(0, (prompt_length + length).cumsum())
    if not groups:
        tokens, position_ids, keys = np.zeros(2), np.arange(2), np.arange(2)
        cu_queries = cu_keys = np.array([0, 2])

    longest = int(np.diff(cu_keys).max())

    def tensor(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        host = torch.as_tensor(values, dtype=dtype)
        if torch.device(device).type == "cuda":
            host = host.pin_memory()
        return host.to(device, non_blocking=True)

    return Packed(
        groups=groups,
        rows=tensor(np.array(rows), torch.long),
        input_ids=tensor(tokens, torch.long)[None],
        position_ids=tensor(position_ids, torch.long)[None],
        keys=tensor(keys, torch.long),
        cu_queries=tensor(cu_queries, torch.int32),
        cu_keys=tensor(cu_keys, torch.int32),
        longest=longest,
        bound=1 << (longest - 1).bit_length(),
        predictors=tensor(predictors, torch.long),
        targets=tensor(tokens[own], torch.long),
        segment=tensor(np.repeat(np.arange(len(rows)), length), torch.long),
        length=tensor(length, torch.float64),
        sampler_logp=tensor(_flat([rollout.sampler_logp[row] for row in rows], np.float32), torch.float32),
    )


def _flat(lists: list[list], dtype: type) -> np.ndarray:
    """Returns the lists joined end to end."""
    return np.fromiter(chain.from_iterable(lists), dtype, count=sum(map(len, lists)))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns start, start + 1, ..., `length` numbers for each pair, joined end to end."""
    before = lengths.cumsum() - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def packed_microbatches(
    rollout: Rollout, needs_backward: list[bool], max_tokens: int, device: torch.device
) -> Iterator[tuple[Packed, bool]]:
    """Yields (packed groups, whether they need a backward pass) for each micro-batch of `plan_microbatches`.

    A GPU works on one micro-batch while the host packs the next, as long as the caller does nothing in between that
    waits for the GPU: no `.item()`, no `if` on a tensor, no indexing by a list."""
    for groups, backward in plan_microbatches(rollout, needs_backward, max_tokens):
        yield pack(rollout, groups, device), backward


def plan_microbatches(rollout: Rollout, needs_backward: list[bool], max_tokens: int) -> list[tuple[list[int], bool]]:
    """Returns [(groups, whether they need a backward pass), ...]: whole groups in micro-batches of at most `max_tokens`
    keys (every response with its prompt; a larger group goes alone). Groups that need a backward pass come first.

    Every pass of FSDP2 is a collective: a rank with fewer passes would leave the others waiting for ever. So all ranks
    get equally many micro-batches of each kind; a rank that has run out of groups gets empty ones. At least one has a
    backward pass, since the optimizer steps even if no group needs one."""
    return _fill(rollout, [g for g, needed in enumerate(needs_backward) if needed], max_tokens, True) + _fill(
        rollout, [g for g, needed in enumerate(needs_backward) if not needed], max_tokens, False
    )


def _fill(rollout: Rollout, groups: list[int], max_tokens: int, backward: bool) -> list[tuple[list[int], bool]]:
    size, room = rollout.group_size, 0
    plan: list[list[int]] = []
    for group in groups:
        responses = rollout.responses[group * size : (group + 1) * size]
        tokens = size * len(rollout.prompts[group]) + sum(map(len, responses))
        if not plan or tokens > room:
            plan.append([])
            room = max_tokens
        plan[-1].append(group)
        room -= tokens
    most = torch.tensor(max(len(plan), int(backward)))
    if torch.distributed.is_initialized():
        most = most.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    plan += [[] for _ in range(int(most) - len(plan))]
    return [(groups, backward) for groups in plan]


# --- attention over a packed row --------------------------------------------------------------------------------------


# Whether this kernel shares keys among query heads (grouped-query attention); not every version of torch does.
GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters


def _gather_keys(keys: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns keys[index], whose gradient is summed in float32: a prompt's keys and values collect one from every
    response of their group, and a sum in bfloat16 would be rounded each time."""
    return keys.float().index_select(0, index).to(keys.dtype)


def _varlen_attention(query, key, value, scaling, packed: Packed):
    """Computes `_packed_attention`, (S, heads, dim) -> (S, heads, dim), by a kernel for GPUs whose causal mask is
    aligned at the sequences' ends: a sequence's last query sees all its keys."""
    key, value = _gather_keys(key, packed.keys), _gather_keys(value, packed.keys)  # (K, key heads, dim)
    grouped: dict[str, Any] = {"enable_gqa": True} if GROUPED else {}
    if not GROUPED:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return varlen_attn(
        query,
        key,
        value,
        packed.cu_queries,
        packed.cu_keys,
        packed.bound,
        packed.bound,
        scale=scaling,
        window_size=(-1, 0),
        **grouped,
    )


def _padded_attention(query, key, value, scaling, packed: Packed):
    """Computes `_packed_attention`, (S, heads, dim) -> (S, heads, dim), on any device. Each sequence is a row, padded
    on the right, so that a causal mask keeps the padding out. A prompt's queries come with each of its responses; only
    those that come with the first one are kept."""
    columns, length = torch.arange(packed.longest, device=query.device), packed.cu_keys.diff()[:, None]
    real = columns < length  # (b, longest)
    own = real & (columns >= length - packed.cu_queries.diff()[:, None])
    index = torch.zeros_like(real, dtype=torch.long).masked_scatter_(real, packed.keys)
    query, key, value = (x[index].transpose(1, 2) for x in (query, key, value))  # (b, heads, longest, dim)
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2)[own]


def _packed_attention(module, query, key, value, attention_mask, scaling=None, packed=None, **_):
    """Computes causal attention within each sequence of a packed row: (1, heads, S, dim) -> (1, S, heads, dim)."""
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))  # (S, heads, dim)
    in_half = query.dtype in HALF  # the kernel takes no other precision
    attend = _varlen_attention if query.is_cuda and in_half else _padded_attention
    return attend(query, key, value, scaling, packed)[None], None


# There is no mask function of this name, so transformers makes no mask; `packed` describes the sequences. With a mask
# function, even one that returns None, transformers would ask the GPU whether positions restart, and wait for it.
AttentionInterface.register("packed", _packed_attention)


# --- the head ---------------------------------------------------------------------------------------------------------


# Positions whose logits exist at the same time. A chunk of 4,096 keeps a GPU busy; its logits and a copy of them take
# 8 * CHUNK * V bytes, which `common.run.memory.estimate` counts.
CHUNK = 4096


class _LogProbHead(torch.autograd.Function):
    """hidden (N, H), weight (V, H), targets (N,) -> log-probabilities (N,) and entropies (N,), both float32.

    Logits exist for `chunk` positions at a time, in both passes. The backward pass computes them again, but not their
    normalisers, which the forward pass has kept. The entropy carries no gradient, and is NaN unless it is wanted.
    The weight's gradient is added up over the chunks in float32."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, chunk, wants_entropy):
        logp = torch.empty(len(targets), device=hidden.device)
        log_z = torch.empty_like(logp)
        entropy = torch.full_like(logp, torch.nan)
        for i in range(0, len(targets), chunk):
            part = slice(i, i + chunk)
            logits = (hidden[part] @ weight.T).float()  # (chunk, V)
            log_z[part] = logits.logsumexp(-1)
            logp[part] = logits.gather(-1, targets[part, None])[:, 0] - log_z[part]
            if wants_entropy:
                probabilities = (logits - log_z[part, None]).exp_()
                entropy[part] = log_z[part] - probabilities.mul_(logits).sum(-1)
                del probabilities
            del logits  # otherwise the logits of two chunks would exist at once
        ctx.save_for_backward(hidden, weight, targets, log_z)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx, grad_logp, _):
        hidden, weight, targets, log_z = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for i in range(0, len(targets), ctx.chunk):
            part = slice(i, i + ctx.chunk)
            logits = (hidden[part] @ weight.T).float()
            probabilities = logits.sub_(log_z[part, None]).exp_()
            grad_logits = probabilities.mul_(-grad_logp[part, None])  # d log p(target) / d logits = onehot - p
            grad_logits.scatter_add_(-1, targets[part, None], grad_logp[part, None])
            grad_logits = grad_logits.to(hidden.dtype)
            del logits, probabilities
            grad_hidden[part] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += _float32_product(grad_logits.T, hidden[part])
            del grad_logits
        return grad_hidden, grad_weight, None, None, None


def _float32_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns a @ b in float32. On a GPU the product of two half-precision matrices is not rounded to half precision
    first. Other devices have no such kernel; there the product is rounded."""
    if a.is_cuda and a.dtype in HALF:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


# --- models -----------------------------------------------------------------------------------------------------------


class PackedForward:
    """Replaces the forward pass of a transformers model by one over a packed row, and nothing else: parameters, their
    names and what is saved are those of the transformers class. FSDP2 and peft wrap `forward`, hence the name."""

    model: torch.nn.Module  # both are the transformers class's
    lm_head: torch.nn.Linear

    def forward(self, packed: Packed, wants_entropy: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the log-probability (N,) of each response token, in nats, and the entropy (N,) of the next-token
        distribution there, over the whole vocabulary, in nats. The entropy has no gradient, and is NaN unless
        wanted."""
        hidden = self.model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            use_cache=False,
            packed=packed,
        ).last_hidden_state[0]
        return _LogProbHead.apply(hidden[packed.predictors], self.lm_head.weight, packed.targets, CHUNK, wants_entropy)


# The names are those of transformers, which writes them into the config.json of a checkpoint.
class Qwen2ForCausalLM(PackedForward, transformers.Qwen2ForCausalLM):
    pass


class Qwen3ForCausalLM(PackedForward, transformers.Qwen3ForCausalLM):
    pass


class LlamaForCausalLM(PackedForward, transformers.LlamaForCausalLM):
    pass


# Architectures whose attention and head were checked against transformers, by the tests.
MODELS: dict[str, type[PreTrainedModel]] = {
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
    "llama": LlamaForCausalLM,
}
SUPPORTED = tuple(MODELS)


def token_logprobs(policy: torch.nn.Module, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns log-probabilities (N,) and entropies (N,) of the response tokens under the policy, both in nats; only the
    first have a gradient."""
    return causal_lm(policy)(packed)


def base_logprobs(policy: Policy, base: torch.nn.Module | None, packed: Packed) -> torch.Tensor:
    """Returns the log-probability (N,) of each response token under the base, in nats, without gradient. It comes from
    the model `base`, or if that is None from the policy with its adapters off."""
    with torch.no_grad():
        if base is not None:
            return causal_lm(base)(packed, wants_entropy=False)[0]
        with policy.disable_adapter():
            return causal_lm(policy)(packed, wants_entropy=False)[0]


def causal_lm(policy: Policy) -> PreTrainedModel:
    """Returns the transformers model inside a peft wrapper, or the policy itself."""
    return policy.get_base_model() if hasattr(policy, "peft_config") else policy


def lora_config(policy: Policy) -> LoraConfig:
    """The settings of the policy's adapters."""
    return policy.peft_config["default"]


def load_model(path: str, args, device: torch.device, compute_dtype: torch.dtype, trainable=True) -> torch.nn.Module:
    """Returns a causal language model ready for `token_logprobs`, sharded by FSDP2 over all ranks.

    Trainable: float32 parameters, compute in `compute_dtype`; with args.lora_rank only float32 adapters on every linear
    layer are trained and the rest is kept in `compute_dtype`; args.checkpoint_activations recomputes each layer in the
    backward pass. Not trainable (the base): frozen, in `compute_dtype`. args.compile_layers compiles both on a GPU.
    Raises ValueError for an architecture that was not checked."""
    lora_rank = args.lora_rank if trainable else 0
    dtype = torch.float32 if trainable and not lora_rank else compute_dtype
    kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    if kind not in SUPPORTED:
        raise ValueError(f"{path} is a {kind} model; log-probabilities were checked for {', '.join(SUPPORTED)}.")
    model = MODELS[kind].from_pretrained(path, dtype=dtype, attn_implementation="packed")
    model.config.use_cache = False
    model.requires_grad_(trainable)
    model.train(trainable)
    policy: torch.nn.Module = model
    if lora_rank:
        from peft import LoraConfig, get_peft_model

        policy = get_peft_model(model, LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"))
    if trainable and args.checkpoint_activations:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if lora_rank:
            model.enable_input_require_grads()
    if args.compile_layers and device.type == "cuda":
        compile_layers(model)
    if torch.distributed.is_initialized():
        wrap(model, device, compute_dtype)
    else:
        policy.to(device)
    return policy


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compiles every decoder layer as a whole, attention included, for rows of any length.

    The layer's `forward` is compiled and not its call, so what FSDP2 and activation checkpointing do around it stays
    outside. All layers share one function, so there are a few graphs: with gradients and without, for a first
    layer whose input has none, for the base or with adapters off. torch allows eight before it gives up."""
    for layer in model.model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=backend)
    model.model.norm.compile(dynamic=True, backend=backend)


def wrap(model: PreTrainedModel, device: torch.device | str, compute_dtype: torch.dtype) -> None:
    """Shards every decoder layer, and the rest of the model, with FSDP2; gradients are summed over ranks in float32."""
    mesh = torch.distributed.init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32),
    }
    # Also on one device: gathered weights are a copy, and the base, which has no backward pass, would keep it.
    options["reshard_after_forward"] = True
    for layer in model.model.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    if mesh.size() > 1:  # alone, FSDP2 would divide every gradient by one, into a temporary of its size
        for module in (model, *model.model.layers):
            module.set_gradient_divide_factor(1.0)
            # A factor of one needs no scaled reduction, which gloo lacks.
            module.set_force_sum_reduction_for_comms(True)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the whole of a sharded tensor on every rank (a collective), and an ordinary tensor unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Returns this rank's part of a sharded tensor, and an ordinary tensor unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def weights(policy: Policy) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (Hugging Face name, whole tensor) of every weight, tied heads under both names, adapters merged; a
    collective."""
    state = policy.state_dict()
    for name, value in state.items():
        if ".lora_" in name:
            continue
        value = full_tensor(value.detach())
        if ".base_layer.weight" in name:
            down, up = (full_tensor(state[name.replace("base_layer", f"lora_{x}.default")].detach()) for x in "AB")
            scaling = lora_config(policy).lora_alpha / lora_config(policy).r
            value = (value.float() + scaling * (up.float() @ down.float())).to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), value
