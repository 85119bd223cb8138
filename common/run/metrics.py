"""The figures of a training step: what each one means, and how they are collected over micro-batches and ranks."""

import math
import time
from collections import defaultdict
from contextlib import contextmanager

import torch
import torch.distributed as dist

from common.rollout import Rollout

# Every figure that the scripts log, and what it is; a test compares this table with what they log. A copied script may
# add figures of its own without a line here.
METRICS = {
    "objective/return": "mean return of the responses (nats, or task reward; what is maximised)",
    "objective/task_reward": "mean task reward of a response; by default 1 if --reward-verdict calls it right, else 0",
    "objective/strict_reward": "share of responses that the strict verdict calls right, whichever verdict pays",
    "objective/logp_base": "mean log pi_base of a response, nats",
    "objective/kl_base": "mean log pi_theta - log pi_base of a response, nats: estimates KL(policy || base)",
    "policy/nll": "mean -log pi_theta of the sampled tokens, nats per token",
    "policy/entropy": "mean entropy of the next-token distribution over the whole vocabulary, nats per token",
    "policy/response_length": "mean response length, tokens, the stop token included",
    "policy/terminated_frac": "fraction of responses that reached a stop token",
    "losses/policy_loss": "the loss that was differentiated (its value means little; its gradient is the estimator)",
    "losses/grad_norm": "L2 norm of the gradient before clipping",
    "sampling/importance_weight_mean": "mean over tokens of pi_theta / pi_sampler, before truncation",
    "sampling/importance_weight_max": "largest pi_theta / pi_sampler of a token, before truncation",
    "sampling/logp_difference_mean": "mean over tokens of |log pi_theta - log pi_sampler|, nats",
    "sampling/out_of_vocabulary_frac": "fraction of sampled tokens that the tokenizer lacks (padded vocabularies)",
    "sampling/skipped_frac": "fraction of groups without a backward pass: all their advantages are exactly zero",
    "charts/learning_rate": "learning rate of the step",
    "charts/tokens_per_second": "response tokens of the step / time/step",
    "charts/mfu": "6 x parameters x tokens / time/train / GPU peak, each prompt counted once; known GPUs only",
    "time/rollout": "seconds sampling",
    "time/grade": "seconds grading",
    "time/train": "seconds for log-probabilities, loss, backward pass and optimizer",
    "time/sync": "seconds waking the sampler and pushing weights",
    "time/step": "seconds of the whole step, without validation and checkpoints",
    "eval/<dataset>/pass_at_1": "validation: fraction of problems answered correctly, one response each; `_se`: error",
    "eval/<dataset>/response_length": "validation: mean response length, tokens; `_se`: standard error",
    "eval/authors": "validation accuracy as the authors chose checkpoints by (for math it includes MATH-500)",
    "eval/held_out": "validation accuracy on problems that no reported set contains",
}

# The mean difference between the sampler's and the trainer's log-probabilities, in nats a token, that rounding cannot
# explain: on a CPU in float32 it is below 1e-4 (tests/scripts/test_training_vllm.py), and the GPU tests allow 0.03 in
# bfloat16.
MOST_DISAGREEMENT = 0.5

# Peak of dense bfloat16 arithmetic in FLOP/s, from the makers' data sheets, for charts/mfu.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def gather(items: list) -> list:
    """Returns the lists of all ranks joined in rank order, on every rank; a collective."""
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class Metrics:
    """Collects the figures of one step over micro-batches; `reduce` joins those of all ranks.

    Values are added under a name like "policy/entropy", which is where curves show them: `add_mean` for a mean over all
    values, `add_sum` for a sum and `add_max` for a maximum. Any name may be used."""

    def __init__(self, step: int):
        self.step = step
        self.batch: list = []  # the problems of the step, which errors name
        self.sums: dict[str, torch.Tensor | float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.maxima: dict[str, torch.Tensor] = {}
        self.watched: list[tuple[str, torch.Tensor, list[str]]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.start = time.perf_counter()

    def add_mean(self, key: str, values: torch.Tensor | list) -> None:
        """Adds values, of any shape; the figure is their mean over the step and all ranks."""
        values = torch.as_tensor(values).double()
        self.sums[key] += values.sum()
        self.counts[key] += values.numel()

    def add_sum(self, key: str, value: torch.Tensor | float) -> None:
        """Adds a number; the figure is the sum over the step and all ranks."""
        self.sums[key] += value

    def add_max(self, key: str, values: torch.Tensor) -> None:
        """Adds values, of any shape; the figure is their maximum over the step and all ranks."""
        if values.numel():
            largest = values.max()
            self.maxima[key] = torch.maximum(self.maxima.get(key, largest), largest)

    def watch(self, name: str, value: torch.Tensor, problem_ids: list[str]) -> None:
        """Notes a scalar that must be finite, and the problems it was computed from, for `stop_unless_finite`."""
        self.watched.append((name, value.detach(), problem_ids))

    def stop_unless_finite(self) -> None:
        """Raises FloatingPointError that names the problems of the first watched value that is not finite, before a bad
        gradient reaches the weights. The host waits for the GPU here, once a step."""
        values = torch.stack([value.double() for _, value, _ in self.watched]).tolist()
        for value, (name, _, problem_ids) in zip(values, self.watched, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(f"the {name} is {value}, of problems {', '.join(problem_ids)}.")

    @contextmanager
    def time(self, key: str):
        """Adds the seconds that the block takes to time/<key>. Waits for the GPU at the end, so that its work counts
        for the phase that asked for it."""
        start = time.perf_counter()
        with self._noting(key):
            yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[f"time/{key}"] += time.perf_counter() - start

    @contextmanager
    def pause(self):
        """Leaves the seconds of the block, in which a step validates and saves, out of time/step."""
        start = time.perf_counter()
        with self._noting("validation"):
            yield
        self.start += time.perf_counter() - start

    @contextmanager
    def _noting(self, phase: str):
        """Adds a note to an error that says in which step and phase it happened, and with which problems."""
        try:
            yield
        except Exception as error:
            problems = f", problems {', '.join(problem.id for problem in self.batch)}" if self.batch else ""
            error.add_note(f"step {self.step}, {phase}{problems}")
            raise

    def tokens(self, token_logp: torch.Tensor, entropy: torch.Tensor, sampler_logp: torch.Tensor) -> None:
        """Adds the figures of response tokens: log-probability under the policy, entropy of its next-token distribution
        and log-probability under the sampler, each (N,), nats."""
        ratio = (token_logp - sampler_logp).exp()
        self.add_mean("policy/nll", -token_logp)
        self.add_mean("policy/entropy", entropy)
        self.add_mean("sampling/importance_weight_mean", ratio)
        self.add_max("sampling/importance_weight_max", ratio)
        self.add_mean("sampling/logp_difference_mean", (token_logp - sampler_logp).abs())
        for key, value in sampler_check(token_logp, entropy).items():
            self.sums[key] += value

    def rollout(self, rollout: Rollout, vocab_size: int) -> int:
        """Adds the figures of a rollout's lengths. Returns the number of its response tokens over all ranks."""
        lengths = [len(response) for response in rollout.responses]
        self.add_mean("policy/response_length", lengths)
        self.add_mean("policy/terminated_frac", rollout.finished)
        self.sums["sampling/out_of_vocabulary_frac"] += rollout.out_of_vocabulary(vocab_size)
        self.counts["sampling/out_of_vocabulary_frac"] += sum(lengths)
        self.sums["packed_tokens"] += sum(lengths) + sum(len(prompt) for prompt in rollout.prompts)
        return sum(gather([sum(lengths)]))

    def reduce(self, policy: torch.nn.Module) -> dict[str, float]:
        """Returns the figures of the step, the same on every rank; seconds are those of the slowest rank. A figure that
        is NaN was not computed, and is left out. Raises RuntimeError if sampler and trainer assign very different
        log-probabilities to the tokens."""
        self.seconds["time/step"] = time.perf_counter() - self.start
        parts = [{k: float(v) for k, v in x.items()} for x in (self.sums, self.counts, self.maxima, self.seconds)]
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        figures: dict[str, float] = {}
        for part_sums, part_counts, *largest in gather([parts]):
            for key, value in part_sums.items():
                sums[key] += value
                counts[key] += part_counts.get(key, 0)
            for key, value in (largest[0] | largest[1]).items():
                figures[key] = max(figures.get(key, -math.inf), value)
        packed_tokens = sums.pop("packed_tokens", 0)
        warn_of_sampler(self.step, {key: sums.pop(key, 0.0) for key in SAMPLER_CHECK})
        figures["charts/tokens_per_second"] = sums["policy/response_length"] / figures["time/step"]
        if torch.cuda.is_available():
            peak = next((flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
            if peak:
                flops = 6 * sum(p.numel() for p in policy.parameters()) * packed_tokens / dist.get_world_size()
                figures["charts/mfu"] = flops / figures["time/train"] / peak
        figures |= {key: value / (counts[key] or 1) for key, value in sums.items()}
        with self._noting("train"):
            stop_unless_agreed(figures.get("sampling/logp_difference_mean", 0.0))
        return {key: value for key, value in figures.items() if not math.isnan(value)}


# --- is the sampler's distribution the policy's? ----------------------------------------------------------------------

# Sums over the tokens of a step, see `sampler_check`; of all ranks together.
SAMPLER_CHECK = ("check/surprise", "check/variance", "check/expected_variance")

# Standard errors by which policy/nll and policy/entropy may differ; chance exceeds 4 about once in 16,000 steps.
MOST_STANDARD_ERRORS = 4.0


def sampler_check(token_logp: torch.Tensor, entropy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns sums over the tokens from which `standard_errors` tells whether the tokens were drawn from the policy.
    token_logp and entropy are (N,), in nats.

    Given the tokens before it, a token drawn from the policy has -log p with mean equal to the entropy H. So the
    differences d = -log p - H are martingale differences: they are uncorrelated, and the variance of their sum is the
    sum of their variances, estimated by d^2. Where the policy is nearly certain, the variance is that of rare
    surprises, which a step may not contain. There H (1 - log H) estimates it, which is near the variance of -log p if a
    token has one rare alternative.
    """
    difference, h = (-token_logp - entropy).double(), entropy.double().clamp(min=0)
    expected = h * (1 - h.clamp(max=1).log())
    sums = difference.sum(), difference.square().sum(), torch.where(h > 0, expected, h).sum()
    return dict(zip(SAMPLER_CHECK, sums, strict=True))


def standard_errors(sums: dict[str, float]) -> float:
    """Returns by how many standard errors the mean -log p of the tokens exceeds the mean entropy."""
    surprise, *variances = (float(sums[key]) for key in SAMPLER_CHECK)
    return surprise / math.sqrt(max(variances)) if max(variances) > 0 else 0.0


def warn_of_sampler(step: int, sums: dict[str, float]) -> None:
    """Prints a warning if the tokens of a step were not drawn from the policy."""
    errors = standard_errors(sums)
    if abs(errors) > MOST_STANDARD_ERRORS and dist.get_rank() == 0:
        print(
            f"warning: step {step}: policy/nll and policy/entropy differ by {errors:.1f} standard errors, so the "
            "tokens were not drawn from the policy. Below zero: sampling is truncated (top-p, top-k) or its "
            "temperature is below 1. Above zero: its temperature is above 1, or the sampler has other weights.",
            flush=True,
        )


def stop_unless_agreed(difference: float) -> None:
    """Raises RuntimeError if the mean difference, nats a token, can only come from a fault in sampler or trainer."""
    if difference > MOST_DISAGREEMENT:
        raise RuntimeError(
            f"sampler and trainer differ by {difference:.2f} nats a token, more than {MOST_DISAGREEMENT}: one of them "
            "has other weights or computes something else. Compare with --sampler transformers or --dtype float32."
        )
