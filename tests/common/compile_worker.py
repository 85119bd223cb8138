"""Compiles layers under FSDP2 on several ranks, started by test_logprob.py with torchrun: MODEL

Rank 0 prints the number of graphs."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # conftest

import torch
from test_logprob import graphs_of_a_run, with_a_cpu_kernel

from common.run import start_processes

if __name__ == "__main__":
    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    torch.set_num_threads(1)
    start_processes(0)
    with_a_cpu_kernel()
    graphs = graphs_of_a_run(sys.argv[1], "aot_eager", 0, True)
    if torch.distributed.get_rank() == 0:
        print(graphs, flush=True)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, still there when the interpreter takes itself apart, now and then abort the process
