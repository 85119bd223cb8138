"""Started by test_checkpoint.py: saves a state with one process, loads and saves it with two, and again with one.

FOLDER holds the model; it gets <kind of run>/{of_one,of_two,of_one_again}. Each stage is a fork of this process:
imports take longer than all of them."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.logprob import load_model
from common.run.checkpoint import load_state, save_state
from common.run.memory import moments_on_device, moments_to_device

KINDS = {"full": (0, False), "lora": (3, False), "moments_on_host": (0, True)}  # LoRA rank, moments on the host


def stage(folder: Path, kind: str, before: str, name: str, rank: int, world: int) -> None:
    lora_rank, on_host = KINDS[kind]
    store = dist.FileStore(str(folder / f"store_{kind}_{name}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.manual_seed(0 if not before else 1)  # adapters of their own, which the state must replace
    args = SimpleNamespace(lora_rank=lora_rank, checkpoint_activations=False, compile_layers=False)
    policy = load_model(str(folder / "model"), args, torch.device("cpu"), torch.float32)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, fused=True)
    if before:
        load_state(folder / kind / before, policy, optimizer)
        if not on_host:
            moments_to_device(optimizer)
    else:
        for parameter in trained:
            parameter.grad = torch.randn_like(parameter)
        for _ in range(2):
            with moments_on_device(optimizer, on_host):
                optimizer.step()
    save_state(folder / kind / name, policy, optimizer)
    dist.barrier()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for kind in KINDS:
        for before, name, world in [("", "of_one", 1), ("of_one", "of_two", 2), ("of_two", "of_one_again", 1)]:
            processes = []
            for rank in range(world):
                process = os.fork()
                if process == 0:
                    try:
                        stage(folder, kind, before, name, rank, world)
                        os._exit(0)
                    except BaseException:
                        sys.excepthook(*sys.exc_info())
                        os._exit(1)
                processes.append(process)
            codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
            if any(codes):
                sys.exit(f"{kind}, {name}: exit codes {codes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
