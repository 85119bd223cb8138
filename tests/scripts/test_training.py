"""The training scripts as a user runs them, on a tiny model: curves, checkpoints, resume, flags that change nothing."""

import dataclasses
import importlib.util
import io
import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import ROOT, ParityGrader, sums, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PretrainedConfig

import beam_eval
import common.evaluate
import common.logprob
import power_sampling
import rloo_sharpen
import rloo_task
import rloo_tilted
from common.data import Problem
from common.grading import Verdict
from common.logprob import pack
from common.rollout import Rollout, progress_bar
from common.rollout.transformers import TransformersSampler
from common.run import parse, start, start_processes
from common.run.arguments import REFUSED
from common.run.checkpoint import check_disk
from common.run.metrics import METRICS, Metrics


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


TIMES = ("time/", "charts/tokens_per_second", "charts/mfu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    tiny_model(folder / "model")
    sums(folder, 12)
    return folder


@pytest.fixture(autouse=True)
def fast_grader(monkeypatch):
    for script in (rloo_task, rloo_sharpen, rloo_tilted):
        monkeypatch.setattr(script, "Grader", ParityGrader)


def train(folder: Path, script, *extra: str) -> Path:
    """Runs a script's main in this process; gives the run folder."""
    out = folder / f"runs{len(list(folder.glob('runs*')))}"
    data = f"--model {folder / 'model'} --dataset {folder / 'problems.jsonl'} --prompt-file {folder / 'bare.txt'}"
    sizes = "--num-problems 3 --group-size 4 --num-steps 4 --eval-every 2 --max-total-tokens 24 --learning-rate 1e-3"
    words = f"{data} --validation-dataset {folder / 'problems.jsonl'} {sizes} --warmup-steps 2".split()
    words += [] if "--resume" in extra or "--output-dir" in extra else ["--output-dir", str(out)]
    script.main(parse(script.Args, words + list(extra)))
    if "--resume" in extra:
        return Path(extra[extra.index("--resume") + 1])
    return next((Path(extra[extra.index("--output-dir") + 1]) if "--output-dir" in extra else out).iterdir())


def script_from(path: Path):
    """A training script, from a file anywhere, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def curves(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(TIMES)} for line in lines]


def parameters(run: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(run / "checkpoints" / f"step_{step:06d}").state_dict()


def difference(a: dict, b: dict) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


TILTED = ("--alpha", "2", "--beta", "0.1")


@pytest.fixture(scope="module")
def tilted(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rloo_tilted, "Grader", ParityGrader)
        return train(folder, rloo_tilted, *TILTED)


@pytest.mark.parametrize("script", [rloo_task, rloo_sharpen])
@pytest.mark.parametrize("fixed", [False, True])
def test_every_script_trains_at_variable_and_fixed_length(folder, script, fixed):
    run = train(folder, script, *(["--fixed-length"] if fixed else []))
    lines = curves(run)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert difference(parameters(run), AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()) > 1e-3
    assert all(math.isfinite(value) for line in lines for value in line.values())
    if fixed:  # prompts have 4 to 6 characters, so responses fill what is left of 24
        assert all(18 <= line["policy/response_length"] <= 20 for line in lines[:-1])


def test_everything_that_is_logged_is_described_and_the_other_way_round(tilted):
    logged = set().union(*(json.loads(line) for line in (tilted / "metrics.jsonl").read_text().splitlines())) - {"step"}
    general = {key.removesuffix("_se").replace("eval/problems/", "eval/<dataset>/") for key in logged}
    assert general == set(METRICS) - {"charts/mfu"}  # mfu needs a GPU whose peak is known


def test_mfu_counts_a_prompt_once(monkeypatch):
    start_processes(0)
    metrics, rollout = Metrics(0), Rollout([[1] * 5, [1] * 7], [[2] * 3] * 4, [[0.0] * 3] * 4, [True] * 4, 2)
    assert metrics.rollout(rollout, 10) == 12
    metrics.tokens(*torch.zeros(3, 12))
    metrics.seconds["time/train"] = 2.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    figures = metrics.reduce(torch.nn.Linear(10, 10, bias=False))
    assert figures["charts/mfu"] == pytest.approx(6 * 100 * (5 + 7 + 12) / 2.0 / 989e12)


def events_of(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return events


def test_tensorboard_holds_the_same_figures_without_standard_errors(tilted):
    events = events_of(tilted)
    assert not [tag for tag in events.Tags()["scalars"] if tag.endswith("_se")]  # only in metrics.jsonl
    assert "eval/authors_se" in (tilted / "metrics.jsonl").read_text()
    for line in curves(tilted):
        for key, value in line.items():
            if key != "step" and not key.endswith("_se"):
                at_step = [event.value for event in events.Scalars(key) if event.step == line["step"]]
                assert at_step == [pytest.approx(value, rel=1e-5)], key


def test_the_hparams_tab_shows_the_arguments_beside_the_figures(tilted):
    from tensorboard.plugins.hparams import metadata

    content = events_of(tilted).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
    assert start.hparams["beta"].number_value == 0.1 and start.hparams["base_curves"].string_value == "True"
    assert start.hparams["sampler"].string_value == "auto" and len(start.hparams) == len(
        dataclasses.fields(rloo_tilted.Args)
    )
    experiment = metadata.parse_experiment_plugin_data(content["_hparams_/experiment"])
    shown = {info.name.tag for info in experiment.metric_infos}
    assert shown and shown <= set(events_of(tilted).Tags()["scalars"])  # the names under which the curves stand
    assert len(list(tilted.rglob("events.out.tfevents.*"))) == 1  # no second run beside the first


def test_text_samples_reach_tensorboard_as_code_so_that_mathematics_stays_as_it_is(tmp_path):
    args = parse(rloo_tilted.Args, ["--model", "m", "--output-dir", str(tmp_path), "--exp-name", "a|b"])
    run = rloo_tilted.Run(args, "x.py")
    problem = Problem("p", "$a_1 * b_1$", "5", "d")
    response = "$x_1^*$ and *y*\n# no heading\n```python\nx\n```\n\\boxed{5}"
    run.save_samples(0, [problem], [response], [Verdict(True, False, None)], 1)
    run.close()
    text = events_of(run.folder).Tensors("sample_0/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f"**response**\n\n````\n{response}\n````" in text and "**problem**\n\n```\n$a_1 * b_1$\n```" in text
    table = events_of(run.folder).Tensors("hyperparameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert r"|exp_name|a\|b|" in table.splitlines()


def test_track_follows_the_run_at_weights_and_biases(folder, monkeypatch, tmp_path):
    calls, writers = [], []

    def init(**settings):
        writers.append(len(list(Path(settings["dir"]).glob("events.*"))))
        calls.append(settings)
        return SimpleNamespace(finish=lambda: calls.append("finished"))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run = train(folder, rloo_tilted, *TILTED, "--track")
    settings, end = calls
    assert end == "finished" and settings["sync_tensorboard"] is True and settings["config"]["beta"] == 0.1
    assert (settings["name"], settings["dir"]) == (run.name, str(run))
    train(folder, rloo_tilted, *TILTED, "--track", "--resume", str(run), "--output-dir", str(run.parent))
    assert calls[2]["id"] == settings["id"] and calls[2]["resume"] == "allow"  # goes on in the same page
    assert writers == [0, 1] and len(list(run.glob("events.*"))) == 2  # its sync sees only writers that come later
    other = train(folder, rloo_tilted, *TILTED, "--track")
    assert other != run and calls[4]["id"] != settings["id"]

    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(ImportError, match="pip install wandb"):
        train(folder, rloo_tilted, *TILTED, "--track", "--output-dir", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("in_a_terminal", [True, False])
def test_validation_shows_its_progress_in_a_terminal_and_nowhere_else(folder, monkeypatch, in_a_terminal):
    bars = []

    class Terminal(io.StringIO):
        def isatty(self):
            return in_a_terminal

    class Bar(tqdm):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings | {"delay": 0, "file": sys.stderr, "mininterval": 0})
            if not self.disable:  # a closed one is, too
                bars.append(self)

    monkeypatch.setattr("common.rollout.tqdm", Bar)
    monkeypatch.setattr(sys, "stderr", Terminal())
    train(folder, rloo_task)
    expected = [("prompts", 12, 12)] * 2 + [
        ("validation", 12, 12)
    ] * 3  # training and validation prompts; three validations
    assert [(bar.desc, bar.total, bar.n) for bar in bars] == (expected if in_a_terminal else [])
    assert ("validation: 100%" in sys.stderr.getvalue()) == in_a_terminal
    with monkeypatch.context() as patch:
        patch.setattr("common.rollout.rank", lambda: 1)
        assert progress_bar("validation", total=1).disable


def test_the_run_folder_says_what_was_run(tilted):
    assert json.loads((tilted / "args.json").read_text())["alpha"] == 2.0
    environment = (tilted / "env.txt").read_text()
    assert "torch" in environment and re.search("^prompt [0-9a-f]{12}$", environment, re.M)
    assert "git rev-parse" in (tilted / "git.txt").read_text()
    samples = [json.loads(line) for line in (tilted / "samples" / "step_000002.jsonl").read_text().splitlines()]
    assert len(samples) == 12 and {"id", "problem", "response", "authors", "strict"} <= set(samples[0])
    assert all(sample["gold"] == str(2 * int(sample["id"][1:])) for sample in samples)  # not what the response answered


def test_two_runs_of_one_second_get_two_folders(folder, tilted, monkeypatch):
    monkeypatch.setattr("common.run.time.strftime", lambda *_: "now")
    args = parse(rloo_tilted.Args, ["--model", "m", "--output-dir", str(folder / "twice")])
    names = {rloo_tilted.Run(args, "rloo_tilted.py").folder.name for _ in range(3)}
    assert len(names) == 3


def test_the_same_seed_gives_the_same_run_and_another_seed_another(folder, tilted):
    again, other = train(folder, rloo_tilted, *TILTED), train(folder, rloo_tilted, *TILTED, "--seed", "1")
    assert curves(again) == curves(tilted)
    assert difference(parameters(again), parameters(tilted)) == 0
    assert curves(other) != curves(tilted)


def test_a_checkpoint_is_the_policy_and_loads_with_transformers(folder, tilted):
    base = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert difference(parameters(tilted, 4), base) > 1e-3
    config = json.loads((tilted / "checkpoints" / "step_000004" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and config["use_cache"] is True
    assert (tilted / "checkpoints" / "step_000004" / "tokenizer.json").exists()


def test_five_epochs_of_thirty_problems_never_sample_a_problem_twice_in_a_step(folder, tmp_path, capsys):
    sums(tmp_path, 30)
    data = ["--dataset", str(tmp_path / "problems.jsonl"), "--validation-size", "3", "--eval-every", "20"]
    batches, generate = [], TransformersSampler.generate

    def watched(self, prompts, n, *args, **options):
        if n > 1:  # validation draws one sample a problem
            batches.append(args[3] if len(args) > 3 else options["problem_ids"])
        return generate(self, prompts, n, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersSampler, "generate", watched)
        lines = curves(train(folder, rloo_task, *data, "--num-problems", "8", "--num-steps", "15"))
    assert [line["step"] for line in lines] == list(range(16))
    assert "30 problems, 3 batches of 8 an epoch; each epoch leaves out 6 problems" in capsys.readouterr().out
    epochs = [sum(batches[i : i + 3], []) for i in range(0, 15, 3)]
    assert [len(set(epoch)) for epoch in epochs] == [24] * 5
    assert len({id for epoch in epochs for id in epoch}) == 30  # what one epoch leaves out, another trains on


# --- the null run -----------------------------------------------------------------------------------------------------


def test_tempered_with_alpha_one_has_return_and_gradient_zero_and_never_moves(folder):
    run = train(folder, rloo_tilted, "--alpha", "1", "--beta", "inf", "--weight-decay", "0")
    for line in curves(run)[:-1]:
        assert line["objective/return"] == 0.0 and line["losses/grad_norm"] == 0.0
    assert difference(parameters(run), AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()) == 0.0


# --- flags that must not change the result ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [["--microbatch-tokens", "1"], ["--no-checkpoint-activations"], ["--moments-on-host"]]
)
def test_memory_flags_leave_the_run_alone(folder, tilted, flags):
    run = train(folder, rloo_tilted, *TILTED, *flags)
    assert difference(parameters(run), parameters(tilted)) < 1e-5
    for ours, theirs in zip(curves(run), curves(tilted), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_skipping_groups_of_equal_rewards_changes_no_parameter_and_no_curve(folder, monkeypatch):
    skipping = train(folder, rloo_task)
    assert any(line.get("sampling/skipped_frac") for line in curves(skipping))
    monkeypatch.setattr(rloo_task, "objective", lambda r_task, logp, *_: r_task + 0 * logp)  # known only in the pass
    complete = train(folder, rloo_task)
    assert all(line["sampling/skipped_frac"] == 0 for line in curves(complete)[:-1])
    assert difference(parameters(skipping), parameters(complete)) < 1e-6
    for ours, theirs in zip(curves(skipping), curves(complete), strict=True):
        assert ours == pytest.approx(theirs | {k: v for k, v in ours.items() if "skipped" in k}, rel=1e-3, abs=1e-5)


def test_without_base_curves_the_task_run_is_the_same_and_the_figures_are_missing_not_made_up(folder):
    with_base, without = train(folder, rloo_task), train(folder, rloo_task, "--no-base-curves")
    assert difference(parameters(with_base), parameters(without)) == 0
    missing = {"objective/logp_base", "objective/kl_base"}
    for a, b in zip(curves(with_base), curves(without), strict=True):
        assert {k: v for k, v in a.items() if k not in missing} == b


def test_lora_trains_and_leaves_a_plain_checkpoint(folder):
    run = train(folder, rloo_tilted, *TILTED, "--lora-rank", "2", "--learning-rate", "1e-2")
    base = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert difference(parameters(run), base) > 1e-3
    assert curves(run)[0]["objective/kl_base"] == pytest.approx(0, abs=1e-5) != curves(run)[3]["objective/kl_base"]


# --- nothing waits for the GPU between the micro-batches --------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Names what would make the host wait for a GPU: a value that is read (item, bool, int, float, tolist), a shape
    that depends on values, an index that is a Python list and has to be copied."""

    def __init__(self):
        super().__init__()
        self.found, self.paused = [], False

    def note(self, name: str) -> None:
        if not self.paused:
            self.found.append(name)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        by_mask = name == "aten.index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or name.startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select")):
            self.note(name)
        return function(*args, **(kwargs or {}))


def reads_between_microbatches(folder, monkeypatch, *flags: str) -> list[list[str]]:
    """What HostReads finds in each micro-batch of a run of rloo_tilted.py, from its packing to the next one's."""
    passes, current, real_pack = [], [HostReads()], common.logprob.packed_microbatches
    tolist, getitem, attention = torch.Tensor.tolist, torch.Tensor.__getitem__, common.logprob._padded_attention

    def watched(*args):
        for each in real_pack(*args):
            with HostReads() as reads:
                current[0] = reads
                yield each
            reads.paused = True
            passes.append(reads.found)

    def padded_attention(*args):  # for machines without a GPU, and full of masks
        before, current[0].paused = current[0].paused, True
        out = attention(*args)
        current[0].paused = before
        return out

    def with_list(tensor, index):
        if isinstance(index, list):
            current[0].note("a list as an index")
        return getitem(tensor, index)

    monkeypatch.setattr(rloo_tilted, "packed_microbatches", watched)
    monkeypatch.setattr(common.logprob, "_padded_attention", padded_attention)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: current[0].note("tolist") or tolist(tensor))
    monkeypatch.setattr(torch.Tensor, "__getitem__", with_list)
    train(folder, rloo_tilted, *TILTED, "--num-steps", "1", "--microbatch-tokens", "1", *flags)
    return passes


@pytest.mark.parametrize("flags", [[], ["--lora-rank", "2"]])
def test_no_micro_batch_waits_for_the_gpu(folder, monkeypatch, flags):
    assert reads_between_microbatches(folder, monkeypatch, *flags) == [[], [], []]


@pytest.mark.parametrize(
    "slip,found",
    [
        (lambda returns: returns if returns.sum() < 9e9 else None, "aten._local_scalar_dense.default"),
        (lambda returns: returns + 0 * returns.max().item(), "aten._local_scalar_dense.default"),
        (lambda returns: returns + 0 * len(returns.tolist()), "tolist"),
        (lambda returns: returns + 0 * returns[returns < 9e9].sum(), "aten.index.Tensor"),
        (lambda returns: returns + 0 * returns[[0]], "a list as an index"),
    ],
)
def test_a_line_that_waits_for_the_gpu_is_seen(folder, monkeypatch, slip, found):
    right = rloo_tilted.leave_one_out
    monkeypatch.setattr(rloo_tilted, "leave_one_out", lambda returns, size: right(slip(returns), size))
    passes = reads_between_microbatches(folder, monkeypatch)
    assert len(passes) == 3 and all(found in reads for reads in passes)


# --- stop and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [[], ["--lora-rank", "2"], ["--moments-on-host"]])
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(folder, tilted, monkeypatch, extra):
    whole = train(folder, rloo_tilted, *TILTED, *extra) if extra else tilted

    def stop(self, rollout, vocab_size):
        if self.step == 3:
            raise KeyboardInterrupt
        return count_tokens(self, rollout, vocab_size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        count_tokens = rloo_tilted.Metrics.rollout
        patch.setattr(rloo_tilted.Metrics, "rollout", stop)
        train(folder, rloo_tilted, *TILTED, *extra)
    broken = max(folder.glob("runs*/*"), key=lambda path: path.stat().st_mtime)
    assert [line["step"] for line in curves(broken)] == [0, 1, 2]
    first = broken.parent
    resumed = train(folder, rloo_tilted, *TILTED, *extra, "--resume", str(broken), "--output-dir", str(first))
    assert curves(resumed) == curves(whole)
    assert difference(parameters(resumed), parameters(whole)) == 0


def test_the_curves_are_written_out_before_the_state_that_they_lead_to(folder, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    saved = []

    def flush(writer):
        latest = Path(writer.log_dir) / "resume" / "latest.json"
        saved.append(json.loads(latest.read_text())["step"] if latest.exists() else None)

    monkeypatch.setattr(SummaryWriter, "flush", flush)
    train(folder, rloo_tilted, *TILTED)
    assert saved == [None, 0, 2]


def test_resume_refuses_other_arguments_and_an_empty_folder(folder, tilted, tmp_path):
    with pytest.raises(ValueError, match="beta was 0.1 and is 0.2"):
        train(folder, rloo_tilted, "--alpha", "2", "--beta", "0.2", "--resume", str(tilted))
    with pytest.raises(ValueError, match="nothing to resume"):
        train(folder, rloo_tilted, *TILTED, "--resume", str(tmp_path))
    with pytest.raises(ValueError, match="--num-steps 3: the run .* has already done 4 steps; choose more"):
        train(folder, rloo_tilted, *TILTED, "--num-steps", "3", "--resume", str(tilted))


def test_resume_alone_takes_the_arguments_of_the_first_start(tilted, tmp_path):
    """It took the defaults of the script, looked for the default model on the hub, and refused every difference."""
    before = json.loads((tilted / "args.json").read_text())
    args = parse(rloo_tilted.Args, ["--resume", str(tilted)])
    assert dataclasses.asdict(args) == before | {"resume": str(tilted)} and args.alpha == 2.0
    args = parse(rloo_tilted.Args, ["--resume", str(tilted), "--num-steps", "500", "--no-base-curves"])
    assert dataclasses.asdict(args) == before | {"resume": str(tilted), "num_steps": 500, "base_curves": False}
    (tmp_path / "args.json").write_text(json.dumps(before | {"beta": "inf", "of_another_script": 1, "track": True}))
    args = parse(rloo_tilted.Args, ["--resume", str(tmp_path), "--no-track"])
    assert args.beta == math.inf and not args.track


def test_an_infinite_argument_is_kept_as_json_that_every_reader_knows(tmp_path):
    args = parse(rloo_tilted.Args, ["--beta", "inf", "--output-dir", str(tmp_path)])
    run = rloo_tilted.Run(args, "x.py")
    run.close()

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    kept = json.loads((run.folder / "args.json").read_text(), parse_constant=refuse)
    assert kept["beta"] == "inf" and kept["exp_name"] == ""
    resumed = parse(rloo_tilted.Args, ["--resume", str(run.folder)])
    assert resumed.beta == math.inf
    rloo_tilted.Run(resumed, "x.py").close()  # and counts as the same


def test_damaged_arguments_of_the_first_start_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "args.json").write_text("{")
    with pytest.raises(SystemExit, match="2"):
        parse(rloo_tilted.Args, ["--resume", str(tmp_path)])
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/args.json is damaged: ")


@pytest.fixture(scope="module")
def of_task_reward(folder, tmp_path_factory):
    """A finished run of rloo_task.py on data of its own; its tests leave it as it is."""
    own = tmp_path_factory.mktemp("own")
    sums(own, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rloo_task, "Grader", ParityGrader)
        return train(folder, rloo_task, "--dataset", str(own / "problems.jsonl"), "--output-dir", str(own / "runs"))


def resume(folder: Path, script, run: Path, *extra: str) -> Path:
    data = str(run.parent.parent / "problems.jsonl")
    return train(folder, script, "--dataset", data, "--output-dir", str(run.parent), "--resume", str(run), *extra)


def test_the_run_folder_keeps_the_script_and_hashes_of_the_data(folder, of_task_reward):
    assert (of_task_reward / "script.py").read_text() == (ROOT / "rloo_task.py").read_text()
    data = json.loads((of_task_reward / "inputs.json").read_text())
    assert [data[name]["count"] for name in ("training", "validation")] == [12, 12]
    assert data["training"]["problems"] != data["training"]["prompts"]
    assert data["training"]["problems"] == data["validation"]["problems"]  # two files of one content
    assert resume(folder, rloo_task, of_task_reward) == of_task_reward  # the same script and data: goes on


def test_a_run_is_not_continued_by_another_script(folder, of_task_reward, tmp_path):
    before = (of_task_reward / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"rloo_sharpen.py is not the script") as error:
        resume(folder, rloo_sharpen, of_task_reward)
    said = str(error.value).splitlines()
    assert "  -    return r_task" in said and "  +    return logp_base" in said and len(said) < 35
    assert f"rename {of_task_reward / 'script.py'}" in said[-1]
    edited = tmp_path / "rloo_task.py"
    edited.write_text((ROOT / "rloo_task.py").read_text().replace("    return r_task\n", "    return 2 * r_task\n"))
    with pytest.raises(ValueError, match=r"(?s)  -    return r_task\n  \+    return 2 \* r_task\n"):
        resume(folder, script_from(edited), of_task_reward)
    assert (of_task_reward / "metrics.jsonl").read_bytes() == before


def test_a_run_goes_on_with_a_new_script_where_the_user_renames_the_old_one(folder, of_task_reward, tmp_path):
    run = shutil.copytree(of_task_reward.parent.parent, tmp_path / "own") / "runs" / of_task_reward.name
    args = json.loads((run / "args.json").read_text())
    (run / "args.json").write_text(json.dumps(args | {"dataset": str(tmp_path / "own" / "problems.jsonl")}))
    (run / "script.py").rename(run / "script_before.py")
    resume(folder, rloo_sharpen, run)
    assert (run / "script.py").read_text() == (ROOT / "rloo_sharpen.py").read_text()


@pytest.mark.parametrize("which", ["training", "validation", "prompts", "selections", "model"])
def test_a_run_is_not_continued_on_other_data(folder, of_task_reward, monkeypatch, which):
    path, line = of_task_reward.parent.parent / "problems.jsonl", ""
    if which == "training":
        replaced, text = path, path.read_text().replace('"answer": "6"', '"answer": "7"')
        line = rf"the problems of the training set {path} \(12 before, 12 now\)\. Put"
    elif which == "validation":
        replaced = folder / "problems.jsonl"
        text = replaced.read_text() + '{"id": "p12", "problem": "12+12=", "answer": "24"}\n'
        line = rf"the problems of the validation set {replaced} \(12 before, 13 now\) and the prompts of the validation"
    elif which == "prompts":
        replaced, text = folder / "bare.txt", "={problem}\n"
        line = rf"the prompts of the training set {path} .* and the prompts of the validation set"
    elif which == "model":
        replaced, text = folder / "model" / "config.json", None
        line = rf"the files of the model {folder / 'model'}\. Put"
    else:
        chosen = rloo_task.load_validation
        authors = lambda args: [dataclasses.replace(p, selections=frozenset({"authors"})) for p in chosen(args)]  # noqa: E731
        monkeypatch.setattr(rloo_task, "load_validation", authors)
        replaced, text = path, path.read_text()
        line = r"the problems of the validation set"
    before = replaced.read_text()
    replaced.write_text(text or before.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    try:
        with pytest.raises(ValueError, match=f"other inputs than at the first start: {line}.* rename .*inputs.json"):
            resume(folder, rloo_task, of_task_reward)
    finally:
        replaced.write_text(before)


def test_the_best_checkpoints_are_kept_by_both_selections_and_the_rest_is_pruned(folder, tmp_path):
    args = parse(rloo_tilted.Args, ["--model", "m", "--output-dir", str(tmp_path)])
    run = rloo_tilted.Run(args, "rloo_tilted.py")
    accuracies = {0: (0.1, 0.5), 20: (0.6, 0.3), 40: (0.6, 0.4), 60: (0.2, 0.1)}
    for step, (authors, held_out) in accuracies.items():
        run.checkpoint_path(step).mkdir()
        run.record_best(step, {"eval/authors": authors, "eval/held_out": held_out})
    checkpoints = run.folder / "checkpoints"
    assert json.loads((checkpoints / "best_authors.json").read_text())["step"] == 20  # the first of equals
    assert json.loads((checkpoints / "best_held_out.json").read_text())["step"] == 0
    assert {path.name for path in checkpoints.glob("step_*")} == {"step_000000", "step_000020", "step_000060"}


# --- what must stop a run, with a line that says what to do -----------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_problems(folder, monkeypatch):
    monkeypatch.setattr(rloo_tilted, "objective", lambda r_task, *_: r_task * math.nan)
    with pytest.raises(FloatingPointError, match=r"the loss is nan, of problems p\d+") as error:
        train(folder, rloo_tilted, *TILTED)
    assert re.match(r"step 0, train, problems p\d+, p\d+, p\d+$", error.value.__notes__[0])


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(folder, monkeypatch):
    right = rloo_tilted.policy_loss
    monkeypatch.setattr(rloo_tilted, "policy_loss", lambda logp, *rest: right(logp, *rest) + (0 * logp).sum().sqrt())
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("the optimizer stepped"))
    with pytest.raises(FloatingPointError, match=r"the gradient norm is nan, of problems p\d+, p\d+, p\d+"):
        train(folder, rloo_tilted, *TILTED)


@pytest.mark.parametrize("shift,stops", [(0.4, False), (0.6, True)])
def test_a_sampler_that_is_not_of_the_trainers_mind_stops_the_run(folder, monkeypatch, shift, stops):
    def shifted(*args):
        packed = pack(*args)
        packed.sampler_logp -= shift
        return packed

    monkeypatch.setattr("common.logprob.pack", shifted)
    if not stops:
        train(folder, rloo_tilted, *TILTED)
        return
    with pytest.raises(RuntimeError, match="sampler and trainer differ by 0.60 nats a token") as error:
        train(folder, rloo_tilted, *TILTED)
    assert error.value.__notes__[0].startswith("step 0, train, problems p")


def test_a_copied_script_may_log_figures_of_its_own(folder, tmp_path):
    copy = tmp_path / "own_figure.py"
    text = (ROOT / "rloo_tilted.py").read_text()
    line = next(line for line in text.splitlines(keepends=True) if 'metrics.add_mean("losses/grad_norm"' in line)
    own = line.replace("losses/grad_norm", "mine/most_tokens_squared").replace("add_mean", "add_max")
    copy.write_text(text.replace(line, line + own.replace("grad_norm", "packed.length.max() ** 2")))
    script = script_from(copy)
    script.Grader = ParityGrader
    run = train(folder, script, *TILTED)
    found = [line["mine/most_tokens_squared"] for line in curves(run)[:-1]]
    assert len(found) == 4 and all(value**0.5 % 1 == 0 < value for value in found)
    assert [event.value for event in events_of(run).Scalars("mine/most_tokens_squared")] == found


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--model", "no/such/folder"], "neither a model folder"),
        (["--model", "nobody/nothing"], "neither a model folder"),
        (["--dataset", "nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--dataset", "imagenet"], "unknown data set"),
        (["--max-total-tokens", "3"], "raise --max-total-tokens"),
        (["--max-total-tokens", "4096"], "--max-total-tokens"),
        (["--num-problems", "99"], "--num-problems 99: the training set has only 12 problems"),
        (["--output-dir", __file__ + "/runs"], "--output-dir .*; choose another"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_loads(folder, flags, message, monkeypatch):
    monkeypatch.setattr(rloo_tilted, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match=message) as error:
        train(folder, rloo_tilted, *flags)
    assert "\n" not in str(error.value)


# --- refused by the program: one line, exit code 2, nothing loaded, no run folder -------------------------------------


def config_of(kind: str) -> PretrainedConfig:
    return {
        "gemma": transformers.GemmaConfig,
        "phi3": lambda: transformers.Phi3Config(pad_token_id=0),
        "mistral": transformers.MistralConfig,
        "mixtral": transformers.MixtralConfig,
        "gpt2": transformers.GPT2Config,
        "gpt_neox": transformers.GPTNeoXConfig,
        "t5": transformers.T5Config,
    }[kind]()


def refused(program, words: list[str], capsys, monkeypatch) -> str:
    """The line that a program is refused with."""
    monkeypatch.setattr(sys, "argv", ["program", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        start(program.main, program.Args)
    assert stop.value.code == REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def nothing_loads(monkeypatch):
    for function in ("transformers.PreTrainedModel.from_pretrained", "common.rollout.start_sampler"):
        monkeypatch.setattr(function, lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.mark.parametrize("kind", ["gemma", "phi3", "mistral", "mixtral", "gpt2", "gpt_neox", "t5"])
def test_a_model_that_cannot_be_trained_is_refused_at_once(folder, tmp_path, capsys, monkeypatch, nothing_loads, kind):
    model = shutil.copytree(folder / "model", tmp_path / "model")
    config_of(kind).save_pretrained(model)
    words = f"--model {model} --dataset {folder / 'problems.jsonl'} --output-dir {tmp_path / 'runs'}".split()
    line = refused(rloo_task, words, capsys, monkeypatch)
    assert f"is a {kind} model, and training was checked for qwen2, qwen3, llama only" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("program", [rloo_task, common.evaluate, power_sampling, beam_eval], ids=lambda p: p.__name__)
def test_every_program_refuses_a_folder_without_a_tokenizer(
    tmp_path, capsys, monkeypatch, nothing_loads, program, kind
):
    model = tiny_model(tmp_path / "model", kind)
    for path in [*model.glob("*token*"), *model.glob("*.jinja")]:
        path.unlink()
    words = f"--model {model} --output-dir {tmp_path / 'out'} --max-total-tokens 64".split()
    line = refused(program, words, capsys, monkeypatch)
    assert "has no tokenizer that can be read" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("program", [rloo_task, common.evaluate, power_sampling, beam_eval], ids=lambda p: p.__name__)
def test_every_program_refuses_a_window_longer_than_the_model_has_positions(
    folder, tmp_path, capsys, monkeypatch, nothing_loads, program
):
    words = f"--model {folder / 'model'} --output-dir {tmp_path / 'out'} --max-total-tokens 4096".split()
    line = refused(program, words, capsys, monkeypatch)
    assert line == f"--max-total-tokens 4096: {folder / 'model'} has 512 positions; choose no more."
    assert not (tmp_path / "out").exists()


def test_problems_that_the_processes_do_not_divide_are_refused_before_anything_else(tmp_path, monkeypatch):
    start_processes(0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(rloo_task, "resolve_model", lambda *_, **__: pytest.fail("the model was looked up"))
    with pytest.raises(ValueError, match="--num-problems 32 is not a multiple of the 3 processes; choose one that is"):
        rloo_task.main(rloo_task.Args(output_dir=str(tmp_path / "out")))


def test_an_interrupt_while_loading_is_one_line(folder, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rloo_task, "load_model", interrupted)
    data = f"--dataset {folder / 'problems.jsonl'} --validation-dataset {folder / 'problems.jsonl'} --num-problems 2"
    words = f"program --model {folder / 'model'} {data} --max-total-tokens 400 --output-dir {tmp_path}".split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        start(rloo_task.main, rloo_task.Args)
    assert stop.value.code == 130 and capsys.readouterr().err.splitlines()[-1] == "interrupted"


def test_a_figure_that_is_not_finite_is_null_in_valid_json(tmp_path):
    run = rloo_tilted.Run(parse(rloo_tilted.Args, ["--model", "m", "--output-dir", str(tmp_path)]), "x.py")
    run.log(0, {"eval/authors": 0.5, "eval/authors_se": math.nan, "mine": math.inf})
    line = json.loads((run.folder / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line == {"step": 0, "eval/authors": 0.5, "eval/authors_se": None, "mine": None}
    run.close()


def test_ten_steps_without_a_gradient_are_reported(tmp_path, capsys):
    run = rloo_tilted.Run(parse(rloo_tilted.Args, ["--model", "m", "--output-dir", str(tmp_path)]), "x.py")
    for step in range(25):
        run.log(step, {"losses/grad_norm": 1.0 if step == 12 else 0.0, "objective/task_reward": 0.0})
    lines = capsys.readouterr().out.splitlines()
    steps = [
        lines[i - 1].split("/")[0] for i, line in enumerate(lines) if line.startswith("warning: nothing was learned")
    ]
    assert steps == ["step 9", "step 22"]  # ten in a row, and ten after a step that taught something
    run.close()


def test_weights_that_are_a_pickle_are_refused_in_one_line_and_not_read(folder, tmp_path):
    model = shutil.copytree(folder / "model", tmp_path / "model")
    (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(tmp_path / "ran")}, model / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no .safetensors file; weights in any other format are not read"):
        train(folder, rloo_tilted, "--model", str(model))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["qwen2", "of_its_own"])
def test_code_that_comes_with_a_model_is_never_run(folder, tmp_path, kind):
    model = shutil.copytree(folder / "model", tmp_path / "model")
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.T", "code.T"]}
    for name, changes in [
        ("config.json", {"model_type": kind}),
        ("tokenizer_config.json", {"tokenizer_class": "T"} if kind == "of_its_own" else {}),
    ]:
        content = json.loads((model / name).read_text()) | changes | {"auto_map": names}
        (model / name).write_text(json.dumps(content))
    (model / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    if kind == "qwen2":
        train(folder, rloo_tilted, "--model", str(model))  # the library's own class is there, and is taken
    else:
        with pytest.raises(ValueError, match="neither a model folder"):
            train(folder, rloo_tilted, "--model", str(model))
    assert not (tmp_path / "ran").exists()


def test_ids_that_look_like_paths_are_just_ids(folder, tmp_path):
    ids = ["../../x", "/etc/passwd", "a/../b", "C:\\x", "~", "..", "nul\0", "a/b/c", "step_000002"]
    lines = [json.dumps({"id": name, "problem": f"{i}+{i}=", "answer": str(2 * i)}) for i, name in enumerate(ids)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines) + "\n")
    data = ["--dataset", str(tmp_path / "problems.jsonl"), "--validation-dataset", str(tmp_path / "problems.jsonl")]
    before = set(folder.iterdir())
    run = train(folder, rloo_tilted, *data)
    seen = {json.loads(line)["id"] for path in run.glob("samples/*") for line in path.read_text().splitlines()}
    assert seen <= set(ids) and len(seen) >= 3
    assert set(folder.iterdir()) - before == {run.parent} and list(run.parent.iterdir()) == [run]
    assert {path.name for path in run.iterdir() if "events" not in path.name} == {
        *("args.json", "script.py", "inputs.json", "env.txt", "git.txt", "metrics.jsonl"),
        *("samples", "checkpoints", "resume"),
    }


def test_a_run_that_does_not_fit_on_the_disk_is_refused_before_it_has_a_folder(folder, monkeypatch, tmp_path, capsys):
    run = train(folder, rloo_task, "--output-dir", str(tmp_path / "runs"))
    estimated = re.search(r"disk, estimated.*; ([\d.]+) GB to be written of", capsys.readouterr().out).group(1)
    assert estimated == "0.00"
    path, device = str(folder / "model"), torch.device("cpu")
    parameters = sum(value.numel() for value in AutoModelForCausalLM.from_pretrained(path).parameters())

    def room(size: float) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size))

    def need(*flags: str) -> float:
        """What is free when a run is just not refused any more."""
        args = parse(rloo_task.Args, ["--output-dir", str(tmp_path / "new"), "--num-steps", "4", *flags])
        low, high = 0.0, 1e9
        while high - low > 1:
            middle = (low + high) / 2
            room(middle)
            try:
                check_disk(path, args, device, torch.float32)
                high = middle
            except ValueError:
                low = middle
        return high

    # float32: a state of 12 bytes a parameter, twice; a checkpoint of 4 for each of the three saves, the last to come
    assert need("--eval-every", "2") == pytest.approx((2 * 12 + 2 * 4) * parameters, abs=2)
    assert need("--eval-every", "2", "--remove-state-first") == pytest.approx((12 + 3 * 4) * parameters, abs=2)
    assert need("--eval-every", "1") == pytest.approx((2 * 12 + 3 * 4) * parameters, abs=2)  # the rest is pruned
    assert need("--eval-every", "1", "--keep-all-checkpoints") == pytest.approx((2 * 12 + 4 * 4) * parameters, abs=2)
    left = sum(file.stat().st_size for file in (run / "resume").rglob("*.distcp"))
    assert 12 * parameters < left < 1.5 * 12 * parameters + 200_000  # what a state really takes: torch.save adds 1.5 kB
    room(20 * parameters)
    with pytest.raises(ValueError, match=r"has too little room\. disk, estimated: .*--remove-state-first\.$"):
        train(folder, rloo_task, "--output-dir", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    train(folder, rloo_task, "--output-dir", str(run.parent), "--resume", str(run))  # most of it is there already


def test_with_remove_state_first_there_is_one_state_at_a_time(folder, monkeypatch):
    import common.run

    found, save = [], common.run.save_state

    def saving(path, *rest):
        found.append([entry.name for entry in sorted(path.parent.glob("*"))])
        save(path, *rest)

    monkeypatch.setattr(common.run, "save_state", saving)
    train(folder, rloo_task)
    train(folder, rloo_task, "--remove-state-first")
    assert found == [[], ["latest.json", "step_000000"], ["latest.json", "step_000002"], [], [], []]


def test_a_run_that_does_not_fit_is_refused_with_a_table(folder, monkeypatch):
    monkeypatch.setattr("common.run.memory.available", lambda device: 1e6)
    with pytest.raises(MemoryError, match="would not fit(.|\n)*activations(.|\n)*--checkpoint-activations"):
        train(folder, rloo_tilted)
