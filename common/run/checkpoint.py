"""Checkpoints, and files that are whole or not there.

Nothing is written in place: a file or folder gets a temporary name, is put on the disk (fsync) and then renamed. So a
kill or a full disk at any moment leaves what was there before, and temporary names that `sweep` removes.
"""

import copy
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel

from common.logprob import causal_lm, full_tensor, local_tensor, weights

# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path):
    """Around whatever writes `path`: raises OSError with one line where that fails, whichever library was writing."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.is_dir())).free
        raise OSError(
            f"{path} could not be written ({reason}), with {free / 1e9:.2f} GB free there. What was saved before is as "
            "it was: make room, or make the folder writable, and go on with --resume."
        ) from error


@contextmanager
def replacing(path: Path):
    """A temporary name for what takes the place of `path` when the block ends well: a file, or, where `path` has no
    suffix, a folder, made here, in a place where none is yet. Raises OSError as `writing` does."""
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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path, advice: str) -> dict:
    """Raises ValueError with `advice` where the file is not JSON, FileNotFoundError where it is missing."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is damaged: {advice}.") from None


def remove_folder(path: Path) -> None:
    """Takes the name away before the content, so that a kill leaves no part of a folder under its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        os.rename(path, temporary)
        _delete(temporary)


def sweep(run: Path) -> None:
    """Removes what killed processes left in a run folder under temporary names."""
    for place in (".", "samples", "checkpoints", "resume", "resume/step_*"):
        for path in run.glob(f"{place}/.*.tmp"):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _sync(path: Path) -> None:
    """Waits until the file, or the names in the folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- what a checkpoint is made of -------------------------------------------------------------------------------------


def save_model(path: Path, policy: torch.nn.Module, tokenizer, stop_ids: Sequence[int]) -> None:
    """Saves the policy as a plain Hugging Face folder; a collective, rank 0 writes. LoRA adapters are merged into the
    weights and also saved by themselves, in float32, in its folder `adapter`: bfloat16 weights round off small steps.

    `stop_ids` are the tokens that ended a response in training: with the folder's own generation settings transformers
    and vLLM sample as the training sampler did. A folder that exists is left alone: it is complete and has the same
    weights."""
    model, tensors, writes = causal_lm(policy), {}, dist.get_rank() == 0 and not path.exists()
    for name, value in weights(policy):
        if writes and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            # A GPU computes in bfloat16, and so will whoever loads the folder; a CPU run stays as it is.
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

    config = copy.copy(policy.peft_config["default"])
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


def save_state(path: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """This rank's part of the trained parameters and of the optimizer."""
    state = {}
    for name, parameter in _trained(policy):
        tensors = {"parameter": parameter} | optimizer.state.get(parameter, {})
        state[name] = {key: local_tensor(tensor) for key, tensor in tensors.items()}
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts back what `save_state` wrote, the optimizer's part in host memory. Raises ValueError for a file that is
    missing, damaged, or holds more than tensors: nothing in it is run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}), so this run cannot go on; a new one can start from the "
            f"newest folder in {path.parents[2] / 'checkpoints'}, with --model."
        ) from None
    with torch.no_grad():
        for name, parameter in _trained(policy):
            saved = state[name]
            local_tensor(parameter).copy_(saved.pop("parameter"))
            optimizer.state[parameter] = saved


def _trained(policy: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
