"""Event loops that sync tools run, by `asyncio.run`, `trio.run` and the like, and how they are told to stop.

An exception that is raised wherever such a loop happens to be would break it: no `finally` of its coroutines would
run, and their children would live on. So the loop is asked to cancel what it runs, and what then comes out of the tool
counts as its cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from types import FrameType
from typing import Any, Final, Protocol

from bridge_py.wire.errors import ToolCancelled

_LOOPS: Final = frozenset({"asyncio", "uvloop", "trio"})
_HELPERS: Final = frozenset({"outcome", "selectors"})


class RunningLoop(Protocol):
    """A loop that a tool runs."""

    @property
    def is_told(self) -> bool:
        """What it runs has been told, so that an interrupt is not tried again."""
        ...

    def cancel(self) -> None:
        """Cancel what it runs. From any thread, and in a signal handler; may be called again until it is told."""

    def raised(self) -> None:
        """An exception is raised in what it runs now, because it did not hear."""

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are one run of one loop."""
        ...


class AsyncioRun:
    """A run of an asyncio loop until `main` is done. If that is None, all its tasks are cancelled and it is stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop, main: asyncio.Future[Any] | None) -> None:
        self._loop = loop
        self._main = main
        self._is_asked = False
        self._is_told = False

    @property
    def is_told(self) -> bool:
        """What it runs has been told, so that an interrupt is not tried again."""
        return self._is_told

    def raised(self) -> None:
        """An exception is raised in what it runs now. Its main task may await in its `finally`: it is not cancelled."""
        self._is_told = asyncio.current_task(self._loop) is self._main

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are one run of one loop."""
        return isinstance(other, AsyncioRun) and (self._loop, self._main) == (other._loop, other._main)

    def cancel(self) -> None:
        """Cancel what it runs. From any thread, and in a signal handler; may be called again until it is told."""
        if not self._is_asked and not self._loop.is_closed():
            self._is_asked = True
            with contextlib.suppress(RuntimeError):  # it has been closed meanwhile
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._main is not None:
            self._is_told = self._is_told or self._main.cancel()
            return
        tasks = asyncio.all_tasks(self._loop)
        if not tasks:
            self._loop.stop()
        for task in tasks:
            task.cancel()
        self._is_asked = False


class TrioRun:
    """A run of trio."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._is_asked = False

    def raised(self) -> None:
        """An exception is raised in what it runs now, because it did not hear."""

    @property
    def is_told(self) -> bool:
        """Its main task has ended by an exception. Until then it stays cancelled, so there is nothing to repeat."""
        return hasattr(self._runner.main_task_outcome, "error")

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are one run of one loop."""
        return isinstance(other, TrioRun) and self._runner is other._runner

    def cancel(self) -> None:
        """Cancel what it runs. From any thread, and in a signal handler; may be called again until it is told."""
        if not self._is_asked:
            self._is_asked = True
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._runner.entry_queue.run_sync_soon(self._cancel)

    def _cancel(self) -> None:
        main = self._runner.main_task
        if main is None:
            self._is_asked = False
        elif main.parent_nursery is not None:
            main.parent_nursery.cancel_scope.cancel()


def loop_of(frame: FrameType | None, caller: str) -> RunningLoop | None:
    """The outermost loop that the code of a call runs, by its innermost frame. `caller`: the module that runs calls."""
    found: RunningLoop | None = None
    while frame is not None and frame.f_globals.get("__name__") != caller:
        found = _run_of(frame) or found
        frame = frame.f_back
    return found


def _run_of(frame: FrameType) -> RunningLoop | None:
    module, function = frame.f_globals.get("__name__"), frame.f_code.co_name
    if module == "trio._core._run" and function == "run":
        runner = frame.f_locals.get("runner")
        return None if runner is None else TrioRun(runner)
    if module == "asyncio.base_events" and function == "run_until_complete":
        future = frame.f_locals["future"]
        return AsyncioRun(frame.f_locals["self"], future) if isinstance(future, asyncio.Future) else None
    if module == "asyncio.base_events" and function == "run_forever":
        return AsyncioRun(frame.f_locals["self"], None)
    if module == "asyncio.runners" and function == "run" and isinstance(frame.f_locals.get("task"), asyncio.Task):
        task = frame.f_locals["task"]
        return AsyncioRun(task.get_loop(), task)
    return None


def running_here() -> RunningLoop | None:
    """The asyncio loop that runs in this thread, also one that is written in C and has no frames."""
    loop = asyncio.events._get_running_loop()
    return None if loop is None else AsyncioRun(loop, None)


def is_loops_own(frame: FrameType | None, *, in_loop: bool = False) -> bool:
    """Whether it is a loop's own code that runs, not that of a tool: there nothing may be raised.

    `in_loop`: a loop runs this code. Then that of a pool inside the worker counts too, which would leave files behind.
    """
    package = _package_of(frame)
    return package in _LOOPS or (in_loop and (package in _HELPERS or _is_a_pools(frame)))


def _is_a_pools(frame: FrameType | None) -> bool:
    while frame is not None and (package := _package_of(frame)) not in _LOOPS:
        if package == "snakepit_trio":
            return True
        frame = frame.f_back
    return False


def _package_of(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__")).partition(".")[0]


def is_cancellation(error: BaseException) -> bool:
    """Whether an exception is what comes out of code that was cancelled."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_cancellation(each) for each in error.exceptions)
    trio_cancelled = getattr(sys.modules.get("trio"), "Cancelled", ToolCancelled)
    return isinstance(error, (ToolCancelled, asyncio.CancelledError, KeyboardInterrupt, trio_cancelled))
