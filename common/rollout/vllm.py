"""The vLLM sampler: an engine in this process that takes new weights in place and records log Z of each token."""

import inspect
import io
import os
import random
import sys
import warnings
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config as inductor
from transformers import AutoConfig, AutoModelForCausalLM

from common.rollout import (
    NamedTensors,
    Request,
    Rollout,
    Sample,
    check_all_pushed,
    engine_bytes,
    kv_cache_bytes,
    make_rollout,
    problem_words,
    progress_bar,
    random_key,
    rank,
    response_budgets,
    shows_progress,
)
from common.rollout.transformers import entropy, inverse_cdf, log_z


class Recorder:
    """Host tables with a row for each running request and a column for each of its tokens."""

    def __init__(self, window: int):
        self.values = np.empty((2, 0, window))  # log Z and H
        self.numbers = np.empty((0, window))
        self.keys: list[Hashable] = []
        self.free: list[int] = []
        self.pending: deque = deque()  # values of engine steps that may not have arrived from the device yet

    def take(self, request: Request) -> int:
        """Returns a free row, which now belongs to the request."""
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
        """Frees a row; returns its request's key and its first `length` values of log Z and of H."""
        # The tokens of a step reach the host after its values, so values that are still under way are of a later step.
        while self.pending and (self.pending[0][0] is None or self.pending[0][0].query()):
            _, rows, columns, values = self.pending.popleft()
            self.values[:, rows, columns] = values.numpy()
        values = self.values[:, row, :length]
        if np.isnan(values).any():
            raise RuntimeError("the engine did not show all its logits: use --sampler transformers for this model")
        self.free.append(row)
        return self.keys[row], *values.tolist()


def logits_processor(recorder: Recorder) -> type:
    """Returns a class for LLM(logits_processors=[...]) that fills `recorder`; the engine must be in this process.

    It serves requests with extra_args row, temperature, entropy and deterministic. If deterministic, it also chooses
    their tokens, by `inverse_cdf`.
    """
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class RecordingProcessor(LogitsProcessor):
        def __init__(self, vllm_config, device: torch.device, is_pin_memory: bool):
            self.vocabulary = vllm_config.model_config.get_vocab_size()
            self.device, self.pinned = device, is_pin_memory
            self.requests: dict[int, tuple[dict, list[int]]] = {}  # by row of the batch: extra_args, tokens so far

        def is_argmax_invariant(self) -> bool:
            return False  # such processors see the logits before they are divided by the temperature

        def update_state(self, batch_update) -> None:
            def entry(params, prompt, output):
                return params.extra_args and (params.extra_args, output)

            process_dict_updates(self.requests, batch_update, entry)

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            """Notes log Z of the token to be drawn now, in the column given by the number of tokens drawn before.

            Partial prefills and repeated passes after a preemption write to the same column; the last one to do so is
            the pass that the token is drawn from.
            """
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
            alone = len(batch_rows) == len(logits)  # then no copy is needed, nor an index that the device waits for
            seen = logits if alone else logits[batch_rows]
            temperature = self._to_device([a["temperature"] for a in asked], seen.dtype)
            h = entropy(seen) if any(a["entropy"] for a in asked) else torch.zeros_like(temperature)
            recorder.note(rows, columns, torch.cat([log_z(seen, temperature), h], 1).T)
            if not asked[0]["deterministic"]:
                return logits
            numbers = self._to_device(recorder.numbers[rows, columns], torch.float64)
            token = inverse_cdf(seen, temperature, numbers)
            chosen = torch.full_like(seen, float("-inf")).scatter_(1, token, 0.0)  # greedy sampling then takes it
            if alone:
                return chosen
            logits[batch_rows] = chosen
            return logits

        def _to_device(self, values, dtype: torch.dtype) -> torch.Tensor:
            column = torch.tensor(values, dtype=dtype)[:, None]
            return (column.pin_memory() if self.pinned else column).to(self.device, non_blocking=True)

    return RecordingProcessor


@contextmanager
def _own_randomness(key: int) -> Iterator[None]:
    """Seeds the global generators, which the engine draws from and reseeds; the trainer gets them back as they were.

    key: 128 bits
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        _seed_globals(key)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def _seed_globals(key: int) -> None:
    """Seeds the generators that engines draw from, numpy's (the second model runner) and torch's, and Python's."""
    random.seed(key)
    np.random.seed(np.frombuffer(key.to_bytes(16, "little"), np.uint32))
    torch.manual_seed(key % 2**64)


class EngineThreads:
    """A block in which the engine runs, with the threads it wants; outside it the trainer has its own again.

    In this process, which is the trainer's too, vLLM sets torch to one CPU thread and inductor to one compilation
    thread (on a CPU it disables `torch.set_num_threads`). Its compiled code was made with these settings and so runs
    with them.
    """

    VARIABLE = "TORCHINDUCTOR_COMPILE_THREADS"

    def __init__(self):
        self.engine: tuple[int, int | None] | None = None  # torch's and inductor's threads; known after the first block

    def __enter__(self) -> None:
        self.trainer, self.set_num_threads = self._get(), torch.set_num_threads
        self.variable = os.environ.get(self.VARIABLE)
        if self.engine:
            self._set(*self.engine)

    def __exit__(self, *_) -> None:
        self.engine = self._get()
        torch.set_num_threads = self.set_num_threads
        self._set(*self.trainer)
        os.environ.pop(self.VARIABLE, None)
        if self.variable is not None:
            os.environ[self.VARIABLE] = self.variable

    @staticmethod
    def _get() -> tuple[int, int | None]:
        return torch.get_num_threads(), inductor.compile_threads

    @staticmethod
    def _set(num_threads: int, compile_threads: int | None) -> None:
        if num_threads != torch.get_num_threads():
            torch.set_num_threads(num_threads)
        inductor.compile_threads = compile_threads


def _quiet() -> bool:
    return os.environ.get("VLLM_LOGGING_LEVEL", "").upper() in ("ERROR", "CRITICAL")


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Holds back what is printed to stderr (progress bars, harmless warnings) and shows it only if the start fails.

    Where VLLM_LOGGING_LEVEL asks for more than errors, it does nothing.
    """
    if not _quiet():
        yield
        return
    held = io.StringIO()
    try:
        with redirect_stderr(held), warnings.catch_warnings(action="ignore"):
            yield
    except BaseException:
        print(held.getvalue(), file=sys.stderr)
        raise


class _BatchedOutputs:
    """Buffers a request's tokens and hands them to vLLM's output processor when the request finishes; doing this per
    token slowed decoding.

    The engine calls `process_outputs` at every step with an output of each running request. For a request that wants
    its final output only (FINAL_ONLY: all that `LLM.generate` asks for), the processor still updates a detokenizer and
    lists of log-probabilities for every token, in Python, while the GPU waits. This object stands in its place: it is
    the one place where we change vLLM. The first output passes as it comes, for what the engine says of the prompt.
    Log-probabilities go where the processor would have put them, except their ranks and their sum, which nothing reads.
    """

    def __init__(self, processor):
        from vllm.sampling_params import RequestOutputKind

        self.processor, self.process = processor, processor.process_outputs
        self.final_only = RequestOutputKind.FINAL_ONLY
        self.held: dict[str, list] = {}  # by request, its outputs after the first

    @staticmethod
    def missing(processor) -> list[str]:
        """Returns what this relies on and this version of vLLM does not have."""
        try:
            from vllm.logprobs import FlatLogprobs
            from vllm.v1.engine import EngineCoreOutput
            from vllm.v1.engine.logprobs import LogprobsProcessor
            from vllm.v1.engine.output_processor import RequestState
            from vllm.v1.outputs import LogprobsLists
        except ImportError as error:
            return [f"module or class ({error})"]

        def names(function) -> list[str]:
            return list(inspect.signature(function).parameters)

        present = {
            "process_outputs(engine_core_outputs, ...)": names(processor.process_outputs)[:1]
            == ["engine_core_outputs"],
            "OutputProcessor.request_states": isinstance(getattr(processor, "request_states", None), dict),
            "RequestState.output_kind": "output_kind" in names(RequestState),
            "RequestState.logprobs_processor": "logprobs_processor" in names(RequestState),
            "LogprobsProcessor.logprobs": "logprobs" in names(LogprobsProcessor),
            "FlatLogprobs.logprobs": "logprobs" in names(FlatLogprobs),
            "LogprobsLists.logprobs": "logprobs" in names(LogprobsLists),
        }
        for name in ("request_id", "new_token_ids", "new_logprobs", "finish_reason"):
            present[f"EngineCoreOutput.{name}"] = name in names(EngineCoreOutput)
        return [name for name, there in present.items() if not there]

    @classmethod
    def install(cls, processor) -> None:
        """Puts a buffer before the processor; if this vLLM is not as expected, says so and leaves it as it is."""
        if missing := cls.missing(processor):
            print(
                f"vLLM has no {', '.join(missing)}: outputs are processed token by token. Decoding is slower, the "
                "results are the same.",
                file=sys.stderr,
                flush=True,
            )
        else:
            processor.process_outputs = cls(processor)

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
        """Returns the last output of a request with the tokens of all; their log-probabilities go to its state."""
        last, kept = outputs[-1], self.processor.request_states[outputs[-1].request_id].logprobs_processor.logprobs
        found = [output.new_logprobs.logprobs[:, 0] for output in outputs if output.new_logprobs is not None]
        if found:  # none if the request ended without a token
            kept.logprobs.extend(np.concatenate(found).tolist())
        last.new_token_ids = [token for output in outputs for token in output.new_token_ids]
        last.new_logprobs = None
        return last


class VLLMSampler:
    """vLLM 0.26 to 0.33 in this process, one engine a rank, on a GPU or a CPU.

    `start_sampler` sets the environment variables and takes the same arguments. The cycle on a GPU is: generate, sleep
    (which drops weights and cache), train, push (which wakes the engine), generate. On a CPU, sleep and wake do
    nothing. `llm` is the engine.
    """

    # Compared bit for bit after a push: embedding, a linear layer, the last norm, and the head, which may be a copy.
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
        self.max_total_tokens, self.stop_ids = max_total_tokens, list(stop_ids)
        self.on_gpu = torch.cuda.is_available()
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            shapes = AutoModelForCausalLM.from_config(config)
        self.names = set(shapes.state_dict())
        # A method that asks again and again keeps the last answer of each chain cached beside the one that is sampled.
        rows = 2 * max_num_seqs if requests else max_num_seqs
        shape = (rows, max_total_tokens, (getattr(torch, dtype) if isinstance(dtype, str) else dtype).itemsize)
        defaults: dict[str, Any]  # arguments for vLLM that engine_args may replace
        if self.on_gpu:
            defaults = dict(enable_sleep_mode=True, async_scheduling=True)
            limit = gpu_memory_utilization * torch.cuda.get_device_properties().total_memory
            if kv_cache_memory_bytes is None:
                _, kv_cache_memory_bytes = engine_bytes(config, shapes.num_parameters(), *shape, limit)
        else:  # vLLM would plan for nearly all memory, and its blocks of 128 tokens would share no short prompt
            defaults = dict(block_size=32)
            if kv_cache_memory_bytes is None:
                kv_cache_memory_bytes = min(kv_cache_bytes(config, *shape), 1 << 30)
        self.deterministic = deterministic
        self.recorder = Recorder(max_total_tokens) if requests else None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            defaults["distributed_executor_backend"] = "external_launcher"  # this rank's own device
        self.threads = EngineThreads()
        with self.threads, _own_randomness(0), _quiet_start():
            from vllm import LLM  # which sets the number of threads too

            if self.recorder is not None:
                defaults["logits_processors"] = [logits_processor(self.recorder)]
            self.llm = LLM(
                model=str(model),
                dtype=dtype,
                max_model_len=max_total_tokens,
                max_num_seqs=max_num_seqs,
                gpu_memory_utilization=gpu_memory_utilization,
                kv_cache_memory_bytes=kv_cache_memory_bytes,
                use_tqdm_on_load=not _quiet(),
                skip_tokenizer_init=True,  # ids in, ids out
                generation_config="vllm",  # the model's own would set top_p, top_k and more stop ids
                logprobs_mode="raw_logprobs",  # log p at temperature 1
                **defaults | engine_args,
            )
        _BatchedOutputs.install(self.llm.llm_engine.output_processor)
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
        max_total_tokens: int | Sequence[int],
        seed: int,
        step: int = 0,
        problem_ids: Sequence | None = None,
        temperature: float = 1.0,
        fixed_length: bool = False,
        stream: str = "train",
        progress: str = "",
    ) -> Rollout:
        """Does what `TransformersSampler.generate` does, except that the random numbers depend on the whole batch.

        They are those of stream, seed, step, this process and all problem ids. The same call returns the same samples
        on a CPU; on a GPU as far as its kernels allow.
        """
        if self.stale:
            raise RuntimeError("the engine has no valid weights, since it slept or a push failed: call push first")
        budgets = response_budgets(prompts, n, self.max_total_tokens, max_total_tokens, temperature)
        words = problem_words(problem_ids, len(prompts))
        # Requests carry no seed of their own: equal prompts with equal seeds would get equal samples.
        with _own_randomness(random_key(stream, seed, step, rank(), *words)), self.threads:
            outputs = self.llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                [self._params(n, budget, temperature, fixed_length) for budget in budgets],
                use_tqdm=partial(progress_bar, progress) if shows_progress(progress) else False,
            )
        answers = [answer for output in outputs for answer in output.outputs]
        responses = [list(answer.token_ids) for answer in answers]
        return make_rollout(prompts, responses, [answer.logprobs.logprobs for answer in answers], n, self.stop_ids)

    def capacity(self, max_total_tokens: int) -> int:
        """Returns the number of requests of this length that run at the same time and keep their cache."""
        config = self.llm.llm_engine.vllm_config
        cached = config.cache_config.num_gpu_blocks * config.cache_config.block_size
        return max(1, min(config.scheduler_config.max_num_seqs, cached // max_total_tokens))

    def seed_requests(self, stream: str, seed: int, step: int = 0) -> None:
        """Seeds what `submit` and `collect` draw, unless the sampler is deterministic, on this process.

        The generators are the global ones of the program: they are left seeded.
        """
        _seed_globals(random_key(stream, seed, step, rank()))

    def submit(self, request: Request) -> None:
        """Hands a request to the engine, which runs it in `collect`. Raises RuntimeError if the engine was not started
        with `requests`."""
        from vllm.sampling_params import RequestOutputKind

        row = self._recorder().take(request)
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

    def _recorder(self) -> Recorder:
        if self.recorder is None:
            raise RuntimeError("this engine takes no single requests: start it with start_sampler(..., requests=True)")
        return self.recorder

    def step(self) -> list:
        """Runs one step of the engine; returns the outputs of vLLM that it led to."""
        with self.threads:
            return self.llm.llm_engine.step()

    def collect(self) -> list[Sample]:
        """Steps the engine until a request has finished; returns the finished samples, [] if no request is left."""
        engine, recorder = self.llm.llm_engine, self._recorder()
        samples: list[Sample] = []
        while not samples and engine.has_unfinished_requests():
            for output in self.step():
                answer = output.outputs[0]
                key, log_z, entropy = recorder.give(int(output.request_id), len(answer.token_ids))
                tokens, logp = list(answer.token_ids), answer.logprobs.logprobs
                samples.append(Sample(tokens, logp, log_z, entropy, key, output.num_cached_tokens or 0))
        return samples

    def push(self, named_tensors: NamedTensors) -> None:
        """Loads (state-dict name, full tensor) pairs, tied heads under both names, into the engine and wakes it.

        The pairs are read once, one by one: they may be gathered from shards on the way, but not into one buffer.
        Raises RuntimeError if a tensor is left out, or if one of PROBES is not bit for bit in the engine afterwards.

        Adapters arrive merged and rounded to the engine's precision, so that in bfloat16 the engine lags behind an
        adapter whose step is below the rounding of the weights. The lag does no harm: it is smaller than what bfloat16
        arithmetic does to every log-probability (about 0.02 nats), and the importance weights correct for it.
        SmolLM2-135M, rank 16, random B with standard deviation s, means over tokens, nats:

            s       step kept   KL(policy || base)   KL(policy || engine)   |log-probability, policy - engine|
            1e-5    1 %         6.5e-9               6.7e-9                 0.00006
            1e-4    6 %         6.5e-7               5.4e-7                 0.0006
            3e-4    19 %        5.8e-6               3.6e-6                 0.0016
            1e-3    53 %        6.4e-5               2.2e-5                 0.0039
            3e-3    91 %        5.6e-4               6.8e-5                 0.0065

        vLLM takes unmerged adapters from a folder only (LoRARequest), not from memory, and decodes slower with them.
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
        check_all_pushed(missing)
        for name, columns in pushed.items():
            if not self.llm.apply_model(partial(_holds, name=name, pushed=columns))[0]:
                raise RuntimeError(f"the engine is stale: {name} is not what was pushed: use --sampler transformers")
        self._wake("kv_cache")
        self.stale = False

    def sleep(self) -> None:
        """Drops the engine's weights and cache from the GPU; the next `generate` then needs a `push`.

        Raises RuntimeError if another program took more of the GPU's memory meanwhile than the engine has freed.
        """
        if self.on_gpu and not self.sleeping:
            try:
                self.llm.sleep(level=2)
            except AssertionError as error:  # vLLM compares the free memory of the whole GPU before and after
                if "Memory usage increased" not in str(error):
                    raise
                message = "another program took memory of this GPU while vLLM gave its own back, and vLLM stopped"
                raise RuntimeError(f"{message}: go on with --resume on a GPU that nothing else uses") from error
            self.sleeping = {"weights", "kv_cache"}
            self.stale = True

    def close(self) -> None:
        """Ends the engine, and with it all process groups, the program's too: those of the engine can be ended only
        while that one is there."""
        self.llm.llm_engine.engine_core.shutdown()

    def _wake(self, part: str) -> None:
        if part in self.sleeping:
            torch.cuda.empty_cache()  # torch still holds the training peak, and vLLM allocates on its own
            self.llm.wake_up(tags=[part])
            self.sleeping.discard(part)


def _columns(weight: torch.Tensor) -> torch.Tensor:
    """Returns a copy of evenly spaced columns of a matrix (32 to 64, or all), or of a whole vector."""
    weight = weight.detach()
    return weight[:, :: -(-weight.shape[1] // 64)].clone() if weight.dim() == 2 else weight.clone()


def _holds(engine: torch.nn.Module, name: str, pushed: torch.Tensor) -> bool:
    """Returns whether the engine computes with the weight of this name whose `_columns` are `pushed`."""
    layer: Any = engine.get_submodule(name.removesuffix(".weight"))
    found = [_columns(layer.weight)] if layer.weight.numel() > 0 else []
    if hasattr(layer, "cpu_linear"):  # on a CPU vLLM computes with a packed copy, which one-hot inputs read exactly
        width = layer.input_size if hasattr(layer, "input_size") else layer.embedding_dim
        one_hot = _columns(torch.eye(width, dtype=layer.weight.dtype)).T.contiguous()
        found.append(layer.cpu_linear(one_hot, layer.weight, None).T)
    # The engine pads its vocabulary with more rows.
    return all(torch.equal(weight[: len(pushed)], pushed.to(weight)) for weight in found)
