"""The vLLM sampler with the real engine, on a CPU: the claims of test_rollout.py, and that a stale push is caught."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor
from test_rollout import PROMPTS, STOP, law_p_value, tiny_model, worst_logp_error
from tqdm import tqdm

from common.rollout import Request, start_sampler
from common.rollout.vllm import VLLMSampler, _BatchedOutputs

pytest.importorskip("vllm")
if torch.cuda.is_available():
    pytest.skip("these tests are of the engine on a CPU, in float32", allow_module_level=True)
tied_and_untied = pytest.mark.parametrize("engine", ["tied", "untied"], indirect=True)
tied = pytest.mark.parametrize("engine", ["tied"], indirect=True)
LONG = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * 7]  # more than one block of the prefix cache


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny_model(folder, "qwen2", tie_word_embeddings=request.param == "tied")
    trainer_group = dict(store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.distributed.init_process_group("gloo", **trainer_group)

    def random_state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def threads():
        variable = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS")
        return torch.get_num_threads(), torch.set_num_threads, inductor.compile_threads, variable

    before = random_state(), threads()
    sampler = start_sampler("vllm", folder, 96, stop_ids=[STOP])
    assert random_state() == before[0], "starting the engine changed the trainer's random numbers"
    assert threads() == before[1], "starting the engine changed the trainer's threads"
    yield sampler, model
    torch.distributed.barrier()
    sampler.close()
    assert not torch.distributed.is_initialized()


@pytest.fixture
def sampler(engine) -> VLLMSampler:
    engine[0].push(engine[1].state_dict().items())
    return engine[0]


def changed(model, scale=0.05):
    """A copy of the model with other weights, tied as before."""
    copy = type(model)(model.config).eval()
    copy.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return copy


@tied
def test_a_progress_bar_counts_the_responses_and_changes_none(sampler, monkeypatch):
    bars = []

    def bar(name, items=None, *, total=None, **_):
        bars.append(tqdm(items, total=total, desc=name, file=io.StringIO()))
        return bars[-1]

    before = sampler.generate(PROMPTS, 2, 96, seed=0)
    monkeypatch.setattr("common.rollout.vllm.shows_progress", bool)
    monkeypatch.setattr("common.rollout.vllm.progress_bar", bar)
    assert sampler.generate(PROMPTS, 2, 96, seed=0) == before and not bars
    assert sampler.generate(PROMPTS, 2, 96, seed=0, progress="validation") == before
    assert [(bar.desc, bar.n, bar.total) for bar in bars[-1:]] == [("validation", 2 * len(PROMPTS), 2 * len(PROMPTS))]


@tied
def test_the_cache_holds_as_many_full_windows_as_rows_run_and_hardly_more(sampler):
    cache = sampler.llm.llm_engine.vllm_config.cache_config
    assert sampler.capacity(96) == 256
    assert cache.num_gpu_blocks * cache.block_size == 256 * 128 + 128


@tied_and_untied
@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_logp_is_that_of_a_full_forward_at_temperature_1(sampler, engine, temperature):
    out = sampler.generate(PROMPTS, 4 if temperature else 1, 96, seed=0, temperature=temperature)
    assert len(out.responses) == len(PROMPTS) * out.group_size
    assert worst_logp_error(engine[1], out) < 1e-5


@tied_and_untied
def test_push_makes_the_engine_the_new_model_whatever_it_had_cached(sampler, engine):
    sampler.generate(LONG, 2, 96, seed=0)
    new = changed(engine[1])
    sampler.push((name, tensor) for name, tensor in new.state_dict().items())  # a generator is consumed once
    out = sampler.generate(LONG, 2, 96, seed=0)
    assert worst_logp_error(new, out) < 1e-5
    assert worst_logp_error(engine[1], out) > 0.1


@tied
def test_without_reset_the_prefix_cache_would_be_stale(sampler, engine, monkeypatch):
    """The wrong variant of the test above."""
    sampler.generate(LONG, 2, 96, seed=0)
    new = changed(engine[1])
    with monkeypatch.context() as patch:
        patch.setattr(sampler.llm, "reset_prefix_cache", lambda: True)
        sampler.push(new.state_dict().items())
    assert worst_logp_error(new, sampler.generate(LONG, 2, 96, seed=0)) > 0.1


@tied_and_untied
def test_a_push_that_leaves_a_tensor_out_is_caught(sampler, engine):
    state = changed(engine[1]).state_dict()
    for left_out in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"):
        with pytest.raises(RuntimeError, match=f"stale.*{left_out}"):
            sampler.push((name, tensor) for name, tensor in state.items() if name != left_out)
        with pytest.raises(RuntimeError, match="call push first"):
            sampler.generate(PROMPTS, 1, 96, seed=0)
    sampler.push(state.items())
    sampler.generate(PROMPTS, 1, 96, seed=0)


@tied_and_untied
@pytest.mark.parametrize("dropped", VLLMSampler.PROBES)
def test_an_engine_that_does_not_take_a_tensor_is_caught(sampler, engine, monkeypatch, dropped):
    reload = sampler.llm.collective_rpc

    def forgetful(method, kwargs):
        old = engine[1].state_dict()
        pairs = ((name, old[name] if name == dropped else tensor) for name, tensor in kwargs["weights_iterator"])
        return reload(method, kwargs={"weights_iterator": pairs})

    monkeypatch.setattr(sampler.llm, "collective_rpc", forgetful)
    with pytest.raises(RuntimeError, match="stale"):
        sampler.push(changed(engine[1], 1e-6).state_dict().items())


@tied
def test_an_engine_that_reloads_nothing_is_caught(sampler, engine, monkeypatch):
    monkeypatch.setattr(sampler.llm, "collective_rpc", lambda method, kwargs: None)
    with pytest.raises(RuntimeError, match="stale"):
        sampler.push(engine[1].state_dict().items())
    monkeypatch.setattr(sampler.llm, "collective_rpc", lambda method, kwargs: list(kwargs["weights_iterator"]))
    with pytest.raises(RuntimeError, match="stale"):
        sampler.push(changed(engine[1], 1e-6).state_dict().items())


@tied
@pytest.mark.parametrize("temperature, wrong", [(1.0, 1.3), (0.5, 0.65)])
def test_samples_follow_the_exact_law_and_not_that_of_another_temperature(sampler, engine, temperature, wrong):
    responses = sampler.generate([[1, 2]], 3000, 4, seed=0, temperature=temperature).responses
    assert law_p_value(engine[1], [1, 2], 2, responses, temperature) > 1e-3
    assert law_p_value(engine[1], [1, 2], 2, responses, wrong) < 1e-6


@tied
def test_equal_calls_repeat_and_seed_step_and_problems_change_the_samples(sampler):
    def sample(seed=0, step=0, problem="a", **stream):
        return sampler.generate([[5, 6]], 2, 96, seed, step, [problem], fixed_length=True, **stream).responses

    assert sample() == sample() == sample(stream="train")
    different = [*sample(), *sample(seed=1), *sample(step=1), *sample(problem="b"), *sample(stream="validation")]
    assert len(set(map(tuple, different))) == 10


@tied
def test_equal_prompts_get_different_samples_and_the_trainer_keeps_its_random_numbers(sampler):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    out = sampler.generate([[5, 6]] * 4, 3, 96, seed=5, fixed_length=True)
    assert len(set(map(tuple, out.responses))) == 12
    assert torch.equal(torch.rand(3), expected)


@tied
def test_fixed_length_fills_the_window_and_runs_past_stop_tokens(sampler):
    out = sampler.generate(PROMPTS, 4, 60, seed=0, fixed_length=True)
    assert [len(r) for r in out.responses] == [60 - len(p) for p in PROMPTS for _ in range(4)]
    assert any(STOP in response[:-1] for response in out.responses)
    assert out.finished == [STOP in response for response in out.responses]


@tied
def test_every_stop_id_ends_a_response_and_the_window_counts_the_prompt(sampler, monkeypatch):
    stops = [STOP, 3, 11]
    monkeypatch.setattr(sampler, "stop_ids", stops)
    out = sampler.generate(PROMPTS, 40, 58, seed=0)
    assert {response[-1] for response in out.responses if response[-1] in stops} == set(stops)
    for b, response in enumerate(out.responses):
        room = 58 - len(PROMPTS[b // 40])
        assert not set(stops) & set(response[:-1])
        assert out.finished[b] == (response[-1] in stops)
        assert len(response) <= room and (out.finished[b] or len(response) == room)
        assert len(out.sampler_logp[b]) == len(response)
    assert not all(out.finished)


@tied
def test_batched_outputs_are_those_that_would_have_come_one_by_one(sampler, engine, monkeypatch):
    def generated():
        fixed, ended = (sampler.generate(PROMPTS, 16, 96, seed=3, fixed_length=fixed) for fixed in (True, False))
        assert 1 in map(len, ended.responses)  # and a first token that is the last
        return fixed, ended

    processor = sampler.llm.llm_engine.output_processor
    batched, seen = generated(), []
    assert processor.process_outputs.held == {} and not processor.request_states
    one_by_one = processor.process_outputs.process

    def counted(outputs, *args, **kwargs):
        seen.extend(outputs)
        return one_by_one(outputs, *args, **kwargs)

    monkeypatch.setattr(processor, "process_outputs", counted)
    assert generated() == batched
    assert len(seen) == sum(len(response) for rollout in batched for response in rollout.responses)


@tied
def test_a_vllm_without_what_batching_relies_on_is_left_as_it_is(sampler, monkeypatch, capsys):
    from vllm.v1.engine import output_processor

    processor = sampler.llm.llm_engine.output_processor
    monkeypatch.setattr(processor, "process_outputs", processor.process_outputs.process)
    plain = processor.process_outputs
    with monkeypatch.context() as patch:
        patch.setattr(output_processor, "RequestState", lambda output_kind: None)
        patch.delattr(processor, "request_states")
        _BatchedOutputs.install(processor)
    assert processor.process_outputs == plain
    message = capsys.readouterr().err
    assert "no OutputProcessor.request_states, RequestState.logprobs_processor: " in message
    assert "Decoding is slower, the results are the same." in message
    with monkeypatch.context() as patch:
        patch.delattr(output_processor, "RequestState")
        _BatchedOutputs.install(processor)
    assert processor.process_outputs == plain and "cannot import name 'RequestState'" in capsys.readouterr().err
    _BatchedOutputs.install(processor)
    assert isinstance(processor.process_outputs, _BatchedOutputs) and capsys.readouterr().err == ""


@tied
def test_greedy_takes_the_most_likely_token(sampler, engine):
    out = sampler.generate(PROMPTS, 1, 96, seed=0, temperature=0, fixed_length=True)
    other = sampler.generate(PROMPTS, 1, 96, seed=1, temperature=0, fixed_length=True)
    assert out.responses == other.responses
    for prompt, response in zip(PROMPTS, out.responses, strict=True):
        with torch.inference_mode():
            logits = engine[1](torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        assert response == logits.argmax(-1).tolist()


@tied
def test_bad_requests_are_named_and_sleep_does_nothing_on_a_cpu(sampler):
    with pytest.raises(ValueError, match="prompt 0 has 96 tokens"):
        sampler.generate([[5] * 96], 2, 96, seed=0)
    with pytest.raises(ValueError, match="n=1"):
        sampler.generate([[5]], 2, 96, seed=0, temperature=0)
    with pytest.raises(RuntimeError, match="requests=True"):  # the engine was started without
        sampler.submit(Request(0, [5], 3, 1.0, np.zeros(3)))
    before = sampler.generate([[5]], 2, 96, seed=0)
    sampler.sleep()
    assert sampler.generate([[5]], 2, 96, seed=0) == before


RANK = """
import os, sys, torch, torch.distributed as dist
sys.path[:0] = sys.argv[2:]
from tqdm import tqdm

from common.rollout import start_sampler
from test_rollout import tiny_model, worst_logp_error
dist.init_process_group("gloo")
rank, folder = dist.get_rank(), sys.argv[1]
sampler = start_sampler("vllm", folder, 32, stop_ids=[0], kv_cache_memory_bytes=16 << 20)
model = tiny_model(f"{folder}/{rank}", seed=1 + rank)  # weights, requests and their number differ from rank to rank
sampler.push(model.state_dict().items())
for step in range(1 + 2 * rank):
    out = sampler.generate([[3 + rank, 4]] * (1 + rank), 4, 32, 0, step, [f"{rank}-{i}" for i in range(1 + rank)])
    assert worst_logp_error(model, out) < 1e-5
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)  # the trainer's group still works
assert total.item() == 3
sys.stdout.write(f"rank {rank} is right\\n")  # in one piece: two ranks write into one pipe
sys.stdout.flush()
sampler.close()
"""


@pytest.mark.long
def test_each_rank_of_a_trainer_has_an_engine_of_its_own(tmp_path):
    tiny_model(tmp_path)
    (tmp_path / "rank.py").write_text(RANK)
    tests, root = Path(__file__).parent, Path(__file__).parents[2]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*torchrun, tmp_path / "rank.py", tmp_path, root, tests], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "rank 0 is right" in run.stdout and "rank 1 is right" in run.stdout
