"""Tools in a module that imports the host too, as scripts do: with it comes trio-asyncio, which patches asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool


class ImportingTools(BaseAdapter):
    """Of each kind one."""

    @tool
    def sync(self) -> str:
        """Say which version is here."""
        return snakepit.__version__

    @tool
    async def in_loop(self) -> str:
        """Say it, from a coroutine and a thread."""
        await asyncio.sleep(0)
        return await asyncio.to_thread(lambda: f"{snakepit.__version__} {threading.current_thread().name[:7]}")

    @tool
    async def in_process(self) -> str:
        """Say it, from a process."""
        process = await asyncio.create_subprocess_exec("echo", snakepit.__version__, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return out.decode().strip()

    @tool
    def count(self) -> Iterator[int]:
        """Count."""
        yield from range(3)

    @tool
    async def count_async(self) -> AsyncIterator[int]:
        """Count, in a coroutine."""
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    @tool
    async def for_ever(self) -> None:
        """Wait."""
        await asyncio.Event().wait()

    @tool
    def for_ever_sync(self) -> None:
        """Compute."""
        while True:
            pass
