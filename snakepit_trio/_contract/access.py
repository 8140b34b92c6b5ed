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
        """See `Pool.execute`."""

    def stream(self, name: str, args: dict[str, Any], *, session: str | None) -> AbstractAsyncContextManager[Any]:
        """See `Pool.stream`."""


class PoolAccess:
    """That of clients that the owner of a pool lets in."""

    allow_pickle = False

    def __init__(self, services: HostServices, calls: Calls, ttl: float | None) -> None:
        self._services = services
        self._calls = calls
        self.ttl = ttl

    async def check(self, session_id: str) -> None:
        """See `Access`."""
        if session_id:
            await self.view(session_id).info()

    def view(self, session_id: str) -> SessionView:
        """See `Access`."""
        return self._services.store.of(session_id)

    async def initialize(self, session_id: str, ttl: float | None) -> SessionView:
        """See `Access`."""
        if not await self._services.store.session_exists(session_id):
            await self._services.store.create_session(session_id, ttl=ttl)
        return self.view(session_id)

    async def cleanup(self, session_id: str) -> bool:
        """See `Access`."""
        return await self._services.store.delete_session(session_id)

    def owner(self, _session_id: str) -> str | None:
        """See `Access`."""
        return None

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """See `Access`."""
        return self._services.tools.list_exposed_tools(session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """See `Access`."""
        tool = self._services.tools.exposed(session_id or None, name)
        return await self._services.tools.run(tool, args, HostCall(session_id or None))

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], worker_id: str) -> None:
        """See `Access`."""
        self._services.tools.register_tools(session_id or None, specs, worker_id=worker_id or None)

    async def execute(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """See `Access`."""
        return await self._calls.execute(name, args, session=session_id or None)

    def stream(self, name: str, args: dict[str, Any], session_id: str) -> AbstractAsyncContextManager[Any]:
        """See `Access`."""
        return self._calls.stream(name, args, session=session_id or None)


class WorkerAccess:
    """That of one foreign worker."""

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
        """See `Access`."""
        self._requests.call_of(session_id)

    def view(self, session_id: str) -> SessionView:
        """See `Access`."""
        return self._requests.view(session_id)

    async def initialize(self, session_id: str, ttl: float | None) -> SessionView:
        """See `Access`."""
        return await self._requests.initialize(session_id, ttl)

    async def cleanup(self, session_id: str) -> bool:
        """See `Access`."""
        raise AccessDenied(f"session {session_id!r} is not a worker's to end")

    def owner(self, session_id: str) -> str | None:
        """See `Access`."""
        return self._requests.call_of(session_id).name

    def host_tools(self, session_id: str) -> list[RegisteredTool]:
        """See `Access`."""
        return self._services.tools.list_exposed_tools(self._requests.call_of(session_id).session_id or None)

    async def call_host_tool(self, name: str, args: dict[str, Any], session_id: str) -> Any:
        """See `Access`."""
        return await self._requests.call_host_tool(self._requests.call_of(session_id), name, args)

    def register_tools(self, session_id: str, specs: Iterable[ToolSpec], _worker_id: str) -> None:
        """See `Access`."""
        call, found = self._requests.call_of(session_id), list(specs)
        if call.session_id:
            self._services.tools.register_tools(call.session_id, found, worker_id=self._requests.worker_id)
        self._has_tools(found)

    async def execute(self, name: str, _args: dict[str, Any], _session_id: str) -> Any:
        """See `Access`."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")

    def stream(self, name: str, _args: dict[str, Any], _session_id: str) -> AbstractAsyncContextManager[Any]:
        """See `Access`."""
        raise AccessDenied(f"{name!r} is not a worker's to call: expose a host tool that calls it")
