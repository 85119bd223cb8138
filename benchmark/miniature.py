"""Each run of benchmark/miniature.sh beside the exact optimum of its objective: python benchmark/miniature.py OUTPUT

A run that ends away from its optimum has a problem of optimisation; one whose optimum is bad, a problem of objective.
The optimum is computed from the base (common/toy.py:true_optimum), 100 test problems x 48 samples. Prints a Markdown
table and leaves it, with the numbers it was made from, in summary.md and summary.json of the folder.
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers import AutoModelForCausalLM, AutoTokenizer

from common.data import load_problems, render_prompts
from common.rollout import start_sampler
from common.run import write_json, write_text
from common.toy import response_kind, toy_path, toy_problems, true_optimum

WINDOW, PROBLEMS, SAMPLES = 64, 100, 48
OBJECTIVES = {"task": (1.0, 0.0), "sharpen": (math.inf, math.inf), "tempered": (2.0, math.inf), "tilted": (2.0, 0.1)}
COLUMNS = "run,Pass@1 %,Pass@16 %,Maj@16 %,guesses %,tokens,log pi_base,best Pass@1 % (step)".split(",")
OPTIMUM = "Pass@1 %,guesses %,tokens,log pi_base,ESS".split(",")


def optima() -> dict[str, list[float]]:
    """Accuracy, guess share, length, log pi_base and effective sample size of each objective's optimum, by run name."""
    path = toy_path()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    sampler = start_sampler("transformers", path, WINDOW, max_num_seqs=1024)
    problems = toy_problems("toy", "test")[:PROBLEMS]
    rendered = render_prompts(tokenizer, load_problems("toy_test")[:PROBLEMS], "common/prompts/bare.txt")
    found = {}
    for name, (power, tilt) in OBJECTIVES.items():
        for fixed in (False, True):
            temperature = 1 / min(power, 4.0)
            rollout = sampler.generate(rendered, SAMPLES, WINDOW, seed=1, temperature=temperature, fixed_length=fixed)
            best = true_optimum(
                model, tokenizer, problems, rollout.responses, power, tilt, temperature, enumerate_guesses=not fixed
            )
            found[name + "_fixed" * fixed] = [*vars(best).values()]
    return found


def results_of(file: Path) -> dict:
    """What common.evaluate found: 200 test problems x 16, and the share of guesses among the responses."""
    metrics = json.loads(file.read_text())["metrics"]["authors"]
    lines = file.with_suffix("").with_suffix(".responses.jsonl").read_text().splitlines()[1:]
    texts = [text for line in lines for text in json.loads(line)["responses"]]
    keys = ("pass_at_1", "pass_at_1_se", "pass_at_16", "maj_at_16", "response_length")
    return {key: metrics[key] for key in keys} | {"guesses": sum(map(is_guess, texts)) / len(texts)}


def is_guess(text: str) -> bool:
    return response_kind(text) == "guess"


def curves_of(run: Path) -> dict:
    """The run's best validated step, and log pi_base over its last five steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((line for line in lines if "eval/authors" in line), key=lambda line: line["eval/authors"])
    last = [line["objective/logp_base"] for line in lines if "objective/logp_base" in line][-5:]
    return {"logp_base": sum(last) / len(last), "best": best["eval/authors"], "best_step": best["step"]}


def main(folder: Path) -> None:
    rows = []
    for base in sorted(folder.glob("base*/")):
        rows.append({"run": base.name} | results_of(next(base.glob("*__n16__seed1.json"))))
    for run in sorted(folder.glob("*__*__*/")):
        files = list(run.glob("results/step_000100/*__n16__seed1.json"))
        if files:
            rows.append({"run": run.name.split("__")[0]} | results_of(files[0]) | curves_of(run))
        else:
            print(f"left out: {run} has no results after step 100")
    best = optima()
    table = [COLUMNS + [f"optimum: {name}" for name in OPTIMUM]]
    for row in rows:
        cells = [row["run"], f"{100 * row['pass_at_1']:.1f} ± {100 * row['pass_at_1_se']:.1f}"]
        cells += [f"{100 * row[key]:.1f}" for key in ("pass_at_16", "maj_at_16", "guesses")]
        cells.append(f"{row['response_length']:.1f}")
        if "best" in row:
            cells += [f"{row['logp_base']:.2f}", f"{100 * row['best']:.1f} ({row['best_step']})"]
        else:
            cells += ["", ""]
        optimum = best.get(row["run"].split("_seed")[0])
        if optimum:
            accuracy, guesses, tokens, logp, effective = optimum
            cells += [f"{100 * accuracy:.1f}", f"{100 * guesses:.1f}", f"{tokens:.1f}", f"{logp:.2f}"]
            cells.append(f"{effective:.0f}")
        table.append(cells + [""] * (len(table[0]) - len(cells)))
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    text = "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]) + "\n"
    write_text(folder / "summary.md", text)
    write_json(folder / "summary.json", {"rows": rows, "optima": best})
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
