"""How much of what a run has learned is left in bfloat16: python -m benchmark.small_model.rounding MODEL CHECKPOINT...

On a GPU the optimizer moves float32 weights, and both the policy and the engine compute with these weights rounded to
bfloat16. A published model lies on the grid of bfloat16 numbers, so a weight that has moved by less than half the
distance to the next one is rounded back to where it was: early in a run most of the step is not there yet. For each
checkpoint (float32, as a run on a CPU or a GPU leaves it) this prints

    changed     share of the weights that differ from the model's after rounding
    kept        <q, d> / <d, d> for d the step in float32 and q the step after rounding: 1 if nothing is lost, 0 if all
    rms step    root mean square of d
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def kept_in_bfloat16(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> tuple[float, float, float]:
    """Returns (share of the weights that change, share of the step that is kept, rms step); see above. `before` lies on
    the grid, and names that `after` lacks, such as a tied head, are left out. Raises ValueError if nothing moved."""
    count = changed = 0
    along = square = 0.0
    for name in before.keys() & after.keys():
        start = before[name].float()
        step, rounded = after[name].float() - start, after[name].bfloat16().float() - start
        count += step.numel()
        changed += int(rounded.ne(0).sum())
        along += float((rounded * step).sum(dtype=torch.float64))
        square += float((step * step).sum(dtype=torch.float64))
    if not square:
        raise ValueError("the checkpoint has the weights of the model: there is no step to round.")
    return changed / count, along / square, (square / count) ** 0.5


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of a model by name, a tied head once, in the precision in which they are stored."""
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").requires_grad_(False).named_parameters())


def main(model: Path, checkpoints: list[Path]) -> None:
    before = parameters(model)
    print("| checkpoint | changed | kept | rms step |\n|-|-|-|-|")
    for checkpoint in checkpoints:
        changed, kept, size = kept_in_bfloat16(before, parameters(checkpoint))
        row = checkpoint.resolve().parent.parent.name.split("__")[0]
        print(f"| {row}, {checkpoint.name} | {100 * changed:.1f} % | {100 * kept:.1f} % | {size:.1e} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
