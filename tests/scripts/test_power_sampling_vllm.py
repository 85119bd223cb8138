"""Power sampling through the real engine, on a CPU: what it records of its logits, and the law of its chains."""

import types

import numpy as np
import pytest
import torch
from test_power_sampling import STOP, Enumerated, V, chains_of, check_blocks, check_moves
from test_rollout import tiny_model

from common.rollout import Request, Sample, start_sampler, uniforms
from common.rollout.transformers import TransformersSampler, log_z
from common.rollout.vllm import Recorder, logits_processor
from power_sampling import Args

pytest.importorskip("vllm")
if torch.cuda.is_available():
    pytest.skip("these tests are of the engine on a CPU, in float32", allow_module_level=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, tiny_model(folder, vocabulary=V, seed=15)


def engine_of(folder, window=8, **settings):
    memory = dict(kv_cache_memory_bytes=16 << 20) | settings
    return start_sampler("vllm", folder, window, stop_ids=[STOP], requests=True, **memory)


@pytest.fixture(scope="module")
def engine(tiny):
    sampler = engine_of(tiny[0], max_num_seqs=256)
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def deterministic(tiny):
    sampler = engine_of(tiny[0], window=64, max_num_seqs=64, deterministic=True)
    yield sampler
    sampler.close()


@torch.inference_mode()
def truth(model, request: Request, tokens: list[int]) -> torch.Tensor:
    """log p, log Z and entropy at each token, by one full pass of transformers: (3, tokens)."""
    row = torch.tensor([request.prompt + tokens])
    logits = model(row).logits[0, len(request.prompt) - 1 : -1].double()
    logp = logits.log_softmax(-1)
    log_z = (logits / request.temperature).logsumexp(-1) - logits.logsumexp(-1) / request.temperature
    return torch.stack([logp.gather(1, torch.tensor(tokens)[:, None])[:, 0], log_z, -(logp.exp() * logp).sum(-1)])


def sampled(sampler, requests: list[Request]) -> list[Sample]:
    for request in requests:
        sampler.submit(request)
    samples = []
    while got := sampler.collect():
        samples += got
    return samples


def worst_error(model, requests: list[Request], samples: list[Sample]) -> float:
    by_key = {request.key: request for request in requests}
    assert sorted(sample.key for sample in samples) == sorted(by_key)
    worst = 0.0
    for sample in samples:
        found = torch.tensor([sample.logp, sample.log_z, sample.entropy], dtype=torch.float64)
        worst = max(worst, float((found - truth(model, by_key[sample.key], sample.tokens)).abs().max()))
    return worst


def some_requests(count: int, window: int, vocabulary: int, temperature: float) -> list[Request]:
    """Prompts of all lengths, many with long beginnings in common, as the proposals of chains have."""
    rng = np.random.default_rng(0)
    stem = rng.integers(1, vocabulary, window).tolist()
    requests = []
    for i in range(count):
        cut = int(rng.integers(1, window - 1))
        prompt = stem[:cut] if i % 2 else rng.integers(1, vocabulary, cut).tolist()
        requests.append(Request(i, prompt, window - cut, temperature, uniforms(0, 1, i, 0, window - cut), entropy=True))
    return requests


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_what_transformers_records_is_what_a_full_pass_says(tmp_path, temperature):
    model = tiny_model(tmp_path, vocabulary=12, seed=4)
    requests = some_requests(30, 64, 12, temperature)
    samples = sampled(TransformersSampler(tmp_path, 64, [STOP], max_batch=7), requests)
    assert worst_error(model, requests, samples) < 5e-5


def test_log_z_of_the_engine_is_that_of_a_full_pass(tmp_path, monkeypatch):
    """With prompts that come in pieces, beginnings that are cached, and requests that are put off and begun again."""
    model = tiny_model(tmp_path, vocabulary=12, seed=4)
    hard = dict(max_num_batched_tokens=48, enable_chunked_prefill=True, num_gpu_blocks_override=14, max_num_seqs=32)
    sampler = engine_of(tmp_path, 96, **hard)
    scheduler = sampler.llm.llm_engine.engine_core.engine_core.scheduler
    preempted, real = [], scheduler._preempt_request
    monkeypatch.setattr(scheduler, "_preempt_request", lambda r, *a, **k: preempted.append(r) or real(r, *a, **k))
    requests = some_requests(60, 96, 12, temperature=0.5)
    samples = sampled(sampler, requests)
    assert worst_error(model, requests, samples) < 5e-5
    assert preempted and any(sample.cached_tokens for sample in samples)
    sampler.close()


def test_the_record_survives_asynchronous_scheduling():
    """Which vLLM has on a GPU only, so its order of events is played: the step after a request's last token runs before
    anyone knows that it was the last, its values arrive when the row has a new owner, and rows of the batch move."""
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    recorder, logits = Recorder(8), torch.randn(7, 3, 5)
    config = types.SimpleNamespace(model_config=types.SimpleNamespace(get_vocab_size=lambda: 5))
    processor = logits_processor(recorder)(config, torch.device("cpu"), False)
    outputs, rows = {}, {}

    def begin(key, place):
        rows[key], outputs[key] = recorder.take(Request(key, [1], 5, 0.5, np.zeros(5))), []
        asked = dict(row=rows[key], temperature=0.5, entropy=False, deterministic=False)
        return place, SamplingParams(temperature=0.5, extra_args=asked), [1], outputs[key]

    def step(t, keys, removed=(), added=(), moved=()):
        """One pass, of the requests in the order of `keys`; then each has one token more, as yet unknown."""
        processor.update_state(BatchUpdate(len(keys), removed, added, moved) if removed or added or moved else None)
        assert processor.apply(logits[t, : len(keys)]).shape == (len(keys), 5)
        for key in keys:
            outputs[key].append(-1)

    z = log_z(logits.flatten(0, 1), 0.5).view(7, 3).tolist()
    step(0, "abc", added=[begin("a", 0), begin("b", 1), begin("c", 2)])
    step(1, "abc")
    step(2, "abc")  # a is given below: it had ended with the token of step 1
    row, late = rows["a"], types.SimpleNamespace(query=lambda: False)
    recorder.pending[-1] = (late, *recorder.pending[-1][1:])
    assert recorder.give(row, 2) == ("a", [z[0][0], z[1][0]], [0, 0])
    swap = (0, 1, MoveDirectionality.SWAP)
    step(3, "bdc", added=[begin("d", 0)], moved=[swap])
    assert rows["d"] == row and recorder.pending[0][0] is late
    late.query = lambda: True
    step(4, "bd", removed=[2])  # c is put off with three tokens, ...
    again = (
        2,
        SamplingParams(extra_args=dict(row=rows["c"], temperature=0.5, entropy=False, deterministic=False)),
        [1],
    )
    outputs["c"] = outputs["c"][:3]
    step(5, "bdc", added=[(*again, outputs["c"])])  # ... and begun again: a piece of its beginning,
    outputs["c"].pop()
    step(6, "bdc")  # then the rest
    assert recorder.give(rows["c"], 4)[1] == [z[0][2], z[1][2], z[2][2], z[6][2]]
    assert recorder.give(rows["d"], 4)[1] == [z[3][1], z[4][1], z[5][1], z[6][1]]
    assert recorder.give(rows["b"], 7)[1] == [z[0][1], z[1][1], z[2][1], *(z[t][0] for t in range(3, 7))]


@pytest.mark.parametrize("mode", ["exact", "karan-du", "mh-llm", "mh-llm-signfix"])
def test_chains_follow_the_law_of_their_kernel(engine, tiny, mode):
    torch.manual_seed(0)
    check_moves(engine, Enumerated(tiny[1], 3, 2.0), 300, seed=0, mode=mode, at_once=256)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("mode", ["exact", "karan-du", "mh-llm", "mh-llm-signfix"])
def test_1000_chains_follow_the_law_of_their_kernel(engine, tiny, mode, seed):
    torch.manual_seed(seed)
    check_moves(engine, Enumerated(tiny[1], 3, 2.0), 1_000, seed, mode, at_once=256)
    check_blocks(engine, Enumerated(tiny[1], 4, 2.0), 1_000, seed, mode, num_moves=1, at_once=128)


def test_deterministic_chains_are_those_of_the_transformers_sampler_with_1_and_with_64_in_flight(deterministic, tiny):
    args = Args(alpha=2.0, num_moves=3, max_total_tokens=40)
    by = [chains_of(deterministic, args, 0, 64, at_once=at_once) for at_once in (1, 64)]
    by.append(chains_of(TransformersSampler(tiny[0], 64, [STOP]), args, 0, 64))
    answers = [[chain.y.tokens for chain in sorted(chains, key=lambda chain: chain.index)] for chains in by]
    assert answers[0] == answers[1] == answers[2]
    assert len({tuple(y) for y in answers[0]}) > 10


def test_a_plain_batch_beside_it_leaves_the_record_alone(deterministic, tiny):
    """What `generate` asks for has no row in the tables, and is sampled as ever."""
    request = Request("x", [1, 2], 20, 0.5, uniforms(0, 1, 0, 0, 20))
    deterministic.submit(request)
    (alone,) = deterministic.collect()
    assert len({tuple(y) for y in deterministic.generate([[1, 2]], 30, 64, 0, temperature=0.5).responses}) > 10
    deterministic.submit(request)
    (again,) = deterministic.collect()
    assert again.tokens == alone.tokens and np.allclose(again.log_z, alone.log_z, atol=1e-5)


def test_an_engine_that_hides_logits_is_refused_in_one_line(engine, monkeypatch):
    request = Request("x", [1, 2], 3, 0.5, uniforms(0, 1, 0, 0, 3))
    with monkeypatch.context() as patch:
        patch.setattr(engine.recorder, "note", lambda *_: None)  # as if the processor were not called
        engine.submit(request)
        with pytest.raises(RuntimeError, match="did not show all its logits: use --sampler transformers"):
            engine.collect()
    runner = engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner
    (processor,) = (p for p in runner.input_batch.logitsprocs.all if type(p).__name__ == "RecordingProcessor")
    monkeypatch.setattr(processor, "vocabulary", V + 1)
    engine.submit(request)
    with pytest.raises(ValueError, match="4 of 5 logits.*use --sampler transformers"):
        engine.collect()
