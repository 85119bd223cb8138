"""The memory estimate against counted parameters."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from transformers import AutoConfig, Qwen2Config

from common.logprob import load_model
from common.memory import count_parameters, estimate

QWEN_3B = Qwen2Config(
    vocab_size=151936, hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
    intermediate_size=11008, tie_word_embeddings=True,
)  # fmt: skip


def parts(config, world=1, lora_rank=0, checkpointed=True, needs_base=True) -> dict[str, float]:
    found = estimate(config, world, 2, lora_rank, checkpointed, 16384, needs_base)
    return {part.name: part.size / 1e9 for part in found}


def test_a_3b_model_needs_sixteen_bytes_a_parameter_and_two_for_the_base():
    assert count_parameters(QWEN_3B) == 3_085_938_688
    sizes = parts(QWEN_3B)
    assert sizes["parameters"] + sizes["gradients"] + sizes["Adam moments"] == pytest.approx(49.4, abs=0.05)
    assert sizes["base model"] == pytest.approx(6.17, abs=0.01)
    assert parts(QWEN_3B, world=4)["Adam moments"] == pytest.approx(sizes["Adam moments"] / 4)
    assert parts(QWEN_3B, needs_base=False)["base model"] == 0


def test_flags_that_promise_less_memory_lower_the_estimate():
    assert parts(QWEN_3B, checkpointed=False)["activations"] > 5 * parts(QWEN_3B)["activations"]
    assert sum(parts(QWEN_3B, lora_rank=16).values()) < 0.4 * sum(parts(QWEN_3B).values())


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_adapters_are_counted_as_peft_makes_them(tmp_path, kind):
    path = tiny_model(tmp_path, kind)
    args = SimpleNamespace(lora_rank=3, checkpoint_activations=False)
    policy = load_model(path, args, torch.device("cpu"), torch.float32)
    adapters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    sizes = estimate(AutoConfig.from_pretrained(path), 1, 4, 3, False, 100, True)
    assert next(part.size for part in sizes if part.name.startswith("adapters")) == 16 * adapters
