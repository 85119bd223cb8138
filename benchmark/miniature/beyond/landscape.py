"""Does sharpening reach the likeliest response? (question 1)

    python -m benchmark.miniature.beyond.landscape OUTPUT

Sharpening maximises E[log pi_base], whose optimum is the likeliest response. A run can stop at another one for two
reasons: its gradient is an estimate, or the landscape has a summit that is not the highest. Exact gradient ascent
leaves the second reason only.

Each of MODELS small models gives logits to the responses to three prompts, as (prompt + context) @ tokens, so that what
is learned for one prompt acts on the others, as in a language model. The policy starts as the base, as a run does.
Multiplying the base's parameters by `scale` makes it flatter, so that the likeliest response stands out less; fewer
dimensions of contexts and tokens (`width`) make the prompts share more.

Rules, written before this table was made; an earlier search had found 0 of 60 prompts with scale 1, 1 of 18 with 0.5
and 0 of 18 with 0.35, all with width 4. A prompt MISSES if its response is more than 1e-9 nats less likely than the
likeliest one. The landscape is a TRAP for a kind of model if some prompt misses, and then the table says by how many
nats.
"""

import sys
from pathlib import Path

import torch

from benchmark.miniature.beyond.enumerated import Tree
from benchmark.miniature.beyond.section import Section

MODELS, PROMPTS, ASCENT = 20, 3, 4000
KINDS = [(4, 1.0), (4, 0.5), (2, 1.0), (2, 0.5)]  # width, scale


def ends(seed: int, width: int, scale: float, steps: int = ASCENT) -> list[tuple[float, float, float]]:
    """Returns for each prompt of a model log pi_base of the likeliest response of the policy where exact gradient
    ascent ends, that of the likeliest response of all, and the probability that the policy gives to the first."""
    tree, rng = Tree(4, 4), torch.Generator().manual_seed(seed)
    shapes = [(PROMPTS, width), (tree.num_contexts, width), (width, 4)]  # prompts, contexts, tokens
    parameters = [scale * torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]
    context, token = torch.tensor(tree.context), torch.tensor(tree.token)
    real = torch.tensor(tree.real)

    def logp(prompts, contexts, tokens) -> torch.Tensor:  # (PROMPTS, responses)
        logits = (prompts[:, None] + contexts[None]) @ tokens
        return (logits.log_softmax(-1)[:, context, token] * real).sum(-1)

    base_logp = logp(*parameters)
    policy = [parameter.clone().requires_grad_() for parameter in parameters]
    optimizer = torch.optim.Adam(policy, lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (-(logp(*policy).exp() * base_logp).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        probability, chosen = logp(*policy).exp().max(1)
    rows = enumerate(zip(chosen, probability, strict=True))
    return [(float(base_logp[i, end]), float(base_logp[i].max()), float(p)) for i, (end, p) in rows]


def main(folder: Path) -> None:
    section = Section("landscape", "1, continued. Can sharpening reach the likeliest response?", __doc__)
    lines, found, traps = [], [], []
    for width, scale in KINDS:
        reached = [end for seed in range(MODELS) for end in ends(seed, width, scale)]
        misses = [(end, best) for end, best, _ in reached if best - end > 1e-9]
        below = [best - end for end, best in misses]
        least = min(probability for *_, probability in reached)
        found.append({"width": width, "scale": scale, "prompts": len(reached), "misses": misses, "least": least})
        short = f"{min(below):.2f} to {max(below):.2f}" if below else ""
        traps += [f"width {width}, scale {scale:g}"] * bool(below)
        lines.append([f"{width}", f"{scale:g}", f"{len(below)} of {len(reached)}", short, f"{least:.2f}"])
    section.say(
        f"Exact gradient ascent of E[log π_base] on {MODELS} models of {PROMPTS} prompts, which share parameters. "
        "The last column shows that the ascent had ended: the policy has settled on one response to each prompt.",
        f"The landscape is a trap for: {'; '.join(traps) or 'none'}.",
    )
    header = [
        "Width",
        "scale of the base",
        "ends on another response",
        "nats below the likeliest",
        "least probability there",
    ]
    section.table(header, lines)
    section.write(folder, {"kinds": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
