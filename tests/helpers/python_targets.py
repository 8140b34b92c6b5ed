"""What tests of dynamic calls name."""

from __future__ import annotations

import os
import time
from os import system as system  # noqa: PLC0414 - as a careless module has it
from pathlib import Path
from typing import Any


def double(x: Any) -> Any:
    """Twice that."""
    return x + x


def identity(x: Any) -> Any:
    """That."""
    return x


def fail(message: str) -> None:
    """Raise."""
    raise KeyError(message)


def pid() -> int:
    """The worker's."""
    return os.getpid()


def sleep(seconds: float, path: str) -> str:
    """Say so in a file, and sleep in steps, between which it can be interrupted on any thread."""
    Path(path).write_text("sleeping")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.002)
    return "slept"


def hold(path: str, release: str) -> str:
    """Say so in a file, and wait for another one."""
    Path(path).write_text("holding")
    while not Path(release).exists():
        time.sleep(0.002)
    return "held"


class Thing:
    """An object that cannot be sent."""

    alive = 0

    def __init__(self, size: int = 0) -> None:
        self.content = bytes(size)
        self.calls = 0
        Thing.alive += 1

    def __del__(self) -> None:
        Thing.alive -= 1

    def call(self) -> int:
        """Count."""
        self.calls += 1
        return self.calls


def alive() -> int:
    """Things that there are in this process."""
    return Thing.alive


def __getattr__(name: str) -> Any:
    """Give what a careless lazy module gives."""
    if name == "lazy_system":
        return os.system
    raise AttributeError(name)
