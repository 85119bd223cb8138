"""Checkpoints, the state to resume, and files that are either complete or absent.

Nothing is written in place: a file or folder gets a temporary name, is synchronised with the disk (fsync) and then
renamed. A kill or a full disk at any moment therefore leaves what was there before, and temporary names that `sweep`
removes.

A resume state is resume/step_000100/, a folder for each kind of tensor in the format of torch.distributed.checkpoint: a
run may be resumed with another number of processes.
"""

import copy
import hashlib
import json
import math
import os
import pickle
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.utils import cached_file

from common.data import short_hash
from common.logprob import causal_lm, full_tensor, local_tensor, lora_config, weights
from common.run.memory import GB, count_parameters, estimate

# --- files ------------------------------------------------------------------------------------------------------------


# What the user can do when something could not be written.
NOTHING_LOST = "What was saved before is as it was: make room, or make the folder writable, and go on with --resume."
STATE_REMOVED = (
    "The old resume state was removed before (--remove-state-first), so this run cannot go on: make room, and start a "
    "new run from its newest checkpoint, with --model."
)


@contextmanager
def writing(path: Path, remedy: str = NOTHING_LOST):
    """Goes around code that writes `path`: turns the errors of every library into an OSError of one line that ends with
    `remedy`, what the user can do."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
        reason = str(_cause(error)).partition("\n")[0]
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.is_dir())).free
        raise OSError(
            f"{path} could not be written ({reason}), with {free / 1e9:.2f} GB free there. {remedy}"
        ) from error


@contextmanager
def replacing(path: Path):
    """Yields a temporary path, which is renamed to `path` if the block succeeds and removed if it fails. It is for a
    file, which may exist, or where `path` has no suffix for a folder, which is made here and may not exist yet. Raises
    OSError as `writing` does."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            if not path.suffix:
                temporary.mkdir(parents=True)
            yield temporary
            for written in [*temporary.rglob("*"), temporary]:
                _sync(written)
            os.rename(temporary, path)
            _sync(path.parent)
    finally:
        _delete(temporary)


def write_text(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def without_nan(value):
    """Returns a value of lists and dictionaries with None, which is null in JSON, in place of every NaN: JSON has no
    NaN, and most programs refuse a file that has one."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: Path, value) -> None:
    """Writes a JSON file completely or not at all, with null for what is NaN."""
    write_text(path, json.dumps(without_nan(value), indent=1, default=str) + "\n")


def read_json(path: Path, advice: str) -> dict:
    """Reads a JSON file. Raises ValueError with `advice` if it is damaged, FileNotFoundError if it is missing."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is damaged: {advice}.") from None


def remove_folder(path: Path) -> None:
    """Removes a folder: its name first, so that a kill never leaves a part of it under that name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        os.rename(path, temporary)
        _delete(temporary)


def sweep(run: Path) -> None:
    """Removes the temporary files and folders that killed processes left in a run folder."""
    for place in (".", "samples", "checkpoints", "resume"):
        for path in run.glob(f"{place}/.*.tmp"):
            _delete(path)


def _cause(error: BaseException) -> BaseException:
    """Returns the error itself, or the first of those that torch.distributed.checkpoint collected from all ranks."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save_model(path: Path, policy: torch.nn.Module, tokenizer, stop_ids: Sequence[int]) -> None:
    """Saves the policy as a plain Hugging Face folder; a collective, rank 0 writes. LoRA adapters are merged into the
    weights and also saved by themselves, in float32, in its folder `adapter`: bfloat16 weights round off small steps.

    `stop_ids` are the tokens that ended a response in training: with the folder's own generation settings transformers
    and vLLM sample as the training sampler did. A folder that exists is left alone: it is complete and has the same
    weights."""
    model, tensors, writes = causal_lm(policy), {}, dist.get_rank() == 0 and not path.exists()
    for name, value in weights(policy):
        if writes and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            # On a GPU the policy computes in bfloat16, and so will everyone who loads the folder.
            tensors[name] = value.to("cpu", torch.bfloat16 if value.is_cuda else value.dtype).contiguous()
    adapter = {
        name: full_tensor(parameter.detach()).cpu() for name, parameter in policy.named_parameters() if ".lora_" in name
    }
    if writes:
        with replacing(path) as folder:
            config = type(model.config).from_dict(model.config.to_dict())
            config.use_cache, config.dtype = True, next(iter(tensors.values())).dtype
            config.architectures = [type(model).__name__.removeprefix("FSDP")]
            config.eos_token_id = list(stop_ids)
            config.save_pretrained(folder)
            generation_settings(model, tokenizer, stop_ids).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if adapter:
                save_adapter(folder / "adapter", policy, adapter)
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_adapter(folder: Path, policy: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Saves LoRA weights, given by their names in the policy, as a folder for peft.PeftModel.from_pretrained."""
    from peft import get_peft_model_state_dict

    config = copy.copy(lora_config(policy))
    config.inference_mode, config.target_modules = True, sorted(config.target_modules)
    config.save_pretrained(folder)
    named = get_peft_model_state_dict(policy, state_dict=tensors, save_embedding_layers=False)
    save_file(
        {name: value.contiguous() for name, value in named.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )


def generation_settings(model: PreTrainedModel, tokenizer, stop_ids: Sequence[int]) -> GenerationConfig:
    """Returns the settings that make transformers and vLLM sample from the policy itself, as in training.

    Everything else that a base model brings along, such as a lower temperature, top-k, top-p or a repetition penalty,
    is left out; top_k has to be 0, since transformers takes 50 where it is missing."""
    special = model.generation_config or model.config
    pad = getattr(special, "pad_token_id", None)
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        eos_token_id=list(stop_ids),
        bos_token_id=getattr(special, "bos_token_id", None),
        pad_token_id=tokenizer.pad_token_id if pad is None else pad,
    )


# --- the state to resume ----------------------------------------------------------------------------------------------


def save_state(
    path: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer, remedy: str = NOTHING_LOST
) -> None:
    """Saves the trained parameters and the optimizer's state in a new folder `path`; a collective, each rank writes its
    own part. Raises OSError with `remedy` if it cannot be written.

    The folder holds a state.json and one checkpoint of torch.distributed.checkpoint for each kind of tensor:
    `parameter`, and once the optimizer has stepped `exp_avg`, `exp_avg_sq` and `step`. They are written one after the
    other because a copy of one on a GPU stays in host memory until it is complete: 4 bytes a parameter."""
    kinds: dict[str, dict[str, torch.Tensor]] = {"parameter": {}}
    for name, parameter in _trained(policy):
        kinds["parameter"][name] = parameter.detach()
        for kind, value in optimizer.state.get(parameter, {}).items():
            is_local_part = value.dim() > 0 and not isinstance(value, DTensor)  # moments kept on the host
            kinds.setdefault(kind, {})[name] = _as_part_of(value, parameter) if is_local_part else value
    temporary = path.with_name(f".{path.name}.tmp")  # the same for all ranks
    try:
        with writing(path, remedy):
            if dist.get_rank() == 0:
                _delete(temporary)
                temporary.mkdir(parents=True)
            dist.barrier()
            for kind, tensors in kinds.items():
                dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary / kind, sync_files=True))
            if dist.get_rank() == 0:
                for kind in kinds:  # another version of torch may list its tensors by classes that are not allowed
                    StateReader(temporary / kind).read_metadata()
                write_json(temporary / "state.json", {"kinds": list(kinds), "processes": dist.get_world_size()})
                for folder in [*(temporary / kind for kind in kinds), temporary]:
                    _sync(folder)
                os.rename(temporary, path)
                _sync(path.parent)
    finally:
        if dist.get_rank() == 0:
            _delete(temporary)


def load_state(path: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restores what `save_state` wrote, on any number of ranks; the optimizer's state is put in host memory. A
    collective. Raises ValueError if the folder is missing or damaged, or if its files hold anything except tensors;
    nothing in them is ever run."""
    try:
        for kind in json.loads((path / "state.json").read_text())["kinds"]:
            reader = StateReader(path / kind)
            listed = reader.read_metadata().state_dict_metadata
            saved = {name: entry for name, entry in listed.items() if isinstance(entry, TensorStorageMetadata)}
            tensors = {}
            for name, parameter in _trained(policy):
                if kind == "parameter":
                    tensors[name] = parameter.detach()
                elif saved[name].size == parameter.shape:
                    local = torch.empty_like(local_tensor(parameter), dtype=saved[name].properties.dtype, device="cpu")
                    tensors[name] = _as_part_of(local, parameter)
                else:
                    tensors[name] = torch.empty(saved[name].size, dtype=saved[name].properties.dtype)
            dcp.load(tensors, storage_reader=reader)
            if kind != "parameter":
                for name, parameter in _trained(policy):
                    optimizer.state[parameter][kind] = local_tensor(tensors[name])
    except (CheckpointException, OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = type(_cause(error)).__name__
        raise ValueError(
            f"{path} cannot be read ({reason}), so this run cannot go on. A new one can start from the newest folder "
            f"in {path.parents[1] / 'checkpoints'}, with --model."
        ) from None


class StateReader(dcp.FileSystemReader):
    """Reads a checkpoint of torch.distributed.checkpoint without running code that a changed file may hold: its list of
    tensors is a pickle, so only the classes of which such a list consists are allowed in it."""

    def read_metadata(self, *args, **kwargs) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it does not list tensors")
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) in (("torch", "Size"), ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")):
            return super().find_class(module, name)
        if "." not in name and module in ("torch", dcp.metadata.__name__, dcp.filesystem.__name__):
            found = super().find_class(module, name)
            if isinstance(found, torch.dtype) or getattr(found, "__module__", "") == module != "torch":
                return found
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no list of tensors needs")


def _as_part_of(local: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Marks a tensor in host memory as this rank's part of one that is sharded as the parameter is."""
    if not isinstance(parameter, DTensor):
        return local
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(local, mesh, parameter.placements, run_check=False, shape=shape, stride=stride)


def _trained(policy: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]


# --- room on the disk -------------------------------------------------------------------------------------------------


def check_disk(path: str, args, device: torch.device, dtype: torch.dtype) -> None:
    """Prints how much a run of `args` with the model `path` will write; raises ValueError if there is too little room.

    A resume state has 12 bytes for each trained parameter, float32 and Adam's two moments, and the old one is removed
    when the new one is complete. A checkpoint has 2 bytes a parameter from a GPU, and as many as parameters take in
    memory from a CPU; the newest and the two best are kept, and there are four before one is removed."""
    config = AutoConfig.from_pretrained(path)
    parameters = count_parameters(config)
    trained = estimate(config, args, world=1, compute_bytes=dtype.itemsize, needs_base=False)[0].size / 4  # in float32
    state = 12 * trained
    of_parameter = 2 if device.type == "cuda" else dtype.itemsize if args.lora_rank else 4
    checkpoint = of_parameter * parameters + (4 * trained if args.lora_rank else 0)
    saves = -(-args.num_steps // args.eval_every) + 1
    checkpoints = saves if args.keep_all_checkpoints else min(saves, 4)
    states = 1 if args.remove_state_first else 2
    # The state is saved before the checkpoint that belongs to it.
    needed = max(states * state + (checkpoints - 1) * checkpoint, state + checkpoints * checkpoint)

    folder = Path(args.resume or args.output_dir).absolute()
    there = [file for part in ("resume", "checkpoints") for file in folder.glob(f"{part}/**/*") if file.is_file()]
    if args.resume:
        needed -= sum(file.stat().st_size for file in there)
    free = shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.is_dir())).free
    table = (
        f"disk, estimated: {state / GB:.2f} GB a resume state (up to {states}), {checkpoint / GB:.2f} GB a checkpoint "
        f"(up to {checkpoints}); {needed / GB:.2f} GB to be written of {free / GB:.2f} GB free"
    )
    if needed > free:
        advice = [] if args.resume else ["choose another --output-dir"]
        advice += [] if args.remove_state_first else ["keep one resume state at a time with --remove-state-first"]
        advice += ["leave out --keep-all-checkpoints"] if args.keep_all_checkpoints else []
        raise ValueError(f"{folder} has too little room. {table}. Make room, {', or '.join(advice)}.")
    if dist.get_rank() == 0:
        print(table, flush=True)


# --- which model it is ------------------------------------------------------------------------------------------------

# Files of a model folder that decide what it samples.
MODEL_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model")


def model_hash(model: str) -> str:
    """Returns 12 hexadecimal digits that identify a model folder: they change with any byte of its weights, config,
    tokenizer and chat template. A hub id is identified by its name and commit.

    Everything is read, because steps of fine-tuning may differ in a few bytes anywhere.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{Path(cached_file(model, 'config.json')).parent.name}"  # the cache has a folder per commit
    files = [path for path in sorted(folder.iterdir()) if path.suffix in MODEL_FILES]
    return short_hash([(path.name, _file_hash(path, path.stat().st_mtime_ns, path.stat().st_size)) for path in files])


@lru_cache(1024)
def _file_hash(path: Path, mtime_ns: int, size: int) -> str:
    """The other two arguments are for the cache: a file that has changed is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
