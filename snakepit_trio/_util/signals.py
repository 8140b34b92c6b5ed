"""SIGINT and SIGTERM end a program's pools in order.

Without this, SIGTERM would end the process on the spot, and trio would raise KeyboardInterrupt in the code
that runs at that moment, even in the pool's own services.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import trio

from .nurseries import with_those_above

T = TypeVar("T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Ends one pool's body when a signal comes. `scope` is the body's scope; `hurry` shortens the pool's closing."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.scope = trio.CancelScope()
        self.signal: signal.Signals | None = None
        self.is_closing = False
        self.is_hurried = False
        self.guarded: set[trio.lowlevel.Task] = set()  # tasks in whose code no KeyboardInterrupt may be raised
        self._hurry = hurry
        self._token = trio.lowlevel.current_trio_token()

    @trio.lowlevel.enable_ki_protection
    async def guard(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the pool's own: no KeyboardInterrupt is raised in its code, or in its child tasks."""
        task = trio.lowlevel.current_task()
        self.guarded.add(task)
        try:
            await function()
        finally:
            self.guarded.discard(task)

    def interrupt(self, number: signal.Signals) -> None:
        """Cancel the body. For use in a signal handler."""
        self.signal = number
        self._token.run_sync_soon(self.scope.cancel, idempotent=True)

    def hurry(self) -> None:
        """Shorten the closing. For use in a signal handler."""
        self.is_hurried = True
        self._token.run_sync_soon(self._hurry, idempotent=True)

    def check(self) -> None:
        """Raise what the signal stands for: `KeyboardInterrupt`, or `SystemExit` with 128 + the signal's number."""
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


class _Handlers:
    """Our signal handlers, in place while any pool is open.

    The first signal goes to the pool that was opened first: the other pools are inside it, or end with the exception
    that it raises. A further signal shortens the closing of the pools that are closing. If no pool is closing, or no
    closing can be shortened more, the signal does what it would do without us: it breaks into the application's code.
    """

    def __init__(self) -> None:
        self._open: list[Interruption] = []
        self._replaced: dict[signal.Signals, Any] = {}
        self._held = threading.local()  # `mask`: the signals that a thread blocked before it forked
        self._were_told = False

    def add(self, interruption: Interruption) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if not self._open:
            self._were_told = False
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
        if not self._open:
            return  # the signal comes while the last pool is being removed
        first, was_told = self._open[0], self._were_told
        self._were_told = True
        is_news = first.signal is None
        if is_news:
            first.interrupt(signal.Signals(number))
        if not was_told:
            return
        closing = [each for each in self._open if each.is_closing]
        unhurried = [each for each in closing if not each.is_hurried]
        for each in unhurried:
            each.hurry()
        if not unhurried and not is_news:
            self._break_in(frame, is_closing=bool(closing))

    def _break_in(self, frame: FrameType | None, *, is_closing: bool) -> None:
        """Have KeyboardInterrupt raised in the application's code. `check` decides what comes out of the block."""
        usual = self._replaced.get(signal.SIGINT)
        if not callable(usual):
            return
        if self._may_be_interrupted(frame):
            usual(signal.SIGINT, frame)
        elif not is_closing:
            usual(signal.SIGINT, None)  # trio raises it at the next checkpoint of the main task

    def _may_be_interrupted(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not _unguarded.__code__:
            frame = frame.f_back
        return frame is not None or not _is_guarded({task for each in self._open for task in each.guarded})

    def hold(self) -> None:
        """Block our signals before a fork.

        A signal to the child then waits until the child has handlers of its own. With our handlers it would be lost.
        """
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._replaced)

    def release(self) -> None:
        """Restore the signal mask after the fork, in the parent and in the child."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def forget(self) -> None:
        """Restore the usual handlers in a forked child, which has no pool: signals end it, as they end any program."""
        self._open.clear()
        for number in self._replaced:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


_handlers = _Handlers()
# In the child, `forget` runs first, and `release` after it.
os.register_at_fork(before=_handlers.hold, after_in_parent=_handlers.release, after_in_child=_handlers.forget)
os.register_at_fork(after_in_child=_handlers.release)


@contextmanager
@trio.lowlevel.enable_ki_protection
def interruption(hurry: Callable[[], None]) -> Iterator[Interruption]:
    """While this is open, the first SIGINT or SIGTERM cancels the body. The end then raises the signal's exception.

    Further signals call `hurry` while the pool closes. Signals for which the application has its own handler are left
    alone. Outside of the main thread, all signals are left alone.
    """
    it = Interruption(hurry)
    _handlers.add(it)
    try:
        yield it
    finally:
        _handlers.remove(it)
        it.check()


async def for_the_application(function: Callable[[], Awaitable[T]]) -> T:
    """Await code of the application in a task of the pool's own. If the code blocks, a signal can break in.

    Then the main task gets the KeyboardInterrupt, and this function raises `RuntimeError`.
    """
    try:
        return await _unguarded(function)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("it was interrupted by a signal") from None


@trio.lowlevel.disable_ki_protection
async def _unguarded(function: Callable[[], Awaitable[T]]) -> T:
    return await function()


def _is_guarded(guarded: set[trio.lowlevel.Task]) -> bool:
    try:
        task = trio.lowlevel.current_task()
    except RuntimeError:
        return True  # trio's own code
    return not guarded.isdisjoint(with_those_above(task))


def _is_usual(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    if number is signal.SIGTERM:
        return handler is signal.SIG_DFL
    # Trio's own, and not that of an application's `trio.open_signal_receiver`, which is in `trio._signals`.
    return handler is signal.default_int_handler or getattr(handler, "__module__", "").startswith("trio._core.")
