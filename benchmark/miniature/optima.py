"""The exact optima of the objectives on the miniature, which the trained policies are compared with."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.data import load_problems, render_prompts
from common.rollout import start_sampler
from common.toy import response_kind, toy_path, toy_problems


@dataclass(frozen=True)
class Candidates:
    """Responses (N,) to one problem, from which the optimum of any objective on the base can be estimated."""

    logp: Tensor  # of the base, nats
    log_proposal: Tensor  # 0 for one that was enumerated, log(M q) for one of M drawn from the distribution q
    reward: Tensor
    guessed: Tensor  # 1 for a guess, 0 for work
    length: Tensor  # tokens, up to the first EOS
    enumerated: int  # number of them that were enumerated; they come first


@dataclass(frozen=True)
class Optimum:
    """What an exact optimum is like: the accuracy at each problem, and means over problems."""

    accuracies: list[float]
    guess_share: float
    length: float  # tokens, up to the first EOS
    logp_base: float  # nats a response
    effective_samples: float  # a problem, of the sampled responses; low: do not trust the rest

    @property
    def accuracy(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)


def optimum_weights(logp: Tensor, log_proposal: Tensor, reward: Tensor, alpha: float, beta: float) -> Tensor:
    """Returns each response's probability (N,) under the optimum of an objective, for one problem.

    The optimum of reward - beta KL(pi || base^alpha / Z) is base^alpha exp(reward / beta) / Z' (Eq. 4). beta inf leaves
    the reward out (Eq. 6). beta 0 is the task reward alone (Eq. 3): of its optima, base^alpha on the right responses.
    alpha inf is the single most likely response (Eq. 5). logp (N,) is the base's. log_proposal (N,) is 0 for a response
    that was enumerated and log(M q) for one of M drawn from the distribution q.
    """
    if alpha == math.inf:
        return F.one_hot(logp.argmax(), len(logp)).to(logp)
    log_weight = alpha * logp - log_proposal
    if beta == 0:
        log_weight = log_weight.masked_fill(reward < reward.max(), -math.inf)
    else:
        log_weight = log_weight + reward / beta
    return log_weight.softmax(0)


@torch.no_grad()
def response_logp(model, prompts: list[list[int]], responses: list[list[int]], temperature: float = 1.0) -> Tensor:
    """Returns log p of each response given its prompt (B,), nats; the logits of every token divided by temperature."""
    logps = torch.empty(len(responses), dtype=torch.float64)
    order = sorted(range(len(responses)), key=lambda b: len(prompts[b]) + len(responses[b]))
    for chunk in (order[i : i + 256] for i in range(0, len(order), 256)):
        rows = pad_sequence([torch.tensor(prompts[b] + responses[b]) for b in chunk], batch_first=True)
        logits = model(rows.to(model.device), use_cache=False).logits[:, :-1].double().cpu() / temperature
        token_logp = logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).squeeze(-1)
        for row, b in enumerate(chunk):
            first = len(prompts[b]) - 1
            logps[b] = token_logp[row, first : first + len(responses[b])].sum()
    return logps


def optimum_candidates(
    model,
    tokenizer,
    problems: list[tuple[str, str, str, int]],
    responses: list[list[int]],
    temperature: float = 1.0,
    enumerate_guesses: bool = True,
) -> list[Candidates]:
    """Returns what `true_optimum` needs for each problem: the ten guesses, and the sampled responses that are no guess.

    `responses` are B = P * G lists of token ids (EOS included), group-contiguous, sampled from the base `model` at
    `temperature`; for the optimum of base^alpha, 1 / alpha fits best. For fixed length, pass whole windows
    and enumerate_guesses=False.
    """
    group_size = len(responses) // len(problems)
    guesses = tokenizer([f"\\boxed{{{digit}}}<eos>" for digit in range(10)])["input_ids"] if enumerate_guesses else []
    found = []
    for i, (_, problem, answer, _) in enumerate(problems):
        prompt = tokenizer.encode(problem)
        drawn = [r for r in responses[i * group_size : (i + 1) * group_size] if r not in guesses]
        candidates = guesses + drawn
        repeated = [prompt] * len(candidates)
        log_proposal = response_logp(model, repeated, candidates, temperature) + math.log(group_size)
        log_proposal[: len(guesses)] = 0.0
        ids = [r[: r.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in r else r for r in candidates]
        texts = tokenizer.batch_decode(ids)
        columns = [
            [float(text.endswith(f"\\boxed{{{answer}}}")) for text in texts],
            [float(response_kind(text) == "guess") for text in texts],
            [float(min(len(cut) + 1, len(r))) for cut, r in zip(ids, candidates, strict=True)],
        ]
        logp = response_logp(model, repeated, candidates)
        tensors = torch.tensor(columns, dtype=torch.float64).unbind()
        found.append(Candidates(logp, log_proposal, *tensors, enumerated=len(guesses)))
    return found


def true_optimum(candidates: list[Candidates], alpha: float, beta: float = math.inf) -> Optimum:
    """Returns what the exact optimum of an objective on the base is like; alpha and beta as in `optimum_weights`.

    Enumerated responses count with their probabilities; the rest is self-normalised importance sampling.

    Every problem has its own optimum. With a reward that one knows which guess is right, which no trained policy can:
    read guess_share beside accuracy, above all on hard problems.
    """
    rows = []
    for problem in candidates:
        weights = optimum_weights(problem.logp, problem.log_proposal, problem.reward, alpha, beta)
        sampled = weights[problem.enumerated :]
        effective = sampled.sum() ** 2 / sampled.square().sum().clamp_min(1e-300)
        columns = (problem.reward, problem.guessed, problem.length, problem.logp)
        rows.append(torch.stack([*((weights * column).sum() for column in columns), effective]))
    table = torch.stack(rows)
    return Optimum(table[:, 0].tolist(), *table[:, 1:].mean(0).tolist())


def compute_optima(folder: Path, objectives_of: dict, problems: int = 200, samples: int = 48) -> dict[str, dict]:
    """The exact optimum of every objective on its base, by name: from 48 responses a problem, sampled at a temperature
    near the optimum's, and the ten guesses, which are enumerated.

    objectives_of: {(base, level, fixed length): {name: (alpha, beta)}}; a base is toy or a model in `folder`
    """
    found = {}
    for (base, level, fixed), objectives in objectives_of.items():
        path = toy_path() if base == "toy" else (folder / base).resolve()
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        window = 96 if level == "toy_hard" else 64
        sampler = start_sampler("transformers", path, window, max_num_seqs=1024)
        chosen = load_problems(f"{level}_test")[:problems]
        rendered = render_prompts(tokenizer, chosen, "common/prompts/bare.txt")
        for temperature in sorted({1 / min(alpha, 4.0) for alpha, _ in objectives.values()}):
            rollout = sampler.generate(rendered, samples, window, seed=1, temperature=temperature, fixed_length=fixed)
            candidates = optimum_candidates(
                model, tokenizer, toy_problems(level, "test")[:problems], rollout.responses, temperature, not fixed
            )
            for name, (alpha, beta) in objectives.items():
                if temperature == 1 / min(alpha, 4.0):
                    best = asdict(true_optimum(candidates, alpha, beta))
                    best["accuracies"] = dict(zip([p.id for p in chosen], best["accuracies"], strict=True))
                    found[name] = best
            print(f"optima: {base}, {level}, {'fixed' if fixed else 'variable'}, T = {temperature:g}", flush=True)
    return found
