"""A model of a real shape with random weights, for speed and memory, which do not depend on the values: no download.

    python -m benchmark.speed.random_model qwen2.5-3b /tmp/qwen2.5-3b
    python beam_eval.py --model /tmp/qwen2.5-3b --dataset toy_test --max-total-tokens 640

The tokenizer is the miniature's, so nearly all sampled tokens are ones it does not have and responses fill the window.
benchmark/speed/throughput.py makes such a model by itself.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from common.toy import make_tokenizer

# name: (model type, vocabulary, hidden, layers, heads, key heads, head dim, MLP), as in the models' own configurations
SHAPES = {
    "qwen2.5-3b": ("qwen2", 151936, 2048, 36, 16, 2, 128, 11008),
    "qwen3-4b": ("qwen3", 151936, 2560, 36, 32, 8, 128, 9728),
    "llama-3.2-3b": ("llama", 128256, 3072, 28, 24, 8, 128, 8192),
    "smollm2-135m": ("llama", 49152, 576, 30, 9, 3, 64, 1536),
    "tiny": ("qwen3", 128, 64, 2, 2, 1, 32, 128),
}
NAMES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size",
)  # fmt: skip


def config_of(shape: str):
    """The transformers configuration of a shape, one of SHAPES."""
    kind, *values = SHAPES[shape]
    special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 32768}
    return AutoConfig.for_model(kind, **dict(zip(NAMES, values, strict=True)), **special, tie_word_embeddings=True)


def main(shape: str, folder: str | Path) -> None:
    """Writes model and tokenizer to `folder`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"usage: python -m benchmark.speed.random_model {{{','.join(SHAPES)}}} FOLDER")
    main(*sys.argv[1:])
