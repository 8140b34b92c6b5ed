"""One session of a pool: its state, and calls that belong to it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, Protocol, TypeVar, Unpack, get_args, overload

import trio

from bridge_py.wire.codec import Exact
from bridge_py.wire.errors import UsageError
from bridge_py.wire.owning import own
from snakepit_trio._calls.call import DEFAULT, Arguments, Timeout
from snakepit_trio._calls.functions import Function
from snakepit_trio._calls.mapping import Results
from snakepit_trio._calls.progress import OnProgress
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._config.policies import Affinity, RetryPolicy
from snakepit_trio._requests.tool_registry import ToolRegistry
from snakepit_trio._util.blocks import block
from snakepit_trio._util.ownership import require_trio
from snakepit_trio.state.checks import check_new_session
from snakepit_trio.state.fences import FencedSessions, take_over
from snakepit_trio.state.store import SessionStore
from snakepit_trio.state.view import SessionView

from .calls import Calls
from .function_calls import A, Args, Block, FunctionCalls, Kwargs, OneCallOptions, R, RetryOptions
from .near_misses import misused

F = TypeVar("F", bound=Callable[..., Any])


class SessionPool(Protocol):
    """The part of a pool that a session needs."""

    sessions: SessionStore
    tools: ToolRegistry

    def options(self, *, session: SessionView | str | None) -> Calls:
        """Return calls in that session."""
        ...


class SessionHandle(SessionView, FunctionCalls):
    """A session of a pool: variables, programs and watching, as in every `SessionView`, and calls.

    The tools of its calls see its state through their `SessionContext`.
    """

    def __init__(self, pool: SessionPool, session_id: str) -> None:
        super().__init__(pool.sessions, session_id)
        self._pool = pool
        self._fenced: FencedSessions | None = None  # in place of the store, once it has taken the session over
        self._calls = pool.options(session=session_id)

    def _is_of(self, store: object) -> bool:
        """Whether it is a session of this store."""
        return self._pool.sessions is store

    async def take_over(self) -> int:
        """Begin a new epoch of the session, and return its number. From now on, this handle writes in that epoch.

        Calls that began before, on any host, cannot write any more, nor can other handles that took the session over:
        they get `StaleEpoch`. So do this handle and its calls, as soon as another host or handle takes the session
        over. A handle that never takes its session over writes in every epoch. If this is cancelled, the epoch may
        have begun or not: take the session over again. Raises `SessionNotFound`.
        """
        self._store = self._fenced = await take_over(self._pool.sessions, self.id)
        return self._fenced.tenure.last

    @overload
    async def execute(
        self, name: str, args: Arguments | None = None, *, returns: type[R], **options: Unpack[RetryOptions]
    ) -> R: ...
    @overload
    async def execute(
        self, name: str, args: Arguments | None = None, *, returns: Any = None, **options: Unpack[RetryOptions]
    ) -> Any: ...
    @overload
    async def execute(
        self,
        name: Callable[Concatenate[A, ...], Coroutine[Any, Any, R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[RetryOptions],
    ) -> R: ...
    @overload
    async def execute(
        self,
        name: Callable[Concatenate[A, ...], R],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[RetryOptions],
    ) -> R: ...
    @overload
    async def execute(
        self, name: Callable[..., Any], args: Arguments | None = None, *, returns: Any, **options: Unpack[RetryOptions]
    ) -> Any: ...
    async def execute(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *more: Any,
        timeout: Timeout = DEFAULT,
        retries: int | RetryPolicy | None = None,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        **unknown: Any,
    ) -> Any:
        """Run a tool in this session, and return its result.

        `name` is the tool's name, or its method of the adapter (`Tools.double`), and `args` its arguments by parameter
        name. `timeout`, in seconds, covers queueing, wire and tool. All parameters, and their defaults, are those of
        `Pool.execute`, except that the session is this one. If the call is cancelled or times out, its code is stopped
        before this returns.

        Raises `SessionNotFound` if the session has ended, `StaleEpoch` if it was taken over from this handle, and the
        errors of `Pool.execute`.
        """
        if more or unknown:
            raise misused(self.execute, name, more, unknown)
        args = await self._ask_first(name, args)
        return await self._calls.execute(
            name, args, timeout=timeout, retries=retries, returns=returns, priority=priority, on_progress=on_progress
        )

    @overload
    def stream(
        self, name: str, args: Arguments | None = None, *, returns: type[R], **options: Unpack[OneCallOptions]
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self, name: str, args: Arguments | None = None, *, returns: Any = None, **options: Unpack[OneCallOptions]
    ) -> Block[Chunks[Any]]: ...
    @overload
    def stream(
        self,
        name: Callable[Concatenate[A, ...], AsyncIterable[R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[OneCallOptions],
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self,
        name: Callable[Concatenate[A, ...], Iterable[R]],
        args: Arguments | None = None,
        *,
        returns: None = None,
        **options: Unpack[OneCallOptions],
    ) -> Block[Chunks[R]]: ...
    @overload
    def stream(
        self,
        name: Callable[..., Any],
        args: Arguments | None = None,
        *,
        returns: Any,
        **options: Unpack[OneCallOptions],
    ) -> Block[Chunks[Any]]: ...
    @block("async with session.stream(...) as chunks")
    async def stream(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *more: Any,
        timeout: Timeout = DEFAULT,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
        **unknown: Any,
    ) -> AsyncIterator[Chunks[Any]]:
        """Run a streaming tool: `async with session.stream(...) as chunks`, then `async for chunk in chunks`.

        All parameters, and their defaults, are those of `Pool.stream`, except that the session is this one. Leaving the
        block early stops the tool, and the block ends when none of its code runs any more.

        Entering the block raises `SessionNotFound` if the session has ended, `StaleEpoch` if it was taken over from
        this handle, `PoolClosed`, `PoolSaturated` and `WorkerBusy`. Other errors are raised where the chunks are taken.
        """
        if more or unknown:
            raise misused(self.stream, name, more, unknown)
        args = await self._ask_first(name, args)
        async with self._calls.stream(
            name, args, timeout=timeout, returns=returns, priority=priority, on_progress=on_progress
        ) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    async def execute_stream(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None,
        callback: Callable[[Any], Awaitable[object] | object],
        *,
        timeout: Timeout = DEFAULT,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Run a streaming tool in this session, and call `callback` with each chunk.

        If the callback returns an awaitable, this is awaited. The other parameters are those of `stream`. An exception
        of the callback stops the tool, and comes out unchanged. If cancelled, the tool is stopped before this returns.
        Raises `UsageError` for a callback that cannot be called, and the errors of `stream`.
        """
        args = await self._ask_first(name, args)
        await self._calls.execute_stream(
            name, args, callback, timeout=timeout, priority=priority, on_progress=on_progress
        )

    @block("async with session.map(...) as results")
    async def _map(
        self, function: Any, items: Any, pairs: bool, options: Mapping[str, Any]
    ) -> AsyncIterator[Results[Any, Any]]:
        if options["session"] is not None:
            raise UsageError(
                f"session={options['session']!r:.100}: these calls are in session {self.id!r}; leave it out"
            )
        await self._meet()
        async with self._calls._map(function, items, pairs, options) as results:
            yield results  # noqa: ASYNC119 - `block` makes a context manager

    async def _run(self, function: Any, args: Args, kwargs: Kwargs) -> Any:
        found, arguments = self._calls._read(function, args, kwargs, streams=False)
        arguments = await self._ask_first(found.name, arguments)
        return await self._calls._run_read(found, arguments)

    def _iterate(self, function: Any, args: Args, kwargs: Kwargs) -> AbstractAsyncContextManager[Chunks[Any]]:
        return self._iterate_read(*self._calls._read(function, args, kwargs, streams=True))

    @block("async with session.iterate(...) as chunks")
    async def _iterate_read(self, function: Function, arguments: Any) -> AsyncIterator[Chunks[Any]]:
        arguments = await self._ask_first(function.name, arguments)
        async with self._calls._iterate_read(function, arguments) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    async def _ask_first(self, name: object, args: Any) -> Any:
        """Raise if the session is gone. Returns the arguments as they were before this check, which may take time."""
        if self._may_wait:
            args = args.settled(str(name), own) if isinstance(args, Exact) else own(args, f"{name}: args")
        await self._meet()
        return args

    async def _meet(self) -> None:
        """Note in which epoch a call begins. Raises `SessionNotFound`, and `StaleEpoch` if this handle has lost it."""
        info = await self.info()
        if self._fenced is not None:
            self._fenced.tenure.check(info)
        else:
            self._store.hub.epochs.note(self.id, info.epoch, info.host_id)

    def expose(self, function: F, *, name: str | None = None, description: str | None = None) -> F:
        """Let the calls of this session call a function, as long as the session lives. Returns the function.

        What the function may be, how it runs and how it is stopped is as for `Pool.expose`. It hides the pool's tool of
        the same name. Raises `UsageError` if the session has a tool of that name, or if the function cannot be called
        by parameter names.
        """
        return self._pool.tools.register_host_tool(self.id, function, name=name, description=description)


@block("async with pool.session(...) as session")
async def open_session(
    pool: SessionPool,
    affinities: dict[str, Affinity],
    session_id: str | None,
    ttl: float | None,
    affinity: Affinity | None,
    metadata: Mapping[str, str],
) -> AsyncIterator[SessionHandle]:
    """Open a session for the time of a block, and note its affinity in `affinities`."""
    require_trio()
    if affinity is not None and affinity not in get_args(Affinity):
        raise UsageError(f"affinity={affinity!r} is unknown; give one of {', '.join(get_args(Affinity))}")
    check_new_session(session_id, ttl, metadata)
    is_ours = session_id is None
    if session_id is None or not await pool.sessions.session_exists(session_id):
        session_id = await pool.sessions.create_session(session_id, ttl=ttl, metadata=metadata)
    before = affinities.get(session_id)
    if affinity is not None:
        affinities[session_id] = affinity
    try:
        yield SessionHandle(pool, session_id)
    finally:
        if affinity is not None:
            _put_back(affinities, session_id, before)
        if is_ours:
            with trio.CancelScope(shield=True):
                await pool.sessions.delete_session(session_id)  # noqa: ASYNC102 - shielded


def _put_back(affinities: dict[str, Affinity], session_id: str, before: Affinity | None) -> None:
    if before is None:
        del affinities[session_id]
    else:
        affinities[session_id] = before
