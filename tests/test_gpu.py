"""What only a GPU can show; skipped elsewhere."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from test_logprob import make_rollout, reference
from transformers import AutoModelForCausalLM

from common.logprob import load_model, pack, token_logprobs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_packed_bfloat16_log_probabilities_are_as_near_to_float32_as_those_of_transformers(tmp_path, kind):
    path = tiny_model(tmp_path, kind, head_dim=32)
    rollout = make_rollout(groups=16, group_size=8)
    args = SimpleNamespace(lora_rank=0, checkpoint_activations=False)
    ours_model = load_model(path, args, torch.device("cuda"), torch.bfloat16, trainable=False)
    with torch.no_grad():
        exact, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), rollout)
        theirs, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16), rollout)
        ours, _ = token_logprobs(ours_model, pack(rollout, list(range(16)), "cuda"))
    assert (ours.cpu() - exact).abs().mean() <= 1.2 * (theirs - exact).abs().mean()


def test_packed_attention_has_the_gradient_of_the_padded_one(tmp_path):
    path, rollout = tiny_model(tmp_path, "qwen3", head_dim=32), make_rollout(groups=4)
    args = SimpleNamespace(lora_rank=0, checkpoint_activations=True)
    gradients = []
    for device in ("cpu", "cuda"):
        model = load_model(path, args, torch.device(device), torch.bfloat16, trainable=False)
        model.requires_grad_(True)
        token_logprobs(model, pack(rollout, [0, 1, 2, 3], device))[0].sum().backward()
        gradients.append(torch.cat([p.grad.float().cpu().flatten() for p in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
