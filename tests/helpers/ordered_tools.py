"""Tools and functions that note in a file when they run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bridge_py import tool

from .host_tools import HostCallers


class Tools(HostCallers):
    """Calls that note when they run, and calls of host tools."""

    @tool
    def note(self, path: str, text: str) -> None:
        """Note a text."""
        note((path, text))

    @tool
    def note_in_stream(self, path: str, text: str) -> Iterator[int]:
        """Note a text, and yield."""
        note((path, text))
        yield 1

    @tool
    def hold(self, path: str) -> None:
        """Make a file, and hold the worker."""
        Path(path).touch()
        time.sleep(60)


def note(item: tuple[str, str]) -> None:
    """Note a text at the end of a file."""
    path, text = item
    with open(path, "a") as file:
        file.write(f"{text}\n")


def note_and_yield(item: tuple[str, str]) -> Iterator[int]:
    """Note a text at the end of a file, and yield."""
    note(item)
    yield 1
