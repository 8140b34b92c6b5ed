"""Iterators over results: the chunks of one call, and the results of many calls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import outcome
import trio

from bridge_py.wire.errors import UsageError
from bridge_py.wire.frames import Frame
from snakepit_trio._util.ownership import OneTaker

from .call import Call

T = TypeVar("T")
R = TypeVar("R")


class Chunks(AsyncIterator[Any]):
    """The chunks of a streaming call, in order, as its tool yields them.

    Iterating raises `ToolError` where the tool raised, `WorkerCrashed` if its worker died, and
    `CallTimeout` when the time of the stream is used up. Chunks that came before the error are delivered
    first. Iterating is a checkpoint of trio whenever no chunk is there yet. Only one task at a time may
    iterate: a second one gets `trio.BusyResourceError`. After the stream's block, iterating raises
    `UsageError`.
    """

    def __init__(
        self,
        call: Call,
        window: int,
        decode: Callable[[Call, Frame], Any],
        time_out: Callable[[Call], Awaitable[NoReturn]],
    ) -> None:
        self._call = call
        self._refill_at = max(1, window // 2)
        self._taken = 0  # the credit that the chunks cost which were taken since the last grant
        self._decode = decode
        self._time_out = time_out
        self._taker = OneTaker("stream")
        self._is_left = False

    def leave(self) -> None:
        """End the iteration, because the stream's block is left. A task that waits for a chunk now gets none either."""
        self._is_left = True
        self._call.wake()

    async def __anext__(self) -> Any:
        call = self._call
        if not call.chunks or self._is_left or self._taker.is_taken:
            with self._taker:
                await self._until_there_is_one(call)
        await trio.lowlevel.checkpoint_if_cancelled()
        chunk = call.chunks.popleft()
        self._taken += chunk.number
        if self._taken >= self._refill_at and not call.is_over and call.worker is not None:
            call.worker.grant(call, self._taken)
            self._taken = 0
        return self._decode(call, chunk)

    async def _until_there_is_one(self, call: Call) -> None:
        while self._is_left or not call.chunks:
            if self._is_left:
                raise UsageError(f"the block of this stream of {call.name!r} has been left: take its chunks inside it")
            if call.is_over:
                if call.failure is not None:
                    raise call.failure
                raise StopAsyncIteration
            if call.is_late:
                await self._time_out(call)
            await call.wait()


class Results(AsyncIterator[R], Generic[T, R]):
    """The results of `Pool.map`. At most `limit` calls are under way or finished and not yet taken.

    Only one task at a time may iterate: a second one gets `trio.BusyResourceError`.
    """

    def __init__(self, source: Iterable[T] | AsyncIterable[T], limit: int, ordered: bool) -> None:
        if not isinstance(source, (Iterable, AsyncIterable)) or isinstance(source, Mapping):
            raise UsageError(f"args={source!r}: give an iterable of arguments, which are a dict for each call")
        self._source: Iterator[T] | AsyncIterator[T]
        self._source = aiter(source) if isinstance(source, AsyncIterable) else iter(source)
        self._room = trio.Semaphore(limit)
        self._ordered = ordered
        self._next = 0
        self._early: dict[int, outcome.Maybe[R]] = {}
        self._done: deque[outcome.Maybe[R]] = deque()
        self._changed = trio.Event()
        self._taker = OneTaker("map")
        self._total = math.inf

    async def feed(self, call: Callable[[T], Awaitable[R]]) -> None:
        """Draw items from the source while there is room, and run a call for each. Returns after the last call."""
        number = 0
        async with trio.open_nursery() as nursery:
            while True:
                await self._room.acquire()
                item = await self._draw()
                if isinstance(item, outcome.Error):
                    break
                nursery.start_soon(self._run, number, call, item.value)
                number += 1
        if not isinstance(item.error, (StopIteration, StopAsyncIteration)):
            self._deliver(number, item)
            number += 1
        self._total = number
        self._wake()

    async def __anext__(self) -> R:
        with self._taker:
            while not self._done:
                if self._next >= self._total:
                    raise StopAsyncIteration
                await self._changed.wait()
            await trio.lowlevel.checkpoint_if_cancelled()
            self._next += 1
            self._room.release()
            return self._done.popleft().unwrap()

    async def _draw(self) -> outcome.Maybe[T]:
        if isinstance(self._source, AsyncIterator):
            return await outcome.acapture(anext, self._source)
        return outcome.capture(next, self._source)

    async def _run(self, number: int, call: Callable[[T], Awaitable[R]], item: T) -> None:
        try:
            result: outcome.Maybe[R] = outcome.Value(await call(item))
        except Exception as error:
            result = outcome.Error(error)
        self._deliver(number, result)

    def _deliver(self, number: int, result: outcome.Maybe[R]) -> None:
        if not self._ordered:
            self._done.append(result)
        else:
            self._early[number] = result
            expected = self._next + len(self._done)
            while (ready := self._early.pop(expected, None)) is not None:
                self._done.append(ready)
                expected += 1
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
