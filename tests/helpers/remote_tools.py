"""Tools that tell on which machine they run."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from bridge_py import BaseAdapter, SessionContext, tool

_TICK = 0.01  # seconds


class RemoteTools(BaseAdapter):
    """All of them. A machine is known by its network namespace."""

    @tool
    def pid(self) -> int:
        """The process id."""
        return os.getpid()

    @tool
    def machine(self) -> str:
        """Which machine this is."""
        return _machine()

    @tool
    def echo(self, value: object) -> object:
        """The argument."""
        return value

    @tool
    def linger(self, folder: str) -> str:
        """Tick in a file of this machine's until there is a file `end`."""
        return _linger(Path(folder))

    @tool(idempotent=True)
    def linger_again(self, folder: str) -> str:
        """The same, which may run again."""
        return _linger(Path(folder))

    @tool
    def write_on(self, folder: str, context: SessionContext) -> None:
        """Write to a variable of the session, for ever."""
        number = 0
        while True:
            number += 1
            context.update_variable("number", number)
            _tick(Path(folder))

    @tool
    def write(self, value: int, context: SessionContext) -> str:
        """Write to the same variable, once."""
        context.update_variable("number", value)
        return _machine()

    @tool
    def hold_the_gil(self, seconds: float) -> str:
        """Sleep in C without letting any other thread run."""
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return "held"


def _machine() -> str:
    return str(os.stat("/proc/self/ns/net").st_ino)


def _linger(folder: Path) -> str:
    while not (folder / "end").exists():
        _tick(folder)
    return _machine()


def _tick(folder: Path) -> None:
    with open(folder / f"{_machine()}-{os.getpid()}", "a") as file:
        file.write(".")
    time.sleep(_TICK)
