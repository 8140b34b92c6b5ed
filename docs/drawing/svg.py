"""The few elements of SVG that the pictures need. Colours follow the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape

_STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.box { fill: #ddf4ff; stroke: #0969da }
.end { fill: #f6f8fa; stroke: #59636e }
.line { fill: none; stroke: #59636e; marker-end: url(#tip) }
.tip { fill: #59636e }
.ours { fill: #0969da }
.theirs { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .box { fill: #121d2f; stroke: #4493f8 }
  .end { fill: #151b23; stroke: #9198a1 } .line { stroke: #9198a1 } .tip { fill: #9198a1 }
  .ours { fill: #4493f8 } .theirs { fill: #656c76 }
}
"""
_TIP: Final = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path class="tip" d="M0 0L8 4L0 8z"/></marker>'
)


def picture(width: int, height: int, title: str, elements: Iterable[str]) -> str:
    """A whole file. The title is what screen readers say."""
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}</style>",
            f"<defs>{_TIP}</defs>",
            *elements,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text."""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{name}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 2) -> str:
    """A rectangle."""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'


def arrow(path: str) -> str:
    """A line with a tip at its end, along a path of SVG."""
    return f'<path class="line" d="{path}"/>'
