"""`snakepit debug` as users run it, on a real pseudo-terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.command import TOOLS, command, environment
from tests.helpers.terminal_program import Screen, screen

PROMPT = "(Pdb) "
STOPS = TOOLS.replace("        return 2 * n\n", "        breakpoint()\n        return 2 * n\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(STOPS)
    return tmp_path


@contextmanager
def debug(folder: Path, *args: str) -> Iterator[Screen]:
    """The command, on a terminal."""
    with screen(command("debug", "given:Tools", *args), folder) as made:
        yield made


@pytest.mark.parametrize(("args", "shown"), [((), "42"), (("--json",), "42")], ids=["text", "json"])
def test_a_breakpoint(folder: Path, args: tuple[str, ...], shown: str) -> None:
    with debug(folder, "double", "n=1", *args) as made:
        assert "-- worker debug-1 stands at" in made.expect("in double")
        made.expect(PROMPT)
        made.type("!n = 21\n")  # `n` is a command too
        made.expect(PROMPT)
        made.type("c\n")
        made.expect(f"{shown}\r\n")
        assert made.ends() == 0
        assert made.is_as_before


def test_where_a_tool_raises(folder: Path) -> None:
    with debug(folder, "words") as made:
        # What the tool yields comes through the host, and what the debugger says does not: either may come first.
        shown = made.expect(PROMPT)
        assert "KeyError: 'three'" in shown
        if "two\r\n" not in shown:
            made.expect("two\r\n")
        made.type("q\n")
        made.expect("Error: tool 'words' on worker debug-1 raised KeyError: 'three'\r\n")
        assert made.ends() == 1
        assert made.is_as_before


def test_quit(folder: Path) -> None:
    with debug(folder, "double", "n=1") as made:
        made.expect(PROMPT)
        made.type("q\n")
        made.expect("Error: the debugger was left with `quit`, which ends the call\r\n")
        assert made.ends() == 1


def test_a_tool_without_breakpoints(folder: Path) -> None:
    with debug(folder, "pair", "first=1") as made:
        made.expect("['1', None]\r\n")
        assert made.ends() == 0


def test_ctrl_c_outside_the_debugger(folder: Path) -> None:
    with debug(folder, "sleep") as made:
        made.expect("asleep")
        made.type("\x03")
        made.expect("interrupted")
        assert made.ends() == 130


def test_wrong_arguments_open_no_debugger(folder: Path) -> None:
    with debug(folder, "double", "n=x") as made:
        made.expect("Error: double: n=x does not fit: give a whole number, such as 5\r\n")
        assert made.ends() == 2


def test_no_terminal(folder: Path) -> None:
    done = subprocess.run(
        command("debug", "given:Tools", "double", "n=1"),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: a debugger needs a terminal, and this process has none (")
