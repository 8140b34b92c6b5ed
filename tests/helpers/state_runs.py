"""Tests of state as functions, and how they are run with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from snakepit_trio import MemoryStore, SessionView

Test = Callable[[SessionView], Awaitable[None]]


@asynccontextmanager
async def of_a_store() -> AsyncIterator[SessionView]:
    """A session of a store in memory."""
    store = MemoryStore()
    yield store.of(await store.create_session())


def run(test: Test, provider: Any = of_a_store) -> None:
    """Run a test with state."""

    async def main() -> None:
        async with provider() as state:
            await test(state)

    trio.run(main)
