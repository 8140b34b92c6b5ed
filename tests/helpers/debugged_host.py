"""A program whose tools stand at breakpoints: `python -m tests.helpers.debugged_host SCENARIO JSON`.

It prints a line for each outcome, and at last whether the pool still works and has lost no worker.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import snakepit_trio as snakepit
from tests.helpers import breakpoint_tools
from tests.helpers.breakpoint_tools import Tools

Call = Callable[[], Awaitable[object]]


def say(*words: object) -> None:
    """Print a line."""
    print(*words, flush=True)


async def tell(call: Call) -> None:
    """Print the outcome of a call."""
    try:
        say("result", await call())
    except Exception as error:
        say("raised", type(error).__name__, str(error))


async def all_of(stream: Any) -> list[object]:
    """The chunks of a stream."""
    async with stream as chunks:
        return [chunk async for chunk in chunks]


async def one(pool: snakepit.Pool, tool: str, **more: Any) -> None:
    """A plain call, a stream, or a function."""
    if tool == "function":
        await tell(lambda: pool.run(breakpoint_tools.stop_and_add, 1, 2))
    elif "often" in tool:
        await tell(lambda: all_of(pool.stream(tool, **more)))
    else:
        await tell(lambda: pool.execute(tool, **more))


async def given_up(pool: snakepit.Pool, tool: str) -> None:
    """A call whose caller waits for a second."""
    with trio.move_on_after(1) as scope:
        await one(pool, tool)
    say("given up", scope.cancelled_caught)


async def beside(pool: snakepit.Pool, tool: str, timeout: float = 1) -> None:
    """A call that stands, and others: one that ends when a line comes, and one in the same worker, if it has room."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, pool, tool)
        while not os.path.exists("begin"):
            await trio.sleep(0.01)
        for _ in range(2):
            nursery.start_soon(tell, lambda: pool.execute("pid", timeout=timeout))


async def two(pool: snakepit.Pool, tool: str) -> None:
    """Two calls that stand."""
    async with trio.open_nursery() as nursery:
        for number in (10, 20):
            nursery.start_soon(tell, lambda number=number: pool.execute(tool, {"number": number}))


async def main(scenario: str, options: dict[str, Any], more: dict[str, Any]) -> None:
    """Run a scenario."""
    recycle = snakepit.RecyclePolicy(max_resident_bytes=options.pop("max_resident_bytes", None))
    async with snakepit.open_pool(Tools, **{"workers": 1, "debug": True, "recycle": recycle, **options}) as pool:
        pids = sorted(worker.pid or 0 for worker in pool.list_workers())
        say("workers", *pids)
        await globals()[scenario](pool, **more)
        same = pids == sorted(worker.pid or 0 for worker in pool.list_workers())
        say("well", same and await pool.execute("pid", timeout=20) in pids)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], *map(json.loads, sys.argv[2:]))
