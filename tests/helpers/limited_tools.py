"""Tools with limits. They tell the host when they begin, and end when the host lets them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """Each tool calls the host tool `stay`, which counts who is there."""

    @tool(limit=2)
    def two(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="two")
        return os.getpid()

    @tool(limit=2)
    async def two_async(self, context: AsyncSessionContext) -> int:
        await context.call_host_tool("stay", name="two_async")
        return os.getpid()

    @tool(limit=1)
    def one_stream(self, context: SessionContext) -> Iterator[int]:
        context.call_host_tool("stay", name="one_stream")
        while True:
            yield os.getpid()

    @tool
    def free(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="free")
        return os.getpid()

    @tool(limit=1)
    def die(self, context: SessionContext) -> None:
        context.call_host_tool("stay", name="die")
        os.kill(os.getpid(), 9)

    @tool(limit=1)
    def nest(self, context: SessionContext) -> object:
        return context.call_host_tool("again")

    @tool(limit=1)
    def plain(self) -> int:
        return os.getpid()
