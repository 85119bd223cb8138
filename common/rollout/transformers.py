"""A sampler over a plain transformers model, with a key-value cache and batches of rows, for any machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from common.rollout import (
    NamedTensors,
    Request,
    Rollout,
    Sample,
    check_all_pushed,
    kv_token_bytes,
    make_rollout,
    problem_words,
    progress_bar,
    response_budgets,
    uniforms,
)


def log_z(logits: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Returns log Z = log sum_v p(v)^(1/temperature) of each row: (rows, V) -> (rows, 1).

    `temperature` is a number or (rows, 1).
    """
    return (logits / temperature).logsumexp(-1, keepdim=True) - logits.logsumexp(-1, keepdim=True) / temperature


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Returns the entropy of each row's softmax, nats: (rows, V) -> (rows, 1)."""
    p = logits.softmax(-1)
    return torch.special.entr(p).sum(-1, keepdim=True)


def inverse_cdf(logits: torch.Tensor, temperature: float | torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Returns the token at which each row's cumulative distribution passes its number: (rows, V) -> (rows, 1)."""
    cdf = (logits.double() / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(cdf, numbers * cdf[:, -1:], right=True).clamp_(max=cdf.shape[1] - 1)


class KVCache:
    """Keys and values of all layers, in tensors (rows, key heads, capacity, head dim) that are filled up to `length`.

    The tensors are allocated once. The model calls only `update`, since we pass masks and positions: the rest of
    transformers' Cache is not needed.
    """

    def __init__(self, num_layers: int, capacity: int):
        self.num_layers, self.capacity, self.length = num_layers, capacity, 0
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_, **__):
        """Appends columns to the first len(keys) rows; returns all columns of these rows."""
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
        """Makes row i a copy of the former row rows[i], so that every sample has the cache of its prompt."""
        for i, stores in enumerate(self.layers):
            new_keys, new_values = (store.new_empty((len(rows), *store.shape[1:])) for store in stores)
            self.layers[i] = new_keys, new_values
            for new, old in zip(self.layers[i], stores, strict=True):
                new[:, :, : self.length] = old[rows, :, : self.length]

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copies rows `source` over rows `target`."""
        for stores in self.layers:
            for store in stores:
                store[target, :, : self.length] = store[source, :, : self.length]


def _cache_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """Calls SDPA. With one query column, the query heads of a key head become columns, so that keys need no copies."""
    rows, heads, columns, dim = query.shape
    if columns > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    query = query.view(rows, key.shape[1], -1, dim)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return out.view(rows, 1, heads, dim), None


ALL_ATTENTION_FUNCTIONS.register("cache_attention", _cache_attention)


class TransformersSampler:
    """Batched sampler over its own unsharded transformers model (Qwen2, Qwen3, Llama).

    The t-th token of row (problem, sample) inverts the distribution function, in float64, at the t-th number of the
    generator of (stream, seed, step, problem, sample): a response is a function of these and of the weights, whatever
    batch and process it runs in (up to rounding of the logits).

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
            raise ValueError(f"{model} has sliding-window attention, which this sampler lacks: use --sampler vllm")
        self.max_total_tokens, self.stop_ids, self.max_batch = max_total_tokens, list(stop_ids), max_batch
        self.kv_cache_memory_bytes = kv_cache_memory_bytes or 4 << 30
        self.waiting: list[Request] = []

    @torch.inference_mode()
    def generate(
        self,
        prompts: list[list[int]],
        n: int,
        max_total_tokens: int | Sequence[int],
        seed: int,
        step: int = 0,
        problem_ids: Sequence | None = None,
        temperature: float = 1.0,
        fixed_length: bool = False,
        stream: str = "train",
        progress: str = "",
    ) -> Rollout:
        """Samples n responses to each prompt; prompt + response have at most (fixed_length: exactly) max_total_tokens,
        which is one number or one for each prompt.

        temperature 0 is greedy; with fixed_length, stop tokens are ordinary tokens. The random numbers are those of
        stream, seed, step and problem_ids (default: this process and the place in `prompts`): `stream` says what the
        samples are for, so that training, validation and evaluation draw independently even with one seed. `progress`
        names a progress bar in the terminal.
        Raises ValueError if a prompt leaves no room for a response, or if a problem id comes twice.
        """
        budgets = response_budgets(prompts, n, self.max_total_tokens, max_total_tokens, temperature)
        words = problem_words(problem_ids, len(prompts))
        rows = [(p, sample) for p in range(len(prompts)) for sample in range(n)]
        size = self.capacity(max((len(p) + b for p, b in zip(prompts, budgets, strict=True)), default=1))
        responses, sampler_logp = [], []
        with progress_bar(progress, total=len(rows)) as bar:
            for start in range(0, len(rows), size):
                chunk = rows[start : start + size]
                numbers = [uniforms(seed, step, words[p], sample, budgets[p], stream) for p, sample in chunk]
                tokens, logp = self._sample(
                    [prompts[p] for p, _ in chunk], numbers, temperature, fixed_length, on_end=bar.update
                )
                responses += tokens
                sampler_logp += logp
        return make_rollout(prompts, responses, sampler_logp, n, self.stop_ids)

    def capacity(self, max_total_tokens: int) -> int:
        """Returns the number of rows of this length that run at the same time."""
        row_bytes = max_total_tokens * kv_token_bytes(self.model.config, self.model.dtype.itemsize)
        return max(1, min(self.max_batch, self.kv_cache_memory_bytes // row_bytes))

    def submit(self, request: Request) -> None:
        """Takes a request, which waits for `collect`."""
        self.waiting.append(request)

    @torch.inference_mode()
    def collect(self) -> list[Sample]:
        """Samples all waiting requests, in one batch as far as memory allows."""
        waiting, self.waiting = self.waiting, []
        samples = []
        for temperature in sorted({request.temperature for request in waiting}):
            rows = [request for request in waiting if request.temperature == temperature]
            size = self.capacity(self.max_total_tokens)
            for chunk in (rows[start : start + size] for start in range(0, len(rows), size)):
                prompts, numbers = [request.prompt for request in chunk], [request.numbers for request in chunk]
                columns = self._sample(prompts, numbers, temperature, fixed_length=False, record=True)
                samples += [
                    Sample(tokens, logp, log_z, entropy, request.key)
                    for request, tokens, logp, log_z, entropy in zip(chunk, *columns, strict=True)
                ]
        return samples

    def _sample(
        self,
        prompts: list[list[int]],
        numbers: list[np.ndarray],
        temperature: float,
        fixed_length: bool,
        record: bool = False,
        on_end: Callable[[int], object] = lambda count: None,
    ) -> list[list[list]]:
        """Samples a response for each row, with at most as many tokens as the row has uniform numbers.

        Returns the rows' tokens and their log p (nats); with `record` also log Z and entropy of their distributions.
        `on_end` is told how many responses have ended, whenever some have.
        """
        device = self.device
        budget = torch.tensor([len(row) for row in numbers], device=device)
        steps = int(budget.max())
        uniform = torch.zeros(len(numbers), steps, dtype=torch.float64)
        for row, own in zip(uniform, numbers, strict=True):
            row[: len(own)] = torch.from_numpy(own)
        uniform = uniform.to(device)

        distinct = {tuple(prompt): None for prompt in prompts}  # each is processed once
        place = {prompt: i for i, prompt in enumerate(distinct)}
        logits, length, mask, cache = self.prefill(list(distinct), steps)
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
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # by cache row
        unended = len(prompts)
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
            if alive < unended:
                on_end(unended - alive)
                unended = alive
            if alive == 0:
                break
            if alive < 0.9 * len(done):  # the last live rows move into the places of finished ones
                order = torch.arange(alive, device=device)
                holes, movers = done[:alive].nonzero()[:, 0], (~done[alive:]).nonzero()[:, 0] + alive
                cache.move(movers, holes)
                order[holes] = movers
                live, done, token, position, mask = (x[order] for x in (live, done, token, position, mask))
            logits = self.forward(token[:, None], mask[..., : T + t + 1] if padded else None, position + t, cache)
        columns = (tokens, sampled_logp, *recorded)
        return [[x[:c] for x, c in zip(xs.tolist(), count.tolist(), strict=True)] for xs in columns]

    def prefill(self, prompts: Sequence[Sequence[int]], steps: int):
        """Runs P prompts, padded on the left to T columns, and allocates `steps` more columns.

        Returns the logits of their next tokens (P, V), their lengths (P,), the mask for what follows
        (P, 1, 1, T + steps), and the cache.
        """
        length = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        T = int(length.max())
        # Padding is known by its position, since its id is also that of a real token.
        ids = torch.tensor([[0] * (T - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        column = torch.arange(T, device=self.device)
        position = column - T + length[:, None]
        real = position >= 0
        # A padding column sees itself: a softmax over nothing would be NaN.
        visible = (column <= column[:, None]) & real[:, None, :] | torch.eye(T, dtype=torch.bool, device=self.device)
        cache = KVCache(self.model.config.num_hidden_layers, T + steps)
        logits = self.forward(ids, visible[:, None], position.clamp(min=0), cache)
        mask = torch.zeros(len(prompts), 1, 1, T + steps, dtype=logits.dtype, device=self.device)
        mask[..., :T].masked_fill_(~real[:, None, None], float("-inf"))
        return logits, length, mask, cache

    def forward(self, ids, mask, position_ids, cache: KVCache) -> torch.Tensor:
        """Returns the logits of the last column, (rows, V)."""
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
        check_all_pushed(missing)

    def seed_requests(self, stream: str, seed: int, step: int = 0) -> None:
        """Nothing to do: each request brings its random numbers."""

    def sleep(self) -> None:
        """Nothing to do: the cache lives for one `generate` only."""

    def close(self) -> None:
        """Nothing to do."""
