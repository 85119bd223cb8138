"""Beam search against transformers' generate, full enumeration, and a plain program for the rule of vLLM 0.11."""

import itertools
import json
import math
import random
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
import torch
from conftest import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import beam_eval
from beam_eval import Answer, Args, Rule, Search, beam_search, bound, choose, main, record_of
from common.data import Problem, load_problems, prompt_file_of, render_prompts
from common.rollout import start_sampler
from common.run.checkpoint import without_nan

PENALTIES = [0.0, 1.0, -0.5]
# architecture, stop ids, vocabulary: the last is smaller than what width 8 ranks
MODELS = {"qwen2": ([1], 64), "qwen3": ([1, 5], 64), "llama": ([1, 7, 9], 64), "qwen2-six": ([1], 6)}
WINDOW = 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Returns a function: name in MODELS -> (sampler, model, stop ids, 30 prompts of 3 lengths)."""

    @cache
    def load(name):
        stop_ids, vocab = MODELS[name]
        folder = tiny_model(tmp_path_factory.mktemp(name), name.removesuffix("-six"), vocab, seed=len(name))
        rng = random.Random(0)
        prompts = [[rng.randrange(2, vocab) for _ in range(length)] for _ in range(10) for length in (5, 8, 13)]
        sampler = start_sampler("transformers", folder, WINDOW, stop_ids=stop_ids)
        return sampler, AutoModelForCausalLM.from_pretrained(folder).eval(), stop_ids, prompts

    return load


def search(sampler, rule, prompts, window, penalties):
    """Returns the answers by penalty, in the order of the prompts."""
    found = dict(pair for batch in beam_search(sampler, rule, prompts, window, penalties) for pair in batch)
    assert len(found) == len(prompts)
    return [found[i] for i in range(len(prompts))]


def generate(model, prompts, num_beams, penalty, stop_ids, window):
    """Returns transformers' answers, cut after the first stop token; prompts of one length go in one batch."""
    by_length, answers = defaultdict(list), [None] * len(prompts)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    beam = dict(early_stopping="never", length_penalty=penalty) if num_beams > 1 else {}
    config = GenerationConfig(
        num_beams=num_beams, do_sample=False, max_length=window, eos_token_id=stop_ids, pad_token_id=0, **beam
    )
    for length, places in by_length.items():
        ids = torch.tensor([prompts[i] for i in places])
        rows = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[:, length:].tolist()
        for i, row in zip(places, rows, strict=True):
            end = next((t + 1 for t, token in enumerate(row) if token in stop_ids), len(row))
            answers[i] = row[:end]
    return answers


@pytest.fixture
def gaps(monkeypatch):
    """The smallest difference, in nats, between neighbours that a search has ranked, by prompt: what tells a tie."""
    smallest, step = {}, Search.step

    def watched(self, tokens, token_logp):
        total = -np.sort(-(self.logp[:, None] + token_logp).ravel())[: self.rule.num_children + 1]
        key = tuple(self.prompt)
        smallest[key] = min(smallest.get(key, math.inf), *-np.diff(total))
        return step(self, tokens, token_logp)

    monkeypatch.setattr(Search, "step", watched)
    return smallest


def differing(found, expected, prompts, penalty, gaps):
    """Returns the number of answers that differ (ties are printed and left out)."""
    pairs = zip(prompts, found, expected, strict=True)
    wrong = [prompt for prompt, mine, theirs in pairs if mine[penalty].tokens != theirs]
    ties = [prompt for prompt in wrong if gaps[tuple(prompt)] < 1e-5]
    if ties:
        print(f"{len(ties)} of {len(prompts)} answers differ by a tie")
    assert len(ties) <= 2, "ties should be rare"
    return len(wrong) - len(ties)


# --- against transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_answers_are_those_of_generate_token_for_token(tiny, gaps, name, width):
    sampler, model, stop_ids, prompts = tiny(name)
    found = search(sampler, Rule("transformers", width, frozenset(stop_ids)), prompts, WINDOW, PENALTIES)
    for penalty in PENALTIES:
        expected = generate(model, prompts, width, penalty, stop_ids, WINDOW)
        assert differing(found, expected, prompts, penalty, gaps) == 0
    assert 0 < sum(answer[0.0].finished for answer in found)


@pytest.mark.parametrize("width", [1, 4, *(pytest.param(width, marks=pytest.mark.long) for width in (2, 8))])
def test_answers_are_those_of_generate_on_the_miniature(toy_dir, gaps, width):
    tokenizer, problems = AutoTokenizer.from_pretrained(toy_dir), load_problems("toy_test")[:100]
    prompts = render_prompts(tokenizer, problems, prompt_file_of("toy_test"))
    sampler = start_sampler("transformers", toy_dir, 128)
    model = AutoModelForCausalLM.from_pretrained(toy_dir).eval()
    found = search(sampler, Rule("transformers", width, frozenset(sampler.stop_ids)), prompts, 128, [0.0, 1.0])
    for penalty in (0.0, 1.0):
        expected = generate(model, prompts, width, penalty, sampler.stop_ids, 128)
        assert differing(found, expected, prompts, penalty, gaps) == 0


def test_finishing_at_any_rank_or_counting_the_prompt_gives_other_answers(tiny, gaps, monkeypatch):
    """The two wrong variants of the test above, which are vLLM's."""
    sampler, model, stop_ids, prompts = tiny("llama")
    rule = Rule("transformers", 4, frozenset(stop_ids))

    def any_rank(rule, logp, tokens, token_logp, last):
        live, ended = choose(rule, logp, tokens, token_logp, last)
        total = (logp[:, None] + token_logp).ravel()
        for i in np.argsort(-total)[: rule.num_children]:
            child = (int(i) // tokens.shape[1], int(tokens.ravel()[i]), float(total[i]))
            ended += [child] if child[1] in stop_ids and child not in ended else []
        return live, ended

    with monkeypatch.context() as patch:
        patch.setattr(beam_eval, "choose", any_rank)
        found = search(sampler, rule, prompts, WINDOW, [0.0])
    assert differing(found, generate(model, prompts, 4, 0.0, stop_ids, WINDOW), prompts, 0.0, gaps) >= 3
    with monkeypatch.context() as patch:
        patch.setattr(Rule, "length", lambda self, prompt, response, finished: prompt + response)
        found = search(sampler, rule, prompts, WINDOW, [1.0])
    assert differing(found, generate(model, prompts, 4, 1.0, stop_ids, WINDOW), prompts, 1.0, gaps) >= 3


@torch.inference_mode()
def test_logp_and_score_are_those_of_a_full_forward_pass(tiny):
    sampler, model, stop_ids, prompts = tiny("qwen3")
    for prompt, answers in zip(
        prompts, search(sampler, Rule("transformers", 4, frozenset(stop_ids)), prompts, WINDOW, PENALTIES), strict=True
    ):
        for penalty, answer in answers.items():
            logits = model(torch.tensor([prompt + answer.tokens])).logits[0, len(prompt) - 1 : -1]
            logp = logits.double().log_softmax(-1).gather(1, torch.tensor(answer.tokens)[:, None]).sum().item()
            assert answer.logp == pytest.approx(logp, abs=1e-4)
            assert answer.score == pytest.approx(logp / len(answer.tokens) ** penalty, abs=1e-3)
            assert answer.finished == (answer.tokens[-1] in stop_ids)
            assert answer.finished or len(prompt) + len(answer.tokens) == WINDOW
            assert not set(answer.tokens[:-1]) & set(stop_ids)


# --- against enumeration ----------------------------------------------------------------------------------------------


@torch.inference_mode()
def all_responses(model, prompt, room, stop):
    """Returns (tokens, log p) of every response."""
    found, prefixes = [], {(): 0.0}
    for step in range(room):
        logp = model(torch.tensor([[*prompt, *prefix] for prefix in prefixes])).logits[:, -1].double().log_softmax(-1)
        children = [
            ((*prefix, v), before + row[v].item())
            for (prefix, before), row in zip(prefixes.items(), logp, strict=True)
            for v in range(len(row))
        ]
        last = step == room - 1
        found += [(list(y), value) for y, value in children if last or y[-1] == stop]
        prefixes = {y: value for y, value in children if y[-1] != stop}
    return found


def test_a_beam_as_wide_as_the_space_finds_the_best_response_of_all(tmp_path):
    sampler = start_sampler("transformers", tiny_model(tmp_path, vocab=5, seed=3), WINDOW, stop_ids=[1])
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    prompts = [[2, 3, 4, a, b] for a, b in itertools.product(range(2, 5), repeat=2)]
    penalties, room = [0.0, 1.0, -0.5, 3.0], 5
    width = 5 * 4**4  # all children of the last step
    wide = search(sampler, Rule("transformers", width, frozenset([1])), prompts, 5 + room, penalties)
    narrow = search(sampler, Rule("transformers", 1, frozenset([1])), prompts, 5 + room, penalties)
    missed = 0
    for prompt, mine, greedy in zip(prompts, wide, narrow, strict=True):
        space = all_responses(model, prompt, room, stop=1)
        assert math.isclose(sum(math.exp(logp) for _, logp in space), 1, abs_tol=1e-6)
        for penalty in penalties:
            best, logp = max(space, key=lambda item: item[1] / len(item[0]) ** penalty)  # noqa: B023
            assert mine[penalty].tokens == best and mine[penalty].logp == pytest.approx(logp, abs=1e-4)
            missed += greedy[penalty].tokens != best
    assert missed >= 3  # so the test can tell


# --- leaving early ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformers", "vllm-0.11"])
def test_leaving_early_never_changes_an_answer(tiny, monkeypatch, name):
    sampler, _, stop_ids, prompts = tiny("llama")
    rule, penalties = Rule(name, 4, frozenset(stop_ids)), [*PENALTIES, 0.5]
    early = search(sampler, rule, prompts, WINDOW, penalties)
    monkeypatch.setattr(beam_eval, "bound", lambda *_: math.inf)
    full = search(sampler, rule, prompts, WINDOW, penalties)
    for penalty in penalties:
        assert [a[penalty].tokens for a in early] == [a[penalty].tokens for a in full]
        assert all(a[penalty].steps <= b[penalty].steps for a, b in zip(early, full, strict=True))
    assert all(a[0.0].steps == WINDOW - len(prompt) for a, prompt in zip(full, prompts, strict=True))
    steps = {penalty: sum(answer[penalty].steps for answer in early) for penalty in penalties}
    assert steps[-0.5] <= steps[0.0] < steps[0.5] <= steps[1.0] and steps[0.0] < 0.8 * sum(a[0.0].steps for a in full)


def test_a_bound_by_the_present_length_would_change_answers(tiny, monkeypatch):
    """The wrong variant of the test above: what stands in early_stopping=False."""
    sampler, _, stop_ids, prompts = tiny("llama")
    rule = Rule("transformers", 4, frozenset(stop_ids))
    right = search(sampler, rule, prompts, WINDOW, [1.0])
    monkeypatch.setattr(beam_eval, "bound", lambda rule, penalty, logp, prompt, now, room: logp / now**penalty)
    wrong = search(sampler, rule, prompts, WINDOW, [1.0])
    assert sum(a[1.0].tokens != b[1.0].tokens for a, b in zip(right, wrong, strict=True)) >= 3


@pytest.mark.parametrize("name", ["transformers", "vllm-0.11"])
@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 3.0, -0.5, -2.0])
def test_bound_is_the_best_that_any_descendant_can_reach(name, penalty):
    rule, logp, prompt, now, room = Rule(name, 4, frozenset([1])), -2.5, 7, 3, 12
    # At best the log p stays, and the response stops after any number of tokens or fills the room.
    lengths = [rule.length(prompt, n, True) for n in range(now + 1, room + 1)] + [rule.length(prompt, room, False)]
    assert bound(rule, penalty, logp, prompt, now, room) == max(logp / n**penalty for n in lengths)


def test_several_penalties_in_one_search_are_the_searches_apart(tiny):
    sampler, _, stop_ids, prompts = tiny("qwen3")
    rule = Rule("transformers", 4, frozenset(stop_ids))
    together = search(sampler, rule, prompts, WINDOW, PENALTIES)
    for penalty in PENALTIES:
        apart = search(sampler, rule, prompts, WINDOW, [penalty])
        assert [a[penalty] for a in together] == [a[penalty] for a in apart]  # steps and tokens spent too


def test_problems_that_do_not_fit_at_once_wait_their_turn(tiny, monkeypatch):
    sampler, _, stop_ids, prompts = tiny("qwen2")
    rule = Rule("transformers", 4, frozenset(stop_ids))
    together = search(sampler, rule, prompts, WINDOW, [0.0])
    monkeypatch.setattr(sampler, "max_batch", 9)  # two problems; then fewer rows than one has beams
    assert [a[0.0].tokens for a in search(sampler, rule, prompts, WINDOW, [0.0])] == [a[0.0].tokens for a in together]
    monkeypatch.setattr(sampler, "max_batch", 2)
    found = search(sampler, rule, prompts[:4], WINDOW, [0.0])
    assert [a[0.0].tokens for a in found] == [a[0.0].tokens for a in together[:4]]


# --- the rule itself --------------------------------------------------------------------------------------------------

STOP, A, B, C = 1, 2, 3, 4
LOGP = np.array([-1.0, -1.5])  # two live beams
TOKENS = np.array([[A, STOP, B, C], [B, STOP, A, C]])
TOKEN_LOGP = np.array([[-0.1, -0.9, -3.0, -4.0], [-0.3, -0.5, -2.0, -5.0]])
RANKED = [(0, A, -1.1), (1, B, -1.8), (0, STOP, -1.9), (1, STOP, -2.0), (1, A, -3.5), (0, B, -4.0)]


def chosen(name, width, last=False, token_logp=TOKEN_LOGP):
    live, ended = choose(Rule(name, width, frozenset([STOP])), LOGP, TOKENS, token_logp, last)
    return [[(p, t, round(x, 9)) for p, t, x in children] for children in (live, ended)]


def test_a_stop_token_finishes_only_in_the_first_ranks():
    assert chosen("transformers", 2) == [RANKED[:2], []]
    assert chosen("vllm-0.11", 2) == [RANKED[:2], RANKED[2:4]]
    better = TOKEN_LOGP.copy()
    better[0, 1] = -0.5  # the first beam's stop token now ranks second
    assert chosen("transformers", 2, token_logp=better) == [RANKED[:2], [(0, STOP, -1.5)]]


def test_at_the_last_step_unfinished_beams_of_the_first_ranks_compete():
    assert chosen("transformers", 2, last=True) == [[], RANKED[:2]]
    assert chosen("transformers", 3, last=True) == [[], RANKED[:3]]
    assert chosen("vllm-0.11", 2, last=True) == [[], RANKED[:4]]


def test_width_one_ends_with_its_first_stop_token():
    better = TOKEN_LOGP.copy()
    better[0, 1] = -0.05
    assert chosen("transformers", 1) == [RANKED[:1], []]
    assert chosen("transformers", 1, token_logp=better) == [[], [(0, STOP, -1.05)]]


def test_twice_the_width_is_ranked_or_more_with_several_stop_tokens():
    sizes = {(1, "transformers"): 8, (2, "transformers"): 12, (3, "transformers"): 16, (0, "transformers"): 8}
    for (stops, name), expected in sizes.items():
        assert Rule(name, 4, frozenset(range(stops))).num_children == expected
    assert Rule("vllm-0.11", 4, frozenset([1])).num_children == 8


# --- the rule of vLLM 0.11 --------------------------------------------------------------------------------------------


@torch.inference_mode()
def old_vllm(model, prompt, width, max_tokens, eos, penalty):
    """A plain program for that rule, without a cache: written from its description, apart from the script."""
    beams, completed = [(prompt, 0.0)], []
    for _ in range(max_tokens):
        going_on = []
        for sequence, total in beams:
            top = model(torch.tensor([sequence])).logits[0, -1].double().log_softmax(-1).topk(2 * width)
            for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                (completed if token == eos else going_on).append((sequence + [token], total + value))
        beams = sorted(going_on, key=lambda beam: -beam[1])[:width]

    def score(beam):
        sequence, total = beam
        return total / (len(sequence) - (sequence[-1] == eos)) ** penalty

    best = max(completed + beams, key=score)
    return best[0][len(prompt) :], score(best)


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_rule_of_vllm_is_that_of_a_plain_program(tiny, name):
    sampler, model, _, prompts = tiny(name)
    room = 10
    for width in (1, 3):
        rule = Rule("vllm-0.11", width, frozenset([1]))
        for prompt in prompts[:9]:
            (found,) = search(sampler, rule, [prompt], len(prompt) + room, PENALTIES)
            for penalty in PENALTIES:
                tokens, score = old_vllm(model, prompt, width, room, 1, penalty)
                assert found[penalty].tokens == tokens
                assert found[penalty].score == pytest.approx(score, abs=1e-4)
                assert found[penalty].finished == (tokens[-1] == 1)


def test_the_two_rules_give_different_answers(tiny):
    sampler, _, _, prompts = tiny("qwen2")
    ours, theirs = (
        search(sampler, Rule(name, 4, frozenset([1])), prompts, WINDOW, [1.0]) for name in ("transformers", "vllm-0.11")
    )
    assert sum(a[1.0].tokens != b[1.0].tokens for a, b in zip(ours, theirs, strict=True)) >= 3


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(toy_dir, tmp_path):
    sampler = start_sampler("transformers", toy_dir, 128)

    def run(**changes):
        arguments = dict(model="toy", dataset=["toy_test"], max_total_tokens=128, limit=12, num_grading_workers=1)
        return main(Args(**arguments | dict(output_dir=str(tmp_path)) | changes), sampler)

    return run, tmp_path


def test_the_program_writes_the_common_results(program):
    run, folder = program
    plain, mean = run(length_penalty=[0.0, 1.0])
    for results, penalty in ((plain, 0.0), (mean, 1.0)):
        path = folder / f"toy_test__beam4__penalty{penalty:g}__transformers.json"
        assert json.loads(path.read_text()) == json.loads(json.dumps(without_nan(results)))
        assert results["schema"] == 1 and results["method"] == "beam" and results["settings"]["n"] == 1
        assert results["settings"]["length_penalty"] == penalty and results["settings"]["num_beams"] == 4
        assert 0 < results["metrics"]["authors"]["pass_at_1"] <= 1 and len(results["problems"]) == 12
        for record in results["problems"]:
            assert record["score"][0] == pytest.approx(record["logp"][0] / record["tokens"][0] ** penalty)
            assert record["finished"] == [True] and record["tokens"][0] <= record["steps"]
            assert record["steps"] <= record["generated_tokens"] <= 4 * record["steps"]
        assert results["generated_tokens"] == sum(record["generated_tokens"] for record in results["problems"])
    lines = (folder / "toy_test__beam4__penalty0__transformers.responses.jsonl").read_text().splitlines()
    assert all(json.loads(line)["responses"][0].endswith("}") for line in lines[1:])
    assert mean["problems"][0]["score"] != plain["problems"][0]["score"]


def test_rule_of_vllm_grades_prompt_and_response(program):
    run, folder = program
    run(rule="vllm-0.11", length_penalty=[1.0])
    lines = (folder / "toy_test__beam4__penalty1__vllm-0.11.responses.jsonl").read_text().splitlines()
    texts = {record["id"]: record["responses"][0] for record in map(json.loads, lines[1:])}
    for problem in load_problems("toy_test")[:12]:
        assert texts[problem.id].startswith(problem.problem) and texts[problem.id].endswith("<eos>")


@pytest.mark.parametrize("name, text", [("transformers", "a"), ("vllm-0.11", "bcad")])
def test_the_text_ends_before_the_stop_token_whatever_it_is(tmp_path, name, text):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path))
    a, b, c, d = tokenizer.convert_tokens_to_ids(list("abcd"))
    answer = Answer([a, d], -1.0, -0.5, finished=True, steps=3, generated_tokens=7)
    problem = Problem("x", "bc", "1", "made")
    record = record_of(Rule(name, 2, frozenset([d])), tokenizer, problem, [b, c], answer, seconds=0.5)
    assert record["responses"] == [text] and record["tokens"] == [2] and record["generated_tokens"] == 7


def test_an_interrupted_run_goes_on_where_it_was(program, monkeypatch):
    run, folder = program
    (whole,) = run()
    path = folder / "toy_test__beam4__penalty0__transformers.responses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:50])  # five problems, and a piece of the sixth
    searched, plain = [], beam_eval.beam_search

    def noted(sampler, rule, prompts, *rest):
        searched.extend(prompts)
        return plain(sampler, rule, prompts, *rest)

    monkeypatch.setattr(beam_eval, "beam_search", noted)
    (again,) = run()
    known = {json.loads(line)["id"] for line in lines[1:6]}
    assert [record["id"] for record in again["problems"]] == [record["id"] for record in whole["problems"]]
    assert again["metrics"] == whole["metrics"] and len(known) == 5 and len(searched) == 7
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="weights, config or tokenizer have changed"):
        patch.setattr("common.evaluate.model_hash", lambda _: "0123456789ab")
        run()
    with pytest.raises(ValueError, match="sampler 'auto', now 'transformers'.*--output-dir"):
        run(sampler="transformers")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_beams": 0}, "--num-beams 0"),
        ({"length_penalty": []}, "--length-penalty"),
        ({"length_penalty": [math.nan]}, "--length-penalty"),
    ],
)
def test_impossible_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Args(**changes)


def test_prompts_that_fill_the_window_are_left_out_by_name_or_refused(program, tiny, capsys):
    run, folder = program
    (everything,) = run()
    lengths = {record["id"]: record["prompt_tokens"] for record in everything["problems"]}
    window = sorted(lengths.values())[6]
    (results,) = run(max_total_tokens=window, output_dir=str(folder / "small"))
    kept = [record["id"] for record in results["problems"]]
    assert 0 < len(kept) < 12 and kept == [id for id, length in lengths.items() if length < window]
    printed = capsys.readouterr().out
    assert all(id in printed for id in set(lengths) - set(kept))
    with pytest.raises(ValueError, match="raise --max-total-tokens"):
        run(max_total_tokens=5)
    sampler, *_ = tiny("qwen2")
    for prompt in ([2] * WINDOW, []):
        with pytest.raises(ValueError, match="prompt 1 has .* tokens and room for"):
            search(sampler, Rule("transformers", 2, frozenset([1])), [[2, 3], prompt], WINDOW, [0.0])
