"""Everything of vLLM that this repository relies on, and a check that a version has it, by its sources alone.

    python -m tests.contract_vllm PATH      PATH: a site-packages folder or an unpacked wheel (it contains vllm/)

Prints what is missing and exits with 1 if anything is. Nothing is imported from PATH, so that a wheel for a GPU can be
checked on any machine. test_contract_vllm.py runs the same list against the installed build, and compares with what
Python says of the imported classes. Behaviour that only a running engine shows is tested in test_rollout_vllm.py.
"""

import ast
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Callable:
    """A function or method that takes these parameters by name, or first and in this order if `positional`.

    One that passes on **keywords takes any name.
    """

    name: str  # module:function or module:Class.method
    parameters: tuple[str, ...] = ()
    positional: bool = False


@dataclass(frozen=True)
class Members:
    """A class with these attributes: fields, methods, enumeration members, or what its methods assign to self."""

    name: str  # module:Class
    members: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A file whose text matches a regular expression: behaviour that no signature shows."""

    path: str  # below the folder that contains vllm/
    pattern: str
    why: str


LLM_KEYWORDS = (
    *("model", "dtype", "max_model_len", "max_num_seqs", "gpu_memory_utilization", "kv_cache_memory_bytes"),
    *("use_tqdm_on_load", "skip_tokenizer_init", "generation_config", "logprobs_mode", "logits_processors"),
    *("enable_sleep_mode", "async_scheduling", "block_size", "enforce_eager", "max_logprobs"),
    *("distributed_executor_backend",),
    *("max_num_batched_tokens", "enable_chunked_prefill", "num_gpu_blocks_override"),  # tests only
)

CONTRACT: list[Callable | Members | Text] = [
    # --- start --------------------------------------------------------------------------------------------------------
    Members("vllm.engine.arg_utils:EngineArgs", LLM_KEYWORDS),  # LLM(**keywords) passes on what it does not name
    Callable("vllm:LLM.__init__", ("model", "**")),
    Text("vllm/config/model.py", r'"raw_logprobs"', "log-probabilities at temperature 1"),
    Text("vllm/config/parallel.py", r'"external_launcher"', "an engine on each rank of torchrun"),
    Text("vllm/config/model.py", r'generation_config in .*"vllm"', "no sampling defaults of the model's own"),
    *(
        Text("vllm/envs.py", rf'"{name}": ', "read from the environment")
        for name in (
            *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_LOGGING_LEVEL"),
            "VLLM_USE_V2_MODEL_RUNNER",
        )
    ),
    Text(
        "vllm/v1/worker/gpu_worker.py",
        r"if kv_cache_memory_bytes := self\.cache_config\.kv_cache_memory_bytes:",
        "a cache of a given size replaces what gpu_memory_utilization would leave",
    ),
    Text(
        "vllm/distributed/parallel_state.py",
        r"if not torch\.distributed\.is_initialized\(\)",
        "the trainer's process group is used where there is one",
    ),
    Text(
        "vllm/distributed/parallel_state.py",
        r"torch\.distributed\.destroy_process_group\(\)",
        "an engine that ends takes the process group with it: no collective after close()",
    ),
    Text(
        "vllm/env_override.py",
        r'os\.environ\["TORCHINDUCTOR_COMPILE_THREADS"\] = "1"',
        "one thread to compile with: EngineThreads",
    ),
    # --- sampling -----------------------------------------------------------------------------------------------------
    Callable("vllm:LLM.generate", ("prompts", "sampling_params", "use_tqdm")),
    Members(
        "vllm:SamplingParams",
        (
            *("n", "temperature", "top_p", "top_k", "max_tokens", "ignore_eos", "stop_token_ids", "logprobs"),
            *("flat_logprobs", "detokenize", "extra_args", "output_kind"),
        ),
    ),
    Members("vllm.sampling_params:RequestOutputKind", ("FINAL_ONLY", "DELTA")),
    Members("vllm.outputs:RequestOutput", ("request_id", "outputs", "num_cached_tokens")),
    Members("vllm.outputs:CompletionOutput", ("token_ids", "logprobs")),
    Members("vllm.logprobs:FlatLogprobs", ("token_ids", "logprobs", "start_indices", "end_indices")),
    Text(
        "vllm/v1/sample/sampler.py",
        r'logprobs_mode == "raw_logprobs"',
        "raw log-probabilities come before temperature and logits processors",
    ),
    # --- requests one by one ------------------------------------------------------------------------------------------
    Callable("vllm.v1.engine.llm_engine:LLMEngine.add_request", ("request_id", "prompt", "params"), positional=True),
    Callable("vllm.v1.engine.llm_engine:LLMEngine.step"),
    Callable("vllm.v1.engine.llm_engine:LLMEngine.abort_request", ("request_ids",), positional=True),
    Callable("vllm.v1.engine.llm_engine:LLMEngine.has_unfinished_requests"),
    Members(
        "vllm.v1.engine.llm_engine:LLMEngine",
        ("output_processor", "engine_core", "model_config", "vllm_config", "model_executor"),
    ),
    Members("vllm.config:CacheConfig", ("num_gpu_blocks", "block_size")),
    Members("vllm.config:SchedulerConfig", ("max_num_seqs",)),
    Callable("vllm.config:ModelConfig.get_vocab_size"),
    # --- the logits processor of log Z --------------------------------------------------------------------------------
    Callable(
        "vllm.v1.sample.logits_processor:LogitsProcessor.__init__",
        ("vllm_config", "device", "is_pin_memory"),
        positional=True,
    ),
    Callable("vllm.v1.sample.logits_processor:LogitsProcessor.apply", ("logits",), positional=True),
    Callable("vllm.v1.sample.logits_processor:LogitsProcessor.update_state", ("batch_update",), positional=True),
    Callable("vllm.v1.sample.logits_processor:LogitsProcessor.is_argmax_invariant"),
    Callable(
        "vllm.v1.sample.logits_processor:process_dict_updates",
        ("req_entries", "batch_update", "new_state"),
        positional=True,
    ),
    # --- the output processor, which BatchedOutputs stands before -----------------------------------------------------
    Callable(
        "vllm.v1.engine.output_processor:OutputProcessor.process_outputs", ("engine_core_outputs",), positional=True
    ),
    Members("vllm.v1.engine.output_processor:OutputProcessor", ("request_states",)),
    Members("vllm.v1.engine.output_processor:RequestState", ("output_kind", "logprobs_processor")),
    Members("vllm.v1.engine.logprobs:LogprobsProcessor", ("logprobs",)),
    Members("vllm.v1.engine:EngineCoreOutput", ("request_id", "new_token_ids", "new_logprobs", "finish_reason")),
    Members("vllm.v1.outputs:LogprobsLists", ("logprobs",)),
    Text(
        "vllm/v1/engine/llm_engine.py",
        r"self\.output_processor\.process_outputs\(",
        "the engine looks process_outputs up on the instance",
    ),
    # --- weights, sleep, end ------------------------------------------------------------------------------------------
    Callable("vllm:LLM.collective_rpc", ("method", "kwargs")),
    Callable("vllm.v1.worker.gpu_model_runner:GPUModelRunner.reload_weights", ("weights_iterator",)),
    Callable("vllm.v1.worker.gpu.model_runner:GPUModelRunner.reload_weights", ("weights_iterator",)),
    Callable("vllm:LLM.apply_model", ("func",), positional=True),
    Callable("vllm:LLM.reset_prefix_cache"),
    Callable("vllm:LLM.sleep", ("level",)),
    Callable("vllm:LLM.wake_up", ("tags",)),
    Text(
        "vllm/v1/executor/abstract.py",
        r'\b(sleeping_tags|SLEEP_TAGS) = .*"weights", "kv_cache"',
        "what sleeps and wakes",
    ),
    Text(
        "vllm/v1/engine/core.py",
        r"not self\.model_executor\.is_sleeping",
        "scheduling goes on when both parts are awake",
    ),
    Callable("vllm.v1.engine.core_client:InprocClient.shutdown"),
]


class Sources:
    """The classes and functions of an unpacked package, read with `ast`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "vllm" / "__init__.py").exists():
            raise ValueError(f"{folder} contains no vllm/: give a site-packages folder or an unpacked wheel")
        self.module = cache(self.module)

    def missing(self) -> list[str]:
        """Returns a line for each part of the contract that is not there."""
        lines = []
        for entry in CONTRACT:
            if isinstance(entry, Text):
                path = self.folder / entry.path
                if not path.exists() or not re.search(entry.pattern, self.text(path)):
                    lines.append(f"{entry.path}: no {entry.pattern!r} ({entry.why})")
                continue
            try:
                lines += self._missing_names(entry)
            except LookupError as error:
                lines.append(f"{entry.name}: {error.args[0]}")
        return lines

    def _missing_names(self, entry: Callable | Members) -> list[str]:
        if isinstance(entry, Members):
            found = self.members(entry.name)
            return [f"{entry.name}: no {name}" for name in entry.members if name not in found]
        found = self.parameters(entry.name)
        if entry.positional:
            first = tuple(found[: len(entry.parameters)])
            return [] if first == entry.parameters else [f"{entry.name}: begins with {first}, not {entry.parameters}"]
        return [f"{entry.name}: no parameter {name}" for name in entry.parameters if not {name, "**"} & {*found}]

    def module(self, name: str) -> tuple[ast.Module, str]:
        """Returns the syntax tree of a module and the package that its relative imports start from."""
        path = self.folder.joinpath(*name.split("."))
        if (path / "__init__.py").exists():
            return ast.parse(self.text(path / "__init__.py")), name
        if not path.with_suffix(".py").exists():
            raise LookupError(f"no module {name}")
        return ast.parse(self.text(path.with_suffix(".py"))), name.rpartition(".")[0]

    def text(self, path: Path) -> str:
        return path.read_text()

    def find(self, module: str, name: str) -> tuple[ast.AST, str]:
        """Returns the definition of a name and the module it stands in, following imports and vLLM's lazy ones."""
        tree, package = self.module(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return node, module
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return self.find(self._absolute(node, package), alias.name)
        for node in ast.walk(tree):  # MODULE_ATTRS = {"LLM": ".entrypoints.llm:LLM"}
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
                        target, _, attribute = str(value.value).partition(":")
                        return self.find(package + target, attribute)
        raise LookupError(f"no {name} in {module}")

    @staticmethod
    def _absolute(node: ast.ImportFrom, package: str) -> str:
        if node.level == 0:
            return node.module
        parts = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*parts, node.module] if node.module else parts)

    def classes(self, name: str) -> list[ast.ClassDef]:
        """Returns a class and its bases, as far as they are vLLM's."""
        module, _, attribute = name.partition(":")
        node, module = self.find(module, attribute)
        found = [node]
        for base in node.bases:
            if isinstance(base, ast.Name):
                try:
                    found += self.classes(f"{module}:{base.id}")
                except (LookupError, RecursionError):
                    continue  # of another package
        return [node for node in found if isinstance(node, ast.ClassDef)]

    def members(self, name: str) -> set[str]:
        """Returns the attributes of a class: in its body, and those that its methods assign to self."""
        found = set()
        for node in self.classes(name):
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(statement.name)
                    found |= {
                        target.attr
                        for target in ast.walk(statement)
                        if isinstance(target, ast.Attribute)
                        and isinstance(target.ctx, ast.Store)
                        and isinstance(target.value, ast.Name)
                        and target.value.id == "self"
                    }
                targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", 0)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        return found

    def parameters(self, name: str) -> list[str]:
        """Returns the parameters of a function or method without self, positional ones first, `**` for any keyword."""
        module, _, attribute = name.partition(":")
        owner, _, method = attribute.rpartition(".")
        if owner:
            bodies = [statement for node in self.classes(f"{module}:{owner}") for statement in node.body]
            nodes = [n for n in bodies if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == method]
            if not nodes:
                raise LookupError(f"no method {method}")
            node = nodes[0]
        else:
            node, _ = self.find(module, method)
        arguments = node.args
        names = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
        names = names[1:] if owner else names
        return names + [a.arg for a in arguments.kwonlyargs] + (["**"] if arguments.kwarg else [])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    missing = Sources(sys.argv[1]).missing()
    print("\n".join(missing) or f"all {len(CONTRACT)} parts of the contract are there")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
