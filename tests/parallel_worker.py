"""One process of test_parallel.py: rloo_tilted.main on recorded responses; rank 0 writes gradients and parameters."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

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
                number = int(problem.split("-")[-1])
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


class RecordedGrader:
    def __init__(self, *_):
        pass

    def grade(self, texts, problems):
        return [Verdict(len(text) % 2 == 0, False, None, False) for text in texts]

    def close(self):
        pass


def main(out: str, variant: str, arguments: list[str]) -> None:
    record = []
    clip = torch.nn.utils.clip_grad_norm_

    def recording_clip(parameters, max_norm):
        record.append([full_tensor(p.grad).clone() for p in parameters])
        return clip(parameters, max_norm)

    torch.nn.utils.clip_grad_norm_ = recording_clip
    rloo_tilted.start_sampler = lambda *_, **__: RecordedSampler()
    rloo_tilted.Grader = RecordedGrader
    rloo_tilted.validate = lambda *_: {}
    load, policies = rloo_tilted.load_model, []

    def remembering_load(*args, **kwargs):
        policies.append(load(*args, **kwargs))
        return policies[-1]

    rloo_tilted.load_model = remembering_load
    if variant == "normalise per rank":  # the wrong variant: each rank divides by its own tokens
        rollout = rloo_tilted.Metrics.rollout

        def local(self, batch, vocab_size):
            rollout(self, batch, vocab_size)
            return torch.distributed.get_world_size() * sum(len(response) for response in batch.responses)

        rloo_tilted.Metrics.rollout = local
    torch.set_num_threads(1)
    rloo_tilted.main(parse(rloo_tilted.Args, arguments))
    parameters = [full_tensor(p.detach()) for p in policies[0].parameters()]
    if torch.distributed.get_rank() == 0:
        torch.save({"gradients": record, "parameters": parameters}, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
