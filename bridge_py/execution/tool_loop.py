"""The event loop that coroutine tools run on. It knows which task belongs to which call.

A call is a nursery: the tasks that it has made, and the tasks that those have made, end with it. If a task forks a
child process, the child ends when it comes back to the loop, because the loop belongs to its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from .ending import forks_end, leave_child


class CallTasks:
    """The tasks of one call, except the task that runs the tool itself. For the thread of the loop only."""

    def __init__(self, call_id: int) -> None:
        self.call_id = call_id
        self._tool: asyncio.Task[Any] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in their order, so that runs can be replayed
        self._is_over = False
        #: SystemExit or KeyboardInterrupt of one of the tasks, which is then the outcome of the call.
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Note that the current task runs the tool. Tasks that it makes from now on belong to the call."""
        self._tool = asyncio.current_task()
        _CALL.set(self)

    def add(self, task: asyncio.Task[Any]) -> None:
        """Add a task that code of the call has made."""
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        # The tool has ended. A task that is being cancelled, or a callback that was left behind, has made this task.
        if self._is_over:
            task.cancel()

    def fail(self, error: BaseException) -> None:
        """Note that a task has raised an exception that would end the loop, and cancel the tool."""
        self.error = self.error or error
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # the call reports it, so asyncio need not say that nobody has asked for it
        if self._tool is not None:
            self._tool.cancel()

    async def end(self) -> None:
        """Cancel each task once. Wait until all tasks have ended, and all tasks that they make meanwhile."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            # However often the call is cancelled, it is over only when its tasks are.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(list(self._tasks))


def call_of_task() -> int:
    """The id of the call whose task, or callback, runs on this thread; 0 if there is none."""
    call = _CALL.get()
    return 0 if call is None else call.call_id


def of_call(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Add a new task to the call whose code has made it, if there is one, and return the task."""
    call = _CALL.get()
    if call is not None:
        call.add(task)
    return task


_CALL: contextvars.ContextVar[CallTasks | None] = contextvars.ContextVar("snakepit_call", default=None)


class ToolLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, which knows about calls.

    It derives from the loop's class and uses no policy, because policies that adapters' modules set are for the loops
    of their tools.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._forker: asyncio.Task[Any] | None = None
        os.register_at_fork(before=self._before_fork, after_in_child=self._forked)

    def close(self) -> None:
        """Do nothing: sync tools on the main thread find this loop, and must not close it."""

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, which belongs to the call whose code makes it."""
        return of_call(super().create_task(coro, **options))

    # Its hints are wider than typeshed's, whose parameters have types of their own.
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run a function. A child process that it forks ends with it, because it has no executor to return to."""
        return super().run_in_executor(executor, _run_here, func, *args)

    def run_calls(self, is_over: Callable[[], bool]) -> None:
        """Run the loop until `is_over` says so and the loop has been stopped.

        No tool can end the loop for other calls. If a tool stops the loop, it goes on. SystemExit and KeyboardInterrupt
        end only the call whose task has raised them.
        """
        while not is_over():
            try:
                self.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                call = call_that_raised(error.__traceback__)
                if call is None:
                    raise
                call.fail(error)

    def _before_fork(self) -> None:
        # A child of Python 3.14 and later has no current task.
        self._forker = asyncio.current_task(self)

    def _forked(self) -> None:
        # The child must not run the rest of this turn.
        self._ready.clear()  # type: ignore[attr-defined]  # private: typeshed does not have it

    def _run_once(self) -> None:
        # A child must not wait here either: it shares its parent's selector.
        try:
            if os.getpid() == self._pid:
                super()._run_once()  # type: ignore[misc]  # private: typeshed does not have it
        finally:
            if os.getpid() != self._pid:
                leave_child(self._outcome_of_child())

    def _outcome_of_child(self) -> int | BaseException:
        raised = sys.exception()
        if isinstance(raised, (SystemExit, KeyboardInterrupt)):
            return raised
        if self._forker is None or not self._forker.done():
            return RuntimeError(
                "a child that was forked from a coroutine of a tool cannot wait on its parent's event loop"
            )
        if self._forker.cancelled():
            return 1
        return self._forker.exception() or 0


def _run_here(function: Callable[..., Any], *args: Any) -> Any:
    with forks_end():
        return function(*args)


def call_that_raised(traceback: TracebackType | None) -> CallTasks | None:
    """Find the call whose code has raised an exception that left the loop, from the handle that the loop ran."""
    while traceback is not None:
        ran = traceback.tb_frame.f_locals.get("self")
        if isinstance(ran, asyncio.Handle):
            found: CallTasks | None = ran._context.get(_CALL)  # type: ignore[attr-defined]  # private
            return found
        traceback = traceback.tb_next
    return None


async def completed(returned: Awaitable[Any]) -> None:
    """Await any kind of awaitable, as a coroutine."""
    await returned
