r"""common/data.py: data sets, prompts and batches, with rows shaped like those on the hub and tokenizers built here."""

import gzip
import json
import re
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SHARED_DATA
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from common import data
from common.data import (
    PROMPTS,
    Problem,
    batch_indices,
    fit_window,
    load_examples,
    load_problems,
    load_prompts,
    load_validation,
    prompt_file_of,
    prompt_hash,
    render_prompts,
    split_deepscaler,
    validation_of,
)
from common.grading import Grader

BOTH = frozenset({"authors", "held_out"})


def write_lines(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for datasets.load_dataset: put rows under (path, config, split); anything else cannot be reached."""
    rows = {}

    def load_dataset(path, config=None, split=None):
        if (path, config, split) not in rows:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub\nsecond line")
        return rows[path, config, split]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return rows


def math_row(text, solution="$\\boxed{1}$", level="Level 3"):
    return {"problem": text, "level": level, "type": "Algebra", "solution": solution}


# ---------------------------------------------------------------------------------------------------- rows from the hub


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("First $\\boxed{3}$, so $x = \\boxed{\\frac{1}{\\sqrt{2}}}$.", "\\frac{1}{\\sqrt{2}}"),
        ("which is $\\boxed 5$ in all", "5"),
        ("or $\\fbox{(C)}$.", "(C)"),
        ("the set is $\\boxed{\\left\\{1, 2\\right\\}}$", "\\left\\{1, 2\\right\\}"),
        ("Therefore there are $\\boxed{}$ primes in that range.", "0"),
    ],
)
def test_math_answer_is_the_last_box_of_the_solution(hub, solution, answer):
    hub["DigitalLearningGmbH/MATH-lighteval", "default", "train"] = [math_row("What is it?\n", solution)]
    assert load_problems("math") == [Problem("math-0", "What is it?", answer, "math", 3, "Algebra", BOTH)]


def test_math_level_without_a_number_is_none(hub):
    hub["DigitalLearningGmbH/MATH-lighteval", "default", "test"] = [math_row("a", level="Level ?"), math_row("b")]
    assert [(p.id, p.level) for p in load_problems("math_test")] == [("math_test-0", None), ("math_test-1", 3)]


def test_math_solution_without_a_box_is_an_error_that_names_the_row(hub):
    hub["DigitalLearningGmbH/MATH-lighteval", "default", "train"] = [math_row("a"), math_row("b", solution="It is 7.")]
    with pytest.raises(ValueError, match="MATH-lighteval, row 1: no answer"):
        load_problems("math")


@pytest.mark.parametrize(
    ("name", "place", "row", "problem"),
    [
        (
            "gsm8k",
            ("openai/gsm8k", "main", "train"),
            {"question": "How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 2,125"},
            Problem("gsm8k-0", "How many?", "2,125", "gsm8k"),
        ),
        (
            "gsm8k_test",
            ("openai/gsm8k", "main", "test"),
            {"question": "How many?", "answer": "So 7.\n#### 7"},
            Problem("gsm8k_test-0", "How many?", "7", "gsm8k_test"),
        ),
        (
            "math500",
            ("HuggingFaceH4/MATH-500", None, "test"),
            {
                "problem": "Find $x$.",
                "solution": "s",
                "answer": "90^\\circ",
                "subject": "Geometry",
                "level": 2,
                "unique_id": "test/geometry/9.json",
            },
            Problem("test/geometry/9.json", "Find $x$.", "90^\\circ", "math500", 2, "Geometry"),
        ),
        (
            "minerva",
            ("math-ai/minervamath", None, "test"),
            {"question": "How far?", "answer": "4.5e33"},
            Problem("minerva-0", "How far?", "4.5e33", "minerva"),
        ),
        (
            "aime24",
            ("HuggingFaceH4/aime_2024", None, "train"),
            {"id": 60, "problem": "Aya", "solution": "s", "answer": "025", "url": "u", "year": "2024"},
            Problem("aime24-0", "Aya", "25", "aime24"),
        ),
        (
            "aime25",
            ("MathArena/aime_2025", None, "train"),
            {"problem_idx": 1, "problem": "Bases", "answer": 70, "problem_type": ["Number Theory"]},
            Problem("aime25-0", "Bases", "70", "aime25"),
        ),
        (
            "hmmt25",
            ("MathArena/hmmt_feb_2025", None, "train"),
            {"problem_idx": 1, "problem": "Sum", "answer": "2^{25} \\cdot 26!", "problem_type": ["Algebra"]},
            Problem("hmmt25-0", "Sum", "2^{25} \\cdot 26!", "hmmt25"),
        ),
    ],
)
def test_columns_of_each_hub_set(hub, name, place, row, problem):
    hub[place] = [row]
    assert load_problems(name) == [problem]


def test_deepscaler_rows_without_an_answer_are_left_out_and_counted(hub, monkeypatch, capsys):
    monkeypatch.setattr(data, "DEEPSCALER_HELD_OUT", 0)
    answers = ["1", "", None, " ", "$2$"]
    rows = [{"problem": f"p{i}", "answer": answer, "solution": ""} for i, answer in enumerate(answers)]
    hub["agentica-org/DeepScaleR-Preview-Dataset", None, "train"] = rows
    assert [(p.id, p.answer) for p in load_problems("deepscaler")] == [("deepscaler-0", "1"), ("deepscaler-4", "$2$")]
    assert "left out 3 of 5 rows" in capsys.readouterr().out


def test_a_changed_column_is_an_error_that_lists_the_columns(hub):
    hub["math-ai/minervamath", None, "test"] = [{"prompt": "How far?", "answer": "1"}]
    with pytest.raises(ValueError, match="math-ai/minervamath, row 0: no column 'question', only prompt, answer"):
        load_problems("minerva")


@pytest.mark.parametrize("name", ["math500", "matth"])
def test_unreachable_hub_or_unknown_name_is_one_line_that_says_what_to_do(hub, name):
    with pytest.raises(ValueError) as error:
        load_problems(name)
    line = str(error.value)
    assert "\n" not in line and repr(name) in line
    assert all(known in line for known in ("deepscaler", "toy_hard", ".jsonl.gz", '"problem" and "answer"'))


def test_the_miniature_has_its_number_of_operations_as_level():
    from common.toy import toy_problems

    for name, (level, split) in data.TOY.items():
        problems = load_problems(name)
        assert [(p.id, p.problem, p.answer, p.level) for p in problems] == toy_problems(level, split)
        assert {(p.dataset, p.subject, p.selections) for p in problems} == {(name, None, BOTH)}


# ---------------------------------------------------------------------------------------------------------- local files


def test_local_file_keeps_ids_duplicates_levels_and_numbers(tmp_path):
    same = {"id": "a", "problem": "1+1?", "answer": "2"}
    path = write_lines(
        tmp_path / "mine.jsonl",
        same,
        "",  # a blank line counts as a line and holds nothing
        same,
        {"problem": " {x}\n", "answer": 25, "level": "Level 4", "subject": "Sums"},
        {"id": 7, "problem": "p", "answer": "\\frac{1}{2}", "level": 5},
    )
    assert load_problems(path) == [
        Problem("a", "1+1?", "2", "mine"),
        Problem("a:3", "1+1?", "2", "mine"),  # results are stored by id, so it must differ
        Problem("mine.jsonl:4", "{x}", "25", "mine", 4, "Sums"),
        Problem("7", "p", "\\frac{1}{2}", "mine", 5),
    ]


def test_ids_of_a_local_file_are_unique_whatever_they_are(tmp_path):
    rows = [
        {"id": id, "problem": f"{i}?", "answer": i} for i, id in enumerate(["a", "a:3", "a", "a", "a:3", "a:3:5"], 1)
    ]
    problems = load_problems(write_lines(tmp_path / "mine.jsonl", *rows))
    assert [p.problem for p in problems] == [f"{i}?" for i in range(1, 7)]
    assert [p.id for p in problems] == ["a", "a:3", "a:3:3", "a:4", "a:3:5:5", "a:3:5"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    text = "one\u2028two\u2029three\u0085four\u000bfive"
    raw = json.dumps({"problem": text, "answer": "5"}, ensure_ascii=False)  # U+2028, U+2029 and U+0085 stand bare in it
    assert len(raw.splitlines()) > 1
    path = tmp_path / "separators.jsonl"
    path.write_bytes(raw.encode() + b"\r\n" + raw.encode())
    assert [(p.id, p.problem) for p in load_problems(str(path))] == [
        ("separators.jsonl:1", text),
        ("separators.jsonl:2", text),
    ]


def test_gzip_file_is_the_same_as_the_plain_one(tmp_path):
    plain = write_lines(tmp_path / "set.jsonl", {"id": "é", "problem": "naïve?", "answer": "1"})
    with gzip.open(tmp_path / "set.jsonl.gz", "wb") as file:
        file.write((tmp_path / "set.jsonl").read_bytes())
    assert load_problems(plain) == load_problems(plain + ".gz") == [Problem("é", "naïve?", "1", "set")]


GOOD = {"problem": "p", "answer": "1"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"problem": "p", "answer": ', "line 2: not valid JSON"),
        ('["p", "1"]', "line 2: not a JSON object with problem and answer"),
        ({"problem": "p"}, 'line 2: "answer" is missing or empty'),
        ({"question": "p", "answer": "1"}, 'line 2: "problem" is missing or empty'),
        ({"problem": "p", "answer": "  "}, 'line 2: "answer" is missing or empty'),
        ({"problem": "p", "answer": None}, 'line 2: "answer" is missing or empty'),
        ({"problem": "p", "answer": float("nan")}, 'line 2: "answer" is missing or empty'),
        ({"problem": "p", "answer": ["1"]}, 'line 2: "answer" is ["1"]: it must be text or a number'),
        ({"problem": {"text": "p"}, "answer": "1"}, 'line 2: "problem" is {"text": "p"}: it must be text or a number'),
        ({"problem": "\ud800", "answer": "1"}, "line 2: not valid JSON ('utf-8' codec can't encode"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, bad, message):
    path = write_lines(tmp_path / "bad.jsonl", GOOD, bad, GOOD)
    with pytest.raises(ValueError) as error:
        load_problems(path)
    assert str(error.value).startswith(f"{path}, {message}")


def test_text_that_is_not_utf8_is_named_by_line(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"problem": "p", "answer": "1"}\n{"problem": "\xe9t\xe9", "answer": "1"}\n')
    with pytest.raises(ValueError, match="latin.jsonl, line 2: not valid JSON"):
        load_problems(str(path))


def test_empty_missing_and_broken_files_are_one_line(tmp_path):
    for content in ("", "\n\n"):
        with pytest.raises(ValueError, match="empty.jsonl is empty"):
            load_problems(write_lines(tmp_path / "empty.jsonl", content))
    with pytest.raises(ValueError, match="cannot read .*absent.jsonl"):
        load_problems(str(tmp_path / "absent.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"problem": "p", "answer": "1"}\n' * 99)[:-12])
    (tmp_path / "text.jsonl.gz").write_bytes(b"not compressed")
    for name in ("cut.jsonl.gz", "text.jsonl.gz"):
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            load_problems(str(tmp_path / name))


COUNTS = {
    "math500.jsonl": 500,
    "minerva_math.jsonl": 272,
    "aime_2024.jsonl": 30,
    "aime_2025.jsonl": 30,
    "aime_2025_opencompass.jsonl": 30,
    "hmmt_feb_2025.jsonl": 30,
    "math_train.jsonl.gz": 7500,
    "math_test_rest.jsonl": 4500,
    "deepscaler.jsonl.gz": 40308,
    "gsm8k_train.jsonl": 7473,
    "gsm8k_test.jsonl": 1319,
    "svamp.jsonl": 1000,
    "asdiv.jsonl": 2084,
    "mawps.jsonl": 2065,
}
shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here")


@shared_data
@pytest.mark.parametrize("name", COUNTS)
def test_shared_file_loads_as_it_is(name):
    problems = load_problems(str(SHARED_DATA / name))
    assert len(problems) == len({p.id for p in problems}) == COUNTS[name]
    assert not any(p.id.startswith(name) for p in problems)  # every record's own id was used


@shared_data
@pytest.mark.parametrize("name", ["math_train.jsonl.gz", "math_test_rest.jsonl"])
def test_last_box_of_every_math_solution_is_its_answer(name):
    rows = [row for _, row in data.read_jsonl(SHARED_DATA / name, ("problem", "answer", "solution"))]
    hub_rows = [math_row(row["problem"], row["solution"], f"Level {row.get('level', '?')}") for row in rows]
    problems = data.problems_from_rows("math", hub_rows)
    assert [(p.answer, p.level) for p in problems] == [(row["answer"].strip(), row.get("level")) for row in rows]


# ----------------------------------------------------------------------------------------------------------- validation


def test_math_validation_marks_math500_by_its_text_whatever_blanks_and_case(hub):
    test = [math_row("Find  $X$ .\n"), math_row("b"), math_row("c")]
    hub["DigitalLearningGmbH/MATH-lighteval", "default", "test"] = test
    hub["HuggingFaceH4/MATH-500", None, "test"] = [
        {"problem": " find $x$\n.", "answer": "1", "unique_id": "u1"},
        {"problem": "c", "answer": "1", "unique_id": "u2"},
    ]
    assert [(p.id, set(p.selections)) for p in validation_of("math")] == [
        ("math_test-0", {"authors"}),
        ("math_test-1", {"authors", "held_out"}),
        ("math_test-2", {"authors"}),
    ]
    hub["HuggingFaceH4/MATH-500", None, "test"].append({"problem": "elsewhere", "answer": "1", "unique_id": "u3"})
    with pytest.raises(ValueError, match="1 problems of math500 are not in math_test"):
        validation_of("math")


@shared_data
def test_math_validation_of_the_real_sets_is_500_and_4500(hub):
    def rows(name):
        return [row for _, row in data.read_jsonl(SHARED_DATA / name, ("problem", "answer"))]

    rest = [math_row(row["problem"], row["solution"]) for row in rows("math_test_rest.jsonl")]
    reported = rows("math500.jsonl")
    hub["DigitalLearningGmbH/MATH-lighteval", "default", "test"] = [
        math_row(row["problem"], f"\\boxed{{{row['answer']}}}") for row in reported
    ] + rest
    hub["HuggingFaceH4/MATH-500", None, "test"] = [row | {"unique_id": row["id"]} for row in reported]
    assert Counter(p.selections for p in validation_of("math")) == {frozenset({"authors"}): 500, BOTH: 4500}


def test_deepscaler_validation_is_aime_16_times_and_rows_that_training_never_sees(hub, monkeypatch):
    monkeypatch.setattr(data, "DEEPSCALER_HELD_OUT", 19)
    texts = [f"problem {i}" for i in range(20)] + ["Problem  3", "problem 4"]  # 18 occur once
    rows = [{"problem": text, "answer": "1", "solution": ""} for text in texts]
    hub["agentica-org/DeepScaleR-Preview-Dataset", None, "train"] = rows
    hub["HuggingFaceH4/aime_2024", None, "train"] = [{"problem": t, "answer": "033"} for t in "xy"]
    validation, training = validation_of("deepscaler"), load_problems("deepscaler")
    aime, held_out = validation[:32], validation[32:]
    assert Counter((p.problem, p.answer, p.selections) for p in aime) == {
        ("x", "33", frozenset({"authors"})): 16,
        ("y", "33", frozenset({"authors"})): 16,
    }
    assert len({p.id for p in aime}) == 32
    assert Counter(p.group for p in aime) == {"aime24-0": 16, "aime24-1": 16}
    assert all(p.group == p.id for p in held_out + training)
    assert [p.selections for p in held_out] == [frozenset({"held_out"})] * 18
    assert [p.problem for p in training] == ["problem 3", "problem 4", "Problem  3", "problem 4"]
    assert not {p.problem for p in training} & {p.problem for p in held_out}


def test_deepscaler_split_does_not_depend_on_the_order_of_the_rows():
    problems = [Problem(str(i), f"text {i}", "1", "deepscaler") for i in range(2000)]
    training, held_out = split_deepscaler(problems)
    assert (len(training), len(held_out)) == (1500, 500)
    assert {p.id for p in split_deepscaler(problems[::-1])[1]} == {p.id for p in held_out}
    assert {p.id for p in held_out} != {str(i) for i in range(500)}  # not the first ones, which may be the easiest


@shared_data
def test_deepscaler_held_out_rows_are_in_no_reported_set():
    _, held_out = split_deepscaler(load_problems(str(SHARED_DATA / "deepscaler.jsonl.gz")))
    texts = {data.normal_text(p.problem) for p in held_out}
    assert len(held_out) == len(texts) == 500
    for name in ("math500", "minerva_math", "aime_2024", "aime_2025", "hmmt_feb_2025"):
        assert not texts & {data.normal_text(p.problem) for p in load_problems(str(SHARED_DATA / f"{name}.jsonl"))}


def test_toy_validation_is_its_test_split_and_other_sets_need_the_option():
    assert validation_of("toy") == load_problems("toy_test")
    assert validation_of("toy_hard") == load_problems("toy_hard_test")
    for name in ("gsm8k", "toy_test", "mine.jsonl"):
        with pytest.raises(ValueError, match="--validation-dataset"):
            validation_of(name)


def test_a_validation_size_draws_the_same_problems_for_the_same_seed():
    args = SimpleNamespace(dataset="toy", validation_dataset="", validation_size=0, seed=1)
    everything = load_validation(args)
    assert everything == load_problems("toy_test")
    args.validation_size = 50
    drawn = load_validation(args)
    assert len(drawn) == 50 and drawn == [p for p in everything if p in drawn] == load_validation(args)
    assert drawn != everything[:50]
    args.seed = 2
    assert load_validation(args) != drawn
    args.validation_dataset, args.validation_size = "toy_hard_test", 0
    assert load_validation(args) == load_problems("toy_hard_test")


# -------------------------------------------------------------------------------------------------------------- prompts

CHATML = (
    "{% for m in messages %}<s:{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s:assistant>{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(template, adds_bos=False, has_bos=True):
    """One token a character; `adds_bos` makes it put <b> before any text, as Llama's does."""
    vocabulary = {"<b>": 0, "<e>": 1, **{chr(c): c for c in range(2, 128)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<b> $A", special_tokens=[("<b>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<b>" if has_bos else None, eos_token="<e>")
    fast.chat_template = template
    return fast


def read_ids(ids):
    return "".join({0: "<b>", 1: "<e>"}.get(i, chr(i)) for i in ids)


def problem_of(text):
    return Problem("p", text, "1", "d")


def render(tokenizer, text, tmp_path, wording="Q: {problem}", examples=None):
    prompt_file = tmp_path / "wording.txt"
    prompt_file.write_text(wording + "\n", encoding="utf-8")
    (ids,) = render_prompts(tokenizer, [problem_of(text)], prompt_file, examples)
    assert type(ids) is list and all(type(i) is int for i in ids)
    return read_ids(ids)


def test_prompt_is_one_user_turn_and_the_start_of_the_answer(tmp_path):
    tokenizer = make_tokenizer(CHATML, has_bos=False)
    assert render(tokenizer, "1+1?", tmp_path) == "<s:user>Q: 1+1?</s><s:assistant>"


def test_braces_and_placeholders_in_problems_are_left_alone(tmp_path):
    tokenizer = make_tokenizer(CHATML, has_bos=False)
    for text in ("$\\{x\\}$ and {0} {name} {{y}}", "what is {problem}?", "%s \\1 $1"):
        prompt = render(tokenizer, text, tmp_path, r"\boxed{} {0} {problem}")
        assert prompt == r"<s:user>\boxed{} {0} " + text + "</s><s:assistant>"


def test_worked_examples_are_earlier_turns_in_the_same_wording(tmp_path):
    shots = {"problem": "{a}", "solution": "A"}, {"problem": "b", "solution": "B"}
    examples = write_lines(tmp_path / "two.jsonl", *shots)
    assert render(make_tokenizer(CHATML, has_bos=False), "c", tmp_path, examples=examples) == (
        "<s:user>Q: {a}</s><s:assistant>A</s><s:user>Q: b</s><s:assistant>B</s><s:user>Q: c</s><s:assistant>"
    )


@pytest.mark.parametrize("adds_bos", [False, True])
def test_bos_of_the_template_stands_once_and_the_date_is_pinned(tmp_path, adds_bos):
    tokenizer = make_tokenizer(LLAMA, adds_bos)
    assert render(tokenizer, "x", tmp_path) == "<b>Today Date: 26 Jul 2024\n[user]Q: x[assistant]"


def test_bos_that_the_tokenizer_adds_stands_once_where_the_template_has_none(tmp_path):
    assert render(make_tokenizer(CHATML, adds_bos=True), "x", tmp_path) == "<b><s:user>Q: x</s><s:assistant>"
    assert render(make_tokenizer(CHATML, adds_bos=False), "x", tmp_path) == "<s:user>Q: x</s><s:assistant>"


THINKS = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"


def test_a_system_prompt_and_template_arguments_reach_the_chat_template():
    def read(tokenizer, *options):
        (ids,) = render_prompts(tokenizer, [problem_of("x")], PROMPTS / "bare.txt", None, *options)
        return read_ids(ids)

    thinks = make_tokenizer(THINKS, has_bos=False)
    assert read(thinks) == read(thinks, "", "{}") == "<s:user>x</s><s:assistant>"
    assert read(thinks, "Be brief.") == "<s:system>Be brief.</s><s:user>x</s><s:assistant>"
    assert read(thinks, "", '{"enable_thinking": false}') == "<s:user>x</s><s:assistant><think></think>"
    assert read(make_tokenizer(None, has_bos=False), "Be brief.") == "Be brief.\n\nx"


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (THINKS, ["", '{"enable_thinkin": false}x'], "must be a JSON object, such as"),
        (THINKS, ["", "[1]"], "must be a JSON object"),
        (
            THINKS,
            ["", '{"enable_thinkin_": false}'],
            "chat template reads no 'enable_thinkin_'; leave it out",
        ),
        (None, ["", '{"enable_thinking": false}'], "reads no 'enable_thinking'"),
        ("{{ raise_exception('no system turn') }}", ["Be brief."], "refuses the conversation: no system turn"),
    ],
)
def test_options_that_the_chat_template_cannot_use_are_refused_in_one_line(template, options, message):
    with pytest.raises(ValueError, match=message) as error:
        render_prompts(make_tokenizer(template), [problem_of("x")], PROMPTS / "bare.txt", None, *options)
    assert "\n" not in str(error.value)


def test_without_a_chat_template_the_prompt_is_plain_text(tmp_path):
    examples = write_lines(tmp_path / "one.jsonl", {"problem": "a", "solution": "A"})
    tokenizer = make_tokenizer(None, adds_bos=True)
    assert render(tokenizer, "x", tmp_path) == "<b>Q: x"
    assert render(tokenizer, "x", tmp_path, examples=examples) == "<b>Q: a\n\nA\n\nQ: x"
    assert render(make_tokenizer(None, has_bos=False), "x", tmp_path) == "Q: x"


def test_default_wording_asks_for_steps_and_a_box_and_the_miniature_gets_the_bare_problem():
    assert {prompt_file_of(name).name for name in data.TOY} == {"bare.txt"}
    assert {prompt_file_of(name).name for name in (*data.HUB, "toys.jsonl")} == {"boxed.txt"}
    tokenizer = make_tokenizer(CHATML, has_bos=False)
    bare, boxed = (render_prompts(tokenizer, [problem_of("8a-7?")], PROMPTS / f"{n}.txt")[0] for n in ("bare", "boxed"))
    assert read_ids(bare) == "<s:user>8a-7?</s><s:assistant>"
    assert read_ids(boxed).endswith("\n\n8a-7?</s><s:assistant>")
    assert "step by step" in read_ids(boxed) and "\\boxed{}" in read_ids(boxed)


def test_each_worked_example_ends_in_the_boxed_value_of_its_own_equation():
    for _, solution in load_examples(PROMPTS / "four_shot.jsonl"):
        a, sign, b, c = re.match(r"(\d+) ([-+*]) (\d+) = (\d+) ", solution).groups()
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c)
        assert solution.endswith(f"The answer is \\boxed{{{c}}}.")


def test_prompt_and_examples_files_that_cannot_be_used_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot read the prompt file .*absent.txt"):
        prompt_hash(tmp_path / "absent.txt")
    (tmp_path / "wording.txt").write_text("Solve it: {}")
    with pytest.raises(ValueError, match="where the problem goes"):
        render_prompts(make_tokenizer(CHATML), [problem_of("x")], tmp_path / "wording.txt")
    with pytest.raises(ValueError, match='line 1: "solution" is missing or empty'):
        load_examples(write_lines(tmp_path / "bad.jsonl", {"problem": "p", "answer": "1"}))
    assert load_examples(write_lines(tmp_path / "numbers.jsonl", {"problem": 1, "solution": 2.5})) == [("1", "2.5")]


def test_a_byte_order_mark_is_no_part_of_a_wording(tmp_path):
    """Windows editors write one; it went to the model in front of every problem."""
    (tmp_path / "wording.txt").write_bytes(b"\xef\xbb\xbf{problem}\r\n")
    assert data.load_wording(tmp_path / "wording.txt") == "{problem}"


def test_numbers_in_a_data_file_have_no_exponent_and_an_id_may_be_0(tmp_path):
    """math-verify does not read 1e-07, so that no response to such a problem was right."""
    rows = [{"id": i, "problem": "p", "answer": answer} for i, answer in enumerate((1e-07, 1e22, 2.5, 14.0, -3))]
    problems = load_problems(str(write_lines(tmp_path / "numbers.jsonl", *rows)))
    assert [p.id for p in problems] == ["0", "1", "2", "3", "4"]
    assert [p.answer for p in problems] == ["0.0000001", "1" + 22 * "0", "2.5", "14.0", "-3"]
    with Grader(1) as grader:
        verdicts = grader.grade([r"\boxed{10^{-7}}", r"\boxed{10^{22}}", r"\boxed{5/2}", r"\boxed{14}"], problems[:4])
    assert all(verdict.authors and verdict.strict for verdict in verdicts)


def test_a_line_that_is_nested_too_deeply_is_named(tmp_path):
    (tmp_path / "deep.jsonl").write_text(
        '{"problem": "p", "answer": "1", "more": ' + "[" * 100_000 + "]" * 100_000 + "}"
    )
    with pytest.raises(ValueError, match="deep.jsonl, line 1: not valid JSON"):
        load_problems(str(tmp_path / "deep.jsonl"))


def test_prompt_hash_changes_with_wording_and_examples_only(tmp_path):
    boxed, bare, shots = PROMPTS / "boxed.txt", PROMPTS / "bare.txt", PROMPTS / "four_shot.jsonl"
    hashes = [prompt_hash(boxed), prompt_hash(bare), prompt_hash(boxed, shots)]
    hashes += [prompt_hash(boxed, None, "Be brief."), prompt_hash(boxed, None, "", '{"enable_thinking": false}')]
    assert prompt_hash(boxed, None, "", "{}") == hashes[0]
    assert len(set(hashes)) == 5 and all(len(h) == 12 and int(h, 16) >= 0 for h in hashes)
    (tmp_path / "copy.txt").write_text(boxed.read_text(encoding="utf-8"), encoding="utf-8")
    assert prompt_hash(tmp_path / "copy.txt") == hashes[0]


def test_long_work_on_prompts_shows_how_far_it_is(monkeypatch):
    shown = []

    @contextmanager
    def bar(name, total):
        shown.append((name, total))
        yield SimpleNamespace(update=shown.append)

    monkeypatch.setattr(data, "progress_bar", bar)
    problems = [problem_of(str(i)) for i in range(2500)]
    prompts = render_prompts(make_tokenizer(CHATML, has_bos=False), problems, PROMPTS / "bare.txt")
    assert [read_ids(ids) for ids in prompts[999:1001]] == [f"<s:user>{i}</s><s:assistant>" for i in (999, 1000)]
    assert shown == [("prompts", 2500), 1000, 1000, 500]


def test_prompts_without_room_for_a_response_are_dropped_and_named(capsys):
    problems = [replace(problem_of("x"), id=id) for id in "abcd"]
    prompts = [[1] * n for n in (3, 4, 5, 2)]
    assert fit_window(problems, prompts, 4) == ([problems[0], problems[3]], [[1] * 3, [1] * 2])
    line = capsys.readouterr().out
    assert "skipped 2 of 4" in line and line.endswith(": b, c\n")
    assert fit_window(problems, prompts, 6) == (problems, prompts)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="the shortest of 4 has 2: raise --max-total-tokens"):
        fit_window(problems, prompts, 2)


def test_scripts_get_the_wording_of_the_training_set_or_the_one_they_name(tmp_path):
    tokenizer = make_tokenizer(CHATML, has_bos=False)
    args = SimpleNamespace(
        dataset="toy", prompt_file="", examples_file="", system_prompt="", chat_template_kwargs="", max_total_tokens=40
    )
    problems = [problem_of("1+1?"), problem_of("1" * 40)]
    kept, prompts = load_prompts(tokenizer, problems, args)
    assert kept == problems[:1] and [read_ids(ids) for ids in prompts] == ["<s:user>1+1?</s><s:assistant>"]
    (tmp_path / "ask.txt").write_text("Ask {problem}")
    args.prompt_file = str(tmp_path / "ask.txt")
    assert read_ids(load_prompts(tokenizer, problems, args)[1][0]) == "<s:user>Ask 1+1?</s><s:assistant>"


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(("num_problems", "batch_size"), [(10, 5), (10, 4), (7, 3), (8, 8), (1, 1), (30, 8)])
def test_a_problem_occurs_once_an_epoch_except_those_of_the_remainder(num_problems, batch_size):
    per_epoch, left_out = num_problems // batch_size, Counter()
    for epoch in range(200):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = [i for step in steps for i in batch_indices(num_problems, batch_size, 1, step)]
        assert len(seen) == len(set(seen)) == per_epoch * batch_size
        left_out.update(set(range(num_problems)) - set(seen))
    if num_problems % batch_size:  # the remainder is another one in every epoch, so nothing is left out for good
        expected = 200 * (num_problems % batch_size) / num_problems
        assert all(0.5 * expected < left_out[i] < 1.5 * expected for i in range(num_problems))


@pytest.mark.parametrize("batch_size", [32, 64, 128])
def test_no_batch_of_500_steps_on_7500_problems_holds_a_problem_twice(batch_size):
    for seed in (15, 42):  # with seed 15 and 32 problems a step, step 234 spans the end of the first epoch
        for step in range(500):
            assert len(set(batch_indices(7500, batch_size, seed, step))) == batch_size


def test_fewer_problems_than_a_batch_has_are_refused():
    with pytest.raises(ValueError, match="--num-problems 32: .* only 30 problems .* choose --num-problems 30 or fewer"):
        batch_indices(30, 32, 1, 0)


def test_batches_are_a_pure_function_of_seed_and_step():
    def stream(seed, steps):
        return {step: batch_indices(100, 8, seed, step) for step in steps}

    forward = stream(0, range(30))
    np.random.seed(5)  # no global generator is read
    assert stream(0, reversed(range(30))) == forward
    assert all(type(i) is int for batch in forward.values() for i in batch)
    assert stream(1, range(30)) != forward
    orders = [[i for step in range(25) for i in batch_indices(100, 4, 0, 25 * epoch + step)] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4  # every epoch has an order of its own
    assert list(range(100)) not in orders
    assert batch_indices(5, 5, 42, 0) == [0, 3, 1, 4, 2]  # the same on every machine
    assert batch_indices(7, 4, 42, 3) == [6, 4, 2, 3]


def test_a_validation_subset_of_the_training_set_is_independent_of_the_first_batches(tmp_path):
    path = write_lines(tmp_path / "set.jsonl", *({"problem": str(i), "answer": "1"} for i in range(1000)))
    shared = 0
    for seed in range(20):
        args = SimpleNamespace(dataset=path, validation_dataset=path, validation_size=100, seed=seed)
        subset = {int(problem.problem) for problem in load_validation(args)}
        first = {i for step in range(10) for i in batch_indices(1000, 10, seed, step)}
        shared += len(subset & first)
    assert 140 < shared < 260  # 200 are expected of 20 independent pairs, with a deviation of about 12; before: 2000
