"""The estimator of the three scripts against exact gradients and exact optima, on a policy small enough to enumerate.

The policy is a table: one row of logits for every prefix over {EOS, a, b} of fewer than three tokens. With variable
length the responses end at their first EOS, 15 in all; with fixed length EOS is an ordinary token and there are 27.
Expectations are sums over all groups of responses, weighted by their probability: nothing here is sampled.
"""

import ast
import itertools
import math
import types
from pathlib import Path

import pytest
import torch

import rloo_sharpen
import rloo_task
import rloo_tilted

ROOT = Path(__file__).resolve().parents[2]
EOS, V, L = 0, 3, 3
PREFIXES = [p for n in range(L) for p in itertools.product(range(V), repeat=n)]


class Table:
    """Responses, rewards and base of the enumerable problem; token log-probabilities (|Y|, L), zero after the end."""

    def __init__(self, fixed_length: bool, seed: int = 0):
        every = itertools.product(range(V), repeat=L)
        cut = (y if fixed_length or EOS not in y else y[: y.index(EOS) + 1] for y in every)
        self.responses = list(dict.fromkeys(cut))
        self.mask = torch.tensor([[t < len(y) for t in range(L)] for y in self.responses])
        padded = [y + (0,) * (L - len(y)) for y in self.responses]
        self.tokens = torch.tensor(padded)
        self.prefix = torch.tensor([[PREFIXES.index(y[:t]) for t in range(L)] for y in padded])
        g = torch.Generator().manual_seed(seed)
        self.base_table = torch.randn(len(PREFIXES), V, generator=g, dtype=torch.float64)
        # Ending at once has 0.3 and the rest spreads out, so the power of the whole is not made of powers of the parts.
        self.base_table[0] = torch.tensor([0.3, 0.35, 0.35], dtype=torch.float64).log()
        self.r_task = (torch.rand(len(self.responses), generator=g) < 0.3).double()
        self.r_task[3] = 1.0

    def token_logp(self, table: torch.Tensor) -> torch.Tensor:
        chosen = table.log_softmax(-1)[self.prefix].gather(-1, self.tokens[..., None])[..., 0]
        return chosen * self.mask

    def logp(self, table: torch.Tensor) -> torch.Tensor:
        return self.token_logp(table).sum(1)

    def entropy(self, table: torch.Tensor) -> torch.Tensor:
        """Next-token entropy summed over the response, nats: (|Y|,)."""
        of_prefix = torch.distributions.Categorical(logits=table).entropy()
        return (of_prefix[self.prefix] * self.mask).sum(1)

    def probabilities(self, table: torch.Tensor) -> torch.Tensor:
        return self.logp(table).exp()


def settings(module=rloo_tilted, **changes):
    return module.Args(**changes) if changes else module.Args()


CASES = {
    "task": (rloo_task, {}, lambda r, logp, base: r),
    "sharpen": (rloo_sharpen, {}, lambda r, logp, base: base),
    "tempered 2": (rloo_tilted, {"alpha": 2.0, "beta": math.inf}, lambda r, logp, base: 2 * base - logp),
    "tempered 0.5": (rloo_tilted, {"alpha": 0.5, "beta": math.inf}, lambda r, logp, base: 0.5 * base - logp),
    "tilted 2, 0.5": (rloo_tilted, {"alpha": 2.0, "beta": 0.5}, lambda r, logp, base: r - 0.5 * (logp - 2 * base)),
    "tilted 1.25, 0.1": (
        rloo_tilted,
        {"alpha": 1.25, "beta": 0.1},
        lambda r, logp, base: r - 0.1 * (logp - 1.25 * base),
    ),
}


def exact_gradient(problem: Table, table: torch.Tensor, value) -> torch.Tensor:
    """Gradient of sum_y pi(y) R(y), the objective itself, R's dependence on the policy differentiated too."""
    table = table.clone().requires_grad_()
    logp = problem.logp(table)
    expected = (logp.exp() * value(problem.r_task, logp, problem.logp(problem.base_table))).sum()
    return torch.autograd.grad(expected, table)[0]


def expected_estimate(
    problem, table, module, args, group_size, denominator="responses", cap_weights=None
) -> torch.Tensor:
    """Expectation of the script's estimator: its own objective, leave_one_out and policy_loss on all |Y|^G groups."""
    table = table.clone().requires_grad_()
    groups = torch.tensor(list(itertools.product(range(len(problem.responses)), repeat=group_size)))  # (|Y|^G, G)
    rows = groups.view(-1)
    token_logp = problem.token_logp(table)
    logp = token_logp.detach().sum(1)
    length = problem.mask.sum(1)[rows]
    logp_base, entropy = problem.logp(problem.base_table)[rows], problem.entropy(table.detach())[rows]
    returns = module.objective(problem.r_task[rows], logp[rows], logp_base, entropy, length, args)
    advantages = module.leave_one_out(returns, group_size)
    chance = problem.probabilities(table.detach())[groups].prod(1)
    lengths = problem.mask.sum(1)[groups].sum(1)
    per_group = chance / (group_size if denominator == "responses" else lengths)
    mask = problem.mask[rows]
    spread = (per_group.repeat_interleave(group_size)[:, None] * torch.ones(L))[mask]
    chosen = token_logp[rows][mask]
    # The chance of a group enters as an importance weight: log pi - log sampler = log chance.
    loss = module.policy_loss(
        chosen, chosen.detach() - spread.log(), advantages[:, None].expand(-1, L)[mask], cap=math.inf
    )
    return -torch.autograd.grad(loss, table)[0]


def some_table(seed=1) -> torch.Tensor:
    return torch.randn(len(PREFIXES), V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("group_size", [2, 3])
@pytest.mark.parametrize("fixed_length", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_expectation_of_the_estimator_is_the_exact_gradient(case, fixed_length, group_size):
    module, arguments, value = CASES[case]
    problem, table = Table(fixed_length), some_table()
    estimate = expected_estimate(problem, table, module, settings(module, **arguments), group_size)
    exact = exact_gradient(problem, table, value)
    assert exact.abs().max() > 1e-2
    assert (estimate - exact).abs().max() < 1e-10


def test_dividing_by_tokens_is_exact_at_fixed_length_and_biased_in_direction_at_variable_length():
    module, arguments, value = CASES["tilted 2, 0.5"]
    args = settings(module, **arguments)
    for fixed_length in (True, False):
        problem, table = Table(fixed_length), some_table()
        estimate = expected_estimate(problem, table, module, args, 2, denominator="tokens").flatten()
        exact = exact_gradient(problem, table, value).flatten()
        cosine = torch.dot(estimate, exact) / (estimate.norm() * exact.norm())
        if fixed_length:
            assert torch.allclose(estimate * L, exact, atol=1e-10)
        else:
            assert cosine < 0.999


# --- a script with a slip in it must fail the test above --------------------------------------------------------------

OTHERS = "(groups.sum(1, keepdim=True) - groups) / (group_size - 1)"
PRODUCT = "importance_weight * advantages * token_logp"
RATIO = "(token_logp.detach() - sampler_logp)"
SLIPS = {
    "kl sign": ("rloo_tilted.py", "logp - args.alpha", "logp + args.alpha", "tilted 2, 0.5"),
    "alpha dropped": ("rloo_tilted.py", "args.alpha * logp_base", "logp_base", "tilted 2, 0.5"),
    "beta dropped": ("rloo_tilted.py", "args.beta * log_ratio", "log_ratio", "tilted 2, 0.5"),
    "return sign": ("rloo_tilted.py", "r_task - args.beta", "r_task + args.beta", "tilted 2, 0.5"),
    "reward dropped": ("rloo_tilted.py", "r_task - args.beta * log_ratio", "-args.beta * log_ratio", "tilted 2, 0.5"),
    "tempered sign": ("rloo_tilted.py", "return -log_ratio", "return log_ratio", "tempered 2"),
    "sharpening blunted": ("rloo_sharpen.py", "return logp_base", "return -logp_base", "sharpen"),
    "task reward replaced": ("rloo_task.py", "return r_task", "return logp_base", "task"),
    "own return in the mean": ("rloo_task.py", OTHERS, "groups.mean(1, keepdim=True)", "task"),
    "ascent for descent": ("rloo_task.py", "return -(importance_weight", "return (importance_weight", "task"),
    "advantage dropped": ("rloo_task.py", PRODUCT, "importance_weight * token_logp", "task"),
    "weight dropped": ("rloo_task.py", PRODUCT, "advantages * token_logp", "task"),
    "weight turned round": ("rloo_task.py", RATIO, "(sampler_logp - token_logp.detach())", "task"),
    "weight with gradient": ("rloo_task.py", RATIO, "(token_logp - sampler_logp)", "task"),
}


def with_slip(name: str, old: str, new: str) -> types.ModuleType:
    """The three functions of a script, after replacing `old` in its source."""
    source = (ROOT / name).read_text()
    assert old in source, f"{name} no longer contains {old!r}: update this table"
    tree = ast.parse(source.replace(old, new))
    keep = {"objective", "leave_one_out", "policy_loss"}
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in keep]
    module = types.ModuleType("wrong")
    module.__dict__.update(torch=torch, math=math, Args=object)
    exec(compile(tree, name, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("slip", SLIPS)
def test_a_wrong_sign_or_a_dropped_term_in_a_script_is_seen(slip):
    name, old, new, case = SLIPS[slip]
    module, arguments, value = CASES[case]
    problem, table = Table(False), some_table()
    estimate = expected_estimate(problem, table, with_slip(name, old, new), settings(module, **arguments), 3)
    assert (estimate - exact_gradient(problem, table, value)).abs().max() > 1e-3


# --- what training on it converges to ---------------------------------------------------------------------------------


def train(problem: Table, gradient, steps=1500, learning_rate=0.05) -> torch.Tensor:
    table = problem.base_table.clone()
    optimizer = torch.optim.Adam([table], lr=learning_rate)
    for _ in range(steps):
        table.grad = -gradient(table)
        optimizer.step()
    return table


def total_variation(a: torch.Tensor, b: torch.Tensor) -> float:
    return 0.5 * (a - b).abs().sum().item()


def myopic_law(problem: Table, power: float) -> torch.Tensor:
    """Every token from its own power distribution, renormalised token by token: low-temperature sampling."""
    return problem.probabilities(power * problem.base_table.log_softmax(-1))


def optimum(problem: Table, power: float, beta: float) -> torch.Tensor:
    tilt = torch.zeros_like(problem.r_task) if math.isinf(beta) else problem.r_task / beta
    return torch.softmax(power * problem.logp(problem.base_table) + tilt, 0)


@pytest.mark.parametrize("fixed_length", [False, True])
@pytest.mark.parametrize("case", ["tempered 2", "tilted 2, 0.5"])
def test_tempered_and_tilted_training_end_at_the_optimum_of_the_paper_and_not_at_the_myopic_law(case, fixed_length):
    module, arguments, _ = CASES[case]
    problem, args = Table(fixed_length), settings(module, **arguments)
    table = train(problem, lambda table: expected_estimate(problem, table, module, args, 2), steps=400)
    best = optimum(problem, args.alpha, args.beta)
    assert total_variation(problem.probabilities(table), best) < 0.01
    if math.isinf(args.beta):
        assert total_variation(myopic_law(problem, args.alpha), best) > 0.1


def test_task_training_ends_on_rewarded_responses_and_sharpening_on_the_likeliest():
    problem = Table(False)
    table = train(problem, lambda t: expected_estimate(problem, t, rloo_task, settings(rloo_task), 2), steps=400)
    assert (problem.probabilities(table) * problem.r_task).sum() > 0.99
    table = train(problem, lambda t: expected_estimate(problem, t, rloo_sharpen, settings(rloo_sharpen), 2), steps=400)
    assert problem.probabilities(table)[problem.logp(problem.base_table).argmax()] > 0.99


def test_a_kl_per_token_ends_at_the_myopic_law_instead():
    """The wrong variant: each token is charged its own log-ratio only, as a KL in the loss would do."""
    problem = Table(False)

    def gradient(table):
        table = table.clone().requires_grad_()
        token_logp = problem.token_logp(table)
        token_return = 2 * problem.token_logp(problem.base_table) - token_logp.detach()
        chance = problem.probabilities(table.detach())
        return torch.autograd.grad((chance[:, None] * token_return * token_logp).sum(), table)[0]

    end = problem.probabilities(train(problem, gradient, steps=600))
    assert total_variation(end, myopic_law(problem, 2.0)) < 0.01
    assert total_variation(end, optimum(problem, 2.0, math.inf)) > 0.1


BY_HAND = torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0]), torch.tensor([2, -2, -2, 2, 0, 0, 0, 0]) / 3


def test_leave_one_out_by_hand():
    assert torch.allclose(rloo_tilted.leave_one_out(BY_HAND[0], 4), BY_HAND[1])
    assert rloo_tilted.leave_one_out(torch.zeros(0), 4).shape == (0,)


@pytest.mark.parametrize("old,new", [("(group_size - 1)", "group_size"), ("groups - others", "groups + others")])
def test_a_baseline_that_costs_variance_but_no_bias_is_seen_too(old, new):
    """Any mean of the others leaves the expectation alone, so only the values themselves can tell."""
    wrong = with_slip("rloo_task.py", old, new)
    assert not torch.allclose(wrong.leave_one_out(BY_HAND[0], 4), BY_HAND[1])


def test_the_importance_weight_is_cut_at_the_cap():
    token_logp = torch.tensor([0.0, 0.0], requires_grad=True)
    loss = rloo_tilted.policy_loss(token_logp, torch.tensor([-9.0, -1.0]), torch.tensor([1.0, 1.0]), 20.0)
    assert torch.allclose(torch.autograd.grad(loss, token_logp)[0], -torch.tensor([20.0, math.e]))
