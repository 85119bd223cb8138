"""Runs of rloo_tilted.py that meet a fault: test_faults.py asks on stdin, a forked process of its own answers each.

A request is a line of JSON: `words` of the command line, `ranks`, where to `log`, and `faults`: [rank, function, call,
action], the action to take when that rank enters that function for the so-manieth time, from the first step on (in a
resumed run: from its start). The answer is the exit code of each rank, or minus the signal that ended it.
"""

import errno
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (loaded once, before the forks)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # conftest

from conftest import ParityGrader

import rloo_tilted
from common.run import Run, checkpoint, start

# Where in a run it may be killed, and a function that is called there.
PHASES = {
    "rollout": "common.rollout.transformers.TransformersSampler.forward",
    "grading": "rloo_tilted.Grader.grade",
    "forward": "rloo_tilted.token_logprobs",
    "backward": "torch.Tensor.backward",
    "optimizer": "torch.optim.AdamW.step",
    "validation": "common.evaluate.problem_metrics",
    "writing the state": "torch.save",
    "writing a checkpoint": "common.run.checkpoint.save_file",
    "putting on disk": "os.fsync",
    "renaming": "os.rename",
    "best and latest": "common.run.write_json",
    "pruning": "shutil.rmtree",
    "samples": "common.run.write_text",
    "logging": "common.run.Run.log",
}


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half(function: str, args: tuple):
    """Does half of what the function does, and dies."""
    if function == "torch.save":  # torch.distributed.checkpoint writes tensor after tensor to one file
        file = args[1].raw
        start = file.tell()
        torch_save(*args)
        file.truncate((start + file.tell()) // 2)
        kill()
    elif function == "common.run.checkpoint.save_file":
        path = args[1]
        save_file(*args)
    elif function == "shutil.rmtree":
        path = next(file for file in Path(args[0]).rglob("*") if file.is_file())
        os.unlink(path)
        kill()
    elif function == "common.run.Run.log":
        path = args[0].folder / "metrics.jsonl"
        with path.open("a") as file:
            file.write(json.dumps({"step": args[1], "objective/return": 0.5}) + "\n")
    os.truncate(path, os.path.getsize(path) - 20)
    kill()


def send(number: int, times: int = 1, pause: float = 0.0):
    for i in range(times):
        time.sleep(pause * (i > 0))
        os.kill(os.getpid(), number)


def fail(error: BaseException):
    raise error


ACTIONS = {
    "kill": kill,
    "half": half,
    "SIGTERM": lambda *_: send(signal.SIGTERM),
    "SIGINT": lambda *_: send(signal.SIGINT),
    "one signal passed on by two": lambda *_: send(signal.SIGTERM, 2),
    "a second signal": lambda *_: send(signal.SIGTERM, 2, pause=3.2),
    "out of memory": lambda *_: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "engine error": lambda *_: fail(RuntimeError("the engine is gone")),
    "read-only folder": lambda *_: fail(OSError(errno.EROFS, "Read-only file system")),
    "full disk": lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
}
counts: Counter = Counter()
torch_save, save_file = torch.save, checkpoint.save_file


def watch(function: str, faults: dict[int, str], armed: list) -> None:
    """Counts the calls of a function, given by its dotted name, and takes the action that belongs to one of them."""
    owner, name = function.rsplit(".", 1)
    owner = pkgutil.resolve_name(owner)
    original = getattr(owner, name)

    def watched(*args, **kwargs):
        if armed:
            counts[function] += 1
            if action := faults.get(counts[function]):
                ACTIONS[action](function, args)
        return original(*args, **kwargs)

    setattr(owner, name, watched)


def run(request: dict, rank: int, port: int) -> int:
    """Returns the exit code."""
    signal.alarm(300)  # ends a run that hangs
    with open(f"{request['log']}.{rank}", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if request["ranks"] > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(request["ranks"]), "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(port)
    armed = [True] if "--resume" in request["words"] else []
    steps = Run.steps

    def arming(*args):
        armed.append(True)
        yield from steps(*args)

    Run.steps = arming
    for function in {*PHASES.values(), *(fault[1] for fault in request["faults"])}:
        mine = {call: action for who, what, call, action in request["faults"] if (who, what) == (rank, function)}
        watch(function, mine, armed)
    sys.argv = ["rloo_tilted.py", *request["words"]]
    try:
        start(rloo_tilted.main, rloo_tilted.Args)
    except SystemExit as stop:
        return stop.code
    except Exception:
        traceback.print_exc()
        return 1
    if rank == 0:
        Path(f"{request['log']}.counts").write_text(json.dumps(counts))
    return 0


def wait(processes: list[int]) -> list[int]:
    """The exit codes; ranks that wait for one that was killed are killed too, as torchrun would."""
    codes: dict[int, int] = {}
    while len(codes) < len(processes):
        process, status = os.wait()
        codes[process] = os.waitstatus_to_exitcode(status)
        if codes[process] == -signal.SIGKILL:
            for other in set(processes) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[process] for process in processes]


def main() -> None:
    torch.set_num_threads(1)
    rloo_tilted.Grader = ParityGrader
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for rank in range(request["ranks"]):
            process = os.fork()
            if process == 0:
                code = run(request, rank, port)
                sys.stdout.flush()
                os._exit(code)  # taking the interpreter apart takes longer than the run
            processes.append(process)
        print(json.dumps(wait(processes)), flush=True)


if __name__ == "__main__":
    main()
