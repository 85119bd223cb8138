"""Counts the bytes of a training pass of a real shape, started by test_memory.py: SHAPE LORA_RANK PROMPT RESPONSE

Everything is a fake tensor, which has a size and no memory, and the process group passes nothing on; load_model, FSDP2,
packing, log-probabilities and autograd are the real ones, with the attention of a GPU. Prints one line of JSON: bytes
before a pass, with gradients; at its peak; and what the estimate says of its activations."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # conftest

import torch
from test_memory import CountedMemory, settings
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

import common.logprob
from benchmark.speed.random_model import config_of
from common.logprob import base_logprobs, load_model, pack, token_logprobs
from common.rollout import Rollout
from common.run.memory import estimate

GROUP, DEVICE = 8, torch.device("cpu")


class FromConfig:
    """transformers' loader, which has no files to read here."""

    def __init__(self, model_class):
        self.model_class = model_class

    def from_pretrained(self, config, dtype, attn_implementation):
        return self.model_class._from_config(config, dtype=dtype, attn_implementation=attn_implementation)


def main(shape: str, lora_rank: int, prompt: int, response: int) -> None:
    torch.distributed.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.init_device_mesh = lambda *_, **__: mesh  # made of real numbers
    torch.nn.Module.to = lambda self, *_, **__: self  # peft moves adapters to where they are
    common.logprob.MODELS = {kind: FromConfig(model_class) for kind, model_class in common.logprob.MODELS.items()}
    common.logprob.AutoConfig = SimpleNamespace(from_pretrained=lambda config, **_: config)
    common.logprob._padded_attention = common.logprob._varlen_attention

    config, window = config_of(shape), prompt + response
    args = settings(lora_rank=lora_rank, max_total_tokens=window)
    groups = max(1, args.microbatch_tokens // (GROUP * window))
    count = GROUP * groups
    rollout = Rollout(
        [[2] * prompt] * groups, [[2] * response] * count, [[0.0] * response] * count, [True] * count, GROUP
    )
    with FakeTensorMode(allow_non_fake_inputs=True), CountedMemory() as counted:
        policy = load_model(config, args, DEVICE, torch.bfloat16)
        base = None if lora_rank else load_model(config, args, DEVICE, torch.bfloat16, trainable=False)
        for _ in range(2):  # the first pass makes the gradients
            before = counted.peak = counted.now()
            packed = pack(rollout, list(range(groups)), DEVICE)
            logp, entropy = token_logprobs(policy, packed)
            base_logprobs(policy, base, packed)
            logp.sum().backward()
            del packed, logp, entropy
    (activations,) = (part.size for part in estimate(config, args, 1, 2, True) if part.name == "activations")
    print(json.dumps({"before": before, "peak": counted.peak, "estimate": activations}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
