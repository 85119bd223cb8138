"""small_model/page.py against made-up results: each verdict follows its rule, and turns when one number does."""

import json
from pathlib import Path

import pytest

from benchmark.small_model import page
from benchmark.small_model.page import Args, Measured

PROBLEMS, N = 40, 8
RISING = [20, 30, 40]  # validation accuracy at steps 0, 10, 20


def put(folder: Path, row: str, path: Path, per_cent: float, logp: float = -20.0) -> None:
    """Results of 40 problems with this accuracy by the strict verdict, and 10 points more by the authors'."""
    right = {"strict": round(PROBLEMS * per_cent / 100), "authors": round(PROBLEMS * (per_cent + 10) / 100)}
    problems = [
        {"id": f"p{i}", "seconds": 1.0, "generated_tokens": 20 * N, "tokens": [20] * N, "logp": [logp] * N}
        | {verdict: [i < count] * N for verdict, count in right.items()}
        for i in range(PROBLEMS)
    ]
    metrics = {
        verdict: {f"pass_at_{k}": count / PROBLEMS for k in (1, N)} | {f"pass_at_{k}_se": 0.01 for k in (1, N)}
        for verdict, count in right.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": {"torch": "2"}, "metrics": metrics, "problems": problems}))
    lines = [{"settings": {}}, *({"id": p["id"], "responses": ["so \\boxed{1}"] * N} for p in problems)]
    path.with_suffix(".responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "done").mkdir(exist_ok=True)
    (folder / "done" / row).touch()


def put_run(folder: Path, row: str, per_cent: float, logp: float, validation=RISING, rises: bool = True) -> None:
    run = folder / f"{row}__model__1__20260101-000000"
    put(folder, row, run / "results" / "step_000020" / "small_test__n8__seed1.json", per_cent)
    results = {"n": N, "checkpoint": "last", "step": 20, "metrics": {}}
    results["files"] = ["step_000020/small_test__n8__seed1.json"]
    (run / "results" / "summary.json").write_text(json.dumps({"results": [results]}))
    lines = []
    for step in range(21):
        line = {"step": step, "objective/return": step * (1.0 if rises else -1.0), "objective/logp_base": logp}
        line |= {"objective/kl_base": 1.0, "policy/entropy": 1.0, "policy/response_length": 20.0, "time/step": 30.0}
        if step % 10 == 0:
            accuracy = validation[step // 10] / 100
            line |= dict.fromkeys(("eval/authors", "eval/held_out"), accuracy)
            line |= dict.fromkeys(("eval/authors_se", "eval/held_out_se"), 0.01)
        lines.append(json.dumps(line) + "\n")
    (run / "metrics.jsonl").write_text("".join(lines))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Results that agree with every observation."""
    for temperature, (per_cent, logp) in {"1": (20, -30), "0.5": (40, -20), "0.25": (40, -15)}.items():
        row = f"plain_T{temperature}"
        put(tmp_path, row, tmp_path / "results" / row / "small_test__n8__seed1.json", per_cent, logp)
    for alpha, logp in ((2, -15), (4, -12)):
        row = f"power_exact_alpha{alpha}"
        put(tmp_path, row, tmp_path / "results" / f"{row}__small_test__n4__seed1.json", 40, logp)
    for width, per_cent, logp in ((1, 40, -11), (4, 10, -9)):
        for penalty in (0, 1):
            name = f"small_test__beam{width}__penalty{penalty}__vllm-0.11.json"
            put(tmp_path, f"beam{width}", tmp_path / "results" / name, per_cent, logp)
    for row in ("task", "task_seed2", "task_authors"):
        put_run(tmp_path, row, 50, -25)
    for row in ("sharpen", "sharpen_seed2"):
        put_run(tmp_path, row, 10, -8, validation=[20, 30, 10])
    put_run(tmp_path, "fixed_sharpen", 47.5, -8)
    put_run(tmp_path, "tilted_alpha2_betainf", 30, -10)
    put_run(tmp_path, "tilted_alpha2_beta1e-2", 45, -20)
    return tmp_path


def told(folder: Path) -> list[str]:
    page.read_results.cache_clear()
    return [*page.verdicts(Measured(folder))[1].values()]


def test_results_as_in_the_paper_agree_with_every_observation(folder):
    assert told(folder) == ["agree"] * 4


CHANGES = {  # what is changed: the observation that turns, and how
    "task_is_no_better": ((0, "disagree"), lambda f: [put_run(f, r, 20, -25) for r in ("task", "task_seed2")]),
    "nothing_bridges": ((0, "undecided"), lambda f: put_run(f, "fixed_sharpen", 40, -8)),
    "sharpening_always_helps": (
        (0, "disagree"),
        lambda f: [put_run(f, r, 40, -8, [20, 30, 10]) for r in ("sharpen", "sharpen_seed2")],
    ),
    "no_run_falls": (
        (1, "undecided"),
        lambda f: [put_run(f, r, 10, -8) for r in ("sharpen", "sharpen_seed2")],
    ),
    "the_return_falls_too": (
        (1, "undecided"),
        lambda f: [put_run(f, r, 10, -8, [20, 30, 10], rises=False) for r in ("sharpen", "sharpen_seed2")],
    ),
    "wide_beams_are_no_likelier": (
        (2, "undecided"),
        lambda f: put(f, "beam4", f / "results" / "small_test__beam4__penalty0__vllm-0.11.json", 10, -11.5),
    ),
    "trained_rows_are_less_likely": (
        (2, "undecided"),
        lambda f: (
            [put_run(f, "tilted_alpha2_betainf", 30, -19)]
            + [put_run(f, r, 10, -19, [20, 30, 10]) for r in ("sharpen", "sharpen_seed2")]
        ),
    ),
    "tilted_is_worse": ((3, "disagree"), lambda f: put_run(f, "tilted_alpha2_beta1e-2", 20, -20)),
    "tilted_is_better_than_task": ((3, "undecided"), lambda f: put_run(f, "tilted_alpha2_beta1e-2", 70, -20)),
    "task_falls_from_its_best": ((3, "undecided"), lambda f: put_run(f, "task", 50, -25, [20, 60, 30])),
    "task_was_not_run": ((3, "undecided"), lambda f: (f / "done" / "task").unlink()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_verdict_turns_with_the_number_that_its_rule_names(folder, change):
    (place, wanted), apply = CHANGES[change]
    apply(folder)
    assert told(folder)[place] == wanted


def test_the_page_has_every_row_and_the_responses_and_names_what_was_not_run(folder):
    (folder / "done" / "tilted_alpha2_betainf").unlink()
    page.read_results.cache_clear()
    assert page.main(Args(folder)) == 0
    text = (folder / "page" / "smollm2.md").read_text()
    assert "| Task reward | 50.0 50.0 | 50.0 ± " in text and "| Base |  | 20.0 ± 6.4 | 30.0 ± " in text
    assert "| Power, exact, α 4, 10 moves | 40.0 ± " in text
    assert "Tempered 2: row tilted_alpha2_betainf: `bash " in text and "--cpu --rows '^tilted_alpha2_betainf$'`" in text
    assert "3. Inference" in text and "undecided" in text
    samples = (folder / "page" / "samples.md").read_text()
    assert samples.count("> so \\boxed{1}") == 10 * 6  # Base and five trained rows
    base = samples.partition("## Task reward")[0]  # 8 of its 40 problems are right, 12 by the authors' verdict
    assert base.count(": right\n") == 8 and base.count(": right only by the authors' verdict\n") == 2
    assert (folder / "page" / "figures" / "training.png").exists()
