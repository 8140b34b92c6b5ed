"""Stops sync Python code from another thread, and only the code that is to be stopped.

An interrupt can arrive just after its tool has ended. Both classes here raise `ToolCancelled` only between the first
and the last instruction of `run`, only for the call that was cancelled, and at most once.

Some code must not be left half-way: an import (the module would be broken for all later calls), a finalizer (which
would swallow the exception), code that takes a lock and has not yet reached its `try`, and our own code that posts a
question to the host. There nothing is raised, and the caller tries again a little later. A thread that waits for a
lock may never be found in other code, so code around locks is spared for a limited number of attempts only. If the call
runs an event loop, the loop is asked to cancel the code that it runs; only code that blocks the loop is interrupted
itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # its calls take 0.1 µs each, those of `signal` 2 µs
import ctypes
import opcode
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from bridge_py.wire.errors import ToolCancelled

from .running_loops import RunningLoop, is_loops_own, loop_of, running_here

__calls_tools__ = True  # tracebacks of tools leave out the outermost frames of this module
_SIGURG: Final = int(signal.SIGURG)
_TURN: Final = 0.001  # seconds
_INSTRUCTIONS = 100  # a pending exception is raised at one of the next few instructions
# No interrupt while these packages are anywhere on the stack: imports, and the finalizers of weakref.
_WHOLE: Final = frozenset({"importlib", "weakref"})
# No interrupt while this is the running code: functions of logging that take or release a lock, and all of a coverage
# tracer. Nothing can be raised between one of these functions and logging's `try`. The tracer takes a lock of its own
# inside the code that it traces.
_LOCKS_OF_LOGGING: Final = frozenset({"acquire", "release", "_acquireLock", "_releaseLock"})
_CAREFUL_ATTEMPTS: Final = 20
_LOAD_SPECIAL: Final = opcode.opmap.get("LOAD_SPECIAL")  # finds `__enter__`, right before its call
_INSTRUCTION: Final = 2  # bytes
_LOOP_ATTEMPTS: Final = 15  # after so many, a loop that has not reacted counts as blocked


class Interruptible(Protocol):
    """The state of a call that an interrupt needs."""

    cancelled: bool
    interrupted: bool
    attempts: int  # how many attempts to interrupt it there were
    loop: RunningLoop | None  # the loop that was asked to cancel it


class MainThreadInterrupts:
    """Interrupts sync tools on the main thread by a signal, which also ends blocking system calls.

    SIGURG is used because its default action is to be ignored, so that a late signal does no harm, and
    because no library is known to use it.
    """

    def __init__(self) -> None:
        self._current: Interruptible | None = None
        self._is_handling = False
        self._thread = threading.main_thread().ident
        self._handler = self._handle  # one object, so that it can be recognized
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
            # An interrupt just before this line leaves _current set. But then `interrupted` is set
            # too, so the handler does nothing until the next call is the current one.
            self._current = None

    def interrupt(self) -> None:
        """Interrupt the current call if it is marked as cancelled and may be left half-way. From any thread."""
        assert self._thread is not None
        signal.pthread_kill(self._thread, signal.SIGURG)

    def _handle(self, _signum: int, frame: FrameType | None) -> None:
        if self._is_handling:
            return  # two signals in a row would find, and tell, a loop twice
        self._is_handling = True
        try:
            self._interrupt_or_rest(self._current, _below_handlers(frame))
        finally:
            self._is_handling = False

    @staticmethod
    def _interrupt_or_rest(call: Interruptible | None, frame: FrameType | None) -> None:
        if call is None or not call.cancelled:
            # The host has sent it: a call is cancelled, and the thread that reads this gets no turn. CPython gives a
            # thread a turn if the running one has kept the GIL for 5 ms, so not if that one often gives it up briefly.
            time.sleep(_TURN)
        elif not call.interrupted and _is_interrupted(call, frame, running_here):
            raise ToolCancelled

    def _listen(self) -> None:
        # An earlier call may have taken the signal's handler away, or blocked the signal.
        if _signal.getsignal(_SIGURG) is not self._handler:
            signal.signal(signal.SIGURG, self._handler)
        _signal.pthread_sigmask(signal.SIG_UNBLOCK, (_SIGURG,))


def _below_handlers(frame: FrameType | None) -> FrameType | None:
    # A signal may come between the first instruction of a handler and its flag, or after that. Then the frame is the
    # handler's own, and whoever looked for the tool's loop from there would not find it.
    while frame is not None and frame.f_code is MainThreadInterrupts._handle.__code__:
        frame = frame.f_back
    return frame


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
        """Interrupt the call if it is between start and end and may be left half-way. From any other thread."""
        with self._lock:
            if self._thread is None or call.interrupted:
                return
            if _is_interrupted(call, sys._current_frames().get(self._thread)):
                _set_async_exception(self._thread, ToolCancelled)

    def _leave(self) -> None:
        # The exception may still be pending, and would hit later code, so it is raised and caught here. Taking it back
        # (by setting NULL) leaves the interpreter's own flag set, and then Python 3.11 loops forever under a tracer.
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
    """Decide whether to raise in the call, whose innermost frame is `frame`. If so, mark the call as interrupted.

    If its loop has been told, mark the call as interrupted, and raise nothing. `find` finds a loop that no frame shows.
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
    """Ask the loop that a call runs to cancel the call; returns whether code of the tool seems to block the loop."""
    if call.loop is None or not call.loop.is_same(loop):
        call.loop = loop
    call.loop.cancel()
    return call.attempts > _LOOP_ATTEMPTS and not is_loops_own(frame, in_loop=True)


def _may_be_left(call: Interruptible, frame: FrameType | None) -> bool:
    if call.attempts <= _CAREFUL_ATTEMPTS and (is_loops_own(frame) or _handles_a_lock(frame) or _enters_a_block(frame)):
        return False
    while frame is not None:
        if _package_of(frame) in _WHOLE or frame.f_code.co_name == "__del__" or _is_uninterruptible(frame):
            return False
        frame = frame.f_back
    return True


def _enters_a_block(frame: FrameType | None) -> bool:
    """Whether a `with` calls `__enter__`, or has called it, but its block has not begun: nothing would call `__exit__`.

    Since Python 3.14 this is a call like others, after which signals are handled. Before, they were not.
    """
    if frame is None or _LOAD_SPECIAL is None or frame.f_lasti < _INSTRUCTION:
        return False
    return frame.f_code.co_code[frame.f_lasti - _INSTRUCTION] == _LOAD_SPECIAL


def _handles_a_lock(frame: FrameType | None) -> bool:
    if frame is None:
        return False
    package = _package_of(frame)
    return package == "coverage" or (package == "logging" and frame.f_code.co_name in _LOCKS_OF_LOGGING)


def _is_uninterruptible(frame: FrameType) -> bool:
    # A question to the host that is half in the outbox would stop all later ones.
    return frame.f_globals.get("__uninterruptible__") is True


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _set_async_exception(thread: int, kind: type[BaseException]) -> None:
    # https://docs.python.org/3/c-api/threads.html#c.PyThreadState_SetAsyncExc
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
