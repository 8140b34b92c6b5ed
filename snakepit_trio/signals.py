"""SIGINT and SIGTERM end a program's pools in order.

Without this, SIGTERM would end the process on the spot, and trio would raise KeyboardInterrupt in whatever
runs just then: in the pool's own services, too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import trio

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Ends one pool's body when a signal comes. `scope` is the body's."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.signal: signal.Signals | None = None
        self._token = trio.lowlevel.current_trio_token()

    def interrupt(self, number: signal.Signals) -> None:
        """Cancel the body; from a signal handler."""
        self.signal = number
        self._token.run_sync_soon(self.scope.cancel, idempotent=True)

    def check(self) -> None:
        """Raise what the signal stands for: `KeyboardInterrupt`, or `SystemExit` with 128 + the signal's number."""
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


class _Handlers:
    """Our handlers, in place while any pool is open. The pool that was opened first is told: the others are in it,
    or end with what it raises.
    """

    def __init__(self) -> None:
        self._open: list[Interruption] = []
        self._replaced: dict[signal.Signals, Any] = {}

    def add(self, interruption: Interruption) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if not self._open:
            self._replaced = {number: signal.getsignal(number) for number in _SIGNALS if _is_usual(number)}
            for number in self._replaced:
                signal.signal(number, self._handle)
        self._open.append(interruption)

    def remove(self, interruption: Interruption) -> None:
        if interruption not in self._open:
            return
        self._open.remove(interruption)
        if self._open:
            return
        for number, handler in self._replaced.items():
            # An application that has set a handler of its own meanwhile keeps it.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        sent = signal.Signals(number)
        first = self._open[0]
        if first.signal is None:
            first.interrupt(sent)
        elif callable(usual := self._replaced[sent]):
            usual(number, frame)  # the second one: the body does not end, or the closing takes too long


_handlers = _Handlers()


@contextmanager
def interruption() -> Iterator[Interruption]:
    """While this is open, the first SIGINT or SIGTERM cancels the body. Signals with a handler of the
    application's own are left alone; so are all of them outside of the main thread.
    """
    it = Interruption()
    _handlers.add(it)
    try:
        yield it
    finally:
        _handlers.remove(it)


def _is_usual(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    if number is signal.SIGTERM:
        return handler is signal.SIG_DFL
    return handler is signal.default_int_handler or getattr(handler, "__module__", "").startswith("trio.")
