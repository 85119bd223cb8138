"""Copies of the training scripts, as a user makes them: another objective, another reward, other data and prompts.

A copy is a script whose source was changed in one place. It trains a tiny model; its first gradient is compared with
one that is computed here by plain autograd, in float64, from formulas written by hand.
"""

import contextlib
import importlib.util
import json
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT, ParityGrader, sums, tiny_model
from transformers import AutoModelForCausalLM

import common.data
import rloo_task
from common.data import Problem
from common.grading import Verdict
from common.logprob import full_tensor
from common.run import parse
from common.run.unknown import UNKNOWN, UnknownRead, one_for_each, reads_unknown

SETTINGS = (
    "--num-problems 4 --group-size 3 --num-steps 2 --eval-every 2 --max-total-tokens 20 --learning-rate 1e-3 "
    "--warmup-steps 0 --weight-decay 0 --max-grad-norm inf --validation-size 2"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    tiny_model(folder / "model")
    sums(folder, 12)
    return folder


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.Grader = ParityGrader
    return script


def copy_of(name: str, old: str, new: str, folder: Path) -> ModuleType:
    """The script `name` with `old`, which it has once, replaced by `new`."""
    source = (ROOT / name).read_text()
    assert source.count(old) == 1
    path = folder / f"copy_{abs(hash((name, new)))}.py"
    path.write_text(source.replace(old, new))
    return load(path)


def train(folder: Path, script: ModuleType, *words: str) -> Path:
    """Runs a copy in this process; returns the run folder."""
    out = folder / f"runs{len(list(folder.glob('runs*')))}"
    data = f"--model {folder / 'model'} --dataset {folder / 'problems.jsonl'} --prompt-file {folder / 'bare.txt'}"
    places = f"--validation-dataset {folder / 'problems.jsonl'} --output-dir {out}"
    script.main(parse(script.Args, [*f"{data} {places} {SETTINGS}".split(), *words]))
    return Path(words[words.index("--resume") + 1]) if "--resume" in words else next(out.iterdir())


def curves(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# --- the gradient of a copy, by hand ----------------------------------------------------------------------------------


@contextlib.contextmanager
def recorded(script: ModuleType):
    """Keeps what the first step of a script samples, how it is graded, and its gradient before clipping."""
    seen, clip = {}, torch.nn.utils.clip_grad_norm_
    real_metrics, real_reward = script.Metrics.rollout, script.task_reward

    def rollout(self, rollout, vocab_size):
        seen.setdefault("rollout", rollout)
        return real_metrics(self, rollout, vocab_size)

    def reward(*inputs):
        rewards = real_reward(*inputs)
        seen.setdefault("r_task", torch.tensor(rewards, dtype=torch.float64))
        return rewards

    def recording_clip(parameters, max_norm):
        seen.setdefault("gradient", [full_tensor(p.grad).double().clone() for p in parameters])
        return clip(parameters, max_norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script.Metrics, "rollout", rollout)
        patch.setattr(script, "task_reward", reward)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", recording_clip)
        yield seen


def gradient_by_hand(folder: Path, seen: dict, returns_of) -> list[torch.Tensor]:
    """Minus the estimator of the paper's Appendix A, of `returns_of`(r_task, logp, logp_base, entropy, length) (B,)."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64)
    rollout, size = seen["rollout"], seen["rollout"].group_size
    token_logp, entropy = [], []
    for row, response in enumerate(rollout.responses):
        prompt = rollout.prompts[row // size]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        all_logp = logits.log_softmax(-1)
        token_logp.append(all_logp.gather(-1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(all_logp.exp() * all_logp).sum().detach())
    logp = torch.stack([tokens.detach().sum() for tokens in token_logp])
    length = torch.tensor([float(len(response)) for response in rollout.responses])
    returns = returns_of(
        seen["r_task"], logp, logp, torch.stack(entropy), length
    )  # before step 0 the base is the policy
    loss = torch.zeros((), dtype=torch.float64)
    for row, tokens in enumerate(token_logp):
        others = [i for i in range(row // size * size, (row // size + 1) * size) if i != row]
        loss = loss - (returns[row] - returns[others].mean()) * tokens.sum()
    loss = loss / length.sum()
    return list(torch.autograd.grad(loss, list(model.parameters())))


def relative_difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True)) / max(y.abs().max().item() for y in b)


# (script, the copy's return, the return by hand, whether log pi_base is read, whether groups can be skipped)
COPIES = {
    "task reward": ("task", "r_task", lambda r, p, b, h, n: r, False, True),
    "log pi_base per token": ("task", "logp_base / length", lambda r, p, b, h, n: b / n, True, False),
    "entropy bonus": ("task", "r_task + 0.1 * entropy", lambda r, p, b, h, n: r + 0.1 * h, False, False),
    "entropy minimisation": ("sharpen", "-entropy", lambda r, p, b, h, n: -h, False, False),
    "clipped": ("sharpen", "logp_base.clamp(min=-60)", lambda r, p, b, h, n: b.clamp(min=-60), True, False),
    "compares the base": ("task", "r_task + (logp_base > -60)", lambda r, p, b, h, n: r + (b > -60), True, False),
    "compares the policy": (
        "task",
        "torch.where(logp > -60, r_task, 0.0)",
        lambda r, p, b, h, n: r * (p > -60),
        False,
        False,
    ),
    "in Python": (
        "task",
        "torch.tensor([float(x > -60) for x in logp_base])",
        lambda r, p, b, h, n: (b > -60).double(),
        True,
        False,
    ),
    "short and right": ("task", "r_task / length", lambda r, p, b, h, n: r / n, False, True),
    "a constant": ("task", "0 * r_task + 0.1", lambda r, p, b, h, n: 0 * r, False, True),
}
RETURNS = {"task": "    return r_task\n", "sharpen": "    return logp_base\n"}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_whose_objective_alone_was_edited_has_the_gradient_computed_by_hand(folder, tmp_path, copy):
    name, new, by_hand, reads_base, can_skip = COPIES[copy]
    script = copy_of(f"rloo_{name}.py", RETURNS[name], f"    return {new}\n", tmp_path)
    with recorded(script) as seen:
        run = train(folder, script, "--no-base-curves")
    assert ("objective/logp_base" in curves(run)[0]) == reads_base
    expected = gradient_by_hand(folder, seen, by_hand)
    if copy == "a constant":
        assert curves(run)[0]["losses/grad_norm"] == 0 and curves(run)[0]["sampling/skipped_frac"] == 1
    else:
        assert max(part.abs().max().item() for part in expected) > 1e-3
        assert relative_difference(seen["gradient"], expected) < 1e-4
    assert (curves(run)[0]["sampling/skipped_frac"] > 0) <= can_skip


def test_a_random_reward_is_drawn_once_and_trains_on_the_numbers_that_were_drawn(folder, tmp_path):
    script = copy_of("rloo_task.py", "    return r_task\n", "    return torch.rand_like(r_task)\n", tmp_path)
    drawn, rand_like = [], torch.rand_like

    def recording(values):
        drawn.append(rand_like(values))
        return drawn[-1]

    with recorded(script) as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand_like", recording)
        run = train(folder, script, "--microbatch-tokens", "1")
    assert len(drawn[1]) == 12 and torch.equal(drawn[0], drawn[1])  # a first look, and the draw itself
    first = drawn[1]
    assert curves(run)[0]["objective/return"] == pytest.approx(first.mean().item())
    assert relative_difference(seen["gradient"], gradient_by_hand(folder, seen, lambda *_: first)) < 1e-4


RANDOM = {
    "known before the pass": "torch.rand_like(r_task)",
    "known in the pass": "r_task + torch.rand_like(logp)",
}


@pytest.mark.parametrize("form", RANDOM)
def test_a_random_reward_is_the_same_in_every_run_and_another_in_every_step(folder, tmp_path, form):
    script = copy_of("rloo_task.py", "    return r_task\n", f"    return {RANDOM[form]}\n", tmp_path)
    whole = [line.get("objective/return") for line in curves(train(folder, script, "--eval-every", "1"))]
    assert whole[0] != whole[1]

    real, broken = script.Metrics.rollout, {}

    def stop(self, *inputs):
        if self.step == 1:
            raise KeyboardInterrupt
        return real(self, *inputs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script.Metrics, "rollout", stop)
        train(folder, script, "--eval-every", "1")
    broken = max(folder.glob("runs*/*"), key=lambda path: path.stat().st_mtime)
    train(folder, script, "--eval-every", "1", "--resume", str(broken))
    assert [line.get("objective/return") for line in curves(broken)] == whole


def test_two_ranks_and_two_steps_draw_different_random_numbers(monkeypatch):
    from common.run import seed_generators, start_processes

    start_processes(0)
    drawn = []
    for seed, step, rank in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1)]:
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        seed_generators(seed, step)
        drawn.append(torch.rand(4).tolist())
    assert len({number for numbers in drawn for number in numbers}) == 20


# --- what an objective reads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reads",
    [
        lambda x: 0 * x,
        lambda x: torch.where(x > -10, 1.0, 0.0),
        lambda x: [1 if value > 0 else 0 for value in x],
        lambda x: torch.zeros(3).add_(x),
        lambda x: torch.stack([torch.zeros(2), x]),
        lambda x: x.tolist(),
        lambda x: np.asarray(x),
        lambda x: torch.nan_to_num(x).clamp(0, 0),
        lambda x: torch.zeros(x.shape),
        lambda x: max(x, torch.zeros(1)),
        lambda x: x,
    ],
)
def test_every_way_to_read_a_tensor_is_noticed(reads):
    assert reads_unknown(reads, UNKNOWN)


def test_a_look_at_an_objective_leaves_the_random_numbers_alone_and_lets_errors_through():
    def draws(x):
        return torch.rand(2), np.random.rand(), random.random()

    def draws_and_reads(x):
        return draws(x), x + 1

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draws(None)
    for function, reads in ((draws, False), (draws_and_reads, True)):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        assert reads_unknown(function, UNKNOWN) == reads
        assert torch.equal(expected[0], torch.rand(2)) and expected[1:] == (np.random.rand(), random.random())
    with pytest.raises(ZeroDivisionError):
        reads_unknown(lambda x: 1 / 0, UNKNOWN)


def test_a_read_that_the_first_look_did_not_see_stops_the_run_instead_of_training_on_nothing(folder, tmp_path):
    reads_sometimes = "return r_task if length.min() < 2 else r_task + logp_base"  # the first look passes a length of 0
    script = copy_of("rloo_task.py", "    return r_task\n", f"    {reads_sometimes}\n", tmp_path)
    with pytest.raises(UnknownRead, match="leave out --no-base-curves"):
        train(folder, script, "--no-base-curves", "--fixed-length")


def test_the_returns_of_the_three_scripts_are_known_early_for_the_task_reward_only():
    import rloo_sharpen
    import rloo_tilted

    r_task, length = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64), torch.tensor([3.0, 4.0, 5.0, 6.0])
    returns, needs_backward = rloo_task.early_returns(r_task, length, rloo_task.Args(group_size=2))
    assert returns.tolist() == r_task.tolist() and needs_backward == [False, True]
    for script in (rloo_sharpen, rloo_tilted):
        assert script.early_returns(r_task, length, script.Args(group_size=2)) == (None, [True, True])


# --- the examples of README, as they stand there ----------------------------------------------------------------------

README = (ROOT / "README.md").read_text()
BY_HAND = {
    "logp_per_token": lambda r, p, b, h, n: b / n,
    "low_entropy": lambda r, p, b, h, n: -h,
    "entropy_bonus": lambda r, p, b, h, n: r + 0.01 * h,
    "contains_answer": lambda r, p, b, h, n: r,
}


def example(name: str, folder: Path) -> ModuleType:
    """The copy that a sed command of README makes."""
    (command,) = re.findall(rf"^    (sed .* > {name}.py)$", README, re.M)
    original = re.search(r"rloo_\w+.py", command)[0]
    subprocess.run(command.replace(original, str(ROOT / original)), shell=True, check=True, cwd=folder)
    changed = set((folder / f"{name}.py").read_text().splitlines()) - set((ROOT / original).read_text().splitlines())
    assert len(changed) == 1
    return load(folder / f"{name}.py")


@pytest.mark.parametrize("name", BY_HAND)
def test_an_example_of_readme_has_the_gradient_computed_by_hand(folder, tmp_path, name):
    script = example(name, tmp_path)
    with recorded(script) as seen:
        run = train(folder, script)
    lines = curves(run)
    assert len(lines) == 3
    assert relative_difference(seen["gradient"], gradient_by_hand(folder, seen, BY_HAND[name])) < 1e-4
    if name == "contains_answer":
        samples = [json.loads(line) for line in (run / "samples" / "step_000000.jsonl").read_text().splitlines()]
        assert seen["r_task"].tolist() == [float(sample["gold"] in sample["response"]) for sample in samples]
        assert 0 < seen["r_task"].mean() < 1


def test_the_random_reward_of_readme_is_uniform(folder, tmp_path):
    lines = curves(train(folder, example("random_reward", tmp_path)))
    assert all(0.2 < line["objective/return"] < 0.8 for line in lines[:-1])


def test_the_data_wording_and_system_prompt_of_readme_reach_the_model(folder, tmp_path, monkeypatch):
    section = README[README.index("## Your own data") :].partition("\n## ")[0]
    for command in re.findall(r"^    ((?:echo|printf) .*)$", section, re.M):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    commands = [
        shlex.split(line) for line in re.findall(r"^    python (rloo_task.py --dataset mine.*)$", section, re.M)
    ]
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    model = tiny_model(tmp_path / "model", vocab=75)
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    script = copy_of("rloo_task.py", "import torch\n", "import torch  # a copy\n", tmp_path)
    prompts, apply = [], common.data.apply_template

    def watched(*inputs):
        prompts[-1].append(apply(*inputs))  # as text: the tiny tokenizer does not know all characters
        return prompts[-1][-1]

    monkeypatch.setattr(common.data, "apply_template", watched)
    sizes = "--group-size 2 --num-steps 1 --max-total-tokens 400 --sampler transformers"
    for number, words in enumerate(commands):
        run = tmp_path / f"out{number}"
        prompts.append([])
        script.main(parse(script.Args, [*words[1:], *sizes.split(), "--model", str(model), "--output-dir", str(run)]))
    assert all("step by step" in prompt for prompt in prompts[0])
    assert set(prompts[1]) == {
        "s:Be brief.\nu:Answer in \\boxed{}. What is the capital of France?\n",
        "s:Be brief.\nu:Answer in \\boxed{}. Which planet is the largest? (A) Mars (B) Jupiter (C) Venus\n",
    }
    hashes = {path.read_text().split("prompt ")[1] for path in tmp_path.glob("out*/*/env.txt")}
    assert len(hashes) == 2


# --- what pays --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grader():
    from common.grading import Grader

    with Grader(1) as grader:
        yield grader


PAID = [  # response, answer, authors, strict
    ("The answer is \\boxed{14}.", "14", True, True),
    ("The answer is 14.", "14", True, False),
    ("$x = 14$ is one candidate, but", "14", True, False),
    ("So we get \\boxed{14", "14", False, False),
    ("So we get \\boxed{15}.", "14", False, False),
    ("The capital is \\boxed{Paris}.", "Paris", True, True),
    ("The capital is \\boxed{\\text{Paris}}.", "Paris", True, True),
    ("The capital is \\boxed{Lyon}.", "Paris", False, False),
    ("It must be \\boxed{B}.", "B", True, True),
    ("It must be \\boxed{C}.", "B", False, False),
]


def test_the_verdict_that_pays_is_chosen_and_both_are_logged(grader):
    problems = [Problem(str(i), "?", answer, "mine") for i, (_, answer, _, _) in enumerate(PAID)]
    texts = [text for text, *_ in PAID]
    verdicts = grader.grade(texts, problems)
    for name, column in (("authors", 2), ("strict", 3)):
        args = rloo_task.Args(reward_verdict=name)
        assert rloo_task.task_reward(texts, problems, verdicts, args) == [float(row[column]) for row in PAID]


@pytest.mark.parametrize("verdict", ["authors", "strict"])
def test_the_reward_is_that_of_the_chosen_verdict(folder, tmp_path, verdict):
    class EveryThird(ParityGrader):
        def grade(self, texts, problems):
            return [Verdict(i % 2 == 0, i % 3 == 0, None) for i in range(len(texts))]

    script = copy_of("rloo_task.py", "import torch\n", f"import torch  # {verdict}\n", tmp_path)
    script.Grader = EveryThird
    with recorded(script) as seen:
        lines = curves(train(folder, script, "--reward-verdict", verdict))
    expected = [float(i % (2 if verdict == "authors" else 3) == 0) for i in range(12)]
    assert seen["r_task"].tolist() == expected
    for line in lines[:-1]:
        assert line["objective/task_reward"] == pytest.approx(1 / 2 if verdict == "authors" else 1 / 3)
        assert line["objective/strict_reward"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("rewards + [1.0]", r"one number for each of the 12 responses, and returned values of shape \(13,\)"),
        ("rewards[1:]", r"values of shape \(11,\)"),
        ("[[r] * 2 for r in rewards]", r"values of shape \(12, 2\)"),
        ("None", "returned NoneType"),
        ("texts", "returned list: "),
        ("(r for r in rewards)", "returned generator"),
        ("[*rewards[1:], float('nan')]", "returned nan for response 11"),
    ],
)
def test_a_reward_of_ones_own_that_is_not_one_number_for_each_text_stops_the_run(folder, tmp_path, wrong, reason):
    line = "            rewards = task_reward(texts, owners, verdicts, args)\n"
    script = copy_of("rloo_task.py", line, f"{line}            rewards = {wrong}\n", tmp_path)
    with pytest.raises(ValueError, match=f"task_reward must return .*{reason}"):
        train(folder, script)


@pytest.mark.parametrize("name", ["rloo_task.py", "rloo_tilted.py"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("1.0", r"values of shape \(\)"),
        ("None", "returned NoneType"),
        ("r_task[:, None] - length", r"values of shape \(12, 12\)"),  # by broadcasting; cut to its first column before
        ("(r_task - logp).mean()", r"values of shape \(\)"),
        ("r_task[:, None] - logp", r"values of shape \(12, 12\)"),
        ("None if r_task is None else [float('nan')] * len(r_task)", "returned nan for response 0"),
    ],
)
def test_an_objective_that_is_not_one_number_for_each_response_stops_the_run(folder, tmp_path, name, wrong, reason):
    old = {"rloo_task.py": "    return r_task\n", "rloo_tilted.py": "    return -log_ratio if"}[name]
    new = f"    return {wrong}\n" if name == "rloo_task.py" else f"    return {wrong}\n    return -log_ratio if"
    script = copy_of(name, old, new, tmp_path)
    with pytest.raises(ValueError, match=f"objective must return .*{reason}"):
        train(folder, script)


def test_an_objective_may_return_any_numbers_and_they_are_data(folder, tmp_path):
    """Booleans could not be subtracted, and a return with a gradient was warned of."""
    script = copy_of("rloo_task.py", "    return r_task\n", "    return r_task > 0\n", tmp_path)
    lines = curves(train(folder, script))
    assert lines[0]["objective/return"] == lines[0]["objective/task_reward"]
    values = one_for_each(torch.ones(3, requires_grad=True) * 2, 3, "objective")
    assert values.dtype == torch.float64 and not values.requires_grad and values.tolist() == [2.0] * 3


# --- what else a copy may do ------------------------------------------------------------------------------------------


def test_a_metric_of_ones_own_is_logged(folder, tmp_path):
    line = '                metrics.add_mean("objective/return", returns)\n'
    script = copy_of(
        "rloo_task.py", line, f'{line}                metrics.add_mean("mine/spread", returns.var())\n', tmp_path
    )
    lines = curves(train(folder, script))
    assert all(line["mine/spread"] >= 0 for line in lines[:-1])
