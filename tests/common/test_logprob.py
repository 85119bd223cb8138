"""common/logprob.py against transformers' own log-probabilities and gradients, in float32 on a CPU."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import common.logprob
from common.logprob import (
    CHUNK,
    _LogProbHead,
    base_logprobs,
    compile_layers,
    full_tensor,
    pack,
    plan_microbatches,
    token_logprobs,
    weights,
)
from common.logprob import load_model as load
from common.rollout import Rollout
from common.run import start_processes


def load_model(path, trainable=True, lora_rank=0, checkpoint_activations=False, dtype=torch.float32):
    args = SimpleNamespace(lora_rank=lora_rank, checkpoint_activations=checkpoint_activations, compile_layers=False)
    return load(path, args, torch.device("cpu"), dtype, trainable)


KINDS = [("qwen2", True), ("qwen2", False), ("qwen3", True), ("llama", False), ("llama", True)]


def make_rollout(vocab=64, groups=3, group_size=3, seed=0) -> Rollout:
    """Random tokens in very unequal lengths, one empty-looking extreme (a single token) among them."""
    g = torch.Generator().manual_seed(seed)

    def tokens(low, high):
        return torch.randint(2, vocab, (int(torch.randint(low, high, (), generator=g)),), generator=g).tolist()

    prompts = [tokens(1, 12) for _ in range(groups)]
    responses = [tokens(1, 40) for _ in range(groups * group_size)]
    responses[1] = responses[1][:1]
    return Rollout(prompts, responses, [[-1.0] * len(r) for r in responses], [True] * len(responses), group_size)


def reference(model, rollout):
    """Log-probabilities and entropies by transformers, one sequence at a time."""
    logp, entropy = [], []
    for row, response in enumerate(rollout.responses):
        prompt = rollout.prompts[row // rollout.group_size]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        log_probs = torch.log_softmax(logits.float(), -1)
        logp.append(log_probs.gather(-1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(log_probs.exp() * log_probs).sum(-1))
    return torch.cat(logp), torch.cat(entropy)


@pytest.mark.parametrize("kind,tied", KINDS)
def test_log_probabilities_entropies_and_gradients_equal_those_of_transformers(tmp_path, kind, tied):
    path = tiny_model(tmp_path, kind, tied=tied)
    rollout = make_rollout()
    theirs = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    ours = load_model(path)
    expected_logp, expected_entropy = reference(theirs, rollout)
    packed = pack(rollout, [0, 1, 2])
    logp, entropy = token_logprobs(ours, packed)
    assert (logp - expected_logp).abs().max() < 1e-5
    assert (entropy - expected_entropy).abs().max() < 1e-5

    weight = torch.linspace(-1, 1, len(logp))
    (logp * weight).sum().backward()
    (expected_logp * weight).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        scale = expected[name].grad.abs().max().clamp(min=1e-3)
        assert (parameter.grad - expected[name].grad).abs().max() / scale < 1e-5, name


def sees_its_neighbour(packed):
    """The whole row is one sequence."""
    size = packed.input_ids.shape[1]
    packed.keys, packed.longest, packed.bound = torch.arange(size), size, size
    packed.cu_queries = packed.cu_keys = torch.tensor([0, size], dtype=torch.int32)


def sees_the_prompt_of_another_group(packed):
    third = packed.cu_keys[3:5].tolist()  # the first response of the second group
    own = packed.keys[third[0] : third[1]]
    packed.keys[third[0]] = own[0] - 1


def stands_after_the_other_responses(packed):
    packed.position_ids = torch.arange(packed.input_ids.shape[1])[None]


def is_predicted_by_the_token_before_it_in_the_row(packed):
    """Right for the first response of a group only."""
    packed.predictors = torch.cat([torch.tensor([p[0] - 1, *p[:-1]]) for p in responses_in_the_row(packed)])


def responses_in_the_row(packed) -> list[list[int]]:
    lengths = packed.length.int().tolist()
    return [list(range(end - n, end)) for end, n in zip(packed.cu_queries[1:].tolist(), lengths, strict=True)]


@pytest.mark.parametrize("attention", ["_padded_attention", "_varlen_attention"])
@pytest.mark.parametrize(
    "wrong",
    [
        sees_its_neighbour,
        sees_the_prompt_of_another_group,
        stands_after_the_other_responses,
        is_predicted_by_the_token_before_it_in_the_row,
    ],
)
def test_a_wrong_layout_fails_the_comparison(tmp_path, monkeypatch, wrong, attention):
    on_a_cpu(monkeypatch, attention)
    path, rollout = tiny_model(tmp_path), make_rollout()
    model = load_model(path)
    expected, _ = reference(AutoModelForCausalLM.from_pretrained(path), rollout)
    packed = pack(rollout, [0, 1, 2])
    assert (token_logprobs(model, packed)[0] - expected).abs().max() < 1e-5
    wrong(packed)
    assert (token_logprobs(model, packed)[0] - expected).abs().max() > 0.01


def test_a_prompt_is_in_the_row_once_and_every_response_attends_to_it():
    rollout = make_rollout()
    packed = pack(rollout, [2, 0])
    prompts, responses = rollout.prompts, rollout.responses
    row = prompts[2] + sum(responses[6:], []) + prompts[0] + sum(responses[:3], [])
    assert packed.input_ids[0].tolist() == row
    sequences = [prompts[i // 3] + responses[i] for i in packed.rows.tolist()]
    keys = packed.keys.split(packed.cu_keys.diff().tolist())
    assert [packed.input_ids[0][k].tolist() for k in keys] == sequences
    assert [packed.position_ids[0][k].tolist() for k in keys] == [list(range(len(s))) for s in sequences]
    assert packed.longest == max(map(len, sequences)) and packed.cu_queries[-1] == len(row)
    assert packed.longest <= packed.bound < 2 * packed.longest and packed.bound.bit_count() == 1


def test_copies_to_a_gpu_come_from_pinned_memory_and_do_not_wait(monkeypatch):
    pinned, copies, real = [], [], torch.Tensor.to

    def to(tensor, *args, **kwargs):
        if torch.device("cuda") in args:
            copies.append((any(tensor is each for each in pinned), kwargs))
            return tensor
        return real(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    packed = pack(make_rollout(), [0, 1], torch.device("cuda"))
    assert copies == [(True, {"non_blocking": True})] * sum(isinstance(v, torch.Tensor) for v in vars(packed).values())


# --- attention as a GPU does it, with a stand-in for the kernel -------------------------------------------------------


def kernel(query, key, value, cu_queries, cu_keys, max_queries, max_keys, scale, window_size, enable_gqa=False):
    """FlashAttention with a window of (-1, 0), which varlen_attn calls: causal, aligned at the sequences' ends."""
    assert window_size == (-1, 0) and key.shape == value.shape
    assert cu_queries.dtype == cu_keys.dtype == torch.int32
    assert cu_queries.diff().max() <= max_queries and cu_keys.diff().max() <= max_keys
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    assert query.shape[1] == key.shape[1]
    out = []
    of_q, of_k = cu_queries.diff().tolist(), cu_keys.diff().tolist()
    for q, k, v in zip(query.split(of_q), key.split(of_k), value.split(of_k), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        unseen = torch.ones(len(q), len(k), dtype=torch.bool).triu(1 + len(k) - len(q))
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(unseen, -torch.inf).softmax(-1), v))
    return torch.cat(out)


def aligned_at_the_beginning(query, key, value, cu_queries, cu_keys, *sizes, **options):
    """The other convention of a causal mask, with which a response would not see itself: wrong here."""
    cut = torch.cat([torch.arange(k, k + q) for k, q in zip(cu_keys[:-1], cu_queries.diff(), strict=True)])
    return kernel(query, key[cut], value[cut], cu_queries, cu_queries, sizes[0], sizes[0], **options)


def on_a_cpu(monkeypatch, attention: str) -> None:
    monkeypatch.setattr(common.logprob, "varlen_attn", kernel)
    monkeypatch.setattr(common.logprob, "_padded_attention", getattr(common.logprob, attention))


@pytest.mark.parametrize("kind,tied", KINDS)
def test_attention_of_a_gpu_has_the_values_and_gradients_of_that_of_a_cpu(tmp_path, monkeypatch, kind, tied):
    path, packed = tiny_model(tmp_path, kind, tied=tied), pack(make_rollout(), [0, 1, 2])
    found = []
    for attention in ("_padded_attention", "_varlen_attention"):
        on_a_cpu(monkeypatch, attention)
        model = load_model(path)
        logp, _ = token_logprobs(model, packed)
        logp.sum().backward()
        found.append((logp.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    for padded, varlen in zip(*found, strict=True):
        assert (padded - varlen).abs().max() < 1e-5 * padded.abs().max().clamp(min=1)
    monkeypatch.setattr(common.logprob, "varlen_attn", aligned_at_the_beginning)
    assert (token_logprobs(model, packed)[0] - found[0][0]).abs().max() > 0.01


@pytest.mark.parametrize("grouped", [False, True])
def test_keys_are_repeated_only_where_the_kernel_cannot_share_them(monkeypatch, grouped):
    """Both ways have the same values and gradients."""
    packed, heads = pack(make_rollout(), [0, 1, 2]), []

    def watched(query, key, value, *sizes, **options):
        heads.append((key.shape[1], options.get("enable_gqa", False)))
        return kernel(query, key, value, *sizes, **options)

    monkeypatch.setattr(common.logprob, "varlen_attn", watched)
    torch.manual_seed(0)
    inputs = [torch.randn(packed.input_ids.shape[1], n, 8, requires_grad=True) for n in (4, 2, 2)]
    outputs = []
    for each in (grouped, False):
        monkeypatch.setattr(common.logprob, "GROUPED", each)
        out = common.logprob._varlen_attention(*inputs, 0.3, packed)
        outputs.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    assert heads == [(2, True) if grouped else (4, False), (4, False)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*outputs, strict=True))


def test_the_gradient_of_a_prompts_keys_is_added_up_in_float32():
    """What the gather in float32 is for: the gradients of a group's 8 responses are rounded once, when they have been
    added up. A gather in bfloat16 rounds after each of them on a GPU, whose kernel adds in place."""
    torch.manual_seed(0)
    keys = torch.zeros(100, 2, 8, dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.randn(8, 100, 2, 8).bfloat16()
    exact = upstream.double().sum(0)

    def error(total: torch.Tensor) -> float:
        return (total.double() - exact).square().mean().sqrt().item()

    gathered = common.logprob._gather_keys(keys, torch.arange(100).repeat(8))
    (found,) = torch.autograd.grad(gathered, keys, upstream.view(800, 2, 8))
    in_place = torch.zeros_like(upstream[0])
    for each in upstream:
        in_place += each
    assert error(found) == pytest.approx(error(exact.bfloat16()), rel=0.01)
    assert error(in_place) > 1.5 * error(found)


@pytest.mark.parametrize("max_tokens", [1, 150, 10_000])
def test_micro_batches_and_packing_leave_result_and_gradient_alone(tmp_path, max_tokens):
    path = tiny_model(tmp_path)
    rollout = make_rollout(groups=5)
    whole, split = load_model(path), load_model(path)
    packed = pack(rollout, [0, 1, 2, 3, 4])
    logp, _ = token_logprobs(whole, packed)
    logp.sum().backward()
    by_row = packed.sum(logp.detach())

    plan = plan_microbatches(rollout, [True] * 5, max_tokens)
    assert sum([groups for groups, _ in plan], []) == [0, 1, 2, 3, 4]
    for groups, _ in plan:
        packed = pack(rollout, groups)
        logp, _ = token_logprobs(split, packed)
        logp.sum().backward()
        assert torch.allclose(packed.sum(logp.detach()), by_row[packed.rows], atol=1e-5)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-5 * a.grad.abs().max()


def test_micro_batches_keep_to_the_budget_and_groups_whole():
    rollout = make_rollout(groups=6)
    plan = plan_microbatches(rollout, [True] * 6, 200)
    assert 1 < len(plan) < 6
    for groups, backward in plan:
        assert backward and (pack(rollout, groups).input_ids.shape[1] <= 200 or len(groups) == 1)


def test_groups_that_teach_nothing_come_last_without_a_backward_pass_and_one_backward_pass_is_always_there():
    rollout = make_rollout(groups=4)
    plan = plan_microbatches(rollout, [False, True, False, True], 10_000)
    assert plan == [([1, 3], True), ([0, 2], False)]
    assert plan_microbatches(rollout, [False] * 4, 10_000) == [([], True), ([0, 1, 2, 3], False)]


def test_in_bfloat16_the_error_is_no_larger_than_that_of_transformers(tmp_path):
    path = tiny_model(tmp_path, "qwen3")
    rollout = make_rollout(groups=8, group_size=8)
    with torch.no_grad():
        exact, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), rollout)
        theirs, _ = reference(AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16), rollout)
        ours, _ = token_logprobs(load_model(path, trainable=False, dtype=torch.bfloat16), pack(rollout, list(range(8))))
    assert (theirs - exact).abs().mean() > 1e-3
    assert (ours - exact).abs().mean() <= 1.2 * (theirs - exact).abs().mean()


@pytest.mark.parametrize("chunk", [1, 7, 10, 19, 20, 21, CHUNK])
def test_the_head_gives_the_same_for_every_chunk_and_recomputes_its_backward(chunk):
    torch.manual_seed(0)
    hidden = torch.randn(20, 8, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(11, 8).requires_grad_()
    targets = torch.randint(11, (20,))
    logp, entropy = _LogProbHead.apply(hidden, weight, targets, chunk, True)
    alone, unwanted = _LogProbHead.apply(hidden, weight, targets, chunk, False)
    assert torch.equal(alone, logp) and unwanted.isnan().all()
    log_probs = torch.log_softmax(hidden @ weight.T, -1)
    assert torch.allclose(logp, log_probs[range(20), targets], atol=1e-6)
    assert torch.allclose(entropy, -(log_probs.exp() * log_probs).sum(-1), atol=1e-5)
    assert not entropy.requires_grad
    g = torch.randn(20)
    ours = torch.autograd.grad((logp * g).sum(), (hidden, weight))
    theirs = torch.autograd.grad((log_probs[range(20), targets] * g).sum(), (hidden, weight))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_backward_pass_of_the_head_has_no_normaliser_of_its_own(monkeypatch):
    """log Z comes from the forward pass: one logsumexp for each chunk, and no softmax."""
    calls, real = [], torch.Tensor.logsumexp
    monkeypatch.setattr(torch.Tensor, "logsumexp", lambda *args: calls.append("logsumexp") or real(*args))
    monkeypatch.setattr(torch, "softmax", lambda *_: pytest.fail("a softmax normalises once more"))
    hidden, weight = torch.randn(20, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    logp, _ = _LogProbHead.apply(hidden, weight, torch.zeros(20, dtype=torch.long), 7, True)
    assert len(calls) == 3
    logp.sum().backward()
    assert len(calls) == 3


def test_the_gradient_of_the_heads_weight_is_summed_over_chunks_in_float32(monkeypatch):
    """With the product of a GPU, which is not rounded to bfloat16, the sum over 64 chunks is as good as one chunk."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(512, 8).bfloat16(), torch.randn(11, 8).bfloat16()
    targets = torch.randint(11, (512,))

    def gradient(chunk: int) -> torch.Tensor:
        head = weight.clone().requires_grad_()
        logp, _ = _LogProbHead.apply(hidden, head, targets, chunk, False)
        # The class returns float32; autograd would round the whole sum to the weight's bfloat16.
        return logp.grad_fn.apply(torch.ones(512), None)[1]

    monkeypatch.setattr(common.logprob, "_float32_product", lambda a, b: a.float() @ b.float())
    whole, chunked = gradient(512), gradient(8)
    assert whole.dtype == torch.float32
    assert (chunked - whole).abs().max() < 1e-5 * whole.abs().max()
    monkeypatch.undo()
    assert (gradient(8) - whole).abs().max() < 1e-2 * whole.abs().max()


def test_the_product_of_a_gpu_is_taken_in_float32():
    """By shape only: the operator with its argument exists in this version of torch, and returns float32."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        a, b = (torch.empty(4, n, device="cuda", dtype=torch.bfloat16) for n in (3, 5))
        product = common.logprob._float32_product(a.T, b)
    assert product.dtype == torch.float32 and product.shape == (3, 5)


def test_checkpointed_activations_change_nothing(tmp_path):
    path = tiny_model(tmp_path)
    packed = pack(make_rollout(), [0, 1, 2])
    plain = load_model(path)
    saving = load_model(path, checkpoint_activations=True)
    for model in (plain, saving):
        token_logprobs(model, packed)[0].sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


# --- compiled layers --------------------------------------------------------------------------------------------------


def cpu_forward(query, key, value, cu_queries, cu_keys, max_q, max_k, causal, scale, window, gqa=False, *_):
    out = kernel(query, key, value, cu_queries, cu_keys, max_q, max_k, scale, tuple(window), gqa)
    return out, query.new_zeros(query.shape[1], len(query), dtype=torch.float32), torch.zeros(2, dtype=torch.uint64)


def cpu_backward(grad, query, key, value, out, lse, cu_queries, cu_keys, max_q, max_k, causal, rng, scale, *_):
    """The gradients of `kernel` by hand: inside an operator there is no autograd."""
    repeats = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(repeats, 1) for x in (key, value))
    grads = [torch.zeros_like(x) for x in (query, keys, values)]
    of_q, of_k = cu_queries.diff().tolist(), cu_keys.diff().tolist()
    by_query = [x.split(of_q) for x in (grad, query, grads[0])]
    by_key = [x.split(of_k) for x in (keys, values, *grads[1:])]
    for g, q, grad_q, k, v, grad_k, grad_v in zip(*by_query, *by_key, strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        unseen = torch.ones(len(q), len(k), dtype=torch.bool).triu(1 + len(k) - len(q))
        p = scores.masked_fill(unseen, -torch.inf).softmax(-1)
        grad_v += torch.einsum("hqk,qhd->khd", p, g)
        grad_p = torch.einsum("qhd,khd->hqk", g, v)
        grad_scores = p * (grad_p - (grad_p * p).sum(-1, keepdim=True)) * scale
        grad_q += torch.einsum("hqk,khd->qhd", grad_scores, k)
        grad_k += torch.einsum("hqk,qhd->khd", grad_scores, q)
    return grads[0], *(x.view(*key.shape[:2], repeats, -1).sum(2) for x in grads[1:])


def with_a_cpu_kernel() -> None:
    """Returns torch's own operator of variable-length attention, as torch.compile sees it, a kernel for a CPU."""
    from torch.nn.attention import varlen

    varlen._varlen_attn.register_kernel("cpu")(cpu_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(cpu_backward)
    common.logprob._padded_attention = common.logprob._varlen_attention


@pytest.fixture
def varlen_on_a_cpu(monkeypatch):
    monkeypatch.setattr(common.logprob, "_padded_attention", common.logprob._padded_attention)  # put back at the end
    with_a_cpu_kernel()


def graphs_of_a_run(path, backend: str, lora_rank: int, checkpointed: bool) -> int:
    """Trains a plain and a compiled policy on micro-batches of several lengths, one without groups among them, asserts
    that both have the same log-probabilities and gradients, and returns the number of graphs."""
    rollout, wrap = make_rollout(groups=6, seed=3), common.logprob.wrap

    def compile_and_wrap(model, *args):
        compile_layers(model, backend)
        wrap(model, *args)

    options = dict(lora_rank=lora_rank, checkpoint_activations=checkpointed)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(disable=False, fail_on_recompile_limit_hit=True):
        plain, base = lora_model(path, **options), None if lora_rank else load_model(path, trainable=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(common.logprob, "wrap", compile_and_wrap)
            compiled, compiled_base = lora_model(path, **options), None if lora_rank else load_model(path, False)
        for groups in ([0, 1, 2], [3], [4, 5], []):
            packed = pack(rollout, groups)
            logp = [token_logprobs(policy, packed)[0] for policy in (plain, compiled)]
            assert torch.allclose(*logp, atol=1e-5)
            based = base_logprobs(plain, base, packed), base_logprobs(compiled, compiled_base, packed)
            assert torch.allclose(*based, atol=1e-5)
            for each in logp:
                each.sum().backward()
            with torch.no_grad():  # groups that teach nothing
                assert torch.allclose(token_logprobs(compiled, packed)[0], logp[0], atol=1e-5)
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        if a.requires_grad:
            a, b = full_tensor(a.grad), full_tensor(b.grad)
            assert (a - b).abs().max() <= 1e-5 * a.abs().max()
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert not torch._dynamo.utils.counters["graph_break"]
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "backend,lora_rank,checkpointed",
    [
        ("eager", 2, True),
        *[pytest.param("aot_eager", *case, marks=pytest.mark.long) for case in ((0, True), (2, True), (0, False))],
    ],
)
def test_a_few_graphs_serve_all_layers_lengths_and_uses(
    tmp_path, monkeypatch, varlen_on_a_cpu, backend, lora_rank, checkpointed
):
    """Under FSDP2, with torch's own attention operator."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    path = tiny_model(tmp_path)
    start_processes(0)
    try:
        graphs = graphs_of_a_run(path, backend, lora_rank, checkpointed)
    finally:
        torch.distributed.destroy_process_group()
    assert 4 <= graphs <= 8  # of the layers at most 5, and those of the last norm


@pytest.mark.long
def test_two_ranks_compile_as_many_graphs_as_one(tmp_path):
    worker = Path(__file__).with_name("compile_worker.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, worker, tiny_model(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 4 <= int(done.stdout.split()[-1]) <= 8


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.long
def test_compiled_code_gives_the_same(tmp_path, monkeypatch, varlen_on_a_cpu):
    """The same by inductor, as on a GPU."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    path, packed = tiny_model(tmp_path), pack(make_rollout(), [0, 1])
    plain, compiled = load_model(path), load_model(path)
    with torch._dynamo.config.patch(disable=False):
        compile_layers(compiled)
        logp = [token_logprobs(model, packed)[0] for model in (plain, compiled)]
        assert torch.allclose(*logp, atol=1e-5)
        for each in logp:
            each.sum().backward()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-5 * a.grad.abs().max()


def test_one_process_divides_no_gradient_and_has_that_of_an_unsharded_model(tmp_path):
    """The gradients of FSDP2 on one rank, without a division of the flat gradient, which needs a copy of its size."""
    path, packed = tiny_model(tmp_path, "qwen3"), pack(make_rollout(), [0, 1, 2])
    plain = load_model(path)
    start_processes(0)
    try:
        sharded = load_model(path)
        token_logprobs(plain, packed)[0].sum().backward()
        logp = token_logprobs(sharded, packed)[0].sum()
        with CountedOperations() as operations:
            logp.backward()
    finally:
        torch.distributed.destroy_process_group()
    by_a_number = [args for name, args in operations.calls if name.startswith("aten.div") and args[1:] == (1.0,)]
    assert by_a_number == []
    for a, b in zip(plain.parameters(), sharded.parameters(), strict=True):
        assert torch.equal(a.grad, full_tensor(b.grad))


class CountedOperations(TorchDispatchMode):
    """Keeps the names and the plain numbers among the arguments of all operations."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append((str(function), tuple(None if isinstance(a, torch.Tensor) else a for a in args)))
        return function(*args, **(kwargs or {}))


def test_a_pass_without_groups_has_no_tokens_and_a_zero_gradient_everywhere(tmp_path):
    model = load_model(tiny_model(tmp_path))
    logp, _ = token_logprobs(model, pack(make_rollout(), []))
    assert logp.shape == (0,)
    logp.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_sums_by_response_and_spreads_back():
    rollout = make_rollout()
    packed = pack(rollout, [2, 0])
    lengths = torch.tensor([len(rollout.responses[row]) for row in packed.rows.tolist()])
    assert packed.rows.tolist() == [6, 7, 8, 0, 1, 2] and packed.groups == [2, 0]
    assert torch.equal(packed.sum(torch.ones(int(lengths.sum()))), lengths.double())
    assert torch.equal(packed.sum(packed.spread(torch.arange(6.0))), lengths * torch.arange(6.0).double())


def test_the_row_in_the_docstring_of_pack_is_what_it_makes():
    p, q, a, b, c = range(10, 15)
    packed = pack(Rollout([[p, q]], [[a, b], [c]], [[0.0, 0.0], [0.0]], [True, True], 2), [0])
    assert packed.input_ids.tolist() == [[p, q, a, b, c]] and packed.targets.tolist() == [a, b, c]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2]] and packed.predictors.tolist() == [1, 2, 1]
    assert packed.keys.tolist() == [0, 1, 2, 3, 0, 1, 4] and packed.cu_keys.tolist() == [0, 4, 7]
    assert packed.cu_queries.tolist() == [0, 4, 5] and packed.segment.tolist() == [0, 0, 1]


def test_packing_leaves_the_rollout_as_it_was():
    rollout = make_rollout()
    before = copy.deepcopy(rollout)
    pack(rollout, [0, 1])
    assert rollout == before


def test_an_unchecked_architecture_is_refused_by_name(tmp_path):
    from transformers import AutoModelForCausalLM, GPT2Config

    AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="gpt2"):
        load_model(tmp_path)


# --- LoRA -------------------------------------------------------------------------------------------------------------


def lora_model(path, noise=0.2, lora_rank=2, **options):
    torch.manual_seed(1)
    policy = load_model(path, lora_rank=lora_rank, **options)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=noise)
    return policy


@pytest.mark.parametrize("kind,tied", KINDS)
def test_merged_adapters_give_the_policy_and_switched_off_ones_the_base(tmp_path, kind, tied):
    path = tiny_model(tmp_path, kind, tied=tied)
    policy = lora_model(path)
    packed = pack(make_rollout(), [0, 1, 2])
    with torch.no_grad():
        logp, _ = token_logprobs(policy, packed)
        base_logp, _ = token_logprobs(load_model(path, trainable=False), packed)
        with policy.disable_adapter():
            off, _ = token_logprobs(policy, packed)
        merged = AutoModelForCausalLM.from_pretrained(path)
        merged.load_state_dict(dict(weights(policy)), strict=True)
        merged_logp, _ = reference(merged, make_rollout())
    assert torch.equal(off, base_logp)
    assert (merged_logp - logp).abs().max() < 1e-5
    assert (logp - base_logp).abs().max() > 0.01


def test_lora_trains_the_adapters_only(tmp_path):
    policy = lora_model(tiny_model(tmp_path))
    token_logprobs(policy, pack(make_rollout(), [0]))[0].sum().backward()
    for name, parameter in policy.named_parameters():
        assert ("lora_" in name) == parameter.requires_grad == (parameter.grad is not None), name


def test_weights_carry_a_tied_head_under_both_names(tmp_path):
    model = load_model(tiny_model(tmp_path))
    named = dict(weights(model))
    assert torch.equal(named["lm_head.weight"], named["model.embed_tokens.weight"])
