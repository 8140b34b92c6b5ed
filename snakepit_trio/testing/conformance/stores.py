"""The input of the rules for a `SessionStore`: stores, their time, and records of their hubs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Self

import trio

from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.session import Change
from snakepit_trio.state.store import SessionStore

from .check import LeftOut, made_by, takes, that

Made = SessionStore | Awaitable[SessionStore] | AbstractAsyncContextManager[SessionStore]
_CLOCK_TTL: Final = 100.0


class Stores:
    """Makes the stores that the rules check."""

    def __init__(self, make: Callable[..., Any], ttl: float, patience: float) -> None:
        self._make = make
        self._ttl = ttl
        self.patience = patience

    @asynccontextmanager
    async def empty(self, quotas: Quotas | None = None) -> AsyncIterator[SessionStore]:
        """A store without sessions. Raises `LeftOut` if quotas are asked for, and the maker takes none."""
        async with self.timed(quotas) as (made, _):
            yield made

    @asynccontextmanager
    async def timed(self, quotas: Quotas | None = None) -> AsyncIterator[tuple[SessionStore, Time]]:
        """A store without sessions, and its time. Raises `LeftOut` as `empty` does."""
        passing: Time = MovedTime() if takes(self._make, "clock") else RealTime(self._ttl)
        options: dict[str, Any] = {}
        if isinstance(passing, MovedTime):
            options["clock"] = passing.now
        if quotas is not None:
            if not takes(self._make, "quotas"):
                raise LeftOut("its maker has no parameter `quotas`")
            options["quotas"] = quotas
        async with made_by(self._make, SessionStore, **options) as made:
            yield made, passing


class Time:
    """Time as a store sees it. `ttl`, in seconds, is for sessions that are to expire."""

    ttl: float

    def now(self) -> float:
        """The time in seconds, since any fixed moment."""
        raise NotImplementedError

    async def go_on(self, part: float) -> None:
        """Let `part` times the ttl pass."""
        raise NotImplementedError


class MovedTime(Time):
    """Time that only `go_on` moves."""

    ttl = _CLOCK_TTL

    def __init__(self) -> None:
        self._now = 1.7e9

    def now(self) -> float:
        """Unix time in seconds."""
        return self._now

    async def go_on(self, part: float) -> None:
        self._now += part * self.ttl
        await trio.lowlevel.checkpoint()


class RealTime(Time):
    """The time of the machine."""

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl

    def now(self) -> float:
        return time.monotonic()

    async def go_on(self, part: float) -> None:
        end = time.monotonic() + part * self.ttl
        # The store does not go by trio's clock, which a test may have replaced.
        while (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - time
            await trio.sleep(left)


class Ear:
    """Records what a hub tells of one session: changes, and None for the end. A context manager."""

    def __init__(self, made: SessionStore, session_id: str, patience: float) -> None:
        self.heard: list[Change | None] = []
        self._store = made
        self._session_id = session_id
        self._patience = patience
        self._news = trio.Event()

    def __enter__(self) -> Self:
        self._store.hub.subscribe(self._session_id, self, self._hear)
        return self

    def __exit__(self, *_error: object) -> None:
        self._store.hub.unsubscribe(self._session_id, self)

    def _hear(self, changes: Sequence[Change] | None) -> None:
        self.heard.extend([None] if changes is None else changes)
        self._news.set()

    async def until(self, expected: int, what: str) -> list[Change | None]:
        """Wait until the expected number of changes was heard, and return them. More, or fewer, are a failure."""
        with trio.move_on_after(self._patience if self._store.may_wait else 0):
            while len(self.heard) < expected:
                self._news = trio.Event()
                await self._news.wait()
        told = [change and change.name for change in self.heard]
        that(len(told) == expected, f"{what}: expected that the hub tells of {expected} changes, but it told of {told}")
        return self.heard
