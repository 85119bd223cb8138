"""A page of tables and figures, as Markdown and as one HTML file that loads nothing from elsewhere."""

import base64
import html
import math
from dataclasses import dataclass, field
from pathlib import Path

Estimate = tuple[float, float]  # value and standard error


@dataclass
class Cell:
    """Ours and the paper's in per cent; either may be missing. The error of a single problem is NaN, and not shown."""

    ours: Estimate | None = None
    paper: float | None = None

    def texts(self) -> tuple[str, str]:
        """Ours, and what the paper has, always marked as the paper's."""
        ours = f"{self.ours[0]:.1f}" if self.ours else ""
        ours += f" ± {self.ours[1]:.1f}" if self.ours and not math.isnan(self.ours[1]) else ""
        paper = f"paper {self.paper:.1f}" if self.paper is not None else ""
        if ours and paper:
            paper += f", {self.ours[0] - self.paper:+.1f}"
        return ours or "not run" * bool(paper), paper


@dataclass
class Table:
    title: str
    header: list[str]
    rows: list[list[str | Cell]]
    notes: list[str] = field(default_factory=list)


@dataclass
class Image:
    name: str
    title: str
    choices: str
    sources: list[str]  # folders
    svg: Path

    @property
    def made_of(self) -> str:
        return f"Made of {', '.join(self.sources)}." if self.sources else "None of our runs is here yet."


@dataclass
class Page:
    title: str
    paragraphs: list[str]
    tables: list[Table]
    images: list[Image]
    faults: list[str] = field(default_factory=list)

    def write(self, folder: Path, name: str) -> None:
        (folder / f"{name}.md").write_text(self.markdown())
        (folder / f"{name}.html").write_text(self.html())

    def markdown(self) -> str:
        def text(cell: str | Cell) -> str:
            if isinstance(cell, str):
                return cell
            ours, paper = cell.texts()
            return ours + (f" ({paper})" if paper else "")

        parts = [f"# {self.title}", *self.paragraphs]
        for table in self.tables:
            lines = [table.header, ["---"] * len(table.header), *[[text(cell) for cell in row] for row in table.rows]]
            body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            parts += [f"## {table.title}", body, *table.notes]
        for image in self.images:
            shown = f"![{image.title}](figures/{image.name}.png)"
            parts += [f"## {image.title}", shown, f"{image.choices} {image.made_of}"]
        if self.faults:
            parts += ["## Missing or broken", "\n".join(f"- {line}" for line in self.faults)]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        def td(cell: str | Cell) -> str:
            if isinstance(cell, str):
                return f"<td>{html.escape(cell)}</td>"
            ours, paper = cell.texts()
            shown = f"<i>{ours}</i>" if ours == "not run" else ours
            return f"<td>{shown}{f'<small>{paper}</small>' if paper else ''}</td>"

        parts = [f"<h1>{html.escape(self.title)}</h1>"]
        parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in self.paragraphs]
        for table in self.tables:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
            body = "".join(f"<tr>{''.join(map(td, row))}</tr>" for row in table.rows)
            shown = "" if "strict" in table.title else " open"
            parts.append(f"<details{shown}><summary>{html.escape(table.title)}</summary><div class=scroll><table>")
            parts.append(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
            parts += [*(f"<p>{html.escape(note)}</p>" for note in table.notes), "</details>"]
        for image in self.images:
            data = base64.b64encode(image.svg.read_bytes()).decode()
            parts.append(f"<h2>{html.escape(image.title)}</h2>")
            parts.append(f'<img alt="{html.escape(image.title)}" src="data:image/svg+xml;base64,{data}">')
            parts.append(f"<p>{html.escape(image.choices)}</p><p class=sources>{html.escape(image.made_of)}</p>")
        if self.faults:
            lines = "\n".join(map(html.escape, self.faults))
            parts.append(f"<details><summary>Missing or broken</summary><pre>{lines}</pre></details>")
        head = f"<meta charset=utf-8><title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; padding: 0 1em; color: #111 }
table { border-collapse: collapse; margin: .6em 0 1em; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { border-bottom: 1px solid #ccc; padding: .22em .6em; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid #333; vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left } small { color: #767676; font-style: italic; display: block }
i { color: #b0b0b0; font-size: 11px } .scroll { overflow-x: auto }
img { max-width: 100% } summary { cursor: pointer; font-weight: 600; margin: .5em 0 }
pre { font-size: 12px; overflow-x: auto }
.sources { font-size: 11px; color: #555; overflow-wrap: anywhere; max-height: 8em; overflow-y: auto }
"""
