"""Event loops that sync tools run, with `asyncio.run`, `trio.run` and the like, and how they are told to stop.

An exception that is raised at an arbitrary place in such a loop would break it: no `finally` of its coroutines would
run, and their children would live on. So the loop is asked to cancel the code that it runs. The exception that then
comes out of the tool counts as the tool's cancellation.
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
        """Whether the code that it runs has been told, so that no other interrupt is tried."""
        ...

    def cancel(self) -> None:
        """Cancel the code that it runs. Any thread or signal handler may call this, and repeat it until it is told."""

    def raised(self) -> None:
        """Note that an exception is now raised in the code that it runs, because the loop has not reacted."""

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are the same run of the same loop."""
        ...


class AsyncioRun:
    """A run of an asyncio loop until `main` is done. If that is None, `cancel` cancels all tasks and stops the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, main: asyncio.Future[Any] | None) -> None:
        self._loop = loop
        self._main = main
        self._is_asked = False
        self._is_told = False

    @property
    def is_told(self) -> bool:
        """Whether the code that it runs has been told, so that no other interrupt is tried."""
        return self._is_told

    def raised(self) -> None:
        """Note that an exception is now raised in the code that it runs.

        If that code is the main task, the task is not cancelled too, because it may await in its `finally`.
        """
        self._is_told = asyncio.current_task(self._loop) is self._main

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are the same run of the same loop."""
        return isinstance(other, AsyncioRun) and (self._loop, self._main) == (other._loop, other._main)

    def cancel(self) -> None:
        """Cancel the code that it runs. Any thread or signal handler may call this, and repeat it until it is told."""
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
        """Note that an exception is now raised in the code that it runs, because the loop has not reacted."""

    @property
    def is_told(self) -> bool:
        """Whether its main task has ended by an exception. Until then it stays cancelled, so nothing is repeated."""
        return hasattr(self._runner.main_task_outcome, "error")

    def is_same(self, other: RunningLoop) -> bool:
        """Whether both are the same run of the same loop."""
        return isinstance(other, TrioRun) and self._runner is other._runner

    def cancel(self) -> None:
        """Cancel the code that it runs. Any thread or signal handler may call this, and repeat it until it is told."""
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
    """Find the outermost loop that a call runs, from its innermost frame. `caller` is the module that runs calls."""
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
    """Find the asyncio loop that runs in this thread, even one that is written in C and has no frames."""
    loop = asyncio.events._get_running_loop()
    return None if loop is None else AsyncioRun(loop, None)


def is_loops_own(frame: FrameType | None, *, in_loop: bool = False) -> bool:
    """Whether the running code is a loop's own, and not a tool's. In a loop's own code nothing may be raised.

    `in_loop` says that a loop runs this code. Then the code of a pool inside the worker counts too, because an
    exception there would leave files behind.
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
    """Whether an exception is one with which cancelled code ends."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_cancellation(each) for each in error.exceptions)
    trio_cancelled = getattr(sys.modules.get("trio"), "Cancelled", ToolCancelled)
    return isinstance(error, (ToolCancelled, asyncio.CancelledError, KeyboardInterrupt, trio_cancelled))
