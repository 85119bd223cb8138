"""benchmark/miniature against made-up results: each verdict follows its rule, and turns when one number does."""

import json
import math
import shutil
from pathlib import Path

import pytest

from benchmark.miniature import observations
from benchmark.miniature.figures import Shown, draw_again, groups
from benchmark.miniature.observations import Accuracy, Measured, difference, exceeds
from benchmark.report import figures
from benchmark.report.page import Table
from benchmark.report.results import Missing, TrainingRun
from common.evaluate import aggregate

RESULTS = Path(observations.__file__).with_name("results")
PROBLEMS = 40
KS = [2**i for i in range(9)]
CURVE = [50, 60, 60]  # validation accuracy at steps 0, 10, 20


def put(folder: Path, name: str, per_cent: float, file: str = "toy_test__n16__seed1", logp: float = -5.0) -> None:
    """Results of 40 problems with this accuracy: that share of the problems is right in every response."""
    n = 256 if name.endswith("_256") else 16
    right = round(PROBLEMS * per_cent / 100)
    problems = [
        {
            "id": f"problem-{i}",
            "seconds": 1.0,
            "generated_tokens": 20 * n,
            "tokens": [20] * n,
            "logp": [logp] * n,
            "authors": [i < right] * n,
            "strict": [i < right] * n,
            "votes": ["0"] * n,
            "classes": [0] * n,
        }
        for i in range(PROBLEMS)
    ]
    path = folder / "results" / name / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics = {"authors": problem_means(problems)}
    path.write_text(json.dumps({"versions": {"torch": "2"}, "metrics": metrics, "problems": problems}))
    lines = [{"settings": {}}, *({"responses": ["\\boxed{0}"] * n} for _ in problems)]
    path.with_suffix(".responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def problem_means(problems: list[dict]) -> dict[str, float]:
    """The metrics of these problems as common/evaluate.py has them."""
    return aggregate(
        [p["id"] for p in problems], [{f"pass_at_{k}": float(p["authors"][0]) for k in KS} for p in problems]
    )


def put_run(folder: Path, name: str, validation: list[float], rises: bool = True) -> None:
    run = folder / f"{name}__toy__1__20260101-000000"
    run.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(21):
        line = {"step": step}
        if step < 20:
            line |= {"objective/return": step if rises else -step, "objective/logp_base": -4.0, "policy/entropy": 0.2}
            line["policy/response_length"] = 20.0
        if step % 10 == 0:
            line |= {"eval/authors": validation[step // 10] / 100, "eval/authors_se": 0.01}
        lines.append(line)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "args.json").write_text(json.dumps({"num_steps": 20}))


def put_trained(folder: Path, name: str, per_cent: float, validation: list[float] = CURVE) -> None:
    put_run(folder, name, validation)
    put(folder, name, per_cent)
    put(folder, f"{name}_cool", per_cent)


def as_the_paper_says() -> dict[str, float]:
    """Accuracy of every row, such that all observations hold."""
    rows = {"base": 50, "base_hard": 15, "base_more-guesses": 45, "base_fewer-guesses": 55}
    rows |= {f"base_T{t}": 90 for t in ("0.8", "0.5", "0.25")} | {f"base_hard_T{t}": 40 for t in ("0.8", "0.5", "0.25")}
    for seed in observations.SEEDS:
        rows |= {f"task_{seed}": 90, f"sharpen_{seed}": 55, f"tempered_{seed}": 60, f"tilted_{seed}": 87.5}
        rows |= {f"{name}_fixed_{seed}": 90 for name in ("task", "sharpen", "tempered", "tilted")}
    rows |= {"task_hard": 85, "sharpen_hard": 10, "task_more-guesses": 90, "sharpen_more-guesses": 10}
    rows |= {"task_fewer-guesses": 90, "sharpen_fewer-guesses": 90, "random_reward": 40, "logp_per_token": 90}
    beta = {"inf": 60, "0.3": 75, "0.1": 87.5}
    rows |= {observations.grid_name(a, b): beta[b] for a, b in observations.GRID}
    for level, names in observations.PASS_AT_K.items():
        rows |= {name: 60 + 10 * i for i, name in enumerate(names.values())} if level else {}
    return rows


def make(folder: Path) -> Path:
    for name, per_cent in as_the_paper_says().items():
        if name.startswith("base") or name.endswith("_256"):
            put(folder, name, per_cent)
        else:
            put_trained(folder, name, per_cent, [50, 70, 60] if "sharpen" in name else CURVE)
    for mode in observations.MODES:
        for moves in (*observations.MOVES, "blocks"):
            put(folder, f"power_{mode}_{moves}", 80, "power_x__toy_test__n16__seed1")
    for moves in observations.MOVES:
        put(folder, f"power4_exact_{moves}", 80, "power_x__toy_test__n16__seed1")
    for width in observations.BEAMS:
        for penalty in (0, 1):
            for level in ("toy", "toy_hard"):
                file = f"{level}_test__beam{width}__penalty{penalty}__transformers"
                put(folder, f"beam{width}", 90 if width < 64 else 40, file, logp=-5 + width / 64)
    optima = {**observations.POWERS, **{observations.grid_name(*cell): None for cell in observations.GRID}}
    optima |= {f"{name}_fixed": None for name in observations.POWERS}
    optima |= {f"{name}_{suffix}": None for name in ("task", "sharpen") for suffix in ("hard", *observations.OTHERS)}
    best = {name: optimum(100 if "task" in name else 30 if "hard" in name else 70) for name in optima}
    (folder / "optima.json").write_text(json.dumps(best))
    return folder


def optimum(per_cent: float) -> dict:
    right = round(PROBLEMS * per_cent / 100)
    return {
        "accuracies": {f"problem-{i}": float(i < right) for i in range(PROBLEMS)},
        "guess_share": 0.1,
        "length": 20.0,
        "logp_base": -3.0,
        "effective_samples": 40.0,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("observations"))


def test_the_error_of_a_difference_is_that_of_problems_and_of_seeds():
    a = Accuracy({"x": 100.0, "y": 50.0, "z": 0.0}, [50.0, 56.0])
    b = Accuracy({"x": 50.0, "y": 50.0, "only b": 0.0})
    value, error = difference(a, b)  # over x and y: 50 and 0
    assert value == 25
    assert error == pytest.approx(math.sqrt((50**2 / 2) / 2 + (6**2 / 2) / 2))
    assert error != pytest.approx(math.sqrt((50**2 / 2) / 2))  # seeds forgotten
    unpaired = math.sqrt(((50**2 / 2) / 2) + 0)  # b's values are equal: the pairing shows in a and b that go together
    together = Accuracy({"x": 50.0, "y": 0.0})
    assert difference(Accuracy({"x": 100.0, "y": 50.0}), together) == (50, 0) and unpaired > 0


@pytest.mark.parametrize(
    "found, wanted", [((2.1, 1.0), True), ((2.1, 1.1), False), ((1.9, 0.1), False), ((-9, 1), False)]
)
def test_a_difference_counts_beyond_the_margin_and_two_errors(found, wanted):
    assert exceeds(found) is wanted


@pytest.mark.parametrize("observe", observations.OBSERVATIONS.values(), ids=lambda f: f.__name__)
def test_results_as_the_paper_has_them_agree(made, observe):
    claims, word = observe(Measured(made))
    assert word == "agree" and all(claim.holds for claim in claims)


def changed(made: Path, folder: Path, changes) -> Measured:
    shutil.copytree(made, folder, dirs_exist_ok=True)
    changes(folder)
    return Measured(folder)


def sharpening_always_helps(folder):
    for name in ("sharpen_hard", "sharpen_more-guesses", "sharpen_fewer-guesses", "tempered_fixed_seed1"):
        put_trained(folder, name, 87.5)
    for seed in observations.SEEDS:
        put_trained(folder, f"sharpen_{seed}", 80)
        put_trained(folder, f"tempered_{seed}", 80)


def sharpening_never_bridges(folder):
    for name in (
        "sharpen_fewer-guesses",
        *(f"{n}_fixed_{s}" for n in ("sharpen", "tempered") for s in observations.SEEDS),
    ):
        put_trained(folder, name, 75)


def good_optima(folder, names=("sharpen", "sharpen_hard")):
    path = folder / "optima.json"
    best = json.loads(path.read_text())
    path.write_text(json.dumps(best | {name: optimum(97.5) for name in names}))


def no_fall(folder):
    for name in (*(f"sharpen_{seed}" for seed in observations.SEEDS), "sharpen_hard"):
        put_run(folder, name, [50, 60, 70])


def falls_with_its_return(folder):
    for name in (*(f"sharpen_{seed}" for seed in observations.SEEDS), "sharpen_hard"):
        put_run(folder, name, [50, 70, 60], rises=False)


def wide_beams_are_good(folder):
    for level in ("toy", "toy_hard"):
        put(folder, "beam64", 90, f"{level}_test__beam64__penalty0__transformers", logp=-4.0)


def wide_beams_are_less_likely(folder):
    for level in ("toy", "toy_hard"):
        put(folder, "beam64", 40, f"{level}_test__beam64__penalty0__transformers", logp=-9.0)


def power_reaches_less(folder):
    for name in ("power_exact", "power4_exact"):
        for moves in observations.MOVES:
            put(folder, f"{name}_{moves}", 60, "power_x__toy_test__n16__seed1")


def beta_does_nothing(folder):
    for alpha in (1.25, 2):
        put_trained(folder, observations.grid_name(alpha, "0.1"), 60)


def beta_goes_down_once(folder):
    put_trained(folder, observations.grid_name(4, "0.3"), 40)


def falls_at_low_beta(folder):
    put_run(folder, observations.grid_name(4, "0.1"), [50, 90, 60])


def tilted_wins(folder):
    put_trained(folder, observations.grid_name(1.25, "0.1"), 100)


def extremes_are_fine(folder):
    for alpha, beta in observations.GRID:
        if alpha == 4 or beta == "inf":
            put_trained(folder, observations.grid_name(alpha, beta), 90)


def hard_gains_little(folder):
    put_trained(folder, "task_hard", 20)


@pytest.mark.parametrize(
    "number, changes, word",
    [
        (0, sharpening_always_helps, "disagree"),
        (0, lambda folder: put_trained(folder, "task_hard", 15), "disagree"),
        (0, sharpening_never_bridges, "undecided"),
        (1, good_optima, "disagree"),
        (1, lambda folder: good_optima(folder, ["sharpen_hard"]), "undecided"),
        (1, no_fall, "undecided"),
        (1, falls_with_its_return, "undecided"),
        (2, lambda folder: (wide_beams_are_good(folder), power_reaches_less(folder)), "disagree"),
        (2, wide_beams_are_good, "undecided"),
        (2, wide_beams_are_less_likely, "undecided"),
        (2, power_reaches_less, "undecided"),
        (3, beta_does_nothing, "disagree"),
        (3, beta_goes_down_once, "undecided"),
        (3, falls_at_low_beta, "undecided"),
        (4, tilted_wins, "disagree"),
        (4, extremes_are_fine, "undecided"),
        (5, hard_gains_little, "disagree"),
    ],
)
def test_a_verdict_turns_when_its_numbers_do(made, tmp_path, number, changes, word):
    observe = list(observations.OBSERVATIONS.values())[number]
    assert observe(changed(made, tmp_path, changes))[1] == word


def test_the_fall_is_from_the_best_validated_step_to_the_last(tmp_path):
    put_run(tmp_path, "run", [50, 70, 60])
    run = TrainingRun(next(tmp_path.glob("run__*")))
    assert observations.fall(run) == (pytest.approx(10), pytest.approx(100 * math.hypot(0.01, 0.01)))
    assert observations.rise(run) == pytest.approx(5)  # means of steps 15 to 19 and of 10 to 14


def test_the_page_names_verdicts_and_holds_every_row(made):
    assert observations.main(observations.Args(made)) == 0
    text = (made / "page" / "observations.md").read_text()
    assert text.count("**agree**") == len(observations.OBSERVATIONS)
    for label, _, _ in observations.training_rows(False):
        assert f"| {label} |" in text
    for name in ("training", "likelihood", "inference", "grid", "pass_at_k"):
        assert (made / "page" / "figures" / f"{name}.png").stat().st_size > 10_000
    kept = json.loads((made / "page" / "observations.json").read_text())
    assert set(kept["verdicts"].values()) == {"agree"}


def test_what_is_missing_is_named(made, tmp_path):
    m = changed(made, tmp_path, lambda folder: shutil.rmtree(folder / "results" / "base"))
    with pytest.raises(Missing, match=r"results/base/toy\*_test"):
        m.accuracy("base")


def test_figures_can_be_drawn_again_from_the_file_of_the_page(tmp_path):
    shutil.copy(RESULTS / "observations.json", tmp_path)
    (tmp_path / "figures").mkdir()
    draw_again(tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"likelihood.png", "inference.png"}


def test_a_figure_shows_the_numbers_of_the_tables():
    content = json.loads((RESULTS / "observations.json").read_text())
    shown = Shown([Table(**table) for table in content["tables"]])
    assert shown.point("T = 1") == (-7.37, 50.8, 1.0) and shown.point("T = 0.5") == (-4.46, 95.3, 0.4)
    assert shown.number("Training", "Sharpening", "log π_base") == (-3.99, 0.0)
    assert shown.number("Training", "Sharpening", "log π_base", of_optimum=True) == (-3.35, 0.0)


def test_points_that_lie_on_one_another_share_a_label():
    points = [(-4.5, 96.0, 1.0), (-4.4, 97.0, 1.0), (-4.4, 91.0, 1.0)]
    assert groups(points, ["0", "1", "100"]) == [((-4.4, 97.0), ["0", "1"]), ((-4.4, 91.0), ["100"])]


def test_curves_show_all_seeds_and_columns_have_one_scale(tmp_path, monkeypatch):
    for name, accuracies in (("a_seed1", [50, 60, 90]), ("a_seed2", [50, 70, 80]), ("b", [10, 20, 30])):
        put_run(tmp_path, name, accuracies)
    seen = []
    monkeypatch.setattr(figures.plt, "close", seen.append)
    runs = {name: TrainingRun(next(tmp_path.glob(f"{name}__*"))) for name in ("a_seed1", "a_seed2", "b")}
    album = figures.Album(None, tmp_path)
    figures.health(album, "training", "Training", [("a", [runs["a_seed1"], runs["a_seed2"]]), ("b", [runs["b"]])], "")
    axes = seen[0].axes
    accuracy = {ax: ax.lines[0].get_ydata().tolist() for ax in (axes[2], axes[6])}
    assert [pytest.approx(values) for values in accuracy.values()] == [[0.5, 0.65, 0.85], [0.1, 0.2, 0.3]]
    (band,) = axes[2].collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(0.9)
    assert axes[2].get_ylim() == axes[6].get_ylim() and axes[1].get_ylim() == axes[5].get_ylim()
