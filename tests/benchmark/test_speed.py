"""benchmark/speed: throughput.py in its CPU form, with exact tokens and FLOPs on a tiny shape; the parts of gpu.sh."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch
import tyro
from conftest import ROOT

from benchmark.run_rows import read_rows
from benchmark.speed import throughput
from benchmark.speed.random_model import config_of
from benchmark.speed.random_model import main as make_model
from benchmark.speed.throughput import (
    PHASES,
    Args,
    WatchedSampler,
    append_row,
    draw_lengths,
    forward_flops,
    matmul_ceiling,
    report,
    script_args,
    summary,
    write_problems,
)
from common.data import load_problems, load_prompts
from common.rollout import start_sampler

SIZES = dict(shape="tiny", prompt=20, response=12, batch=16, steps=2)
# The tiny shape: 2 layers, width 64, 2 query heads of 32, 1 key head, MLP 128, vocabulary 128.
LAYER = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """Figures of a run, and its row."""
    path = tmp_path_factory.mktemp("throughput") / "rows.md"
    figures = throughput.main(Args(**SIZES, results=str(path)))
    return figures, path.read_text()


def test_phases_are_there_and_make_up_the_step(step):
    figures, _ = step
    assert all(figures[phase] > 0 for phase in PHASES)
    assert -1e-3 < figures["other"] < 0.5 * figures["step"]
    assert figures["step"] == pytest.approx(sum(figures[phase] for phase in (*PHASES, "other")))
    assert len(figures["steps"]) == 2 and sum(figures["steps"]) / 2 == pytest.approx(figures["step"])


def test_tokens_are_those_asked_for(step):
    figures, _ = step
    assert figures["tokens"] == 16 * 12 and figures["slots_lost"] == 0
    assert figures["tokens_per_second"] == pytest.approx(16 * 12 / figures["step"])
    assert figures["train_per_second"] == pytest.approx(16 * (20 + 12) / figures["train"])


def test_memory_is_measured_and_estimated(step):
    figures, _ = step
    assert figures["peak"] > 100e6 and figures["estimate"] > 0
    assert (figures["allocated"] is None) == (not torch.cuda.is_available())


def test_the_row_says_what_machine_it_was_and_a_second_one_joins_it(step, tmp_path):
    figures, text = step
    header, rule, row = (line[1:-1].split("|") for line in text.splitlines()[-3:])
    assert len(header) == len(rule) == len(row)
    cells = dict(zip((name.strip() for name in header), (cell.strip() for cell in row), strict=True))
    assert cells["hardware"].startswith("CPU") and "torch" in cells["versions"] and cells["TRL s"] == ""
    assert cells["lengths"] == "16 x (20 + 12)" and cells["flags"] == ""
    path = tmp_path / "rows.md"
    path.write_text(text)
    append_row(Args(**SIZES, lora_rank=4, results=str(path)), figures, {"step": 2 * figures["step"]})
    assert path.read_text().startswith(text) and path.read_text().endswith("| 0.50 | lora_rank=4 |\n")


def test_the_report_compares_with_trl(step):
    figures, _ = step
    trl = {"step": 4 * figures["step"], "peak": 5e9, "length": 12.0, "version": "1.2"}
    assert report(Args(**SIZES), figures, trl).endswith("ours / TRL: 0.25 of the seconds")
    assert "TRL" not in report(Args(**SIZES), figures, None)


def test_the_report_of_drawn_lengths_says_what_the_tail_costs_and_what_filling_it_would_need(step):
    figures = step[0] | {"slots_lost": 0.75, "tail_seconds": 1.5, "overlapped": 84e9}
    lines = report(Args(**SIZES, lognormal=True), figures, None).splitlines()
    assert lines[-2] == "tail: 75% of the slots idle, 1.50 s with less than half of them running"
    assert lines[-1].endswith("84.00 GB by estimate")
    assert step[0]["overlapped"] >= step[0]["estimate"] > 0


def test_prompts_have_exactly_the_length_asked_for_and_share_no_beginning(tmp_path):
    from transformers import AutoTokenizer

    make_model("tiny", tmp_path / "model")
    write_problems(tmp_path / "problems.jsonl", 30, 118)
    settings = script_args(Args(**SIZES | dict(prompt=118)), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    _, prompts = load_prompts(tokenizer, load_problems(settings.dataset), settings)
    assert [len(prompt) for prompt in prompts] == [118] * 30
    assert len({tuple(prompt[:16]) for prompt in prompts}) == 30  # else the engine would not compute them


def test_drawn_lengths_are_those_of_the_responses_and_groups_stay_together(tmp_path):
    make_model("tiny", tmp_path)
    args = Args(**SIZES, lognormal=True, limit=40)
    sampler = WatchedSampler(start_sampler("transformers", tmp_path, args.window), args)
    prompts, drawn = [[5] * 20, [6] * 20], draw_lengths(16, 12, 40, 42, 3)
    rollout = sampler.generate(prompts, 8, args.window, 42, 3, ["a", "b"], fixed_length=True)
    assert [len(response) for response in rollout.responses] == drawn == sampler.lengths[0] and len(set(drawn)) > 4
    assert rollout.prompts == prompts and rollout.group_size == 8
    assert len({tuple(response[:4]) for response in rollout.responses}) > 8  # no sample came twice


def test_drawn_lengths_have_the_mean_and_keep_to_the_limit():
    many = draw_lengths(100_000, 400, 2048, 0, 0)
    assert min(many) >= 1 and max(many) == 2048
    assert sum(many) / len(many) == pytest.approx(400, rel=0.01)
    assert draw_lengths(8, 400, 2048, 0, 1) != draw_lengths(8, 400, 2048, 0, 0) == draw_lengths(8, 400, 2048, 0, 0)


def test_flops_are_those_counted_by_hand():
    config = config_of("tiny")
    # Sequences of 5 and 7 tokens, of which 2 and 4 are responses: 15 and 28 pairs of a token and one it sees.
    expected = 2 * 2 * LAYER * 12 + 2 * 4 * 64 * (15 + 28) + 2 * 64 * 128 * 6
    assert forward_flops(config, 3, [2, 4], group=1) == expected
    # With one prompt for both, its 3 tokens and their 6 pairs are there once.
    assert forward_flops(config, 3, [2, 4], group=2) == expected - 2 * 2 * LAYER * 3 - 2 * 4 * 64 * 6


def test_mfu_is_exact_on_a_known_clock(monkeypatch):
    config, now = config_of("tiny"), iter(range(1000))
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now))  # every look at it is a second later
    ceiling = matmul_ceiling(config, torch.device("cpu"), torch.float32, tokens=10, seconds=3.0)
    assert ceiling == 3 * 2 * 10 * LAYER  # three rounds in what it takes for one second
    line = {"time/rollout": 4.0, "time/grade": 0.5, "time/train": 10.0, "time/sync": 0.25, "time/step": 15.0}
    args = Args(**SIZES | dict(prompt=3))
    flops = forward_flops(config, 3, [12] * 16)
    found = summary(config, args, [line, line], 2.0, [[12] * 16] * 2, ceiling=1e6)
    assert (found["base"], found["train"], found["other"]) == (2.0, 8.0, 0.25)
    assert found["train_mfu"] == 3 * flops / 8.0 / 1e6 and found["base_mfu"] == flops / 2.0 / 1e6
    assert found["decode_per_second"] == 16 * 12 / 4.0 and found["base_per_second"] == 16 * 15 / 2.0
    args.lora_rank = 4
    lora = summary(config, args, [line], 2.0, [[12] * 16], ceiling=1e6)
    assert lora["train_mfu"] == 2 * flops / 8.0 / 1e6
    uneven = summary(config, args, [line] * 2, 2.0, [[6] * 8 + [18] * 8, [12] * 16], ceiling=1e6)
    assert uneven["slots_lost"] == (1 - 12 / 18) / 2 and uneven["tokens"] == 16 * 12


def test_validation_is_answered_with_one_token_and_not_measured(tmp_path):
    make_model("tiny", tmp_path)
    args = Args(**SIZES)
    sampler = WatchedSampler(start_sampler("transformers", tmp_path, args.window), args)
    rollout = sampler.generate([[5] * 20, [6] * 19], 1, args.window, 42, problem_ids=["a", "b"])
    assert [len(response) for response in rollout.responses] == [1, 2] and sampler.lengths == [] == sampler.tails


@pytest.mark.parametrize("bad", [dict(batch=12), dict(steps=0), dict(trl=True, lognormal=True)])
def test_sizes_of_no_use_are_refused(bad):
    with pytest.raises(ValueError):
        Args(**SIZES | bad)


def test_trl_takes_the_same_step(tmp_path):
    pytest.importorskip("trl")
    figures = throughput.main(Args(**SIZES | dict(steps=1), trl=True))
    assert figures["trl"]["length"] == 12 and figures["trl"]["step"] > 0


# --- gpu.sh -----------------------------------------------------------------------------------------------------------

GPU = ROOT / "benchmark" / "speed" / "gpu.sh"


def test_every_part_of_the_gpu_figures_has_a_limit_and_parses():
    done = subprocess.run(["bash", GPU, "--dry-run", "somewhere"], capture_output=True, text=True, check=True)
    parsed, total = [], 0
    for row in read_rows(done.stdout):
        (command,) = row.commands
        limit, _, _, _, _, minutes, python, m, module, *words = shlex.split(command)
        assert (limit, python, m) == ("timeout", "python3", "-m") and re.fullmatch(r"\d+m", minutes)
        total += int(minutes[:-1])
        if module == "pytest":
            assert (ROOT / words[0]).exists()
            continue
        program = importlib.import_module(module)
        parser = getattr(program, "Settings", None) or getattr(program, "Args", None)
        if parser:
            tyro.cli(parser, args=words)
        else:
            assert module == "benchmark.speed.random_model" and words[0] in program.SHAPES and len(words) == 2
        parsed.append(module)
    assert parsed.count("benchmark.speed.throughput") >= 7
    assert {"benchmark.speed.lockstep", "benchmark.speed.beams"} <= set(parsed)
    assert "somewhere/throughput.md" in done.stdout and done.stderr == ""
    assert f"add up to {total} minutes" in GPU.read_text()


def test_with_a_python_at_hand_parts_without_their_packages_are_skipped_with_the_reason(tmp_path):
    """A stand-in for a machine with a GPU and a Python that has some of the packages; commands only print."""
    python = tmp_path / "at hand" / "python3"
    python.parent.mkdir()
    python.write_text(
        f"""#!/bin/bash
        case "$*" in
        *find_spec*) for p in "${{@:3}}"; do case $p in vllm | trl | peft) echo -n "$p " ;; esac; done ;;
        *benchmark.run_rows*) exec {sys.executable} "$@" ;;
        *) echo "step 1.00 s, called with $*" ;;
        esac"""
    )
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho a GPU\n")
    for path in (python, tmp_path / "nvidia-smi"):
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    link = tmp_path / "python-at-hand"
    link.symlink_to(python)
    command = ["bash", str(GPU), "--python", str(link), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "step_trl: skipped, these packages are not installed: vllm trl" in done.stderr
    assert "lora_24gb: skipped, these packages are not installed: vllm peft" in done.stderr
    assert {path.name for path in (tmp_path / "out" / "done").iterdir()} == {"model"}
    assert "    step 1.00 s, called with -m benchmark.speed.random_model" in done.stdout
    assert not (ROOT / ".venv-trl").exists()
