"""What only a GPU can show; skipped elsewhere. The figures are taken by benchmark/speed/gpu.sh."""

import gc
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from test_logprob import make_rollout, reference
from test_memory import settings, train_fifty_steps
from transformers import AutoConfig, AutoModelForCausalLM

from benchmark.speed.random_model import SHAPES
from benchmark.speed.random_model import main as make_model
from common.logprob import base_logprobs, load_model, local_tensor, pack, token_logprobs, weights
from common.rollout import start_sampler
from common.run import start_processes
from common.run.memory import estimate, moments_on_device, peaks

CACHE = 4 << 30  # bytes of vLLM's cache; what a tiny model needs would be lost among the rest of the GPU's memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_packed_bfloat16_log_probabilities_are_as_near_to_float32_as_those_of_transformers(tmp_path, kind):
    path = tiny_model(tmp_path, kind, head_dim=32)
    rollout = make_rollout(groups=16, group_size=8)
    args = SimpleNamespace(lora_rank=0, checkpoint_activations=False, compile_layers=True)
    ours_model = load_model(path, args, torch.device("cuda"), torch.bfloat16, trainable=False)
    with torch.no_grad():
        exact, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), rollout)
        theirs, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16), rollout)
        ours, _ = token_logprobs(ours_model, pack(rollout, list(range(16)), "cuda"))
    assert (ours.cpu() - exact).abs().mean() <= 1.2 * (theirs - exact).abs().mean()


def test_packed_attention_has_the_gradient_of_the_padded_one(tmp_path):
    path, rollout = tiny_model(tmp_path, "qwen3", head_dim=32), make_rollout(groups=4)
    args = SimpleNamespace(lora_rank=0, checkpoint_activations=True, compile_layers=True)
    gradients = []
    for device in ("cpu", "cuda"):
        model = load_model(path, args, torch.device(device), torch.bfloat16, trainable=False)
        model.requires_grad_(True)
        token_logprobs(model, pack(rollout, [0, 1, 2, 3], device))[0].sum().backward()
        gradients.append(torch.cat([p.grad.float().cpu().flatten() for p in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


# --- from here on with a process group, as the scripts run ------------------------------------------------------------


@pytest.fixture(scope="module")
def device() -> torch.device:
    return start_processes(0)


@pytest.mark.parametrize("lora_rank", [0, 16])
def test_a_step_holds_what_the_estimate_says(tmp_path, monkeypatch, device, lora_rank):
    """A model of 0.3B parameters: states to a hundredth, activations to a quarter, and the host takes the moments."""
    monkeypatch.setitem(SHAPES, "small", ("qwen2", 32768, 1024, 16, 16, 2, 64, 5504))
    make_model("small", tmp_path)
    args = settings(lora_rank=lora_rank, microbatch_tokens=8192, max_total_tokens=1024, compile_layers=False)
    rollout = make_rollout(groups=2, group_size=8)
    rollout.prompts = [[2] * 118 for _ in rollout.prompts]
    rollout.responses = [[3] * 906 for _ in rollout.responses]
    rollout.sampler_logp = [[-1.0] * 906 for _ in rollout.responses]
    warm = torch.ones(8, 8, device=device, dtype=torch.bfloat16, requires_grad=True)
    (warm @ warm).sum().backward()  # the first products allocate workspaces, which are part of GPU_OVERHEAD
    torch.nn.functional.linear(warm, warm, warm[0]).sum().backward()
    gc.collect()
    before = torch.cuda.memory_allocated()
    policy = load_model(tmp_path, args, device, torch.bfloat16)
    base = None if lora_rank else load_model(tmp_path, args, device, torch.bfloat16, trainable=False)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], fused=True)
    for _ in range(2):
        sampling = torch.cuda.memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        for group in (0, 1):
            packed = pack(rollout, [group], device)
            logp, entropy = token_logprobs(policy, packed)
            base_logprobs(policy, base, packed)
            logp.sum().backward()
            del packed, logp, entropy
        training = torch.cuda.max_memory_allocated() - before
        optimizer.step()
        step = torch.cuda.memory_allocated() - before
        optimizer.zero_grad()
    found = estimate(AutoConfig.from_pretrained(tmp_path), args, 1, 2, True)
    size, expected = {part.name: part.size for part in found}, peaks(found, False, 0, False)
    print({"sampling": sampling, "training": training, "step": step}, expected)
    assert sampling == pytest.approx(expected["while sampling"], rel=0.01, abs=50e6)  # a workspace
    assert step == pytest.approx(expected["in the optimizer step"], rel=0.01, abs=50e6)
    activations = size["activations"] - (expected["while training"] - training)
    assert activations == pytest.approx(size["activations"], rel=0.25)
    with moments_on_device(optimizer, True):
        pass
    freed = sampling - (torch.cuda.memory_allocated() - before)
    assert freed == pytest.approx(size["Adam moments"], rel=0.05)


def test_moments_on_the_host_change_no_bit(tmp_path, device):
    path = tiny_model(tmp_path, "qwen3", head_dim=32)

    def train(on_host: bool) -> list[torch.Tensor]:
        policy = load_model(path, settings(), device, torch.bfloat16)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, fused=True)
        for step in range(4):
            # Of the parameters alone: attention adds its gradient up in any order.
            sum((p.to_local() ** (2 + step)).sum() for p in policy.parameters()).backward()
            with moments_on_device(optimizer, on_host):
                optimizer.step()
            optimizer.zero_grad()
        return [p.detach().full_tensor().clone() for p in policy.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))


@pytest.fixture(scope="module")
def engine(tmp_path_factory, device):
    """A sampler over vLLM with sleep, and a policy of other weights of the same shape."""
    folder = tmp_path_factory.mktemp("engine")
    started, other = (tiny_model(folder / str(seed), "qwen3", head_dim=64, seed=seed) for seed in (0, 1))
    room = dict(gpu_memory_utilization=0.1, kv_cache_memory_bytes=CACHE)
    sampler = start_sampler("vllm", started, 64, device=device, **room)
    yield sampler, load_model(other, settings(), device, torch.bfloat16)
    sampler.close()


# Mean differences of log-probabilities, nats: of two programs in bfloat16, and of weights that `change` has changed.
FRESH, STALE = 0.03, 0.5


def change(policy) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            local = local_tensor(parameter)  # all of it, on one rank
            local.copy_(local.roll(1, 0))


def disagreement(sampler, policy, device) -> float:
    """Mean difference of the sampler's and the policy's log-probabilities, nats."""
    rollout = sampler.generate([[5, 6, 7, 8], [9, 10, 11]], 16, 64, seed=0, fixed_length=True)
    packed = pack(rollout, [0, 1], device)
    with torch.no_grad():
        return (token_logprobs(policy, packed)[0] - packed.sampler_logp).abs().mean().item()


def test_weights_are_never_stale_with_sleep_on_and_off(engine, device):
    sampler, policy = engine
    assert disagreement(sampler, policy, device) > STALE  # the weights it was started with
    sampler.push(weights(policy))
    for sleeps in (False, True, True, False):
        if sleeps:
            sampler.sleep()
            with pytest.raises(RuntimeError, match="call push first"):
                disagreement(sampler, policy, device)
        change(policy)
        if not sleeps:
            assert disagreement(sampler, policy, device) > STALE
        sampler.push(weights(policy))
        assert disagreement(sampler, policy, device) < FRESH


def test_a_push_that_does_not_arrive_stops_the_run(engine, device, monkeypatch):
    sampler, policy = engine
    real = sampler.llm.collective_rpc

    def deaf(method, *args, kwargs=None, **more):
        if method == "reload_weights":
            return list(kwargs["weights_iterator"])  # read, and loaded nowhere
        return real(method, *args, kwargs=kwargs, **more)

    for sleeps in (False, True):
        sampler.push(weights(policy))
        if sleeps:
            sampler.sleep()
        change(policy)
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stale"):
            patch.setattr(sampler.llm, "collective_rpc", deaf)
            sampler.push(weights(policy))
    sampler.push(weights(policy))


def test_sleep_gives_the_engine_its_memory_back_and_nothing_stays_behind(engine):
    sampler, policy = engine
    free = []
    for _ in range(4):
        sampler.push(weights(policy))
        awake = torch.cuda.mem_get_info()[0]
        sampler.sleep()
        torch.cuda.empty_cache()
        free.append(torch.cuda.mem_get_info()[0])
        assert free[-1] - awake > 0.9 * CACHE
    assert min(free[1:]) >= 0.99 * free[1]


def test_resumed_moments_are_where_the_optimizer_wants_them(tmp_path, device):
    from common.run.checkpoint import load_state, save_state
    from common.run.memory import moments_to_device

    path, rollout = tiny_model(tmp_path / "model", "qwen3", head_dim=32), make_rollout()

    def step(policy, optimizer):
        token_logprobs(policy, pack(rollout, [0], device))[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    pairs = []
    for _ in range(2):
        policy = load_model(path, settings(), device, torch.bfloat16)
        pairs.append((policy, torch.optim.AdamW(policy.parameters(), lr=1e-3, fused=True)))
    step(*pairs[0])
    save_state(tmp_path / "state.pt", *pairs[0])
    load_state(tmp_path / "state.pt", *pairs[1])
    moments_to_device(pairs[1][1])
    for parameter, state in pairs[1][1].state.items():
        assert all(value.device == parameter.device for value in state.values())
    step(*pairs[1])
    assert all(parameter.isfinite().all() for parameter in pairs[1][0].parameters())


@pytest.mark.parametrize("flags", [[], ["--lora-rank", "2"]])
def test_nothing_leaks_over_fifty_steps(tmp_path, flags):
    used = train_fifty_steps(tmp_path, "--gpu-memory-utilization", "0.1", *flags)
    watched = ("objects", "tensors", "bytes", "allocated", "device")
    grown = {what: (used["5"][what], used["50"][what]) for what in watched if used["50"][what] > 1.01 * used["5"][what]}
    assert not grown
    assert max(used["logp_differences"]) < FRESH  # and the engine had the weights of every step
