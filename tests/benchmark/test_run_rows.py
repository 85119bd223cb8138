"""benchmark/run_rows.py: which rows run, what becomes of each, and that rows which share a process share no weights."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_model

import common.evaluate
from benchmark import run_rows
from common import grading, rollout

Row = run_rows.Row


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_names_with_their_commands():
    text = "# first\npython a.py --x 1\n\npython b.py\n\n#second\n  python c.py\n"
    assert run_rows.read_rows(text) == [
        Row("first", ("python a.py --x 1", "python b.py")),
        Row("second", ("python c.py",)),
    ]


@pytest.mark.parametrize(
    "text,said",
    [
        ("python a.py\n# late\npython b.py", "'python a.py' belongs to no row"),
        ("# a\npython a.py\n# b\npython b.py\n# a\npython c.py", "no command: a."),
        ("# empty\n# b\npython b.py", "no command: empty."),
    ],
)
def test_rows_of_no_use_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        run_rows.read_rows(text)


def test_a_row_is_done_as_long_as_its_commands_stay_the_same(tmp_path, monkeypatch):
    (tmp_path / "done").mkdir()
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(run_rows, "run_command", lambda command: None)
    row = Row("a", ("python a.py", "python b.py"))
    assert not run_rows.is_done(row, tmp_path)
    run_rows.run_row(row, tmp_path)
    assert run_rows.is_done(row, tmp_path)
    assert not run_rows.is_done(Row("a", ("python a.py --more", "python b.py")), tmp_path)
    assert not run_rows.is_done(Row("a", ("python a.py",)), tmp_path)


def test_a_row_that_was_stopped_begins_anew_and_others_keep_their_folders(tmp_path, monkeypatch):
    for name in ("done", "logs", "a__toy__1__then/resume", "ab__toy__1__then/resume"):
        (tmp_path / name).mkdir(parents=True)
    seen = []
    monkeypatch.setattr(run_rows, "run_command", lambda command: seen.extend(tmp_path.glob("a__*")))
    run_rows.run_row(Row("a", ("python a.py",)), tmp_path)
    assert seen == [] and (tmp_path / "ab__toy__1__then/resume").exists()


def test_a_row_that_is_done_keeps_its_run_without_the_state_to_resume(tmp_path, monkeypatch):
    for name in ("done", "logs"):
        (tmp_path / name).mkdir()
    made = [tmp_path / "a__toy__1__now" / name for name in ("resume/step_000002", "checkpoints/step_000002")]
    monkeypatch.setattr(run_rows, "run_command", lambda command: [path.mkdir(parents=True) for path in made])
    run_rows.run_row(Row("a", ("python a.py",)), tmp_path)
    assert [path.exists() for path in made] == [False, True]


def test_commands_run_in_order_up_to_the_first_that_fails(tmp_path, monkeypatch):
    for name in ("done", "logs"):
        (tmp_path / name).mkdir()
    ran = []

    def run(command):
        ran.append(command)
        if "bad" in command:
            raise ValueError("the reason")

    monkeypatch.setattr(run_rows, "run_command", run)
    with pytest.raises(ValueError):
        run_rows.run_row(Row("a", ("good", "bad", "never")), tmp_path)
    assert ran == ["good", "bad"]
    assert "the reason" in (tmp_path / "logs/a.log").read_text() and not (tmp_path / "done/a").exists()


def test_a_star_stands_for_one_path_and_a_best_file_for_its_checkpoint(tmp_path):
    checkpoints = tmp_path / "run__toy__1__now" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "best_held_out.json").write_text('{"step": 20, "checkpoint": "step_000020"}')
    assert run_rows.path_of(f"{tmp_path}/run__*") == str(tmp_path / "run__toy__1__now")
    best = run_rows.path_of(f"{tmp_path}/run__*/checkpoints/best_held_out.json")
    assert best == str(checkpoints / "step_000020")
    with pytest.raises(ValueError, match="0 paths"):
        run_rows.path_of(f"{tmp_path}/other__*")
    (tmp_path / "run__toy__2__now").mkdir()
    with pytest.raises(ValueError, match="2 paths"):
        run_rows.path_of(f"{tmp_path}/run__*")


# --- what rows share --------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """(kind, model) of each sampler that was started, while scripts share them."""
    starts = []

    class Sampler:
        def __init__(self, kind):
            self.waiting = []
            if kind == "vllm":
                self.llm = None

        def push(self, pairs):
            self.pushed = dict(pairs)

        def close(self):
            raise AssertionError("the next script needs it")

    def start(kind, model, max_total_tokens, **options):
        starts.append((kind, Path(model).name))
        return Sampler(kind)

    monkeypatch.setattr(rollout, "start_sampler", start)
    monkeypatch.setattr(grading, "Grader", grading.Grader)
    monkeypatch.setattr(run_rows, "SAMPLERS", {})
    run_rows.share_samplers_and_graders()
    return starts


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """tiny, other (its shape, other weights), stops (other stop tokens), rough (bfloat16), wide (another shape)"""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("tiny", 0), ("other", 1), ("stops", 0), ("rough", 0)):
        tiny_model(folder / name, seed=seed)
    tiny_model(folder / "wide", intermediate_size=64)
    config = folder / "stops" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": [1, 20, 21, 22, 23, 24, 25]}))
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.bfloat16).save_pretrained(folder / "rough")
    return folder


def test_a_sampler_is_shared_by_models_of_one_shape_and_gets_the_weights_of_each(started, models):
    cpu = torch.device("cpu")
    one = rollout.start_sampler("vllm", models / "tiny", 64, device=cpu)
    one.waiting.append("a request of a script that failed")
    one.close()  # as every script does
    training = dict(dtype=torch.float32, device=cpu, gpu_memory_utilization=0.4)
    other = rollout.start_sampler("vllm", models / "other", 64, **training)
    assert other is one and not one.waiting and started == [("vllm", "tiny")]
    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(models / "other").state_dict()
    assert set(one.pushed) == set(weights) and all(torch.equal(one.pushed[name], weights[name]) for name in weights)
    assert rollout.start_sampler("vllm", models / "rough", 64, device=cpu) is one  # computes in float32 all the same


@pytest.mark.parametrize(
    "model,window,options",
    [
        ("wide", 64, {}),
        ("stops", 64, {}),
        ("tiny", 96, {}),
        ("tiny", 64, {"dtype": torch.bfloat16}),
        ("tiny", 64, {"max_logprobs": 8}),
    ],
)
def test_a_sampler_that_differs_is_started(started, models, model, window, options):
    cpu = torch.device("cpu")
    one = rollout.start_sampler("vllm", models / "tiny", 64, device=cpu)
    assert rollout.start_sampler("vllm", models / model, window, device=cpu, **options) is not one
    assert len(started) == 2


def test_a_second_engine_in_a_process_is_refused_on_a_gpu(started, models, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rollout.start_sampler("transformers", models / "wide", 64, device=cpu)
    rollout.start_sampler("vllm", models / "tiny", 64, device=cpu)
    rollout.start_sampler("vllm", models / "other", 64, device=cpu)
    rollout.start_sampler("transformers", models / "tiny", 64, device=cpu)
    with pytest.raises(ValueError, match="another input"):
        rollout.start_sampler("vllm", models / "wide", 64, device=cpu)


# --- the program ------------------------------------------------------------------------------------------------------


def call(folder: Path, rows: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmark.run_rows", "--folder", str(folder), *arguments]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    process.stdin.write(rows)
    process.stdin.close()
    process.stdin = None
    return process


def metrics_of(folder: Path, name: str) -> list[dict]:
    (run,) = folder.glob(f"{name}__*")
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    timed = ("time/", "memory/", "charts/tokens_per_second")
    return [{key: value for key, value in line.items() if not key.startswith(timed)} for line in lines]


@pytest.fixture(scope="module")
def ran(models, tmp_path_factory):
    """Rows in one process: one that was stopped, one done, one that fails, and the same run twice with other models
    between."""
    folder = tmp_path_factory.mktemp("rows")
    problems = folder / "sums.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(4)))
    shared = f"--dataset {problems} --max-total-tokens 24 --sampler transformers --num-grading-workers 1"
    shared += f" --prompt-file {ROOT}/common/prompts/bare.txt"
    train = f"{shared} --validation-dataset {problems} --num-steps 2 --num-problems 2 --group-size 2 --eval-every 1"
    train += f" --output-dir {folder} --learning-rate 0.01 --warmup-steps 1"

    def evaluate(name: str, model: Path | str) -> str:
        return (
            f"# {name}\npython -m common.evaluate --model {model} {shared} --n 4 --output-dir {folder}/results/{name}\n"
        )

    def tilted(name: str, model: str, *more: str) -> str:
        return f"# {name}\npython rloo_tilted.py --model {models / model} {train} --exp-name {name} {' '.join(more)}\n"

    rows = evaluate("stops", models / "stops") + tilted("first", "tiny") + tilted("between", "other", "--seed 1")
    rows += f"python -m common.evaluate --model {folder}/between__*/checkpoints/best_held_out.json {shared} --n 4\n"
    rows += "# broken\npython rloo_task.py --dataset no.jsonl --model toy\n"
    rows += (
        tilted("again", "tiny")
        + evaluate("base", models / "tiny")
        + "# finished\npython never.py\n# left_out\npython a.py"
    )
    for name in ("done", "logs", "first__tiny__42__20200101-000000"):
        (folder / name).mkdir()
    (folder / "done" / "finished").write_text("python never.py\n")
    process = call(folder, rows, "--rows", "^(?!left)")
    out, err = process.communicate(timeout=600)
    return folder, shared, process.returncode, out, err


def test_a_failed_row_is_listed_with_its_log_while_the_others_go_on(ran):
    folder, _, code, out, err = ran
    assert code == 1, err
    log = folder / "logs" / "broken.log"
    assert err.splitlines()[-2:] == ["rows that failed:", f"broken: ValueError, log {log}"]
    assert "no.jsonl" in log.read_text()
    done = {"stops", "first", "between", "again", "base", "finished"}
    assert {path.name for path in (folder / "done").iterdir()} == done
    assert "1 of 7 rows have their results" in out and "6/6" in out


def test_a_stopped_row_is_begun_anew_in_the_program_too(ran):
    (run,) = ran[0].glob("first__*")
    assert not run.name.endswith("20200101-000000") and not (run / "resume").exists()


def test_a_row_gives_the_same_after_others_as_alone(ran):
    folder = ran[0]
    assert metrics_of(folder, "first") == metrics_of(folder, "again") != metrics_of(folder, "between")
    assert len(metrics_of(folder, "first")) == 3


@pytest.mark.parametrize("name", ["base", "stops"])
def test_an_evaluation_gives_the_same_after_others_as_alone(ran, models, tmp_path, name):
    folder, shared = ran[:2]
    words = shared.split() + ["--model", str(models / {"base": "tiny"}.get(name, name)), "--n", "4"]
    import tyro

    common.evaluate.main(tyro.cli(common.evaluate.Args, args=[*words, "--output-dir", str(tmp_path)]))
    (alone,), (after,) = (path.glob("*__seed1.json") for path in (tmp_path, folder / "results" / name))
    kept = ("tokens", "logp", "authors", "finished")
    problems = [[{key: p[key] for key in kept} for p in json.loads(f.read_text())["problems"]] for f in (alone, after)]
    assert problems[0] == problems[1]


def test_the_best_checkpoint_of_a_row_is_evaluated(ran):
    (run,) = ran[0].glob("between__*")
    best = json.loads((run / "checkpoints" / "best_held_out.json").read_text())["checkpoint"]
    assert [path.name for path in (run / "results").iterdir()] == [best]


def test_a_checkpoint_shares_the_sampler_of_its_base(ran, started, models):
    cpu = torch.device("cpu")
    (checkpoint,) = ran[0].glob("first__*/checkpoints/step_000002")
    base = rollout.start_sampler("vllm", models / "tiny", 24, device=cpu)
    assert rollout.start_sampler("vllm", checkpoint, 24, device=cpu) is base


@pytest.fixture
def slow(tmp_path):
    """run_rows.py at work on a row whose script has begun and waits, with two more to come."""
    head = "import signal, sys, time\nfrom dataclasses import dataclass\nfrom pathlib import Path\n"
    body = "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # as training does, its state saved\n"
    body += f"    (Path({str(tmp_path)!r}) / args.name).touch()\n    time.sleep(600)\n"
    script = f"{head}@dataclass\nclass Args:\n    name: str\n\ndef main(args):\n{body}"
    (tmp_path / "slow.py").write_text(script)
    names = ("a", "b", "c")
    process = call(tmp_path / "out", "".join(f"# {n}\npython {tmp_path}/slow.py --name {n}\n" for n in names))
    try:
        while not (tmp_path / "a").exists():
            assert process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_signal_ends_the_row_that_runs_and_begins_no_other(slow, tmp_path):
    os.kill(slow.pid, signal.SIGTERM)
    _, err = slow.communicate(timeout=60)  # the pipes close when its children are gone too
    assert slow.returncode == 1 and "call again" in err
    assert not (tmp_path / "b").exists() and not any((tmp_path / "out" / "done").iterdir())


def test_a_kill_leaves_no_process_behind(slow, tmp_path):
    os.kill(slow.pid, signal.SIGKILL)
    slow.communicate(timeout=60)
    assert not (tmp_path / "b").exists() and not any((tmp_path / "out" / "done").iterdir())


def test_dry_run_prints_the_rows_and_makes_nothing(tmp_path):
    rows = "# a\npython a.py\npython b.py\n\n# b\npython c.py\n"
    process = call(tmp_path / "out", rows, "--dry-run", "--rows", "a|b")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, rows) and not (tmp_path / "out").exists()
