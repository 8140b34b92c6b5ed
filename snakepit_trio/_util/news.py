"""News that a task takes one by one, while code that never waits adds to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Self, TypeVar

import trio

from .ownership import OneTaker

T = TypeVar("T")


class News(AsyncIterator[T]):
    """What waits to be taken, each under a key, the oldest first.

    Iterating waits for more, and ends after the end, when all has been taken. Only one task at a time may iterate: a
    second one gets `trio.BusyResourceError`. Cancelling loses nothing.
    """

    def __init__(self, taking: str) -> None:
        """`taking` is what the task does, for the error of a second one."""
        self._waiting: OrderedDict[object, T] = OrderedDict()
        self._has_ended = False
        self._news = trio.Event()
        self._taker = OneTaker(taking)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with self._taker:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._waiting:
                if self._has_ended:
                    raise StopAsyncIteration
                self._news = trio.Event()
                await self._news.wait()
            return self._waiting.popitem(last=False)[1]
