"""The terminal of the host, which it lends to one breakpoint at a time.

The worker asks by a socket, and gets a pseudo-terminal: the host copies between it and the terminal. When the host
closes its end, because the call is cancelled, what reads here finds the end of its input.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, TextIO

from bridge_py.wire.errors import UsageError

from .breakpoints import read_line

__uninterruptible__ = True  # a half-made exchange with the host would stop later ones; the host ends all waits here
_LONGEST: Final = 4096  # bytes of a message
_NO_FILE: Final = -1


class HostTerminal:
    """The terminal, for one thread at a time."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)
        self._number = 0  # of the request that has the terminal
        self._descriptor = _NO_FILE
        self.input: TextIO | None = None
        self.output: TextIO | None = None

    def borrow(self, call_id: int, where: str) -> None:
        """Wait for the terminal, and take it. Any thread may call this. Raises `UsageError` if there is none."""
        self._turn.acquire()
        try:
            self._descriptor = self._ask({"open": next(self._numbers), "call": call_id, "where": where[:1000]})
            self.input = open(self._descriptor, closefd=False)  # noqa: SIM115 - `give_back` closes it
            self.output = open(self._descriptor, "w", buffering=1, closefd=False)  # noqa: SIM115 - as above
        except BaseException:
            self._close()
            self._turn.release()
            raise

    def give_back(self) -> None:
        """Let others have the terminal. Only the code that has borrowed it may call this, and only once."""
        self._close()
        self._turn.release()

    def _ask(self, request: dict[str, Any]) -> int:
        self._number = request["open"]
        try:
            self._control.send(json.dumps(request).encode())
            message, descriptors, _, _ = socket.recv_fds(self._control, _LONGEST, 1)
        except OSError as error:
            raise UsageError(f"breakpoint() finds no terminal: {error}") from None
        if not descriptors:
            problem = json.loads(message)["problem"] if message else "the host of this worker has gone"
            raise UsageError(f"breakpoint() finds no terminal: {problem}")
        return descriptors[0]

    def _close(self) -> None:
        for file in (self.input, self.output):
            if file is not None:
                with contextlib.suppress(OSError, ValueError):  # the host may have closed its end
                    file.close()
        self.input = self.output = None
        if self._descriptor != _NO_FILE:
            os.close(self._descriptor)
            self._descriptor = _NO_FILE
        with contextlib.suppress(OSError):  # the host has gone
            self._control.send(json.dumps({"close": self._number}).encode())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have stdin and stdout of this process be the terminal during the block.

        Python's `input` edits lines, with readline, only on them.
        """
        saved = [_copy(0), _copy(1)]
        streams = sys.stdin, sys.stdout
        ask = builtins.input  # a worker's own, which asks nobody
        try:
            builtins.input = read_line
            _flush(sys.stdout)
            for number in (0, 1):
                os.dup2(self._descriptor, number)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they own no descriptors
            sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - as above
            yield
        finally:
            _flush(sys.stdout)
            sys.stdin, sys.stdout = streams
            builtins.input = ask
            for number, copy in enumerate(saved):
                _restore(number, copy)


def _copy(number: int) -> int:
    try:
        return os.dup(number)
    except OSError:  # code of the adapter has closed it
        return _NO_FILE


def _restore(number: int, copy: int) -> None:
    if copy == _NO_FILE:
        os.close(number)
    else:
        os.dup2(copy, number)
        os.close(copy)


def _flush(stream: object) -> None:
    if isinstance(stream, io.TextIOBase):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
