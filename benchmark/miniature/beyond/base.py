"""What is known exactly about the miniature's base: P(right) of each problem, and its powers pi_base^alpha.

The ten guesses are enumerated; of the other responses there are samples, from which sums over all responses are
estimated by importance sampling (benchmark/miniature/optima.py).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmark.miniature.optima import Candidates, optimum_candidates, optimum_weights, response_logp
from benchmark.report.results import ResultsFile
from common.data import load_problems, render_prompts
from common.rollout import start_sampler
from common.toy import toy_path, toy_problems

WINDOWS = {"toy": 64, "toy_hard": 96}
ALPHAS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, math.inf)
PROBLEMS, SAMPLES = 100, 192  # test problems, and responses to each of them


@cache
def candidates(level: str, temperature: float) -> list[Candidates]:
    """Returns responses to the first test problems of a level, sampled at a temperature, see optima.py."""
    path = toy_path()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    window = WINDOWS[level]
    sampler = start_sampler("transformers", path, window, max_num_seqs=1024)
    prompts = render_prompts(tokenizer, load_problems(f"{level}_test")[:PROBLEMS], "common/prompts/bare.txt")
    rollout = sampler.generate(prompts, SAMPLES, window, seed=1, temperature=temperature)
    problems = toy_problems(level, "test")[:PROBLEMS]
    return optimum_candidates(model, tokenizer, problems, rollout.responses, temperature)


@dataclass
class Law:
    """Means over problems of a distribution over responses, each with its standard error over problems."""

    accuracy: tuple[float, float]  # per cent
    kl: tuple[float, float]  # to the base, nats a response
    log_z: tuple[float, float]  # log sum_y pi_base(y)^alpha exp(r(y) / beta); NaN for alpha inf


def estimate(values: list[float]) -> tuple[float, float]:
    """Returns the mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def optimum(level: str, alpha: float, beta: float = math.inf) -> Law:
    """Returns what pi_base^alpha exp(r / beta) / Z is like (Eq. 4), and the likeliest response for alpha inf. Its KL to
    the base is the mean of log pi* - log pi_base under pi* itself."""
    accuracy, kl, log_zs = [], [], []
    for problem in candidates(level, 1 / min(alpha, 4.0)):
        weights = optimum_weights(problem.logp, problem.log_proposal, problem.reward, alpha, beta)
        accuracy.append(100 * float((weights * problem.reward).sum()))
        if alpha == math.inf:
            kl.append(-float(problem.logp.max()))
            log_zs.append(math.nan)
            continue
        log_weight = alpha * problem.logp + (problem.reward / beta if beta < math.inf else 0)
        log_z = float(torch.logsumexp(log_weight - problem.log_proposal, 0))
        kl.append(float((weights * (log_weight - log_z - problem.logp)).sum()))
        log_zs.append(log_z)
    return Law(estimate(accuracy), estimate(kl), estimate(log_zs))


def temperature_kl(level: str, temperature: float) -> tuple[float, float]:
    """Returns KL(p_T || pi_base) of plain sampling at a temperature, nats a response, from the sampled responses."""
    path = toy_path()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    sampler = start_sampler("transformers", path, WINDOWS[level], max_num_seqs=1024)
    prompts = render_prompts(tokenizer, load_problems(f"{level}_test")[:PROBLEMS], "common/prompts/bare.txt")
    n = 32
    rollout = sampler.generate(prompts, n, WINDOWS[level], seed=2, temperature=temperature)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    ratio = response_logp(model, repeated, rollout.responses, temperature)
    ratio -= response_logp(model, repeated, rollout.responses)
    return estimate(ratio.view(-1, n).mean(1).tolist())


def p_right(file: ResultsFile) -> np.ndarray:
    """Returns the share of right responses to each problem of a results file, by the authors' verdict."""
    return np.array(file.right["authors"]) / file.n
