"""Host tools as worker code sees them: functions by name, each with its description and signature."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from bridge_py.wire.errors import UnknownTool
from bridge_py.wire.specs import ToolSpec

from .asking import HostClient, Questions

R = TypeVar("R")
Call = Callable[[str, dict[str, Any]], R]


class HostTool(Generic[R]):
    """One host tool. Call it with its arguments by name, or by position as its signature says.

    In a tool that blocks, the call returns the result, or an iterator if the host tool is a stream. In a coroutine it
    returns an awaitable, or an async iterator.
    """

    def __init__(self, name: str, spec: ToolSpec | None, execute: Call[R], stream: Call[R]) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = "" if spec is None else spec.description
        self.__signature__ = _signature_of(spec)
        self.spec = spec
        self._call = stream if spec is not None and spec.streaming else execute

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the host tool."""
        if args:
            kwargs = {**self.__signature__.bind_partial(*args).arguments, **kwargs}
        return self._call(self.__name__, kwargs)

    def __repr__(self) -> str:
        return f"<host tool {self.__name__}{self.__signature__}>"


class HostTools(Mapping[str, HostTool[Any]]):
    """All host tools by name, for code that blocks. The host is asked for the list when it is first needed."""

    def __init__(self, client: HostClient) -> None:
        self._client = client
        self._found: dict[str, HostTool[Any]] | None = None

    def __getitem__(self, name: str) -> HostTool[Any]:
        found = self._tools().get(name)
        if found is None:
            # Not a KeyError: `in` and `get` of a mapping would hide it, and Python shows its message as a repr.
            raise UnknownTool(f"there is no host tool {name!r}; there are: {', '.join(self._tools()) or 'none'}")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._tools()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools())

    def __len__(self) -> int:
        return len(self._tools())

    def get(self, name: str, default: Any = None) -> Any:
        """Return the tool of that name, or `default`."""
        return self._tools().get(name, default)

    def _tools(self) -> dict[str, HostTool[Any]]:
        if self._found is None:
            client = self._client
            specs = client.block(list_host_tools())
            self._found = {
                spec.name: HostTool(
                    spec.name,
                    spec,
                    lambda name, args: client.block(call_host_tool(name, args)),
                    lambda name, args: client.stream("call_host_tool", (name, args)),
                )
                for spec in specs
            }
        return self._found


class AsyncHostTools:
    """All host tools, for coroutines: `await context.host_tools` is a dict by name, `context.host_tools[name]` is one.

    A tool that does not come from the dict has no description and no signature.
    """

    def __init__(self, client: HostClient) -> None:
        self._client = client

    def __getitem__(self, name: str) -> HostTool[Any]:
        return self._make(name, None)

    def __await__(self) -> Generator[Any, None, dict[str, HostTool[Any]]]:
        return self._discover().__await__()

    async def _discover(self) -> dict[str, HostTool[Any]]:
        return {spec.name: self._make(spec.name, spec) for spec in await self._client.wait(list_host_tools())}

    def _make(self, name: str, spec: ToolSpec | None) -> HostTool[Any]:
        client = self._client

        def execute(name: str, args: dict[str, Any]) -> Awaitable[Any]:
            return client.wait(call_host_tool(name, args))

        return HostTool(name, spec, execute, lambda name, args: client.stream_async("call_host_tool", (name, args)))


def list_host_tools() -> Questions[list[ToolSpec]]:
    """Ask for the descriptions of all host tools."""
    found: list[ToolSpec] = msgspec.convert((yield "list_host_tools", ()).value(), list[ToolSpec])
    return found


def call_host_tool(name: str, args: Mapping[str, Any]) -> Questions[Any]:
    """Call one host tool."""
    return (yield "call_host_tool", (name, dict(args))).value()


def _signature_of(spec: ToolSpec | None) -> inspect.Signature:
    if spec is None:
        return inspect.Signature([inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)])
    found: list[inspect.Parameter] = []
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for each in spec.parameters:
        default = inspect.Parameter.empty if each.required else _Default(each.default)
        if each.required and found and found[-1].default is not inspect.Parameter.empty:
            kind = inspect.Parameter.KEYWORD_ONLY  # it may not follow a default by position
        found.append(inspect.Parameter(each.name, kind, default=default, annotation=each.type))
    return inspect.Signature(found)


class _Default:
    """A default value of which only the `repr` is known."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
