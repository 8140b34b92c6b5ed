"""A host that is sent signals by tests/processes/test_signals.py. It says what happens on stdout."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import AsyncExitStack

import trio

import snakepit_trio as snakepit


async def main(how: str) -> None:
    """Open a pool, or two, and work until a signal comes."""
    if how == "own handler":
        # Not `print`, which the signal may interrupt.
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"handled\n"))
    async with AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(snakepit.open_pool("tests.helpers.tools:Tools"))
            for _ in range(1 + (how == "nested"))
        ]
        print("pids", *[worker.pid for pool in pools for worker in pool.list_workers()], flush=True)
        try:
            if how == "blocked":
                time.sleep(60)  # noqa: ASYNC251 - a body that blocks
            async with trio.open_nursery() as nursery:
                for pool in pools:
                    nursery.start_soon(pool.execute, "spin", {"path": ""})
                    nursery.start_soon(pool.execute, "sleep", {"seconds": 60})
        finally:
            with trio.CancelScope(shield=True):
                print("still works:", await pools[0].execute("add", {"a": 1}), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # coverage, when it runs, has a handler of its own
    trio.run(main, sys.argv[1])
