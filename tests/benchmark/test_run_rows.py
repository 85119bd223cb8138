"""benchmark/run_rows.py: which rows run, what becomes of each, and that rows which share a process share no weights."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, tiny_model

import common.evaluate
from benchmark import run_rows
from benchmark.run_rows import Row, RowError
from common import rollout

# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_names_with_what_they_need_notes_and_commands():
    text = "# first\n#   a note\npython a.py --x 1\n\npython b.py\n\n# second needs first other\n  python c.py\n"
    first = Row("first", [], ["a note"], ["python a.py --x 1", "python b.py"])
    second = Row("second", ["first", "other"], [], ["python c.py"])
    assert run_rows.read_rows(text) == [first, second]
    assert first.text() == "# first\n#   a note\npython a.py --x 1\npython b.py"
    assert second.text() == "# second needs first other\npython c.py"


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


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("done", "logs"):
        (tmp_path / name).mkdir()
    return tmp_path


class Commands:
    """Stands in for what runs a command: remembers it, and fails if it says so."""

    def __init__(self):
        self.ran = []

    def __call__(self, command, log):
        self.ran.append(command)
        if "bad" in command:
            raise ValueError("the reason")


def test_a_row_is_complete_as_long_as_its_commands_stay_the_same(folder):
    row = Row("a", commands=["first", "second"])
    assert not run_rows.is_complete(row, folder)
    run_rows.run_row(row, folder, Commands())
    assert run_rows.is_complete(row, folder)
    assert not run_rows.is_complete(Row("a", commands=["first --more", "second"]), folder)
    assert not run_rows.is_complete(Row("a", commands=["first"]), folder)


def test_a_row_continues_after_the_commands_that_it_has_completed(folder):
    with pytest.raises(ValueError):
        run_rows.run_row(Row("a", commands=["one", "bad", "three"]), folder, first := Commands())
    assert first.ran == ["one", "bad"] and "the reason" in (folder / "logs/a.log").read_text()
    assert not run_rows.is_complete(Row("a", commands=["one"]), folder)
    run_rows.run_row(Row("a", commands=["one", "two", "three"]), folder, second := Commands())
    assert second.ran == ["two", "three"]


def test_a_row_whose_commands_have_changed_starts_again_and_loses_nothing(folder):
    for name in ("a__toy__1__then", "ab__toy__1__then"):
        (folder / name).mkdir()
    run_rows.run_row(Row("a", commands=["one"]), folder, Commands())
    run_rows.run_row(Row("a", commands=["other"]), folder, commands := Commands())
    assert commands.ran == ["other"]
    assert {path.name for path in folder.glob("*__*")} == {"ab__toy__1__then"}
    assert (folder / "replaced" / "a__toy__1__then").exists()


def test_a_complete_row_keeps_its_run_without_the_state_to_resume(folder):
    made = [folder / "a__toy__1__now" / name for name in ("resume/step_000002", "checkpoints/step_000002")]
    run_rows.run_row(Row("a", commands=["one"]), folder, lambda *_: [path.mkdir(parents=True) for path in made])
    assert [path.exists() for path in made] == [False, True]


def test_a_row_that_runs_in_another_process_is_not_run_beside_it(folder):
    row, commands = Row("a", commands=["python a.py"]), Commands()
    code = "import sys, benchmark.run_rows as r; log = open(sys.argv[1], 'a'); r.lock(log, 'a'); print(); input()"
    command = [sys.executable, "-c", code, str(folder / "logs" / "a.log")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # it holds the lock
        with pytest.raises(RowError, match="a is running in another process"):
            run_rows.run_row(row, folder, commands)
        assert not commands.ran
        other.communicate(b"\n")
    run_rows.run_row(row, folder, commands)
    run_rows.run_row(row, folder, commands)  # as by a process that chose its rows before this one was complete
    assert commands.ran == ["python a.py"]


def test_the_rows_that_a_row_needs_must_be_complete(folder):
    with pytest.raises(RowError, match="needs base, which is not complete"):
        run_rows.run_row(Row("a", needs=["base"], commands=["one"]), folder, Commands())
    run_rows.run_row(Row("base", commands=["one"]), folder, Commands())
    run_rows.run_row(Row("a", needs=["base"], commands=["one"]), folder, Commands())


# --- training runs ----------------------------------------------------------------------------------------------------


def training(folder: Path, num_steps: int = 40) -> str:
    return f"torchrun rloo_task.py --num-steps {num_steps} --exp-name t --output-dir {folder}"


def put_run(folder: Path, time: str, *steps: int, resume: bool = True, model: str = "model") -> Path:
    run = folder / f"t__{model}__42__{time}"
    run.mkdir()
    for step in steps:
        (run / f"checkpoints/step_{step:06d}").mkdir(parents=True)
        (run / f"checkpoints/step_{step:06d}/config.json").touch()
    if resume:
        (run / "resume").mkdir()
        (run / "resume/latest.json").write_text("{}")
    return run


def test_a_run_that_was_stopped_continues_the_newest_first(tmp_path):
    put_run(tmp_path, "20260101-000000", 0, model="z")
    newest = put_run(tmp_path, "20260102-000000", 0, 20, model="a")
    (tmp_path / "tt__model__42__20260103-000000").mkdir()  # of another row
    assert run_rows.to_call(training(tmp_path)) == f"{training(tmp_path)} --resume {newest}"


def test_a_finished_run_is_not_trained_again_and_a_longer_one_is(tmp_path):
    run = put_run(tmp_path, "20260101-000000", 0, 40)
    assert run_rows.to_call(training(tmp_path)) is None
    assert run_rows.to_call(training(tmp_path, 60)) == f"{training(tmp_path, 60)} --resume {run}"


def test_a_run_with_checkpoints_and_nothing_to_resume_is_left_alone(tmp_path):
    run = put_run(tmp_path, "20260101-000000", 20, resume=False)
    with pytest.raises(RowError, match="move it away"):
        run_rows.to_call(training(tmp_path))
    assert run.exists()


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path):
    run = put_run(tmp_path, "20260101-000000", resume=False)
    assert run_rows.to_call(training(tmp_path)) == training(tmp_path)
    assert not run.exists()


def test_other_commands_are_called_as_they_are(tmp_path):
    assert run_rows.to_call("python beam_eval.py --model x") == "python beam_eval.py --model x"


def test_a_star_stands_for_one_path(tmp_path):
    (tmp_path / "a run__1").mkdir()
    command = f"python -m common.evaluate --run {tmp_path}/a*__* --n 2"
    assert shlex.split(run_rows.with_paths(command))[-3:] == [f"{tmp_path}/a run__1", "--n", "2"]
    with pytest.raises(RowError, match="matches 0 paths, not one"):
        run_rows.with_paths(f"x {tmp_path}/other__*")
    (tmp_path / "a run__2").mkdir()
    with pytest.raises(RowError, match="matches 2 paths, not one: .*1, .*2"):
        run_rows.with_paths(command)


# --- what rows share in one process -----------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """(kind, model) of each sampler that is started."""
    starts = []

    class Sampler:
        def __init__(self, kind):
            self.pushed = self.asleep = None
            if kind == "vllm":
                self.llm = None

        def push(self, pairs):
            self.pushed, self.asleep = dict(pairs), False

        def sleep(self):
            self.asleep = True

        def close(self):
            raise AssertionError("the next script needs it")

    def start(kind, model, max_total_tokens, **options):
        starts.append((kind, Path(model).name))
        return Sampler(kind)

    monkeypatch.setattr(rollout, "start_sampler", start)
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


def asked(model: Path | str, window: int = 64, kind: str = "vllm", **more) -> SimpleNamespace:
    """The arguments of a script, as far as samplers depend on them."""
    return SimpleNamespace(
        model=str(model),
        sampler=kind,
        max_total_tokens=window,
        seed=1,
        num_grading_workers=1,
        **{"gpu_memory_utilization": 0.9} | more,
    )


def weights_of(model: Path) -> dict:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype="auto").state_dict()


def test_an_evaluation_gets_the_sampler_of_another_row_with_its_own_weights(started, models):
    shared = run_rows.Shared()
    one = shared.sampler(asked(models / "tiny"), trains=False)
    one.close()  # as scripts do
    other = shared.sampler(asked(models / "other", dtype="float32", gpu_memory_utilization=0.4), trains=False)
    assert other is one and started == [("vllm", "tiny")]
    weights = weights_of(models / "other")
    assert set(one.pushed) == set(weights) and all(torch.equal(one.pushed[name], weights[name]) for name in weights)
    assert shared.sampler(asked(models / "rough"), trains=False) is one  # computes in float32 all the same


def test_training_gets_a_sampler_that_sleeps_until_the_first_push(started, models):
    shared = run_rows.Shared()
    one = shared.sampler(asked(models / "tiny"), trains=True)
    assert one.asleep and one.pushed is None
    shared.sampler(asked(models / "tiny"), trains=False)
    assert not one.asleep
    assert shared.sampler(asked(models / "other"), trains=True) is one and one.asleep


def test_the_evaluation_of_a_run_gets_the_sampler_of_its_shape(started, models, tmp_path):
    shared = run_rows.Shared()
    one = shared.sampler(asked(models / "tiny"), trains=True)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RowError, match="has no checkpoint"):
        shared.sampler(asked("", run=[str(tmp_path)]), trains=False)
    (tmp_path / "checkpoints" / "step_000002").symlink_to(models / "other")
    assert shared.sampler(asked("", run=[str(tmp_path)]), trains=False) is one and one.pushed is None


def test_a_checkpoint_that_lists_its_stop_token_has_the_shape_of_its_model(started, models, tmp_path):
    """Checkpoints of a model whose config.json has eos_token_id 2 have [2] there."""
    shutil.copytree(models / "other", tmp_path / "listed")
    config = tmp_path / "listed" / "config.json"
    found = json.loads(config.read_text())
    config.write_text(json.dumps(found | {"eos_token_id": [found["eos_token_id"]]}))
    shared = run_rows.Shared()
    one = shared.sampler(asked(models / "tiny"), trains=True)
    assert shared.sampler(asked(tmp_path / "listed"), trains=False) is one and len(started) == 1


def test_several_processes_on_one_gpu_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RowError, match="--in-process 1"):
        next(run_rows.run_in_processes(run_rows.read_rows("# a\necho 1"), tmp_path, 2))


@pytest.mark.parametrize(
    "model,window,options",
    [("wide", 64, {}), ("stops", 64, {}), ("tiny", 96, {}), ("tiny", 64, {"dtype": "bfloat16"})],
)
def test_a_sampler_that_differs_is_started(started, models, model, window, options):
    shared = run_rows.Shared()
    one = shared.sampler(asked(models / "tiny"), trains=False)
    assert shared.sampler(asked(models / model, window, **options), trains=False) is not one
    assert len(started) == 2


def test_a_second_engine_in_a_process_is_refused_on_a_gpu(started, models, monkeypatch):
    monkeypatch.setattr("common.run.start_processes", lambda seed: torch.device("cuda"))
    shared = run_rows.Shared()
    shared.sampler(asked(models / "wide", kind="transformers"), trains=False)
    shared.sampler(asked(models / "tiny"), trains=False)
    shared.sampler(asked(models / "other"), trains=False)
    shared.sampler(asked(models / "tiny", kind="transformers"), trains=False)
    with pytest.raises(RowError, match="another input"):
        shared.sampler(asked(models / "wide"), trains=False)


def test_grading_workers_are_shared_and_left_open(monkeypatch):
    made = []
    monkeypatch.setattr("common.grading.Grader", lambda workers: made.append(workers) or SimpleNamespace(close=None))
    shared = run_rows.Shared()
    one = shared.grader(asked("x"))
    one.close()  # would fail if it reached the pool
    assert shared.grader(asked("y")) is one and made == [1]


# --- a process per command --------------------------------------------------------------------------------------------


def call(folder: Path, rows: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmark.run_rows", "--folder", str(folder), *arguments]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    process.stdin.write(rows)
    process.stdin.close()
    process.stdin = None
    return process


THREE = """
# good
echo 1 >>{0}/ran
# bad
echo 2 >>{0}/ran
echo the reason >&2; exit 4
echo never >>{0}/ran
# after
#   a note
echo 3 >>{0}/ran
# dependent needs bad
echo 4 >>{0}/ran
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """(exit code, output, errors, what ran) of two calls with the same rows."""
    folder = tmp_path_factory.mktemp("rows")
    calls = []
    for _ in range(2):
        process = call(folder / "out", THREE.format(folder))
        output, errors = process.communicate(timeout=60)
        calls.append((process.returncode, output, errors, (folder / "ran").read_text().split()))
        (folder / "ran").write_text("")
    return folder / "out", calls


def test_a_row_that_fails_is_listed_and_the_others_run(twice):
    folder, ((code, output, errors, ran), _) = twice
    assert code == 1 and ran == ["1", "2", "3"]
    assert errors.splitlines() == [
        "rows that failed:",
        f"bad: exit code 4, log {folder}/logs/bad.log",
        f"dependent: needs bad, which is not complete, log {folder}/logs/dependent.log",
    ]
    assert "the reason" in (folder / "logs/bad.log").read_text() and "4/4  dependent  FAILED" in output


def test_a_second_call_runs_what_is_left(twice):
    _, (_, (code, output, _, ran)) = twice
    assert code == 1 and ran == [] and "2 of 4 rows are complete" in output  # of bad, the command that fails


def test_rows_are_chosen_by_all_expressions_and_lines_of_the_log_are_shown(tmp_path):
    arguments = ["--rows", "^(good|after|bad)$", "--rows", "a", "--show", "^the"]
    process = call(tmp_path / "out", THREE.format(tmp_path), *arguments)
    output, _ = process.communicate(timeout=60)
    assert (tmp_path / "ran").read_text().split() == ["2", "3"] and "\n    the reason\n" in output


def test_a_signal_reaches_the_command_that_runs_and_no_other_begins(tmp_path):
    slow = f"trap 'touch {tmp_path}/saved; exit 75' TERM; touch {tmp_path}/begun; while true; do sleep 0.1; done"
    process = call(tmp_path / "out", f"# a\n{slow}\n# b\ntouch {tmp_path}/b\n")
    try:
        wait_for(tmp_path / "begun", process)
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1 and "stopped: call again to continue" in errors
    assert (tmp_path / "saved").exists() and not (tmp_path / "b").exists()
    assert not (tmp_path / "out" / "done" / "a").exists()


def test_dry_run_needs_nothing_that_has_to_be_installed(tmp_path):
    command = [sys.executable, "-S", "-I", "-c"]  # without site-packages
    command.append(f"import sys; sys.path.insert(0, {str(ROOT)!r}); import benchmark.run_rows, benchmark.tables.paper")
    subprocess.run(command, check=True, timeout=60)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)

    # --- rows inside a process ----------------------------------------------------------------------------------------


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
    rows += f"python -m common.evaluate --run {folder}/between__* --checkpoint last best_held_out {shared} --n 4\n"
    rows += "# broken\npython rloo_task.py --dataset no.jsonl --model toy\n"
    rows += (
        tilted("again", "tiny")
        + evaluate("base", models / "tiny")
        + "# finished\npython never.py\n# left_out\npython a.py"
    )
    for name in ("done", "logs", "first__tiny__42__20200101-000000"):
        (folder / name).mkdir()
    (folder / "done" / "finished").write_text("python never.py\n")
    process = call(folder, rows, "--rows", "^(?!left)", "--in-process", "1")
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
    assert "1 of 7 rows are complete" in out and "6/6" in out


def test_a_run_without_a_checkpoint_starts_again_in_the_program_too(ran):
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


def test_the_checkpoints_of_a_row_are_evaluated_by_name(ran):
    (run,) = ran[0].glob("between__*")
    best = json.loads((run / "checkpoints" / "best_held_out.json").read_text())["checkpoint"]
    rows = json.loads((run / "results" / "summary.json").read_text())["results"]
    assert {row["checkpoint"]: row["step"] for row in rows} == {"last": 2, "best_held_out": int(best[-6:])}


@pytest.fixture
def slow(tmp_path):
    """run_rows.py at work on a row whose script has begun and waits, with two more to come."""
    head = "import signal, sys, time\nfrom dataclasses import dataclass\nfrom pathlib import Path\n"
    body = "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # as training does, its state saved\n"
    body += f"    (Path({str(tmp_path)!r}) / args.name).touch()\n    time.sleep(600)\n"
    script = f"{head}@dataclass\nclass Args:\n    name: str\n\ndef main(args):\n{body}"
    (tmp_path / "slow.py").write_text(script)
    names = ("a", "b", "c")
    process = call(
        tmp_path / "out", "".join(f"# {n}\npython {tmp_path}/slow.py --name {n}\n" for n in names), "--in-process", "1"
    )
    try:
        wait_for(tmp_path / "a", process)
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


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--rows", "["], "--rows [: no regular expression (unterminated character set at position 0)."),
        (["--show", "("], "--show (: no regular expression"),
        (["--rows", "a", "--rows", "nosuch"], "--rows a --rows nosuch: no row matches. The rows are a, b."),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_expression_that_is_malformed_or_matches_no_row_is_refused(
    tmp_path, monkeypatch, capsys, arguments, said, dry
):
    def main(*more: str) -> int:
        monkeypatch.setattr(sys, "argv", ["run_rows.py", "--folder", str(tmp_path / "out"), *arguments, *dry, *more])
        monkeypatch.setattr(sys, "stdin", io.StringIO("# a\npython a.py\n\n# b\npython c.py\n"))
        return run_rows.main()

    assert main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {said}") and err.count("\n") == 1
    if "nosuch" in arguments:  # the rest of the rows may be in other inputs
        assert main("--part") == 0
        assert capsys.readouterr() == ("", "--rows a --rows nosuch: no row matches in this part of the rows.\n")
    assert not (tmp_path / "out").exists()
