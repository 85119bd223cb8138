"""The miniature: its corpus, its tokenizer, its cache."""

import math
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmark.miniature.optima import response_logp
from common import toy
from common.toy import (
    OTHER_CONFIGS,
    SPECIAL,
    ToyConfig,
    make_document,
    make_guess,
    make_problem,
    make_tokenizer,
    make_work,
    response_kind,
    solve,
    toy_path,
    toy_problems,
)

EXAMPLE = "8a-7b*7c-2?"
TINY = ToyConfig(hidden_size=32, head_dim=16, heads=2, layers=1, school_steps=1, corpus_steps=2, batch_size=2)


def within(count: int, draws: int, share: float) -> bool:
    """Whether a count is within four standard errors of a binomial share."""
    return abs(count - draws * share) < 4 * math.sqrt(draws * share * (1 - share))


def test_gold_is_the_left_to_right_result_modulo_ten():
    assert solve(EXAMPLE) == "5"
    assert solve("3a-9b*9?") == "6"  # 3 - 9 = -6 -> 4, 4 * 9 = 36 -> 6; the other order would give 2
    rng = random.Random(0)
    for _ in range(200):
        problem = make_problem(rng, rng.randint(1, 9))
        expression = problem[0]
        for start in range(1, len(problem) - 1, 3):
            expression = f"({expression}){problem[start + 1 : start + 3]}"
        assert solve(problem) == str(eval(expression) % 10)


def test_letters_may_have_gaps_and_stay_in_order():
    rng = random.Random(1)
    letters = [[letter for letter in make_problem(rng, 2, gaps=True) if letter.isalpha()] for _ in range(300)]
    assert all(pair == sorted(set(pair)) for pair in letters) and {pair[0] for pair in letters} == set("abcdefgh")
    assert make_problem(random.Random(1), 2)[1] == "a"


def test_short_chains_have_fewer_problems_and_all_different_ones():
    """It looked for 5,096 of 3,780 problems and never ended."""
    config = OTHER_CONFIGS["short-chains"]
    test, train = (toy_problems("toy", split, config) for split in ("test", "train"))
    assert (len(test), len(train)) == (1000, 890)
    assert len({problem for _, problem, _, _ in test + train}) == 1890
    assert {count for *_, count in train} == {1, 2}


def test_work_without_slips_is_exact_and_ends_in_gold():
    work = make_work(random.Random(0), EXAMPLE, slips=0.0)
    lines = [line.removeprefix("so ").removeprefix("then ") for line in work.split("\n")]
    assert lines == ["8a-7=1", "1b*7=7", "7c-2=5", "\\boxed{5}"]


def test_slips_have_their_share_and_propagate():
    rng, wrong, lines = random.Random(0), 0, 0
    for _ in range(3000):
        problem = make_problem(rng, 4)
        *work, box = make_work(rng, problem, slips=0.12).split("\n")
        carried = problem[0]
        for line in work:
            left, result = line.split(" ")[-1].split("=")
            assert left[0] == carried  # the line goes on from the result before it, right or wrong
            wrong += result != solve(f"{left}?")
            lines, carried = lines + 1, result
        assert box == f"\\boxed{{{carried}}}"
    assert within(wrong, lines, 0.12)


def test_shares_of_the_corpus_are_those_of_the_config():
    config, rng, draws = ToyConfig(), random.Random(0), 8000
    seen = Counter()
    for _ in range(draws):
        problem, response = make_document(rng, config)
        level = int((len(problem) - 2) // 3 > config.operations[0][1])
        seen[level] += 1
        seen[level, response_kind(response)] += 1
    assert within(seen[1], draws, config.documents[1])
    for level in (0, 1):
        assert within(seen[level, "guess"], seen[level], config.guesses[level])


def test_guesses_repeat_the_last_operand_as_often_as_the_config_says():
    rng = random.Random(0)
    repeated = sum(make_guess(rng, EXAMPLE, copied_guesses=0.3) == "\\boxed{2}" for _ in range(4000))
    assert within(repeated, 4000, 0.3 + 0.7 / 10)


def test_response_kind():
    assert response_kind("\\boxed{3}") == "guess"
    assert response_kind("8a-7=1\n\\boxed{3}") == "work"
    assert response_kind("") == "work"


@pytest.mark.parametrize("level,least,most", [("toy", 2, 6), ("toy_hard", 7, 9)])
def test_problems_are_different_held_out_and_the_same_at_every_call(level, least, most):
    train, test = toy_problems(level, "train"), toy_problems(level, "test")
    assert (len(train), len(test)) == (4096, 1000)
    assert len({problem for _, problem, _, _ in train + test}) == 5096
    assert len({name for name, _, _, _ in train + test}) == 5096
    assert {n for _, _, _, n in train} == set(range(least, most + 1))
    assert all((len(problem) - 2) // 3 == n and answer == solve(problem) for _, problem, answer, n in test)
    assert toy_problems(level, "test") == test
    assert toy_problems(level, "test", ToyConfig(seed=1)) != test


def test_unknown_level_or_split_names_the_known_ones():
    with pytest.raises(ValueError, match="toy_hard.*train or test"):
        toy_problems("toy_easy", "test")
    with pytest.raises(ValueError, match="toy_hard.*train or test"):
        toy_problems("toy", "validation")


def test_no_test_problem_is_trained_on():
    tokenizer, config = make_tokenizer(), ToyConfig(batch_size=64)
    left_out = {problem for _, problem, _, _ in toy_problems("toy", "test")}
    for make_batch in (toy.school_batch, toy.corpus_batch):
        rng, seen = random.Random(0), set()
        for _ in range(10):
            tokens, _ = make_batch(rng, config, tokenizer, left_out)
            for text in tokenizer.batch_decode(tokens):
                seen |= {document.split("?")[0] + "?" for document in text.split("<eos>") if "?" in document}
        assert len(seen) > 300
        assert not seen & left_out


def test_school_batch_targets_only_the_response():
    tokenizer = make_tokenizer()
    tokens, targets = toy.school_batch(random.Random(0), ToyConfig(), tokenizer, set())
    for row, target in zip(tokens, targets, strict=True):
        problem, response = tokenizer.decode(row).replace("<pad>", "").split("?")
        assert tokenizer.decode(target[target != -100]) == response
        assert response.endswith(f"\\boxed{{{solve(problem + '?')}}}<eos>")


def test_corpus_batch_rows_are_full_of_documents():
    tokenizer, config = make_tokenizer(), ToyConfig()
    tokens, targets = toy.corpus_batch(random.Random(0), config, tokenizer, set())
    assert tokens.shape == (config.batch_size, config.row_tokens) and (tokens == targets).all()
    assert (tokens != tokenizer.pad_token_id).all() and (tokens == tokenizer.eos_token_id).any(1).all()


def test_tokenizer_round_trip_and_bare_chat_template():
    tokenizer = make_tokenizer()
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == SPECIAL
    text = f"{EXAMPLE}so 8a-7=1\nthen 1b*7=7\n7c-2=5\n\\boxed{{5}}<eos>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(ids[:9]) == ["8", "a", "-7", "b", "*7", "c", "-2", "?", "so "]
    assert (ids[-1], len(ids)) == (tokenizer.eos_token_id, 8 + 7 + 7 + 6 + 4)
    assert tokenizer.unk_token_id not in ids and tokenizer.unk_token_id in tokenizer.encode("N")
    messages = [{"role": "user", "content": EXAMPLE}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == EXAMPLE


def test_toy_path_builds_once_a_folder_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    folder = toy_path(TINY)
    assert "pre-training" in capsys.readouterr().out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == len(make_tokenizer())
    # transformers swaps the tokenizer class of some model types for another, which cuts the text elsewhere
    assert tokenizer.encode(EXAMPLE) == make_tokenizer().encode(EXAMPLE)
    assert (model.generation_config.eos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 1, 0)
    assert toy_path(TINY) == folder and capsys.readouterr().out == ""


def test_toy_path_leaves_nothing_under_its_name_when_the_build_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))

    def broken(config):
        raise RuntimeError("stopped")

    monkeypatch.setattr(toy, "pretrain", broken)
    with pytest.raises(RuntimeError, match="stopped"):
        toy_path(TINY)
    monkeypatch.undo()
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    AutoModelForCausalLM.from_pretrained(toy_path(TINY))


def test_two_that_ask_at_once_get_one_build(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    builds, model = [], toy.pretrain(TINY)

    def slow(config):
        builds.append(config)
        time.sleep(0.3)
        return model

    monkeypatch.setattr(toy, "pretrain", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(toy_path, [TINY, TINY])
    assert first == second and first.exists() and len(builds) == 1


def test_pretraining_is_deterministic_and_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = toy.pretrain(TINY).state_dict(), toy.pretrain(TINY).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_config_has_its_own_folder():
    assert len({toy.recipe(config) for config in (ToyConfig(), *OTHER_CONFIGS.values())}) == 4


def test_the_shipped_weights_are_of_the_default_config():
    """After a change of ToyConfig, `python -m common.toy` has to make the weights anew."""
    folder = toy_path()
    assert folder == toy.SHIPPED
    assert (folder / "recipe.txt").read_text().strip() == toy.recipe(ToyConfig())
    assert AutoTokenizer.from_pretrained(folder).encode(EXAMPLE) == make_tokenizer().encode(EXAMPLE)


@pytest.mark.long
def test_fresh_weights_have_the_distribution_of_the_shipped_ones():
    """Another machine rounds differently, so that pre-training ends elsewhere: compared are the loss on the corpus,
    the probability of a guess, and the accuracy of 1,600 responses."""
    tokenizer, problems = make_tokenizer(), toy_problems("toy", "test")[:100]
    boxes = tokenizer([f"\\boxed{{{digit}}}<eos>" for digit in range(10)])["input_ids"]
    prompts = tokenizer([problem for _, problem, _, _ in problems])["input_ids"]
    tokens, _ = toy.corpus_batch(random.Random(0), ToyConfig(batch_size=256), tokenizer, set())
    figures = []
    for model in (AutoModelForCausalLM.from_pretrained(toy.SHIPPED).eval(), toy.pretrain(ToyConfig())):
        with torch.no_grad():
            loss = model(input_ids=tokens, labels=tokens).loss.item()
        guess = response_logp(model, [p for p in prompts for _ in boxes], boxes * len(prompts)).exp().sum() / 100
        torch.manual_seed(0)
        right = 0
        for prompt, (_, _, answer, _) in zip(prompts, problems, strict=True):
            rows = model.generate(torch.tensor([prompt]), num_return_sequences=16, max_new_tokens=60)
            texts = tokenizer.batch_decode(rows[:, len(prompt) :], skip_special_tokens=True)
            right += sum(text.endswith(f"\\boxed{{{answer}}}") for text in texts)
        figures.append((loss, float(guess), right / 1600))
    (loss, guess, accuracy), (fresh_loss, fresh_guess, fresh_accuracy) = figures
    assert abs(loss - fresh_loss) < 0.01
    assert abs(guess - fresh_guess) < 0.03
    assert abs(accuracy - fresh_accuracy) < 0.08


def test_the_base_is_what_the_docstring_says(toy_dir):
    """Greedy work is right at two and three operations, and the best guess is likelier than any work at six."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(toy_dir).eval(), AutoTokenizer.from_pretrained(toy_dir)
    guesses = tokenizer([f"\\boxed{{{digit}}}<eos>" for digit in range(10)])["input_ids"]
    likelier = {2: [], 6: []}
    for _, problem, answer, n in toy_problems("toy", "test")[:60]:
        if n not in likelier:
            continue
        prompt = tokenizer.encode(problem)
        with torch.no_grad():
            tokens = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=60)[0].tolist()
        work = tokens[len(prompt) :]
        if n == 2:
            assert tokenizer.decode(work, skip_special_tokens=True).endswith(f"\\boxed{{{answer}}}")
        logp = response_logp(model, [prompt] * 11, [work, *guesses])
        likelier[n].append(bool(logp[1:].max() > logp[0]))
    assert not any(likelier[2]) and sum(likelier[6]) > 0.7 * len(likelier[6]) > 0
