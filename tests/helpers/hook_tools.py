"""Adapters with coroutines for `setup` and `close`, and one with a mistake."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bridge_py import BaseAdapter, tool


class AsyncHooks(BaseAdapter):
    """What it makes belongs to the event loop of its tools."""

    def __init__(self, log: str = "", raises: str = "") -> None:
        self._log = log
        self._raises = raises
        self._loop: asyncio.AbstractEventLoop | None = None

    async def setup(self) -> None:
        await asyncio.sleep(0.01)
        if self._raises:
            raise ValueError(self._raises)
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        await asyncio.sleep(0.01)
        Path(self._log).write_text(f"closed, same loop: {self._loop is asyncio.get_running_loop()}")

    @tool
    async def same_loop(self) -> bool:
        async with self._lock:
            return self._loop is asyncio.get_running_loop()

    @tool
    def is_ready(self) -> bool:
        return self._loop is not None


class Forgetful(BaseAdapter):
    """Its tools return what they should await or yield."""

    @tool
    def coroutine(self) -> Any:
        return asyncio.sleep(0)

    @tool
    def generator(self) -> Any:
        return (number for number in range(3))


class Mistaken(BaseAdapter):
    """It has no `self`."""

    @tool
    def double(n: int) -> int:  # type: ignore[misc]  # noqa: N805
        return 2 * n
