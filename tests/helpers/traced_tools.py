"""Tools that say which trace they are part of."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import bridge_py
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool


def seen() -> list[Any]:
    """The correlation id and the headers of W3C, as code without a context sees them."""
    return [bridge_py.correlation_id(), bridge_py.trace_headers()]


def seen_by_a_function() -> list[Any]:
    """As `seen`, and as the context of a function of `Pool.run` has it."""
    return [*seen(), bridge_py.current_context().correlation_id]


def fail() -> None:
    """Raise an error."""
    raise ValueError("no")


class Tools(BaseAdapter):
    """They say what they see in each kind of tool."""

    @tool
    def plain(self) -> list[Any]:
        return seen()

    @tool
    def with_context(self, context: SessionContext) -> list[Any]:
        return [*seen(), context.correlation_id]

    @tool
    async def coroutine(self, context: AsyncSessionContext) -> list[Any]:
        inner = await asyncio.create_task(_seen_in_a_task())
        return [*inner, context.correlation_id]

    @tool
    def in_a_thread(self) -> list[Any]:
        found: list[Any] = []
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: found.extend(context.run(seen)))
        thread.start()
        thread.join()
        return found

    @tool
    def items(self) -> Iterator[list[Any]]:
        yield seen()
        yield seen()

    @tool
    async def async_items(self) -> AsyncIterator[list[Any]]:
        yield seen()
        yield seen()

    @tool
    def fails(self) -> None:
        raise ValueError("no")

    @tool
    def dies(self) -> None:
        import os

        os._exit(3)

    @tool
    def sleeps(self) -> None:
        import time

        time.sleep(60)

    @tool
    def asks(self, name: str, context: SessionContext) -> Any:
        return context.call_host_tool(name)


async def _seen_in_a_task() -> list[Any]:
    return seen()
