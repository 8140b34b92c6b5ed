"""Runs tools. The link's thread submits and cancels calls; they run in the order of submission.

A worker with one call at a time runs sync tools on the main thread, because many libraries work only there, and
coroutines on the main thread's event loop. With several calls at a time the main thread belongs to the event loop, and
each sync tool gets a thread.

Before a call starts, its id goes into the ledger: memory shared with the host, which outlives the process. Calls start
in order, except behind a call whose arguments must be fetched (see `_take`). So the ledger tells the host which calls
of a dead worker never started; the host may run those calls elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from mmap import mmap
from queue import SimpleQueue
from typing import Any, Final, Protocol

from bridge_py.buffers.buffer_sets import EncodedValue, cost_of, drop
from bridge_py.wire.conversation import UNTIMED, Times
from bridge_py.wire.errors import CANCELLED, NOT_STARTED, Fault, ToolCancelled

from .batches import BatchCall
from .credit import AsyncCredit, SyncCredit
from .ending import end_forked
from .interrupts import MainThreadInterrupts, ThreadInterrupt
from .ledger import note_start
from .running_loops import is_cancellation
from .tool_call import ToolCall
from .tool_loop import CallTasks, ToolLoop, call_of_task, completed

__calls_tools__ = True  # tracebacks of tools leave out the outermost frames of this module
_END: Final = object()
_QUICK: Final = 1_000_000  # nanoseconds
_NO_CALL: Final = 0  # wakes the thread that waits for calls
Pack = Callable[[Any, str], EncodedValue]
PostMortem = Callable[[ToolCall, BaseException], None]
Run = Callable[..., Any]  # runs a function with arguments for a call, so that it may be interrupted


class Replies(Protocol):
    """Takes the outcomes of calls. Any thread may call it; each call gets exactly one `result`, `error` or `end`."""

    def result(self, call_id: int, encoded: EncodedValue, times: Times, /) -> None:
        """Report that a call returned."""

    def error(self, call_id: int, fault: Fault, times: Times = UNTIMED, /) -> None:
        """Report that a call raised, was cancelled or never started."""

    def chunk(self, call_id: int, encoded: EncodedValue) -> None:
        """Report that a stream yielded a chunk."""

    def end(self, call_id: int, times: Times, /) -> None:
        """Report that a stream, or a batch, is over."""

    def outcome(self, call_id: int, outcome: EncodedValue | Fault, times: Times, /) -> None:
        """Report that a call of a batch returned or raised. It goes out with the next reply, at the latest."""


def _run_whole(call: ToolCall, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run user code that is never interrupted. If the call is cancelled already, raise `ToolCancelled` instead."""
    if call.cancelled:
        raise ToolCancelled
    return function(*args, **kwargs)


class Lane(Protocol):
    """Brings calls to a main thread that reads them itself."""

    def open(self, has_next: Callable[[], bool] | None, is_next_quick: Callable[[], bool] = ...) -> None:
        """Start it.

        `has_next` tells whether a call waits for the main thread; it is None if the main thread does not read the lane.
        `is_next_quick` tells whether that call was a quick one lately.
        """

    def next(self, calls: SimpleQueue[int | None]) -> int | None:
        """Wait for the next call: the next of `calls`."""

    def leave(self) -> None:
        """Read in place of the main thread from now on, which waits for no more calls."""


class Executor:
    """The base of both executors: the queue, the ledger, and the way from an outcome to its reply."""

    #: The clock that tells how long calls take, in nanoseconds.
    clock: Callable[[], int] = staticmethod(time.monotonic_ns)
    #: Whether that is the clock of this machine, which the host has too.
    tells_begin = True

    def __init__(self, replies: Replies, ledger: mmap | None, pack: Pack) -> None:
        self._replies = replies
        self._ledger = ledger
        self._last_started = 0
        self._pack = pack
        self._calls: dict[int, ToolCall] = {}
        self._waiting: dict[int, ToolCall] = {}
        self._turns = threading.RLock()  # of the thread that starts calls and the one that withdraws them
        self._pid = os.getpid()
        #: Is called with each call that has raised, before its error is sent. It raises nothing.
        self.post_mortem: PostMortem | None = None

    def submit(self, call: ToolCall) -> None:
        """Put a call into the queue. Only the link's thread calls this, `cancel`, `recall`, `grant` and `stop`."""
        self._calls[call.id] = self._waiting[call.id] = call
        self._wake(call.id)

    def submit_batch(self, batch: BatchCall) -> None:
        """Put a batch into the queue. Each of its calls can be cancelled alone."""
        for item in batch.items:
            self._calls[item.id] = item
        self.submit(batch)

    def cancel(self, call_id: int) -> bool:
        """Stop a call: at once if it waits in the queue, by interrupting its code if it runs.

        Returns False if the code cannot be interrupted right now: try again soon.
        """
        call = None if self._withdraw(call_id, CANCELLED) else self._calls.get(call_id)
        if call is None or call.tool.spec.cancel == "kill":  # the host kills this process when it knows of the start
            return True
        call.cancel()
        return call.interrupted

    def recall(self, call_id: int) -> None:
        """Give a call back to the host if it has not started."""
        self._withdraw(call_id, NOT_STARTED)

    def grant(self, call_id: int, credit: int) -> None:
        """Give a stream more credit."""
        call = self._calls.get(call_id)
        if call is not None and call.credit is not None:
            call.credit.grant(credit)

    def running(self) -> int:
        """The id of the call whose code runs here, for log records; 0 if there is none. Any thread may ask."""
        return call_of_task()

    def run(self) -> None:
        """Run calls on the main thread until `stop`."""
        raise NotImplementedError

    def use_lane(self, lane: Lane) -> None:
        """Calls come by a lane from now on. From the link's thread, before the first of them."""
        lane.open(None)

    def stop(self) -> None:
        """Make `run` return after the running calls."""
        raise NotImplementedError

    def complete(self, returned: object) -> None:
        """Await the coroutine of an `async def setup` or `close`, on the event loop of coroutine tools.

        Does nothing for any other object. Do not call it while `run` runs.
        """
        raise NotImplementedError

    def _wake(self, call_id: int, /) -> None:
        raise NotImplementedError

    def _withdraw(self, call_id: int, code: str) -> bool:
        # Only one of this thread and the thread that starts calls gets the call. The reply comes before the next call
        # starts: the host lets no call ask for anything while a call before it seems to run.
        with self._turns:
            call = self._waiting.pop(call_id, None)
            if call is None:
                return False
            fault = Fault(code, "the call had not started")
            self._calls.pop(call_id, None)
            if isinstance(call, BatchCall):
                self._fail_items(call, fault)
            self._replies.error(call_id, fault)
        return True

    def _take(self, call_id: int) -> ToolCall | None:
        with self._turns:
            call = self._waiting.pop(call_id, None)
        # Calls may start out of turn, when arguments are fetched. Then the ledger keeps the largest id: a call
        # that never started may fail, but no call that has started may run again.
        if call is not None and call_id > self._last_started:
            self._last_started = call_id
            if self._ledger is not None:
                note_start(self._ledger, call_id)
        if call is not None:
            call.began = self.clock()
        return call

    def _finish(self, call: ToolCall, error: BaseException | None, encoded: EncodedValue | None) -> None:
        self._calls.pop(call.id, None)
        if call.trace:
            call.end_trace(error)
        times = self._times(call)
        if error is not None:
            if self.post_mortem is not None:
                self.post_mortem(call, error)
            stopped = call.cancelled and is_cancellation(error)
            fault = Fault(CANCELLED, "the call was cancelled") if stopped else call.tool.fault(error)
            if isinstance(call, BatchCall):
                self._fail_items(call, fault, times)
            if stopped or call.tool.streaming or call.tool.is_plain:
                self._replies.error(call.id, fault, times)
            else:
                self._replies.end(call.id, times)  # a batch is over, and its calls have had their errors
        elif encoded is None:
            if isinstance(call, BatchCall):
                self._tell_outcomes(call, times)
            self._replies.end(call.id, times)
        else:
            self._replies.result(call.id, encoded, times)

    def _times(self, call: ToolCall) -> Times:
        return (call.began if self.tells_begin else 0), (self.clock() - call.began) // 1000, call.trace

    # Batches.

    def _refuse_items(self, call: BatchCall) -> None:
        """Tell the callers of a batch whose arguments do not fit, before the others' code runs."""
        for item, fault in call.refused:
            self._calls.pop(item.id, None)
            self._replies.error(item.id, fault)

    def _tell_outcomes(self, call: BatchCall, times: Times) -> None:
        while call.outcomes:
            item, outcome = call.outcomes.popleft()
            self._calls.pop(item.id, None)
            self._replies.outcome(item.id, outcome, times)

    def _fail_items(self, call: BatchCall, fault: Fault, times: Times = UNTIMED) -> None:
        """End all calls of a batch that have not ended."""
        while call.outcomes:
            drop(call.outcomes.popleft()[1])
        for item in call.items:
            if self._calls.pop(item.id, None) is not None:
                self._replies.outcome(item.id, fault, times)

    def _run_sync(self, call: ToolCall, run: Run, stop: Callable[[], object]) -> None:
        if call.tool.spec.cancel != "interrupt":
            run, stop = _run_whole, call.note_told
        call.stop = stop
        error: BaseException | None = None
        encoded = None
        if call.trace:
            call.begin_trace()
        try:
            kwargs = call.arguments()
            if call.tool.is_plain:
                encoded = self._pack(run(call, self._call_here, call.tool.function, (), kwargs), "result")
            elif call.tool.streaming:
                self._drain(call, run, call.tool.function(**kwargs))
            else:
                assert isinstance(call, BatchCall)
                self._refuse_items(call)
                if call.live:
                    call.take(run(call, self._call_here, call.tool.function, (), kwargs), self._pack)
        except BaseException as raised:  # noqa: ASYNC103 - the outcome of the call, whatever it is
            error = raised
        self._finish(call, error, encoded)
        del error  # its traceback refers to this frame, and to shared memory that the host wants back

    def _drain(self, call: ToolCall, run: Run, generator: Generator[Any, None, None]) -> None:
        """Send the chunks that a generator yields, as far as there is credit."""
        # Interrupts may hit only code that runs inside `run`: an interrupt in the middle of posting a chunk would leave
        # the outbox half-done.
        credit = call.credit
        assert isinstance(credit, SyncCredit)
        step = partial(self._call_here, next, (generator, _END), {})
        with contextlib.closing(generator):
            while (value := run(call, step)) is not _END:
                # Encoding comes first: while this waits for credit, other calls and threads may change the value.
                encoded = self._pack(value, "chunk")
                cost = cost_of(encoded)
                if credit.is_left:
                    credit.take(cost)
                else:
                    try:
                        run(call, credit.take, cost)
                    except BaseException:
                        drop(encoded)
                        raise
                self._replies.chunk(call.id, encoded)

    def _call_here(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of user code. A child process that it forks ends with it, and runs no later code of ours."""
        try:
            return function(*args, **kwargs)
        finally:
            end_forked(self._pid, sys.exception())

    async def _run_async(self, call: ToolCall) -> None:
        tasks = CallTasks(call.id)
        error: BaseException | None = None
        encoded = None
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            call.interrupted = True
            loop.call_soon_threadsafe(task.cancel)

        call.stop = stop
        if call.trace:
            call.begin_trace()
        try:
            encoded = await self._await_tool(call, tasks)
        except BaseException as raised:  # noqa: ASYNC103 - a cancellation ends the call, and is its outcome
            error = raised
        self._finish(call, error, encoded)
        del error  # see `_run_sync`

    async def _await_tool(self, call: ToolCall, tasks: CallTasks) -> EncodedValue | None:
        """Run a coroutine tool until it and all tasks that it has made have ended.

        Its result is encoded before the tasks end, because they may change it.
        """
        tasks.begin()
        encoded: EncodedValue | None = None
        try:
            try:
                kwargs = call.arguments()
                if call.tool.is_plain:
                    encoded = self._pack(await call.tool.function(**kwargs), "result")
                elif call.tool.streaming:
                    await self._drain_async(call, call.tool.function(**kwargs))
                else:
                    assert isinstance(call, BatchCall)
                    self._refuse_items(call)
                    if call.live:
                        call.take(await call.tool.function(**kwargs), self._pack)
            finally:
                end_forked(self._pid, sys.exception())
                await tasks.end()
                if tasks.error is not None:
                    raise tasks.error from None
        except BaseException:
            drop(encoded)
            raise
        return encoded

    async def _drain_async(self, call: ToolCall, generator: AsyncGenerator[Any, None]) -> None:
        assert isinstance(call.credit, AsyncCredit)
        async with contextlib.aclosing(generator):
            async for value in generator:
                end_forked(self._pid)
                encoded = self._pack(value, "chunk")
                try:
                    await call.credit.take(cost_of(encoded))
                except BaseException:
                    drop(encoded)
                    raise
                self._replies.chunk(call.id, encoded)


class _MainThreadExecutor(Executor):
    """An executor that has the main thread of a process for its event loop."""

    def __init__(self, replies: Replies, ledger: mmap | None, pack: Pack) -> None:
        super().__init__(replies, ledger, pack)
        self._loop = ToolLoop()

    def complete(self, returned: object) -> None:
        if inspect.isawaitable(returned):
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(completed(returned))


class SerialExecutor(_MainThreadExecutor):
    """One call at a time, on the main thread."""

    def __init__(self, replies: Replies, ledger: mmap | None, pack: Pack) -> None:
        super().__init__(replies, ledger, pack)
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._lane: Lane | None = None
        self._interrupts = MainThreadInterrupts()
        self._running = 0  # the id of the call that runs

    def running(self) -> int:
        """The id of the call that runs, on any thread: there is one at a time."""
        return self._running

    def _wake(self, call_id: int, /) -> None:
        self._queue.put(call_id)

    def stop(self) -> None:
        self._queue.put(None)

    def use_lane(self, lane: Lane) -> None:
        lane.open(lambda: bool(self._waiting), self._is_next_quick)
        self._lane = lane
        self._queue.put(_NO_CALL)

    def _is_next_quick(self) -> bool:
        try:
            return next(iter(self._waiting.values())).tool.is_quick
        except (StopIteration, RuntimeError):
            return False  # there is none, or another thread has just taken or brought one

    def _next(self) -> int | None:
        return self._queue.get() if self._lane is None else self._lane.next(self._queue)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._run()
        finally:
            if self._lane is not None:
                self._lane.leave()

    def _run(self) -> None:
        while (call_id := self._next()) is not None:
            call = self._take(call_id)
            if call is None:
                continue
            self._running = call_id
            if call.tool.is_async:
                self._run_task(self._loop.create_task(self._run_async(call)))
            else:
                self._run_sync(call, self._interrupts.run, self._interrupts.interrupt)
            self._running = 0
            call.tool.is_quick = self.clock() - call.began < _QUICK

    def _run_task(self, task: asyncio.Task[None]) -> None:
        task.add_done_callback(lambda _: self._loop.stop())
        self._loop.run_calls(task.done)


class ConcurrentExecutor(_MainThreadExecutor):
    """Several calls at a time: coroutines on the main thread's event loop, sync tools in threads."""

    def __init__(self, replies: Replies, ledger: mmap | None, pack: Pack, concurrency: int) -> None:
        super().__init__(replies, ledger, pack)
        self._free = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="tool")
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_threads: dict[int, int] = {}  # the calls of tools that run in threads, by the threads' ids
        self._is_over = False

    def running(self) -> int:
        """The id of the call whose code runs on this thread, or in this task; 0 if there is none."""
        return self._in_threads.get(threading.get_ident()) or call_of_task()

    def _wake(self, _call_id: int, /) -> None:
        self._loop.call_soon_threadsafe(self._start_waiting)

    def stop(self) -> None:
        self._is_over = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_calls(lambda: self._is_over)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start_waiting(self) -> None:
        while self._free and self._waiting:
            # Only this thread takes calls, in their order. The link's thread may withdraw any call, so
            # the oldest call may be gone before it is taken.
            oldest = next(iter(list(self._waiting)), None)
            call = None if oldest is None else self._take(oldest)
            if call is not None:
                self._start(call)

    def _start(self, call: ToolCall) -> None:
        self._free -= 1
        if call.tool.is_async:
            runner: Coroutine[Any, Any, None] = self._run_async(call)
        else:
            interrupt = ThreadInterrupt()
            runner = self._in_thread(call, interrupt)
        task = self._loop.create_task(runner)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _in_thread(self, call: ToolCall, interrupt: ThreadInterrupt) -> None:
        await self._loop.run_in_executor(
            self._threads, self._run_here, call, interrupt.run, lambda: interrupt.interrupt(call)
        )

    def _run_here(self, call: ToolCall, run: Run, stop: Callable[[], object]) -> None:
        thread = threading.get_ident()
        self._in_threads[thread] = call.id
        self._run_sync(call, run, stop)
        del self._in_threads[thread]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        self._start_waiting()
