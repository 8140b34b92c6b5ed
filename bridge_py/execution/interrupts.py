"""Stopping sync Python code from another thread, and only the code it was meant for.

An interrupt can arrive just after the tool it was meant for has ended. Both classes here raise
`ToolCancelled` only between the first and the last instruction of `run`, for the very call that
was cancelled, and once at the most.

Some code must not be left half-way: an import (the module would be broken for all later calls), a
finalizer (which would swallow the exception), code that takes a lock and has not yet reached its `try`,
our own that posts a question to the host.
There nothing is raised, and whoever interrupts tries again a little later. A thread that waits for a lock may never
be met elsewhere, so with locks that goes on for so many attempts only. Where the call runs an event loop, the loop is
asked to cancel what it runs; only code that blocks the loop is interrupted itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # 0.1 µs for each call, where those of `signal` take 2 µs
import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from bridge_py.wire.errors import ToolCancelled

from .running_loops import RunningLoop, is_loops_own, loop_of, running_here

__calls_tools__ = True  # its outermost frames are left out of the tracebacks of tools
_SIGURG: Final = int(signal.SIGURG)
_INSTRUCTIONS = 100  # a pending exception is raised at one of the next few
# Not to be left while they are anywhere on the stack: imports, and the finalizers of weakref.
_WHOLE: Final = frozenset({"importlib", "weakref"})
# Not to be left while they are what runs: functions of logging between which and its `try` nothing can be raised, and
# all of a coverage tracer, which takes a lock of its own inside the code that it traces.
_LOCKS_OF_LOGGING: Final = frozenset({"acquire", "release", "_acquireLock", "_releaseLock"})
_CAREFUL_ATTEMPTS: Final = 20
_LOOP_ATTEMPTS: Final = 15  # until a loop that has not heard counts as blocked


class Interruptible(Protocol):
    """What an interrupt needs to know of a call."""

    cancelled: bool
    interrupted: bool
    attempts: int  # to interrupt it
    loop: RunningLoop | None  # that was asked to cancel it


class MainThreadInterrupts:
    """Interrupts sync tools on the main thread by a signal, which also ends blocking system calls.

    SIGURG is used because its default action is to be ignored, so that a late one does no harm, and
    because no library is known to claim it.
    """

    def __init__(self) -> None:
        self._current: Interruptible | None = None
        self._thread = threading.main_thread().ident
        self._handler = self._handle  # one object, which can be recognized
        signal.signal(signal.SIGURG, self._handler)

    def run(self, call: Interruptible, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run user code on the main thread; raises `ToolCancelled` if it is interrupted."""
        self._listen()
        self._current = call
        try:
            if call.cancelled and not call.interrupted:
                raise ToolCancelled
            return function(*args, **kwargs)
        finally:
            # An interrupt just before this line leaves _current set, but then `interrupted` is set
            # too and the handler stays quiet until the next call takes the place.
            self._current = None

    def interrupt(self) -> None:
        """From any thread: interrupt the current call if it is marked as cancelled and may be left half-way."""
        assert self._thread is not None
        signal.pthread_kill(self._thread, signal.SIGURG)

    def _handle(self, _signum: int, frame: FrameType | None) -> None:
        call = self._current
        if call is not None and call.cancelled and not call.interrupted and _is_interrupted(call, frame, running_here):
            raise ToolCancelled

    def _listen(self) -> None:
        # An earlier call may have taken the signal's handler away, or blocked the signal.
        if _signal.getsignal(_SIGURG) is not self._handler:
            signal.signal(signal.SIGURG, self._handler)
        _signal.pthread_sigmask(signal.SIG_UNBLOCK, (_SIGURG,))


class ThreadInterrupt:
    """Interrupts one sync call on its own thread by an asynchronous exception.

    It takes effect at the next bytecode instruction: code that blocks in C is not interrupted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    def run(self, call: Interruptible, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run user code on this thread; raises `ToolCancelled` if it is interrupted."""
        with self._lock:
            self._thread = threading.get_ident()
        try:
            if call.cancelled:
                raise ToolCancelled
            return function(*args, **kwargs)
        finally:
            self._leave()

    def interrupt(self, call: Interruptible) -> None:
        """From any other thread: interrupt the call if it is between start and end and may be left half-way."""
        with self._lock:
            if self._thread is None or call.interrupted:
                return
            if _is_interrupted(call, sys._current_frames().get(self._thread)):
                _set_async_exception(self._thread, ToolCancelled)

    def _leave(self) -> None:
        # The exception may be pending still and would hit whatever comes next, so it is let in here. Taking it
        # back (by setting NULL) leaves the interpreter's own flag up, and 3.11 then loops forever under a tracer.
        try:
            with self._lock:
                self._thread = None
            for _ in range(_INSTRUCTIONS):
                pass
        except ToolCancelled:
            self._thread = None


def _is_interrupted(
    call: Interruptible, frame: FrameType | None, find: Callable[[], RunningLoop | None] = lambda: None
) -> bool:
    """Whether to raise at `frame`, which is the call's. Marks the call as interrupted then, or when its loop was told.

    `find` finds a loop that no frame shows.
    """
    call.attempts += 1
    if call.loop is not None and call.loop.is_told:
        call.interrupted = True
        return False
    loop = loop_of(frame, __name__) or find()
    if loop is not None and not _is_blocked(call, loop, frame):
        return False
    if _may_be_left(call, frame):
        call.interrupted = True
        if call.loop is not None:
            call.loop.raised()
    return call.interrupted


def _is_blocked(call: Interruptible, loop: RunningLoop, frame: FrameType | None) -> bool:
    """Ask the loop that a call runs to cancel it; returns whether code of the tool seems to keep the loop from that."""
    if call.loop is None or not call.loop.is_same(loop):
        call.loop = loop
    call.loop.cancel()
    return call.attempts > _LOOP_ATTEMPTS and not is_loops_own(frame, in_loop=True)


def _may_be_left(call: Interruptible, frame: FrameType | None) -> bool:
    if call.attempts <= _CAREFUL_ATTEMPTS and (is_loops_own(frame) or _handles_a_lock(frame)):
        return False
    while frame is not None:
        if _package_of(frame) in _WHOLE or frame.f_code.co_name == "__del__" or _is_uninterruptible(frame):
            return False
        frame = frame.f_back
    return True


def _handles_a_lock(frame: FrameType | None) -> bool:
    if frame is None:
        return False
    package = _package_of(frame)
    return package == "coverage" or (package == "logging" and frame.f_code.co_name in _LOCKS_OF_LOGGING)


def _is_uninterruptible(frame: FrameType) -> bool:
    # A question to the host that is half in the outbox would stop all that comes after it.
    return frame.f_globals.get("__uninterruptible__") is True


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _set_async_exception(thread: int, kind: type[BaseException]) -> None:
    # https://docs.python.org/3/c-api/threads.html#c.PyThreadState_SetAsyncExc
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
