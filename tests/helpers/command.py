"""The command `snakepit`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = '''
import os, sys, time
from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    @tool
    def double(self, n: int) -> int:
        """Double a number.

        Args:
            n: The number.

        """
        return 2 * n

    @tool
    def pair(self, first: str, second: list[float] | None = None) -> list:
        return [first, second]

    @tool(timeout=5, limit=2)
    def anything(self, value) -> object:
        return value

    @tool
    def nothing(self) -> None:
        """Do nothing."""

    @tool
    def count(self, to: int = 3):
        for number in range(to):
            yield {"number": number}

    @tool
    def words(self):
        yield "one"
        print("between", flush=True)
        yield "two"
        raise KeyError("three")

    @tool
    def endless(self):
        print("begun", file=sys.stderr, flush=True)
        while True:
            yield "x" * 1000

    @tool
    def noisy(self) -> int:
        print("on stdout", flush=True)
        print("on stderr", file=sys.stderr, flush=True)
        return 1

    @tool
    def steps(self, context: SessionContext) -> int:
        context.progress(1, 2, "half \\x1b[31mdone")
        time.sleep(0.5)
        return 1

    @tool
    def fail(self) -> None:
        raise ValueError("no such luck")

    @tool
    def die(self) -> None:
        os._exit(7)

    @tool
    def sleep(self) -> None:
        print("asleep", flush=True)
        time.sleep(600)

    @tool
    def thing(self) -> object:
        return {1, 2} | {frozenset({3})}

    @tool(resources={"gpu": 1})
    def learn(self) -> str:
        return "learned"
'''


def environment(**variables: str) -> dict[str, str]:
    """The variables of a command that runs this tree."""
    left_out = ("FORCE_COLOR", "SNAKEPIT_ADAPTER", "COLUMNS", "LINES")  # pytest-xdist sets a size
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def command(*args: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "snakepit_trio", *args]


def snakepit(*args: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(*args),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
