"""The iterator over the results of many calls."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import outcome
import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.blocks import only_async
from snakepit_trio._util.ownership import OneTaker
from snakepit_trio._util.validation import check_answer

T = TypeVar("T")
R = TypeVar("R")
_QUICK: Final = 0.002  # seconds
_SLOW: Final = 0.01
OnItems = Callable[[int, int | None], object]


class Done(Generic[T]):
    """What has become of the items of one call: a value for each, and the errors of those that failed, by position."""

    __slots__ = ("errors", "items", "size", "values")

    def __init__(self, items: Sequence[T], values: Sequence[Any], errors: Mapping[int, Exception]) -> None:
        self.items = items
        self.values = values
        self.errors = errors
        self.size = len(values)

    @classmethod
    def failed(cls, items: Sequence[T], error: Exception) -> Done[T]:
        """All items of a call have failed by one error."""
        return cls(items, [None] * len(items), dict.fromkeys(range(len(items)), error))

    @classmethod
    def one(cls, items: Sequence[T], value: Any) -> Done[T]:
        """A call of one item has given a value."""
        return cls(items, [value], {})


class Room:
    """How many calls may be under way, or finished and not yet taken: `limit`, and up to `most` while they are quick.

    An item in a queue is memory, and has been drawn too early if the consumer leaves. But calls that take less time
    than the way to a worker and back leave the workers idle if there are few of them.
    """

    def __init__(self, limit: int, most: int) -> None:
        self.free = limit
        self._further = 0  # calls beyond `limit`
        self._most_further = most - limit
        self._surplus = 0  # of these, how many must end first
        self._is_closed = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def take(self) -> bool:
        """Wait until there is room for a call. Returns False when there is to be no further one."""
        while not self.free and not self._is_closed:
            await self._waiting.park()
        if self._is_closed:
            return False
        self.free -= 1
        return True

    def close(self) -> None:
        """Take no further calls."""
        self._is_closed = True
        self._waiting.unpark_all()

    def give_back(self) -> None:
        """The results of a call were taken."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._free_one()

    def note(self, seconds: float) -> None:
        """Note how long a call has taken."""
        if seconds < _QUICK:
            if self._further < self._most_further:
                self._further += 1
                self._free_one()
        elif seconds > _SLOW and self._further:
            self._further -= 1
            self._surplus += 1

    def _free_one(self) -> None:
        self.free += 1
        self._waiting.unpark()


class Results(AsyncIterator[R], Generic[T, R]):
    """The results of `Pool.map`, one for each item, in the order that `map` was asked for.

    Iterating raises the error of a failed call where its result would have come, and goes on after it; with `pairs`,
    each result is a pair of the item and its outcome. An error of the source of items is raised last. Iterating is a
    checkpoint of trio; if it is cancelled, no result is lost. Only one task at a time may iterate: a second one gets
    `trio.BusyResourceError`.
    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        room: Room,
        callers: int,
        ordered: bool,
        chunksize: int = 1,
        pairs: bool = False,
        on_progress: OnItems | None = None,
    ) -> None:
        if not isinstance(source, (Iterable, AsyncIterable)) or isinstance(source, Mapping):
            raise UsageError(f"items={source!r}: give an iterable of arguments; for a tool, a dict for each call")
        self._source: Iterator[T] | AsyncIterator[T]
        self._source = aiter(source) if isinstance(source, AsyncIterable) else iter(source)
        self._items = len(source) if isinstance(source, Sized) else None
        self._room = room
        self._ordered = ordered
        self._chunksize = chunksize
        self._pairs = pairs
        self._on_progress = on_progress
        self._next = 0  # the call whose results are taken next
        self._early: dict[int, Done[T]] = {}
        self._done: deque[Done[T]] = deque()
        self._at = 0  # of the results of the first of them
        self._changed = trio.lowlevel.ParkingLot()
        self._taker = OneTaker("map")
        self._drawn = 0  # calls
        self._calls = math.inf
        self._settled = 0  # items
        self._callers = 0
        self._most_callers = callers
        self._idle = 0  # callers that are in no call

    if not TYPE_CHECKING:
        __iter__ = only_async

    async def _feed(self, call: Callable[[Sequence[T]], Awaitable[Done[T]]]) -> None:
        """Draw items from the source while there is room, and run calls for them. Returns after the last call."""
        async with trio.open_nursery() as nursery:
            if isinstance(self._source, AsyncIterator):
                await self._start_calls(nursery, call)
            else:
                self._add_caller(nursery, call)

    async def _start_calls(self, nursery: trio.Nursery, call: Callable[[Sequence[T]], Awaitable[Done[T]]]) -> None:
        # One task draws from an async generator, which may have cancel scopes and nurseries of its own.
        while await self._room.take() and (items := await self._draw()):
            nursery.start_soon(self._run, self._next_number(), call, items)

    # A task for each call would cost as much as the rest of a quick call. A caller draws the items of each call when it
    # makes the call: so calls start in the order of their items.
    async def _make_calls(self, nursery: trio.Nursery, call: Callable[[Sequence[T]], Awaitable[Done[T]]]) -> None:
        while await self._room.take() and (items := await self._draw()):
            self._idle -= 1
            if self._room.free and not self._idle and self._callers < self._most_callers:
                self._add_caller(nursery, call)
            await self._run(self._next_number(), call, items)
            self._idle += 1

    def _add_caller(self, nursery: trio.Nursery, call: Callable[[Sequence[T]], Awaitable[Done[T]]]) -> None:
        self._callers += 1
        self._idle += 1
        nursery.start_soon(self._make_calls, nursery, call)

    def _next_number(self) -> int:
        number = self._drawn
        self._drawn += 1
        return number

    async def __anext__(self) -> R:
        done = self._done[0] if self._at else None  # its first result was taken by a checkpoint
        if done is None:
            with self._taker:
                done = await self._ready()
        at = self._at
        self._at += 1
        if self._at == done.size:
            self._leave()
        if self._pairs and done.items:  # an error of the source has none
            return (done.items[at], _outcome(done, at))  # type: ignore[return-value]  # R is a pair then
        if at in done.errors:
            raise done.errors[at]
        value: R = done.values[at]
        return value

    async def _ready(self) -> Done[T]:
        while not self._done:
            if self._next >= self._calls:
                raise StopAsyncIteration
            await self._changed.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._done[0]

    def _leave(self) -> None:
        self._done.popleft()
        self._at = 0
        self._next += 1
        self._room.give_back()

    async def _draw(self) -> list[T]:
        """Draw the items of the next call; none if there are no more."""
        items: list[T] = []
        try:
            if isinstance(self._source, AsyncIterator):
                while len(items) < self._chunksize:
                    items.append(await anext(self._source))
            else:
                items.extend(itertools.islice(self._source, self._chunksize))
                if len(items) < self._chunksize:
                    raise StopIteration
        except Exception as error:
            self._end(self._drawn + bool(items), error)
        return items

    def _end(self, calls: int, error: Exception) -> None:
        """There are no items but those of the first `calls` calls, because of an error of the source, or its end."""
        self._calls = calls
        if not isinstance(error, (StopIteration, StopAsyncIteration)):
            self._calls += 1
            self._deliver(calls, Done((), [None], {0: error}))
        self._room.close()
        self._changed.unpark_all()

    async def _run(self, number: int, call: Callable[[Sequence[T]], Awaitable[Done[T]]], items: Sequence[T]) -> None:
        now = trio.lowlevel.current_clock().current_time  # `trio.current_time` takes longer
        began = now()
        try:
            done = await call(items)
        except Exception as error:
            done = Done.failed(items, error)
        self._room.note(now() - began)
        self._deliver(number, done)
        self._settled += len(items)
        if (tell := self._on_progress) is not None:
            self._on_progress = None  # if it raises, it is not called again
            check_answer("on_progress", tell, tell(self._settled, self._items))
            self._on_progress = tell

    def _deliver(self, number: int, done: Done[T]) -> None:
        if not self._ordered:
            self._done.append(done)
        else:
            self._early[number] = done
            expected = self._next + len(self._done)
            while (ready := self._early.pop(expected, None)) is not None:
                self._done.append(ready)
                expected += 1
        self._changed.unpark_all()


def _outcome(done: Done[Any], at: int) -> outcome.Maybe[Any]:
    return outcome.Error(done.errors[at]) if at in done.errors else outcome.Value(done.values[at])
