"""Tools of workers on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bridge_py import BaseAdapter, SessionContext, ToolCancelled, tool
from bridge_py.wire.environment import worker_number


def double(number: int) -> int:
    return 2 * number


class Tools(BaseAdapter):
    def __init__(self, word: str = "") -> None:
        self.word = word

    def setup(self) -> None:
        if self.word == "broken":
            raise OSError("there is no fuel")

    @tool
    def add(self, a: int, b: int) -> int:
        return a + b

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tool
    def increase(self, value: Any) -> Any:
        return value + 1

    @tool
    def ask(self, context: SessionContext, name: str) -> Any:
        return context.call_host_tool("greet", name=name)

    @tool
    def surroundings(self) -> tuple[str | None, str, int | None]:
        return os.environ.get("FROM_HOST"), self.word, worker_number()

    @tool
    def say(self, text: str) -> None:
        print(text, flush=True)

    @tool
    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    @tool
    async def wait_async(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @tool
    def resist(self) -> None:
        while True:
            with contextlib.suppress(ToolCancelled):
                time.sleep(1000)

    @tool
    def spawn(self) -> int:
        """Start a process that leaves the worker's group and would live on; returns its pid."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True).pid

    @tool(idempotent=True)
    def slow_double(self, number: int) -> int:
        time.sleep(0.05)
        return 2 * number

    @tool
    def once_double(self, number: int) -> int:
        time.sleep(0.05)
        return 2 * number
