"""State that begins in this process, goes to a pool when a worker is first needed, and comes back when asked to."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import trio

from bridge_py.wire.errors import SessionError
from snakepit_trio._calls.call import DEFAULT, Arguments, Timeout, needed_session_id
from snakepit_trio._calls.mapping import Results
from snakepit_trio._calls.progress import OnProgress
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._config.policies import RetryPolicy
from snakepit_trio._util.blocks import block
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.ownership import require_trio
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.session import Session
from snakepit_trio.state.store import MemoryStore, SessionStore
from snakepit_trio.state.view import SessionView
from snakepit_trio.state.watching import Hub

from .function_calls import Args, FunctionCalls, Kwargs
from .opening import open_pool
from .pool import Pool
from .session import SessionHandle

T = TypeVar("T")
_LAST_STEP: Final = 5.0  # seconds that a store gets to delete the session


class LocalState(SessionView):
    """Variables and programs in this process, without a pool: no worker sees them. `LocalState.open` makes one."""

    @classmethod
    async def open(cls, session_id: str = "local", *, quotas: Quotas | None = None) -> LocalState:
        """Make an empty state. It lives as long as something refers to it."""
        store = MemoryStore(quotas=quotas)
        return cls(store, await store.create_session(session_id, ttl=None))


class BridgedState(SessionView):
    """Variables and programs in a session of a pool, where workers see them. `session` is a handle or an id."""

    def __init__(self, pool: Pool, session: SessionView | str) -> None:
        super().__init__(pool.sessions, needed_session_id(session, "BridgedState"))


class Context(SessionView, FunctionCalls):
    """Variables and programs that need no pool until a worker needs them: `async with snakepit.Context() as context`.

    State begins in this process. The first call, or `to_bridged`, moves it into a session of the pool, and `to_local`
    moves it back. Values, versions, history, dependencies, programs and watchers all move with it. Tasks that use the
    state during a move wait. `pool` is an open pool, or a function that makes one when it is needed, by default
    `open_pool`. A pool that was made in this way ends with the block. The state always ends with the block.
    """

    def __init__(
        self,
        pool: Pool | Callable[[], AbstractAsyncContextManager[Pool]] | None = None,
        *,
        quotas: Quotas | None = None,
    ) -> None:
        self._switch = _Switch(MemoryStore(quotas=quotas))
        super().__init__(self._switch, f"context_{secrets.token_hex(8)}")
        self._local = self._switch.store
        self._pool = pool if isinstance(pool, Pool) else None
        self._open_pool = open_pool if pool is None or isinstance(pool, Pool) else pool
        self._stack = AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._running = 0

    async def __aenter__(self) -> Self:
        require_trio()
        await self._local.create_session(self.id, ttl=None)
        self._nursery = await self._stack.enter_async_context(background_nursery())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with trio.move_on_after(_LAST_STEP, shield=True):
            await self._switch.store.delete_session(self.id)
        return await self._stack.__aexit__(kind, error, trace)  # noqa: ASYNC102 - the nursery's own end

    @property
    def is_bridged(self) -> bool:
        """Whether the state is in a pool."""
        return self._switch.store is not self._local

    async def execute(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *,
        timeout: Timeout = DEFAULT,
        retries: int | RetryPolicy | None = None,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run a tool with this state, which moves into the pool before, and return the tool's result.

        All parameters, and their defaults, are those of `Pool.execute`, except that the session is this context's. If
        the call is cancelled or times out, its code is stopped before this returns. Raises `SessionError` outside of
        the context's block, and the errors of opening a pool and of `Pool.execute`.
        """
        async with self._in_pool() as session:
            return await session.execute(
                name,
                args,
                timeout=timeout,
                retries=retries,
                returns=returns,
                priority=priority,
                on_progress=on_progress,
            )

    @block("async with context.stream(...) as chunks")
    async def stream(
        self,
        name: str | Callable[..., Any],
        args: Arguments | None = None,
        *,
        timeout: Timeout = DEFAULT,
        returns: Any = None,
        priority: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> AsyncIterator[Chunks[Any]]:
        """Run a streaming tool: `async with context.stream(...) as chunks`, then `async for chunk in chunks`.

        The state moves into the pool before. All parameters, and their defaults, are those of `Pool.stream`, except
        that the session is this context's. Leaving the block early stops the tool, and the block ends when none of its
        code runs any more. Entering the block raises `SessionError` outside of the context's block, and the errors of
        opening a pool. The errors of the tool are raised where the chunks are taken.
        """
        async with (
            self._in_pool() as session,
            session.stream(
                name, args, timeout=timeout, returns=returns, priority=priority, on_progress=on_progress
            ) as chunks,
        ):
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    async def _run(self, function: Any, args: Args, kwargs: Kwargs) -> Any:
        async with self._in_pool() as session:
            return await session._run(function, args, kwargs)

    @block("async with context.iterate(...) as chunks")
    async def _iterate(self, function: Any, args: Args, kwargs: Kwargs) -> AsyncIterator[Chunks[Any]]:
        async with self._in_pool() as session, session._iterate(function, args, kwargs) as chunks:
            yield chunks  # noqa: ASYNC119 - `block` makes a context manager

    @block("async with context.map(...) as results")
    async def _map(
        self, function: Any, items: Any, pairs: bool, options: Mapping[str, Any]
    ) -> AsyncIterator[Results[Any, Any]]:
        async with self._in_pool() as session, session._map(function, items, pairs, options) as results:
            yield results  # noqa: ASYNC119 - `block` makes a context manager

    def _is_of(self, store: object) -> bool:
        """Whether its state may move to this store, or from it: it may, unless it is in the store of another pool."""
        return self._pool is None or self._pool.sessions is store

    async def to_bridged(self) -> None:
        """Move the state into the pool, if it is not there. Opens the pool if there is none."""
        require_trio()
        async with self._switch.moving():
            if not self.is_bridged:
                self._pool = self._pool or await self._start_pool()
                await self._switch.move(self._pool.sessions, self.id)

    async def to_local(self) -> None:
        """Move the state back into this process. The pool stays. Raises `SessionError` while a call runs."""
        if self._running:
            raise SessionError(f"{self._running} calls use this context in the pool: wait for them first")
        async with self._switch.moving():
            if self.is_bridged:
                await self._switch.move(self._local, self.id)

    @asynccontextmanager
    async def _in_pool(self) -> AsyncIterator[SessionHandle]:
        require_trio()
        self._running += 1
        try:
            await self.to_bridged()
            assert self._pool is not None
            yield SessionHandle(self._pool, self.id)
        finally:
            self._running -= 1

    async def _start_pool(self) -> Pool:
        if self._nursery is None:
            raise SessionError("a context opens a pool only inside its block: use `async with Context() as context`")
        # In a task of its own: the task that needs it first may be in a cancel scope that ends before the pool does.
        pool: Pool = await self._nursery.start(self._hold_pool)
        return pool

    async def _hold_pool(self, task_status: trio.TaskStatus[Pool]) -> None:
        async with self._open_pool() as pool:
            task_status.started(pool)
            await trio.sleep_forever()


class _Switch:
    """The store that has the session now. A move waits for uses under way, and new uses wait for the move."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self._under_way = 0
        self._idle = trio.Event()
        self._move: trio.Event | None = None

    @property
    def hub(self) -> Hub:
        return self.store.hub

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        async with self._in_use() as store:
            return await store.read_session(session_id, read)

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        async with self._in_use() as store:
            return await store.update_session(session_id, change)

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[SessionStore]:
        while self._move is not None:
            await self._move.wait()
        self._under_way += 1
        try:
            yield self.store
        finally:
            self._under_way -= 1
            self._idle.set()

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Reserve the session for a move: one move at a time, and while nothing else uses the session."""
        while self._move is not None:
            await self._move.wait()
        move = self._move = trio.Event()
        try:
            while self._under_way:
                self._idle = trio.Event()
                await self._idle.wait()
            yield
        finally:
            self._move = None
            move.set()

    async def move(self, target: SessionStore, session_id: str) -> None:
        """Move the session. If that fails, it stays where it is."""
        source = self.store
        await target.import_session(await source.export_session(session_id))
        with trio.CancelScope(shield=True):
            source.hub.hand_over(session_id, target.hub)
            self.store = target
            await source.delete_session(session_id)
