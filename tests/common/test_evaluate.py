"""Evaluation from end to end with a sampler that says what it is told, and with the miniature."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

from common import evaluate as module
from common.data import Problem
from common.evaluate import Args, aggregate, evaluate, ks, main, problem_metrics, results_dir, summarise
from common.grading import Grader
from common.rollout import Rollout

STOP = 0


class Letters:
    """A tokenizer: one token a character, 0 ends."""

    def batch_decode(self, rows, skip_special_tokens=True):
        return ["".join(map(chr, row)) for row in rows]


class FakeSampler:
    """Gives response `said[problem id][sample]`, the last character replaced by nothing where it is cut ("…")."""

    def __init__(self, said):
        self.said, self.calls = said, []

    def generate(self, prompts, n, max_total_tokens, seed, step=0, problem_ids=None, temperature=1.0):
        self.calls.append((list(problem_ids), n, seed, step, temperature))
        texts = [self.said[id][i] for id in problem_ids for i in range(n)]
        finished = [not text.endswith("…") for text in texts]
        responses = [
            [ord(c) for c in text.rstrip("…")] + [STOP] * end for text, end in zip(texts, finished, strict=True)
        ]
        return Rollout(prompts, responses, [[-0.5] * len(r) for r in responses], finished, n)


SAID = {
    "a": [r"\boxed{7}", r"\boxed{7}", r"\boxed{8}", r"so it is 7"],
    "b": [r"\boxed{1/2}", r"\boxed{0.5}", r"\boxed{3}", r"nothing…"],
    "c": [r"nothing", r"\boxed{5", r"\boxed{6}…", r"?"],
}
PROBLEMS = [
    Problem("a", "?", "7", "made", 1, "algebra"),
    Problem("b", "?", "4", "made", 2, "algebra", frozenset({"authors"})),
    Problem("c", "?", "6", "made", None, None),
]
PROMPTS = [[65, 66], [65], [65, 66, 67]]


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=1) as grader:
        yield grader


def run(grader, problems=PROBLEMS, prompts=PROMPTS, **changes):
    settings = dict(n=4, max_total_tokens=64, stop_ids=[STOP], seed=3)
    return evaluate(FakeSampler(SAID), Letters(), problems, prompts, grader, **settings | changes)


def test_evaluate_gives_the_metrics_of_known_responses(grader):
    metrics = run(grader)
    assert metrics["pass_at_1"] == pytest.approx((3 / 4 + 0 + 1 / 4) / 3)
    assert metrics["pass_at_2"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert metrics["pass_at_4"] == pytest.approx((1 + 0 + 1) / 3)
    assert metrics["maj_at_4"] == pytest.approx((1 + 0 + 1) / 3)
    assert metrics["finished_frac"] == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    lengths = [[len(t.rstrip("…")) + (not t.endswith("…")) for t in said] for said in SAID.values()]
    assert metrics["response_length"] == pytest.approx(sum(sum(row) / 4 for row in lengths) / 3)
    assert metrics["timed_out_frac"] == 0
    assert metrics["authors"] == metrics["pass_at_1"]
    assert metrics["honest"] == pytest.approx((3 / 4 + 1 / 4) / 2)  # "b" is of a reported set
    for key in ("pass_at_1", "pass_at_4", "maj_at_4", "response_length", "finished_frac", "authors", "honest"):
        assert metrics[f"{key}_se"] >= 0
    assert metrics["pass_at_1_se"] > 0


def test_the_strict_verdict_wants_a_box(grader):
    assert run(grader, verdict="strict")["pass_at_1"] == pytest.approx((2 / 4 + 0 + 1 / 4) / 3)


def test_every_response_has_one_verdict_whether_readable_or_not(grader):
    records = module.sample_and_grade(
        FakeSampler(SAID), Letters(), grader, PROBLEMS, PROMPTS, n=4, max_total_tokens=64, stop_ids=[STOP], seed=3
    )
    lists = ("responses", "tokens", "finished", "logp", "authors", "strict", "answers", "votes", "classes", "timed_out")
    assert all(len(record[key]) == 4 for record in records for key in lists)
    assert records[1]["answers"] == ["1/2", "0.5", "3", None]
    assert records[1]["classes"] == [0, 0, 1, None]  # the wrong majority is one class, however spelled
    assert records[2]["authors"] == [False, False, True, False]
    assert records[0]["logp"][0] == -0.5 * (len(r"\boxed{7}") + 1)
    assert records[0]["generated_tokens"] == sum(records[0]["tokens"])


def test_selections_without_problems_are_absent_and_repeats_are_one_problem(grader):
    assert "honest" not in run(grader, [PROBLEMS[1]], [[65]])
    twice = [replace(p, id=f"{p.id}#{i}") for i in range(2) for p in PROBLEMS]
    said = {p.id: SAID[p.id[0]] for p in twice}
    settings = dict(n=4, max_total_tokens=64, stop_ids=[STOP], seed=3)
    both = evaluate(FakeSampler(said), Letters(), twice, PROMPTS * 2, grader, **settings)
    once = run(grader)
    assert {key: both[key] for key in once} == pytest.approx(once)


def test_ks():
    assert ks(1) == [1] and ks(16) == [1, 2, 4, 8, 16] and ks(6) == [1, 2, 4, 6]


def test_results_of_a_checkpoint_go_to_its_run(tmp_path, monkeypatch):
    checkpoint = tmp_path / "runs" / "x" / "checkpoints" / "step_000100"
    checkpoint.mkdir(parents=True)
    assert results_dir(str(checkpoint)) == tmp_path / "runs" / "x" / "results" / "step_000100"
    monkeypatch.chdir(checkpoint)
    assert results_dir(".") == tmp_path / "runs" / "x" / "results" / "step_000100"
    assert str(results_dir("Qwen/Qwen2.5-3B-Instruct")) == "results/Qwen2.5-3B-Instruct"
    assert str(results_dir("toy")) == "results/toy"
    assert str(results_dir("toy", "elsewhere")) == "elsewhere"


@pytest.fixture
def program(tmp_path, monkeypatch, grader):
    """`main` on a file of problems and a fake model; gives a function that runs it and the folder it writes to."""
    data = tmp_path / "made.jsonl"
    rows = [{"id": p.id, "problem": "?", "answer": p.answer, "level": p.level, "subject": p.subject} for p in PROBLEMS]
    data.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    wording = tmp_path / "prompt.txt"
    wording.write_text("{problem}")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_: Letters())
    monkeypatch.setattr("common.rollout.stop_token_ids", lambda *_: [STOP])
    monkeypatch.setattr(module, "resolve_model", lambda name: name)
    monkeypatch.setattr(module, "Grader", lambda *_: nullcontext(grader))
    monkeypatch.setattr("common.data.render_prompts", lambda _, problems, *__: [[65]] * len(problems))
    out = tmp_path / "out"

    def run_program(sampler=None, **changes):
        arguments = dict(model="toy", dataset=[str(data)], n=4, output_dir=str(out), prompt_file=str(wording))
        return main(Args(**arguments | dict(batch_size=1) | changes), sampler or FakeSampler(SAID))

    return run_program, out


def test_the_program_writes_results_and_responses(program, capsys):
    run_program, out = program
    (summary,) = run_program()
    results = json.loads((out / "made__n4__seed1.json").read_text())
    lines = [json.loads(line) for line in (out / "made__n4__seed1.responses.jsonl").read_text().splitlines()]
    assert results["schema"] == 1 and results["method"] == "sampling" and results["settings"]["seed"] == 1
    assert results["metrics"] == summary["metrics"]
    assert results["metrics"]["authors"]["pass_at_4"] == pytest.approx(2 / 3)
    assert results["metrics"]["strict"]["pass_at_1"] == pytest.approx(1 / 4)
    assert results["by_level"]["authors"]["1"]["pass_at_1"] == 3 / 4
    assert results["by_subject"]["authors"]["algebra"]["problems"] == 2
    assert [p["id"] for p in results["problems"]] == ["a", "b", "c"] and "responses" not in results["problems"][0]
    assert lines[0]["settings"] == results["settings"] and lines[1]["responses"] == SAID["a"]
    assert results["generated_tokens"] == sum(sum(p["tokens"]) for p in results["problems"])
    assert results["versions"]["math-verify"]
    table = capsys.readouterr().out
    assert "Pass@1 %" in table and "33.3 ±" in table and str(out) in table


def test_repeats_have_a_file_each_and_a_summary_over_problems(program):
    run_program, out = program
    sampler = FakeSampler(SAID)
    (summary,) = run_program(sampler, repeats=3)
    assert {seed for _, _, seed, *_ in sampler.calls} == {1, 2, 3}
    assert sorted(p.stem[10:] for p in out.glob("*.json")) == ["seed1", "seed2", "seed3", "seeds1-3"]
    one = json.loads((out / "made__n4__seed1.json").read_text())["metrics"]
    assert summary["metrics"]["authors"] == pytest.approx(one["authors"])  # equal repeats: same mean, same error


def test_a_stopped_evaluation_goes_on_where_it_was(program):
    run_program, out = program
    run_program()
    whole = (out / "made__n4__seed1.json").read_text()
    path = out / "made__n4__seed1.responses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # killed in the middle of the second problem's line
    sampler = FakeSampler(SAID)
    run_program(sampler)
    assert [ids for ids, *_ in sampler.calls] == [["b"], ["c"]]
    again, before = json.loads((out / "made__n4__seed1.json").read_text()), json.loads(whole)
    assert again["metrics"] == before["metrics"] and len(path.read_bytes().splitlines()) == 4
    sampler = FakeSampler(SAID)
    run_program(sampler)
    assert sampler.calls == []


def test_other_settings_are_refused_in_one_line(program):
    run_program, _ = program
    run_program()
    with pytest.raises(ValueError, match=r"temperature 1.0, now 0.5.*--output-dir") as error:
        run_program(temperature=0.5)
    assert "\n" not in str(error.value)


def test_limit_takes_the_first_problems_and_can_be_raised_later(program):
    run_program, out = program
    run_program(limit=1)
    assert len(json.loads((out / "made__n4__seed1.json").read_text())["problems"]) == 1
    sampler = FakeSampler(SAID)
    run_program(sampler)
    assert [ids for ids, *_ in sampler.calls] == [["b"], ["c"]]


IMPOSSIBLE = [{"n": 0}, {"repeats": 0}, {"temperature": -1.0}, {"temperature": 0.0}, {"batch_size": 0}]


@pytest.mark.parametrize("changes", IMPOSSIBLE)
def test_impossible_arguments_are_refused_and_leave_no_file(program, changes):
    run_program, out = program
    with pytest.raises(ValueError, match="at least|--n 1"):
        run_program(**changes)
    assert not out.exists()


def test_aggregate_of_two_verdicts_is_over_problems_not_responses():
    shared = {"tokens": [1, 3], "finished": [True, False], "timed_out": [False] * 2, "votes": ["1", "2"]}
    x = {"id": "x", "level": 1, "authors": [True, True], "strict": [True, False], "classes": [0, 0]}
    y = {"id": "y", "level": 2, "authors": [True, False], "strict": [False, False], "classes": [0, 1]}
    records = [shared | {"subject": None} | x, shared | {"subject": None} | y]
    summary = summarise(records)
    assert summary["metrics"]["authors"]["pass_at_1"] == 0.75
    assert summary["metrics"]["authors"]["pass_at_1_se"] == pytest.approx(0.25)  # values 1 and 0.5
    assert summary["metrics"]["strict"]["pass_at_2"] == 0.5
    assert summary["by_level"]["strict"]["2"]["pass_at_2"] == 0.0 and summary["by_subject"]["strict"] == {}
    rows = [problem_metrics(r, "authors") for r in records]
    assert aggregate(["x", "y"], rows)["maj_at_2"] == 0.75


def test_the_miniature_from_end_to_end(toy_dir, tmp_path):
    args = Args(model="toy", dataset=["toy_test"], n=4, limit=16, max_total_tokens=128)
    args.output_dir, args.num_grading_workers = str(tmp_path), 1
    (summary,) = main(args)
    metrics = summary["metrics"]["authors"]
    assert 0.1 < metrics["pass_at_1"] < 0.9 and metrics["pass_at_1"] < metrics["pass_at_4"] <= 1
    assert metrics["finished_frac"] > 0.8 and 5 < metrics["response_length"] < 128
    results = json.loads((tmp_path / "toy_test__n4__seed1.json").read_text())
    assert results["metrics"]["strict"]["pass_at_1"] == pytest.approx(metrics["pass_at_1"], abs=0.05)
    assert all(logp < 0 for problem in results["problems"] for logp in problem["logp"])
