"""small_model/smollm2.sh and miniature/observations.sh: the rows that they run, and the data of the small model."""

import hashlib
import json
import math
import os
import subprocess
import urllib.error
from collections import Counter

import pytest
import tyro
from conftest import ROOT
from programs import PARSERS

from benchmark.small_model import data as small_data
from benchmark.small_model import page
from common.data import load_problems

PAPER = json.loads((ROOT / "benchmark" / "tables" / "paper.json").read_text())
GRID = {(alpha, beta) for alpha in (1.0, 1.25, 2.0, 4.0) for beta in (math.inf, 1e-2, 1e-4)}


def rows(script: str, *arguments: str) -> dict[str, list[tuple[str, object]]]:
    """(program, its arguments) of each command of each row that a script would run."""
    command = ["bash", f"benchmark/{script}", "--dry-run", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("MODEL", "DATA")}
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in filter(None, output.splitlines()):
        if line.startswith("# "):
            assert line[2:] not in found, f"{line[2:]} comes twice"
            commands = found[line[2:]] = []
        else:
            program, *words = [word for word in line.split() if word not in ("python", "-m")]
            parser = PARSERS[program if program in PARSERS else "rloo_tilted.py"]  # a copy of it is a control
            commands.append((program, tyro.cli(parser, args=words)))
    return found


# --- the small model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> dict:
    return rows("small_model/smollm2.sh")


def trained(found: dict, fixed_length: bool) -> dict:
    runs = {name: commands[0] for name, commands in found.items() if commands[0][0].startswith("rloo_")}
    return {name: run for name, run in runs.items() if run[1].fixed_length == fixed_length}


def test_every_training_row_of_the_papers_tables_is_run_at_variable_length(small):
    found = trained(small, fixed_length=False)
    assert len(found) == 14
    assert Counter(program for program, _ in found.values()) == {
        "rloo_task.py": 1,
        "rloo_sharpen.py": 1,
        "rloo_tilted.py": 12,
    }
    points = [(args.alpha, args.beta) for program, args in found.values() if program == "rloo_tilted.py"]
    assert {*points} == GRID and len(points) == 12
    printed = {
        (row["alpha"], math.inf if row["beta"] == "inf" else row["beta"])
        for row in PAPER["tables"]["3"]["rows"]
        if row["method"] == "tilted"
    }
    assert printed == GRID


def test_the_four_objectives_are_run_at_fixed_length(small):
    found = trained(small, fixed_length=True)
    assert [program for program, _ in found.values()] == ["rloo_task.py", "rloo_sharpen.py", *["rloo_tilted.py"] * 2]
    points = [(args.alpha, args.beta) for program, args in found.values() if program == "rloo_tilted.py"]
    assert points == [(2.0, math.inf), (2.0, 1e-2)]


def test_a_row_is_named_for_what_it_runs_and_its_last_and_best_checkpoints_are_evaluated(small):
    for name, ((program, args), *evaluations) in small.items():
        if not program.startswith("rloo_"):
            continue
        method = program.removeprefix("rloo_").removesuffix(".py")
        beta = {math.inf: "inf", 1e-2: "1e-2", 1e-4: "1e-4"}
        tilted = f"_alpha{args.alpha:g}_beta{beta[args.beta]}" if method == "tilted" else ""
        assert name == args.exp_name == f"{'fixed_' * args.fixed_length}{method}{tilted}"
        assert (args.num_steps, args.output_dir) == (60, "runs/small")
        ((_, evaluation),) = evaluations
        assert evaluation.run == [f"runs/small/{name}__*"]
        assert evaluation.checkpoint == ["last", "best_held_out"] and evaluation.n == 16


def test_all_rows_have_one_model_window_and_prompt_so_that_they_share_an_engine(small):
    shared = set()
    for commands in small.values():
        for _, args in commands:
            shared.add((args.max_total_tokens, args.prompt_file or "", args.examples_file))
            assert args.model == "HuggingFaceTB/SmolLM2-135M-Instruct" or args.run[0].startswith("runs/small/")
    assert len(shared) == 1 and "four_shot" in str(shared)


def test_training_validation_and_test_are_three_files(small):
    for commands in small.values():
        for program, args in commands:
            if program.startswith("rloo_"):
                assert args.dataset == "runs/small/data/small_train.jsonl"
                assert args.validation_dataset == "runs/small/data/small_validation.jsonl"
            else:
                assert args.dataset == ["runs/small/data/small_test.jsonl"]


def test_inference_rows_stand_beside_the_trained_ones(small):
    plain = {name: c[0][1] for name, c in small.items() if name.startswith("plain")}
    assert {name: args.temperature for name, args in plain.items()} == {f"plain_T{t:g}": t for t in (1, 0.8, 0.5, 0.25)}
    power = [c[0][1] for name, c in small.items() if name.startswith("power")]
    assert {(args.mode, args.alpha) for args in power} == {(m, a) for m in ("exact", "mh-llm-signfix") for a in (2, 4)}
    for args in power:  # which would sample plainly again if that were somewhere else
        assert plain["plain_T1"].output_dir == f"{args.output_dir}/plain_T1" and args.n == plain["plain_T1"].n
    assert small["beam4"][0][1].length_penalty == [0.0, 1.0]
    assert len(small) == 14 + 4 + 4 + 4 + 1


@pytest.fixture(scope="module")
def on_two_cores() -> dict:
    return rows("small_model/smollm2.sh", "--cpu")


def test_the_rows_for_two_cores_are_those_that_the_page_reads(on_two_cores):
    trained_rows = [name for names in page.TRAINED for name in names]
    plain = [f"plain_T{t}" for t in page.TEMPERATURES]
    others = ["beam1", "beam4", "power_exact_alpha2", "power_exact_alpha4"]
    assert sorted(on_two_cores) == sorted(trained_rows + plain + others)


def test_on_two_cores_the_strict_verdict_pays_and_32_responses_make_a_step(on_two_cores):
    for name, ((program, args), *evaluations) in on_two_cores.items():
        if not program.startswith("rloo_"):
            continue
        assert (args.num_problems, args.group_size, args.num_steps, args.sampler) == (4, 8, 60, "vllm")
        assert args.reward_verdict == ("authors" if name == "task_authors" else "strict")
        assert args.fixed_length == name.startswith("fixed") and args.exp_name == name
        assert evaluations[0][1].checkpoint == ["last"] and evaluations[0][1].run == [f"runs/small-cpu/{name}__*"]
    seeds = {name: commands[0][1].seed for name, commands in on_two_cores.items() if name.endswith("_seed2")}
    assert seeds == {"task_seed2": 2, "sharpen_seed2": 2} and on_two_cores["task"][0][1].seed != 2


def test_model_and_data_may_be_folders():
    command = ["bash", "benchmark/small_model/smollm2.sh", "--dry-run", "--rows", "^task$", "runs/mine"]
    environment = os.environ | {"MODEL": "some/model", "DATA": "some/data"}
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.startswith("# task\n") and output.count("#") == 1
    for words in ("--model some/model", "--dataset some/data/small_train.jsonl", "--output-dir runs/mine"):
        assert words in output


@pytest.mark.parametrize("script", ["small_model/smollm2.sh", "miniature/observations.sh"])
def test_an_unknown_argument_is_refused(script):
    done = subprocess.run(["bash", f"benchmark/{script}", "--dryrun"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "unknown argument '--dryrun'" in done.stderr


# --- its data ---------------------------------------------------------------------------------------------------------


def problem(id: str, grade: int, body: str, answer: str, formula: str) -> str:
    texts = f"<Body>{body}</Body><Question>How many? </Question><Answer>{answer}</Answer><Formula>{formula}</Formula>"
    return f'<Problem ID="{id}" Grade="{grade}">{texts}</Problem>\n'


XML = "<Corpus>" + problem("n1", 1, "Two and two.", "4 (apples)", "2+2=4") + problem("n2", 2, "A.", "1", "3-1-1=1")
XML += problem("n3", 3, "B.", "2", "1+1=2") + problem("n4", 1, "C.", "Yes", "1+1=2") + "</Corpus>"


def test_of_asdiv_the_easy_problems_with_one_operation_and_a_number_are_taken():
    assert small_data.asdiv(XML) == [
        {"id": "asdiv/n1", "problem": "Two and two. How many?", "answer": "4", "subject": "asdiv"}
    ]


@pytest.mark.parametrize(
    "text,answer,kept",
    [
        ("20 apples and 0 more.", "20", True),
        ("Nineteen apples.", "19", True),
        ("21 apples.", "1", False),
        ("1,000 apples.", "1", False),
        ("1 apple.", "21", False),
        ("1.5 apples.", "3", False),
        ("3 apples.", "1.5", False),
        ("Ninety-three apples.", "3", False),
    ],
)
def test_only_small_whole_numbers_are_taken(text, answer, kept):
    assert small_data.is_small({"problem": text, "answer": answer}) == kept


def test_a_text_comes_once_and_in_one_file(monkeypatch):
    monkeypatch.setattr(small_data, "TEST", 2)
    monkeypatch.setattr(small_data, "VALIDATION", 3)
    given = [{"id": str(i), "problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(10)]
    parts = small_data.split([*given, {"id": "copy", "problem": "3  + 1 = ?", "answer": "4"}])
    assert {name: len(part) for name, part in parts.items()} == {"test": 2, "validation": 3, "train": 5}
    assert sorted(row["id"] for part in parts.values() for row in part) == [str(i) for i in range(10)]
    assert small_data.split(given[::-1]) == small_data.split(given) == parts  # whatever the order


def test_sources_are_downloaded_once_and_made_into_files_that_load(tmp_path, monkeypatch):
    counts = [0, 1, 2, 25]  # the last is too large for the model
    lines = "".join(json.dumps({"input": f"{i} apples and 1 more ?", "target": i + 1.0}) + "\n" for i in counts)
    content = {"ASDiv.xml": XML, "addsub.jsonl": lines, "singleop.jsonl": '{"input": "Half of 3 ?", "target": 1.5}\n'}
    fetched = []

    def urlopen(url, timeout):
        fetched.append(url)
        (tmp_path / "reply").write_text(content[url.rsplit("/", 1)[1]])
        return (tmp_path / "reply").open("rb")

    monkeypatch.setattr(small_data.urllib.request, "urlopen", urlopen)
    hashes = {name: (small_data.ASDIV, hashlib.sha256(text.encode()).hexdigest()) for name, text in content.items()}
    monkeypatch.setattr(small_data, "SOURCES", hashes)
    monkeypatch.setattr(small_data, "TEST", 1)
    monkeypatch.setattr(small_data, "VALIDATION", 1)
    for _ in range(2):
        small_data.main(tmp_path / "data")
    assert len(fetched) == 3
    problems = [
        p for part in ("train", "validation", "test") for p in load_problems(f"{tmp_path}/data/small_{part}.jsonl")
    ]
    assert sorted(p.answer for p in problems) == ["1", "2", "3", "4"]


def test_a_source_that_cannot_be_had_or_is_another_edition_is_refused(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(small_data.urllib.request, "urlopen", urlopen)
    with pytest.raises(ValueError, match=f"no network.*: put it into {tmp_path}"):
        small_data.main(tmp_path)
    (tmp_path / "ASDiv.xml").write_text(XML)
    with pytest.raises(ValueError, match="another edition"):
        small_data.main(tmp_path)


# --- the miniature ----------------------------------------------------------------------------------------------------

OBJECTIVES = ("task", "sharpen", "tempered", "tilted")


@pytest.fixture(scope="module")
def observations() -> dict:
    return rows("miniature/observations.sh")


def kind(program: str, args) -> str:
    """Which of the four objectives a run has; tempered and tilted at alpha 2 only."""
    name = program.removeprefix("rloo_").removesuffix(".py")
    if name != "tilted":
        return name
    return {(2, math.inf): "tempered", (2, 0.1): "tilted"}.get((args.alpha, args.beta), "other")


@pytest.mark.parametrize("fixed_length", [False, True])
def test_the_four_objectives_have_three_seeds_at_either_length(observations, fixed_length):
    found = Counter(
        (kind(program, args), args.seed)
        for program, args in trained(observations, fixed_length).values()
        if (args.dataset, args.model) == ("toy", "toy")
    )
    wanted = {(name, seed) for name in OBJECTIVES for seed in (1, 2, 3)}
    assert wanted <= {*found} and all(found[point] == 1 for point in wanted)


def test_every_point_of_the_grid_is_run_on_the_miniature(observations):
    points = [
        (args.alpha, args.beta)
        for program, args in trained(observations, False).values()
        if program == "rloo_tilted.py" and args.seed == 1
    ]
    assert sorted(points) == [(a, b) for a in (1.0, 1.25, 2.0, 4.0) for b in (0.1, 0.3, math.inf)]


def test_both_levels_both_controls_and_two_other_bases_are_run(observations):
    runs = {name: commands[0] for name, commands in observations.items() if hasattr(commands[0][1], "num_steps")}
    hard = {kind(*run) for run in runs.values() if run[1].dataset == "toy_hard"}
    assert hard == {"task", "sharpen"}
    assert {"random_reward", "logp_per_token"} <= {*runs}
    assert {args.model for _, args in runs.values()} == {"toy"} | {
        f"runs/observations/{shares}-guesses" for shares in ("more", "fewer")
    }
    assert all(60 <= args.num_steps <= 120 for _, args in runs.values())


def test_inference_methods_are_run_as_far_as_the_third_observation_needs(observations):
    commands = [command for row in observations.values() for command in row]
    power = {(args.mode, args.num_moves) for program, args in commands if program == "power_sampling.py"}
    modes = ("exact", "karan-du", "mh-llm", "mh-llm-signfix")
    assert power == {(mode, moves) for mode in modes for moves in (0, 1, 10, 100)}
    beams = {(args.num_beams, args.dataset[0]) for program, args in commands if program == "beam_eval.py"}
    assert beams == {(w, level) for w in (1, 4, 16, 64) for level in ("toy_test", "toy_hard_test")}
    plain = {(a.temperature, a.dataset[0]) for p, a in commands if p == "common.evaluate" and a.model == "toy"}
    assert plain == {(t, level) for t in (1.0, 0.8, 0.5, 0.25) for level in ("toy_test", "toy_hard_test")}


def test_a_trained_row_is_evaluated_at_one_over_its_alpha_too(observations):
    for (program, args), *evaluations in observations.values():
        if hasattr(args, "num_steps"):
            cool = 1 / args.alpha if hasattr(args, "alpha") and program == "rloo_tilted.py" else 0.5
            assert {e.temperature for _, e in evaluations if e.n == 16} >= {1.0, cool}
            assert all(e.model.endswith(f"step_{args.num_steps:06d}") for _, e in evaluations)


def test_pass_at_256_is_measured_for_the_base_and_the_objectives(observations):
    with_256 = {name for name, commands in observations.items() if any(getattr(a, "n", 0) == 256 for _, a in commands)}
    assert {"base_256", "base_hard_256", "task_seed1", "sharpen_seed1", "tilted_seed1"} <= with_256


def test_the_quick_form_has_six_runs_of_60_steps():
    found = [c[0][1] for c in rows("miniature/observations.sh", "--quick").values() if hasattr(c[0][1], "num_steps")]
    assert len(found) == 6 and {args.num_steps for args in found} == {60}
