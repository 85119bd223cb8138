"""Requests for tempered samples, and what they bring back of the sampler's own forward pass at every token:

    log Z = logsumexp(logits / T) - logsumexp(logits) / T = log sum_v p(v)^(1/T)     the normaliser of temperature T
    H     = - sum_v p(v) log p(v)                                                    the entropy at temperature 1

With the log p of the token this is all that is needed of two laws, p and p at temperature T: log q = log p / T - log Z.
vLLM shows its raw logits to a logits processor, which writes them down: no second pass, no change to the engine.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Request:
    """One response to be sampled; prompt and response fit in the sampler's window."""

    key: Hashable  # comes back with the sample
    prompt: list[int]
    max_new_tokens: int
    temperature: float
    numbers: np.ndarray  # (max_new_tokens,) uniform, float64: the t-th chooses the t-th token (vLLM: if deterministic)
    entropy: bool = False  # whether H is wanted


@dataclass(frozen=True)
class Sample:
    """What was sampled: lists of one length, the stop token that ended it included; nats."""

    key: Hashable
    tokens: list[int]
    logp: list[float]  # log p of each token at temperature 1
    log_z: list[float]  # of the law that each token was drawn from
    entropy: list[float]  # of the law at temperature 1 (zeros unless asked for)
    cached_tokens: int  # prompt tokens whose keys and values were still there


def log_z(logits: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Gives log Z of each row: (rows, V) -> (rows,); `temperature` is a number or (rows, 1)."""
    power = 1 / temperature
    power = power[:, 0] if isinstance(power, torch.Tensor) else power
    return (logits / temperature).logsumexp(-1) - logits.logsumexp(-1) * power


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Gives the entropy of each row's softmax, nats: (rows, V) -> (rows,)."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1)


class Recorder:
    """Tables on the engine's device with a row for each request in flight and a column for each of its tokens."""

    def __init__(self, window: int):
        self.window, self.keys, self.free = window, [], []
        self.values = torch.empty(2, 0, window)  # log Z and entropy
        self.numbers = torch.empty(0, window, dtype=torch.float64)

    def take(self, request: Request, deterministic: bool) -> int:
        """Gives a row to a request."""
        if not self.free:
            first, more = len(self.keys), len(self.keys) or 64
            self.values = torch.cat([self.values, self.values.new_empty(2, more, self.window)], 1)
            self.numbers = torch.cat([self.numbers, self.numbers.new_empty(more, self.window)])
            self.keys += [None] * more
            self.free += range(first, first + more)
        place = self.free.pop()
        self.keys[place] = request.key
        self.values[0, place], self.values[1, place] = torch.nan, 0
        if deterministic:
            self.numbers[place, : len(request.numbers)] = torch.from_numpy(request.numbers)
        return place

    def give(self, place: int, length: int) -> tuple[Hashable, list[float], list[float]]:
        """Frees a row; gives its request's key and its first `length` values of log Z and of the entropy."""
        values = self.values[:, place, :length].tolist()
        if any(value != value for value in values[0]):
            raise RuntimeError("the engine did not show all its logits: start it without speculative decoding.")
        self.free.append(place)
        return self.keys[place], *values


def logits_processor(recorder: Recorder) -> type:
    """Gives the class of vLLM logits processors that fill `recorder`, for LLM(logits_processors=[...]), in this process."""
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class RecordingProcessor(LogitsProcessor):
        def __init__(self, vllm_config, device: torch.device, is_pin_memory: bool):
            self.vocabulary = vllm_config.model_config.get_vocab_size()
            self.device, self.pinned = device, is_pin_memory
            recorder.values, recorder.numbers = recorder.values.to(device), recorder.numbers.to(device)
            self.rows: dict[int, tuple[dict, list[int]]] = {}  # row of the batch -> its request, its tokens so far

        def is_argmax_invariant(self) -> bool:
            return False  # such processors see the logits before the temperature

        def update_state(self, batch_update) -> None:
            process_dict_updates(
                self.rows,
                batch_update,
                lambda params, prompt, output: params.extra_args and (params.extra_args, output),
            )

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            """Writes down log Z of the token about to be drawn. Its column is the number of tokens drawn before it, so a
            piece of a long prompt, or a request that is computed again after preemption, is overwritten by what counts."""
            if not self.rows:
                return logits
            if logits.shape[1] < self.vocabulary:
                raise ValueError(
                    f"the engine shows {logits.shape[1]} of {self.vocabulary} logits, so log Z would be wrong: "
                    "run one engine a GPU (tensor_parallel_size 1), or use --sampler transformers."
                )
            requests, outputs = zip(*self.rows.values(), strict=True)
            row, place, column = self._on_device(
                [list(self.rows), [request["place"] for request in requests], [len(output) for output in outputs]],
                torch.long,
            )
            temperature = self._on_device([request["temperature"] for request in requests], torch.float32)[:, None]
            seen = logits if len(row) == len(logits) else logits[row]
            ...
            return logits

        def _on_device(self, values: list, dtype: torch.dtype) -> torch.Tensor:
            host = torch.tensor(values, dtype=dtype, pin_memory=self.pinned)
            return host.to(self.device, non_blocking=True)

    return RecordingProcessor
