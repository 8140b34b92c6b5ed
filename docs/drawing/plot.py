"""Draws the benchmarks: the figures of the table in docs/benchmarks.md, which `make bench` has measured."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Final

from . import svg

PAGE: Final = Path(__file__).parents[1] / "benchmarks.md"
#: Columns of the table, with a title, and whether more is better.
PANELS: Final = (
    ("p50, ms", "one call there and back, ms (less is better)"),
    ("calls/s, 64 callers", "calls a second, 64 callers (more is better)"),
    ("chunks/s", "chunks of streams a second (more is better)"),
    ("start of 8, s", "start of 8 workers, s (less is better)"),
)
_WIDTH, _ROW, _LABEL, _BAR = 420, 20, 150, 190


def table(page: str) -> dict[str, dict[str, float]]:
    """The figures of the first table below "## Figures": by column, by peer. Empty cells are left out."""
    lines = page.partition("## Figures")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in takewhile(lambda line: line.startswith("|"), lines[start:])
    ]
    return {
        head: {row[0]: float(row[column].split()[0].replace(",", "")) for row in rows[2:] if row[column]}
        for column, head in enumerate(rows[0])
        if column
    }


def draw() -> str:
    """The picture, as SVG: a panel for each figure, with a bar for each pool."""
    figures = table(PAGE.read_text())
    peers = list(figures[PANELS[0][0]])
    height = 34 + len(peers) * _ROW
    elements = []
    for number, (column, title) in enumerate(PANELS):
        elements += _panel(number % 2 * _WIDTH + 8, number // 2 * (height + 8) + 20, title, figures[column], peers)
    return svg.picture(2 * _WIDTH, 2 * (height + 8), "Benchmarks, as in the table of docs/benchmarks.md", elements)


def _panel(x: float, y: float, title: str, figures: dict[str, float], peers: list[str]) -> list[str]:
    elements = [svg.text(x, y, title)]
    most = max(figures.values())
    for row, peer in enumerate(peers):
        top = y + 10 + row * _ROW
        elements.append(svg.text(x + _LABEL - 8, top + 13, peer, "end", "small"))
        if peer in figures:
            width = max(2, round(_BAR * figures[peer] / most))
            elements.append(svg.box(x + _LABEL, top + 3, width, _ROW - 6, "ours" if row == 0 else "theirs"))
            elements.append(svg.text(x + _LABEL + width + 6, top + 13, f"{figures[peer]:,g}", kind="small"))
        else:
            elements.append(svg.text(x + _LABEL, top + 13, "does not have them", kind="small"))
    return elements
