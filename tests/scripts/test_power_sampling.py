"""Power sampling: the kernel as a matrix, the program against that matrix, and the command on the miniature.

The model is a random transformer over {stop, a, b, c} with answers of at most L tokens, few enough to enumerate.
`Enumerated` holds its exact laws; a kernel is then a matrix over answers, made with the script's own functions.
"""

import ast
import itertools
import json
import math
import re
import types
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_rollout import tiny_model

import power_sampling
from common.data import prompt_file_of
from common.evaluate import problem_metrics
from common.grading import Grader
from common.rollout import Sample, start_sampler
from common.rollout.transformers import TransformersSampler
from common.run import parse
from power_sampling import (
    Args,
    ChainGroup,
    Progress,
    cut_weights,
    draw_cut,
    log_acceptance,
    main,
    run_groups,
)

SOURCE = Path(power_sampling.__file__)
STOP, V, PROMPT = 0, 4, [1, 2]
BARE = prompt_file_of("toy")
PUBLISHED = ("karan-du", "mh-llm", "mh-llm-signfix")


class Enumerated:
    """All that a model can answer to PROMPT in L tokens, with exact laws at temperature 1 and 1/alpha (float64)."""

    def __init__(self, model, L: int, alpha: float):
        self.L, self.alpha = L, alpha
        # Every string counts as a state: published programs stop short and write on after a stop token.
        self.states = [list(y) for n in range(1, L + 1) for y in itertools.product(range(V), repeat=n)]
        self.place = {tuple(y): i for i, y in enumerate(self.states)}
        self.p, self.q, self.z, self.h = {}, {}, {}, {}
        for prefix in [[], *(y for y in self.states if len(y) < L)]:
            with torch.inference_mode():
                logits = model(torch.tensor([PROMPT + prefix])).logits[0, -1].double()
            p = logits.softmax(-1)
            z = (p**alpha).sum()
            self.p[tuple(prefix)], self.q[tuple(prefix)] = p.log().tolist(), (p**alpha / z).tolist()
            self.z[tuple(prefix)], self.h[tuple(prefix)] = float(z.log()), float(-(p * p.log()).sum())
        self.answers = [self.answer(y) for y in self.states]
        # Proper answers, those of the target: one stop token, at the end, or none in L tokens.
        self.proper = np.array([STOP not in y[:-1] and (y[-1] == STOP or len(y) == L) for y in self.states])
        power = [math.exp(alpha * sum(a.logp)) if ok else 0.0 for a, ok in zip(self.answers, self.proper, strict=True)]
        self.Z = sum(power)
        self.pi = np.array(power) / self.Z
        self.stopped = np.array([y[-1] == STOP for y in self.states])

    def answer(self, y: list[int]) -> Sample:
        prefixes = [tuple(y[:t]) for t in range(len(y))]
        logp = [self.p[h][v] for h, v in zip(prefixes, y, strict=True)]
        return Sample(y, logp, [self.z[h] for h in prefixes], [self.h[h] for h in prefixes])

    @cache  # noqa: B019
    def continuations(self, prefix: tuple, cap: int) -> list[tuple[int, float]]:
        """(state, q) of everything that can follow `prefix` up to `cap` tokens."""
        found, open_ends = [], [(prefix, 1.0)]
        while open_ends:
            y, q = open_ends.pop()
            for v in range(V):
                z, q_z = (*y, v), q * self.q[y][v]
                if v == STOP or len(z) == cap:
                    found.append((self.place[z], q_z))
                else:
                    open_ends.append((z, q_z))
        return found

    def kernel(self, mode: str, cap: int | None = None, law="uniform", accept=log_acceptance) -> np.ndarray:
        """The matrix of one move; cap: length up to which proposals go in the exact mode."""
        K = np.zeros((len(self.states),) * 2)
        for i, y in enumerate(self.answers):
            end = (cap or self.L) if mode == "exact" else len(y.tokens)
            if len(y.tokens) > end:
                continue
            weights = cut_weights(y, law)
            for m, weight in enumerate(weights):
                for j, q in self.continuations(tuple(y.tokens[:m]), end):
                    A = math.exp(min(0.0, accept(y, self.answers[j], m, mode, self.alpha, law)))
                    K[i, j] += weight / sum(weights) * q * A
        K[np.arange(len(K)), np.arange(len(K))] += 1 - K.sum(1)
        return K

    def extended(self, law: np.ndarray, to, past_stop: bool) -> np.ndarray:
        """The law after a block is drawn up to length to(|y|)."""
        new = np.zeros_like(law)
        for i in law.nonzero()[0]:
            y = self.states[i]
            if len(y) < self.L and (past_stop or not self.stopped[i]):
                for j, q in self.continuations(tuple(y), to(len(y))):
                    new[j] += law[i] * q
            else:
                new[i] += law[i]
        return new

    def first(self, cap: int) -> np.ndarray:
        law = np.zeros(len(self.states))
        for j, q in self.continuations((), cap):
            law[j] += q
        return law

    def program(self, mode: str, num_moves: int, block: int = 0, skipped_at: int = 0, law="uniform"):
        """The law of the script's answer; for published modes also how likely a chain is to end at each block.
        skipped_at: the block after which mh-llm does not look at this chain."""
        B, exact, pushed = block or self.L, mode == "exact", mode.startswith("mh-llm")
        blocks = math.ceil(self.L / B) + (pushed and block > 0)
        ended, now, ends = np.zeros(len(self.states)), None, {}
        for k in range(1, blocks + 1):
            cap = min(k * B, self.L)
            to = (lambda n, cap=cap: cap) if exact else (lambda n: min(n + B, self.L))
            now = self.extended(now, to, pushed) if k > 1 else self.first(min(B, self.L))
            now = now @ np.linalg.matrix_power(self.kernel(mode, cap, law), num_moves)
            if not exact and k != skipped_at:
                ends[k] = now[self.stopped].sum()
                ended += np.where(self.stopped, now, 0)
                now = np.where(self.stopped, 0, now)
        return ended + now, ends


def total_variation(a, b) -> float:
    return 0.5 * float(np.abs(a - b).sum())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, tiny_model(folder, vocabulary=V, seed=15)


@pytest.fixture(scope="module")
def enumerated(tiny):
    return cache(lambda L, alpha: Enumerated(tiny[1], L, alpha))


# --- the kernel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["uniform", "entropy"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0, 4.0])
def test_the_exact_kernel_leaves_the_power_law_invariant_and_reaches_it(enumerated, alpha, law):
    model = enumerated(4, alpha)
    K = model.kernel("exact", law=law)
    assert np.allclose(K.sum(1), 1) and K.min() > -1e-15
    assert total_variation(model.pi @ K, model.pi) < 1e-12
    q = model.first(model.L)
    assert alpha == 1 or total_variation(q, model.pi) > 0.01
    assert total_variation(q @ np.linalg.matrix_power(K, 1 << 14), model.pi) < 1e-6
    balance = model.pi[:, None] * K
    assert np.abs(balance - balance.T).max() < 1e-15


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("mode", PUBLISHED)
def test_the_published_kernels_do_not(enumerated, mode, alpha):
    model = enumerated(4, alpha)
    off = total_variation(model.pi @ model.kernel(mode), model.pi)
    print(f"{mode} at alpha {alpha}: one move takes pi^alpha to a law {off:.3f} away in total variation")
    assert off > 0.01


def with_slip(old: str, new: str):
    """The script's log_acceptance after replacing `old` in its source."""
    source = SOURCE.read_text()
    assert old in source, f"{SOURCE.name} no longer contains {old!r}: update this table"
    tree = ast.parse(source.replace(old, new))
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("cut_weights", "log_acceptance")]
    module = types.ModuleType("wrong")
    module.__dict__.update(math=math, Sample=Sample, LEAST_WEIGHT=power_sampling.LEAST_WEIGHT)
    exec(compile(tree, SOURCE.name, "exec"), module.__dict__)
    return module.log_acceptance


SLIPS = {
    "no |y| / |z|": (" + math.log(size_y) - math.log(size_z)", ""),
    "|z| / |y|": ("+ math.log(size_y) - math.log(size_z)", "- math.log(size_y) + math.log(size_z)"),
    "log Z of z turned": (
        "return sum(z.log_z[m:]) - sum(y.log_z[m:]) +",
        "return -sum(z.log_z[m:]) - sum(y.log_z[m:]) +",
    ),
    "log Z of y turned": (
        "return sum(z.log_z[m:]) - sum(y.log_z[m:]) +",
        "return sum(z.log_z[m:]) + sum(y.log_z[m:]) +",
    ),
    "sums over the overlap": ("- sum(y.log_z[m:]) +", "- sum(y.log_z[m : len(z.tokens)]) +"),
    "from the place after the cut": ("return sum(z.log_z[m:])", "return sum(z.log_z[m + 2 :])"),
    "entropy cuts as if uniform": (
        "(y, law)), sum(cut_weights(z, law))",
        "(y, 'uniform')), sum(cut_weights(z, 'uniform'))",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_acceptance_is_seen(enumerated, slip):
    model, wrong = enumerated(4, 0.5), with_slip(*SLIPS[slip])
    law = "entropy" if "entropy" in slip else "uniform"
    assert total_variation(model.pi @ model.kernel("exact", law=law, accept=wrong), model.pi) > 1e-3


def test_in_blocks_the_last_block_alone_makes_the_law_and_stopping_early_would_bend_it(enumerated):
    model = enumerated(4, 2.0)
    law, _ = model.program("exact", 1 << 12, block=2)
    assert total_variation(law, model.pi) < 1e-6
    K, now = model.kernel("exact", 2), model.first(2)
    now = now @ np.linalg.matrix_power(K, 1 << 12)
    kept = np.where(model.stopped, now, 0)  # chains that are finished after the first block stop there
    rest = model.extended(np.where(model.stopped, 0, now), lambda n: 4, False) @ np.linalg.matrix_power(
        model.kernel("exact"), 1 << 12
    )
    assert total_variation(kept + rest, model.pi) > 0.01


@pytest.mark.parametrize("law", ["uniform", "entropy"])
def test_a_cut_has_the_probability_that_the_kernel_says(enumerated, law):
    y = enumerated(4, 2.0).answers[-1]
    weights = np.array(cut_weights(y, law))
    edges = np.cumsum(weights) / weights.sum()
    us = (np.arange(20_000) + 0.5) / 20_000
    found = np.bincount([draw_cut(y, law, u) for u in us], minlength=len(weights)) / len(us)
    assert np.allclose(found, weights / weights.sum(), atol=1e-4)
    assert draw_cut(y, law, 0.0) == 0 and draw_cut(y, law, 1 - 1e-16) == len(weights) - 1 and len(edges) == 4


def test_the_published_loop_skips_the_chain_after_one_that_it_removes(monkeypatch):
    group = ChainGroup(Args(mode="mh-llm", n=5, max_total_tokens=8), 0, [STOP], "p", PROMPT, range(5))
    for ended in itertools.product([False, True], repeat=5):
        for chain, stop in zip(group.chains, ended, strict=True):
            chain.y = Sample([1, STOP if stop else 2])
        remaining = list(group.chains)  # the list that the published program changes while it iterates over it
        for chain in remaining:
            if group.finished(chain):
                remaining.remove(chain)
        assert group.without_finished(group.chains) == remaining
    assert [chain.index for chain in remaining] == [1, 3]


# --- the program ------------------------------------------------------------------------------------------------------


class NoJournal:
    """Keeps nothing, and sees every chain just before it is judged."""

    def __init__(self, seen=lambda group: None):
        self.seen = seen

    def replay(self, group):
        pass

    def add(self, group, samples):
        self.seen(group)


def chains_of(
    sampler, args: Args, seed: int, num_groups: int, together: int = 1, at_once: int = 1 << 20, seen=lambda group: None
):
    """Runs the script's groups of chains on PROMPT; gives their chains."""
    places = (range(i * together, (i + 1) * together) for i in range(num_groups))
    groups = (ChainGroup(args, seed, [STOP], "p", PROMPT, indices) for indices in places)
    return [
        chain
        for group in run_groups(sampler, groups, at_once, NoJournal(seen), Progress("", num_groups))
        for chain in group.chains
    ]


def chi_square(found: Counter, law: dict) -> float:
    """p-value of counts against their law, cells with expectation under 5 pooled."""
    n = found.total()
    assert not [cell for cell in found if law[cell] == 0], "something was found that the law does not have"
    cells = [(law[cell] * n, found[cell]) for cell in law]
    rare = [cell for cell in cells if cell[0] < 5]
    cells = [cell for cell in cells if cell[0] >= 5] + [tuple(map(sum, zip(*rare, strict=True)))] * (len(rare) > 0)
    cells = [cell for cell in cells if cell[0] > 1e-9]
    statistic = sum((count - mean) ** 2 / mean for mean, count in cells)
    return float(
        torch.special.gammaincc(torch.tensor((len(cells) - 1) / 2).double(), torch.tensor(statistic / 2).double())
    )


def p_value(found: list[list[int]], law: np.ndarray, model: Enumerated) -> float:
    return chi_square(Counter(map(tuple, found)), {y: float(law[i]) for y, i in model.place.items()})


def check_moves(
    sampler, model: Enumerated, num_chains: int, seed: int, mode: str, law="uniform", at_once=1 << 20
) -> None:
    """Chains after 0, 1, 3 and 10 moves against q K^M, and against a wrong law; the first cut against its law."""
    snapshots, cuts = {0: [], 1: [], 3: []}, []

    def seen(group):
        (chain,) = group.chains
        if group.step > 1 and chain.moves in snapshots:
            snapshots[chain.moves].append(chain.y.tokens)
        cut = len(group.requests[0].prompt) - len(PROMPT)
        if group.step > 1 and law == "uniform":
            assert cut == int(group.uniforms(chain, 2, "moves")[0] * len(chain.y.tokens))
        if group.step == 2:
            cuts.append((tuple(chain.y.tokens), cut))

    args = Args(alpha=model.alpha, mode=mode, cut=law, block_size=0, max_total_tokens=len(PROMPT) + model.L)
    chains = chains_of(sampler, args, seed, num_chains, at_once=at_once, seen=seen)
    snapshots[10] = [chain.y.tokens for chain in chains]
    assert all(chain.moves == 10 and len(chain.lengths) == 11 for chain in chains)
    for num_moves, found in snapshots.items():
        assert sorted(map(len, found)) == sorted(chain.lengths[num_moves] for chain in chains)
        assert p_value(found, model.program(mode, num_moves, law=law)[0], model) > 1e-4, num_moves
    other = "karan-du" if mode == "exact" else "exact"
    assert p_value(found, 0.999 * model.program(other, 10)[0] + 0.001 / len(model.states), model) < 1e-4
    first, weights = model.first(model.L), {y: cut_weights(model.answers[i], law) for y, i in model.place.items()}
    expected = {
        (y, m): first[i] * w / sum(weights[y]) for y, i in model.place.items() for m, w in enumerate(weights[y])
    }
    assert chi_square(Counter(cuts), expected) > 1e-4


def check_blocks(
    sampler, model: Enumerated, num_groups: int, seed: int, mode: str, num_moves: int, at_once=1 << 20
) -> None:
    """Chains in blocks of 2 against the product of the block kernels; mh-llm's in pairs, the second may be skipped."""
    args = Args(alpha=model.alpha, mode=mode, block_size=2, num_moves=num_moves, max_total_tokens=len(PROMPT) + model.L)
    together = 2 if mode.startswith("mh-llm") else 1
    chains = chains_of(sampler, args, seed, num_groups, together, at_once)
    assert max(max(chain.lengths[: 1 + num_moves]) for chain in chains) == 2
    assert mode != "exact" or {chain.moves for chain in chains} == {2 * num_moves}
    law, ends = model.program(mode, num_moves, block=2)
    firsts = [chain.y.tokens for chain in chains if chain.index % together == 0]
    assert p_value(firsts, law, model) > 1e-4
    if together == 2:
        seconds = [chain.y.tokens for chain in chains if chain.index % 2]
        mixed = (1 - sum(ends.values())) * law
        for k, probability in ends.items():
            mixed += probability * model.program(mode, num_moves, block=2, skipped_at=k)[0]
        assert p_value(seconds, mixed, model) > 1e-4
        assert any(STOP in y[:-1] for y in seconds) and not any(STOP in y[:-1] for y in firsts)


@pytest.fixture(scope="module")
def sampler(tiny):
    return TransformersSampler(tiny[0], 8, [STOP], max_batch=20_000)


@pytest.mark.parametrize("mode", ["exact", *PUBLISHED])
def test_chains_follow_the_law_of_their_kernel(sampler, enumerated, mode):
    check_moves(sampler, enumerated(3, 2.0), 2_000, seed=0, mode=mode)


def test_chains_with_entropy_cuts_follow_the_law_of_their_kernel(sampler, enumerated):
    check_moves(sampler, enumerated(3, 2.0), 2_000, seed=0, mode="exact", law="entropy")


@pytest.mark.parametrize("mode", ["exact", *PUBLISHED])
def test_chains_in_blocks_follow_the_product_of_the_block_kernels(sampler, enumerated, mode):
    num_groups = 1_000 if mode.startswith("mh-llm") else 2_000  # of two chains, or of one
    check_blocks(sampler, enumerated(4, 2.0), num_groups, seed=0, mode=mode, num_moves=1)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["exact", *PUBLISHED])
def test_20000_chains_follow_the_law_of_their_kernel(sampler, enumerated, mode):
    check_moves(sampler, enumerated(3, 2.0), 20_000, seed=1, mode=mode)
    check_blocks(sampler, enumerated(4, 2.0), 20_000, seed=1, mode=mode, num_moves=1)
    if mode == "exact":
        check_moves(sampler, enumerated(3, 0.5), 20_000, seed=1, mode=mode, law="entropy")


def check_smc(sampler, model: Enumerated, num_runs: int, seed: int, block: int) -> None:
    """The mean of Z-hat is Z, and of Z-hat where y was drawn Z pi(y), within four standard errors."""
    args = Args(
        alpha=model.alpha, method="smc", num_particles=4, block_size=block, max_total_tokens=len(PROMPT) + model.L
    )
    runs = chains_of(sampler, args, seed, num_runs)
    z_hat = np.exp([run.log_z for run in runs])
    values = np.zeros((num_runs, len(model.states)))
    values[np.arange(num_runs), [model.place[tuple(run.y.tokens)] for run in runs]] = z_hat
    likely = model.pi * num_runs > 20
    means, errors = values[:, likely].mean(0), values[:, likely].std(0) / num_runs**0.5
    assert abs(z_hat.mean() - model.Z) < 4 * z_hat.std() / num_runs**0.5
    assert (np.abs(means - model.Z * model.pi[likely]) < 4 * errors).all()
    plain = np.bincount([model.place[tuple(run.y.tokens)] for run in runs], minlength=len(model.states)) / num_runs
    assert total_variation(plain, model.pi) < total_variation(model.first(model.L), model.pi)
    assert all(1 <= run.effective_particles <= 4 + 1e-9 for run in runs)


@pytest.mark.parametrize("block", [0, 1])
def test_particles_estimate_the_power_law_without_bias(sampler, enumerated, block):
    check_smc(sampler, enumerated(4, 2.0), 2_000, seed=0, block=block)


@pytest.mark.long
@pytest.mark.parametrize("block", [0, 1, 2])
def test_20000_runs_of_particles_estimate_the_power_law_without_bias(sampler, enumerated, block):
    check_smc(sampler, enumerated(4, 2.0), 20_000, seed=1, block=block)
    check_smc(sampler, enumerated(4, 0.5), 20_000, seed=2, block=block)


def test_particles_that_are_not_drawn_by_weight_are_seen(sampler, enumerated, monkeypatch):
    real = np.searchsorted
    monkeypatch.setattr(power_sampling.np, "searchsorted", lambda c, x, side: real(c, x * (len(x) > 1), side))
    with pytest.raises(AssertionError):
        check_smc(sampler, enumerated(4, 2.0), 2_000, seed=0, block=0)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_grader():
    with Grader(1) as grader:
        yield grader


@pytest.fixture
def miniature(toy_dir, one_grader):
    sampler = start_sampler("transformers", toy_dir, 128, max_num_seqs=1024)
    sampler.grader = one_grader  # else every call of the program would start one
    return sampler


def on_the_miniature(folder, sampler, **changes) -> dict:
    """Runs the command; gives the report's rows by name."""
    settings = dict(
        model="toy", dataset=["toy_test"], max_total_tokens=128, num_grading_workers=1, output_dir=str(folder)
    )
    return {row["row"]: row for row in main(Args(**settings | changes), sampler, getattr(sampler, "grader", None))}


COMPARED = ("pass_at_1", "response_length", "finished_frac", "logp")


def differences(folder: Path, name: str, file: str) -> dict[str, float]:
    """Power less plain sampling, in standard errors of the difference, which is of pairs: the problems are the same."""
    power, plain = (
        [
            problem_metrics(record, "authors") | {"logp": np.mean(record["logp"])}
            for record in json.loads(path.read_text())["problems"]
        ]
        for path in (folder / f"{name}__{file}", folder / "plain_T1" / file)
    )
    pairs = np.array([[a[key] - b[key] for key in COMPARED] for a, b in zip(power, plain, strict=True)])
    errors = pairs.std(0, ddof=1) / len(pairs) ** 0.5
    return dict(zip(COMPARED, (pairs.mean(0) / errors.clip(1e-9)).tolist(), strict=True))


def test_at_alpha_1_the_exact_mode_is_plain_sampling(miniature, tmp_path):
    rows = on_the_miniature(tmp_path, miniature, alpha=1.0, n=16, limit=16)
    assert set(rows) == {"plain T=1", "power_exact_alpha1"}
    found = differences(tmp_path, "power_exact_alpha1", "toy_test__n16__seed1.json")
    assert max(map(abs, found.values())) < 4.1  # of Student's t with 15 degrees of freedom, one value in 1,000
    assert 0.8 < rows["power_exact_alpha1"]["acceptance"] < 1  # |y| / |z|


@pytest.mark.long
def test_at_alpha_1_all_modes_beside_plain_sampling(miniature, tmp_path):
    """Exact is plain sampling. Two published modes take every move, as p = q, and no move makes an answer longer; the
    one with the ratio upside down draws likelier answers. What that does to accuracy is printed: it could be anything.
    """
    found, chains = {}, {}
    for mode in ("exact", *PUBLISHED):
        limit = 100 if mode == "exact" else 20  # blocks cost 16 times the moves
        folder = tmp_path / mode
        rows = on_the_miniature(folder, miniature, alpha=1.0, mode=mode, n=16, limit=limit, seed=2)
        name, file = f"power_{mode}_alpha1", "toy_test__n16__seed2.json"
        found[mode] = differences(folder, name, file) | {"acceptance": rows[name]["acceptance"]}
        problems = json.loads((folder / f"{name}__{file}").read_text())["problems"]
        chains[mode] = [lengths for problem in problems for lengths in problem["chains"]["lengths"]]
        for row in rows.values():
            figures = row["authors"]
            print(row["row"], {key: f"{figures[key]:.4f} +- {figures[key + '_se']:.4f}" for key in COMPARED[:3]})
        print("in standard errors:", {key: round(value, 2) for key, value in found[mode].items()})
    assert max(abs(found["exact"][key]) for key in COMPARED) < 3
    for mode in ("karan-du", "mh-llm-signfix"):
        assert found[mode]["acceptance"] == 1
        assert all(b <= a for lengths in chains[mode] for i, (a, b) in enumerate(pairwise(lengths), 1) if i % 11)
    assert any(b > a for lengths in chains["exact"] for a, b in pairwise(lengths))
    assert found["mh-llm"]["acceptance"] < 0.9 and found["mh-llm"]["logp"] > 3


def test_a_sharper_law_is_likelier_and_the_report_says_what_was_spent(miniature, tmp_path, capsys):
    rows = on_the_miniature(tmp_path, miniature, alpha=2.0, n=2, limit=8, num_moves=3, repeats=2)
    assert set(rows) == {"plain T=0.5", "plain T=1", "power_exact_alpha2"}
    results = json.loads((tmp_path / "power_exact_alpha2__toy_test__n2__seed1.json").read_text())
    plain = json.loads((tmp_path / "plain_T1" / "toy_test__n2__seed1.json").read_text())
    mean_logp = [np.mean([problem["logp"] for problem in found["problems"]]) for found in (results, plain)]
    assert mean_logp[0] > mean_logp[1] and results["schema"] == 1 and results["settings"]["alpha"] == 2
    for problem in results["problems"]:
        chains = problem["chains"]
        assert chains["moves"] == [3, 3] and all(0 <= a <= 3 for a in chains["accepted"])
        assert sum(chains["generated_tokens"]) == problem["generated_tokens"] >= sum(problem["tokens"])
        assert [lengths[-1] for lengths in chains["lengths"]] == problem["tokens"]
        assert all(len(lengths) == 4 for lengths in chains["lengths"])
    table = capsys.readouterr().out
    assert "acceptance" in table and "plain T=0.5" in table and "tokens generated per answer" in table
    assert (tmp_path / "power_exact_alpha2__toy_test__n2__seed2.json").exists()
    assert not list(tmp_path.glob("*.moves"))
    with pytest.raises(ValueError, match="num_moves 3, now 4"):
        on_the_miniature(tmp_path, miniature, alpha=2.0, n=2, limit=8, num_moves=4)


class Killed(Exception):
    pass


class Counting:
    """A sampler that is killed after a number of calls of `collect`."""

    def __init__(self, sampler, calls: int):
        self.sampler, self.calls, self.submitted, self.drawn, self.seeds = sampler, calls, [], 0, []

    def __getattr__(self, name):
        return getattr(self.sampler, name)

    def capacity(self, max_total_tokens):
        return 4

    def seed_requests(self, stream, seed, step=0):
        self.seeds.append((stream, seed, step))

    def submit(self, request):
        self.submitted.append(request)
        self.sampler.submit(request)

    def collect(self):
        self.calls -= 1
        if self.calls < 0:
            self.sampler.waiting.clear()
            raise Killed
        samples = [replace(sample, cached_tokens=7) for sample in self.sampler.collect()]  # as if it had a cache
        self.drawn += sum(len(sample.tokens) for sample in samples)
        return samples


@pytest.mark.parametrize("changes", [dict(), dict(mode="mh-llm"), dict(method="smc")], ids=["mh", "mh-llm", "smc"])
def test_a_killed_run_loses_nothing_but_the_moves_in_flight(miniature, tmp_path, changes):
    settings = dict(alpha=2.0, n=2, limit=6, num_moves=2) | changes
    whole = Counting(miniature, 1 << 20)
    on_the_miniature(tmp_path / "whole", whole, **settings)
    starts = [Counting(miniature, calls) for calls in (4, 3, 1 << 20)]
    for start in starts[:2]:
        with pytest.raises(Killed):
            on_the_miniature(tmp_path / "killed", start, **settings)
        cut_off = min((tmp_path / "killed").glob("*.moves/*/*.jsonl"))
        cut_off.write_text(cut_off.read_text() + "[[[1, 2")  # killed while it wrote
    on_the_miniature(tmp_path / "killed", starts[2], **settings)
    lines = [
        [
            json.loads(line)
            for line in next((tmp_path / name).glob("power*.responses.jsonl")).read_text().splitlines()[1:]
        ]
        for name in ("whole", "killed")
    ]
    keys = ("id", "responses", "logp", "chains")
    answers = [sorted([[line[key] for key in keys] for line in found], key=str) for found in lines]
    assert answers[0] == answers[1]
    assert sum(sum(line["chains"]["generated_tokens"]) for line in lines[1]) == whole.drawn
    assert sum(sum(line["chains"]["cached_tokens"]) for line in lines[1]) == 7 * len(whole.submitted)
    seeds = [key for start in starts for key in start.seeds]
    assert len(set(seeds)) == 3  # vLLM would not repeat what it drew before
    in_flight = sum(len(start.submitted) for start in starts) - len(whole.submitted)
    assert 0 < in_flight <= 2 * (8 if changes.get("method") == "smc" else 4)


def test_a_killed_run_does_not_go_on_with_other_problems(miniature, tmp_path):
    """Killed before its first answer, so that the journal alone knows what was sampled."""
    data = tmp_path / "mine.jsonl"
    settings = dict(alpha=2.0, n=1, num_moves=2, dataset=[str(data)], prompt_file=str(BARE))
    data.write_text(json.dumps({"id": "x", "problem": "1+2*3=", "answer": "7"}))
    with pytest.raises(Killed):
        on_the_miniature(tmp_path / "out", Counting(miniature, 0), **settings)
    assert not list((tmp_path / "out").glob("*.moves"))  # nothing was sampled, nothing is kept
    with pytest.raises(Killed):
        on_the_miniature(tmp_path / "out", Counting(miniature, 1), **settings)
    data.write_text(json.dumps({"id": "x", "problem": "1+2*4=", "answer": "9"}))
    with pytest.raises(ValueError, match="moves.* was made with .*the data set has changed, or another one has its"):
        on_the_miniature(tmp_path / "out", miniature, **settings)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--alpha", "0"], "a finite number above 0"),
        (["--alpha", "-1"], "a finite number above 0"),
        (["--alpha", "inf"], "use beam_eval.py"),
        (["--num-moves", "-1"], "0 or more"),
        (["--block-size", "-1"], "0 or more"),
        (["--n", "0"], "1 or more"),
        (["--mode", "mh-llm", "--cut", "entropy"], "uniform cuts"),
        (["--mode", "gibbs"], "mode"),
    ],
)
def test_bad_arguments_are_refused_when_the_command_line_is_read(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Args, arguments)
    said = " ".join(re.split(r"[\s│]+", capsys.readouterr().err))
    assert stop.value.code != 0 and message in said


def test_a_window_that_the_prompts_fill_is_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="raise --max-total-tokens"):
        on_the_miniature(tmp_path, None, max_total_tokens=5)
    assert not list(tmp_path.iterdir())
