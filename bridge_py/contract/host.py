"""Carries the requests of a call's code to a host that speaks the wire contract."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, Final

import msgspec

from bridge_py.host.asking import Answer, Deliver, PendingRequest, check_process
from bridge_py.host.cache import Caches
from bridge_py.tools.context import CallContext
from bridge_py.wire import codec
from bridge_py.wire.environment import worker_number
from bridge_py.wire.errors import (
    HostToolError,
    SessionError,
    SnakepitError,
    ToolError,
    VariableNotFound,
    WrongCallKind,
    fault_of,
)
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.variable import Variable
from bridge_py.wire.verbs import VERBS, pack

from .client import AsyncioClient

__uninterruptible__ = True  # interrupts spare the functions of this module, and the code that they call
_ALONE: Final = SessionError("this worker was started without a host: give it --elixir-address")


class ContractHost:
    """Sends the requests of a `SessionContext` to the host as RPCs.

    It remembers no variables, because the contract does not say when variables change. Any thread may call its methods,
    except `begin`.
    """

    cache_ttl = 0.0
    clock = staticmethod(time.monotonic)

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.worker_number = worker_number()
        self._pid = os.getpid()
        self.caches = Caches()
        self._client: AsyncioClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[PendingRequest, asyncio.Task[None]] = {}

    def begin(self, client: AsyncioClient | None) -> None:
        """Take the client, and the running event loop, in which this must be called."""
        self._loop = asyncio.get_running_loop()
        self._client = client

    def make_queue(self) -> SimpleQueue[Any]:
        """Make the queue at which a thread waits: any thread calls `put`, and the waiting thread calls `get`."""
        return SimpleQueue()

    def ask(
        self,
        call_id: int,  # noqa: ARG002 - the contract identifies sessions, not calls
        session_id: str,
        verb: str,
        arguments: tuple[Any, ...],
        deliver: Deliver,
        credit: int | None = None,
    ) -> PendingRequest:
        """Ask the host on behalf of a call; the event loop's thread calls `deliver` with the answer.

        The answer carries all errors, `EncodeError` among them. With `credit` it is the error `WrongCallKind`, because
        the contract has no streams from the host. Raises `SessionError` in a process that a tool has forked.
        """
        check_process(self._pid)
        asked = PendingRequest()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._start, asked, session_id, verb, arguments, deliver, credit)
        return asked

    def report(self, context: CallContext) -> None:
        """Send nothing: the contract has no message for progress."""
        context._is_reporting = True

    def grant(self, asked: PendingRequest, credit: int) -> None:
        """Do nothing: the contract has no streams from the host."""

    def drop(self, asked: PendingRequest) -> None:
        """Give up a request whose answer nobody needs any more, so that the host may stop its work on it."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop, asked)

    def _start(
        self,
        asked: PendingRequest,
        session_id: str,
        verb: str,
        arguments: tuple[Any, ...],
        deliver: Deliver,
        credit: int | None,
    ) -> None:
        self._tasks[asked] = task = asyncio.ensure_future(self._run(session_id, verb, arguments, deliver, credit))
        task.add_done_callback(lambda _: self._tasks.pop(asked, None))

    def _stop(self, asked: PendingRequest) -> None:
        if (task := self._tasks.get(asked)) is not None:
            task.cancel()

    async def _run(
        self, session_id: str, verb: str, arguments: tuple[Any, ...], deliver: Deliver, credit: int | None
    ) -> None:
        try:
            if credit is not None:
                raise WrongCallKind("the wire contract has no streams from the host: call context.call_host_tool")
            value = await self._find(session_id, verb, arguments)
            frame = Frame(Kind.RESULT, body=codec.encode(value, verb, beside=1 << 62).body)
        except SnakepitError as error:
            frame = Frame(Kind.ERROR, body=codec.encode_plain(fault_of(error)))
        deliver(Answer(frame, 0))

    async def _find(self, session_id: str, verb: str, arguments: tuple[Any, ...]) -> Any:
        if self._client is None:
            raise _ALONE
        handler = _HANDLERS.get(verb)
        if handler is None:
            raise SessionError(f"the wire contract has no {verb}: a worker of our own, on a link, can do that")
        found = await handler(self._client, session_id, *arguments)
        return pack(VERBS[verb].answer, found) if verb in VERBS else found


async def _register_variable(
    client: AsyncioClient,
    session_id: str,
    name: str,
    kind: str,
    value: Any,
    constraints: Any,
    metadata: Any,
    rules: Any,
) -> Variable:
    if rules is not None:
        raise SessionError("the wire contract has no way to give a variable access rules")
    await client.register_variable(session_id, name, kind, value, constraints=constraints, metadata=metadata)
    return await client.get_variable(session_id, name)


async def _get_variable(client: AsyncioClient, session_id: str, identifier: str) -> Variable:
    return await client.get_variable(session_id, identifier)


async def _get_variables(client: AsyncioClient, session_id: str, identifiers: list[str]) -> Any:
    return await client.get_variables(session_id, identifiers)


async def _has_variable(client: AsyncioClient, session_id: str, identifier: str) -> bool:
    try:
        await client.get_variable(session_id, identifier)
    except VariableNotFound:
        return False
    return True


async def _list_variables(client: AsyncioClient, session_id: str, pattern: str) -> list[Variable]:
    return await client.list_variables(session_id, pattern)


async def _update_variable(
    client: AsyncioClient, session_id: str, identifier: str, value: Any, expected_version: int | None, metadata: Any
) -> Variable:
    await client.set_variable(session_id, identifier, value, expected_version=expected_version, metadata=metadata)
    return await client.get_variable(session_id, identifier)


async def _update_variables(
    client: AsyncioClient, session_id: str, updates: dict[str, Any], atomic: bool, metadata: Any
) -> dict[str, Variable | Exception]:
    versions, errors = await client.set_variables(session_id, updates, atomic=atomic, metadata=metadata)
    found, _ = await client.get_variables(session_id, versions)
    return {**found, **{name: SessionError(text) for name, text in errors.items()}}


async def _delete_variable(client: AsyncioClient, session_id: str, identifier: str) -> None:
    await client.delete_variable(session_id, identifier)


async def _call_host_tool(client: AsyncioClient, session_id: str, name: str, args: dict[str, Any]) -> Any:
    try:
        return await client.execute_host_tool(name, args, session_id=session_id)
    except ToolError as error:
        raise HostToolError(error.message, error.type, error.remote_traceback, name) from None


async def _list_host_tools(client: AsyncioClient, session_id: str) -> Any:
    return [msgspec.to_builtins(spec) for spec in await client.get_exposed_tools(session_id)]


_HANDLERS: Final[dict[str, Callable[..., Coroutine[Any, Any, Any]]]] = {
    "register_variable": _register_variable,
    "get_variable": _get_variable,
    "get_variables": _get_variables,
    "has_variable": _has_variable,
    "list_variables": _list_variables,
    "update_variable": _update_variable,
    "update_variables": _update_variables,
    "delete_variable": _delete_variable,
    "call_host_tool": _call_host_tool,
    "list_host_tools": _list_host_tools,
}
