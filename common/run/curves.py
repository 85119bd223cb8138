"""The curves of a run in TensorBoard, with its arguments and some responses; with --track at Weights & Biases, too."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Any

# Figures beside the arguments in TensorBoard's HParams tab.
HPARAMS_METRICS = ("objective/return", "objective/task_reward", "eval/authors", "eval/held_out")


def import_wandb():
    """Returns the wandb package. Raises ImportError, with what to do, if it is not installed."""
    try:
        import wandb
    except ImportError:
        raise ImportError(
            "--track needs the package of Weights & Biases: pip install wandb, or leave it out."
        ) from None
    return wandb


class Curves:
    """Writes into the run folder. With `first_step`, which a resumed run has, curves from there on are drawn anew."""

    def __init__(self, folder: Path, args, first_step: int | None = None):
        from torch.utils.tensorboard import SummaryWriter  # here, because evaluation does not need it

        self.wandb: Any = None
        if args.track:  # before the SummaryWriter, which it follows
            self.wandb = import_wandb().init(
                name=folder.name,
                id=hashlib.sha256(folder.name.encode()).hexdigest()[:16],  # a resumed run continues its page
                resume="allow",
                config=dataclasses.asdict(args),
                dir=str(folder),
                sync_tensorboard=True,
            )
        self.writer = SummaryWriter(folder, purge_step=first_step)
        self._add_arguments(args)

    def _add_arguments(self, args) -> None:
        """Shows the arguments as a table under Text and, beside the last figures, under HParams. They are added to the
        file of the curves; SummaryWriter.add_hparams would make a second run of them."""
        from torch.utils.tensorboard.summary import hparams

        rows = "".join(f"|{key}|{escaped(value)}|\n" for key, value in sorted(vars(args).items()))
        self.writer.add_text("hyperparameters", f"|argument|value|\n|-|-|\n{rows}")
        # The tab knows numbers and words; it has no infinity, and would show True as 1.
        simple = {
            key: value if type(value) in (int, float) and math.isfinite(value) else str(value)
            for key, value in vars(args).items()
        }
        experiment, start, _ = hparams(simple, dict.fromkeys(HPARAMS_METRICS, 0.0))  # the third is for the run's end
        for summary in (experiment, start):
            self.writer._get_file_writer().add_summary(summary)

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Adds figures except standard errors, which would take half of the cards."""
        for key, value in figures.items():
            if not key.endswith("_se"):
                self.writer.add_scalar(key, value, step)

    def add_samples(self, step: int, samples: list[dict]) -> None:
        """Shows responses with their problems and verdicts under Text."""
        for i, sample in enumerate(samples):
            text = "\n\n".join(
                f"**{key}**\n\n{fenced(str(value))}" if isinstance(value, str) else f"**{key}** {value}"
                for key, value in sample.items()
            )
            self.writer.add_text(f"sample_{i}", text, step)

    def flush(self) -> None:
        """Writes out what waits in memory, which would be missing after a kill."""
        self.writer.flush()

    def close(self) -> None:
        """Writes out the curves, and ends the page at Weights & Biases."""
        self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def fenced(text: str) -> str:
    """Returns the text as a Markdown code block, so that mathematics is shown as it was written."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def escaped(value) -> str:
    """Returns the value as text for one cell of a Markdown table."""
    return str(value).replace("|", r"\|").replace("\n", " ")
