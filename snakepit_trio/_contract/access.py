"""The access of clients of the wire contract to a pool.

Clients that the owner of a pool lets in may use all of the pool. Foreign workers may use only what their calls have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bridge_py.wire.any_values import LargeValues
from bridge_py.wire.errors import AccessDenied
from bridge_py.wire.hellos import Announced
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._requests.services import HostServices
from snakepit_trio._requests.tool_registry import HostCall, RegisteredTool
from snakepit_trio.state.view import SessionView


class Calls(Protocol):
    """The part of a pool that makes calls."""

    async def execute(self, name: str, args: dict[str, Any], *, session: str | None, timeout: float = ...) -> Any:
        """Run a tool in a worker and return its result.

        `timeout`, in seconds, covers the wait in the queue, the wire and the tool. By default it is what the tool or
        the adapter says, else 30. If the call is cancelled or times out, its code is stopped before this returns.
        Code that does not stop within `cancel_grace` seconds costs its worker's life. A call that still waits for a
        worker just leaves the queue. Calls of one `session` keep to one worker, as `affinity` says.

        If its worker crashes, the call is run again only if the tool is declared idempotent: as often as
        `PoolConfig.retry` says, on another worker and within the same timeout. No other call is ever run twice.

        Raises `InvalidArguments`, `UnknownTool`, `EncodeError`, `ToolError` (the tool raised), `CallTimeout`,
        `WorkerCrashed` (of the last run) and `PoolClosed`. Before the call runs, it raises `Tainted`, `PoolSaturated`
        if `max_queue` calls wait already, and `WorkerBusy` with `affinity="strict_fail_fast"`.
        """

    def stream(
        self, name: str, args: dict[str, Any], *, session: str | None, timeout: float = ...
    ) -> AbstractAsyncContextManager[Any]:
        """Run a streaming tool; use it as `async with pool.stream(...) as chunks`, then `async for chunk in chunks`.

        `timeout`, in seconds, is by default what the tool or the adapter says, else 300. The tool is never more than
        `stream_window` chunks ahead of the consumer. Leaving the block early stops the tool, in the same way as
        cancelling `execute`. Entering the block raises `PoolClosed`, `PoolSaturated` and `WorkerBusy`. All other
        errors are raised where the chunks are taken.
        """
        ...


class Access(Protocol):
    """What one client may use. All methods are called in tasks of trio."""

    allow_pickle: bool
    large_values: LargeValues  # for a client that has not told that it reads arrays in raw bytes
    is_modern: bool  # whether the client speaks contract 0.13

    async def check(self, session_id: str, /) -> None:
        """Raise `SessionNotFound` if the client has no such session.

        The empty text stands for no session. It passes for clients that the owner lets in, but not for foreign workers.
        """

    def check_at_once(self, session_id: str, /) -> bool:
        """Do what `check` does, if that needs no task of trio. Returns whether it is done.

        This, `promise`, `host_tools` and `register_tools` may be called outside of trio's tasks.
        """
        ...

    def promise(self, session_id: str, /) -> bool:
        """Open a session that is made as soon as it is used. Returns whether the client has such sessions.

        Raises `SessionNotFound`.
        """
        ...

    async def keep_promise(self, session_id: str, /) -> None:
        """Make the session if it was promised. Called before a session is used. Raises `SessionError`."""

    def is_valid_for_sure(self, session_id: str, /) -> bool:
        """Whether it is known at once, outside of trio's tasks too, that `is_valid` says yes."""
        ...

    async def is_valid(self, session_id: str, /) -> bool:
        """Answer a heartbeat: whether the client still has the session. Counts as use of a session that it uses now.

        Raises `SessionError`.
        """
        ...

    def view(self, session_id: str, /) -> SessionView:
        """A view of a session. Raises `SessionNotFound`, at the latest when the view is used."""
        ...

    async def initialize(self, session_id: str, /) -> SessionView:
        """Open a session, or join it if it exists. Raises `SessionError`."""
        ...

    async def cleanup(self, session_id: str, /) -> bool:
        """End a session; returns whether there was one. Raises `AccessDenied` if the client may not end it."""
        ...

    def owner(self, session_id: str, /) -> str | None:
        """The name under which the client changes variables that have an owner; None if it has no name."""

    def host_tools(self, session_id: str, /) -> list[RegisteredTool]:
        """The host tools that the client may call."""
        ...

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str, /) -> Any:
        """Call a host tool, and return its result. Raises `UnknownTool`, `InvalidArguments` and `HostToolError`."""

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], worker_id: str, /) -> None:
        """Note tools that the client has. Raises `UsageError` for tools that are described wrongly, or too many."""

    async def execute(self, name: str, args: dict[str, Any], session_id: str, timeout: float | None, /) -> Any:
        """Run a tool of the pool, and return its result. Raises `AccessDenied` if the client may not run tools.

        With `timeout` the call has this time, in seconds; otherwise it has the default timeout.
        """

    def stream(
        self, name: str, args: dict[str, Any], session_id: str, timeout: float | None, /
    ) -> AbstractAsyncContextManager[Any]:
        """Run a streaming tool of the pool. Raises `AccessDenied` if the client may not run tools."""
        ...


class PoolAccess:
    """The access of clients that the owner of a pool lets in: they may use all of the pool."""

    large_values: LargeValues = "json"
    is_modern = False  # what its clients speak is not known

    def __init__(self, services: HostServices, calls: Calls, ttl: float | None, allow_pickle: bool) -> None:
        self._services = services
        self._calls = calls
        self._ttl = ttl  # in seconds, for sessions that clients make
        self.allow_pickle = allow_pickle

    async def check(self, session_id: str) -> None:
        """Raise `SessionNotFound` if there is no such session. The empty text stands for no session, and passes."""
        if session_id:
            await self.view(session_id).info()

    def check_at_once(self, _session_id: str) -> bool:
        """Return False: the store must be asked."""
        return False

    def promise(self, _session_id: str) -> bool:
        """Return False: sessions of clients are made when they are opened."""
        return False

    async def keep_promise(self, _session_id: str) -> None:
        """Do nothing: nothing was promised."""

    def is_valid_for_sure(self, _session_id: str) -> bool:
        """Return False: the store must be asked."""
        return False

    async def is_valid(self, session_id: str) -> bool:
        """Whether there is the session. Counts as use."""
        await self.view(session_id).info()
        return True

    def view(self, session_id: str) -> SessionView:
        """A view of a session. Using the view raises `SessionNotFound` if there is no such session."""
        return self._services.store.of(session_id)

    async def initialize(self, session_id: str) -> SessionView:
        """Open a session, or join it if it exists. Raises `SessionError`."""
        if not await self._services.store.session_exists(session_id):
            await self._services.store.create_session(session_id, ttl=self._ttl)
        return self.view(session_id)

    async def cleanup(self, session_id: str) -> bool:
        """End a session. Returns whether there was one."""
        return await self._services.store.delete_session(session_id)

    def owner(self, _session_id: str) -> str | None:
        """The name under which the client changes variables that have an owner: it has none."""
        return None

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """The host tools that the client may call."""
        return self._services.tools.list_exposed_tools(session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """Call a host tool, and return its result. Raises `UnknownTool`, `InvalidArguments` and `HostToolError`."""
        tool = self._services.tools.exposed(session_id or None, name)
        return await self._services.tools.run(tool, args, HostCall(session_id or None))

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], worker_id: str) -> None:
        """Note tools that the client has. Raises `UsageError` for tools that are described wrongly, or too many."""
        found = Announced().add(list(specs))
        self._services.tools.register_tools(session_id or None, found, worker_id=worker_id or None)

    async def execute(self, name: str, args: dict[str, Any], session_id: str, timeout: float | None) -> Any:
        """Run a tool of the pool, and return its result."""
        if timeout is None:
            return await self._calls.execute(name, args, session=session_id or None)
        return await self._calls.execute(name, args, session=session_id or None, timeout=timeout)

    def stream(
        self, name: str, args: dict[str, Any], session_id: str, timeout: float | None
    ) -> AbstractAsyncContextManager[Any]:
        """Run a streaming tool of the pool."""
        if timeout is None:
            return self._calls.stream(name, args, session=session_id or None)
        return self._calls.stream(name, args, session=session_id or None, timeout=timeout)


class WorkerAccess:
    """The access of one foreign worker: it may use the sessions of its calls."""

    def __init__(
        self,
        services: HostServices,
        requests: ContractRequests,
        allow_pickle: bool,
        has_tools: Callable[[Sequence[ToolSpec]], None],
        *,
        large_values: LargeValues = "json",
        is_modern: bool = False,
    ) -> None:
        self._services = services
        self._requests = requests
        self._has_tools = has_tools
        self._announced = Announced()
        self._latest: Iterable[ToolSpec] = ()  # the latest registration, as it came
        self._tools: list[ToolSpec] = []  # and as it is checked
        self.allow_pickle = allow_pickle
        self.large_values: LargeValues = large_values
        self.is_modern = is_modern

    async def check(self, session_id: str) -> None:
        """Raise `SessionNotFound` if the worker runs no call with this session."""
        self._requests.call_of(session_id)

    def check_at_once(self, session_id: str) -> bool:
        """Raise `SessionNotFound` if the worker runs no call with this session."""
        self._requests.call_of(session_id)
        return True

    def promise(self, session_id: str) -> bool:
        """Open a session that is made as soon as it is used. Raises `SessionNotFound`."""
        self._requests.promise(session_id)
        return True

    async def keep_promise(self, session_id: str) -> None:
        """Make the session if it was promised. Raises `SessionError`."""
        await self._requests.keep_promise(session_id)

    def is_valid_for_sure(self, session_id: str) -> bool:
        """Whether it is a session that calls without a session have, in turn."""
        return self._requests.is_temporary(session_id)

    async def is_valid(self, session_id: str) -> bool:
        """Whether there is the session, of a call that the worker runs or has run. Counts as use while one runs."""
        return await self._requests.is_alive(session_id)

    def view(self, session_id: str) -> SessionView:
        """A view of a session. Raises `SessionNotFound` if the worker runs no call with this session."""
        return self._requests.view(session_id)

    async def initialize(self, session_id: str) -> SessionView:
        """Open a session, or join it if it exists. Raises `SessionError`."""
        self._requests.promise(session_id)
        await self._requests.keep_promise(session_id)
        return self._requests.view(session_id)

    async def cleanup(self, session_id: str) -> bool:
        """Raise `AccessDenied`: a worker may end no session."""
        raise AccessDenied(f"session {session_id!r} is not a worker's to end")

    def owner(self, session_id: str) -> str | None:
        """The name under which the worker changes variables that have an owner: the tool of its call."""
        return self._requests.call_of(session_id).name

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """The host tools that the client may call."""
        return self._services.tools.list_exposed_tools(self._requests.call_of(session_id).session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """Call a host tool, and return its result. Raises `UnknownTool`, `InvalidArguments` and `HostToolError`."""
        return await self._requests.call_host_tool(self._requests.call_of(session_id), name, args)

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], _worker_id: str) -> None:
        """Note tools that the client has. Raises `UsageError` for tools that are described wrongly, or too many."""
        call = self._requests.call_of(session_id)
        if specs is not self._latest:
            self._tools, self._latest = self._announced.add(list(specs)), specs
            self._has_tools(self._tools)
        if call.session_id:
            self._services.tools.register_tools(call.session_id, self._tools, worker_id=self._requests.worker_id)

    async def execute(self, name: str, _args: dict[str, Any], _session_id: str, _timeout: float | None) -> Any:
        """Raise `AccessDenied`: a worker may run no tools of the pool."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")

    def stream(
        self, name: str, _args: dict[str, Any], _session_id: str, _timeout: float | None
    ) -> AbstractAsyncContextManager[Any]:
        """Raise `AccessDenied`: a worker may run no tools of the pool."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")
