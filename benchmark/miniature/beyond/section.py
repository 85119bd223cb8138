"""A section of the page beyond.md: sentences, tables and a figure, written by one study."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt

from common.run import write_json


@dataclass
class Section:
    """Collects what a study says. `about` is the study's docstring: its first sentences and its rules are shown."""

    name: str
    title: str
    about: str
    parts: list[str] = field(default_factory=list)
    drawn: plt.Figure | None = None

    def say(self, *paragraphs: str) -> None:
        self.parts += paragraphs

    def table(self, header: list[str], rows: list[list[str]]) -> None:
        lines = [header, ["---"] * len(header), *rows]
        self.parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))

    def figure(self, drawn: plt.Figure, caption: str) -> None:
        self.drawn = drawn
        self.parts += [f"![{caption}](figures/{self.name}.png)", caption]

    def rules(self) -> str:
        """The rules in the study's docstring, as one paragraph."""
        found = re.search(r"^Rules, written before.*?(?=\n\n|\Z)", self.about, re.DOTALL | re.MULTILINE)
        return " ".join(found[0].split()) if found else ""

    def write(self, folder: Path, numbers: dict) -> None:
        """Writes NAME.md, NAME.json with the numbers, and figures/NAME.png into the folder."""
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        command = f"python -m benchmark.miniature.beyond.{self.name}"
        body = [f"## {self.title}", *self.parts, self.rules(), f"Numbers: {self.name}.json, by `{command}`."]
        (folder / f"{self.name}.md").write_text("\n\n".join(filter(None, body)) + "\n", encoding="utf-8")
        write_json(folder / f"{self.name}.json", {"command": command} | numbers)
        if self.drawn is not None:
            self.drawn.savefig(folder / "figures" / f"{self.name}.png", dpi=150)
            plt.close(self.drawn)
        print(f"{folder / self.name}.md")
