"""The figures of a step: what they mean, and how micro-batches and ranks make them up."""

import math
import time
from collections import defaultdict
from contextlib import contextmanager

import torch
import torch.distributed as dist

from common.rollout import Rollout

# Every figure a run logs, and what it is. README shows this table; a test keeps it equal to what the scripts log.
METRICS = {
    "objective/return": "mean return of the responses (nats, or task reward; what is maximised)",
    "objective/task_reward": "mean task reward of a response; by default 1 if --reward-verdict calls it right, else 0",
    "objective/strict_reward": "share of responses that the strict verdict calls right, whichever verdict pays",
    "objective/logp_base": "mean log pi_base of a response, nats",
    "objective/kl_base": "mean log pi_theta - log pi_base of a response, nats: estimates KL(policy || base)",
    "policy/nll": "mean -log pi_theta of the sampled tokens, nats per token",
    "policy/entropy": "mean entropy of the next-token distribution over the whole vocabulary, nats per token",
    "policy/response_length": "mean response length, tokens, the stop token included",
    "policy/terminated_frac": "share of responses that reached a stop token",
    "losses/policy_loss": "the loss that was differentiated (its value means little; its gradient is the estimator)",
    "losses/grad_norm": "L2 norm of the gradient before clipping",
    "sampling/importance_weight_mean": "mean over tokens of pi_theta / pi_sampler, before truncation",
    "sampling/importance_weight_max": "largest pi_theta / pi_sampler of a token, before truncation",
    "sampling/logp_difference_mean": "mean over tokens of |log pi_theta - log pi_sampler|, nats",
    "sampling/out_of_vocabulary_frac": "share of sampled tokens that the tokenizer does not have (padded vocabularies)",
    "sampling/skipped_frac": "share of groups without a backward pass, all their advantages being exactly zero",
    "charts/learning_rate": "learning rate of the step",
    "charts/tokens_per_second": "response tokens of the step by its seconds",
    "charts/mfu": "6 by parameters by tokens (a prompt's once) by time/train, of the GPU's bf16 peak; known GPUs only",
    "time/rollout": "seconds sampling",
    "time/grade": "seconds grading",
    "time/train": "seconds in log-probabilities, loss, backward and optimizer",
    "time/sync": "seconds waking the sampler and pushing weights",
    "time/step": "seconds of the whole step, validation and checkpoints left out",
    "eval/<dataset>/pass_at_1": "validation: share of responses graded right, one a problem; `_se`: standard error",
    "eval/<dataset>/response_length": "validation: mean response length, tokens; `_se`: standard error",
    "eval/authors": "validation accuracy that the authors' selection goes by (for math: MATH-500 is in it)",
    "eval/held_out": "validation accuracy on problems that no reported set contains",
}

# Mean difference of the sampler's and the trainer's log-probabilities, nats a token, that rounding does not make: in
# float32 on a CPU it is below 1e-4 (tests/scripts/test_training_vllm.py), and the GPU tests allow 0.03 in bfloat16.
MOST_DISAGREEMENT = 0.5

# Dense bf16 peak by the makers' data sheets, FLOP/s, for charts/mfu.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def gather(items: list) -> list:
    """Every rank's list, in rank order, joined, on every rank."""
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class Metrics:
    """The figures of a step, collected over micro-batches and ranks."""

    def __init__(self, step: int):
        self.step, self.batch = step, []  # the problems of the step, for what goes wrong with them
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.maxima: dict[str, torch.Tensor] = {}
        self.watched: list[tuple[str, torch.Tensor, list[str]]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.start = time.perf_counter()

    def mean(self, key: str, values: torch.Tensor | list) -> None:
        """Adds values whose mean, over the step and all ranks, is the figure."""
        values = torch.as_tensor(values).double()
        self.sums[key] += values.sum()
        self.counts[key] += values.numel()

    def sum(self, key: str, value: torch.Tensor | float) -> None:
        """Adds a part of a figure that is a sum over the step and all ranks."""
        self.sums[key] += value

    def max(self, key: str, values: torch.Tensor) -> None:
        """Adds values whose largest, over the step and all ranks, is the figure."""
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
        """Adds the seconds of the block to time/<key>; waits for the GPU, so that no phase pays for another."""
        start = time.perf_counter()
        with self._noting(key):
            yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[f"time/{key}"] += time.perf_counter() - start

    @contextmanager
    def pause(self):
        """Leaves the block, which validates and saves, out of time/step."""
        start = time.perf_counter()
        with self._noting("validation"):
            yield
        self.start += time.perf_counter() - start

    @contextmanager
    def _noting(self, phase: str):
        """Says of an error where in the run it happened."""
        try:
            yield
        except Exception as error:
            problems = f", problems {', '.join(problem.id for problem in self.batch)}" if self.batch else ""
            error.add_note(f"step {self.step}, {phase}{problems}")
            raise

    def tokens(self, token_logp: torch.Tensor, entropy: torch.Tensor, sampler_logp: torch.Tensor) -> None:
        """Adds what is logged of response tokens, all (N,), nats."""
        ratio = (token_logp - sampler_logp).exp()
        self.mean("policy/nll", -token_logp)
        self.mean("policy/entropy", entropy)
        self.mean("sampling/importance_weight_mean", ratio)
        self.max("sampling/importance_weight_max", ratio)
        self.mean("sampling/logp_difference_mean", (token_logp - sampler_logp).abs())

    def rollout(self, rollout: Rollout, vocab_size: int) -> int:
        """Adds what a rollout says of itself; gives the number of its response tokens, over all ranks."""
        lengths = [len(response) for response in rollout.responses]
        self.mean("policy/response_length", lengths)
        self.mean("policy/terminated_frac", rollout.finished)
        self.sums["sampling/out_of_vocabulary_frac"] += rollout.out_of_vocabulary(vocab_size)
        self.counts["sampling/out_of_vocabulary_frac"] += sum(lengths)
        self.sums["packed_tokens"] += sum(lengths) + sum(len(prompt) for prompt in rollout.prompts)
        return sum(gather([sum(lengths)]))

    def reduce(self, policy: torch.nn.Module) -> dict[str, float]:
        """The figures of the step, the same on every rank; seconds are those of the slowest rank. A figure that was not
        computed is NaN and left out: a missing value is missing. Raises RuntimeError where sampler and trainer are not
        of one mind about the tokens."""
        self.seconds["time/step"] = time.perf_counter() - self.start
        parts = [{k: float(v) for k, v in x.items()} for x in (self.sums, self.counts, self.maxima, self.seconds)]
        sums, counts, figures = defaultdict(float), defaultdict(float), {}
        for part_sums, part_counts, *largest in gather([parts]):
            for key, value in part_sums.items():
                sums[key] += value
                counts[key] += part_counts.get(key, 0)
            for key, value in (largest[0] | largest[1]).items():
                figures[key] = max(figures.get(key, -math.inf), value)
        packed_tokens = sums.pop("packed_tokens")
        figures["charts/tokens_per_second"] = sums["policy/response_length"] / figures["time/step"]
        if torch.cuda.is_available():
            peak = next((flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
            if peak:
                flops = 6 * sum(p.numel() for p in policy.parameters()) * packed_tokens / dist.get_world_size()
                figures["charts/mfu"] = flops / figures["time/train"] / peak
        figures |= {key: value / (counts[key] or 1) for key, value in sums.items()}
        with self._noting("train"):
            stop_unless_agreed(figures["sampling/logp_difference_mean"])
        return {key: value for key, value in figures.items() if not math.isnan(value)}


def stop_unless_agreed(difference: float) -> None:
    """Raises RuntimeError before a sampler or an attention that is wrong makes more than a step of a run."""
    if difference > MOST_DISAGREEMENT:
        raise RuntimeError(
            f"sampler and trainer differ by {difference:.2f} nats a token, more than {MOST_DISAGREEMENT}: one of them "
            "has other weights or computes something else. Compare with --sampler transformers or --dtype float32."
        )
