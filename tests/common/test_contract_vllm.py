"""The installed vLLM has all that we rely on; the reader of sources sees what Python sees, and sees what is gone."""

import dataclasses
import importlib
import inspect
from enum import EnumMeta
from pathlib import Path

import pytest

from tests.contract_vllm import CONTRACT, Callable, Members, Sources, Text

vllm = pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def installed() -> Sources:
    return Sources(Path(vllm.__file__).parents[1])


def resolved(name: str):
    module, _, attributes = name.partition(":")
    found = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def test_the_installed_build_has_all_that_we_rely_on(installed):
    assert installed.missing() == []


# The second model runner needs Triton, which is not there on a CPU.
IMPORTED = [entry for entry in CONTRACT if not isinstance(entry, Text) and ".gpu.model_runner" not in entry.name]


@pytest.mark.parametrize("entry", [e for e in IMPORTED if isinstance(e, Callable)], ids=lambda entry: entry.name)
def test_parameters_are_those_of_the_imported_function(entry, installed):
    kinds = inspect.Parameter
    parameters = [p for p in inspect.signature(resolved(entry.name)).parameters.values() if p.name != "self"]
    order = {kinds.POSITIONAL_ONLY: 0, kinds.POSITIONAL_OR_KEYWORD: 0, kinds.KEYWORD_ONLY: 1, kinds.VAR_KEYWORD: 2}
    names = {p.name: "**" if p.kind == kinds.VAR_KEYWORD else p.name for p in parameters}
    expected = [names[p.name] for p in sorted(parameters, key=lambda p: order.get(p.kind, 3)) if p.kind in order]
    assert installed.parameters(entry.name) == expected


@pytest.mark.parametrize("entry", [e for e in IMPORTED if isinstance(e, Members)], ids=lambda entry: entry.name)
def test_members_are_those_of_the_imported_class(entry, installed):
    """All that Python shows of the class without an instance, the reader finds too."""
    found = resolved(entry.name)
    shown = {name for name, value in vars(found).items() if inspect.isfunction(value)}
    if dataclasses.is_dataclass(found):
        shown |= {field.name for field in dataclasses.fields(found)}
    if isinstance(found, EnumMeta):
        shown |= set(found.__members__)
    shown |= {*getattr(found, "__struct_fields__", ()), *getattr(found, "_fields", ())}
    public = {name for name in shown if not name.startswith("_")}
    assert public and public <= installed.members(entry.name)


@pytest.mark.parametrize(
    "path, old, new, line",
    [
        ("gpu_model_runner.py", "weights_iterator", "iterator", "reload_weights: no parameter weights_iterator"),
        ("sampling_params.py", "flat_logprobs", "flat", "SamplingParams: no flat_logprobs"),
        ("sampling_params.py", "FINAL_ONLY", "LAST", "RequestOutputKind: no FINAL_ONLY"),
        ("arg_utils.py", "kv_cache_memory_bytes", "kv_bytes", "EngineArgs: no kv_cache_memory_bytes"),
        ("output_processor.py", "request_states", "states", "OutputProcessor: no request_states"),
        ("output_processor.py", "def process_outputs", "def process", "process_outputs: no method process_outputs"),
        ("envs.py", "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_SAMPLER", "VLLM_USE_FLASHINFER_SAMPLER"),
        ("executor/abstract.py", '"kv_cache"', '"cache"', "what sleeps and wakes"),
        ("builtin.py", "def process_dict_updates", "def process_updates", "no process_dict_updates"),
    ],
)
def test_what_is_gone_is_named(installed, path, old, new, line):
    class Changed(Sources):
        def text(self, file: Path) -> str:
            text = super().text(file)
            return text.replace(old, new) if str(file).endswith(path) else text

    assert any(line in found for found in Changed(installed.folder).missing())


def test_a_folder_without_vllm_is_refused(tmp_path):
    with pytest.raises(ValueError, match="contains no vllm/"):
        Sources(tmp_path)
