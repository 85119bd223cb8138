"""benchmark/tables and benchmark/report on results as common/evaluate.py writes them: cells, gaps, the page."""

import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from benchmark.report import figures
from benchmark.report import page as pages
from benchmark.report import results as folders
from benchmark.tables import paper, report
from common.evaluate import add_to_summary, summary_row, write_results

TAG = "qwen2.5-3b"


def records(seed: int, n: int, problems: int = 3) -> list[dict]:
    """Graded records with random verdicts; the two verdicts, and the two kinds of vote, differ."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(problems):
        right = rng.random(n) < 0.2 + 0.3 * i
        votes = [str(x) for x in rng.integers(0, 3, n)]
        found.append(
            {
                "id": f"problem-{i}",
                "repeat_of": None,
                "level": None,
                "subject": None,
                "gold": "0",
                "prompt_tokens": 5,
                "seconds": 1.0 + i,
                "generated_tokens": 30 * n,
                "responses": ["text"] * n,
                "tokens": [10 + i] * n,
                "finished": [True] * n,
                "logp": [-1.0 - i] * n,
                "answers": votes,
                "authors": right.tolist(),
                "strict": (right & (rng.random(n) < 0.8)).tolist(),
                "timed_out": [False] * n,
                "votes": votes,
                "classes": rng.integers(0, 3, n).tolist(),
            }
        )
    return found


@lru_cache
def results_text(seed: int, n: int, dataset: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        settings = {"model": "a model", "dataset": dataset, "n": n, "seed": seed}
        write_results(path, records(seed, n), method="sampling", settings=settings)
        return path.read_text()


@lru_cache
def summary_text(seeds: tuple[int, ...], n: int, dataset: str) -> str:
    """The row of a summary over results files of these random seeds."""
    files = [(Path(f"seed{seed}.json"), json.loads(results_text(seed, n, dataset))) for seed in seeds]
    return json.dumps(summary_row(Path(), files))


def put(folder: Path, names: list[str], n: int = 16, checkpoint: str | None = None, step: int | None = None) -> dict:
    """Writes the results files of one data set's repeats, "math500__n16__seed2.json" from random seed 2 and so on, in a
    folder of results, or in that of a checkpoint there, and adds them to the summary. Returns the summary's row."""
    seeds, paths = [], [folder / (f"step_{step:06d}" if step else "") / name for name in names]
    dataset = next((d for d in paper.DATASETS if d in names[0]), "toy_test")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = re.search(r"seed(\d+)", path.name)
        seeds.append(int(seed[1]) if seed else 0)
        path.write_text(results_text(seeds[-1], n, dataset))
    row = {"checkpoint": checkpoint, "step": step} | json.loads(summary_text(tuple(seeds), n, dataset))
    row["files"] = [str(path.relative_to(folder)) for path in paths]
    add_to_summary(folder, [row])
    return row


STEPS = {"best_held_out": 20, "best_authors": 40, "last": 500}


def put_row(root: Path, row: paper.Row, dataset: str, checkpoint: str = "last", n: int = 16) -> dict:
    """The results of a row of a table; that of a trained row are in its run folder."""
    names = [row.file.format(dataset=dataset, seed=seed) for seed in row.seeds]
    if not row.expect:
        return put(root / row.folder, names, n)
    (run,) = root.glob(row.folder)
    steps = STEPS | {"last": row.expect["num_steps"]}
    return put(run / "results", names, n, checkpoint, steps[checkpoint])


def put_run(root: Path, row: paper.Row, **changes) -> Path:
    """A run folder as training leaves it: validated at steps 0 and 5."""
    run = root / f"{row.name}__model__42__now"
    run.mkdir(parents=True)
    (run / "args.json").write_text(json.dumps(row.expect | {"dataset": "math"} | changes))
    keys = ("objective/return", "objective/task_reward", "objective/logp_base", "objective/kl_base", "policy/entropy")
    keys += ("policy/response_length",)
    lines = [{"step": s} | {key: 0.1 * s for key in keys} for s in range(5)]
    lines[0] |= {"eval/authors": 0.3, "eval/held_out": 0.2}
    lines.append({"step": 5, "eval/authors": 0.5, "eval/held_out": 0.4})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def put_other_run(root: Path, name: str) -> Path:
    """A run folder that belongs to no table."""
    arguments = {"model": "toy", "num_steps": 60, "fixed_length": False}
    return put_run(root, paper.Row(name, "", "", "", (), "", "", expect=arguments))


def row_of(table: int, name: str) -> paper.Row:
    return next(row for row in paper.rows_of(table) if row.name == name)


def line_of(view: pages.Table, label: str, alpha: str = "", beta: str = "") -> list:
    return next(line for line in view.rows if line[0].startswith(label) and line[1:3] == [alpha, beta])


def test_cells_are_the_metrics_of_the_summary(tmp_path):
    put_run(tmp_path, row := row_of(3, f"{TAG}_variable_task"))
    metrics = put_row(tmp_path, row, "math500")["metrics"]
    views = {view.title.split()[-1]: view for view in report.table_views(folders.Results([tmp_path]), 3)}
    for verdict, majority in (("authors", "maj_strings_at_16"), ("strict", "maj_at_16")):
        line = line_of(views[verdict], "Task reward")
        for cell, key in zip(line[3:6], ("pass_at_1", "pass_at_16", majority), strict=True):
            assert cell.ours == pytest.approx((100 * metrics[verdict][key], 100 * metrics[verdict][f"{key}_se"]))
        assert [cell.paper for cell in line[3:6]] == ([66.9, 87.9, 72.1] if verdict == "authors" else [None] * 3)
        assert [cell.ours for cell in line[6:]] == [None] * 3  # Minerva was not run
    assert metrics["authors"]["maj_strings_at_16"] != metrics["authors"]["maj_at_16"] != metrics["strict"]["maj_at_16"]


def test_no_number_of_a_table_is_computed_from_the_results_files(tmp_path):
    row = row_of(3, f"{TAG}_base")
    put_row(tmp_path, row, "math500")
    before = report.table_views(folders.Results([tmp_path]), 3)
    for path in (tmp_path / row.folder).glob("*seed*.json"):
        path.unlink()
    assert report.table_views(folders.Results([tmp_path]), 3) == before
    assert line_of(before[0], "Base")[3].ours


def test_repeats_of_a_problem_are_joined_before_the_error_is_taken(tmp_path):
    row = row_of(3, f"{TAG}_base")
    put_row(tmp_path, row, "math500")
    files = [tmp_path / row.folder / row.file.format(dataset="math500", seed=seed) for seed in (1, 2, 3)]
    shares = np.array([[np.mean(p["authors"]) for p in json.loads(f.read_text())["problems"]] for f in files])
    value, se = folders.Results([tmp_path]).evaluation(row, "math500", "last").percent("pass_at_1")
    assert value == pytest.approx(100 * shares.mean())
    assert se == pytest.approx(100 * shares.mean(0).std(ddof=1) / math.sqrt(3))
    assert se != pytest.approx(100 * shares.std(ddof=1) / math.sqrt(9))  # nine problems, as if repeats were problems


def test_the_two_selections_read_the_checkpoints_they_chose(tmp_path):
    put_run(tmp_path, row := row_of(4, f"{TAG}_variable_sharpen"))
    rows = {which: put_row(tmp_path, row, "minerva", which) for which in STEPS}
    for row_, factor in zip(rows.values(), (0.5, 0.25, 1), strict=True):  # three checkpoints that differ
        row_["metrics"]["authors"]["pass_at_1"] *= factor
    (run,) = tmp_path.glob(row.folder)
    add_to_summary(run / "results", list(rows.values()))
    results = folders.Results([tmp_path])
    for which, found in rows.items():
        value, _ = results.evaluation(row, "minerva", which).percent("pass_at_1")
        assert value == pytest.approx(100 * found["metrics"]["authors"]["pass_at_1"])
    titles = [view.title for view in report.table_views(results, 4)]
    assert len(titles) == 4 and sum("held-out" in t for t in titles) == sum("strict" in t for t in titles) == 2


def test_table_2_is_made_of_the_runs_of_the_other_tables(tmp_path):
    put_run(tmp_path, row := row_of(5, f"{TAG}_fixed_task"))
    metrics = put_row(tmp_path, row, "math500")["metrics"]
    view = next(v for v in report.table_2(folders.Results([tmp_path])) if v.title.endswith("authors"))
    line = next(line for line in view.rows if line[:3] == ["Qwen2.5-3B", "Task reward", "fixed"])
    assert line[3].ours[0] == pytest.approx(100 * metrics["authors"]["pass_at_1"])
    assert [cell.paper for cell in line[3:]] == [65.8, 26.7, 65.8, 26.9]


def test_every_number_of_the_paper_stands_in_its_table_once():
    for number, table in paper.PAPER["tables"].items():
        view = report.table_views(folders.Results([Path("nowhere")]), int(number))[0]
        for row in table["rows"]:
            printed = [row[d].get(m) for d in paper.DATASETS if d in row for m in paper.METRICS]
            lines = [line for line in view.rows if [cell.paper for cell in line[3:]] == printed]
            assert len(lines) >= {"mh_llm": 4, "beam_search": 2}.get(row["method"], 1)
            assert all(cell.ours is None for line in lines for cell in line[3:])


def test_a_cell_never_shows_the_papers_number_as_ours():
    assert pages.Cell((64.12, 0.94), 66.9).texts() == ("64.1 ± 0.9", "paper 66.9, -2.8")
    assert pages.Cell(None, 66.9).texts() == ("not run", "paper 66.9")
    assert pages.Cell((64.12, 0.94), None).texts() == ("64.1 ± 0.9", "")
    assert pages.Cell().texts() == ("", "")


def test_the_unknown_error_of_a_single_problem_is_left_out(tmp_path):
    write_results(tmp_path / "one.json", records(1, 4, problems=1), method="sampling", settings={})
    file = folders.ResultsFile(tmp_path / "one.json")
    value, se = file.percent("pass_at_1")
    assert math.isnan(se) and pages.Cell((value, se), 66.9).texts()[0] == f"{value:.1f}"
    run = put_other_run(tmp_path, "mine")
    (run / "metrics.jsonl").write_text('{"step": 0, "x": 1}\n{"step": 5, "x": null}\n{"step": 6}\n')
    steps, values = folders.TrainingRun(run).curve("x")
    assert steps == [0, 5] and values[0] == 1 and math.isnan(values[1])


def test_the_nearest_reading_of_an_open_row_is_named():
    found = {"Power sampling, exact": [4.0, 2.0], "Power sampling, mh-llm": [1.0], "Beam, vllm-0.11": [1.0]}
    (note,) = report.nearest(found)
    assert note.index("mh-llm 1.0") < note.index("exact 3.0")


# --- what is missing, what is broken ----------------------------------------------------------------------------------


def faults(root: Path, name: str = f"{TAG}_variable_task") -> list[str]:
    """What the report misses of a row."""
    results = folders.Results([root])
    for number in (3, 4):
        report.table_views(results, number)
    return results.faults.get(name, [])


def complete_run(root: Path) -> Path:
    run = put_run(root, row := row_of(3, f"{TAG}_variable_task"))
    for checkpoint in STEPS:
        for dataset in ("math500", "minerva"):
            put_row(root, row, dataset, checkpoint)
    return run


def test_a_complete_row_misses_nothing(tmp_path):
    complete_run(tmp_path)
    assert faults(tmp_path) == []


def test_what_is_missing_is_named(tmp_path):
    assert faults(tmp_path) == [f"missing: {tmp_path}/{TAG}_variable_task__*/"]
    path = complete_run(tmp_path) / "results" / "summary.json"
    content = json.loads(path.read_text())
    content["results"] = [r for r in content["results"] if (r["checkpoint"], r["dataset"]) != ("last", "minerva")]
    path.write_text(json.dumps(content))
    names = ", ".join(f"minerva__n16__seed{seed}.json" for seed in (1, 2, 3))
    assert faults(tmp_path) == [f"missing: {names} of checkpoint last in {path}"]


@pytest.mark.parametrize(
    "change,reason",
    [
        (lambda text: text[: len(text) // 2], ""),
        (lambda text: "[]", "not a summary"),
        (lambda text: text.replace('"metrics"', '"metric"'), "KeyError: 'metrics'"),
    ],
)
def test_what_is_broken_is_named(tmp_path, change, reason):
    path = complete_run(tmp_path) / "results" / "summary.json"
    path.write_text(change(path.read_text()))
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"broken: {path}") and reason in fault


def test_a_run_with_other_arguments_is_not_the_row(tmp_path):
    run = complete_run(tmp_path)
    arguments = json.loads((run / "args.json").read_text())
    (run / "args.json").write_text(json.dumps(arguments | {"fixed_length": True}))
    assert faults(tmp_path) == [f"broken: {run}/args.json: fixed_length is True, the row has False"]


def test_two_runs_of_one_row_are_not_mixed(tmp_path):
    shutil.copytree(complete_run(tmp_path), tmp_path / f"{TAG}_variable_task__model__42__later")
    (fault,) = faults(tmp_path)
    assert fault.startswith("broken: ") and "several runs of one row" in fault


def test_an_unknown_table_or_folder_is_refused(tmp_path):
    for args in (report.Args([tmp_path], tables=[13]), report.Args([tmp_path / "x"])):
        with pytest.raises(ValueError):
            report.main(args)


def test_no_folder_or_a_file_as_output_is_refused_in_a_line(tmp_path):
    put_other_run(tmp_path, "mine")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="^name one folder with runs"):
        report.main(report.Args([]))
    for output in (tmp_path / "README.md", tmp_path / "README.md" / "report"):
        with pytest.raises(ValueError, match=f"^--output {output}: {tmp_path}/README.md is a file"):
            report.main(report.Args([tmp_path], output=output))


def test_rows_of_figures_count_as_missing_too(tmp_path, monkeypatch):
    """Figure 6 has rows that no table asks for: with runs of no table only, none of the rows is complete."""
    for i in range(3):
        run = put_other_run(tmp_path, f"mine{i}")
        os.utime(run / "metrics.jsonl", (i, i))
    monkeypatch.setattr(figures, "MOST_OTHERS", 2)
    saved = []
    monkeypatch.setattr(figures.Album, "save", lambda album, _, name, title, choices: saved.append((name, choices)))
    shown = []
    monkeypatch.setattr(figures, "health", lambda album, name, title, rows, choices: shown.append((rows, choices)))
    results = folders.Results([tmp_path])
    figures.draw_all(results, [11, 12], tmp_path)
    for table in (11, 12):
        report.table_views(results, table)
    assert {row.name for row in paper.wanted_rows([11, 12])} <= {*results.faults}
    rows, choices = shown[-1]
    assert [name for name, _ in rows] == ["mine1", "mine2"]
    assert choices == "Of the 3 runs that are in no table, the 2 newest." and choices in dict(saved)["ours_likelihood"]
    assert figures.newest(results.other_runs()[1:])[1] == ""


def test_a_folder_without_anything_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="nothing to report yet.*bash benchmark/tables/table_03_04.sh"):
        report.main(report.Args([tmp_path]))
    assert not any(tmp_path.iterdir())


# --- the page and the figures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """All results of Tables 2 to 12 and of the figures, and the report of them."""
    root = tmp_path_factory.mktemp("runs")
    trained = {row.name: row for table in paper.TABLES for row in paper.rows_of(table) if row.expect}
    for row in trained.values():
        put_run(root, row)
    for row in {(row.folder, row.file): row for row in paper.wanted_rows([*paper.TABLES])}.values():
        n = 1 if "beam" in row.file else 256 if "n256" in row.file else 16
        for checkpoint in row.checkpoints:
            for dataset in row.datasets:
                put_row(root, row, dataset, checkpoint, n)
    (root / "figure_7" / "hardware.txt").write_text("a GPU of some kind\n")
    assert report.main(report.Args([root])) == 0
    return root


def test_a_complete_report_has_exit_code_0_and_no_empty_cell(made):
    text = (made / "report" / "report.md").read_text()
    assert "Missing or broken" not in text and " rows of these tables have their results." in text
    views = report.table_views(folders.Results([made]), 12)
    lines = [line for view in views for line in view.rows if not line[0].startswith("Beam")]
    assert lines and all(cell.ours for line in lines for cell in line[3:])
    assert len(re.findall(r"^## Table", text, re.M)) == 4 + 5 * 2 + 5 * 4


def test_what_is_missing_empties_its_cell_and_sets_the_exit_code(made, tmp_path, capsys):
    root = tmp_path / "runs"
    shutil.copytree(made / TAG, root / TAG)
    path = root / f"{TAG}/plain_T0.5/summary.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"results": [r for r in content["results"] if r["dataset"] != "minerva"]}))
    assert report.main(report.Args([root], tables=[3], output=tmp_path / "out")) == 1
    assert f"{TAG}_plain_T0.5: missing: minerva__n16__seed1.json, " in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("| Plain sampling, T = 0.5")][:1]
    assert line.split("|")[-4:-1] == ["  "] * 3 and "±" in line.split("|")[4]
    assert "- qwen2.5-3b_variable_task: missing: " in text


def test_figures_name_their_runs_and_the_choices_that_the_paper_leaves_open(made):
    text = (made / "report" / "report.md").read_text()
    names = [f"figure_{n}" for n in range(1, 9)] + ["ours_likelihood", "ours_divergence"]
    for name in names + [f"ours_spending_{tag}" for tag in paper.MODELS]:
        for suffix in ("png", "svg"):
            assert (made / "report" / "figures" / f"{name}.{suffix}").stat().st_size > 5000
        caption = text.split(f"](figures/{name}.png)\n\n")[1].split("\n\n")[0]
        assert f"Made of {made}/" in caption, name
    assert "Power sampling at α 4, mode mh-llm-signfix" in text and "names neither data nor hardware" in text
    assert "a GPU of some kind" in text


def test_what_differs_by_colour_differs_without_colour():
    bars = [(hatch, colour) for *_, colour, hatch in figures.SERIES]
    lightness = [(hatch, round(np.dot(matplotlib_rgb(colour), (0.2, 0.7, 0.1)), 1)) for hatch, colour in bars]
    assert len({*lightness}) == len(bars)
    lines = [*figures.BETA_STYLES.values()]
    assert all(len({style[i] for style in lines}) == len(lines) for i in range(3))
    assert len({marker for *_, marker, _ in figures.PASS_AT_K}) == len(figures.PASS_AT_K)


def matplotlib_rgb(colour: str) -> tuple:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def test_the_page_opens_in_a_browser_with_all_its_pictures(made, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = (made / "report" / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    probe = "<script>onload = () => document.title = [...document.images].map(i => i.naturalWidth > 0).join()</script>"
    (tmp_path / "page.html").write_text(page + probe)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--virtual-time-budget=5000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search("<title>(.*?)</title>", shown)[1]
    assert title == ",".join(["true"] * 13)
    assert shown.count("<details") == 4 + 5 * 2 + 5 * 4 and "66.9" in shown


def test_results_that_belong_to_no_table_are_listed(tmp_path):
    run = put_run(tmp_path, paper.Row("mine", "", "", "", (), "", "", expect={"model": "toy", "num_steps": 60}))
    content = put(run / "results", ["toy_test__n8__seed1.json"], 8, "last", 60)["metrics"]["authors"]
    (view,) = report.other_table(folders.Results([tmp_path]))
    (line,) = view.rows
    assert line[:3] == ["mine__model__42__now/results/step_000060/toy_test__n8", "1", "8"]
    keys = ("pass_at_1", "pass_at_8", "maj_strings_at_8")
    assert [cell.ours[0] for cell in line[3:6]] == pytest.approx([100 * content[key] for key in keys])
    assert line[-3:] == ["30.0", "0.20", "0.20"]  # tokens; log pi_base and KL, means of the steps
