"""Tools that send buffers and change them at once."""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import numpy as np

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool


def buffer_of(kind: str, size: int) -> Any:
    """A buffer of zeros that can be changed."""
    if kind == "numpy":
        return np.zeros(size, np.uint8)
    return array("B", bytes(size)) if kind == "array" else bytearray(size)


def fill(buffer: Any, number: int) -> Any:
    """Change all of it; returns it."""
    memoryview(buffer)[:] = bytes([number]) * len(buffer)
    return buffer


def number_of(buffer: Any) -> int:
    """What it is full of. Raises `ValueError` if that is more than one number."""
    (number,) = set(bytes(buffer))
    return number


class MomentTools(BaseAdapter):
    """They use one buffer for all that they send."""

    def setup(self) -> None:
        self.buffers: dict[tuple[str, int], Any] = {}

    def _buffer(self, kind: str, size: int) -> Any:
        return self.buffers.setdefault((kind, size), buffer_of(kind, size))

    @tool
    def refill(self, kind: str, size: int, count: int) -> Iterator[Any]:
        for number in range(count):
            yield {"n": number, "buffer": fill(self._buffer(kind, size), number)}

    @tool
    async def refill_async(self, kind: str, size: int, count: int) -> AsyncGenerator[Any, None]:
        buffer = self._buffer(kind, size)
        changing = asyncio.create_task(self._change(buffer))
        try:
            for number in range(count):
                yield {"n": number, "buffer": fill(buffer, number)}
        finally:
            changing.cancel()

    async def _change(self, buffer: Any) -> None:
        while True:
            await asyncio.sleep(0)
            fill(buffer, 255)

    @tool
    def reuse(self, kind: str, size: int, number: int) -> Any:
        return fill(self._buffer(kind, size), number)

    @tool
    def look(self, buffer: Any) -> int:
        return number_of(buffer)

    @tool
    def look_later(self, seconds: float, buffer: Any) -> Iterator[int]:
        time.sleep(seconds)
        yield number_of(buffer)

    @tool
    def ask(self, context: SessionContext, name: str, count: int) -> list[int]:
        return [number_of(context.call_host_tool(name, number=number)) for number in range(count)]

    @tool
    def ask_stream(self, context: SessionContext, name: str, count: int) -> list[int]:
        found = []
        for chunk in context.stream_host_tool(name, count=count):
            time.sleep(0.002)
            found.append(number_of(chunk))
        return found

    @tool
    async def tell(self, context: AsyncSessionContext, kind: str, size: int, count: int) -> list[int]:
        buffer, asks = buffer_of(kind, size), []
        for number in range(count):
            asks.append(asyncio.create_task(context.call_host_tool("keep", buffer=fill(buffer, number))))
            await asyncio.sleep(0)
        fill(buffer, 255)
        return list(await asyncio.gather(*asks))

    @tool
    async def note(self, context: AsyncSessionContext, size: int, count: int) -> None:
        buffer, asks = np.zeros(size, np.uint8), []
        for number in range(count):
            fill(buffer, number)
            asks.append(asyncio.create_task(context.update_variable(f"x{number}", [buffer])))
            await asyncio.sleep(0)
        fill(buffer, 255)
        await asyncio.gather(*asks)

    @tool
    def fail(self, buffer: Any) -> None:
        gc.disable()
        raise ValueError("no")

    @tool
    async def fail_async(self, buffer: Any) -> None:
        gc.disable()
        raise ValueError("no")
