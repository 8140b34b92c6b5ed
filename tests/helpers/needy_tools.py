"""Tools that need resources. They tell the host when they begin, and end when the host lets them."""

from __future__ import annotations

import os

from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """Each tool calls the host tool `stay`, which notes who is there."""

    @tool(resources={"gpu": 1})
    def one(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="one")
        return context.worker_number or 0

    @tool(resources={"gpu": 0.1})
    def tenth(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="tenth")
        return context.worker_number or 0

    @tool(resources={"gpu": 2})
    def two(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="two")
        return context.worker_number or 0

    @tool(resources={"gpu": 1}, limit=1)
    def limited(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="limited")
        return context.worker_number or 0

    @tool
    def free(self, context: SessionContext) -> int:
        context.call_host_tool("stay", name="free")
        return context.worker_number or 0

    @tool(resources={"gpu": 1})
    def die(self, context: SessionContext) -> None:
        context.call_host_tool("stay", name="die")
        os.kill(os.getpid(), 9)

    @tool(resources={"gpu": 1})
    def nest(self, context: SessionContext) -> object:
        return context.call_host_tool("again")


def number() -> int:
    """The number of the worker that runs this."""
    return int(os.environ["SNAKEPIT_WORKER_NUMBER"])
