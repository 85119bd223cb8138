"""The step of benchmark/speed/throughput.py by TRL's RLOOTrainer. That program starts it; it needs torch and trl only.

    python benchmark/speed/trl_step.py FOLDER PROMPT RESPONSE BATCH STEPS

FOLDER holds model/ and problems.jsonl; trl.json is written there: seconds of every step but the first, their mean, the
most memory in use, TRL's version. On a GPU: vLLM colocated, asleep while training, 0.3 of the card; else transformers
generates. What decides speed and is not named in `main` is TRL's default.
"""

import json
import sys
import threading
import time
from pathlib import Path

import torch

GROUP = 8


class MemoryWatch(threading.Thread):
    """The most memory in use, read fifty times a second: of the whole GPU, or of this process; bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.stopped = 0, threading.Event()

    def run(self):
        while not self.stopped.wait(0.02):
            self.peak = max(self.peak, self.used())

    def used(self) -> int:
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            return total - free
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def main(folder: Path, prompt: int, response: int, batch: int, steps: int) -> None:
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        """When training began and when each optimizer step was done."""

        times: list[float] = []

        def note(self):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

        def on_train_begin(self, *_, **__):
            self.note()

        def on_step_end(self, *_, **__):
            self.note()

    on_gpu = torch.cuda.is_available()
    rows = [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]
    engine = dict(use_vllm=True, vllm_mode="colocate", vllm_enable_sleep_mode=True, vllm_gpu_memory_utilization=0.3)
    config = trl.RLOOConfig(
        output_dir=str(folder / "trl"), max_steps=steps + 1, num_generations=GROUP, max_completion_length=response,
        per_device_train_batch_size=GROUP, gradient_accumulation_steps=batch // GROUP, beta=0.01, learning_rate=1e-6,
        bf16=on_gpu, use_cpu=not on_gpu, report_to=[], save_strategy="no", logging_steps=1,
        generation_kwargs={"ignore_eos": True} if on_gpu else {"min_new_tokens": response},
        **(engine | dict(vllm_max_model_length=prompt + response) if on_gpu else {}),
    )  # fmt: skip
    trainer = trl.RLOOTrainer(
        model=str(folder / "model"),
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["problem"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(folder / "model", padding_side="left"),
        callbacks=[Clock()],
    )
    watch = MemoryWatch()
    watch.start()
    trainer.train()
    watch.stopped.set()
    watch.join()
    lengths = [
        line["completions/mean_length"] for line in trainer.state.log_history if "completions/mean_length" in line
    ]
    each = [after - before for before, after in zip(Clock.times[1:], Clock.times[2:], strict=False)]
    figures = {"step": sum(each) / steps, "steps": each, "length": sum(lengths[1:]) / steps, "peak": watch.peak}
    (folder / "trl.json").write_text(json.dumps(figures | {"version": trl.__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
