"""Calls of tools and functions, with the defaults that an application has chosen for them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, Final, Unpack, overload

import attrs

from bridge_py.tools.pickling import PLAIN
from bridge_py.wire.amounts import thousandths
from bridge_py.wire.errors import DecodeError, UsageError
from bridge_py.wire.frames import Frame
from snakepit_trio._calls.call import (
    DEFAULT,
    Arguments,
    Default,
    Timeout,
    check_priority,
    check_retries,
    seconds_of,
    session_id_of,
)
from snakepit_trio._calls.functions import Function, function_of, read, tool_name
from snakepit_trio._calls.mapping import Done, Results, Room
from snakepit_trio._calls.progress import OnProgress, check_on_progress
from snakepit_trio._calls.queues import Limit, Needs
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._config.policies import RetryPolicy
from snakepit_trio._config.targets import unwrapped
from snakepit_trio._config.worker_options import to_resources
from snakepit_trio._util.blocks import block
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.validation import check_plain, check_whole, refuse
from snakepit_trio.state.view import SessionView

from .function_calls import A, Args, Block, ExecuteOptions, FunctionCalls, Kwargs, R, StreamOptions, read_call
from .near_misses import misused


@attrs.frozen
class Defaults:
    """What holds for calls that do not say otherwise."""

    timeout: Timeout = DEFAULT
    session: SessionView | str | None = None
    retries: int | RetryPolicy | None = None
    priority: int | None = None
    on_progress: OnProgress | None = None
    limits: tuple[Limit, ...] = ()
    resources: Needs = ()


_QUICK_CALLS: Final = 64  # of a map, while they take less than 2 ms
NO_DEFAULTS: Final = Defaults()


class Calls(FunctionCalls):
    """Runs tools and functions in the workers of a pool. `Pool.options` makes one with defaults of its own."""

    def __init__(self, runner: CallRunner, usual_limit: int, defaults: Defaults = NO_DEFAULTS) -> None:
        self._runner = runner
        self._usual_limit = usual_limit  # of `map`
        self._defaults = defaults

    def options(
        self,
        *,
        timeout: Timeout = DEFAULT,
        session: SessionView | str | None = None,
        retries: int | RetryPolicy | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> Calls:
        """Return the same calls with other defaults: `await pool.options(timeout=5).run(function)`.

        `timeout` is in seconds, None for no limit. `priority` is from -100 to 100: calls of a higher one leave the
        queue sooner, as `execute` says. `on_progress` is called with the progress of each call, as `execute` says, and
        so of each call of `map`, whose own `on_progress` counts items. What is left out stays as it is. A call that
        names a value of its own goes by that. Raises `UsageError` for a value that no call could have.

        `resources` are amounts that each call needs of its worker while it runs, such as `{"gpu": 0.5}`: numbers from
        0 on, with up to three decimals. They are on top of what a tool needs (`@tool(resources=)`), whose amount of
        the same name they replace. A call waits in the queue until a worker has enough left. If no worker of the pool
        offers enough, it raises `ResourcesNotOffered` at once.
        """
        if not isinstance(timeout, Default):
            seconds_of(timeout, "options")
        session_id_of(session, "options")
        check_retries(retries)
        check_priority(priority)
        if on_progress is not None:
            check_on_progress(on_progress)
        before = self._defaults
        return Calls(
            self._runner,
            self._usual_limit,
            Defaults(
                before.timeout if isinstance(timeout, Default) else timeout,
                before.session if session is None else session,
                before.retries if retries is None else retries,
                before.priority if priority is None else priority,
                before.on_progress if on_progress is None else on_progress,
                before.limits,
                before.resources if resources is None else tuple(thousandths(to_resources(resources)).items()),
            ),
        )

    def limit(self, key: str, most: int) -> Calls:
        """Return the same calls with a limit: at most `most` calls of this key run at once in the whole pool.

        `await pool.limit("mail", 4).run(send)`. Further calls wait in the queue, in their order and within their
        timeout, and hold up no call that may run. A call gives its place back when it is over, and a stream when its
        code has ended. All calls through limits of one key share the places. A key has the number that was named last,
        and costs nothing while no call has it. Limits add up: a call of `pool.limit("mail", 4).limit("user 1", 1)`, or
        of a tool with a limit, gets one place of each, all at the same time.

        Raises `UsageError` for a key that is empty or no str, and for a number that is not whole or below 1.
        """
        limit = self._runner.dispatcher.limit_of(key, most)
        limits = self._defaults.limits
        limits = limits if limit in limits else (*limits, limit)
        return Calls(self._runner, self._usual_limit, attrs.evolve(self._defaults, limits=limits))

    def _run(self, function: Any, args: Args, kwargs: Kwargs) -> Coroutine[Any, Any, Any]:
        return self._run_read(*read_call(function, args, kwargs, False, self._runner.values))

    def _iterate(self, function: Any, args: Args, kwargs: Kwargs) -> Block[Chunks[Any]]:
        return self._iterate_read(*self._read(function, args, kwargs, streams=True))

    # For sessions.

    def _read(self, function: Any, args: Args, kwargs: Kwargs, *, streams: bool) -> tuple[Function, Any]:
        """Find out how a worker runs a function; returns also the arguments of the worker's tool."""
        return read_call(function, args, kwargs, streams, self._runner.values)

    def _run_read(self, function: Function, arguments: Any) -> Coroutine[Any, Any, Any]:
        """Run a function that was read."""
        defaults = self._defaults
        return self._runner.run(
            function,
            arguments,
            defaults.timeout,
            defaults.session,
            defaults.retries,
            defaults.priority,
            defaults.on_progress,
            defaults.limits,
            defaults.resources,
        )

    def _iterate_read(self, function: Function, arguments: Any) -> Block[Chunks[Any]]:
        """Run a generator function that was read."""
        defaults = self._defaults
        return self._runner.iterate(
            function,
            arguments,
            defaults.timeout,
            defaults.session,
            defaults.priority,
            defaults.on_progress,
            defaults.limits,
            defaults.resources,
        )

    # Tools, by name.

    @overload
    async def execute(
        self,
        name: str,
        args: Arguments | None = None,
        *,
        returns: type[R],
        **options: Unpack[ExecuteOptions],
    ) -> R: ...
    @overload
    async def execute(
        self,
        name: str,
        args: Arguments | None = None,
        *,
        returns: Any = None,
        **options: Unpack[ExecuteOptions],
    ) -> Any: ...
    @overload
    async def execute(
        self,
        name: Callable[Concatenate[A, ...], Coroutine[Any, Any, R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[ExecuteOptions],
    ) -> R: ...
    @overload
    async def execute(
        self,
        name: Callable[Concatenate[A, ...], R],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[ExecuteOptions],
    ) -> R: ...
    @overload
    async def execute(
        self,
        name: Callable[..., Any],
        args: Arguments | None = None,
        *,
        returns: Any,
        **options: Unpack[ExecuteOptions],
    ) -> Any: ...
    async def execute(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *more: Any,
        timeout: Timeout = DEFAULT,
        session: SessionView | str | None = None,
        retries: int | RetryPolicy | None = None,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        **unknown: Any,
    ) -> Any:
        """Run a tool in a worker and return its result.

        `name` is the tool's name, or its method of the adapter (`Tools.double`). `timeout`, in seconds, covers
        queueing, wire and tool. None means no limit. By default it is the timeout that the tool or the adapter names,
        else 30. If the call is cancelled or times out, its code is stopped before this returns. If the code does not
        stop within `cancel_grace` seconds, its worker is killed. A call that still waits for a worker just leaves the
        queue. Calls of one `session`, a handle or an id, keep to one worker, as `affinity` says.

        `returns` is a type hint. Dataclasses, enums and the like in the result become what they are by it; without a
        hint they arrive as plain values. A method's own hint counts as `returns`.

        `retries` says how often the call may be run again if its worker crashes, on another worker and within the
        same `timeout`. By default it is never run again, but a tool that is declared idempotent is run again as
        `PoolConfig.retry` says. Nothing else is ever run twice.

        `priority`, from -100 to 100, says how soon the call leaves the queue: one step counts as much as one second
        of waiting, so no call waits for ever. The default is 0, or the priority of the call whose host tool makes
        this one.

        `on_progress` is a plain function. It is called in this task with a `Progress`, at most every 25 ms, when the
        tool has reported some by `context.progress`; the last time, before this returns or raises. A run after a crash
        begins anew. If the function raises, the call is stopped, and the exception comes out of here.

        Raises `InvalidArguments`, `UnknownTool`, `EncodeError`, `ToolError` (the tool raised),
        `CallTimeout`, `WorkerCrashed` (of the last run) and `PoolClosed`. Without running the call, raises `Tainted`,
        `PoolSaturated` if `max_queue` calls wait already, and `WorkerBusy` with `affinity="strict_fail_fast"`.
        """
        if more or unknown:
            raise misused(self.execute, name, more, unknown)
        reader = None
        if returns is not None or callable(name):
            name, reader = self._reader(name, returns, streams=False)
        defaults = self._defaults
        if defaults is not NO_DEFAULTS:
            timeout = defaults.timeout if isinstance(timeout, Default) else timeout
            session = defaults.session if session is None else session
            retries = defaults.retries if retries is None else retries
            priority = defaults.priority if priority is None else priority
            on_progress = defaults.on_progress if on_progress is None else on_progress
        return await self._runner.execute(
            name,
            args,
            timeout,
            session,
            retries,
            None,
            reader,
            priority,
            on_progress,
            defaults.limits,
            defaults.resources,
        )

    @overload
    def stream(
        self,
        name: str,
        args: Arguments | None = None,
        *,
        returns: type[R],
        **options: Unpack[StreamOptions],
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self,
        name: str,
        args: Arguments | None = None,
        *,
        returns: Any = None,
        **options: Unpack[StreamOptions],
    ) -> Block[Chunks[Any]]: ...
    @overload
    def stream(
        self,
        name: Callable[Concatenate[A, ...], AsyncIterable[R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[StreamOptions],
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self,
        name: Callable[Concatenate[A, ...], Iterable[R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[StreamOptions],
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self,
        name: Callable[..., Any],
        args: Arguments | None = None,
        *,
        returns: Any,
        **options: Unpack[StreamOptions],
    ) -> Block[Chunks[Any]]: ...
    def stream(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *more: Any,
        timeout: Timeout = DEFAULT,
        session: SessionView | str | None = None,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        **unknown: Any,
    ) -> Block[Chunks[Any]]:
        """Run a streaming tool; use it as `async with pool.stream(...) as chunks`, then `async for chunk in chunks`.

        `name`, `priority` and `returns`, the hint of a chunk, are as for `execute`. `timeout` is too, but 300 if
        neither the tool nor the adapter says otherwise. The tool is never more than `stream_window` chunks ahead of
        the consumer; a chunk counts once for each 4 KiB that it has begun. Leaving the block early stops the tool, in
        the same way as cancelling `execute`. `on_progress` is as for `execute`, and is called where the task takes a
        chunk or waits for one; what it raises comes out there. Errors are raised where the chunks are taken, but
        `PoolClosed`, `PoolSaturated` and `WorkerBusy` on entering the block.
        """
        if more or unknown:
            raise misused(self.stream, name, more, unknown)
        reader = None
        if returns is not None or callable(name):
            name, reader = self._reader(name, returns, streams=True)
        timeout = self._defaults.timeout if isinstance(timeout, Default) else timeout
        session = self._defaults.session if session is None else session
        priority = self._defaults.priority if priority is None else priority
        on_progress = self._defaults.on_progress if on_progress is None else on_progress
        limits, resources = self._defaults.limits, self._defaults.resources
        return self._runner.stream(name, args, timeout, session, None, reader, priority, on_progress, limits, resources)

    def _reader(self, name: object, returns: Any, *, streams: bool) -> tuple[str, Callable[[Frame], Any]]:
        """The name of a tool, and the function that decodes its results by a hint."""
        if isinstance(name, str):
            return name, partial(read, name, hint=returns)
        found = function_of(name, streams, PLAIN)
        if found.signature is None:
            raise UsageError(
                f"{found.name} is a function, and no tool: call it with run or iterate, or mark a method with @tool"
            )
        return found.name, found.read if returns is None else partial(read, found.name, hint=returns)

    async def execute_stream(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None,
        callback: Callable[[Any], Awaitable[object] | object],
        *,
        timeout: Timeout = DEFAULT,
        session: SessionView | str | None = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Run a streaming tool and call `callback` with each chunk. If it returns an awaitable, this is awaited.

        The other parameters are those of `stream`. This returns when the stream has ended. An exception of the callback
        stops the tool, and comes out unchanged. If cancelled, the tool is stopped before this returns. Raises
        `UsageError` for a callback that cannot be called, and the errors of `stream`.
        """
        if not callable(callback):
            raise refuse("callback", callback, "give a function that takes a chunk")
        async with self.stream(
            name, args, timeout=timeout, session=session, priority=priority, on_progress=on_progress
        ) as chunks:
            async for chunk in chunks:
                answer = callback(chunk)
                if inspect.isawaitable(answer):
                    await answer

    # Many calls.

    @block("async with pool.map(...) as results")
    async def _map(
        self, function: Any, items: Any, pairs: bool, options: Mapping[str, Any]
    ) -> AsyncIterator[Results[Any, Any]]:
        limit, chunksize, on_progress = options["limit"], options["chunksize"], options["on_progress"]
        check_whole("limit", limit, 1, or_none="twice the pool's capacity")
        check_whole("chunksize", chunksize, 1)
        if on_progress is not None:
            check_plain("on_progress", on_progress, "give a function that takes two numbers")
        calls = self.options(**{name: options[name] for name in ("timeout", "session", "retries", "priority")})
        usual = self._usual_limit * self._runner.dispatcher.batches.most(tool_name(function))
        # With twice the room, a caller need not wait until its last results were taken.
        room = Room(limit, limit) if limit else Room(usual, max(usual, 2 * _QUICK_CALLS))
        callers = limit or max(usual, _QUICK_CALLS)
        results: Results[Any, Any] = Results(items, room, callers, options["ordered"], chunksize, pairs, on_progress)
        async with background_nursery() as nursery:
            nursery.start_soon(results._feed, calls._mapped(function, chunksize))
            yield results  # noqa: ASYNC119 - `block` makes a context manager

    def _mapped(self, function: Any, chunksize: int) -> Callable[[Sequence[Any]], Awaitable[Done[Any]]]:
        """Make the function that makes the call for some items of `map`."""
        if chunksize > 1:
            return self._each(function)

        run: Callable[[Any], Awaitable[Any]]
        run = partial(self.execute, function) if isinstance(function, str) else self._one(function)

        async def call(items: Sequence[Any]) -> Done[Any]:
            return Done.one(items, await run(items[0]))

        return call

    def _one(self, function: Any) -> Callable[[Any], Awaitable[Any]]:
        function, before, kwargs = unwrapped(function, (), {})
        found = function_of(function, streams=False, values=self._runner.values)
        return lambda item: self._run_read(found, found.arguments((*before, item), kwargs))

    def _each(self, function: Any) -> Callable[[Sequence[Any]], Awaitable[Done[Any]]]:
        if isinstance(function, str):
            raise UsageError(f"chunksize= is for functions, and {function!r} is a tool: leave it out")
        each = function_of(function, streams=False, values=self._runner.values).for_each()

        async def call(items: Sequence[Any]) -> Done[Any]:
            values, errors = await self._run_read(each, each.arguments_for_each(items))
            if len(values) != len(items):
                raise DecodeError(f"{each.name!r} has sent {len(values)} results for {len(items)} items")
            return Done(items, values, errors)

        return call
