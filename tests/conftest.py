"""Settings that must be there before torch or vllm is imported, and what several test files share."""

import json
import os
import shutil

# Threads that spin are ten times slower on a shared machine; on a CPU, vLLM would compile for ten seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from common.grading import Verdict

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def tiny_model(folder: Path, kind: str = "qwen2", vocab: int = 64, tied: bool = True, seed: int = 0, **changes) -> Path:
    """A Hugging Face folder: a random model of two layers, peaked enough that its log-probabilities differ, and a
    tokenizer of single characters."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    config = {
        "qwen2": lambda: Qwen2Config(**common | changes),
        "qwen3": lambda: Qwen3Config(**common | {"head_dim": 16} | changes),
        "llama": lambda: LlamaConfig(
            **common | {"rope_parameters": rope | {"original_max_position_embeddings": 64}} | changes
        ),
    }[kind]()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    characters = "abcdefghijklmnopqrstuvwxyz0123456789+-*/=(){}\\ \n.,:;?!ABCDEFGHIJKLMNOP"[: vocab - 2]
    vocabulary = {"<pad>": 0, "<eos>": 1} | {c: i + 2 for i, c in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = "{{ messages[-1]['content'] }}"
    fast.save_pretrained(folder)
    return folder


def sums(folder: Path, count: int) -> None:
    """A data set of some sums, problems.jsonl, and the prompt that is the problem, bare.txt."""
    problems = [{"id": f"p{i}", "problem": f"{i}+{i}=", "answer": str(2 * i)} for i in range(count)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    (folder / "bare.txt").write_text("{problem}")


class ParityGrader:
    """A reward without worker processes: right where the code points add up to an even number."""

    def __init__(self, *_):
        pass

    def grade(self, texts, problems):
        return [Verdict(sum(map(ord, text)) % 2 == 0, False, None) for text in texts]

    def equivalence_classes(self, answers, problems):
        return [[None] * len(row) for row in answers]

    def close(self):
        pass


@pytest.fixture(scope="module", autouse=True)
def no_process_group_left():
    """A training script starts a process group of one; the next file's models must not be sharded over it."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def toy_dir() -> Path:
    """The built-in miniature; made once and cached as a user's would be."""
    from common.toy import toy_path

    return toy_path()
