"""What clients of the wire contract may reach: the owner's all of a pool, foreign workers what their calls have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bridge_py.wire.errors import AccessDenied
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._requests.services import HostServices
from snakepit_trio._requests.tool_registry import HostCall, RegisteredTool
from snakepit_trio.state.view import SessionView


class Calls(Protocol):
    """What makes calls: a pool."""

    async def execute(self, name: str, args: dict[str, Any], *, session: str | None) -> Any:
        """Run a tool in a worker and return its result.

        `timeout`, in seconds, covers queueing, wire and tool; None for no limit, and by default what the tool or the
        adapter says, else 30. If the call is
        cancelled or times out, its code is stopped before this returns; code that does not stop
        within `cancel_grace` seconds costs its worker's life. A call that still waits for a worker
        just leaves the line. Calls of one `session` keep to one worker, as `affinity` says.

        `retries` says how often the call may be run again, on another worker and within the same
        `timeout`, if its worker crashes; by default never, or as `PoolConfig.retry` says if the
        tool is declared idempotent. Nothing else is ever run twice.

        Raises `InvalidArguments`, `UnknownTool`, `EncodeError`, `ToolError` (the tool raised),
        `CallTimeout`, `WorkerCrashed` (of the last run) and `PoolClosed`; without running, `Tainted`,
        `PoolSaturated` if `max_queue` calls wait already, and `WorkerBusy` with `affinity="strict_fail_fast"`.
        """

    def stream(self, name: str, args: dict[str, Any], *, session: str | None) -> AbstractAsyncContextManager[Any]:
        """Run a streaming tool; use it as `async with pool.stream(...) as chunks`, then `async for chunk in chunks`.

        `timeout` is as for `execute`, but 300 where nobody says otherwise. The tool is never more than `stream_window`
        chunks ahead of the consumer. Leaving the block
        early stops the tool, in the same way as cancelling `execute`. Errors are raised where the
        chunks are taken; `PoolClosed`, `PoolSaturated` and `WorkerBusy` on entering.
        """
        ...


class PoolAccess:
    """What clients may reach that the owner of a pool lets in: all of it."""

    allow_pickle = False

    def __init__(self, services: HostServices, calls: Calls, ttl: float | None) -> None:
        self._services = services
        self._calls = calls
        self.ttl = ttl

    async def check(self, session_id: str) -> None:
        """Raise `SessionNotFound` unless there is such a session, or it is the empty text, which stands for none."""
        if session_id:
            await self.view(session_id).info()

    def view(self, session_id: str) -> SessionView:
        """A session. Raises `SessionNotFound`."""
        return self._services.store.of(session_id)

    async def initialize(self, session_id: str, ttl: float | None) -> SessionView:
        """A session that it may open, or join. Raises `SessionError`."""
        if not await self._services.store.session_exists(session_id):
            await self._services.store.create_session(session_id, ttl=ttl)
        return self.view(session_id)

    async def cleanup(self, session_id: str) -> bool:
        """End a session. Raises `AccessDenied`."""
        return await self._services.store.delete_session(session_id)

    def owner(self, _session_id: str) -> str | None:
        """The owner's name, for variables that belong to somebody."""
        return None

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """The host tools that it may call."""
        return self._services.tools.list_exposed_tools(session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """Call one of them. Raises `UnknownTool`, `InvalidArguments` and `HostToolError`."""
        tool = self._services.tools.exposed(session_id or None, name)
        return await self._services.tools.run(tool, args, HostCall(session_id or None))

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], worker_id: str) -> None:
        """It has tools."""
        self._services.tools.register_tools(session_id or None, specs, worker_id=worker_id or None)

    async def execute(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """Run a tool of the pool. Raises `AccessDenied` if that is not its to do."""
        return await self._calls.execute(name, args, session=session_id or None)

    def stream(self, name: str, args: dict[str, Any], session_id: str) -> AbstractAsyncContextManager[Any]:
        """Run a tool of the pool that is a stream."""
        return self._calls.stream(name, args, session=session_id or None)


class WorkerAccess:
    """What one foreign worker may reach: the sessions of its calls."""

    def __init__(
        self,
        services: HostServices,
        requests: ContractRequests,
        ttl: float | None,
        allow_pickle: bool,
        has_tools: Callable[[Sequence[ToolSpec]], None],
    ) -> None:
        self._services = services
        self._requests = requests
        self._has_tools = has_tools
        self.ttl = ttl
        self.allow_pickle = allow_pickle

    async def check(self, session_id: str) -> None:
        """Raise `SessionNotFound` unless there is such a session, or it is the empty text, which stands for none."""
        self._requests.call_of(session_id)

    def view(self, session_id: str) -> SessionView:
        """A session. Raises `SessionNotFound`."""
        return self._requests.view(session_id)

    async def initialize(self, session_id: str, ttl: float | None) -> SessionView:
        """A session that it may open, or join. Raises `SessionError`."""
        return await self._requests.initialize(session_id, ttl)

    async def cleanup(self, session_id: str) -> bool:
        """End a session. Raises `AccessDenied`."""
        raise AccessDenied(f"session {session_id!r} is not a worker's to end")

    def owner(self, session_id: str) -> str | None:
        """The owner's name, for variables that belong to somebody."""
        return self._requests.call_of(session_id).name

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """The host tools that it may call."""
        return self._services.tools.list_exposed_tools(self._requests.call_of(session_id).session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """Call one of them. Raises `UnknownTool`, `InvalidArguments` and `HostToolError`."""
        return await self._requests.call_host_tool(self._requests.call_of(session_id), name, args)

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], _worker_id: str) -> None:
        """It has tools."""
        call, found = self._requests.call_of(session_id), list(specs)
        if call.session_id:
            self._services.tools.register_tools(call.session_id, found, worker_id=self._requests.worker_id)
        self._has_tools(found)

    async def execute(self, name: str, _args: dict[str, Any], _session_id: str) -> Any:
        """Run a tool of the pool. Raises `AccessDenied` if that is not its to do."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")

    def stream(self, name: str, _args: dict[str, Any], _session_id: str) -> AbstractAsyncContextManager[Any]:
        """Run a tool of the pool that is a stream."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")
