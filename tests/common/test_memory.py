"""The memory estimate against counted parameters, hand-made sums and storages that were counted in a step on a CPU;
Adam's moments on the host, which change no bit; fifty steps, after which nothing is left."""

import copy
import gc
import inspect
import io
import json
import re
import subprocess
import sys
import weakref
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from huggingface_hub.utils import are_progress_bars_disabled
from test_logprob import make_rollout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen3Config
from transformers.utils.logging import enable_progress_bar

import common.run.memory
from common.logprob import _LogProbHead, base_logprobs, load_model, pack, token_logprobs
from common.rollout import start_sampler
from common.run import start_processes
from common.run.memory import check_memory, count_parameters, estimate, moments_on_device, peaks

QWEN_3B = Qwen2Config(
    vocab_size=151936, hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
    intermediate_size=11008, tie_word_embeddings=True,
)  # fmt: skip
QWEN_4B = Qwen3Config(
    vocab_size=151936, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, intermediate_size=9728, tie_word_embeddings=True,
)  # fmt: skip


def settings(**changes) -> SimpleNamespace:
    """What the estimate reads of a script's Args, as they are by default."""
    shared = dict(lora_rank=0, checkpoint_activations=True, compile_layers=True, microbatch_tokens=16384, group_size=8)
    shared |= dict(num_problems=32, max_total_tokens=2048, moments_on_host=False, gpu_memory_utilization=0.4)
    return SimpleNamespace(**shared | dict(sampler="auto", skip_memory_check=False) | changes)


def parts(config, world=1, needs_base=True, **changes) -> dict[str, float]:
    return {part.name: part.size / 1e9 for part in estimate(config, settings(**changes), world, 2, needs_base)}


def in_gb(config, engine_share: float, world=1, card=85.0, **changes) -> dict[str, float]:
    args = settings(**changes)
    found = peaks(estimate(config, args, world, 2, True), args.moments_on_host, engine_share * card * 1e9, False)
    return {phase.split()[-1]: size / 1e9 for phase, size in found.items()}


def test_a_3b_model_needs_sixteen_bytes_a_parameter_and_two_for_the_base():
    assert count_parameters(QWEN_3B) == 3_085_938_688
    sizes = parts(QWEN_3B)
    assert sizes["parameters"] == sizes["gradients"] == 4 * 3.085938688
    assert sizes["Adam moments"] == 8 * 3.085938688
    assert sizes["base model"] == 2 * 3.085938688
    assert parts(QWEN_3B, world=4)["Adam moments"] == sizes["Adam moments"] / 4
    assert "base model" not in parts(QWEN_3B, needs_base=False)


def test_the_activations_of_a_3b_model_are_those_counted_by_hand():
    # Bytes a token of a layer: 2 norms keep 4 + 2 + 2 and 4 + 2 + 2 of 2048; queries, keys, values, output 4 x 2 of
    # 2048; gate, its silu, up and their product 4 x 2 of 11008. At work also 2 gradients of 11008.
    layer = 16 * 2048 + 8 * 2048 + 8 * 11008
    weights = 2048 * (2 * 2048 + 2 * 256 + 3 * 11008)
    # Two gathered layers and the embedding; the gradients of one layer, in bfloat16 and float32, and of the embedding.
    gathered, gradients = 2 * 2 * weights + 2 * 151936 * 2048, (2 + 4) * weights + 2 * 151936 * 2048
    inputs = 36 * 16384 * 2 * 2048
    head = 8 * 4096 * 151936  # more than the layer at work, 16384 * (layer + 4 * 11008) + gradients
    assert parts(QWEN_3B)["activations"] == (inputs + head + gathered) / 1e9
    without = parts(QWEN_3B, checkpoint_activations=False)["activations"]
    assert without == (36 * 16384 * layer + head + gathered) / 1e9
    twice = parts(QWEN_3B, microbatch_tokens=32768)["activations"]
    assert twice == (2 * inputs + 32768 * (layer + 4 * 11008) + gradients + gathered) / 1e9


def test_one_group_that_fills_the_window_is_the_largest_pass_where_it_exceeds_the_micro_batch():
    assert parts(QWEN_3B, max_total_tokens=2048) == parts(QWEN_3B, max_total_tokens=640)
    assert parts(QWEN_3B, max_total_tokens=4096) == parts(QWEN_3B, microbatch_tokens=32768)


def test_the_largest_pass_is_no_larger_than_the_responses_of_a_rank():
    short = dict(num_problems=8, max_total_tokens=100)  # 64 responses of 100 tokens
    assert parts(QWEN_3B, **short) == parts(QWEN_3B, **short, microbatch_tokens=6400)
    assert parts(QWEN_3B, **short, world=2) == parts(QWEN_3B, **short, microbatch_tokens=3200, world=2)
    assert parts(QWEN_3B, **short, world=2)["activations"] < parts(QWEN_3B, **short)["activations"]
    smol = Qwen2Config(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True,
    )  # fmt: skip
    before, now = (
        sum(part.size for part in estimate(smol, settings(checkpoint_activations=False, **sizes), 1, 4, True)) / 1e9
        for sizes in ({}, short)
    )
    assert before > 25 and now < 14


def test_3b_fits_an_80_gb_card_and_4b_at_4096_with_moments_on_the_host_or_on_two_cards():
    card, overhead = 84.0, 2.0
    assert max(in_gb(QWEN_3B, 0.4).values()) + overhead < card
    assert max(in_gb(QWEN_3B, 0.25).values()) + overhead < 70  # the aim of issue 6, with room for 256 x 640 tokens
    assert max(in_gb(QWEN_4B, 0.4, max_total_tokens=4096).values()) + overhead > card
    on_host = in_gb(QWEN_4B, 0.4, max_total_tokens=4096, moments_on_host=True)
    assert max(on_host.values()) + overhead < card
    assert on_host["step"] == pytest.approx((16 + 2) * 4.022468096, abs=0.01)
    assert max(in_gb(QWEN_4B, 0.4, world=2, max_total_tokens=4096).values()) + overhead < card


def test_lora_fits_a_24_gb_card():
    for config, window in ((QWEN_3B, 2048), (QWEN_4B, 4096)):
        sizes = in_gb(config, 0.5, card=25.3, lora_rank=16, max_total_tokens=window)
        assert max(sizes.values()) + 1.0 < 24.8


def test_flags_that_promise_less_memory_lower_the_estimate():
    assert parts(QWEN_3B, checkpoint_activations=False)["activations"] > 5 * parts(QWEN_3B)["activations"]
    assert sum(parts(QWEN_3B, lora_rank=16).values()) < 0.4 * sum(parts(QWEN_3B).values())
    here, away = in_gb(QWEN_3B, 0.25), in_gb(QWEN_3B, 0.25, moments_on_host=True)
    assert here["sampling"] - away["sampling"] == pytest.approx(8 * 3.085938688)
    assert here["training"] - away["training"] == pytest.approx(8 * 3.085938688)
    assert here["step"] == away["step"]


def test_gradients_are_gone_while_sampling_and_the_engine_while_training_unless_it_stays():
    sizes = {part.name: part.size for part in estimate(QWEN_3B, settings(), 1, 2, True)}
    found = estimate(QWEN_3B, settings(), 1, 2, True)
    asleep, stays = peaks(found, False, 5e9, False), peaks(found, False, 5e9, True)
    whole = sum(sizes.values())
    assert asleep["while training"] == whole and stays["while training"] == whole + 5e9
    assert asleep["while sampling"] == whole - sizes["gradients"] - sizes["activations"] + 5e9


def test_a_run_that_does_not_fit_is_refused_with_the_table_and_the_flags(tmp_path, monkeypatch, capsys):
    device = start_processes(0)
    path = tiny_model(tmp_path)
    needed = sum(part.size for part in estimate(AutoConfig.from_pretrained(path), settings(), 1, 4, True))
    monkeypatch.setattr(common.run.memory, "available", lambda device: 2 * needed)
    check_memory(path, settings(), device, torch.float32, True)
    printed = capsys.readouterr().out
    assert printed.startswith("memory, estimated, on the device:\n")
    monkeypatch.setattr(common.run.memory, "available", lambda device: 1e6)
    with pytest.raises(MemoryError) as refusal:
        check_memory(path, settings(), device, torch.float32, True)
    names = {"parameters", "gradients", "Adam moments", "activations", "base model", "sampler", "in the optimizer step"}
    flags = {"--lora-rank", "--moments-on-host", "--microbatch-tokens", "--gpu-memory-utilization"}
    for word in names | flags:
        assert word in printed and word in str(refusal.value), word


def test_the_estimate_of_a_small_run_is_one_line(tmp_path, monkeypatch, capsys):
    device, path = start_processes(0), tiny_model(tmp_path)
    monkeypatch.setattr(common.run.memory, "available", lambda device: 100e9)
    check_memory(path, settings(microbatch_tokens=0), device, torch.float32, True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("memory, estimated, on the device: under 0.01 GB while sampling, ")
    assert re.search(r" 0\.\d\d GB while training, under 0\.01 GB in the optimizer step, of 100\.00 GB free", line)
    assert line.endswith("; chosen to fit: --microbatch-tokens 16384")


def test_weights_load_without_a_progress_bar_and_downloads_keep_theirs(tmp_path, capfd):
    path = tiny_model(tmp_path)
    enable_progress_bar()  # as it is before a program starts
    start_processes(0)
    capfd.readouterr()
    AutoModelForCausalLM.from_pretrained(path)
    assert "Loading weights" not in capfd.readouterr().err and not are_progress_bars_disabled()
    enable_progress_bar()
    AutoModelForCausalLM.from_pretrained(path)
    assert "Loading weights" in capfd.readouterr().err
    start_processes(0)


def test_a_run_that_does_not_fit_starts_if_it_is_told_to(tmp_path, monkeypatch, capsys):
    device = start_processes(0)
    monkeypatch.setattr(common.run.memory, "available", lambda device: 1e6)
    check_memory(tiny_model(tmp_path), settings(skip_memory_check=True), device, torch.float32, True)
    assert "in the optimizer step" in capsys.readouterr().out


# --- what is chosen automatically, on cards of several sizes ----------------------------------------------------------


def chosen_on(monkeypatch, folder, config, card_gb: float, host_gb=200.0, world=1, **changes) -> SimpleNamespace:
    """The arguments after check_memory on a GPU of that size, of which half a GB is in use, and what it printed of each
    phase, GB."""
    start_processes(0)
    config.save_pretrained(folder)
    args, card = settings(microbatch_tokens=0, **changes), SimpleNamespace(total_memory=card_gb * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_properties", lambda _: card)
        free = {"cuda": (card_gb - 0.5) * 1e9, "cpu": host_gb * 1e9}
        patch.setattr(common.run.memory, "available", lambda device: free[device.type])
        patch.setattr(torch.distributed, "get_world_size", lambda: world)
        patch.setattr(common.run.memory, "gather", lambda items: items * world)
        with redirect_stdout(io.StringIO()) as printed:
            check_memory(folder, args, torch.device("cuda"), torch.bfloat16, True)
    found = re.findall("^  (?:while|in the optimizer) ([a-z]+) +([0-9.]+) GB", printed.getvalue(), re.M)
    args.printed, args.phases = printed.getvalue(), {phase: float(size) for phase, size in found}
    return args


@pytest.mark.parametrize(
    "card_gb,world,changes,tokens",
    [
        (85.0, 1, {}, 32768),
        (85.0, 2, {}, 65536),
        (80.0, 1, {"checkpoint_activations": False, "max_total_tokens": 512}, None),
        (85.0, 1, {"lora_rank": 16}, 65536),
        (150.0, 1, {}, 65536),
        (25.3, 1, {"lora_rank": 16}, 32768),
        (150.0, 1, {"checkpoint_activations": False, "max_total_tokens": 512}, 8192),
    ],
)
def test_the_largest_pass_that_fits_is_chosen(tmp_path, monkeypatch, card_gb, world, changes, tokens):
    args = chosen_on(monkeypatch, tmp_path, QWEN_3B, card_gb, world=world, **changes)
    if tokens:
        assert (args.microbatch_tokens, args.moments_on_host) == (tokens, False)
    else:
        assert args.moments_on_host  # stored activations leave no room for the moments
    assert f"chosen to fit: --microbatch-tokens {args.microbatch_tokens}" in args.printed
    assert args.printed.startswith(f"memory, estimated, on {'each of the 2 devices' if world > 1 else 'the device'}:\n")


def test_the_defaults_of_a_3b_model_need_less_than_74_gb(tmp_path, monkeypatch):
    phases = chosen_on(monkeypatch, tmp_path, QWEN_3B, 85.0).phases
    # Parameters, moments and base: 18 bytes each without the gradients' 4; vLLM's weights, KV cache and workspace.
    sampling = (4 + 8 + 2) * 3.085938688 + 2 + 2 * 3.085938688 + (256 * 2048 + 128) * 2 * 36 * 2 * 128 * 2 / 1e9 + 3
    assert phases["sampling"] == pytest.approx(sampling, abs=0.01)
    assert max(phases.values()) < 74


def test_the_engine_counts_with_what_it_takes_and_a_transformers_sampler_stays(tmp_path, monkeypatch):
    assert inspect.signature(start_sampler).parameters["max_num_seqs"].default == common.run.memory.MAX_NUM_SEQS
    small = dict(max_total_tokens=512)
    for share, engine in ((0.4, 2 * 3.085938688 + (256 * 512 + 128) * 36864 / 1e9 + 3), (0.1, 8.5)):
        phases = chosen_on(monkeypatch, tmp_path, QWEN_3B, 85.0, gpu_memory_utilization=share, **small).phases
        assert phases["sampling"] == pytest.approx(14 * 3.085938688 + 2 + engine, abs=0.01)
    stays = chosen_on(monkeypatch, tmp_path, QWEN_3B, 85.0, sampler="transformers", **small).phases
    assert stays["step"] - phases["step"] == pytest.approx(2 * 3.085938688, abs=0.01)


def test_a_chosen_size_stays_and_so_does_that_of_a_cpu(tmp_path, monkeypatch):
    path, device = tiny_model(tmp_path), start_processes(0)
    for given, expected in ((5000, 5000), (0, 16384)):
        args = settings(microbatch_tokens=given)
        check_memory(path, args, device, torch.float32, True)
        assert args.microbatch_tokens == expected
    needed = estimate(AutoConfig.from_pretrained(path), settings(max_total_tokens=64), 1, 4, True)
    monkeypatch.setattr(common.run.memory, "available", lambda device: sum(part.size for part in needed))
    args = settings(microbatch_tokens=0, max_total_tokens=64)
    check_memory(path, args, device, torch.float32, True)
    assert args.microbatch_tokens == 8192  # a smaller machine takes smaller passes


def test_the_4b_recipe_fits_one_80_gb_card_with_its_moments_on_the_host(tmp_path, monkeypatch):
    args = chosen_on(monkeypatch, tmp_path, QWEN_4B, 85.0, max_total_tokens=4096)
    assert args.moments_on_host and max(args.phases.values()) < 78
    assert not chosen_on(monkeypatch, tmp_path, QWEN_4B, 85.0, world=2, max_total_tokens=4096).moments_on_host
    with pytest.raises(MemoryError, match="--skip-memory-check"):
        chosen_on(monkeypatch, tmp_path, QWEN_4B, 85.0, host_gb=30, max_total_tokens=4096)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_adapters_are_counted_as_peft_makes_them(tmp_path, kind):
    path = tiny_model(tmp_path, kind)
    policy = load_model(path, settings(lora_rank=3), torch.device("cpu"), torch.float32)
    adapters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    sizes = parts(AutoConfig.from_pretrained(path), lora_rank=3)
    assert sizes["adapters"] + sizes["gradients"] + sizes["Adam moments"] == pytest.approx(16e-9 * adapters)


# --- counted in a step ------------------------------------------------------------------------------------------------


class CountedMemory(TorchDispatchMode):
    """Bytes of all tensors that are alive, after every operation that made one; FSDP frees a storage by resizing it to
    nothing."""

    def __init__(self):
        super().__init__()
        self.storages, self.peak = weakref.WeakSet(), 0

    def now(self) -> int:
        gc.collect()
        return self._sum()

    def _sum(self) -> int:
        return sum(storage.nbytes() for storage in list(self.storages))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = len(self.storages)
        for tensor in tree_leaves((args, out)):
            if isinstance(tensor, torch.Tensor):
                self.storages.add(getattr(tensor, "_local_tensor", tensor).untyped_storage())
        if len(self.storages) > known:
            self.peak = max(self.peak, self._sum())
        return out


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_step_holds_what_the_estimate_says(tmp_path, lora_rank):
    """Parameters, moments and base to a hundredth, activations to a fifth."""
    device = start_processes(0)
    path = tiny_model(tmp_path, "qwen3", hidden_size=128, intermediate_size=512, head_dim=32)
    rollout = make_rollout(groups=2, group_size=8)
    rollout.responses = [[2] * 50 for _ in rollout.responses]
    rollout.sampler_logp = [[-1.0] * 50 for _ in rollout.responses]
    tokens = pack(rollout, [0]).input_ids.shape[1]
    args = settings(lora_rank=lora_rank, microbatch_tokens=tokens, max_total_tokens=1, num_problems=tokens)
    with CountedMemory() as counted:
        policy = load_model(path, args, device, torch.bfloat16)
        base = None if lora_rank else load_model(path, args, device, torch.bfloat16, trainable=False)
        optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], fused=True)
        for _ in range(2):
            sampling = counted.peak = counted.now()
            for group in (0, 1):
                packed = pack(rollout, [group])
                logp, entropy = token_logprobs(policy, packed)
                base_logprobs(policy, base, packed)
                logp.sum().backward()
                del packed, logp, entropy
            training = counted.peak
            optimizer.step()
            step = counted.now()
            optimizer.zero_grad()
    found = estimate(AutoConfig.from_pretrained(path), args, 1, 2, True)
    size = {part.name: part.size for part in found}
    expected = peaks(found, False, 0, False)
    assert sampling == pytest.approx(expected["while sampling"], rel=0.01)
    assert step == pytest.approx(expected["in the optimizer step"], rel=0.01)
    activations = size["activations"] - (expected["while training"] - training)
    assert activations == pytest.approx(size["activations"], rel=0.2)


@pytest.mark.long
@pytest.mark.parametrize(
    "shape,lora_rank,response",
    [
        ("qwen2.5-3b", 0, 1930),
        ("qwen2.5-3b", 16, 1930),
        ("llama-3.2-3b", 16, 1930),
        ("qwen3-4b", 0, 3978),
        ("qwen3-4b", 16, 3978),
    ],
)
def test_a_pass_of_a_real_shape_holds_what_the_estimate_says(shape, lora_rank, response):
    """In bytes of tensors that have a size only: the activations to a tenth, prompts of 118 tokens."""
    worker = Path(__file__).with_name("shape_worker.py")
    command = [sys.executable, worker, shape, str(lora_rank), "118", str(response)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counted = json.loads(done.stdout.splitlines()[-1])
    print(counted)
    assert counted["peak"] - counted["before"] == pytest.approx(counted["estimate"], rel=0.1)


def test_the_head_holds_the_logits_of_one_chunk_and_their_softmax():
    chunk, vocab, width = 64, 4096, 16
    hidden = torch.randn(4 * chunk, width, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocab, width, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(4 * chunk, dtype=torch.long)
    one = 8 * chunk * vocab
    with CountedMemory() as counted:
        logp, _ = _LogProbHead.apply(hidden, weight, targets, chunk, True)
        assert one < counted.peak < 1.15 * one
        logp.sum().backward()
    assert counted.peak < 1.15 * (one + 4 * vocab * width)


# --- moments on the host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_moments_on_the_host_change_no_bit(tmp_path, lora_rank):
    device = start_processes(0)
    path, rollout = tiny_model(tmp_path), make_rollout()

    def train(on_host: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        policy = load_model(path, settings(lora_rank=lora_rank), device, torch.float32)
        trained = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01, fused=True)
        for step in range(4):
            token_logprobs(policy, pack(rollout, [step % 3]))[0].sum().backward()
            with moments_on_device(optimizer, on_host):
                optimizer.step()
                assert type(optimizer.state[trained[0]]["exp_avg"]) is type(trained[0].data)  # sharded as it is
            optimizer.zero_grad()
            plain = type(optimizer.state[trained[0]]["exp_avg"]) is torch.Tensor
            assert plain == on_host
        return [p.detach().full_tensor().clone() for p in trained]

    here, away = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(here, away, strict=True))
    assert any(a.abs().max() > 0 for a in here)


def test_moments_that_went_to_the_host_come_back_as_they_were():
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    parameter.grad = torch.arange(6.0).view(3, 2)
    optimizer.step()
    before = copy.deepcopy(optimizer.state[parameter])
    with moments_on_device(optimizer, True):
        pass
    with moments_on_device(optimizer, True):
        for key, value in before.items():
            assert torch.equal(optimizer.state[parameter][key], value), key


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def train_fifty_steps(folder: Path, *flags: str) -> dict:
    """What leak_worker.py writes, in a process of its own: an engine cannot be started twice in one."""
    worker = Path(__file__).with_name("leak_worker.py")
    done = subprocess.run([sys.executable, worker, folder, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "used.json").read_text())


@pytest.mark.long
def test_nothing_leaks_over_fifty_steps(tmp_path):
    used = train_fifty_steps(tmp_path)
    for what, before in used["5"].items():
        assert used["50"][what] <= 1.01 * before, what
    assert max(used["logp_differences"]) < 1e-4  # and the sampler had the weights of every step
