"""Evaluation from end to end with a sampler that says what it is told, and with the miniature."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ParityGrader, sums, tiny_model

from common import evaluate as module
from common.data import Problem
from common.evaluate import (
    VERDICTS,
    Args,
    aggregate,
    evaluate,
    ks,
    main,
    problem_metrics,
    results_dir,
    summarise,
    validate,
)
from common.grading import Grader
from common.rollout import Rollout
from common.run.checkpoint import without_nan

STOP = 0


class Letters:
    """A tokenizer: one token a character, 0 ends."""

    def batch_decode(self, rows, skip_special_tokens=True):
        return ["".join(map(chr, row)) for row in rows]


class FakeSampler:
    """Returns response `said[problem id][sample]`, the last character replaced by nothing where it is cut ("…")."""

    def __init__(self, said):
        self.said, self.calls = said, []

    stop_ids = [STOP]

    def generate(self, prompts, n, max_total_tokens, seed, problem_ids=None, temperature=1.0, stream="train", **_):
        self.calls.append((list(problem_ids), n, seed, stream, temperature))
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


def test_validation_logs_every_data_set_under_its_own_name(grader):
    problems = [PROBLEMS[0], replace(PROBLEMS[1], dataset="reported"), PROBLEMS[2]]
    sampler = FakeSampler(SAID)
    args = SimpleNamespace(max_total_tokens=64, seed=3)
    figures = validate(sampler, Letters(), grader, problems, PROMPTS, args)
    assert figures["eval/made/pass_at_1"] == 0.5 and figures["eval/reported/pass_at_1"] == 0
    assert figures["eval/made/response_length"] == (10 + 8) / 2 and figures["eval/reported/response_length"] == 12
    assert figures["eval/authors"] == pytest.approx(1 / 3) and figures["eval/held_out"] == 0.5
    keys = {f"eval/{name}" for name in ("authors", "held_out")}
    keys |= {f"eval/{name}/{key}" for name in ("made", "reported") for key in ("pass_at_1", "response_length")}
    assert set(figures) == keys | {f"{key}_se" for key in keys}
    assert [stream for *_, stream, _ in sampler.calls] == ["validation"]


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
    assert metrics["held_out"] == pytest.approx((3 / 4 + 1 / 4) / 2)  # "b" is of a reported set
    for key in ("pass_at_1", "pass_at_4", "maj_at_4", "response_length", "finished_frac", "authors", "held_out"):
        assert metrics[f"{key}_se"] >= 0
    assert metrics["pass_at_1_se"] > 0


def test_the_strict_verdict_wants_a_box(grader):
    assert run(grader, verdict="strict")["pass_at_1"] == pytest.approx((2 / 4 + 0 + 1 / 4) / 3)


def test_every_response_has_one_verdict_whether_readable_or_not(grader):
    records = module.sample_and_grade(
        FakeSampler(SAID),
        Letters(),
        grader,
        PROBLEMS,
        PROMPTS,
        n=4,
        max_total_tokens=64,
        stop_ids=[STOP],
        seed=3,
        stream="evaluate made",
    )
    lists = ("responses", "tokens", "finished", "logp", "authors", "strict", "answers", "votes", "classes", "timed_out")
    assert all(len(record[key]) == 4 for record in records for key in lists)
    assert records[1]["answers"] == ["1/2", "0.5", "3", None]
    assert records[1]["classes"] == [0, 0, 1, None]  # the wrong majority is one class, however spelled
    assert records[2]["authors"] == [False, False, True, False]
    assert records[0]["logp"][0] == -0.5 * (len(r"\boxed{7}") + 1)
    assert records[0]["generated_tokens"] == sum(records[0]["tokens"])


def test_selections_without_problems_are_absent_and_repeats_are_one_problem(grader):
    assert "held_out" not in run(grader, [PROBLEMS[1]], [[65]])
    twice = [replace(p, id=f"{p.id}{i}", repeat_of=p.id) for i in range(2) for p in PROBLEMS]
    said = {p.id: SAID[p.repeat_of] for p in twice}
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


def write_problems(path, problems):
    rows = [{"id": p.id, "problem": "?", "answer": p.answer, "level": p.level, "subject": p.subject} for p in problems]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    return path


@pytest.fixture
def program(tmp_path, monkeypatch, grader):
    """`main` on a file of problems and a fake model; gives a function that runs it and the folder it writes to."""
    data = write_problems(tmp_path / "made.jsonl", PROBLEMS)
    wording = tmp_path / "prompt.txt"
    wording.write_text("{problem}")
    monkeypatch.setattr(module, "load_tokenizer", lambda _: Letters())
    monkeypatch.setattr("common.rollout.stop_token_ids", lambda *_: [STOP])
    monkeypatch.setattr(module, "resolve_model", lambda name, *_: name)
    monkeypatch.setattr(module, "model_hash", lambda _: "0123456789ab")
    monkeypatch.setattr("common.data.render_prompts", lambda _, problems, *__: [[65]] * len(problems))
    out = tmp_path / "out"

    def run_program(sampler=None, **changes):
        arguments = dict(model="toy", dataset=[str(data)], n=4, output_dir=str(out), prompt_file=str(wording))
        return main(Args(**arguments | dict(batch_size=1) | changes), sampler or FakeSampler(SAID), grader)

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
    names = [f"made__n4__seed{seed}.json" for seed in (1, 2, 3)]
    assert sorted(p.name for p in out.glob("*.json")) == [*names, "summary.json"]
    assert (summary["files"], summary["seeds"]) == (names, [1, 2, 3])
    one = json.loads((out / "made__n4__seed1.json").read_text())["metrics"]
    assert summary["metrics"]["authors"] == pytest.approx(one["authors"])  # equal repeats: same mean, same error


def as_json(value) -> str:
    """Text as in the files: nan, the standard error of a single problem, is null there, and not equal to itself."""
    return json.dumps(without_nan(value))


def summary_of(folder) -> str:
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["schema"] == 1
    return as_json(summary["results"])


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_sampled(program, tmp_path, monkeypatch):
    run_program, out = program
    (tmp_path / "file").touch()
    sampler = FakeSampler(SAID)
    for place in ("file", "file/below"):
        with pytest.raises(ValueError, match=f"cannot be written to .*{place}: .*file is no folder .*--output-dir"):
            run_program(sampler, output_dir=str(tmp_path / place))
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(ValueError, match="is no folder that can be written to"):
            run_program(sampler)
    assert sampler.calls == [] and not out.exists()


def test_a_disk_that_fills_up_ends_an_evaluation_in_one_line(program, monkeypatch):
    run_program, _ = program

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(
        OSError, match=r"responses.jsonl could not be written \(.*No space left.*start the same command"
    ):
        run_program()


def test_with_one_sample_the_table_shows_pass_at_1_once(program, capsys):
    run_program, _ = program
    run_program(n=1)
    assert capsys.readouterr().out.count("Pass@1 %") == 1


def test_the_unknown_error_of_a_single_problem_is_null_in_valid_json(program):
    run_program, out = program
    run_program(FakeSampler(SAID), limit=1)
    for path in (out / "made__n4__seed1.json", out / "summary.json"):
        content = json.loads(path.read_text(), parse_constant=pytest.fail)  # called for NaN and infinity
        metrics = content.get("results", [content])[0]["metrics"]["authors"]
        assert metrics["pass_at_1"] is not None and metrics["pass_at_1_se"] is None


def test_the_summary_keeps_other_rows_and_replaces_its_own(program):
    run_program, out = program
    first = run_program(limit=1) + run_program(n=2)
    assert summary_of(out) == as_json(first)
    assert [row["n"] for row in first] == [4, 2]
    again = run_program(limit=2)
    assert summary_of(out) == as_json([first[1], *again])
    (row,) = again
    assert (row["checkpoint"], row["step"], row["method"], row["dataset"]) == (None, None, "sampling", "made")
    assert row["problems"] == 2 and row["files"] == ["made__n4__seed1.json"] and "seed" not in row["settings"]
    results = json.loads((out / row["files"][0]).read_text())
    for key in ("metrics", "by_level", "by_subject", "seconds", "generated_tokens"):
        assert as_json(row[key]) == as_json(results[key])


# --- the checkpoints of a run -----------------------------------------------------------------------------------------


@pytest.fixture
def training_run(tmp_path):
    """A run folder with three random models; the best by the authors' selection is step 20, by ours the last."""
    folder = tmp_path / "runs" / "x__tiny__1"
    for step in (0, 20, 40):
        tiny_model(folder / "checkpoints" / f"step_{step:06d}", seed=step)
    for selection, step in (("authors", 20), ("held_out", 40)):
        best = {"step": step, "accuracy": 0.5, "checkpoint": f"step_{step:06d}"}
        (folder / "checkpoints" / f"best_{selection}.json").write_text(json.dumps(best))
    (folder / "args.json").write_text('{"num_steps": 40}')
    sums(tmp_path, 5)
    return folder


def evaluate_run(folder, **changes):
    data = folder.parents[1]
    arguments = dict(dataset=[str(data / "problems.jsonl")], prompt_file=str(data / "bare.txt"), n=2)
    arguments |= dict(max_total_tokens=20, sampler="transformers")
    return main(Args(**arguments | changes), grader=ParityGrader())


def test_an_evaluation_with_other_prompts_than_training_says_so(training_run, capsys):
    """Evaluation takes the prompt of the data set; a run on a prompt of its own was evaluated on another unnoticed."""
    wording = str(training_run.parents[1] / "bare.txt")
    trained = {"num_steps": 40, "prompt_file": wording, "system_prompt": "Be brief.", "examples_file": ""}
    (training_run / "args.json").write_text(json.dumps(trained))
    evaluate_run(training_run, run=[str(training_run)], n=1)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "trained with --system-prompt 'Be brief.', and this evaluation has none" in notes[0]
    evaluate_run(training_run, run=[str(training_run)], n=1, system_prompt="Be brief.", output_dir=wording + ".results")
    assert "note: " not in capsys.readouterr().out


NAMES = ["last", "best_authors", "best_held_out"]


def test_named_checkpoints_are_evaluated_once_each_with_one_engine(training_run, tmp_path, monkeypatch, capsys):
    started, real = [], module.rollout.start_sampler
    monkeypatch.setattr(module.rollout, "start_sampler", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    rows = evaluate_run(training_run, run=[str(training_run)], checkpoint=[*NAMES, "last"])
    assert len(started) == 1 and capsys.readouterr().out.count("5/5 problems") == 2
    assert [(row["checkpoint"], row["step"]) for row in rows] == [
        ("last", 40),
        ("best_held_out", 40),
        ("best_authors", 20),
    ]
    results = training_run / "results"
    assert json.loads((results / "summary.json").read_text()) == {"schema": 1, "results": rows}
    assert [row["files"] for row in rows] == [[f"step_0000{step}/problems__n2__seed1.json"] for step in (40, 40, 20)]
    for row, other in zip(rows[1:], (0, 20), strict=True):  # what the engine of each checkpoint alone would give
        step = training_run / "checkpoints" / f"step_{row['step']:06d}"
        (alone,) = evaluate_run(training_run, model=str(step), output_dir=str(tmp_path / f"alone{other}"))
        assert {key: row[key] for key in ("metrics", "by_level")} == {
            key: alone[key] for key in ("metrics", "by_level")
        }
        files = results / row["files"][0], tmp_path / f"alone{other}" / alone["files"][0]
        logps, tokens = (
            [[p[key] for p in json.loads(file.read_text())["problems"]] for file in files] for key in ("logp", "tokens")
        )
        assert logps[0] == logps[1] and tokens[0] == tokens[1]
    assert rows[0]["metrics"] != rows[2]["metrics"]


def test_a_run_evaluated_again_samples_nothing_and_follows_a_new_best(training_run, monkeypatch, capsys):
    before = evaluate_run(training_run, run=[str(training_run)], checkpoint=NAMES)
    assert "has not reached" not in capsys.readouterr().out
    (training_run / "args.json").write_text('{"num_steps": 60}')
    evaluate_run(training_run, run=[str(training_run)])
    assert "has not reached step 60 yet: its last checkpoint is step_000040" in capsys.readouterr().out
    (training_run / "checkpoints" / "best_authors.json").write_text(json.dumps({"checkpoint": "step_000040"}))
    monkeypatch.setattr(module.rollout, "start_sampler", None)
    rows = evaluate_run(training_run, run=[f"{training_run.parent}/x__*"], checkpoint=["best_authors"])
    assert [(row["checkpoint"], row["step"]) for row in rows] == [("best_authors", 40)]
    summary = json.loads((training_run / "results" / "summary.json").read_text())["results"]
    assert [row["checkpoint"] for row in summary] == ["best_held_out", "last", "best_authors"]
    assert summary[:2] == [before[1], before[0]] and summary[2] == rows[0]


def test_a_given_sampler_gets_the_weights_of_each_checkpoint(training_run, tmp_path):
    base = tiny_model(tmp_path / "base", seed=7)
    options = dict(n=2, max_total_tokens=20, dataset=[str(tmp_path / "problems.jsonl")], checkpoint=["step_000020"])
    args = Args(run=[str(training_run)], prompt_file=str(tmp_path / "bare.txt"), **options)
    (row,) = main(args, module.rollout.start_sampler("transformers", base, 20), ParityGrader())
    (alone,) = evaluate_run(training_run, model=str(training_run / "checkpoints" / "step_000020"), output_dir=str(base))
    assert row["metrics"] == alone["metrics"] and (alone["checkpoint"], alone["step"]) == (None, 20)


@pytest.mark.long
def test_checkpoints_are_pushed_into_one_vllm_engine(training_run, tmp_path):
    """Greedy answers of two checkpoints through one engine are those of transformers."""
    pytest.importorskip("vllm")
    for step in (20, 40):
        shutil.rmtree(training_run / "checkpoints" / f"step_{step:06d}")
        tiny_model(training_run / "checkpoints" / f"step_{step:06d}", "qwen3", seed=step, head_dim=32)
    options = dict(run=[str(training_run)], checkpoint=["last", "best_authors"], n=1, temperature=0.0)
    answers = []
    for sampler in ("vllm", "transformers"):
        rows = evaluate_run(training_run, sampler=sampler, output_dir=str(tmp_path / sampler), **options)
        files = [tmp_path / sampler / row["files"][0].replace(".json", ".responses.jsonl") for row in rows]
        lines = [[json.loads(line) for line in file.read_text().splitlines()[1:]] for file in files]
        answers.append([[line["responses"] for line in checkpoint] for checkpoint in lines])
    assert answers[0] == answers[1] and answers[0][0] != answers[0][1]


def test_what_names_no_run_or_no_checkpoint_is_refused(training_run):
    runs = training_run.parent
    shutil.copytree(training_run, runs / "x__tiny__2")
    both = [str(training_run), str(runs / "x__tiny__2")]
    for changes, message in (
        (dict(run=[f"{runs}/x__*"]), "must name one run folder and names 2: .*x__tiny__1, .*x__tiny__2"),
        (dict(run=both), "must name one run folder and names 2"),  # what a shell makes of a pattern
        (dict(run=[f"{runs}/y__*"]), "must name one run folder and names 0"),
        (dict(run=[str(runs)]), "must name one run folder and names 0"),
        (dict(run=both[:1], checkpoint=["best_of_all"]), "best_of_all: .* has step_000000, step_000020, step_000040"),
        (dict(run=both[:1], model="toy"), "either a model .* or a training run"),
        (dict(), "either a model .* or a training run"),
        (dict(run=both[:1], checkpoint=[]), "--checkpoint needs at least one name"),
        (dict(run=both[:1], dataset=[]), "--dataset needs at least one name"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_run(training_run, **changes)
    assert not (training_run / "results").exists()


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


def test_a_data_set_may_have_any_name(program, tmp_path):
    run_program, out = program
    data = [str(write_problems(tmp_path / "a[1]*.jsonl", PROBLEMS))]
    (row,) = run_program(dataset=data)
    assert row["files"] == ["a[1]*__n4__seed1.json"]
    sampler = FakeSampler(SAID)
    assert run_program(sampler, dataset=data)[0]["metrics"] == row["metrics"] and sampler.calls == []


def test_other_settings_are_refused_in_one_line(program):
    run_program, _ = program
    run_program()
    with pytest.raises(ValueError, match=r"temperature 1.0, now 0.5.*--output-dir") as error:
        run_program(temperature=0.5)
    assert "\n" not in str(error.value)


def test_ids_with_a_number_sign_are_problems_of_their_own(grader):
    problems = [replace(p, id=f"train#{i}") for i, p in enumerate(PROBLEMS)]
    said = {p.id: SAID["abc"[i]] for i, p in enumerate(problems)}
    settings = dict(n=4, max_total_tokens=64, stop_ids=[STOP], seed=3)
    metrics = evaluate(FakeSampler(said), Letters(), problems, PROMPTS, grader, **settings)
    assert metrics == run(grader) and metrics["pass_at_1_se"] > 0


def corrected(tmp_path):
    return write_problems(tmp_path / "made.jsonl", [PROBLEMS[0], replace(PROBLEMS[1], answer="3"), PROBLEMS[2]])


def another(tmp_path):
    return write_problems(tmp_path / "other" / "made.jsonl", [replace(p, id=f"{p.id}2") for p in PROBLEMS])


def longer(tmp_path):
    return write_problems(tmp_path / "made.jsonl", [*PROBLEMS, replace(PROBLEMS[0], id="d")])


@pytest.mark.parametrize("change", [corrected, another, longer])
def test_results_of_other_problems_under_the_same_name_are_refused(program, tmp_path, change):
    run_program, out = program
    run_program()
    before, sampler = (out / "made__n4__seed1.json").read_text(), FakeSampler(SAID)
    with pytest.raises(ValueError, match="made__n4__seed1.responses.jsonl.*the data set has changed, or another one"):
        run_program(sampler, dataset=[str(change(tmp_path))], limit=2)
    assert sampler.calls == [] and (out / "made__n4__seed1.json").read_text() == before


def test_results_of_another_model_template_stop_token_or_verdict_are_refused(program, monkeypatch):
    run_program, _ = program
    run_program()
    changes = {
        "the model's weights": (module, "model_hash", lambda _: "ba9876543210"),
        "the chat template": ("common.data.render_prompts", lambda _, problems, *__: [[66]] * len(problems)),
        "stop_ids": ("common.rollout.stop_token_ids", lambda *_: [STOP, 1]),
        "answers are graded by other rules": (module, "VERDICTS_VERSION", module.VERDICTS_VERSION + 1),
    }
    for message, change in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            with pytest.raises(ValueError, match=message):
                run_program()
    monkeypatch.setattr(module, "version", lambda _: "0.0.1")
    with pytest.raises(ValueError, match="math-verify 0.0.1"):
        run_program()


def test_a_model_of_another_name_and_the_same_content_goes_on(program):
    run_program, _ = program
    run_program()
    sampler = FakeSampler(SAID)
    run_program(sampler, model="moved/toy")
    assert sampler.calls == []


def test_two_data_sets_of_one_name_are_refused(program, tmp_path):
    run_program, out = program
    sets = [str(tmp_path / "made.jsonl"), str(another(tmp_path))]
    with pytest.raises(ValueError, match="both are called 'made'"):
        run_program(dataset=sets)
    assert not out.exists()


def test_the_hash_of_a_model_folder_changes_with_any_byte_of_it(tmp_path):
    folder = tiny_model(tmp_path / "a")
    before = module.model_hash(str(folder))
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "notes.md").write_text("mine")
    assert module.model_hash(str(tmp_path / "b")) == before
    weights = folder / "model.safetensors"
    content, times = bytearray(weights.read_bytes()), weights.stat()
    content[len(content) // 2 + 1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))  # a clock may be coarse
    assert module.model_hash(str(folder)) != before
    with (tmp_path / "b" / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert module.model_hash(str(tmp_path / "b")) != before


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr("common.run.checkpoint.cached_file", lambda name, file: str(snapshot / file))
    assert module.model_hash("org/name") == f"org/name@{'a' * 40}"


def test_limit_takes_the_first_problems_and_can_be_raised_later(program):
    run_program, out = program
    run_program(limit=1)
    assert len(json.loads((out / "made__n4__seed1.json").read_text())["problems"]) == 1
    sampler = FakeSampler(SAID)
    run_program(sampler)
    assert [ids for ids, *_ in sampler.calls] == [["b"], ["c"]]


def test_results_are_not_replaced_by_those_of_fewer_problems(program):
    run_program, out = program
    run_program()
    before = (out / "made__n4__seed1.json").read_text()
    with pytest.raises(ValueError, match=r"has 3 problems, and 1 would replace them: raise --limit"):
        run_program(limit=1)
    assert (out / "made__n4__seed1.json").read_text() == before


IMPOSSIBLE = [{"n": 0}, {"repeats": 0}, {"temperature": -1.0}, {"temperature": 0.0}, {"batch_size": 0}]


@pytest.mark.parametrize("changes", IMPOSSIBLE)
def test_impossible_arguments_are_refused_and_leave_no_file(program, changes):
    run_program, out = program
    with pytest.raises(ValueError, match="must be|--n 1"):
        run_program(**changes)
    assert not out.exists()


def test_aggregate_of_two_verdicts_is_over_problems_not_responses():
    shared = {
        "repeat_of": None,
        "tokens": [1, 3],
        "finished": [True, False],
        "timed_out": [False] * 2,
        "votes": ["1", "2"],
    }
    x = {"id": "x", "level": 1, "authors": [True, True], "strict": [True, False], "classes": [0, 0]}
    y = {"id": "y", "level": 2, "authors": [True, False], "strict": [False, False], "classes": [0, 1]}
    records = [shared | {"subject": None} | x, shared | {"subject": None} | y]
    summary = summarise(records)
    assert summary["metrics"]["authors"]["pass_at_1"] == 0.75
    assert summary["metrics"]["authors"]["pass_at_1_se"] == pytest.approx(0.25)  # unbiased: of 1 and 0.5
    assert summary["metrics"]["strict"]["pass_at_2"] == 0.5
    assert summary["by_level"]["strict"]["2"]["pass_at_2"] == 0.0 and summary["by_subject"]["strict"] == {}
    rows = [problem_metrics(r, "authors") for r in records]
    assert aggregate(["x", "y"], rows)["maj_at_2"] == 0.75


def test_a_summary_counts_problems_by_what_they_repeat_and_not_by_their_ids():
    shared = {"level": None, "subject": None, "tokens": [1], "finished": [True], "timed_out": [False], "votes": ["1"]}

    def error(repeats):
        records = [
            shared | {"id": f"train#{i}", "repeat_of": repeats(i), "classes": [0]} | dict.fromkeys(VERDICTS, [i < 25])
            for i in range(50)
        ]
        return summarise(records)["metrics"]["authors"]["pass_at_1_se"]

    assert error(lambda i: None) == pytest.approx(0.5 / 49**0.5)
    assert error(lambda i: f"train#{i % 25}") == 0  # of each problem one repeat is right and one is wrong


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
