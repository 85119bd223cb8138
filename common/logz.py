"""Requests for tempered samples, and what they bring back of the sampler's own forward pass at every token:

    log Z = logsumexp(logits / T) - logsumexp(logits) / T = log sum_v p(v)^(1/T)     the normaliser of temperature T
    H     = - sum_v p(v) log p(v)                                                    the entropy at temperature 1

Beside the token's log p this is all there is to know of two laws, p and p at temperature T: log q = log p / T - log Z.
vLLM shows its raw logits to a logits processor, which writes them down: no second pass, no change to the engine.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

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

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)  # log p of each token at temperature 1
    log_z: list[float] = field(default_factory=list)  # of the law that each token was drawn from
    entropy: list[float] = field(default_factory=list)  # of the law at temperature 1 (zeros unless asked for)
    key: Hashable = None
    cached_tokens: int = 0  # prompt tokens whose keys and values were still there

    def after(self, y: "Sample", m: int) -> "Sample":
        """Gives this sample with the first m tokens of y before it."""
        lists = (getattr(y, name)[:m] + getattr(self, name) for name in ("tokens", "logp", "log_z", "entropy"))
        return Sample(*lists)


def log_z(logits: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Gives log Z of each row: (rows, V) -> (rows, 1); `temperature` is a number or (rows, 1)."""
    return (logits / temperature).logsumexp(-1, keepdim=True) - logits.logsumexp(-1, keepdim=True) / temperature


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Gives the entropy of each row's softmax, nats: (rows, V) -> (rows, 1)."""
    p = logits.softmax(-1)
    return torch.special.entr(p).sum(-1, keepdim=True)


def inverse_cdf(logits: torch.Tensor, temperature: float | torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Gives the token at which each row's distribution function passes its number: (rows, V) -> (rows, 1)."""
    cdf = (logits.double() / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(cdf, numbers * cdf[:, -1:], right=True).clamp_(max=cdf.shape[1] - 1)


class Recorder:
    """Host tables with a row for each request in flight and a column for each of its tokens."""

    def __init__(self, window: int):
        self.values = np.empty((2, 0, window))  # log Z and H
        self.numbers = np.empty((0, window))
        self.keys: list[Hashable] = []
        self.free: list[int] = []
        self.pending: deque = deque()  # steps of the engine that may still be on their way from the device

    def take(self, request: Request) -> int:
        """Gives a row to a request."""
        if not self.free:
            used = len(self.keys)
            more = max(64, used)
            self.values = np.pad(self.values, ((0, 0), (0, more), (0, 0)))
            self.numbers = np.pad(self.numbers, ((0, more), (0, 0)))
            self.keys += [None] * more
            self.free += range(used, used + more)
        row = self.free.pop()
        self.keys[row], self.values[:, row] = request.key, np.nan
        self.numbers[row, : len(request.numbers)] = request.numbers
        return row

    def note(self, rows: list[int], columns: list[int], values: torch.Tensor) -> None:
        """Writes values (2, number of rows) at (row, column) without waiting for the device."""
        arrived = torch.cuda.Event() if values.is_cuda else None
        values = values.to("cpu", non_blocking=True)
        if arrived:
            arrived.record()
        self.pending.append((arrived, rows, columns, values))

    def give(self, row: int, length: int) -> tuple[Hashable, list[float], list[float]]:
        """Frees a row; gives its request's key and its first `length` values of log Z and of H."""
        # The tokens of a step reach the host after its values: what is still under way belongs to a later step.
        while self.pending and (self.pending[0][0] is None or self.pending[0][0].query()):
            _, rows, columns, values = self.pending.popleft()
            self.values[:, rows, columns] = values.numpy()
        values = self.values[:, row, :length]
        if np.isnan(values).any():
            raise RuntimeError("the engine did not show all its logits: use --sampler transformers for this model")
        self.free.append(row)
        return self.keys[row], *values.tolist()


def logits_processor(recorder: Recorder) -> type:
    """Gives a class for LLM(logits_processors=[...]), in this process, that fills `recorder` for requests with
    extra_args row, temperature, entropy and deterministic (then it also chooses their tokens, by `inverse_cdf`)."""
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class RecordingProcessor(LogitsProcessor):
        def __init__(self, vllm_config, device: torch.device, is_pin_memory: bool):
            self.vocabulary = vllm_config.model_config.get_vocab_size()
            self.device, self.pinned = device, is_pin_memory
            self.requests: dict[int, tuple[dict, list[int]]] = {}  # by row of the batch: extra_args, tokens so far

        def is_argmax_invariant(self) -> bool:
            return False  # these see the logits before the temperature

        def update_state(self, batch_update) -> None:
            def entry(params, prompt, output):
                return params.extra_args and (params.extra_args, output)

            process_dict_updates(self.requests, batch_update, entry)

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            """Notes log Z of the token to be drawn now, in the column that is the number of tokens drawn before. The
            last to write there is the pass that the token is drawn from, also after a partial prefill or preemption."""
            if not self.requests:
                return logits
            if logits.shape[1] < self.vocabulary:
                raise ValueError(
                    f"the engine shows {logits.shape[1]} of {self.vocabulary} logits, which gives a wrong log Z: "
                    "run it on one GPU, or use --sampler transformers."
                )
            batch_rows = sorted(self.requests)
            asked = [self.requests[i][0] for i in batch_rows]
            rows, columns = [a["row"] for a in asked], [len(self.requests[i][1]) for i in batch_rows]
            alone = len(batch_rows) == len(logits)  # then no copy, and no index that the device would wait for
            seen = logits if alone else logits[batch_rows]
            temperature = self._to_device([a["temperature"] for a in asked], seen.dtype)
            h = entropy(seen) if any(a["entropy"] for a in asked) else torch.zeros_like(temperature)
            recorder.note(rows, columns, torch.cat([log_z(seen, temperature), h], 1).T)
            if not asked[0]["deterministic"]:
                return logits
            numbers = self._to_device(recorder.numbers[rows, columns], torch.float64)
            token = inverse_cdf(seen, temperature, numbers)
            chosen = torch.full_like(seen, float("-inf")).scatter_(1, token, 0.0)  # greedy sampling finds it
            if alone:
                return chosen
            logits[batch_rows] = chosen
            return logits

        def _to_device(self, values, dtype: torch.dtype) -> torch.Tensor:
            column = torch.tensor(values, dtype=dtype)[:, None]
            return (column.pin_memory() if self.pinned else column).to(self.device, non_blocking=True)

    return RecordingProcessor
