"""Rollouts: one interface, two samplers.

`start_sampler` returns a `VLLMSampler` (vLLM in this process, on a GPU or a CPU) or a `TransformersSampler` (a batched
sampler with a key-value cache over a plain transformers model, on any machine). Both own a copy of the weights, which
`push` replaces in place, and both sample with `generate`, which returns a `Rollout`. Token ids go in and come out; only
`Rollout.texts` makes text of them. Methods that ask again as soon as an answer comes use `submit`, which takes single
requests, and `collect`, which returns finished ones with the normaliser of each token's distribution.

Shapes: P prompts, G group size (samples of a prompt), B = P * G rows (row b answers prompt b // G), T prompt columns,
V vocabulary.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

if TYPE_CHECKING:
    from common.rollout.transformers import TransformersSampler
    from common.rollout.vllm import VLLMSampler

NamedTensors = Iterable[tuple[str, torch.Tensor]]


@dataclass
class Rollout:
    """Sampled responses, group after group: responses[b] answers prompts[b // group_size]."""

    prompts: list[list[int]]  # P prompt token ids
    responses: list[list[int]]  # B response token ids; the stop token that ended one is its last element
    sampler_logp: list[list[float]]  # B, same lengths; nats, log p at temperature 1 whatever temperature was sampled
    finished: list[bool]  # B; ended with a stop token (fixed length: contains one)
    group_size: int

    def texts(self, tokenizer, stop_ids: Sequence[int]) -> list[str]:
        """Returns B strings: each response before its first stop token, without special tokens."""
        ends = [next((i for i, token in enumerate(r) if token in stop_ids), len(r)) for r in self.responses]
        kept = [response[:end] for response, end in zip(self.responses, ends, strict=True)]
        return tokenizer.batch_decode(kept, skip_special_tokens=True)

    def out_of_vocabulary(self, vocab_size: int) -> int:
        """Returns the number of sampled tokens with id >= vocab_size: models pad the tokenizer's vocabulary."""
        return sum(token >= vocab_size for response in self.responses for token in response)


@dataclass(frozen=True)
class Request:
    """One response to be sampled. Prompt and response together must fit into the sampler's window."""

    key: Hashable  # returned with the sample
    prompt: list[int]
    max_new_tokens: int
    temperature: float
    numbers: np.ndarray  # (max_new_tokens,) uniform, float64: number t chooses token t (vLLM: only if deterministic)
    entropy: bool = False  # whether to record the entropy of each token's distribution


@dataclass(frozen=True)
class Sample:
    """A sampled response: lists of equal length, with the stop token that ended it; in nats."""

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)  # log p of each token at temperature 1
    log_z: list[float] = field(default_factory=list)  # of the distribution that each token was drawn from
    entropy: list[float] = field(default_factory=list)  # of the distribution at temperature 1 (zeros unless requested)
    key: Hashable = None
    cached_tokens: int = 0  # prompt tokens whose keys and values were still cached

    def after(self, y: "Sample", m: int) -> "Sample":
        """Returns this sample with the first m tokens of y put before it."""
        lists = (getattr(y, name)[:m] + getattr(self, name) for name in ("tokens", "logp", "log_z", "entropy"))
        return Sample(*lists)


def stop_token_ids(model: str | Path, tokenizer=None) -> list[int]:
    """Returns all ids that end a response, sorted: those of the generation config and that of the tokenizer."""
    try:
        eos = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:  # without generation_config.json, transformers reads the model's config
        eos = AutoConfig.from_pretrained(model).eos_token_id
    ids = {*(eos if isinstance(eos, list) else [eos]), getattr(tokenizer, "eos_token_id", None)}
    return sorted(ids - {None})


def start_sampler(
    kind: str,
    model: str | Path,
    max_total_tokens: int,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    stop_ids: Sequence[int] | None = None,
    max_num_seqs: int = 256,
    kv_cache_memory_bytes: int | None = None,
    gpu_memory_utilization: float = 0.9,
    requests: bool = False,
    deterministic: bool = False,
    **engine_args,
) -> "TransformersSampler | VLLMSampler":
    """Loads `model` (folder or Hub id) into a sampler of the given kind.

    kind: "vllm", "transformers", or "auto": vLLM on a GPU, else transformers
    max_total_tokens: the largest number of tokens of a prompt and its response together
    dtype, device: default bfloat16 on the GPU if there is one, otherwise float32 on the CPU
    stop_ids: default `stop_token_ids` of the model and its tokenizer
    max_num_seqs: rows that run at the same time; changes speed and memory, not the distribution of samples
    kv_cache_memory_bytes: room for keys and values (default: 4 GiB; vLLM: as much as max_num_seqs responses that fill
        the window need, but at most 1 GiB on a CPU and what gpu_memory_utilization leaves on a GPU)
    requests: start vLLM so that it takes `submit`, too, and not only `generate`
    deterministic: let vLLM choose tokens by the numbers of the request, as transformers always does
    engine_args: further keywords for vllm.LLM

    A program with a process group initialises it first and then starts one sampler on each rank: vLLM makes a group of
    its own if there is none. Close the sampler when no process needs another any more: a vLLM engine ends all groups.
    Raises ValueError if the window is longer than the model's positions, RuntimeError if vLLM is not installed.
    """
    if kind not in ("auto", "vllm", "transformers"):
        raise ValueError(f'unknown sampler "{kind}": choose auto, vllm or transformers')
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = device.type == "cuda"
    if kind == "auto":
        kind = "vllm" if on_gpu else "transformers"
    positions = AutoConfig.from_pretrained(model).max_position_embeddings
    if max_total_tokens > positions:
        raise ValueError(f"{model} has {positions} positions: lower --max-total-tokens ({max_total_tokens}) to that")
    if stop_ids is None:
        stop_ids = stop_token_ids(model, AutoTokenizer.from_pretrained(model))
    shared: dict[str, Any] = {"kv_cache_memory_bytes": kv_cache_memory_bytes}
    shared["dtype"] = dtype or ("bfloat16" if on_gpu else "float32")
    if kind == "transformers":
        from common.rollout.transformers import TransformersSampler

        return TransformersSampler(model, max_total_tokens, stop_ids, device=device, max_batch=max_num_seqs, **shared)
    if importlib.util.find_spec("vllm") is None:
        raise RuntimeError("vLLM is not installed: pip install -r requirements.txt, or use --sampler transformers")
    set_engine_environment(on_gpu, requests)
    if not on_gpu:
        engine_args.setdefault("enforce_eager", True)
    engine_args |= dict(max_num_seqs=max_num_seqs, gpu_memory_utilization=gpu_memory_utilization)
    engine_args |= dict(requests=requests, deterministic=deterministic)
    from common.rollout.vllm import VLLMSampler

    return VLLMSampler(model, max_total_tokens, stop_ids, **shared, **engine_args)


def set_engine_environment(on_gpu: bool, requests: bool) -> None:
    """Sets the environment variables that vLLM reads while it is imported and started; what the user set is kept."""
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, where tensors can be passed to it
        # FlashInfer's kernels for top-p and top-k, which we never use, would be compiled at the start: that needs nvcc
        # and the CUDA headers.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",  # otherwise 50 lines at the start and three a step
    }
    if not on_gpu:
        defaults["TORCHDYNAMO_DISABLE"] = "1"  # otherwise the first request compiles C++ for ten seconds
    if requests:
        # Newer engines have a second model runner, which takes another kind of logits processor.
        defaults["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


# --- memory -----------------------------------------------------------------------------------------------------------

# What a vLLM engine takes beside weights and KV cache: activations of its longest prefill, float32 logits of all rows,
# CUDA graphs. An allowance.
ENGINE_WORKSPACE = 3 * 10**9


def kv_cache_bytes(config, max_num_seqs: int, window: int, dtype_bytes: int) -> int:
    """Returns the bytes of keys and values of `max_num_seqs` sequences that fill the window.

    vLLM shares the cache out in blocks of 16 to 128 tokens and keeps one block for itself: so a sequence is rounded up
    to 128 tokens, and 128 are added. `config` is that of the transformers model.
    """
    tokens = max_num_seqs * 128 * -(-window // 128) + 128
    return tokens * kv_token_bytes(config, dtype_bytes)


def kv_token_bytes(config, dtype_bytes: int) -> int:
    """Returns the bytes of one token's keys and values in all layers."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * dtype_bytes


def engine_bytes(
    config, num_parameters: int, max_num_seqs: int, window: int, dtype_bytes: int, limit: float
) -> tuple[float, int | None]:
    """Returns the bytes a vLLM engine takes on a GPU, and the KV cache it is asked for; None leaves that to vLLM.

    limit: the most the engine may take: gpu_memory_utilization times the memory of the card

    A cache of more than `max_num_seqs` full windows is never filled, so the engine gets no more than that. vLLM ignores
    gpu_memory_utilization where it is told the size of the cache. It is told only where that stays below the limit;
    otherwise vLLM measures what the rest of the engine takes and fills the limit.
    """
    kv_cache = kv_cache_bytes(config, max_num_seqs, window, dtype_bytes)
    needed = num_parameters * dtype_bytes + kv_cache + ENGINE_WORKSPACE
    return (needed, kv_cache) if needed < limit else (limit, None)


# --- what both samplers share -----------------------------------------------------------------------------------------


def response_budgets(
    prompts, n: int, window: int, max_total_tokens: int | Sequence[int], temperature: float
) -> list[int]:
    """Returns the number of response tokens that each prompt leaves room for; raises ValueError for a bad request.

    max_total_tokens: of prompt and response, one number for all prompts or one for each
    """
    limits = [max_total_tokens] * len(prompts) if isinstance(max_total_tokens, int) else list(max_total_tokens)
    if max(limits, default=0) > window:
        raise ValueError(f"max_total_tokens {max(limits)} is more than the {window} this sampler was started with")
    if temperature == 0 and n > 1:
        raise ValueError(f"greedy decoding gives {n} equal responses: ask for n=1 at temperature 0")
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if not 0 < len(prompt) < limit:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens, the window {limit}: drop it (fit_window) or widen it"
            )
    return [limit - len(prompt) for prompt, limit in zip(prompts, limits, strict=True)]


def make_rollout(prompts, responses: list[list[int]], sampler_logp: list[list[float]], n: int, stop_ids) -> Rollout:
    """Returns the rollout of these responses; those that contain a stop token are finished."""
    finished = [not set(stop_ids).isdisjoint(response) for response in responses]
    return Rollout(prompts, responses, sampler_logp, finished, n)


def check_all_pushed(missing: set[str]) -> None:
    """Raises RuntimeError if a push left out tensors of the model."""
    if missing:
        shown = ", ".join(sorted(missing)[:3]) + (" ..." if len(missing) > 3 else "")
        raise RuntimeError(
            f"the sampler is stale: {len(missing)} tensors left out ({shown}): push all, tied ones twice"
        )


# --- random numbers ---------------------------------------------------------------------------------------------------
#
# Everything random names its stream: a string that says what the numbers are for ("train", "validation", "evaluate
# math500", "power cuts"). A hash of the stream, the seed, the step and what else tells draws apart is the key of the
# generator. Two draws share numbers only if they agree in all of that: training, validation and evaluation are
# independent even with one seed.


def random_key(*parts) -> int:
    """Returns a 128-bit hash of strings and integers, to key or seed a generator."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=16).digest(), "little")


def generator(stream: str, seed: int, step: int = 0, *, word: int = 0, sample: int = 0) -> np.random.Generator:
    """Returns the generator of one draw of a stream.

    step: the training step, or any other count of repetitions
    word, sample: 64 bits each, for instance of a problem (`problem_word`) and of a sample of it
    """
    key, counter = random_key(stream, int(seed), int(step)), np.array([0, 0, sample, word], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniforms(seed: int, step: int, word: int, sample: int, count: int, stream: str = "train") -> np.ndarray:
    """Returns `count` uniform numbers in [0, 1), float64, of the stream's `generator`."""
    return generator(stream, seed, step, word=word, sample=sample).random(count)


def problem_word(problem_id) -> int:
    """Returns 64 bits that stand for a problem in the counters of random numbers."""
    return int.from_bytes(hashlib.blake2b(str(problem_id).encode(), digest_size=8).digest(), "little")


def problem_words(problem_ids: Sequence | None, num_prompts: int) -> list[int]:
    """Returns the 64-bit word of each prompt: of its problem id, or without ids of this process and its place.

    Raises ValueError if two ids are equal: they would get equal samples.
    """
    if problem_ids is None:
        problem_ids = [f"rank {rank()} place {i}" for i in range(num_prompts)]
    if not len(problem_ids) == num_prompts == len(set(problem_ids)):
        raise ValueError(f"{num_prompts} prompts need as many different problem_ids: equal ids would get equal samples")
    return [problem_word(i) for i in problem_ids]


def shows_progress(name: str) -> bool:
    """Returns whether a progress bar of this name is shown: on the first process, in a terminal, unless it is empty."""
    return bool(name) and rank() == 0 and sys.stderr.isatty()


def progress_bar(name: str, items: Iterable | None = None, *, total: int | None = None, **_) -> tqdm:
    """Returns a progress bar on stderr, which appears after two seconds where `shows_progress`. vLLM calls it in place
    of tqdm, with more arguments."""
    return tqdm(items, total=total, desc=name, delay=2, leave=False, disable=not shows_progress(name))


def rank() -> int:
    """Returns the rank of this process, 0 without a process group."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
