"""Calls of functions: the typed face that pools, sessions and contexts share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, overload

from bridge_py import BaseAdapter
from bridge_py.tools.pickling import Values
from snakepit_trio._calls.functions import Function, function_of
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._config.targets import unwrapped

P = ParamSpec("P")
A = TypeVar("A", bound=BaseAdapter)
R = TypeVar("R")


class FunctionCall(NamedTuple):
    """A call as the application makes it."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    streams: bool

    def read(self, values: Values) -> tuple[Function, Any]:
        """Find out how a worker runs the function; returns also the arguments of the worker's tool.

        Raises `UsageError` for a function that workers cannot run, and for arguments that a tool does not take.
        """
        function, args, kwargs = unwrapped(self.function, self.args, self.kwargs)
        found = function_of(function, self.streams, values)
        return found, found.arguments(args, kwargs)


class FunctionCalls(ABC):
    """Runs functions in workers."""

    @abstractmethod
    async def _run(self, call: FunctionCall) -> Any: ...

    @abstractmethod
    def _iterate(self, call: FunctionCall) -> AbstractAsyncContextManager[Chunks[Any]]: ...

    @overload
    async def run(
        self, function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run(self, function: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function in a worker with these arguments, and return what it returns.

        `function` is a plain function or a coroutine function that a worker can import: one at the top of a module, or
        of the program's own script. It may also be a tool of the adapter, as its method (`Tools.double`). Tuples arrive
        as tuples. Dataclasses, enums and the like arrive as what they are where the function has hints for them, and as
        their values elsewhere. If the function raises, the same exception is raised here, as far as this process has
        loaded its class and its arguments can be sent; its cause is a `ToolError` with the remote traceback.

        There is no time limit unless `options` or a tool sets one. If the call is cancelled or times out, its code is
        stopped before this returns, and its worker is killed if that takes more than `cancel_grace` seconds.

        Raises `UsageError` (also `EncodeError` and `InvalidArguments`) for a function, or arguments, that cannot be
        sent. Raises `ToolError` for an exception that cannot be made again here, and `CallTimeout`, `WorkerCrashed`,
        `PoolClosed`, `PoolSaturated`, `Tainted` and `WorkerBusy` as `execute` does.
        """
        return await self._run(FunctionCall(function, args, kwargs, streams=False))

    @overload
    def iterate(
        self, function: Callable[Concatenate[A, P], AsyncIterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[Chunks[R]]: ...
    @overload
    def iterate(
        self, function: Callable[Concatenate[A, P], Iterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[Chunks[R]]: ...
    @overload
    def iterate(
        self, function: Callable[P, AsyncIterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[Chunks[R]]: ...
    @overload
    def iterate(
        self, function: Callable[P, Iterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[Chunks[R]]: ...
    def iterate(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Chunks[Any]]:
        """Run a generator function in a worker: `async with pool.iterate(f, 3) as chunks`, then `async for`.

        `function` is as for `run`; it may be a generator function, an async one, or a function that returns something
        to iterate over. It is never more than `stream_window` values ahead. Leaving the block early stops it, and the
        block ends when none of its code runs any more. Errors are raised where the values are taken, as what they are.
        """
        return self._iterate(FunctionCall(function, args, kwargs, streams=True))
