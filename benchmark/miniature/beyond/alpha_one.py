"""The alpha = 1 anomaly: what do the published kernels of power sampling sample at alpha 1? (question 2)

    python -m benchmark.miniature.beyond.alpha_one OUTPUT

At alpha 1 the target pi_base^alpha is the base itself, and plain sampling already draws from it. An exact kernel cannot
change anything. The paper's row at alpha 1 loses a sixth of the accuracy (Pass@1 on Math-500 58.3 to 47.7), so its
program samples something else. Here all four kernels of power_sampling.py run at alpha 1 with published blocks (a 16th
of the window, 10 moves each) beside plain sampling. Then the defects of the published programs are switched on in the
exact kernel, one at a time:

    capped       a proposal ends at |y| instead of at the end of the block
    overlap      log Z of y is summed only over the overlap with z (nothing at alpha 1, where log Z is 0)
    no lengths   |y| / |z| is missing in the acceptance
    inverted     the ratio of q is the wrong way up, so that the square of p(z) / p(y) is compared
    one more     one block more than the window has
    frozen       a chain that is finished after a block takes no further moves
    skipped      the same, but the chain after a removed one stays even if it is finished

Rules, written before the first run. A row DIFFERS from plain sampling if its accuracy differs by more than 2 points and
two errors (paired over problems). The anomaly is EXPLAINED by a defect alone if that defect's row differs downwards.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from transformers import AutoTokenizer

from benchmark.miniature.beyond.section import Section
from benchmark.report import figures
from benchmark.report.verdicts import Accuracy, difference, exceeds, plus_minus, points
from common.data import load_problems, render_prompts
from common.rollout import Sample, start_sampler, stop_token_ids
from common.run import parse
from common.toy import toy_path, toy_problems
from power_sampling import Args, Chain, ChainGroup, Progress, Steps, draw_cut, run_groups

PROBLEMS, CHAINS, WINDOW, BLOCK, MOVES = 100, 4, 64, 4, 10
KERNELS = ("exact", "karan-du", "mh-llm", "mh-llm-signfix")
DEFECTS = ("capped", "overlap", "no lengths", "inverted", "one more", "frozen", "skipped")


def log_acceptance(y: Sample, z: Sample, m: int, alpha: float, defect: str) -> float:
    """Returns log A of the exact kernel's move from y to z, which agree in their first m tokens, with one defect."""
    end = len(z.tokens) if defect == "overlap" else None
    log_z_ratio = sum(z.log_z[m:]) - sum(y.log_z[m:end])
    if defect == "inverted":  # the ratio of q is that of p^alpha less that of Z
        log_z_ratio = 2 * alpha * (sum(z.logp[m:]) - sum(y.logp[m:])) - log_z_ratio
    if defect == "no lengths":
        return log_z_ratio
    return log_z_ratio + float(np.log(len(y.tokens)) - np.log(len(z.tokens)))


class WithDefect(ChainGroup):
    """The chains of a problem in the exact kernel with one defect; "" for none."""

    def __init__(self, defect: str, *arguments):
        super().__init__(*arguments)
        self.defect = defect
        self.num_blocks += defect == "one more"
        self.steps = self.kernel()

    def kernel(self) -> Steps:
        """As `ChainGroup.exact`, except for the defect."""
        running = self.chains
        for block in range(1, self.num_blocks + 1):
            end = min(block * self.block_size, self.room)
            growing = [chain for chain in running if len(chain.y.tokens) < end and not self.finished(chain)]
            yield from self.extend(growing, end)
            for _ in range(self.args.num_moves if running else 0):
                yield from self.move(running, None if self.defect == "capped" else end)
            if self.defect == "frozen":
                running = [chain for chain in running if not self.finished(chain)]
            if self.defect == "skipped":
                running = self.without_finished(running)

    def move(self, chains: list[Chain], end: int | None = None) -> Steps:
        """As `ChainGroup.move`, with the defect's acceptance."""
        self.step += 1
        numbers = [self.uniforms(chain, 2, "moves") for chain in chains]
        asked = [
            (chain, draw_cut(chain.y, "uniform", u), len(chain.y.tokens) if end is None else end)
            for chain, (u, _) in zip(chains, numbers, strict=True)
        ]
        proposals = yield from self.propose(asked)
        for (chain, cut, _), z, (_, u) in zip(asked, proposals, numbers, strict=True):
            chain.moves += 1
            if u < np.exp(min(0.0, log_acceptance(chain.y, z, cut, self.args.alpha, self.defect))):
                chain.accepted += 1
                chain.y = z


class NoJournal:
    """Keeps nothing: a row takes less than a minute."""

    def add(self, group: ChainGroup, samples: list[Sample]) -> None:
        pass

    def replay(self, group: ChainGroup) -> None:
        pass


def rows() -> Iterator[tuple[str, str, str]]:
    """Yields the name of each row, its mode and its defect. Plain sampling is the exact kernel without moves."""
    yield "plain sampling", "exact", ""
    for mode in KERNELS:
        yield mode, mode, ""
    for defect in DEFECTS:
        yield f"exact, but {defect}", "exact", defect


def measure() -> list[dict]:
    """Returns for each row the accuracy by problem, and means of length, share finished and acceptance."""
    path = str(toy_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    problems, answers = load_problems("toy_test")[:PROBLEMS], [row[2] for row in toy_problems("toy", "test")[:PROBLEMS]]
    prompts = render_prompts(tokenizer, problems, "common/prompts/bare.txt")
    stop_ids = stop_token_ids(path, tokenizer)
    sampler = start_sampler("transformers", path, WINDOW, stop_ids=stop_ids, max_num_seqs=1024, requests=True)
    found = []
    for name, mode, defect in rows():
        plain = name == "plain sampling"
        words = f"--model toy --alpha 1 --mode {mode} --num-moves {0 if plain else MOVES} --max-total-tokens {WINDOW}"
        args = parse(Args, [*words.split(), "--block-size", str(0 if plain else BLOCK), "--n", str(CHAINS)])
        groups = [
            WithDefect(defect, args, 1, stop_ids, problem.id, prompt, range(CHAINS))
            if defect
            else ChainGroup(args, 1, stop_ids, problem.id, prompt, range(CHAINS))
            for problem, prompt in zip(problems, prompts, strict=True)
        ]
        list(run_groups(sampler, iter(groups), 256, NoJournal(), Progress(name, len(groups))))
        by_problem, chains = {}, [chain for group in groups for chain in group.chains]
        for group, problem, answer in zip(groups, problems, answers, strict=True):
            texts = []
            for chain in group.chains:
                tokens = chain.y.tokens
                cut = next((i for i, token in enumerate(tokens) if token in stop_ids), len(tokens))
                texts.append(tokenizer.decode(tokens[:cut]))
            by_problem[problem.id] = 100 * float(np.mean([text.endswith(f"\\boxed{{{answer}}}") for text in texts]))
        moves = sum(chain.moves for chain in chains)
        one = {"row": name, "accuracy": by_problem, "length": float(np.mean([len(c.y.tokens) for c in chains]))}
        one["finished"] = 100 * float(np.mean([c.y.tokens[-1] in stop_ids for c in chains]))
        one["acceptance"] = sum(chain.accepted for chain in chains) / moves if moves else None
        found.append(one)
    return found


def figure(found: list[dict]) -> plt.Figure:
    drawn, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for place, one in enumerate(found):
        value, error = difference(Accuracy(one["accuracy"]))
        colour = figures.GREY if place == 0 else figures.BLUE if place <= len(KERNELS) else figures.ORANGE
        ax.barh(place, value, xerr=error, color=colour, edgecolor="black", lw=0.5, error_kw={"capsize": 3, "lw": 1})
    ax.axvline(difference(Accuracy(found[0]["accuracy"]))[0], color="black", lw=0.8, ls="--")
    ax.set_yticks(range(len(found)), [one["row"] for one in found])
    ax.invert_yaxis()
    ax.set_xlabel("Pass@1 at α = 1, %")
    ax.grid(axis="y", visible=False)
    return drawn


def main(folder: Path) -> None:
    found = measure()
    plain, lines, explained = Accuracy(found[0]["accuracy"]), [], []
    for one in found:
        row = Accuracy(one["accuracy"])
        over = difference(row, plain)
        differs = exceeds(over) or exceeds((-over[0], over[1]))
        if one["row"].startswith("exact, but") and exceeds((-over[0], over[1])):
            explained.append(one["row"].removeprefix("exact, but "))
        acceptance = "" if one["acceptance"] is None else f"{one['acceptance']:.3f}"
        shown = "" if one is found[0] else points(over)
        lines.append([one["row"], plus_minus(difference(row)), shown, "differs" if differs else ""])
        lines[-1] += [f"{one['finished']:.1f}", f"{one['length']:.1f}", acceptance]
    section = Section("alpha_one", "2. The anomaly at α = 1", __doc__)
    section.say(f"Defects that alone lose accuracy at α = 1: {', '.join(explained) or 'none'}.")
    section.table(["Kernel", "Pass@1", "over plain", "", "finished, %", "tokens", "acceptance"], lines)
    section.figure(figure(found), "Accuracy at α = 1; the dashed line is plain sampling.")
    section.write(folder, {"rows": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
