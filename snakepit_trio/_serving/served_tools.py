"""The tools that a server offers: a pool's tools and functions of the application, called with JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import attrs

from bridge_py.tools.adapter import Tool, unknown_tool
from bridge_py.wire.errors import ToolError, UsageError
from snakepit_trio._calls.call import Default, Timeout
from snakepit_trio._calls.functions import Function, function_of
from snakepit_trio._calls.progress import OnProgress
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._requests.tool_registry import ToolRegistry
from snakepit_trio._util.validation import check_seconds, refuse
from snakepit_trio.state.store import SessionStore

from .json_values import arguments_of, to_json, to_plain
from .schemas import ToolSchema, function_schema
from .tool_list import ToolList

_LONGEST_NAME: Final = 200  # characters of a name that no tool has
_LARGEST_STREAM: Final = 4 * 1024 * 1024  # bytes of JSON, of the chunks of one call together


class HasId(Protocol):
    """A session of a pool."""

    @property
    def id(self) -> str:
        """The id of the session."""
        ...


class SessionPool(Protocol):
    """What is needed of a pool."""

    config: PoolConfig
    sessions: SessionStore
    tools: ToolRegistry
    _runner: CallRunner

    def session(self, session_id: str | None = None) -> AbstractAsyncContextManager[HasId]:
        """Open a session."""
        ...


@attrs.frozen(eq=False)
class _Served:
    schema: ToolSchema
    #: Of a function: what converts its arguments, and how a worker runs it.
    converter: Tool | None = None
    function: Function | None = None


class ServedTools:
    """What a server offers: tools of the pool's workers, and functions of the application that workers run."""

    def __init__(
        self, pool: SessionPool, functions: Iterable[Callable[..., Any]], names: Sequence[str] | None, timeout: Timeout
    ) -> None:
        """`names` are the tools to offer; None for all. `timeout`, in seconds, is for calls.

        Raises `UsageError` for a function that no worker can import, or that cannot be called by parameter names.
        """
        if callable(functions):
            raise refuse("functions", functions, "give a list of functions")
        if not isinstance(timeout, Default):
            check_seconds("timeout", timeout, or_zero=True, or_none="no limit")
        self.pool = pool
        self._timeout = timeout
        self._names = None if names is None else frozenset(names)
        self._functions = [_served(function, pool) for function in functions]
        self._list = ToolList(pool)
        self._offered: Mapping[str, ToolSchema] = {}  # of the workers
        self._found: dict[str, _Served] | None = None

    async def load(self) -> None:
        """Know the schemas of the tools that the workers have now. Raises what `pool.execute` raises.

        Raises `UsageError` for a name that no tool has, or that two tools have.
        """
        tools = await self._list.schemas()
        if self._found is None or tools is not self._offered:
            self._found = self._named(tools)
            self._offered = tools

    def _named(self, tools: Mapping[str, ToolSchema]) -> dict[str, _Served]:
        if self._names is not None and (missing := self._names - tools.keys()):
            raise UsageError(f"there is no tool {min(missing)!r} to serve; there are: {', '.join(sorted(tools))}")
        found = {name: _Served(tool) for name, tool in tools.items() if self._names is None or name in self._names}
        for each in self._functions:
            if each.schema.name in found:
                raise UsageError(f"two tools to serve have the name {each.schema.name!r}: leave one out by tools=")
            found[each.schema.name] = each
        return found

    @property
    def schemas(self) -> list[ToolSchema]:
        """The schemas of all tools, in the order of their names. Call `load` before."""
        return [each.schema for _, each in sorted((self._found or {}).items())]

    def schema(self, name: str) -> ToolSchema:
        """The schema of a tool. Raises `UnknownTool`."""
        return self._find(name).schema

    def _find(self, name: str) -> _Served:
        known = self._found or {}
        if (found := known.get(name)) is None:
            raise unknown_tool(name[:_LONGEST_NAME], known)
        return found

    async def call(
        self, name: str, arguments: object, session_id: str | None, on_progress: OnProgress | None = None
    ) -> Any:
        """Call a tool with JSON, decoded already. Returns its result, and of a stream the list of its chunks as JSON.

        Raises what `pool.execute` raises, `EncodeError` for a chunk that JSON cannot express, and `ToolError` for
        streams whose chunks have more than 4 MiB together. When this ends, in whatever way, none of the tool's code
        runs any more.
        """
        served = self._find(name)
        given: Any = arguments_of(served.schema, arguments)
        if served.converter is not None and served.function is not None:
            given = served.function.arguments((), served.converter.bind(given, None))
        if served.schema.streaming:
            return await self._chunks(served, given, session_id, on_progress)
        runner = self.pool._runner
        if served.function is None:
            return await runner.execute(name, given, self._timeout, session_id, on_progress=on_progress)
        return await runner.run(served.function, given, self._timeout, session_id, on_progress=on_progress)

    async def _chunks(
        self, served: _Served, given: Any, session_id: str | None, on_progress: OnProgress | None
    ) -> list[Any]:
        runner, name = self.pool._runner, served.schema.name
        if served.function is None:
            stream = runner.stream(name, given, self._timeout, session_id, on_progress=on_progress)
        else:
            stream = runner.iterate(served.function, given, self._timeout, session_id, on_progress=on_progress)
        found: list[Any] = []
        size = 0
        async with stream as chunks:
            async for chunk in chunks:
                plain = to_plain(chunk, what="a chunk")
                size += len(to_json(plain))
                if size > _LARGEST_STREAM:
                    raise ToolError(f"the chunks of {name!r} have more than {_LARGEST_STREAM} bytes: ask for less")
                found.append(plain)
        return found


def _served(function: Callable[..., Any], pool: SessionPool) -> _Served:
    converter, schema = function_schema(function)
    if converter.takes_context:
        raise UsageError(f"{schema.name}: a function gets its context by current_context(), not by a parameter")
    return _Served(schema, converter, function_of(function, schema.streaming, pool._runner.values))
