"""Trains a tiny model for 51 steps and writes what was in use after steps 5 and 50, with the metrics of every step:

    python tests/leak_worker.py FOLDER [flags of rloo_tilted.py]        ->  FOLDER/used.json

Python objects, tensors, their bytes, resident pages; on a GPU bytes that torch has handed out and those of the device.
"""

import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # conftest

import torch
from conftest import sums, tiny_model

import rloo_tilted
from common.run import parse
from common.run.unknown import UNKNOWN

used, metrics = {}, []


class CountingRun(rloo_tilted.Run):
    def log(self, step, figures):
        super().log(step, figures)
        metrics.append(figures)
        if step in (5, 50):
            gc.collect()
            objects = gc.get_objects()
            unknown = type(UNKNOWN)  # whose size cannot be read
            tensors = [x for x in objects if issubclass(type(x), torch.Tensor) and type(x) is not unknown]
            used[step] = {"objects": len(objects), "tensors": len(tensors)}
            used[step]["bytes"] = sum(x.numel() * x.element_size() for x in tensors)
            used[step]["resident"] = int(Path("/proc/self/statm").read_text().split()[1])
            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                used[step] |= {"allocated": torch.cuda.memory_allocated(), "device": total - free}


def main(folder: Path, flags: list[str]) -> None:
    tiny_model(folder / "model", "qwen3", head_dim=64)
    sums(folder, 12)
    data = f"--dataset {folder / 'problems.jsonl'} --validation-dataset {folder / 'problems.jsonl'}"
    words = f"""--alpha 2 --beta 0.1 --model {folder / "model"} {data} --prompt-file {folder / "bare.txt"}
        --num-problems 2 --group-size 4 --num-steps 51 --eval-every 51 --max-total-tokens 24 --fixed-length
        --learning-rate 1e-3 --warmup-steps 0 --output-dir {folder / "runs"} --num-grading-workers 1"""
    rloo_tilted.main(parse(rloo_tilted.Args, [*words.split(), *flags]), run_class=CountingRun)
    differences = [figures["sampling/logp_difference_mean"] for figures in metrics[:51]]
    (folder / "used.json").write_text(json.dumps({"5": used[5], "50": used[50], "logp_differences": differences}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
