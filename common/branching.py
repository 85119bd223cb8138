"""Runs searches whose responses branch: live prefixes are extended by their likeliest tokens, step by step.

What is done with the tokens is the search's own. It has

    prompt  token ids; room  the most tokens of a response
    beams   live prefixes, lists of response tokens: at first one that is empty, none when the search is over
    step    takes the likeliest next tokens of each live prefix and their log p (nats), two arrays (len(beams), K), best
            first; makes the new `beams`, and gives for each of them the place that its parent had
"""

import itertools
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from common.rollout.transformers import TransformersSampler
from common.rollout.vllm import VLLMSampler


def run_branching(
    sampler: TransformersSampler | VLLMSampler, searches: list, num_tokens: int, num_beams: int
) -> Iterator[list]:
    """Gives lists of searches as they come to their end, until all have.

    num_tokens: K, or the vocabulary where that is smaller; vLLM was started with max_logprobs no less
    num_beams: the most live prefixes of a search; as many searches run at a time as the sampler then has room for

    Raises ValueError if a prompt is empty or leaves no room for a token.
    """
    for i, search in enumerate(searches):
        if not search.prompt or search.room < 1:
            count = f"prompt {i} has {len(search.prompt)} tokens and room for {search.room}"
            raise ValueError(f"{count}: drop it (fit_window) or widen the window")
    at_once = max(1, sampler.capacity(sampler.max_total_tokens) // num_beams)
    if isinstance(sampler, VLLMSampler):
        yield from _run_vllm(sampler, searches, num_tokens, at_once)
    else:
        for first in range(0, len(searches), at_once):
            yield from _run_transformers(sampler, searches[first : first + at_once], num_tokens)


def _run_vllm(sampler: VLLMSampler, searches: list, num_tokens: int, at_once: int) -> Iterator[list]:
    """Each search goes its own pace: it takes a step when all its prefixes are back.

    A live prefix is a request that goes on by itself, greedily. The child by the request's own choice (most are) takes
    it over; any other child is a new request, whose keys and values the engine has in its cache up to the last block;
    a request without an heir is aborted.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = sampler.llm.llm_engine
    waiting, number = iter(searches), itertools.count()
    live: dict = {}  # of a search: the request of each live prefix
    arrived: dict[str, deque] = {}  # of a request: tokens and log p of a step, the chosen token, then the likeliest

    def ask(search, prefix: list[int]) -> str:
        params = SamplingParams(
            temperature=0,
            max_tokens=search.room - len(prefix),
            ignore_eos=True,
            logprobs=min(num_tokens, engine.model_config.get_vocab_size()),
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"branch-{next(number)}"
        engine.add_request(name, {"prompt_token_ids": search.prompt + prefix}, params)
        arrived[name] = deque()
        return name

    try:
        while True:
            for search in itertools.islice(waiting, at_once - len(live)):
                live[search] = [ask(search, [])]
            if not live:
                return
            for output in sampler.step():
                found = output.outputs[0].logprobs
                for i, j in zip(found.start_indices, found.end_indices, strict=True):
                    if output.request_id in arrived:  # else it was aborted meanwhile
                        arrived[output.request_id].append((found.token_ids[i:j], found.logprobs[i:j]))
            for search, names in live.items():
                while names and all(arrived[name] for name in names):
                    tokens, logp = map(np.array, zip(*(arrived[name].popleft() for name in names), strict=True))
                    heirs = zip(search.step(tokens[:, 1:], logp[:, 1:]), search.beams, strict=True)
                    after = [names[i] if prefix[-1] == tokens[i, 0] else ask(search, prefix) for i, prefix in heirs]
                    without_heir = set(names).difference(after)
                    engine.abort_request(list(without_heir))
                    for name in without_heir:
                        del arrived[name]
                    live[search] = names = after
            if ended := [search for search, names in live.items() if not names]:
                for search in ended:
                    del live[search]
                yield ended
    finally:
        engine.abort_request(list(arrived))


@torch.inference_mode()
def _run_transformers(sampler: TransformersSampler, live: list, num_tokens: int) -> Iterator[list]:
    """All searches take every step together; each live prefix is a row of the cache."""
    device, num_tokens = sampler.device, min(num_tokens, sampler.model.config.vocab_size)
    steps = max(search.room for search in live)
    logits, length, mask, cache = sampler._prefill([search.prompt for search in live], steps)
    T = mask.shape[-1] - steps
    for t in range(steps):
        logp, tokens = (x.cpu().numpy() for x in logits.float().log_softmax(-1).topk(num_tokens))
        source, row = [], 0  # of each new live prefix: its parent's row
        for search in live:
            end = row + len(search.beams)
            source += [row + parent for parent in search.step(tokens[row:end], logp[row:end])]
            row = end
        if ended := [search for search in live if not search.beams]:
            yield ended
        live = [search for search in live if search.beams]
        if not live:
            return
        rows = torch.tensor(source, device=device)
        cache.expand(rows)
        mask, length = mask[rows], length[rows]
        chosen = torch.tensor([prefix[-1:] for search in live for prefix in search.beams], device=device)
        logits = sampler._forward(chosen, mask[..., : T + t + 1], length[:, None] + t, cache)
