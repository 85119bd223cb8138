"""What may happen to a run on a cluster: kills, signals, full disks, broken files, errors in a step.

Nothing may be lost or silently wrong: a run that goes on ends bit for bit where an unbroken one does.
"""

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, sums, tiny_model
from fault_worker import PHASES
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_checkpoint import state_of
from transformers import AutoModelForCausalLM

from common.run import FAILED, REFUSED, STOPPED
from common.run.checkpoint import replacing, write_text

TIMES = ("time/", "charts/tokens_per_second")
STEPS = 6


class Trainer:
    """Starts runs in forks of one warm process (tests/fault_worker.py)."""

    def __init__(self, folder: Path):
        self.folder, self.number = folder, 0
        command = [sys.executable, str(Path(__file__).with_name("fault_worker.py"))]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *faults, resume: Path | None = None, ranks: int = 1, extra: str = "") -> tuple[list[int], Path]:
        """(exit codes, run folder); a fault is (function, call, action), or with a rank before."""
        self.number += 1
        out = self.folder / f"runs{self.number}"
        words = self.words(f"{extra} --resume {resume}" if resume else f"{extra} --output-dir {out}")
        faults = [(0, *fault) if len(fault) == 3 else fault for fault in faults]
        request = {"words": words, "ranks": ranks, "log": str(out) + ".log", "faults": faults}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        run = resume or next(out.iterdir())
        for events in run.glob("events.out.tfevents.1*"):  # TensorBoard sorts files by their second: let time pass
            events.rename(events.with_name(f"events.out.tfevents.{self.number:010d}.{events.name[-30:]}"))
        return codes, run

    def words(self, extra: str, steps: int = STEPS) -> list[str]:
        """The command line."""
        folder = self.folder
        return f"""--alpha 2 --beta 0.1 --model {folder / "model"} --dataset {folder / "problems.jsonl"}
            --validation-dataset {folder / "problems.jsonl"} --prompt-file {folder / "bare.txt"} --num-problems 4
            --group-size 2 --num-steps {steps} --eval-every 2 --max-total-tokens 16 --learning-rate 1e-2
            --warmup-steps 2 --seed 2 {extra}""".split()

    def said(self, rank: int = 0) -> str:
        """What the last run wrote to stdout and stderr."""
        return (self.folder / f"runs{self.number}.log.{rank}").read_text()

    def counts(self) -> dict[str, int]:
        return json.loads((self.folder / f"runs{self.number}.log.counts").read_text())


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    tiny_model(folder / "model")
    sums(folder, 8)
    trainer = Trainer(folder)
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait()


@pytest.fixture(scope="module")
def unbroken(trainer) -> tuple[dict, dict[str, int]]:
    """What a run that nothing happens to leaves, and how often it calls each function of PHASES."""
    codes, run = trainer()
    assert codes == [0], trainer.said()
    return content(run), trainer.counts()


def content(run: Path) -> dict:
    """All that a run leaves, except what tells of time and place: files by their bytes, optimizer states by tensors,
    metrics, and curves as TensorBoard shows them."""
    left = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name == ".metadata":
            left[name] = {key: value.numpy().tobytes() for key, value in state_of(path.parent).items()}
        elif path.suffix == ".distcp":
            continue  # the tensors are compared
        elif name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            left[name] = [{k: v for k, v in line.items() if not k.startswith(TIMES)} for line in lines]
        elif path.is_file() and not name.startswith(("events", "args.json", "env.txt", "git.txt")):
            left[name] = path.read_bytes()
    curves = EventAccumulator(str(run), {"scalars": 0})
    curves.Reload()
    for tag in curves.Tags()["scalars"]:
        left[f"curve {tag}"] = [(e.step, 0 if tag.startswith(TIMES) else e.value) for e in curves.Scalars(tag)]
    return left


def assert_same(run: Path, expected: dict) -> None:
    found = content(run)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_an_unbroken_run_leaves_what_it_should(unbroken):
    left, counts = unbroken
    assert [line["step"] for line in left["metrics.jsonl"]] == list(range(STEPS + 1))
    assert [step for step, _ in left["curve objective/return"]] == list(range(STEPS))
    for name in ("authors", "held_out"):
        assert json.loads(left[f"checkpoints/best_{name}.json"])["step"] == 2  # so steps 0 and 4 were pruned
    for kind in ("parameter", "exp_avg", "exp_avg_sq", "step"):
        assert len(left[f"resume/step_{STEPS:06d}/{kind}/.metadata"]) == 26
    assert all(counts[function] > 0 for function in PHASES.values())


# --- SIGKILL ----------------------------------------------------------------------------------------------------------

HALF = {"writing the state", "writing a checkpoint", "pruning", "logging"}  # killed in the middle, too


def kill_point(phase: str, counts: dict[str, int], number: int) -> tuple[str, int, str]:
    """A (function, call, action) of the phase, drawn by the number; every other one is in the middle of a call."""
    draw = random.Random(f"{phase} {number}")
    action = "half" if phase in HALF and number % 2 == 0 else "kill"
    return PHASES[phase], draw.randint(1, counts[PHASES[phase]]), action


def assert_usable(run: Path) -> None:
    """Whatever has its name is whole, and the state to resume is as new as everything else."""
    latest = run / "resume" / "latest.json"
    step = json.loads(latest.read_text())["step"] if latest.exists() else -1
    for folder in (run / "checkpoints").glob("step_*"):
        files = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
        assert int(folder.name.removeprefix("step_")) <= step
        load_file(folder / "model.safetensors")
    for best in (run / "checkpoints").glob("best_*.json"):
        assert (run / "checkpoints" / json.loads(best.read_text())["checkpoint"]).is_dir()


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("phase", PHASES)
def test_a_run_killed_at_any_moment_and_resumed_ends_where_an_unbroken_one_does(trainer, unbroken, phase, kills):
    expected, counts = unbroken
    for number in range(kills - 1, 2 * kills - 1):
        point = kill_point(phase, counts, number)
        codes, run = trainer(point)
        assert codes == [-9], point
        assert_usable(run)
        codes, run = trainer(resume=run)
        assert codes == [0], (point, trainer.said())
        assert_same(run, expected)
        shutil.rmtree(run)


def test_a_resumed_run_may_be_killed_again_and_again(trainer, unbroken):
    codes, run = trainer((PHASES["backward"], 4, "kill"))
    for phase, call, action in [("logging", 1, "half"), ("putting on disk", 3, "kill"), ("pruning", 1, "half")]:
        assert codes == [-9]
        codes, run = trainer((PHASES[phase], call, action), resume=run)
    assert codes == [-9]
    codes, run = trainer(resume=run)
    assert codes == [0], trainer.said()
    assert_same(run, unbroken[0])


@pytest.mark.long
def test_runs_that_are_killed_three_times_end_where_an_unbroken_one_does(trainer, unbroken):
    expected, counts = unbroken
    draw, kills = random.Random(0), 0
    for _ in range(10):
        codes, run = trainer(kill_point(draw.choice(list(PHASES)), counts, draw.randrange(100)))
        for _ in range(2):
            kills += codes == [-9]
            if codes == [-9]:
                assert_usable(run)
                point = kill_point(draw.choice(list(PHASES)), counts, draw.randrange(100))
                codes, run = trainer(point, resume=run)
        if codes == [-9]:
            codes, run = trainer(resume=run)
        assert codes == [0], trainer.said()
        assert_same(run, expected)
    assert kills >= 15


@pytest.mark.long
def test_two_processes_of_which_one_is_killed_go_on_from_the_same_step(trainer):
    codes, run = trainer(ranks=2)
    assert codes == [0, 0], trainer.said()
    expected, counts = content(run), trainer.counts()
    for phase in PHASES:
        point = kill_point(phase, counts, 0)
        rank = int(phase in ("rollout", "backward", "writing the state"))  # rank 0 writes the rest
        codes, run = trainer((rank, *point), ranks=2)
        assert -9 in codes, point
        codes, run = trainer(resume=run, ranks=2)
        assert codes == [0, 0], (point, trainer.said())
        assert_same(run, expected)


# --- SIGTERM and SIGINT -----------------------------------------------------------------------------------------------

FORWARD, VALIDATION, GENERATE = PHASES["forward"], PHASES["validation"], "common.rollout.transformers.response_budgets"


@pytest.mark.parametrize(
    "fault,resumes_at",
    [
        ((FORWARD, 4, "SIGTERM"), 4),  # step 3 is done first
        ((VALIDATION, 17, "SIGINT"), 4),  # in the validation of step 4: it is saved, and step 4 is not begun
        ((FORWARD, 4, "one signal passed on by two"), 4),
    ],
)
def test_a_signal_stops_the_run_with_its_state_saved(trainer, unbroken, fault, resumes_at):
    codes, run = trainer(fault)
    assert codes == [STOPPED] == [75]
    assert f"stopped by a signal before step {resumes_at}: go on with --resume {run}" in trainer.said()
    assert json.loads((run / "resume" / "latest.json").read_text()) == {"step": resumes_at}
    assert [line["step"] for line in content(run)["metrics.jsonl"]] == list(range(resumes_at))
    codes, run = trainer(resume=run)
    assert codes == [0], trainer.said()
    assert_same(run, unbroken[0])


def test_a_signal_in_the_last_validation_lets_the_run_end(trainer, unbroken):
    codes, run = trainer((VALIDATION, 25, "SIGTERM"))
    assert codes == [0]
    assert_same(run, unbroken[0])


def test_a_second_signal_ends_the_process_at_once(trainer, unbroken):
    codes, run = trainer((FORWARD, 4, "a second signal"))
    assert codes == [128 + 15]
    assert json.loads((run / "resume" / "latest.json").read_text()) == {"step": 2}  # as before the signal
    codes, run = trainer(resume=run)
    assert_same(run, unbroken[0])


def test_a_signal_that_reaches_one_process_stops_all_at_the_same_step(trainer):
    codes, run = trainer((1, FORWARD, 3, "SIGTERM"), ranks=2)
    assert codes == [STOPPED, STOPPED], trainer.said()
    step = json.loads((run / "resume" / "latest.json").read_text())["step"]
    assert json.loads((run / "resume" / f"step_{step:06d}" / "state.json").read_text())["processes"] == 2
    codes, _ = trainer(resume=run)
    assert codes == [0], trainer.said()


def test_ctrl_c_in_a_terminal_leaves_the_graders_alone_until_the_state_is_saved(trainer):
    """The script itself, with real grading workers: a terminal sends SIGINT to the whole process group."""
    out = trainer.folder / "terminal"
    words = trainer.words(f"--output-dir {out} --num-grading-workers 1", steps=1000)
    command = [sys.executable, str(ROOT / "rloo_tilted.py"), *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("step 1/"):
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == STOPPED, "".join(said)
    assert not any("Traceback" in line for line in said)
    assert json.loads((next(out.iterdir()) / "resume" / "latest.json").read_text())["step"] >= 2


# --- errors in a step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault,line",
    [
        (
            (FORWARD, 4, "out of memory"),
            r"OutOfMemoryError.*--microbatch-tokens.*--resume.*\[step 3, train, problems p",
        ),
        ((GENERATE, 6, "out of memory"), r"OutOfMemoryError.*--gpu-memory-utilization.*\[step 3, rollout, problems p"),
        ((GENERATE, 6, "engine error"), r"^error: RuntimeError: the engine is gone \[step 3, rollout, problems p\d, p"),
    ],
)
def test_an_error_in_a_step_names_step_and_problems_and_the_run_goes_on_later(trainer, unbroken, fault, line):
    codes, run = trainer(fault)
    assert codes == [FAILED] == [3]
    assert re.search(line, trainer.said().splitlines()[-1])
    assert ("Traceback" in trainer.said()) == (fault[2] == "engine error")
    codes, run = trainer(resume=run, extra="--num-grading-workers 1 --gpu-memory-utilization 0.3")
    assert codes == [0], trainer.said()
    assert_same(run, unbroken[0])


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        (PHASES["writing the state"], 2, "full disk"),
        (PHASES["writing a checkpoint"], 2, "full disk"),
        (PHASES["pruning"], 2, "read-only folder"),
        ("torch.utils.tensorboard.SummaryWriter.add_scalar", 60, "read-only folder"),
    ],
)
def test_a_full_or_read_only_disk_ends_the_run_in_one_line_and_the_last_state_goes_on(trainer, unbroken, fault):
    codes, run = trainer(fault)
    assert codes == [FAILED]
    assert_usable(run)
    said = trainer.said()
    assert re.search(r"^error: \S+ could not be written \(.+ GB free there.* go on with --resume\.", said, re.M)
    assert "Traceback" not in said
    codes, run = trainer(resume=run)
    assert codes == [0], trainer.said()
    assert_same(run, unbroken[0])


@pytest.mark.parametrize("action", ["kill", "full disk"])
def test_with_remove_state_first_a_fault_while_writing_loses_the_state_and_says_so(trainer, action):
    before = 26 + 4 * 26  # tensors of steps 0 and 2; the fault comes in those of step 4
    codes, run = trainer((PHASES["writing the state"], before + 10, action), extra="--remove-state-first")
    if action == "full disk":
        assert codes == [FAILED]
        assert re.search(
            r"could not be written .*--remove-state-first.* newest checkpoint, with --model", trainer.said()
        )
    assert not (run / "resume" / "latest.json").exists() and not list((run / "resume").glob("step_*"))
    codes, _ = trainer(resume=run)
    assert codes == [REFUSED] and re.search("newest folder in .*checkpoints, with --model", trainer.said())
    AutoModelForCausalLM.from_pretrained(run / "checkpoints" / "step_000002")


def test_with_remove_state_first_a_kill_at_another_moment_loses_nothing(trainer, unbroken):
    codes, run = trainer((FORWARD, 6, "kill"), extra="--remove-state-first")
    assert codes == [-9]
    codes, run = trainer(resume=run)
    assert codes == [0], trainer.said()
    assert_same(run, unbroken[0])


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    open_file, sync, rename = os.open, os.fsync, os.rename
    names = {}

    def opening(path, *args):
        descriptor = open_file(path, *args)
        names[descriptor] = Path(path).name
        return descriptor

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append(names[descriptor]), sync(descriptor)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append(f"rename to {Path(b).name}"), rename(a, b)))
    with replacing(tmp_path / "folder") as folder:
        (folder / "weights").write_text("1")
    write_text(tmp_path / "best.json", "2")
    hidden = re.compile(r"\.(.*)\.\d+\.tmp")
    assert [hidden.sub(r"\1", event) for event in events] == [
        *("weights", "folder", "rename to folder", tmp_path.name),
        *("best.json", "rename to best.json", tmp_path.name),
    ]


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_else(tmp_path):
    write_text(tmp_path / "best.json", "old")
    with pytest.raises(OSError, match=r"best.json could not be written \(no room\)"):
        with replacing(tmp_path / "best.json") as temporary:
            temporary.write_text("ne")
            raise OSError("no room")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("best.json", "old")]


# --- files of an older run --------------------------------------------------------------------------------------------


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def stopped(trainer) -> Path:
    """A run that stopped before step 4, of its own for each test."""
    codes, run = trainer((FORWARD, 4, "SIGTERM"))
    assert codes == [STOPPED]
    return run


def test_an_older_file_that_is_broken_is_refused_with_a_line_that_says_what_to_do(trainer, stopped, tmp_path):
    def bomb(path):
        torch.save({"lm_head.weight": Bomb(tmp_path / "ran")}, path)

    def raw_bomb(path):
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))

    def cut(path):
        os.truncate(path, path.stat().st_size // 2)

    state, anew = stopped / "resume" / "step_000004", "newest folder in .*checkpoints, with --model"
    for path, damage, line in [
        (state / "exp_avg" / "__0_0.distcp", cut, anew),
        (state / "exp_avg" / "__0_0.distcp", bomb, anew),
        (state / "exp_avg" / "__0_0.distcp", raw_bomb, anew),
        (state / "exp_avg" / "__0_0.distcp", Path.unlink, anew),
        (state / "parameter" / ".metadata", cut, anew),
        (state / "parameter" / ".metadata", raw_bomb, anew),
        (state / "parameter" / ".metadata", Path.unlink, anew),
        (state / "state.json", cut, anew),
        (state / "state.json", Path.unlink, anew),
        (stopped / "resume" / "latest.json", lambda path: path.write_text(""), 'write {"step": N} into it'),
        (stopped / "resume" / "latest.json", Path.unlink, "newest folder in .*checkpoints, with --model"),
        (stopped / "args.json", cut, "write the arguments of the first start into it"),
        (stopped / "args.json", Path.unlink, "there is nothing to resume"),
        (stopped / "checkpoints" / "best_authors.json", cut, "delete it, and the best of the coming steps is kept"),
    ]:
        whole = path.read_bytes()
        damage(path)
        codes, _ = trainer(resume=stopped)
        name = state.name if state in path.parents else path.name
        line = rf"^error: .*{name}.*{line}.*\n\Z"
        assert codes in ([REFUSED], [FAILED]) and re.search(line, trainer.said(), re.M), (path, damage, trainer.said())
        path.write_bytes(whole)
    assert not (tmp_path / "ran").exists()
    AutoModelForCausalLM.from_pretrained(stopped / "checkpoints" / "step_000002")


def test_a_run_without_its_state_is_not_begun_anew_over_its_figures(trainer, stopped):
    figures = (stopped / "metrics.jsonl").read_text()
    shutil.rmtree(stopped / "resume")
    codes, _ = trainer(resume=stopped)
    assert codes == [REFUSED] and "latest.json is missing, so this run cannot go on" in trainer.said()
    assert (stopped / "metrics.jsonl").read_text() == figures
