"""A server of the Model Context Protocol, with the official SDK: it lists a pool's tools, and calls them."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from bridge_py.tools.hints.leaves import DIMENSIONS, DTYPE, PYTHON
from bridge_py.version import VERSION
from bridge_py.wire.errors import SnakepitError, UnknownTool
from bridge_py.wire.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE, correlated
from snakepit_trio._calls.progress import Progress
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.threads import read_in_thread
from snakepit_trio.errors import CallCancelled

from .json_values import is_small, misfit, to_json, to_plain
from .schemas import ToolSchema
from .served_tools import ServedTools

#: In the scope of a request over HTTP: an event that is set when its client has gone.
GONE: Final = "snakepit.gone"
_OURS: Final = frozenset((PYTHON, DTYPE, DIMENSIONS))
_NAMED: Final = frozenset(("properties", "$defs", "patternProperties"))  # objects whose keys are no keywords
_VALUES: Final = frozenset(("default", "enum", "const", "examples"))  # which are no schemas
_LONGEST_ERROR: Final = 10_000  # characters


class ToolServer:
    """Answers the requests of MCP clients.

    Each client session has a session of the pool, which is made with its first call and ends with it. Requests that
    belong to no client session (of the protocol of 2026-07-28, over HTTP) get one each. If there is one client only,
    `session_id` is its session.
    """

    def __init__(self, tools: ServedTools, name: str, instructions: str | None, session_id: str | None = None) -> None:
        self._tools = tools
        self._session_id = session_id
        self.server: Server[Any] = Server(
            name,
            version=VERSION,
            instructions=instructions,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            get_tool_input_schema=self._input_schema,
        )

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        try:
            return published(self._tools.schema(name).input)
        except UnknownTool:
            return None

    async def _list_tools(self, _context: object, _params: object) -> types.ListToolsResult:
        await self._loaded()
        return types.ListToolsResult(tools=[_described(tool) for tool in self._tools.schemas])

    async def _loaded(self) -> None:
        try:
            await self._tools.load()
        except SnakepitError as error:
            raise MCPError(types.INTERNAL_ERROR, _text_of(error)) from error

    async def _call_tool(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        await self._loaded()
        try:
            schema = self._tools.schema(params.name)
        except UnknownTool as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        try:
            result = await self._result(context, params)
            # A large result takes its time, and must not hold up the calls of others meanwhile.
            return _answer(schema, result) if is_small(result) else await read_in_thread(_answer, schema, result)
        except SnakepitError as error:
            return _failed(_text_of(error))

    async def _result(self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> Any:
        reports = _Reports(context)
        found: Any = None
        with trio.CancelScope() as scope:
            async with self._session_of(context) as session_id, background_nursery() as nursery:
                nursery.start_soon(reports.run)
                if context.request is not None and (gone := context.request.scope.get(GONE)) is not None:
                    nursery.start_soon(_cancel_after, gone, scope)
                with _trace_of(params.meta or {}):
                    found = await self._tools.call(params.name, params.arguments or {}, session_id, reports.heard)
            await reports.send()
        if scope.cancelled_caught:
            # Nobody reads it. But it must be an `Exception`: any other ends the server, with the calls of all clients.
            raise CallCancelled(params.name, "its client has gone")
        return found

    @asynccontextmanager
    async def _session_of(self, context: ServerRequestContext[Any, Any]) -> AsyncIterator[str]:
        connection = context.session._connection
        if self._session_id is not None:
            yield self._session_id
        elif connection.session_id is None:
            async with self._tools.pool.session() as session:
                yield session.id
        else:
            if (known := connection.state.get("snakepit")) is None:
                known = connection.state["snakepit"] = f"mcp-{secrets.token_hex(8)}", trio.Lock()
                connection.exit_stack.push_async_callback(self._tools.pool.sessions.delete_session, known[0])
            name, lock = known
            # Of several calls at once, the first one makes it; so does the next call after it has expired.
            async with lock, self._tools.pool.session(name):
                pass
            yield name


class _Reports:
    """The progress of a call, on its way to the client. Only the latest report counts."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._session = context.session
        self._latest: Progress | None = None
        self._sent = -math.inf
        self._new = trio.Event()

    def heard(self, progress: Progress) -> None:
        """Take a report."""
        self._latest = progress
        self._new.set()

    async def run(self) -> None:
        """Send reports until cancelled."""
        while True:
            await self._new.wait()
            self._new = trio.Event()
            await self.send()

    async def send(self) -> None:
        """Send the latest report, if it is new. The protocol knows no progress that goes down: that is left out."""
        latest = self._latest
        if latest is not None and latest.done > self._sent:
            await self._session.report_progress(latest.done, latest.total, latest.note or None)
            self._sent = latest.done  # only now: the end of the call may cancel `run` before it has sent


def _trace_of(meta: Mapping[str, Any]) -> AbstractContextManager[object]:
    """Make a block whose calls join the trace that a request's `_meta` names. What is invalid there is ignored.

    Source: SEP-414 of the protocol.
    """
    given = {name: value for name in (TRACEPARENT, TRACESTATE, BAGGAGE) if isinstance(value := meta.get(name), str)}
    return correlated(headers=given) if given else nullcontext()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def _answer(tool: ToolSchema, result: Any) -> types.CallToolResult:
    plain = to_plain(result)
    text = plain if isinstance(plain, str) else to_json(plain).decode()
    if (schema := output_of(tool)) is None:
        return types.CallToolResult(content=[types.TextContent(text=text)])
    structured = plain if _is_object(tool) else {"result": plain}
    if problem := misfit(structured, schema):
        return _failed(f"the result of {tool.name!r} does not fit its type hint: {problem:.500}\n{text}")
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def _described(tool: ToolSchema) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description or None,
        input_schema=published(tool.input),
        output_schema=output_of(tool),
    )


def _is_object(tool: ToolSchema) -> bool:
    if tool.streaming or tool.output is None:
        return False
    found, parts = tool.output, tool.output.get("$defs", {})
    if (place := found.get("$ref")) is not None:
        found = parts.get(place.removeprefix("#/$defs/"), {})
    return found.get("type") == "object"


def output_of(tool: ToolSchema) -> dict[str, Any] | None:
    """The schema of what a tool answers, which is an object: the result itself, or `{"result": ...}`.

    A stream answers the list of its chunks. None if the tool does not say what it returns.
    """
    if tool.output is None:
        return None
    found = dict(published(tool.output))
    if _is_object(tool):
        return found | {"type": "object"}
    parts = found.pop("$defs", None)
    result = {"type": "array", "items": found} if tool.streaming else found
    made: dict[str, Any] = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    return made if parts is None else made | {"$defs": parts}


def published(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without the keywords of our own, which some models' servers do not take."""
    return {key: _published(key, value) for key, value in schema.items() if key not in _OURS}


def _published(key: str, value: Any) -> Any:
    if key in _VALUES:
        return value
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _published("", each) for name, each in value.items()}
    if isinstance(value, Mapping):
        return published(value)
    return [_published("", each) for each in value] if isinstance(value, list) else value
