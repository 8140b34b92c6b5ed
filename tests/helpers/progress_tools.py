"""Tools and functions that report progress."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, UsageError, current_context, tool

VALUES: dict[str, Any] = {
    "bool": True,
    "text": "3",
    "negative": -1,
    "nan": float("nan"),
    "infinity": float("inf"),
    "too large": (1 << 63) + 1,
    "a list": [1],
}


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.002)


class Tools(BaseAdapter):
    """Tools of all kinds."""

    @tool
    def count(self, context: SessionContext, n: int, pause: float = 0.0) -> int:
        for done in range(n):
            context.progress(done, n)
            if pause:
                time.sleep(pause)
        context.progress(n, n, "done")
        return n

    @tool
    async def count_async(self, context: AsyncSessionContext, n: int, pause: float = 0.0) -> int:
        for done in range(n):
            context.progress(done, n)
            await asyncio.sleep(pause)
        await asyncio.to_thread(context.progress, n, n, "done")
        return n

    @tool
    async def count_async_only(self, context: AsyncSessionContext, n: int, pause: float) -> int:
        for done in range(n):
            context.progress(done, n)
            await asyncio.sleep(pause)
        context.progress(n, n)
        return n

    @tool
    def chunks(self, context: SessionContext, n: int) -> Iterator[int]:
        for done in range(n):
            context.progress(done, n)
            yield done
        context.progress(n, n, "done")

    @tool
    async def chunks_async(self, context: AsyncSessionContext, n: int) -> AsyncIterator[int]:
        for done in range(n):
            context.progress(done, n)
            yield done
        context.progress(n, n, "done")

    @tool
    def numbers(self, context: SessionContext) -> list[str]:
        """Report numbers of other types; return the messages for what is no number."""
        import numpy as np

        messages = []
        for name, value in VALUES.items():
            for done, total in ((value, None), (1, value)):
                try:
                    context.progress(done, total)
                except UsageError as error:
                    messages.append(f"{name}: {error}")
        try:
            context.progress(1, 1, 3)  # type: ignore[arg-type]
        except UsageError as error:
            messages.append(str(error))
        context.progress(np.int64(3), np.float32(4.5))
        return messages

    @tool
    def fail(self, context: SessionContext) -> None:
        for done in range(10):
            context.progress(done)
        raise ValueError("at the end")

    @tool
    def report_and_wait(self, context: SessionContext, path: str) -> None:
        context.progress(1)
        context.progress(2)
        wait_for(path)

    @tool
    def report_for_ever(self, context: SessionContext) -> None:
        done = 0
        while True:
            context.progress(done)
            done += 1

    @tool(idempotent=True)
    def die_once(self, context: SessionContext, path: str) -> int:
        try:
            open(path, "x").close()
        except FileExistsError:
            context.progress(2, note="again")
            return os.getpid()
        context.progress(5)
        wait_for(f"{path} and heard")
        os._exit(1)

    @tool
    def leave_a_thread(self, context: SessionContext, path: str, stop: str) -> None:
        """Leave a thread that reports until `stop` is there, from when `path` is there."""

        def report() -> None:
            wait_for(path)
            while not os.path.exists(stop):
                context.progress(99)

        threading.Thread(target=report).start()

    @tool
    def from_threads(self, context: SessionContext) -> None:
        threads = [threading.Thread(target=self.count, args=(context, 2000)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        context.progress(8, 8, "done")

    @tool
    def from_a_fork(self, context: SessionContext) -> int:
        child = os.fork()
        if not child:
            context.progress(66)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count(n: int) -> int:
    context = current_context()
    thread = threading.Thread(target=context.progress, args=(0, n, "from a thread"))
    thread.start()
    thread.join()
    context.progress(n, n, "done")
    return n


async def count_async(n: int) -> int:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_report(n))
    return n


async def _report(n: int) -> None:
    current_context().progress(n, n, "done")


def count_and_yield(n: int) -> Iterator[int]:
    for done in range(n):
        current_context().progress(done, n)
        yield done
    current_context().progress(n, n, "done")


async def count_and_yield_async(n: int) -> AsyncIterator[int]:
    for done in range(n):
        current_context().progress(done, n)
        yield done
    current_context().progress(n, n, "done")


def in_a_new_thread() -> str:
    """Ask for the context in a thread that has none; return the message."""
    messages = []

    def ask() -> None:
        try:
            current_context()
        except UsageError as error:
            messages.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return messages[0]


def report_note(note: bytes) -> None:
    current_context().progress(1, note=note.decode(errors="surrogatepass"))
