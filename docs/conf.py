"""How Sphinx builds these pages: `make docs`. They are plain Markdown, which can be read without Sphinx, too."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import snakepit_trio  # noqa: E402 - found by the path above

project = "snakepit-trio"
author = "the snakepit-trio authors"
copyright = author  # noqa: A001 - Sphinx calls it so
version = release = snakepit_trio.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "reference_names"]
exclude_patterns = ["_build", "drawing", "examples"]
html_theme = "furo"
html_title = f"snakepit-trio {version}"
html_copy_source = False

# Anchors as GitHub makes them, so that a link to a section works here and there.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# In docstrings, `a name in single quotes` links to that name, if it is a public one.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def _add_others(_app: Any, page: str, source: list[str]) -> None:
    """In the contents, `others` stands for the pages that the contents do not name."""
    if page == "index":
        named = set(re.findall(r"^([\w/]+)$", source[0], re.MULTILINE))
        others = sorted({each.stem for each in HERE.glob("*.md")} - named - {"index"})
        source[0] = source[0].replace("\nothers\n", "".join(f"\n{each}" for each in others) + "\n")


def _included(block: re.Match[str]) -> str:
    """A file of the root, without its title. Its links become those of a page; links to other pages of the root go."""
    text = (ROOT / block[1]).read_text().partition("\n")[2]
    text = re.sub(r"\[([^]]*)\]\((?!docs/|https?:)[\w./]+\.md\)", r"\1", text)
    return re.sub(r"\]\((?!https?:|#)(docs/)?", lambda link: "](" if link[1] else "](../", text)


def _include(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = re.sub(r"^```\{include\} \.\./([\w.]+)\n```$", _included, source[0], flags=re.MULTILINE)


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", _include)
    app.connect("source-read", _add_others)
