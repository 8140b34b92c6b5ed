"""The page of the command has all commands and exit codes. test_snippets.py runs its examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snakepit_trio._cli.endings import EXIT_CODES
from snakepit_trio._cli.main import main
from tests.helpers.command import snakepit

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_the_page_leads_to_all_commands() -> None:
    assert set(re.findall(r"^\| \[`snakepit (\w+)`\]", PAGE, re.MULTILINE)) == set(main.commands)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_each_command_has_help_with_examples(name: str) -> None:
    done = snakepit(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: snakepit {name}")
    assert re.search(rf"^  Examples?.*:\n    .*snakepit {name}", done.stdout, re.MULTILINE)


def test_the_page_has_the_exit_codes_of_run() -> None:
    told = re.findall(r"^  (\d+)", EXIT_CODES, re.MULTILINE)
    table = re.findall(r"^\| ([\d, ]+) \|", PAGE.partition("## `snakepit run`")[2].partition("\n## ")[0], re.MULTILINE)
    assert ", ".join(told) + ", 143" == ", ".join(table)
