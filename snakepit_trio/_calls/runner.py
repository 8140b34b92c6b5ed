"""One call of an application, from its arguments to its outcome."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NoReturn, Protocol

import attrs
import trio

from bridge_py.buffers.buffer_sets import BufferSet, encode_value
from bridge_py.tools.pickling import OF_HOST, PLAIN
from bridge_py.wire import codec
from bridge_py.wire.errors import CallTimeout, CodecError, DecodeError, ToolError, UsageError
from bridge_py.wire.frames import Frame
from bridge_py.wire.large import LARGE
from bridge_py.wire.trace_context import current_trace, note_correlation
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.policies import Affinity, RetryPolicy
from snakepit_trio._util.blocks import block
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.ownership import OneRun, no_trio
from snakepit_trio._util.threads import read_in_thread
from snakepit_trio.errors import CallCancelled, OutOfResources, PoolError, WorkerCrashed
from snakepit_trio.state.store import SessionStore
from snakepit_trio.state.view import SessionView

from .abandonment import abandon
from .call import (
    Arguments,
    Call,
    CallWorker,
    Default,
    Timeout,
    check_call,
    check_priority,
    check_retries,
    seconds_of,
    session_id_of,
)
from .counting import is_given_up, is_left
from .deadlines import Deadlines
from .dispatcher import Dispatcher
from .functions import Function
from .nesting import parent_of_new_calls
from .progress import CallProgress, OnProgress
from .queues import Limit, Needs
from .shared_copies import SharedCopies
from .streams import Chunks
from .telling import tell_end, tell_start
from .timing import note_timing, timing_of
from .under_way import CallsUnderWay
from .wording import lateness

logger = get_logger("snakepit.calls")

_SUSPECTS_WAIT: Final = 1.0  # seconds
_TIMEOUT: Final = 30.0
_STREAM_TIMEOUT: Final = 300.0
Reader = Callable[[Frame], Any]


def _unchanged(error: Exception) -> Exception:
    return error


class Strength(Protocol):
    """How many workers a pool should have, and how many of them do not take calls."""

    target: int

    def missing(self) -> int:
        """How many workers should be ready and are not."""
        ...


class CallRunner:
    """Makes the calls of a pool: encode, budget, wait, decode."""

    def __init__(
        self,
        config: PoolConfig,
        dispatcher: Dispatcher,
        strength: Strength,
        deadlines: Deadlines,
        shared_copies: SharedCopies,
        most_at_once: int = LARGE,
        store: SessionStore | None = None,
    ) -> None:
        """`most_at_once`, in bytes, bounds values that are read here and not in a thread. `store` has the sessions."""
        self.affinities: dict[str, Affinity] = {}  # by session id, of sessions with an affinity of their own
        self.cancelled = self.timed_out = self.retried = 0
        self.values = OF_HOST if config.pickle else PLAIN  # how the values of functions' calls are sent and read
        self._config = config
        self._sizes = config.sizes
        self._adapter = config.adapter
        self._has_say = config.adapter.has_a_say
        self._runs_functions = config.adapter.protocol == "link"
        self.dispatcher = dispatcher
        self._strength = strength
        self._deadlines = deadlines
        self._shared_copies = shared_copies
        self._most_at_once = most_at_once
        self._store = store
        self._run = OneRun()
        self.under_way = CallsUnderWay(dispatcher, self._stop)

    # A KeyboardInterrupt in the middle of a change of state would leave calls that nobody ends.
    @trio.lowlevel.enable_ki_protection
    async def execute(
        self,
        name: str,
        args: Arguments | None,
        timeout: Timeout,
        session: SessionView | str | None,
        retries: int | RetryPolicy | None = None,
        claim: Callable[[CallWorker], bool] | None = None,
        reader: Reader | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        limits: tuple[Limit, ...] = (),
        resources: Needs = (),
    ) -> Any:
        """Run a tool, and return its result once none of its code runs.

        `claim` is asked whether a worker may start the call. If it returns False, the call fails with `Displaced`.
        `reader` decodes the result in place of the usual way.
        """
        progress = None if on_progress is None else CallProgress.for_caller(on_progress)
        call = self._new_call(name, args, timeout, session, None, retries, priority)
        call.progress, call.claim, call.limits, call.resources = progress, claim, limits, resources
        try:
            await self._finish(call)
            if call.failure is not None:
                call = await self._retry(call, retries)
        finally:
            if call.buffers is not None:
                self._unload(call)
        assert call.final is not None
        if len(call.final.body) > self._most_at_once:
            response = await read_in_thread(self._decode, call, call.final, reader)
        else:
            response = self._decode(call, call.final, reader)
        return self._adapter.process_response(name, response) if self._has_say else response

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        function: Function,
        args: Any,
        timeout: Timeout,
        session: SessionView | str | None,
        retries: int | RetryPolicy | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        limits: tuple[Limit, ...] = (),
        resources: Needs = (),
    ) -> Any:
        """Run a function, and return its result, or raise what it raised, once none of its code runs."""
        progress = None if on_progress is None else CallProgress.for_caller(on_progress)
        call = self._new_call_of(function, args, timeout, session, None, retries, priority)
        call.progress, call.limits, call.resources = progress, limits, resources
        failure: Exception | None = None
        try:
            await self._finish(call)
            if call.failure is not None:
                call = await self._retry(call, retries)
        except ToolError as error:
            failure = error
        finally:
            if call.buffers is not None:
                self._unload(call)
        if failure is not None:
            raise function.as_raised(failure)  # out here, so that its context is its own
        assert call.final is not None
        if len(call.final.body) > self._most_at_once:
            response = await read_in_thread(self._decode, call, call.final, function.read)
        else:
            response = self._decode(call, call.final, function.read)
        has_say = self._has_say and function.signature is not None
        return self._adapter.process_response(function.name, response) if has_say else response

    @block("async with pool.stream(...) as chunks")
    @trio.lowlevel.enable_ki_protection
    async def stream(
        self,
        name: str,
        args: Arguments | None,
        timeout: Timeout,
        session: SessionView | str | None,
        claim: Callable[[CallWorker], bool] | None = None,
        reader: Reader | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        limits: tuple[Limit, ...] = (),
        resources: Needs = (),
    ) -> AsyncIterator[Chunks[Any]]:
        """Run a streaming tool for the time of the block. `claim` and `reader` are as for `execute`."""
        progress = None if on_progress is None else CallProgress.for_caller(on_progress)
        call = self._new_call(name, args, timeout, session, self._config.stream_window, None, priority)
        call.claim, call.progress, call.limits, call.resources = claim, progress, limits, resources
        decode = self._decode if reader is None else partial(self._decode, reader=reader)
        async with self._streaming(call, decode) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    @block("async with pool.iterate(...) as chunks")
    @trio.lowlevel.enable_ki_protection
    async def iterate(
        self,
        function: Function,
        args: Any,
        timeout: Timeout,
        session: SessionView | str | None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        limits: tuple[Limit, ...] = (),
        resources: Needs = (),
    ) -> AsyncIterator[Chunks[Any]]:
        """Run a generator function for the time of the block."""
        progress = None if on_progress is None else CallProgress.for_caller(on_progress)
        call = self._new_call_of(function, args, timeout, session, self._config.stream_window, None, priority)
        call.progress, call.limits, call.resources = progress, limits, resources
        async with self._streaming(call, partial(self._decode, reader=function.read), function.as_raised) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def _streaming(
        self,
        call: Call,
        decode: Callable[[Call, Frame], Any],
        failed: Callable[[Exception], Exception] = _unchanged,
    ) -> AsyncIterator[Chunks[Any]]:
        raised: BaseException | None = None
        try:
            if self.dispatcher.events.is_heard:
                tell_start(self.dispatcher.events, call)
            if call.buffers is not None or self.dispatcher.taints.has_suspects:
                await self._prepare(call)
            self._submit(call)
            chunks = Chunks[Any](call, self._config.stream_window, decode, self._time_out, failed, self._most_at_once)
            try:
                yield chunks
            finally:
                chunks._leave()
            self.dispatcher.succeeded += is_left(call)
        except BaseException as error:
            raised = error
            self.cancelled += is_given_up(call, error)
            raise
        finally:
            try:
                await self._abandon(call)  # noqa: ASYNC102 - shielded and bounded in there
            finally:
                self._forget(call, raised)
                del raised  # its traceback refers to this frame
                if call.buffers is not None:
                    self._unload(call)

    def _new_call(
        self,
        name: str,
        args: Arguments | None,
        timeout: Timeout,
        session: SessionView | str | None,
        credit: int | None,
        retries: int | RetryPolicy | None,
        priority: int | None,
    ) -> Call:
        self._check_place()
        check_call(name, args, retries, priority)
        args = args or {}
        session_id = "" if session is None else session_id_of(session, name, self._store) or ""
        budget = self.budget(name, args, timeout, credit)
        if self._has_say:
            self._adapter.validate_command(name, args)
            args = self._adapter.prepare_args(name, args)
        return self._encoded(name, args, f"{name}: args", session_id, budget, credit, priority)

    def _new_call_of(
        self,
        function: Function,
        args: Any,
        timeout: Timeout,
        session: SessionView | str | None,
        credit: int | None,
        retries: int | RetryPolicy | None,
        priority: int | None,
    ) -> Call:
        if function.signature is not None:
            return self._new_call(function.name, args, timeout, session, credit, retries, priority)
        self._check_place()
        if not self._runs_functions:
            raise UsageError(f"{function.name} cannot run: workers of {self._adapter!r} have tools, and no functions")
        check_retries(retries)
        check_priority(priority)
        session_id = "" if session is None else session_id_of(session, function.name, self._store) or ""
        budget = None if isinstance(timeout, Default) else seconds_of(timeout, function.name)
        call = self._encoded(function.name, args, function.name, session_id, budget, credit, priority)
        call.tool = function.called
        return call

    def _check_place(self) -> None:
        try:
            is_elsewhere = trio.lowlevel.current_trio_token() is not self._run.token
        except RuntimeError:
            raise no_trio() from None
        if is_elsewhere and not self.dispatcher.is_closed:  # a closed pool raises `PoolClosed` in any run
            self._run.refuse()

    def _encoded(
        self,
        name: str,
        args: Any,
        what: str,
        session_id: str,
        budget: float | None,
        credit: int | None,
        priority: int | None,
    ) -> Call:
        try:
            encoded = encode_value(args, what, self._sizes, 4 * (len(name) + len(session_id)))
        except MemoryError as error:
            raise OutOfResources(f"the arguments of {name!r} could not be encoded: out of memory") from error
        affinity: Affinity = self._affinity_of(session_id) if session_id else "hint"
        call = Call(name, encoded, session_id, budget, credit, affinity, parent_of_new_calls(), priority)
        call.tenure = self._store.hub.epochs.of(session_id) if session_id and self._store is not None else None
        if (context := current_trace.get()) is not None:
            call.trace = context.text
        return call

    def _affinity_of(self, session_id: str) -> Affinity:
        affinity = self.affinities.get(session_id, self._config.affinity)
        return "strict" if affinity == "hint" and self.dispatcher.keeps_session(session_id) else affinity

    def budget(self, name: str, args: Arguments, timeout: Timeout, credit: int | None) -> float | None:
        """The seconds that a call has; None for no limit. Raises `UsageError`."""
        if isinstance(timeout, Default):
            tool = self.dispatcher.tools.get(name)
            timeout = None if tool is None else tool.timeout
            if timeout is None and self._has_say:
                timeout = self._adapter.command_timeout(name, args)
            if timeout is None:
                return _TIMEOUT if credit is None else _STREAM_TIMEOUT
        return seconds_of(timeout, repr(name))

    def _submit(self, call: Call) -> None:
        self.dispatcher.submit(call)
        self._deadlines.add(call)
        if call.parent is not None:
            call.join_parent()

    async def _prepare(self, call: Call) -> None:
        try:
            with self.under_way.held_up(call):
                await self._make_ready(call)
        except (trio.Cancelled, CallTimeout, CallCancelled):
            self.dispatcher.submitted += 1  # its outcome is counted, too
            raise

    async def _make_ready(self, call: Call) -> None:
        is_suspect = self.dispatcher.taints.is_suspect(call)
        if is_suspect:
            self.dispatcher.taints.check(call)
        if call.buffers is not None and call.buffers.is_large:
            await self._copy(call, call.buffers)  # before any wait: the arguments are sent as they were at the call
        if is_suspect:
            await self._until_whole(call)

    async def _copy(self, call: Call, buffers: BufferSet) -> None:
        with trio.move_on_after(max(0.0, call.time_left())) as budget:
            await self._shared_copies.take(buffers, share=self._config.shares_memory)
        if budget.cancelled_caught:
            await self._time_out(call)

    def _unload(self, call: Call) -> None:
        assert call.buffers is not None
        self._shared_copies.give_back(call.buffers)

    async def _finish(self, call: Call) -> None:
        raised: BaseException | None = None
        try:
            if self.dispatcher.events.is_heard:
                tell_start(self.dispatcher.events, call)
            if call.buffers is not None or self.dispatcher.taints.has_suspects:
                await self._prepare(call)
            watched = call.progress
            self._submit(call)
            while not call.is_over and not call.is_late:
                await (call.wait() if watched is None else call.wait_and_tell())
            if not call.is_over or call.unwanted is not None:
                await self._time_out(call)
            if watched is not None:
                watched.tell_last()
        except BaseException as error:
            raised = error
            try:
                self.cancelled += is_given_up(call, error)
            finally:
                await self._abandon(call)  # noqa: ASYNC102 - shielded and bounded in there
            raise
        finally:
            self._forget(call, call.failure if raised is None else raised)
            del raised  # its traceback refers to this frame

    def _forget(self, call: Call, failure: BaseException | None) -> None:
        """Note that nobody waits for the call any more, which has failed if there is a `failure`."""
        if self.dispatcher.events.is_heard:
            tell_end(self.dispatcher.events, call, failure)
        self._deadlines.calls.pop(call.order, None)
        if call.parent is not None:
            call.leave_parent()

    async def _retry(self, call: Call, retries: int | RetryPolicy | None) -> Call:
        """Run a crashed call again, as often as its policy and its deadline allow. Returns the run that succeeded.

        Raises the last failure if none succeeded. A failure that is no crash is raised at once.
        """
        policy = self._retry_policy(call, retries)
        for run in itertools.count(1):
            failure = call.failure
            assert failure is not None
            pause = policy.delay(run)
            if not isinstance(failure, WorkerCrashed) or run > policy.retries or call.time_left() <= pause:
                raise failure
            with self.under_way.held_up(call):
                await trio.sleep(pause)
            self.retried += 1
            call = call.again()
            try:
                await self._finish(call)
            except PoolError as refusal:
                failure.add_note(f"not run again: {refusal}")
                raise failure from None
            if call.failure is None:
                break
        return call

    def _retry_policy(self, call: Call, retries: int | RetryPolicy | None) -> RetryPolicy:
        if isinstance(retries, RetryPolicy):
            return retries
        if retries is not None:
            return attrs.evolve(self._config.retry, retries=retries)
        tool = self.dispatcher.tools.get(call.name)
        is_idempotent = tool is not None and tool.idempotent
        return self._config.retry if is_idempotent else attrs.evolve(self._config.retry, retries=0)

    async def _until_whole(self, call: Call) -> None:
        # A call that may kill one worker after another does not get the next worker while the last one is missing.
        # So other calls are served all the time.
        with trio.move_on_after(min(_SUSPECTS_WAIT, max(0.0, call.time_left()))):
            while self._strength.missing():
                await self.dispatcher.workers_changed.wait()

    async def _abandon(self, call: Call) -> None:
        with trio.CancelScope(shield=True):
            await self.under_way.until_stopped(call)
            await self._stop(call)

    async def _stop(self, call: Call) -> None:
        try:
            await self._stop_once(call)
        except Exception:
            logger.exception("%r could not be stopped, and it is tried again", call.name)
            await self._stop_once(call)

    async def _stop_once(self, call: Call) -> None:
        if not call.is_over:
            await abandon(self.dispatcher.batches.leave(call), self.dispatcher.withdraw, self._config.cancel_grace)

    async def _time_out(self, call: Call) -> NoReturn:
        if call.unwanted is not None:
            await self._abandon(call)
            await trio.lowlevel.checkpoint_if_cancelled()  # a cancelled task gets trio's own exception
            error = call.unwanted()
            note_timing(call, error)
        else:
            self.timed_out += 1
            late = error = CallTimeout(f"{call.name!r} {lateness(call, self.dispatcher, self._strength.target)}")
            late.timing = timing_of(call)
            await self._abandon(call)
        note_correlation(error, call.trace)
        raise error

    def _decode(self, call: Call, frame: Frame, reader: Reader | None = None) -> Any:
        # A result that cannot be decoded fails this call only: the link and the worker are whole.
        try:
            return codec.decode(frame.body, frame.attached) if reader is None else reader(frame)
        except CodecError:
            raise
        except MemoryError as error:
            raise OutOfResources(f"what {call.name!r} sent back could not be read: out of memory") from error
        except DecodeError as error:
            raise DecodeError(f"{call.name!r} sent back what cannot be read: {error}") from error
