"""Calls of functions: the typed face that pools, sessions and contexts share."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, Unpack, overload

import outcome

from bridge_py import BaseAdapter
from bridge_py.tools.pickling import Values
from snakepit_trio._calls.call import DEFAULT, Arguments, Timeout
from snakepit_trio._calls.functions import Function, function_of
from snakepit_trio._calls.mapping import OnItems, Results
from snakepit_trio._calls.progress import OnProgress
from snakepit_trio._calls.streams import Chunks
from snakepit_trio._config.policies import RetryPolicy
from snakepit_trio._config.targets import unwrapped
from snakepit_trio.state.view import SessionView

from .near_misses import OPTIONS, check_no_options

P = ParamSpec("P")
A = TypeVar("A", bound=BaseAdapter)
R = TypeVar("R")
T = TypeVar("T")
Items = Iterable[T] | AsyncIterable[T]
Block = AbstractAsyncContextManager[T]
Pair = tuple[T, outcome.Maybe[R]]


class CallOptions(TypedDict, total=False):
    """What each call takes."""

    timeout: Timeout
    priority: int | None


class OneCallOptions(CallOptions, total=False):
    """What a single call of a tool takes."""

    on_progress: OnProgress | None


class RetryOptions(OneCallOptions, total=False):
    """What each call takes that does not stream."""

    retries: int | RetryPolicy | None


class ExecuteOptions(RetryOptions, total=False):
    """What calls of tools take where they are in no session yet."""

    session: SessionView | str | None


class StreamOptions(OneCallOptions, total=False):
    """What streams of tools take where they are in no session yet."""

    session: SessionView | str | None


class MapOptions(CallOptions, total=False):
    """What `map` takes beside `pairs`."""

    retries: int | RetryPolicy | None
    session: SessionView | str | None
    limit: int | None
    ordered: bool
    chunksize: int
    on_progress: OnItems | None


Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def read_call(function: Any, args: Args, kwargs: Kwargs, streams: bool, values: Values) -> tuple[Function, Any]:
    """Find out how a worker runs a function; returns also the arguments of the worker's tool.

    Raises `UsageError` for a function that workers cannot run, and for arguments that a tool does not take.
    """
    if isinstance(function, functools.partial):
        function, args, kwargs = unwrapped(function, args, kwargs)
    if kwargs and not OPTIONS.isdisjoint(kwargs):
        check_no_options(function, kwargs)
    found = function_of(function, streams, values)
    return found, found.arguments(args, kwargs)


class FunctionCalls(ABC):
    """Runs functions in workers, once or for each of many items."""

    @abstractmethod
    def _run(self, function: Any, args: Args, kwargs: Kwargs) -> Coroutine[Any, Any, Any]: ...

    @abstractmethod
    def _iterate(self, function: Any, args: Args, kwargs: Kwargs) -> Block[Chunks[Any]]: ...

    @abstractmethod
    def _map(self, function: Any, items: Any, pairs: bool, options: Mapping[str, Any]) -> Block[Results[Any, Any]]: ...

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
        return await self._run(function, args, kwargs)

    @overload
    def iterate(
        self, function: Callable[Concatenate[A, P], AsyncIterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Block[Chunks[R]]: ...
    @overload
    def iterate(
        self, function: Callable[Concatenate[A, P], Iterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Block[Chunks[R]]: ...
    @overload
    def iterate(
        self, function: Callable[P, AsyncIterable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Block[Chunks[R]]: ...
    @overload
    def iterate(self, function: Callable[P, Iterable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Block[Chunks[R]]: ...
    def iterate(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Block[Chunks[Any]]:
        """Run a generator function in a worker: `async with pool.iterate(f, 3) as chunks`, then `async for`.

        `function` is as for `run`; it may be a generator function, an async one, or a function that returns something
        to iterate over. It is never more than `stream_window` values ahead. Leaving the block early stops it, and the
        block ends when none of its code runs any more. Errors are raised where the values are taken, as what they are.
        """
        return self._iterate(function, args, kwargs)

    @overload
    def map(
        self, function: str, items: Items[Arguments], *, pairs: Literal[False] = False, **options: Unpack[MapOptions]
    ) -> Block[Results[Arguments, Any]]: ...
    @overload
    def map(
        self, function: str, items: Items[Arguments], *, pairs: Literal[True], **options: Unpack[MapOptions]
    ) -> Block[Results[Arguments, Pair[Arguments, Any]]]: ...
    @overload
    def map(
        self,
        function: Callable[[A, T], Coroutine[Any, Any, R]],
        items: Items[T],
        *,
        pairs: Literal[False] = False,
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, R]]: ...
    @overload
    def map(
        self,
        function: Callable[[A, T], Coroutine[Any, Any, R]],
        items: Items[T],
        *,
        pairs: Literal[True],
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, Pair[T, R]]]: ...
    @overload
    def map(
        self,
        function: Callable[[A, T], R],
        items: Items[T],
        *,
        pairs: Literal[False] = False,
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, R]]: ...
    @overload
    def map(
        self, function: Callable[[A, T], R], items: Items[T], *, pairs: Literal[True], **options: Unpack[MapOptions]
    ) -> Block[Results[T, Pair[T, R]]]: ...
    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Items[T],
        *,
        pairs: Literal[False] = False,
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, R]]: ...
    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Items[T],
        *,
        pairs: Literal[True],
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, Pair[T, R]]]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Items[T],
        *,
        pairs: Literal[False] = False,
        **options: Unpack[MapOptions],
    ) -> Block[Results[T, R]]: ...
    @overload
    def map(
        self, function: Callable[[T], R], items: Items[T], *, pairs: Literal[True], **options: Unpack[MapOptions]
    ) -> Block[Results[T, Pair[T, R]]]: ...
    @overload
    def map(
        self, function: str | Callable[[T], Any], items: Items[T], *, pairs: bool, **options: Unpack[MapOptions]
    ) -> Block[Results[T, Any]]: ...
    def map(
        self,
        function: str | Callable[..., Any],
        items: Items[Any],
        *,
        limit: int | None = None,
        ordered: bool = True,
        pairs: bool = False,
        chunksize: int = 1,
        retries: int | RetryPolicy | None = None,
        on_progress: OnItems | None = None,
        timeout: Timeout = DEFAULT,
        session: SessionView | str | None = None,
        priority: int | None = None,
    ) -> Block[Results[Any, Any]]:
        """Run a function, or a tool, for each of many items: `async with pool.map(f, items) as results`, then iterate.

        `function` is as for `run`, and is called with the item; a tool that is given by its name is called with the
        item as its arguments. `items` may be an async iterable. The pool draws from it only as fast as results are
        taken: at most `limit` calls are under way or wait to be taken. The default is twice the pool's capacity, and as
        long as calls take less than 2 ms, up to 128, of which 64 are under way. Results come in the order of the items,
        or as they are ready with `ordered=False`. A failed call raises where its result would have come, what `run` or
        `execute` would raise. With `pairs` nothing is raised: each result is a pair of the item and an `outcome.Value`
        or `outcome.Error`. Leaving the block stops the calls that are still under way.

        With `chunksize`, a call runs a function for that many items, one after the other. It is for small items:
        `timeout` and `retries` are for each call, and a worker that crashes fails all items of its call.
        `on_progress` is called with the number of items that are done, and the number of all, None if that is not
        known. What it raises comes out of the block. `session` is for calls of a pool: a session and a context have
        their own, and raise `UsageError`. `priority`, of each call, is from -100 to 100: a negative one lets other
        calls go first.
        """
        options = {
            "limit": limit,
            "ordered": ordered,
            "chunksize": chunksize,
            "retries": retries,
            "on_progress": on_progress,
            "timeout": timeout,
            "session": session,
            "priority": priority,
        }
        return self._map(function, items, pairs, options)
