"""The code blocks of the pages, and the programs that they are parts of.

A block of Python is a program of its own, unless a comment stands before it, which no reader of the page sees:

    <!-- program
    async def main():
        # HERE
    -->

The block takes the place of `# HERE`. `BEGIN` stands above such a program, and `END` runs its `main`. A comment with
several such lines is for as many blocks, one after the other. In `<!-- not run: why -->` a page says why a block cannot
be run. A block that begins with `# name.py` is a file, for the blocks and commands that follow. A block `text` right
below a program, or below `It prints:`, is what it prints. A line `...` stands for any lines, and `...` in a line
for the rest of it. In a block `console`, lines after `$ ` are commands, and the lines below are what they print.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parents[2]
#: What a program of a comment begins with, and ends with if it does not run its `main` itself.
BEGIN: Final = """\
import trio
import trio.testing

import bridge_py
import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool

"""
END: Final = """

if __name__ == "__main__":
    trio.run(main)
"""
HOLE: Final = re.compile(r"^( *)# HERE$", re.MULTILINE)
_PARTS: Final = re.compile(
    r"^(?P<margin> *)<!-- (?P<comment>.*?) *-->$|"
    r"^(?P<indent> *)```(?P<language>[\w{}-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_PRINTS: Final = re.compile(r"\n\n(?:[^\n]*\bprints:?\n\n)? *```text\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)


@attrs.frozen
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    body: str
    comment: str | None = None  # the comment before it
    prints: str | None = None  # what it prints, as the page says

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it says so."""
        match = re.match(r"# ([\w/]+\.py)\n", self.body)
        return match[1] if match else None


@attrs.frozen
class Program:
    """What is run for one or more blocks."""

    first: Block
    source: str
    prints: str | None


def pages() -> list[Path]:
    """All pages that people read."""
    there = [ROOT / name for name in ("README.md", "PACKAGE.md", "SECURITY.md", "CONTRIBUTING.md")]
    docs = (ROOT / "docs").rglob("*.md")
    return [page for page in there if page.exists()] + sorted(
        page for page in docs if not {"node_modules", "_build"} & set(page.parts)
    )


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, in order."""
    text, found, comment = page.read_text(), list[Block](), None
    for part in _PARTS.finditer(text):
        if part["comment"] is not None:
            comment = textwrap.dedent(part["margin"] + part["comment"])
            continue
        after = _PRINTS.match(text, part.end())
        found.append(
            Block(
                page,
                text.count("\n", 0, part.start()) + 1,
                part["language"],
                textwrap.dedent(part["body"]),
                comment,
                textwrap.dedent(after["body"]) if after else None,
            )
        )
        comment = None
    return found


def programs(page: Path) -> Iterator[Program]:
    """What the blocks of Python of a page are, or are part of; files and blocks that are not run are left out."""
    python = iter([block for block in blocks(page) if block.language == "python" and block.file is None])
    for block in python:
        if block.comment is None or not block.comment.startswith(("program\n", "not run: ")):
            yield Program(block, block.body, block.prints)
        elif block.comment.startswith("program\n"):
            yield _filled(block, python)


def _filled(first: Block, others: Iterator[Block]) -> Program:
    assert first.comment
    source, block = first.comment.removeprefix("program\n"), first
    assert HOLE.search(source), f"{first}: the comment before it has no line `# HERE`"
    while hole := HOLE.search(source):
        source = source[: hole.start()] + textwrap.indent(block.body.rstrip(), hole[1]) + source[hole.end() :]
        if HOLE.search(source):
            block = next(others)
    runs_main = "def main(" in source and "trio.run(" not in source
    return Program(first, BEGIN + source + (END if runs_main else ""), block.prints)


def files(page: Path, before: int) -> dict[str, str]:
    """The files that a page has above a line."""
    return {block.file: block.body for block in blocks(page) if block.file and block.line < before}


def same(said: str, printed: str) -> bool:
    """Whether something was printed as a page says. A line `...` stands for any lines; spaces do not count."""
    parts = re.split(r"^\.\.\.\n?", said, flags=re.MULTILINE)
    pattern = "(?:.*\n)*?".join(re.escape(_plain(part)).replace(re.escape("..."), ".*") for part in parts)
    return re.fullmatch(pattern, _plain(printed)) is not None


def _plain(text: str) -> str:
    return "".join(f"{' '.join(line.split())}\n" for line in text.splitlines() if line.strip())


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a block `console`, each with what it prints."""
    return re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.body, re.MULTILINE)
