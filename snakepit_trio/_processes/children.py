"""Small helper processes of ours: keepers and guardians. Each has a socket to us, which ends with the process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.threads import run_in_thread

from .guardian import start_ticks

_REAP: Final = 1.0  # seconds from the end of its socket to the end of a process; both come together
_PASS: Final = 0.001
_CHUNK: Final = 65536

Start = Callable[[socket.socket], "subprocess.Popen[bytes]"]


class Forked:
    """A helper that is no child of this process: a template has forked it. `pid` is its process id; 0 for none yet.

    It has the methods of `subprocess.Popen` that helpers need. Its parent knows its exit code, and nobody here.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None if pid else 0
        self._ticks: int | None = None
        with contextlib.suppress(OSError):
            self._ticks = start_ticks(pid)

    def poll(self) -> int | None:
        """Return 0 if the process has ended, else None. Raises no error: while nothing is known, it has not ended."""
        with contextlib.suppress(OSError):
            if self.returncode is None and start_ticks(self.pid) != self._ticks:
                self.returncode = 0
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, if it lives."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Wait for the end of the process. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("a keeper", timeout)
            time.sleep(_PASS)
        return 0


class Child:
    """One helper process, by its socket. `pid` is its process id."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, end: socket.socket) -> None:
        self.process = process
        self.pid = process.pid
        self._end = end
        self._stream = trio.socket.from_stdlib_socket(end)
        self._reading = trio.Lock()
        self._read = b""
        self._has_ended = False

    @classmethod
    async def start(cls, start: Start) -> Self:
        """Start a helper. `start` is called in a thread, with the end of the socket that the process gets.

        Raises `OSError`, and the errors of `start`. A cancellation does not end this sooner: a process that was
        started is not lost.
        """
        ours, theirs = socket.socketpair()
        try:
            with trio.CancelScope(shield=True):
                process = await run_in_thread(start, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        # A shielded scope with no deadline swallows nothing, so there is a process.
        return cls(process, ours)  # pyright: ignore[reportPossiblyUnboundVariable]

    @classmethod
    async def forked(cls, ours: socket.socket) -> Self | None:
        """The helper at the other end of a socket, which a template forks. None if it ends before it says its pid.

        Raises `OSError` if the template cannot fork it. Closes the socket if it returns no helper, or is cancelled: a
        helper that has been forked, or will be, ends by that.
        """
        child = cls(Forked(0), ours)
        try:
            what, _, said = (await child.read_line() or b"").partition(b" ")
            if what == b"error":
                raise OSError(said.decode("utf-8", "replace"))
        except BaseException:
            child.let_go()
            raise
        if what != b"keeper":
            child.let_go()
            return None
        child.pid = int(said)
        child.process = Forked(child.pid)
        return child

    def tell(self, data: bytes) -> None:
        """Send a few bytes. May be called from any thread, and from signal handlers.

        If they do not arrive, the end of the process will tell.
        """
        with contextlib.suppress(OSError):
            self._end.send(data)

    async def read_line(self) -> bytes | None:
        """The next line that it writes, or None at its end. Several tasks may wait; each line goes to one of them."""
        async with self._reading:
            while b"\n" not in self._read:
                data = await self._receive()
                if not data:
                    return None
                self._read += data
            line, _, self._read = self._read.partition(b"\n")
            return line

    async def _receive(self) -> bytes:
        if self._has_ended:
            return b""
        try:
            data = await self._stream.recv(_CHUNK)
        except OSError:
            data = b""  # it ended without reading what was sent to it
        self._has_ended = not data
        return data

    async def until_reaped(self) -> None:
        """Wait for its end, and reap it. Works even if the application reaps all children itself."""
        while await self.read_line() is not None:
            pass
        with trio.move_on_after(_REAP):
            while self.process.poll() is None:  # noqa: ASYNC110 - a pidfd would be one more descriptor
                await trio.sleep(_PASS)
        if self.process.poll() is None:
            self.process.kill()

    def let_go(self) -> None:
        """Close this process's copy of the socket to it. When all copies are closed, it ends if it lives.

        For the process that started it, and for forked children.
        """
        self._end.close()


def interpreter(python: str) -> str:
    """The interpreter that runs helpers. `python` is the interpreter of the workers.

    Raises `UsageError` if there is none. In a frozen program, or a server that embeds Python, `sys.executable` would
    start that program once more.
    """
    if _is_interpreter():
        return sys.executable
    if python == sys.executable:
        raise UsageError(
            f"this program, {sys.executable or 'whose executable is not known'}, has no Python interpreter that could"
            " run workers, as programs have none that PyInstaller and the like have frozen: give python= the path of"
            " one, such as open_pool(..., python='/usr/bin/python3')"
        )
    return python


def _is_interpreter() -> bool:
    return "py" in Path(sys.executable or "").name and not getattr(sys, "frozen", False)


def script(module_file: str) -> str:
    """The path of a helper's source. Raises `UsageError` if it is not there, as in a frozen program."""
    path = Path(module_file).with_suffix(".py")
    if not path.is_file():
        raise UsageError(
            f"{path} is not there: a frozen program needs the sources of snakepit_trio and bridge_py beside it"
            " (PyInstaller: --collect-all snakepit_trio --collect-all bridge_py)"
        )
    return str(path)
