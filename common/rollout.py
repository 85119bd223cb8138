"""Rollouts: one interface, two samplers.

`start_sampler` gives a `VLLMSampler` (vLLM in this process, on a GPU or a CPU) or a `TransformersSampler` (a batched
KV-cache sampler over a plain transformers model, on any machine). Either owns a copy of the weights, which `push`
refreshes in place, and either answers `generate` with a `Rollout`. Token ids go in and come out; text is made from them
in one place, `Rollout.texts`. For methods that ask again as soon as an answer comes, either takes single requests with
`submit` and hands back what is done with `collect`, with the normaliser of each token's law (common/logz.py).

Shapes: P prompts, G group size (samples of a prompt), B = P * G rows (row b answers prompt b // G), T prompt columns,
V vocabulary.
"""

import hashlib
import importlib.util
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from common.logz import Recorder, Request, Sample, entropy, inverse_cdf, log_z, logits_processor

NamedTensors = Iterable[tuple[str, torch.Tensor]]


@dataclass
class Rollout:
    """Sampled responses, group by group: responses[b] answers prompts[b // group_size]."""

    prompts: list[list[int]]  # P prompt token ids
    responses: list[list[int]]  # B response token ids; the stop token that ended one is its last element
    sampler_logp: list[list[float]]  # B, same lengths; nats, log p at temperature 1 whatever temperature was sampled
    finished: list[bool]  # B; ended with a stop token (fixed length: contains one)
    group_size: int

    def texts(self, tokenizer, stop_ids: Sequence[int]) -> list[str]:
        """Gives B strings: each response up to (without) its first stop token, special tokens skipped."""
        ends = [next((i for i, token in enumerate(r) if token in stop_ids), len(r)) for r in self.responses]
        kept = [response[:end] for response, end in zip(self.responses, ends, strict=True)]
        return tokenizer.batch_decode(kept, skip_special_tokens=True)

    def out_of_vocabulary(self, vocab_size: int) -> int:
        """Gives the number of sampled tokens with id >= vocab_size: models pad their vocabulary past the tokenizer."""
        return sum(token >= vocab_size for response in self.responses for token in response)


def stop_token_ids(model: str | Path, tokenizer=None) -> list[int]:
    """Gives all ids that end a response, sorted: eos of the generation config (one or several) and of the tokenizer."""
    try:
        eos = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:  # no generation_config.json: transformers then takes the model's config
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
    max_total_tokens: the longest prompt + response that will be asked for
    dtype, device: default bfloat16 on a GPU where there is one, float32 on a CPU
    stop_ids: default `stop_token_ids` of the model and its tokenizer
    max_num_seqs: rows that run at the same time; it changes speed and memory, not the law
    kv_cache_memory_bytes: room for keys and values (default: 4 GiB; vLLM: 1 GiB on a CPU, on a GPU what
        gpu_memory_utilization leaves)
    requests: vLLM will be asked to `submit` too, not only to `generate`
    deterministic: vLLM then chooses tokens by the numbers of the request, as transformers always does
    engine_args: passed to vllm.LLM as they are

    A program with a process group initialises it first, then starts one sampler on each rank (vLLM makes a group of its
    own where it finds none).
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
    shared = dict(dtype=dtype or ("bfloat16" if on_gpu else "float32"), kv_cache_memory_bytes=kv_cache_memory_bytes)
    if kind == "transformers":
        return TransformersSampler(model, max_total_tokens, stop_ids, device=device, max_batch=max_num_seqs, **shared)
    if importlib.util.find_spec("vllm") is None:
        raise RuntimeError("vLLM is not installed: pip install -r requirements.txt, or use --sampler transformers")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in this process, where tensors are passed
    if not on_gpu:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # else the first request compiles C++ for ten seconds
        engine_args.setdefault("enforce_eager", True)
    engine_args |= dict(max_num_seqs=max_num_seqs, gpu_memory_utilization=gpu_memory_utilization)
    engine_args |= dict(requests=requests, deterministic=deterministic)
    return VLLMSampler(model, max_total_tokens, stop_ids, **shared, **engine_args)


def _budgets(prompts, n: int, window: int, max_total_tokens: int, temperature: float) -> list[int]:
    """Gives the number of response tokens that each prompt leaves room for; raises ValueError on a bad request."""
    if max_total_tokens > window:
        raise ValueError(f"max_total_tokens {max_total_tokens} is more than the {window} this sampler was started with")
    if temperature == 0 and n > 1:
        raise ValueError(f"greedy decoding gives {n} equal responses: ask for n=1 at temperature 0")
    for i, prompt in enumerate(prompts):
        if not 0 < len(prompt) < max_total_tokens:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens, the window {max_total_tokens}: drop it (fit_window) or widen it"
            )
    return [max_total_tokens - len(prompt) for prompt in prompts]


def _problem_words(problem_ids: Sequence | None, num_prompts: int) -> list[int]:
    """Gives a 64-bit word per prompt that its random numbers hang on: a hash of its problem id, else its place."""
    if problem_ids is None:
        return list(range(num_prompts))
    if not len(problem_ids) == num_prompts == len(set(problem_ids)):
        raise ValueError(f"{num_prompts} prompts need as many different problem_ids: equal ids would get equal samples")
    return [problem_word(i) for i in problem_ids]


def problem_word(problem_id) -> int:
    """Gives 64 bits that stand for a problem in counters of random numbers."""
    return int.from_bytes(hashlib.blake2b(str(problem_id).encode(), digest_size=8).digest(), "little")


def uniforms(seed: int, step: int, word: int, sample: int, count: int, stream: int = 0) -> np.ndarray:
    """Gives `count` uniform numbers in [0, 1), float64; stream 0 holds those that choose a response's tokens."""
    key, counter = np.array([seed, step], np.uint64), np.array([0, stream, sample, word], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter)).random(count)


def _rollout(prompts, responses: list[list[int]], sampler_logp: list[list[float]], n: int, stop_ids) -> Rollout:
    finished = [not set(stop_ids).isdisjoint(response) for response in responses]
    return Rollout(prompts, responses, sampler_logp, finished, n)


# ---------------------------------------------------------------- transformers


class KVCache:
    """Keys and values of all layers in tensors made once, (rows, key heads, capacity, head dim), filled up to `length`.

    The model only ever calls `update`, since masks and positions are handed to it: the rest of transformers' Cache is
    not needed.
    """

    def __init__(self, num_layers: int, capacity: int):
        self.num_layers, self.capacity, self.length = num_layers, capacity, 0
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_, **__):
        """Appends columns to the first len(keys) rows; gives all columns of these rows."""
        if layer == len(self.layers):
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            self.layers.append((keys.new_empty(shape), values.new_empty(shape)))
        rows, end = len(keys), self.length + keys.shape[2]
        for store, new in zip(self.layers[layer], (keys, values), strict=True):
            store[:rows, :, self.length : end] = new
        if layer == self.num_layers - 1:
            self.length = end
        old_keys, old_values = self.layers[layer]
        return old_keys[:rows, :, :end], old_values[:rows, :, :end]

    def expand(self, rows: torch.Tensor) -> None:
        """Makes row i a copy of what was row rows[i]: every sample gets the cache of its prompt."""
        for i, stores in enumerate(self.layers):
            self.layers[i] = tuple(store.new_empty((len(rows), *store.shape[1:])) for store in stores)
            for new, old in zip(self.layers[i], stores, strict=True):
                new[:, :, : self.length] = old[rows, :, : self.length]

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copies rows `source` over rows `target`."""
        for stores in self.layers:
            for store in stores:
                store[target, :, : self.length] = store[source, :, : self.length]


def _cache_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """SDPA; with one query column, the query heads of a key head stand side by side, so that keys need no copies."""
    rows, heads, columns, dim = query.shape
    if columns > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    query = query.view(rows, key.shape[1], -1, dim)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return out.view(rows, 1, heads, dim), None


ALL_ATTENTION_FUNCTIONS.register("cache_attention", _cache_attention)


class TransformersSampler:
    """Batched sampler over its own unsharded transformers model (Qwen2, Qwen3, Llama).

    The t-th token of row (problem, sample) inverts the distribution function, in float64, at the t-th number of a
    counter-based generator with key (seed, step) and counter (problem, sample): a response is a function of (weights,
    seed, step, problem, sample), whatever batch it runs in (up to rounding of the logits).

    max_batch: rows that run at the same time; kv_cache_memory_bytes (default 4 GiB) lowers it where rows are long
    """

    def __init__(
        self,
        model: str | Path,
        max_total_tokens: int,
        stop_ids: Sequence[int],
        *,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        max_batch: int = 256,
        kv_cache_memory_bytes: int | None = None,
    ):
        self.device = torch.device(device)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="cache_attention")
        self.model.to(self.device).eval().requires_grad_(False)
        if "sliding_attention" in (getattr(self.model.config, "layer_types", None) or []):
            raise ValueError(f"{model} has sliding-window attention, which this sampler does not: use --sampler vllm")
        self.max_total_tokens, self.stop_ids, self.max_batch = max_total_tokens, list(stop_ids), max_batch
        self.kv_cache_memory_bytes = kv_cache_memory_bytes or 4 << 30
        self.waiting: list[Request] = []

    @torch.inference_mode()
    def generate(
        self,
        prompts: list[list[int]],
        n: int,
        max_total_tokens: int,
        seed: int,
        step: int = 0,
        problem_ids: Sequence | None = None,
        temperature: float = 1.0,
        fixed_length: bool = False,
    ) -> Rollout:
        """Gives n responses to each prompt; prompt + response have at most (fixed_length: exactly) max_total_tokens.

        temperature 0 is greedy; fixed_length takes stop tokens for ordinary ones. problem_ids (default: the places in
        `prompts`) name the random numbers, with seed and step.
        Raises ValueError if a prompt leaves no room for a response, or if a problem id comes twice.
        """
        budgets = _budgets(prompts, n, self.max_total_tokens, max_total_tokens, temperature)
        words = _problem_words(problem_ids, len(prompts))
        rows = [(p, sample) for p in range(len(prompts)) for sample in range(n)]
        size = self.capacity(max_total_tokens)
        responses, sampler_logp = [], []
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            numbers = [uniforms(seed, step, words[p], sample, budgets[p]) for p, sample in chunk]
            tokens, logp = self._sample([prompts[p] for p, _ in chunk], numbers, temperature, fixed_length)
            responses += tokens
            sampler_logp += logp
        return _rollout(prompts, responses, sampler_logp, n, self.stop_ids)

    def capacity(self, max_total_tokens: int) -> int:
        """Gives the number of rows of this length that run at the same time."""
        config = self.model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        column_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * self.model.dtype.itemsize
        return max(1, min(self.max_batch, self.kv_cache_memory_bytes // (column_bytes * max_total_tokens)))

    def submit(self, request: Request) -> None:
        """Takes a request; `collect` samples for all that wait."""
        self.waiting.append(request)

    @torch.inference_mode()
    def collect(self) -> list[Sample]:
        """Gives the samples of all requests that wait, in one batch as far as memory allows."""
        waiting, self.waiting = self.waiting, []
        samples = []
        for temperature in sorted({request.temperature for request in waiting}):
            rows = [request for request in waiting if request.temperature == temperature]
            size = self.capacity(self.max_total_tokens)
            for chunk in (rows[start : start + size] for start in range(0, len(rows), size)):
                prompts, numbers = [request.prompt for request in chunk], [request.numbers for request in chunk]
                columns = self._sample(prompts, numbers, temperature, fixed_length=False, record=True)
                samples += [Sample(*lists, r.key) for r, *lists in zip(chunk, *columns, strict=True)]
        return samples

    def _sample(
        self,
        prompts: list[list[int]],
        numbers: list[np.ndarray],
        temperature: float,
        fixed_length: bool,
        record: bool = False,
    ) -> list[list[list]]:
        """Samples a response for each row, at most one token a uniform number.

        Gives the rows' tokens and their log p (nats); with `record` also log Z and entropy where each was drawn.
        """
        device = self.device
        budget = torch.tensor([len(row) for row in numbers], device=device)
        steps = int(budget.max())
        uniform = torch.zeros(len(numbers), steps, dtype=torch.float64)
        for row, own in zip(uniform, numbers, strict=True):
            row[: len(own)] = torch.from_numpy(own)
        uniform = uniform.to(device)

        distinct = {tuple(prompt): None for prompt in prompts}  # each runs once
        place = {prompt: i for i, prompt in enumerate(distinct)}
        logits, length, mask, cache = self._prefill(list(distinct), steps)
        T, padded = mask.shape[-1] - steps, len(set(map(len, distinct))) > 1
        owner = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=device)
        cache.expand(owner)
        logits, position, mask = logits[owner], length[owner][:, None], mask[owner]

        tokens = torch.zeros(len(prompts), steps, dtype=torch.long, device=device)
        sampled_logp, *recorded = torch.zeros(
            3 if record else 1, len(prompts), steps, dtype=torch.float64, device=device
        )
        count = budget.clone()
        stops = torch.tensor([] if fixed_length else self.stop_ids, dtype=torch.long, device=device)
        live = torch.arange(len(prompts), device=device)  # cache row -> row
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # of a cache row
        for t in range(steps):
            logp = logits.double().log_softmax(-1)
            if temperature == 0:
                token = logp.argmax(-1)
            else:
                token = inverse_cdf(logp, temperature, uniform[live, t, None])[:, 0]
            tokens[live, t] = token
            sampled_logp[live, t] = logp.gather(1, token[:, None])[:, 0]
            if record:
                recorded[0][live, t], recorded[1][live, t] = log_z(logp, temperature)[:, 0], entropy(logp)[:, 0]
            ended = ~done & (torch.isin(token, stops) | (budget[live] == t + 1))
            count[live[ended]] = t + 1
            done |= ended
            alive = len(done) - int(done.sum())
            if alive == 0:
                break
            if alive < 0.9 * len(done):  # the last live rows move into the places of finished ones
                order = torch.arange(alive, device=device)
                holes, movers = done[:alive].nonzero()[:, 0], (~done[alive:]).nonzero()[:, 0] + alive
                cache.move(movers, holes)
                order[holes] = movers
                live, done, token, position, mask = (x[order] for x in (live, done, token, position, mask))
            logits = self._forward(token[:, None], mask[..., : T + t + 1] if padded else None, position + t, cache)
        columns = (tokens, sampled_logp, *recorded)
        return [[x[:c] for x, c in zip(xs.tolist(), count.tolist(), strict=True)] for xs in columns]

    def _prefill(self, prompts: Sequence[Sequence[int]], steps: int):
        """Runs P prompts, padded on the left to T columns; `steps` columns are to follow.

        Gives the logits of their next tokens (P, V), their lengths (P,), the mask for what follows (P, 1, 1, T + steps)
        and the cache.
        """
        length = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        T = int(length.max())
        # Place tells padding: its id is that of a real token too.
        ids = torch.tensor([[0] * (T - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        column = torch.arange(T, device=self.device)
        position = column - T + length[:, None]
        real = position >= 0
        # A padding column sees itself, or its softmax would be over nothing.
        visible = (column <= column[:, None]) & real[:, None, :] | torch.eye(T, dtype=torch.bool, device=self.device)
        cache = KVCache(self.model.config.num_hidden_layers, T + steps)
        logits = self._forward(ids, visible[:, None], position.clamp(min=0), cache)
        mask = torch.zeros(len(prompts), 1, 1, T + steps, dtype=logits.dtype, device=self.device)
        mask[..., :T].masked_fill_(~real[:, None, None], float("-inf"))
        return logits, length, mask, cache

    def _forward(self, ids, mask, position_ids, cache: KVCache) -> torch.Tensor:
        """Gives the logits of the last column, (rows, V)."""
        cached = dict(past_key_values=cache, use_cache=True)
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=position_ids, logits_to_keep=1, **cached)
        return out.logits[:, -1]

    @torch.no_grad()
    def push(self, named_tensors: NamedTensors) -> None:
        """Copies (state-dict name, full tensor) pairs into the model, tied heads under both names.

        Raises RuntimeError if a tensor of the model is left out, ValueError if one has another name or shape.
        """
        state = self.model.state_dict()
        missing = set(state)
        for name, tensor in named_tensors:
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} {tuple(tensor.shape)} does not fit the sampler: push the model it was started with"
                )
            state[name].copy_(tensor)
            missing.discard(name)
        _raise_if_missing(missing)

    def sleep(self) -> None:
        """Nothing to do: the cache lives for one `generate` only."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def _raise_if_missing(names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
        raise RuntimeError(f"the sampler is stale: {len(names)} tensors left out ({shown}): push all, tied ones twice")


# ------------------------------------------------------------------------ vLLM


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seeds the global generators, which the engine draws from and reseeds; the trainer gets them back as they were."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


class _AtOnce:
    """Takes the place of `process_outputs` of an engine's output processor, and gives it the tokens of a request that
    asked for its final output only all at once, when it has ended: its work for each token, in Python, held up every
    step of decoding.

    A request's first output passes as it comes, for what the engine says of the prompt. Log-probabilities go where the
    processor would have put them; of their ranks and sum, which nothing here reads, only the first token's are kept."""

    def __init__(self, processor):
        from vllm.sampling_params import RequestOutputKind

        self.processor, self.process = processor, processor.process_outputs
        self.final_only = RequestOutputKind.FINAL_ONLY
        self.held: dict[str, list] = {}  # by request, its outputs after the first

    def __call__(self, outputs: list, *args, **kwargs):
        passed = []
        for output in outputs:
            key, ended = output.request_id, output.finish_reason is not None
            if key not in self.held:
                passed.append(output)
                state = self.processor.request_states.get(key)  # None for one that was aborted
                if state and state.output_kind == self.final_only and not ended:
                    self.held[key] = []
                continue
            self.held[key].append(output)
            if ended:
                passed.append(self._joined(self.held.pop(key)))
        return self.process(passed, *args, **kwargs)

    def _joined(self, outputs: list):
        last, kept = outputs[-1], self.processor.request_states[outputs[-1].request_id].logprobs_processor.logprobs
        found = [output.new_logprobs.logprobs[:, 0] for output in outputs if output.new_logprobs is not None]
        if found:  # none in an end without a token
            kept.logprobs.extend(np.concatenate(found).tolist())
        last.new_token_ids = [token for output in outputs for token in output.new_token_ids]
        last.new_logprobs = None
        return last


class VLLMSampler:
    """vLLM 0.26 to 0.33 in this process, one engine a rank, on a GPU or a CPU; `start_sampler` sets its environment.

    The cycle on a GPU: generate, sleep (drops weights and cache), train, wake (or not), push, generate. On a CPU sleep
    and wake do nothing. The arguments are those of `start_sampler`; `llm` is the engine.
    """

    # Compared after a push: embedding, a linear layer, the last norm, and the head, which may be a copy.
    PROBES = (
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    )

    def __init__(
        self,
        model: str | Path,
        max_total_tokens: int,
        stop_ids: Sequence[int],
        *,
        dtype: str | torch.dtype = "bfloat16",
        max_num_seqs: int = 256,
        gpu_memory_utilization: float = 0.9,
        kv_cache_memory_bytes: int | None = None,
        requests: bool = False,
        deterministic: bool = False,
        **engine_args,
    ):
        from vllm import LLM

        self.max_total_tokens, self.stop_ids = max_total_tokens, list(stop_ids)
        self.on_gpu = torch.cuda.is_available()
        if self.on_gpu:
            defaults = dict(enable_sleep_mode=True, async_scheduling=True)
        else:  # vLLM would plan for nearly all memory, and its blocks of 128 tokens would share no short prompt
            defaults = dict(block_size=32)
            kv_cache_memory_bytes = kv_cache_memory_bytes or 1 << 30
        self.recorder, self.deterministic = None, deterministic
        if requests:
            self.recorder = Recorder(max_total_tokens)
            defaults["logits_processors"] = [logits_processor(self.recorder)]
            # Newer engines have a second model runner, which takes another kind of processor.
            os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            defaults["distributed_executor_backend"] = "external_launcher"  # this rank's own device
        with _own_randomness(0):
            self.llm = LLM(
                model=str(model),
                dtype=dtype,
                max_model_len=max_total_tokens,
                max_num_seqs=max_num_seqs,
                gpu_memory_utilization=gpu_memory_utilization,
                kv_cache_memory_bytes=kv_cache_memory_bytes,
                skip_tokenizer_init=True,  # ids in, ids out
                generation_config="vllm",  # the model's own would set top_p, top_k and more stop ids
                logprobs_mode="raw_logprobs",  # log p at temperature 1
                **defaults | engine_args,
            )
        processor = self.llm.llm_engine.output_processor
        processor.process_outputs = _AtOnce(processor)
        with torch.device("meta"):
            self.names = set(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).state_dict())
        self.sleeping: set[str] = set()  # parts of the engine without memory: "weights", "kv_cache"
        self.stale = False  # weights were lost, or a push did not go through

    def _params(self, n: int, budget: int, temperature: float, fixed_length: bool, **more):
        from vllm import SamplingParams

        return SamplingParams(
            n=n,
            temperature=temperature,
            top_p=1.0,
            top_k=-1,
            max_tokens=budget,
            ignore_eos=fixed_length,
            stop_token_ids=[] if fixed_length else self.stop_ids,
            logprobs=0,  # of the sampled token only
            flat_logprobs=True,
            detokenize=False,
            **more,
        )

    def generate(
        self,
        prompts: list[list[int]],
        n: int,
        max_total_tokens: int,
        seed: int,
        step: int = 0,
        problem_ids: Sequence | None = None,
        temperature: float = 1.0,
        fixed_length: bool = False,
    ) -> Rollout:
        """As TransformersSampler.generate, but for the random numbers, which hang on the whole batch.

        The same call gives the same samples on a CPU; on a GPU as far as its kernels allow.
        """
        if self.stale:
            raise RuntimeError("the engine has no valid weights since it slept or since a push failed: call push first")
        budgets = _budgets(prompts, n, self.max_total_tokens, max_total_tokens, temperature)
        words = _problem_words(problem_ids, len(prompts))
        # Requests carry no seed of their own: equal prompts with equal seeds would get equal samples.
        digest = hashlib.blake2b(repr((seed, step, words)).encode(), digest_size=4).digest()
        with _own_randomness(int.from_bytes(digest, "little")):
            outputs = self.llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                [self._params(n, budget, temperature, fixed_length) for budget in budgets],
                use_tqdm=False,
            )
        answers = [answer for output in outputs for answer in output.outputs]
        responses = [list(answer.token_ids) for answer in answers]
        return _rollout(prompts, responses, [answer.logprobs.logprobs for answer in answers], n, self.stop_ids)

    def capacity(self, max_total_tokens: int) -> int:
        """Gives the number of requests of this length that run at the same time and keep their cache."""
        config = self.llm.llm_engine.vllm_config
        cached = config.cache_config.num_gpu_blocks * config.cache_config.block_size
        return max(1, min(config.scheduler_config.max_num_seqs, cached // max_total_tokens))

    def submit(self, request: Request) -> None:
        """Hands a request to the engine; it runs in `collect`. The engine was started with `requests`."""
        from vllm.sampling_params import RequestOutputKind

        row = self.recorder.take(request)
        asked = dict(row=row, temperature=request.temperature, entropy=request.entropy)
        asked["deterministic"] = self.deterministic
        params = self._params(
            n=1,
            budget=request.max_new_tokens,
            temperature=0.0 if self.deterministic else request.temperature,  # one token is left to choose from
            fixed_length=False,
            extra_args=asked,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.llm.llm_engine.add_request(str(row), {"type": "token", "prompt_token_ids": request.prompt}, params)

    def collect(self) -> list[Sample]:
        """Steps the engine until a request is done; gives the samples of those that are, [] if none runs."""
        engine, samples = self.llm.llm_engine, []
        while not samples and engine.has_unfinished_requests():
            for output in engine.step():
                answer = output.outputs[0]
                key, *recorded = self.recorder.give(int(output.request_id), len(answer.token_ids))
                lists = (list(answer.token_ids), answer.logprobs.logprobs, *recorded)
                samples.append(Sample(*lists, key, output.num_cached_tokens or 0))
        return samples

    def push(self, named_tensors: NamedTensors) -> None:
        """Loads (state-dict name, full tensor) pairs, tied heads under both names, into the engine and wakes it.

        The pairs are read once, one by one: they may be gathered from shards on the way, but not into one buffer.
        Raises RuntimeError if a tensor is left out, or if one of PROBES is not bit for bit in the engine afterwards.
        """
        missing, pushed = set(self.names), {}

        def watched() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in named_tensors:
                missing.discard(name)
                if name in self.PROBES:
                    pushed[name] = _columns(tensor)
                yield name, tensor

        self.stale = True
        self._wake("weights")
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": watched()})
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache, now stale: push only while no request is running")
        _raise_if_missing(missing)
        for name, columns in pushed.items():
            if not self.llm.apply_model(partial(_holds, name=name, pushed=columns))[0]:
                raise RuntimeError(f"the engine is stale: {name} is not what was pushed: use --sampler transformers")
        self._wake("kv_cache")
        self.stale = False

    def sleep(self) -> None:
        """Drops the engine's weights and cache from the GPU: the next `generate` needs a `push`."""
        if self.on_gpu and not self.sleeping:
            self.llm.sleep(level=2)
            self.sleeping = {"weights", "kv_cache"}
            self.stale = True

    def wake(self) -> None:
        """Takes memory for the weights again; `push` does so too, fills it, and wakes the cache."""
        self._wake("weights")

    def close(self) -> None:
        """Ends the engine. vLLM then destroys the process group, the trainer's too: close the sampler last."""
        self.llm.llm_engine.engine_core.shutdown()

    def _wake(self, part: str) -> None:
        if part in self.sleeping:
            torch.cuda.empty_cache()  # torch still holds the training peak, and vLLM allocates beside it
            self.llm.wake_up(tags=[part])
            self.sleeping.discard(part)


def _columns(weight: torch.Tensor) -> torch.Tensor:
    """Gives a copy of some evenly spaced columns of a matrix (32 to 64, or all), or of a whole vector."""
    weight = weight.detach()
    return weight[:, :: -(-weight.shape[1] // 64)].clone() if weight.dim() == 2 else weight.clone()


def _holds(engine: torch.nn.Module, name: str, pushed: torch.Tensor) -> bool:
    """Whether the engine computes with the weight of that name of which `pushed` are the `_columns`."""
    layer = engine.get_submodule(name.removesuffix(".weight"))
    found = [_columns(layer.weight)] if layer.weight.numel() > 0 else []
    if hasattr(layer, "cpu_linear"):  # on a CPU vLLM computes with a packed copy: one-hot inputs read it out, exactly
        width = layer.input_size if hasattr(layer, "input_size") else layer.embedding_dim
        one_hot = _columns(torch.eye(width, dtype=layer.weight.dtype)).T.contiguous()
        found.append(layer.cpu_linear(one_hot, layer.weight, None).T)
    # The engine pads its vocabulary with more rows.
    return all(torch.equal(weight[: len(pushed)], pushed.to(weight)) for weight in found)
