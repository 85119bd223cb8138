"""Checkpoints behave as the policy did in training, wherever they are loaded."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import ROOT, tiny_model
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline

from common.logprob import load_model, pack, token_logprobs
from common.rollout import Rollout, stop_token_ids
from common.run import checkpoint, start_processes
from common.run.checkpoint import StateReader, load_state, save_model, save_state

FIRST, SECOND = 1, 5  # the stop tokens: the tokenizer's, and one that only the generation config has ("d")
CPU = torch.device("cpu")


def base_model(folder: Path, tied: bool) -> Path:
    """A model whose own generation settings are far from sampling at temperature 1."""
    tiny_model(folder, tied=tied, vocab=12)
    own = GenerationConfig(
        do_sample=True, temperature=0.3, top_k=2, top_p=0.5, repetition_penalty=1.5, eos_token_id=SECOND, pad_token_id=0
    )
    own.save_pretrained(folder)
    return folder


def policy_of(path: Path, lora_rank: int = 0, dtype: torch.dtype = torch.float32, step: float = 0.1):
    """A policy away from its base: adapters with |B| = `step`, or all weights with noise added."""
    start_processes(0)
    args = SimpleNamespace(lora_rank=lora_rank, checkpoint_activations=False, compile_layers=False)
    policy = load_model(str(path), args, CPU, dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad and ".lora_A." not in name:
                signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1
                parameter.to_local().add_(step * signs)
    return policy


def policy_logp(policy, prompt: list[int], response: list[int]) -> torch.Tensor:
    """(tokens of the response,) nats."""
    rollout = Rollout([prompt], [response] * 2, [[0.0] * len(response)] * 2, [True] * 2, 2)
    with torch.no_grad():
        return token_logprobs(policy, pack(rollout, [0]))[0][: len(response)]


def model_logp(model, prompt: list[int], response: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def p_value(found: list[int], law: torch.Tensor) -> float:
    """Of the chi-square test that the tokens were drawn from `law`."""
    expected = law.double() * len(found)
    statistic = ((torch.bincount(torch.tensor(found), minlength=len(law)) - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(law) - 1) / 2).double(), statistic / 2))


@pytest.fixture(scope="module", params=[("tied", 0), ("untied", 0), ("tied", 2)], ids=lambda p: f"{p[0]}-lora{p[1]}")
def saved(request, tmp_path_factory):
    """(policy, checkpoint): as a training script saves it, with the stop tokens that its sampler would take."""
    head, lora_rank = request.param
    folder = tmp_path_factory.mktemp("checkpoint")
    path = base_model(folder / "base", tied=head == "tied")
    tokenizer = AutoTokenizer.from_pretrained(path)
    stop_ids = stop_token_ids(path, tokenizer)
    assert stop_ids == [FIRST, SECOND]
    policy = policy_of(path, lora_rank)
    save_model(folder / "step", policy, tokenizer, stop_ids)
    return policy, folder / "step"


PROMPT = [3, 7, 4]
CHARACTERS = "abcdefghij"


def first_token_law(policy) -> torch.Tensor:
    return torch.stack([policy_logp(policy, PROMPT, [token])[0] for token in range(12)]).exp()


def test_generate_with_the_checkpoints_own_settings_is_the_training_sampler(saved):
    policy, path = saved
    model = AutoModelForCausalLM.from_pretrained(path)
    torch.manual_seed(0)
    out = model.generate(torch.tensor([PROMPT]), max_new_tokens=12, num_return_sequences=2000)[:, len(PROMPT) :]
    law = first_token_law(policy)
    assert law.sum() == pytest.approx(1, abs=1e-4)
    assert p_value(out[:, 0].tolist(), law) > 1e-3
    stopped_by = {FIRST: 0, SECOND: 0}
    for response in out.tolist():
        ends = [i for i, token in enumerate(response) if token in stopped_by]
        if ends:
            stopped_by[response[ends[0]]] += 1
            assert set(response[ends[0] + 1 :]) <= {0}, "ran on after a stop token"
    assert min(stopped_by.values()) > 50
    assert stop_token_ids(path) == [FIRST, SECOND]  # without the tokenizer, too


def test_a_pipeline_stops_where_training_did(saved):
    policy, path = saved
    generate = pipeline("text-generation", model=str(path))
    torch.manual_seed(0)
    prompt = "".join(CHARACTERS[token - 2] for token in PROMPT)
    out = generate(prompt, max_new_tokens=12, num_return_sequences=1000, return_full_text=False)
    texts = [answer["generated_text"] for answer in out]
    assert not any("d" in text[:-1] for text in texts) and sum(text.endswith("d") for text in texts) > 50
    law = first_token_law(policy)[2:]  # of those that begin with a letter
    found = [CHARACTERS.index(text[0]) for text in texts if text and text[0] in CHARACTERS]
    assert p_value(found, law / law.sum()) > 1e-3


def test_vllm_takes_the_same_settings_from_the_checkpoint(saved):
    pytest.importorskip("vllm")
    from vllm import SamplingParams
    from vllm.config import ModelConfig

    model_config = ModelConfig(model=str(saved[1]))
    params = SamplingParams.from_optional(**model_config.get_diff_sampling_param())  # as vllm.LLM makes its defaults
    params.update_from_generation_config(model_config.try_get_generation_config(), FIRST)
    neutral = SamplingParams()
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert getattr(params, name) == getattr(neutral, name), name
    assert params.top_k in (0, -1) and params.all_stop_token_ids == {FIRST, SECOND}


def test_the_checkpoint_has_the_policys_log_probabilities(saved):
    policy, path = saved
    response = [6, 2, 9, 11, SECOND]
    difference = model_logp(AutoModelForCausalLM.from_pretrained(path), PROMPT, response) - policy_logp(
        policy, PROMPT, response
    )
    assert difference.abs().max() < 1e-5
    assert json.loads((path / "config.json").read_text())["eos_token_id"] == [FIRST, SECOND]


@pytest.mark.parametrize("step", [1e-5, 1e-4])
def test_the_adapter_keeps_small_steps_that_merged_bfloat16_weights_lose(tmp_path, step):
    from peft import PeftModel

    path = base_model(tmp_path / "base", tied=True)
    rounded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    rounded.save_pretrained(path)  # float32 and bfloat16 copies of it are then equal
    tokenizer = AutoTokenizer.from_pretrained(path)
    response = [6, 2, 9, 11, SECOND]
    policy = policy_of(path, lora_rank=2, step=step)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    moved = policy_logp(policy, PROMPT, response) - model_logp(base, PROMPT, response)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    save_model(tmp_path / "policy", policy, tokenizer, [FIRST, SECOND])

    adapted = PeftModel.from_pretrained(base, tmp_path / "policy" / "adapter")
    error = (model_logp(adapted, PROMPT, response) - policy_logp(policy, PROMPT, response)).abs().max()
    assert error < 0.05 * moved.abs().max()
    trained = {name: value for name, value in policy.named_parameters() if ".lora_" in name}
    loaded = {name: value for name, value in adapted.named_parameters() if ".lora_" in name}
    assert trained.keys() == loaded.keys() and len(trained) == 2 * 7 * 2
    for name, value in trained.items():
        assert loaded[name].dtype == torch.float32 and torch.equal(value.full_tensor(), loaded[name]), name

    # What a GPU would save: the same weights, merged in bfloat16.
    in_bfloat16 = policy_of(path, lora_rank=2, dtype=torch.bfloat16, step=step)
    save_model(tmp_path / "merged", in_bfloat16, tokenizer, [FIRST, SECOND])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32).state_dict()
    wanted = torch.cat([(exact[name] - before[name]).flatten() for name in exact if "_proj.weight" in name])
    found = torch.cat([(merged[name] - before[name]).flatten() for name in exact if "_proj.weight" in name])
    assert float(found @ wanted / (wanted @ wanted)) < 0.2  # the share of the step that is kept
    assert (found != 0).float().mean() < 0.5  # most weights have not moved at all


# --- the state to resume ----------------------------------------------------------------------------------------------


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of torch.distributed.checkpoint, whole."""
    metadata = StateReader(folder).read_metadata().state_dict_metadata
    tensors = {name: torch.empty(saved.size, dtype=saved.properties.dtype) for name, saved in metadata.items()}
    dcp.load(tensors, storage_reader=StateReader(folder), no_dist=True)
    return tensors


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """What state_worker.py leaves: <kind of run>/{of_one,of_two,of_one_again}."""
    folder = tmp_path_factory.mktemp("states")
    tiny_model(folder / "model", vocab=63)  # an odd number of rows, so that two processes have different ones
    worker = Path(__file__).with_name("state_worker.py")
    done = subprocess.run([sys.executable, str(worker), str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("kind", ["full", "lora", "moments_on_host"])
def test_a_state_goes_from_one_process_to_two_and_back_bit_for_bit(states, kind):
    first = states / kind / "of_one"
    parts = json.loads((first / "state.json").read_text())["kinds"]
    assert parts == ["parameter", "step", "exp_avg", "exp_avg_sq"]
    for other, processes in [("of_two", 2), ("of_one_again", 1)]:
        assert json.loads((states / kind / other / "state.json").read_text())["processes"] == processes
        assert len(list((states / kind / other / "parameter").glob("*.distcp"))) == processes
        for part in parts:
            ours, theirs = state_of(first / part), state_of(states / kind / other / part)
            assert ours.keys() == theirs.keys() and len(ours) == (2 * 7 * 2 if kind == "lora" else 26)
            assert all(torch.equal(ours[name], theirs[name]) for name in ours), part
    assert all(value.abs().max() > 0 for value in state_of(first / "exp_avg_sq").values())
    assert not list((states / kind).glob(".*"))  # no temporary names are left


def test_a_state_that_could_not_be_read_again_is_not_saved(tmp_path, monkeypatch):
    policy = policy_of(base_model(tmp_path / "base", tied=True))
    optimizer = torch.optim.AdamW(policy.parameters())
    save_state(tmp_path / "resume" / "step_000000", policy, optimizer)
    load_state(tmp_path / "resume" / "step_000000", policy, optimizer)

    def of_another_version(unpickler, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    monkeypatch.setattr(checkpoint._MetadataUnpickler, "find_class", of_another_version)
    with pytest.raises(pickle.UnpicklingError, match="it names"):
        save_state(tmp_path / "resume" / "step_000002", policy, optimizer)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step_000000"]
    with pytest.raises(ValueError, match="cannot be read .UnpicklingError"):
        load_state(tmp_path / "resume" / "step_000000", policy, optimizer)


def test_a_state_whose_list_names_something_else_than_tensors_is_refused(tmp_path):
    policy = policy_of(base_model(tmp_path / "base", tied=True))
    optimizer = torch.optim.AdamW(policy.parameters())
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = tmp_path / "resume" / "step_000001"
    save_state(saved, policy, optimizer)
    load_state(saved, policy, optimizer)
    listed = StateReader(saved / "exp_avg").read_metadata()
    listed.state_dict_metadata = {name: BytesStorageMetadata() for name in listed.state_dict_metadata}
    (saved / "exp_avg" / ".metadata").write_bytes(pickle.dumps(listed))
    with pytest.raises(ValueError, match="cannot be read .KeyError"):
        load_state(saved, policy, optimizer)
