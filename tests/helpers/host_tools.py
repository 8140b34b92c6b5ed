"""Tools that call functions of the host."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, HostToolError, SessionContext, tool


class HostCallers(BaseAdapter):
    """All of them."""

    @tool
    def call(self, ctx: SessionContext, name: str, args: dict[str, Any]) -> Any:
        """Call a host tool."""
        return ctx.call_host_tool(name, **args)

    @tool
    async def call_async(self, ctx: AsyncSessionContext, name: str, args: dict[str, Any]) -> Any:
        """Call a host tool, in a coroutine."""
        return await ctx.call_host_tool(name, **args)

    @tool
    def call_caught(self, ctx: SessionContext, name: str, args: dict[str, Any]) -> list[str]:
        """What is known of a host tool's error."""
        try:
            ctx.call_host_tool(name, **args)
        except HostToolError as error:
            return [error.tool, error.type, error.message, str(error), "".join(error.__notes__)]
        return []

    @tool
    def describe(self, ctx: SessionContext) -> dict[str, Any]:
        """All host tools, as the code of a worker sees them."""
        return {
            name: [each.__name__, each.__doc__, str(inspect.signature(each))] for name, each in ctx.host_tools.items()
        }

    @tool
    async def describe_async(self, ctx: AsyncSessionContext) -> dict[str, Any]:
        """The same, in a coroutine."""
        found = await ctx.host_tools
        return {name: [each.__name__, each.__doc__, str(inspect.signature(each))] for name, each in found.items()}

    @tool
    def by_proxy(self, ctx: SessionContext, name: str, args: list[Any]) -> Any:
        """Call a host tool through its proxy."""
        found = ctx.host_tools[name](*args)
        return list(found) if inspect.isgenerator(found) else found

    @tool
    async def by_proxy_async(self, ctx: AsyncSessionContext, name: str, args: list[Any]) -> Any:
        """The same, in a coroutine."""
        tools = await ctx.host_tools
        answer = tools[name](*args)
        return [item async for item in answer] if inspect.isasyncgen(answer) else await answer

    @tool
    def take(self, ctx: SessionContext, name: str, number: int, pause: float = 0.0) -> list[Any]:
        """Take some items of a host stream, and close it."""
        found = []
        stream = ctx.stream_host_tool(name)
        for item in stream:
            found.append(item)
            if len(found) == number:
                time.sleep(pause)
                stream.close()
        return found

    @tool
    async def take_async(self, ctx: AsyncSessionContext, name: str, number: int, pause: float = 0.0) -> list[Any]:
        """The same, in a coroutine."""
        found = []
        stream = ctx.stream_host_tool(name)
        async for item in stream:
            found.append(item)
            if len(found) == number:
                await asyncio.sleep(pause)
                await stream.aclose()
                break
        return found

    @tool
    def relay(self, ctx: SessionContext, name: str) -> Iterator[Any]:
        """Pass a host stream on."""
        yield from ctx.stream_host_tool(name)

    @tool
    async def relay_async(self, ctx: AsyncSessionContext, name: str) -> AsyncIterator[Any]:
        """The same, in a coroutine."""
        async for item in ctx.stream_host_tool(name):
            yield item

    @tool
    async def give_up(self, ctx: AsyncSessionContext, name: str, seconds: float) -> str:
        """Call a host tool, and give it up after some time."""
        try:
            await asyncio.wait_for(ctx.call_host_tool(name), seconds)
        except TimeoutError:
            return "gave up"
        return "done"

    @tool
    def leave_behind(self, ctx: SessionContext, name: str) -> str:
        """Call a host tool in a thread that outlives the call."""
        threading.Thread(target=lambda: _ignore(ctx, name), daemon=True).start()
        time.sleep(0.2)
        return "left"

    @tool
    async def many(self, ctx: AsyncSessionContext, name: str, number: int) -> list[Any]:
        """Call a host tool many times at once."""
        return list(await asyncio.gather(*[ctx.call_host_tool(name, n=n) for n in range(number)]))

    @tool
    async def blocked(self, ctx: SessionContext) -> Any:
        """A coroutine with the context that blocks."""
        return ctx.call_host_tool("anything")

    @tool
    def time_left(self, ctx: SessionContext) -> float | None:
        """The budget of this call."""
        return ctx.time_left()

    @tool(timeout=0.2)
    def impatient(self) -> None:
        """A tool with a budget of its own."""
        time.sleep(30)


def _ignore(ctx: SessionContext, name: str) -> None:
    try:
        ctx.call_host_tool(name)
    except BaseException:
        return
