"""What a training step should take on one H100 80 GB, phase by phase: a table to hold a measured step against.

    python -m benchmark.speed.predict --shape qwen2.5-3b --prompt 118 --response 512 --batch 256

Nothing is run. Each line multiplies a count (tokens, FLOPs, bytes) by a rate that was measured once, an anchor. The
anchors were taken on one H100 with the shape of Qwen2.5-3B and random weights, torch 2.11, vLLM 0.26, one run each.
Other shapes are scaled: arithmetic by the number of parameters, reading by bytes, the engine's own work by sequences. A
range has the anchors of a favourable and of a less favourable setting at its ends. `limit` is what arithmetic or memory
alone would need, at 798 TFLOP/s in bf16 matrix products and 2.94 TB/s. Grading goes on in other processes, and random
tokens cost nothing to grade: it has no line.

What would bring 12 s, on paper, for 256 x (118 + 512): the favourable ends add up to 14.1 s. A decoding step takes 8.4
ms, of which 3.3 are reading; at 4.5 ms, which is what 64 sequences take, 2.0 s are saved. Compiled layers gave the
training pass 8 %; if they give the base's forward pass as much, 0.2 s. That leaves 11.9 s. What remains large is the
training pass, which takes 2.3 times its limit. Storing the activations of every second layer instead of
recomputing them was measured, in passes half as long, and gained nothing (19,050 tokens/s).
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from benchmark.speed.random_model import SHAPES, config_of
from benchmark.speed.trl_step import GROUP
from common.rollout import kv_token_bytes
from common.run.memory import count_parameters


@dataclass
class Args:
    shape: Literal[tuple(SHAPES)] = "qwen2.5-3b"
    """model, see benchmark/speed/random_model.py"""
    prompt: int = 118
    """tokens of a prompt"""
    response: int = 512
    """tokens of a response"""
    batch: int = 256
    """responses a step, in groups of 8"""


@dataclass
class Phase:
    """A phase of a step: seconds at the favourable and the less favourable anchor, and by the hardware's limits."""

    name: str
    count: str  # what was counted
    anchor: str  # what was measured
    low: float
    high: float
    limit: float


ANCHOR_SHAPE, ANCHOR_PROMPT, ANCHOR_RESPONSE = "qwen2.5-3b", 118, 512
MATMUL, BANDWIDTH = 798e12, 2.94e12  # FLOP/s; bytes/s: 6.17 GB of weights in 2.1 ms
# Tokens a second of one pass, parameters of the anchor's shape.
FORWARD = 58_000
TRAIN = (19_150, 17_700)  # whole layers compiled; MLPs and norms only
# Decoded tokens a second: (sequences, without log-probabilities, with one dict of them a token).
DECODE = ((64, 14_500, 12_900), (256, 30_300, 23_000))
WAKE_AND_PUSH, SLEEP = (0.21, 0.35), (0.06, 0.16)  # seconds, with sleep(2) and sleep(1)
OPTIMIZER = 0.06  # seconds, clipping and AdamW


def reading(config, prompt: int, response: int, batch: int) -> float:
    """Seconds in which a decoding step reads all weights and the keys and values of `batch` half-done responses."""
    keys_and_values = batch * (prompt + response / 2) * kv_token_bytes(config, 2)
    return (2 * count_parameters(config) + keys_and_values) / BANDWIDTH


def engine_work(batch: int, which: int) -> float:
    """Seconds of a decoding step that are not reading, by a line through the two anchors; never negative."""
    anchor = config_of(ANCHOR_SHAPE)
    (few, *few_rates), (many, *many_rates) = DECODE
    at_few = few / few_rates[which] - reading(anchor, ANCHOR_PROMPT, ANCHOR_RESPONSE, few)
    at_many = many / many_rates[which] - reading(anchor, ANCHOR_PROMPT, ANCHOR_RESPONSE, many)
    return max(0.0, at_few + (batch - few) * (at_many - at_few) / (many - few))


def predict(args: Args) -> list[Phase]:
    """The phases of a step in their order; grading, which runs in other processes, is left out."""
    config = config_of(args.shape)
    parameters = count_parameters(config)
    scale = parameters / count_parameters(config_of(ANCHOR_SHAPE))
    prompts, responses = args.batch // GROUP * args.prompt, args.batch * args.response
    packed = prompts + responses  # a prompt passes once for its group
    read = reading(config, args.prompt, args.response, args.batch)
    decode = [args.response * (read + engine_work(args.batch, which)) for which in (0, 1)]
    copies = 3 * 2 * parameters / BANDWIDTH  # the float32 weights are read, and bf16 ones written
    return [
        Phase(
            "sync", f"{2 * parameters / 1e9:.2f} GB of weights",
            f"wake and push {WAKE_AND_PUSH[0]}-{WAKE_AND_PUSH[1]} s, sleep {SLEEP[0]}-{SLEEP[1]} s",
            scale * (WAKE_AND_PUSH[0] + SLEEP[0]), scale * (WAKE_AND_PUSH[1] + SLEEP[1]), copies,
        ),
        Phase(
            "rollout: prefill", f"{prompts:,} prompt tokens", f"forward {FORWARD:,} tokens/s",
            scale * prompts / FORWARD, scale * prompts / FORWARD, 2 * parameters * prompts / MATMUL,
        ),
        Phase(
            "rollout: decode", f"{args.response} steps of {args.batch}",
            f"256: {DECODE[1][1]:,} tokens/s without log-probabilities, {DECODE[1][2]:,} with a dict a token",
            *decode, args.response * read,
        ),
        Phase(
            "base", f"{packed:,} packed tokens", f"forward {FORWARD:,} tokens/s",
            scale * packed / FORWARD, scale * packed / FORWARD, 2 * parameters * packed / MATMUL,
        ),
        Phase(
            "train", f"{packed:,} packed tokens",
            f"FSDP2, checkpointed: whole layers compiled {TRAIN[0]:,} tokens/s, MLPs and norms {TRAIN[1]:,}",
            *(scale * packed / rate for rate in TRAIN), 6 * parameters * packed / MATMUL,
        ),
        Phase(
            "optimizer", f"{parameters / 1e9:.2f} B parameters", f"clipping and AdamW {OPTIMIZER} s",
            scale * OPTIMIZER, scale * OPTIMIZER, 32 * parameters / BANDWIDTH,
        ),
    ]  # fmt: skip


def table(phases: list[Phase]) -> str:
    """The phases and their sum, as Markdown."""
    total = Phase("step", "", "", *(sum(getattr(p, name) for p in phases) for name in ("low", "high", "limit")))
    lines = ["| phase | counted | anchor | expected s | limit s |", "|-|-|-|-|-|"]
    for p in [*phases, total]:
        span = f"{p.low:.2f}" if f"{p.low:.2f}" == f"{p.high:.2f}" else f"{p.low:.2f}-{p.high:.2f}"
        lines.append(f"| {p.name} | {p.count} | {p.anchor} | {span} | {p.limit:.2f} |")
    return "\n".join(lines)


def main(args: Args) -> None:
    if args.batch % GROUP or min(args.batch, args.prompt, args.response) < 1:
        raise ValueError(f"--batch must be a multiple of {GROUP}, and all sizes at least 1.")
    print(f"{args.shape}, {args.batch} x ({args.prompt} + {args.response}), one H100 80 GB, not measured:\n")
    print(table(predict(args)))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
