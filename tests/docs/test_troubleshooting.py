"""The page of errors has exactly the mistakes that are tested, by what their messages say, and messages that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.mistaken_programs import PROGRAMS, SETTINGS
from tests.helpers.mistakes import MISTAKES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"


def test_the_page_has_the_mistakes_that_are_tested() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    shown = [match[1] for row in rows if (match := re.fullmatch(r"`(.+)`", row[1]))]
    tested = {each.said for table in (MISTAKES, SETTINGS, PROGRAMS) for each in table.values()}
    assert sorted(shown) == sorted(tested | {"was never awaited"})


def test_the_messages_of_running_pools_are_real_ones() -> None:
    section = PAGE.read_text().partition("## A pool that runs")[2].partition("\n## ")[0]
    shown = [
        text for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for text in re.findall(r"`(.+?)`", row)
    ]
    code = "".join(file.read_text() for file in (ROOT / "snakepit_trio").rglob("*.py"))
    assert len(shown) > 15
    assert [text for text in shown if not re.search(_in_source(text), code)] == []


def _in_source(text: str) -> str:
    """A pattern of a message as the code has it: numbers and names of signals are filled in."""
    return re.sub(r"(\d+|SIG[A-Z]+)", r"(\\{[^}]*\\}+)", re.escape(text).replace(r"\ ", " "))
