"""The registry of tools: functions of the host that workers may call, and tools of workers."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeVar
from weakref import WeakKeyDictionary

import attrs
import trio

from bridge_py.tools.adapter import Tool, unbound, unknown_tool
from bridge_py.wire.errors import UnknownTool, UsageError, WrongCallKind, host_tool_error
from bridge_py.wire.specs import ParameterSpec, ToolSpec
from snakepit_trio._calls.call import DEFAULT, Timeout
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.threads import read_in_thread
from snakepit_trio.state.watching import Hub

__all__ = ["HostCall", "ParameterSpec", "RegisteredTool", "ToolRegistry", "ToolSpec"]

__calls_tools__ = True  # tracebacks of tools leave out this module's frames where they are outermost
F = TypeVar("F", bound=Callable[..., Any])
Execute = Callable[..., Awaitable[Any]]
_END: Final = object()
_NOTHING: Final[Mapping[str, Any]] = {}
# Each session may expose the same methods anew, and reading a signature takes 0.1 ms.
_read: Final[WeakKeyDictionary[Any, Tool]] = WeakKeyDictionary()  # by the function of a method; bound to no object


@attrs.frozen
class HostCall:
    """The call that a host tool serves. A parameter annotated with this class gets it, and callers do not give it.

    `tool` is the tool that the worker runs. `session_id` is the session of the call, or None. If the application itself
    calls the host tool, `worker_id` is None and `tool` is empty.
    """

    session_id: str | None = None
    worker_id: str | None = None
    tool: str = ""


@attrs.frozen(eq=False)
class RegisteredTool:
    """A tool, and what the registry knows of it.

    `session_id` is the session that has the tool, or None if all sessions have it. Workers may see and call a host tool
    only if it is `exposed`. `worker_id` is the worker that has described the tool, or None.
    """

    spec: ToolSpec
    kind: Literal["host", "worker"]
    session_id: str | None = None
    worker_id: str | None = None
    exposed: bool = False
    metadata: Mapping[str, str] = _NOTHING
    function: Tool | None = attrs.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name that callers give."""
        return self.spec.name


def _as_it_is(value: Any) -> Any:
    return value


class ToolRegistry:
    """The tools of a pool: `pool.tools`.

    A name stands for one tool in a session, and for one in the whole pool (`session_id` None). The session's tool comes
    before the pool's. The tools of a session are removed when it ends. Only the execution of tools waits.
    """

    def __init__(
        self, hub: Hub, execute: Execute, adapter_tools: Callable[[], Mapping[str, ToolSpec]], threads: int | None
    ) -> None:
        self._hub = hub
        self._execute = execute
        self._adapter_tools = adapter_tools
        self._limiter = None if threads is None else trio.CapacityLimiter(threads)
        self._scopes: dict[str | None, dict[str, RegisteredTool]] = {None: {}}
        self._patient: set[trio.CancelScope] = set()
        self._is_over = False

    # Registering.

    def register_host_tool(
        self,
        session_id: str | None,
        function: F,
        *,
        name: str | None = None,
        description: str | None = None,
        exposed: bool = True,
        metadata: Mapping[str, str] = _NOTHING,
    ) -> F:
        """Make a function of the application a host tool, and return the function.

        It may be a plain function, which runs in a thread, a coroutine function of trio, a generator or an async
        generator. Generators are streams. Name, description, parameters and types are read from the function in the
        same way as for tools of workers. Raises `UsageError` if the name is taken, or if the function cannot be called
        by parameter names.
        """
        name = name or str(getattr(function, "__name__", ""))
        if not callable(function):
            raise UsageError(f"{function!r} is no function: it cannot be a host tool")
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f"a host tool cannot be called {name!r}: give a name= that is an identifier")
        tools = self._scope(session_id)
        if name in tools and tools[name].kind == "host":
            raise UsageError(f"there is a host tool {name!r} in {_place(session_id)} already: give another name=")
        tool = _tool_of(function, name, description)
        tools[name] = RegisteredTool(
            tool.spec, "host", session_id, exposed=exposed, metadata=dict(metadata), function=tool
        )
        return function

    def register_worker_tool(
        self,
        session_id: str | None,
        spec: ToolSpec,
        *,
        worker_id: str | None = None,
        metadata: Mapping[str, str] = _NOTHING,
    ) -> RegisteredTool:
        """Note a tool that workers have, and return it.

        If there is a host tool of the same name, the name still stands for the host tool.
        """
        tools = self._scope(session_id)
        found = RegisteredTool(spec, "worker", session_id, worker_id, metadata=dict(metadata))
        if spec.name not in tools or tools[spec.name].kind == "worker":
            tools[spec.name] = found
        return found

    def register_tools(
        self, session_id: str | None, specs: Iterable[ToolSpec], *, worker_id: str | None = None
    ) -> list[RegisteredTool]:
        """Note several tools that workers have, and return them."""
        return [self.register_worker_tool(session_id, spec, worker_id=worker_id) for spec in specs]

    def unregister(self, session_id: str | None, name: str) -> None:
        """Remove a tool. Raises `UnknownTool`."""
        tools = self._scopes.get(session_id, {})
        if name not in tools:
            raise unknown_tool(name, tools)
        del tools[name]

    def cleanup_session(self, session_id: str) -> None:
        """Remove all tools of a session. The registry does this itself when the session ends."""
        if self._scopes.pop(session_id, None) is not None:
            self._hub.unsubscribe(session_id, self)

    # Finding tools.

    def get_tool(self, session_id: str | None, name: str) -> RegisteredTool:
        """The tool of this name that a session has, or the whole pool. Raises `UnknownTool`."""
        found = self._visible(session_id)
        if name not in found:
            raise unknown_tool(name, found)
        return found[name]

    def list_tools(self, session_id: str | None = None) -> list[RegisteredTool]:
        """All tools that a session has, or the whole pool: the workers' own, the pool's and the session's."""
        return list(self._visible(session_id).values())

    def list_exposed_tools(self, session_id: str | None = None) -> list[RegisteredTool]:
        """The host tools that workers may call."""
        # Tools of the adapter run in workers: they are never exposed.
        found = self._scopes[None] | (self._scopes.get(session_id, {}) if session_id is not None else {})
        return [tool for tool in found.values() if tool.exposed]

    def exposed(self, session_id: str | None, name: str) -> RegisteredTool:
        """The host tool of this name that workers may call.

        Raises `UnknownTool` if there is none. The error names no tool that workers may not call.
        """
        for scope in (session_id, None):
            tool = self._scopes.get(scope, {}).get(name)
            if tool is not None and tool.exposed:
                return tool
        missing = unknown_tool(name, [tool.name for tool in self.list_exposed_tools(session_id)])
        stop = "" if str(missing).endswith("?") else "."
        raise UnknownTool(f"{missing}{stop} Workers call functions that the host has given to pool.expose")

    def _visible(self, session_id: str | None) -> dict[str, RegisteredTool]:
        found = {name: RegisteredTool(spec, "worker") for name, spec in self._adapter_tools().items()}
        found |= self._scopes[None]
        return found if session_id is None else found | self._scopes.get(session_id, {})

    def _scope(self, session_id: str | None) -> dict[str, RegisteredTool]:
        if session_id not in self._scopes:
            assert session_id is not None
            self._scopes[session_id] = {}
            self._hub.subscribe(session_id, self, functools.partial(self._end_with, session_id))
        return self._scopes[session_id]

    def _end_with(self, session_id: str, changes: object) -> None:
        if changes is None:
            self._scopes.pop(session_id, None)

    # Running tools.

    async def execute_tool(
        self, session_id: str | None, name: str, args: Mapping[str, Any] = _NOTHING, *, timeout: Timeout = DEFAULT
    ) -> Any:
        """Run a tool, on the host or in a worker, and return its result.

        `timeout`, in seconds, is for tools of workers only, and works as for `Pool.execute`. Raises as
        `execute_local_tool` and `Pool.execute` do.
        """
        tool = self._visible(session_id).get(name)
        if tool is not None and tool.kind == "host":
            return await self.execute_local_tool(session_id, name, args)
        return await self._execute(name, args, session=session_id, timeout=timeout)

    async def execute_local_tool(self, session_id: str | None, name: str, args: Mapping[str, Any] = _NOTHING) -> Any:
        """Run a host tool, exposed or not, and return its result.

        Raises `UnknownTool`, `InvalidArguments`, `WrongCallKind`, and `HostToolError` if the function raised.
        """
        require_trio()
        tool = self.get_tool(session_id, name)
        return await self.run(tool, args, HostCall(session_id))

    async def run(
        self,
        tool: RegisteredTool,
        args: Mapping[str, Any],
        call: HostCall,
        *,
        nested: bool = False,
        large: bool = False,
        keep: Callable[[Any], Any] = _as_it_is,
    ) -> Any:
        """Run a host tool that is no stream, and return its result.

        `nested` says that another host tool waits for this one, maybe in a thread. `large` has the arguments converted
        in a thread, because that takes a while. If the function runs in a thread, `keep` is called with its result in
        that thread, before others may change the result. What `keep` returns is then the result here.

        If cancelled, a coroutine function is cancelled, and this waits for the end of a function in a thread. Raises
        `InvalidArguments`, `WrongCallKind`, `UsageError` for a tool of workers, and `HostToolError` if the function
        raised.
        """
        function, kwargs = await _bound_somewhere(tool, args, call, streaming=False, large=large)
        try:
            if function.is_async:
                return await function.function(**kwargs)
            return await self._in_thread(lambda: keep(function.function(**kwargs)), nested)
        except Exception as error:
            raise host_tool_error(error, tool.name) from error

    async def stream(
        self,
        tool: RegisteredTool,
        args: Mapping[str, Any],
        call: HostCall,
        *,
        nested: bool = False,
        large: bool = False,
        keep: Callable[[Any], Any] = _as_it_is,
    ) -> AsyncGenerator[Any, None]:
        """Run a host tool that is a stream, and yield its items, one after the other.

        The parameters and errors are those of `run`. `keep` is called with each item of a generator that runs in a
        thread. The consumer must close the generator, which stops the host tool.
        """
        function, kwargs = await _bound_somewhere(tool, args, call, streaming=True, large=large)
        try:
            if function.is_async:
                async with contextlib.aclosing(function.function(**kwargs)) as items:
                    async for item in items:
                        yield item  # noqa: ASYNC119 - the consumer closes it
            else:
                generator: Generator[Any, None, None] = function.function(**kwargs)
                try:
                    while (item := await self._in_thread(lambda: _next(generator, keep), nested)) is not _END:
                        yield item
                finally:
                    with self._patience():
                        await self._in_thread(generator.close, nested)  # noqa: ASYNC102 - as long as the code takes
        except Exception as error:
            raise host_tool_error(error, tool.name) from error

    async def _in_thread(self, function: Callable[[], Any], nested: bool) -> Any:
        if self._limiter is None:
            await trio.lowlevel.checkpoint()
            return function()
        # A thread may wait for a nested tool, so a nested tool must not wait until a thread is free.
        place = _Place(trio.CapacityLimiter(1) if nested else self._limiter)
        try:
            limiter: Any = place  # it has the methods that trio calls
            return await trio.to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
        finally:
            with self._patience():
                await place.is_free.wait()  # noqa: ASYNC102 - as long as the code takes

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Shield the block from cancellation, until `_abandon_threads` is called."""
        with trio.CancelScope(shield=True) as scope:
            self._patient.add(scope)
            if self._is_over:
                scope.cancel()
            try:
                yield
            finally:
                self._patient.discard(scope)

    def _abandon_threads(self) -> None:
        """Stop waiting for host tools that run in threads, whatever they do there. For a pool that has ended."""
        self._is_over = True
        for scope in list(self._patient):
            scope.cancel()


class _Place:
    """A place for a thread. It is free again when the thread has ended, even if nobody waits for that any more."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self.is_free = trio.Event()
        self.is_free.set()

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._limiter.acquire_on_behalf_of(borrower)
        self.is_free = trio.Event()

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(borrower)
        self.is_free.set()


def _tool_of(function: Callable[..., Any], name: str, description: str | None) -> Tool:
    if not inspect.ismethod(function) or name != function.__name__ or description is not None:
        return Tool(function, name, description, context_type=HostCall)
    known = _read.get(function.__func__)
    if known is None:
        known = _read[function.__func__] = Tool(function, name, context_type=HostCall).of(unbound)
    return known.of(function)


def _next(generator: Generator[Any, None, None], keep: Callable[[Any], Any]) -> Any:
    item = next(generator, _END)
    return item if item is _END else keep(item)


async def _bound_somewhere(
    tool: RegisteredTool, args: Mapping[str, Any], call: HostCall, *, streaming: bool, large: bool
) -> tuple[Tool, dict[str, Any]]:
    if large:
        return await read_in_thread(lambda: _bound(tool, args, call, streaming=streaming))
    return _bound(tool, args, call, streaming=streaming)


def _bound(
    tool: RegisteredTool, args: Mapping[str, Any], call: HostCall, *, streaming: bool
) -> tuple[Tool, dict[str, Any]]:
    function = tool.function
    if function is None:
        raise UsageError(f"{tool.name!r} is a tool of workers: call it with pool.execute")
    if function.streaming != streaming:
        right = "stream_host_tool" if function.streaming else "call_host_tool"
        kind = "a stream" if function.streaming else "no stream"
        raise WrongCallKind(f"host tool {tool.name!r} is {kind}: call it with context.{right}")
    return function, function.bind(dict(args), call)


def _place(session_id: str | None) -> str:
    return "the pool" if session_id is None else f"session {session_id!r}"
