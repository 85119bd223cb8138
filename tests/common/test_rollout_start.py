"""How the vLLM engine is started: its environment, its share of the memory, its threads. No engine runs here."""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch._inductor.config as inductor
from test_rollout import STOP, tiny_model
from transformers import Qwen2Config

from common.rollout import ENGINE_WORKSPACE, engine_bytes, kv_cache_bytes, start_sampler, vllm

QWEN_3B = Qwen2Config(
    hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2, intermediate_size=11008
)
MINIATURE = Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)


class Started(Exception):
    pass


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a sampler up to the point where `LLM` is called; returns its keywords and the environment it would see."""
    pytest.importorskip("vllm")
    tiny_model(tmp_path)
    found = {}

    def llm(**keywords):
        found.update(keywords=keywords, environment=dict(os.environ))
        raise Started

    def start(device="cpu", **settings):
        with monkeypatch.context() as patch:
            patch.setattr("vllm.LLM", llm)
            if device == "cuda":
                patch.setattr(torch.cuda, "is_available", lambda: True)
                card = SimpleNamespace(total_memory=80 * 10**9)
                patch.setattr(torch.cuda, "get_device_properties", lambda *_: card)
                patch.setattr(vllm, "_own_randomness", lambda seed: nullcontext())
            with pytest.raises(Started):
                start_sampler("vllm", tmp_path, 96, stop_ids=[STOP], device=device, **settings)
        return SimpleNamespace(**found)

    return start


@pytest.fixture
def no_vllm_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("VLLM_")]:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_variables_are_set_before_the_engine_is_made(start, no_vllm_variables, monkeypatch, device):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    environment = start(device).environment
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert environment["VLLM_LOGGING_LEVEL"] == "ERROR"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_USE_V2_MODEL_RUNNER" not in environment
    assert start(device, requests=True).environment["VLLM_USE_V2_MODEL_RUNNER"] == "0"


def test_what_the_user_set_is_kept(start, no_vllm_variables, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.update(VLLM_USE_FLASHINFER_SAMPLER="1", VLLM_LOGGING_LEVEL="DEBUG")
    found = start("cuda")
    assert found.environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    assert found.environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert found.keywords["use_tqdm_on_load"]
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    assert not start("cuda").keywords["use_tqdm_on_load"]


def test_bytes_of_the_cache_by_shape():
    token = 36 * 2 * 2 * 128 * 2  # layers, keys and values, heads, head dim, bfloat16
    assert kv_cache_bytes(QWEN_3B, 256, 2048, 2) == (256 * 2048 + 128) * token
    assert kv_cache_bytes(QWEN_3B, 256, 2048, 2) == pytest.approx(19.3e9, rel=0.01)
    assert kv_cache_bytes(QWEN_3B, 1, 2049, 2) == (17 * 128 + 128) * token  # rounded up to whole blocks
    assert kv_cache_bytes(MINIATURE, 256, 128, 4) < 40e6


def test_the_engine_takes_the_smaller_of_full_windows_and_its_share():
    needed = 2 * 3.09e9 + kv_cache_bytes(QWEN_3B, 256, 2048, 2) + ENGINE_WORKSPACE
    assert engine_bytes(QWEN_3B, 3.09e9, 256, 2048, 2, limit=34e9) == (needed, kv_cache_bytes(QWEN_3B, 256, 2048, 2))
    assert needed < 29e9
    assert engine_bytes(QWEN_3B, 3.09e9, 256, 2048, 2, limit=28e9) == (28e9, None)  # vLLM fills its share


def test_the_engine_is_told_the_size_of_its_cache(start, monkeypatch):
    config = Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    full = kv_cache_bytes(config, 256, 96, 2)
    assert start("cuda").keywords["kv_cache_memory_bytes"] == full
    assert start("cuda", max_num_seqs=512).keywords["kv_cache_memory_bytes"] == kv_cache_bytes(config, 512, 96, 2)
    # Each chain has an answer that is cached beside the one that is sampled.
    assert start("cuda", requests=True).keywords["kv_cache_memory_bytes"] == kv_cache_bytes(config, 512, 96, 2)
    assert start("cuda", kv_cache_memory_bytes=123).keywords["kv_cache_memory_bytes"] == 123
    assert start("cuda", gpu_memory_utilization=0.03).keywords["kv_cache_memory_bytes"] is None
    assert start("cpu").keywords["kv_cache_memory_bytes"] == kv_cache_bytes(config, 256, 96, 4)
    monkeypatch.setattr(vllm, "kv_cache_bytes", lambda *_: 5 << 30)
    assert start("cpu").keywords["kv_cache_memory_bytes"] == 1 << 30


def test_the_trainer_keeps_its_threads_and_the_engine_has_its_own(monkeypatch):
    """As vLLM on a GPU: one thread each, set while it starts; and as on a CPU, where it also disables the function."""
    threads, variable, real = vllm.EngineThreads(), "TORCHINDUCTOR_COMPILE_THREADS", torch.set_num_threads
    monkeypatch.delenv(variable, raising=False)
    before = torch.get_num_threads(), inductor.compile_threads
    torch.set_num_threads(2)
    inductor.compile_threads = 7
    try:
        with threads:
            torch.set_num_threads(1)
            torch.set_num_threads = lambda _: None
            inductor.compile_threads, os.environ[variable] = 1, "1"
        assert (torch.get_num_threads(), inductor.compile_threads) == (2, 7)
        assert torch.set_num_threads is real and variable not in os.environ
        with threads:
            assert (torch.get_num_threads(), inductor.compile_threads) == (1, 1)
        assert (torch.get_num_threads(), inductor.compile_threads) == (2, 7)
    finally:
        torch.set_num_threads = real
        torch.set_num_threads(before[0])
        inductor.compile_threads = before[1]


def test_a_quiet_start_shows_what_was_printed_only_if_it_fails(monkeypatch, capsys):
    import sys

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    with vllm._quiet_start():
        print("a progress bar", file=sys.stderr)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError), vllm._quiet_start():
        print("the reason", file=sys.stderr)
        raise ValueError
    assert "the reason" in capsys.readouterr().err
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    with vllm._quiet_start():
        print("a progress bar", file=sys.stderr)
    assert "a progress bar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said,error,told",
    [
        ("Memory usage increased after sleeping.", RuntimeError, "nothing else uses"),  # vLLM 0.26, gpu_worker.py
        ("another assertion", AssertionError, "another assertion"),
    ],
)
def test_a_neighbour_that_takes_memory_while_the_engine_falls_asleep_is_named(said, error, told):
    def refuse(level):
        raise AssertionError(said)

    sampler = vllm.VLLMSampler.__new__(vllm.VLLMSampler)
    sampler.on_gpu, sampler.sleeping, sampler.llm = True, set(), SimpleNamespace(sleep=refuse)
    with pytest.raises(error, match=told):
        sampler.sleep()
    assert not sampler.sleeping
