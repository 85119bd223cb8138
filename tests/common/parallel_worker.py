"""One process of test_parallel.py: rloo_tilted.main on recorded responses; rank 0 writes gradients and parameters."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # conftest

import common.run.metrics
import rloo_tilted
from common.grading import Verdict
from common.logprob import full_tensor
from common.rollout import Rollout
from common.run import parse


class RecordedSampler:
    """Tokens that are a function of step, problem and sample; some problems get far longer responses than others."""

    stop_ids = (1,)

    def generate(self, prompts, n, max_total_tokens, seed, step, problem_ids, fixed_length):
        responses, logp = [], []
        for problem in problem_ids:
            for sample in range(n):
                number = int(problem.removeprefix("p"))
                draw = np.random.default_rng([seed, step, number, sample])
                tokens = draw.integers(
                    2, 60, size=draw.integers(1, 4) if number < 4 else draw.integers(30, 60)
                ).tolist()
                responses.append(tokens + [1])
                logp.append(draw.normal(-4, 0.3, size=len(tokens) + 1).tolist())
        return Rollout(prompts, responses, logp, [True] * len(responses), n)

    def push(self, named_tensors):
        list(named_tensors)

    def sleep(self):
        pass

    def close(self):
        pass


class RecordedGrader:
    def __init__(self, *_):
        pass

    def grade(self, texts, problems):
        return [Verdict(len(text) % 2 == 0, False, None, False) for text in texts]

    def close(self):
        pass


def train(arguments: list[str], local_denominator: bool) -> dict:
    """Runs rloo_tilted.main; gives the whole gradient of every step, before clipping, and the parameters at the end."""
    gradients, policies = [], []
    clip, load, rollout = torch.nn.utils.clip_grad_norm_, rloo_tilted.load_model, rloo_tilted.Metrics.rollout

    def recording_clip(parameters, max_norm):
        gradients.append([full_tensor(p.grad).clone() for p in parameters])
        return clip(parameters, max_norm)

    def remembering_load(*args, **kwargs):
        policies.append(load(*args, **kwargs))
        return policies[-1]

    def local_tokens(self, batch, vocab_size):  # the wrong variant: each rank divides by its own tokens
        rollout(self, batch, vocab_size)
        return torch.distributed.get_world_size() * sum(len(response) for response in batch.responses)

    torch.nn.utils.clip_grad_norm_, rloo_tilted.load_model = recording_clip, remembering_load
    rloo_tilted.Metrics.rollout = local_tokens if local_denominator else rollout
    rloo_tilted.main(parse(rloo_tilted.Args, arguments))
    torch.nn.utils.clip_grad_norm_, rloo_tilted.load_model, rloo_tilted.Metrics.rollout = clip, load, rollout
    return {"gradients": gradients, "parameters": [full_tensor(p.detach()) for p in policies[0].parameters()]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rloo_tilted.start_sampler = lambda *_, **__: RecordedSampler()
    rloo_tilted.Grader = RecordedGrader
    rloo_tilted.validate = lambda *_: {}
    common.run.metrics.MOST_DISAGREEMENT = math.inf  # recorded log-probabilities are nobody's
    results = {name: train(sys.argv[2:], name == "wrong") for name in ("right", "wrong")}
    if torch.distributed.get_rank() == 0:
        torch.save(results, sys.argv[1])
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, still there when the interpreter takes itself apart, now and then abort the process
