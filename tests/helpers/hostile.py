"""Pools of hostile workers, and how many turns the host's loop gives to others meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import snakepit_trio as snakepit

ROOT = Path(__file__).parents[2]


@attrs.frozen
class HelperAdapter(snakepit.Adapter):
    """Runs a script of tests/helpers as a worker."""

    script: str
    args: list[str]

    def executable_path(self, python: str) -> str:
        return python

    def script_path(self) -> str:
        return str(ROOT / "tests" / "helpers" / self.script)

    def script_args(self) -> list[str]:
        return self.args


def open_helper(script: str, *args: str, **options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of workers that run a script of tests/helpers; one worker, unless `workers` says more."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    options = {"workers": 1, "shutdown_timeout": 1} | options
    return snakepit.open_pool(HelperAdapter(script, list(args)), env={"PYTHONPATH": path}, **options)


def open_hostile(how: str, **options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of one worker that attacks as `how` says."""
    return open_helper("hostile_worker.py", "--how", how, **{"taint_after": 1000, "lane": True} | options)


def open_forged(**options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of workers that lend, and send, what they should not."""
    return open_helper("forged_worker.py", **options)


class Turns:
    """Counts the turns that the loop gives to another task, and the longest time between two of them, in seconds."""

    count = 0
    longest = 0.0
    cpu = 0.0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Count the turns of a task beside the block."""
    turns = Turns()

    async def turn() -> None:
        at, cpu = time.monotonic(), time.thread_time()
        while True:
            await trio.sleep(0.001)
            now, cpu_now = time.monotonic(), time.thread_time()
            turns.count += 1
            turns.longest, at = max(turns.longest, now - at), now
            turns.cpu, cpu = max(turns.cpu, cpu_now - cpu), cpu_now

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        yield turns
        nursery.cancel_scope.cancel()
