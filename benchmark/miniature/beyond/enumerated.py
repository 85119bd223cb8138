"""Language models so small that every response can be listed, so that laws, gradients and optima are numbers."""

from itertools import product

import numpy as np

EOS = 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log-probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class Tree:
    """All responses over V tokens, of which token 0 is EOS: those that end in their only EOS within a window of L
    tokens, and those without EOS that fill it. A model is a table of logits (H, V), one row for each of H contexts.

    Shapes: Y responses, L window, H contexts, V tokens.
    """

    def __init__(self, num_tokens: int, window: int):
        words = [w for length in range(window + 1) for w in product(range(1, num_tokens), repeat=length)]
        self.responses = [(*w, EOS) for w in words if len(w) < window] + [w for w in words if len(w) == window]
        contexts = {w: i for i, w in enumerate(w for w in words if len(w) < window)}
        self.num_contexts, self.num_tokens = len(contexts), num_tokens
        self.length = np.array([len(y) for y in self.responses])  # (Y,)
        self.real = np.arange(window) < self.length[:, None]  # (Y, L) whether there is a token
        self.context = np.zeros(self.real.shape, int)  # (Y, L)
        self.token = np.zeros(self.real.shape, int)  # (Y, L)
        for i, y in enumerate(self.responses):
            self.token[i, : len(y)] = y
            self.context[i, : len(y)] = [contexts[y[:t]] for t in range(len(y))]

    def token_logp(self, logits: np.ndarray) -> np.ndarray:
        """Returns the log-probability of every token of every response, (H, V) -> (Y, L); 0 where there is none."""
        return np.where(self.real, log_softmax(logits)[self.context, self.token], 0.0)

    def logp(self, logits: np.ndarray) -> np.ndarray:
        """Returns log p of every response, (H, V) -> (Y,), nats. Their probabilities add up to 1."""
        return self.token_logp(logits).sum(1)

    def sum_by_choice(self, values: np.ndarray) -> np.ndarray:
        """Returns for every context and token the sum of the values at the places where it occurs, (Y, L) -> (H, V)."""
        total = np.zeros((self.num_contexts, self.num_tokens))
        np.add.at(total, (self.context[self.real], self.token[self.real]), values[self.real])
        return total

    def advantages(self, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Returns the natural direction of sum_y pi(y) sum_t weights_yt grad log pi(y_t | y_<t), (Y, L) -> (H, V): how
        much more weight a token has in its context than the others, on average under the policy. It is zero where the
        expected gradient is, and does not vanish with the probabilities as the gradient does."""
        probability = np.exp(self.logp(logits))[:, None]  # (Y, 1)
        occupied = self.sum_by_choice(np.broadcast_to(probability, weights.shape))  # (H, V): P(context and token)
        worth = self.sum_by_choice(probability * weights) / np.maximum(occupied, 1e-300)
        policy = np.exp(log_softmax(logits))
        return worth - (policy * worth).sum(1, keepdims=True)


def power_law(logp: np.ndarray, reward: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Returns pi_base^alpha exp(reward / beta) / Z (Eq. 4 of the paper), all (Y,); beta inf leaves the reward out."""
    weights = alpha * logp + reward / beta
    weights = np.exp(weights - weights.max())
    return weights / weights.sum()


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Returns half the sum of absolute differences of two distributions over the same responses."""
    return float(np.abs(p - q).sum() / 2)
