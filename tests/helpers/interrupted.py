"""A host that is sent several signals by tests/processes/test_repeated_signals.py: its workers take a minute to close.

It says on stdout when it is where a signal is wanted: "opening", "open", "closing".
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool


class SlowToClose(BaseAdapter):
    """Takes a minute to start, if so told, and always one to end."""

    def __init__(self, start: float = 0) -> None:
        self._start = start

    def setup(self) -> None:
        """Take some time."""
        time.sleep(self._start)

    @tool
    def ask(self, ctx: SessionContext) -> None:
        """Call a host tool."""
        ctx.call_host_tool("block")

    def close(self) -> None:
        """Take some time."""
        time.sleep(60)


async def block() -> None:
    """A host tool that blocks the whole program."""
    print("open", flush=True)
    time.sleep(60)  # noqa: ASYNC251 - that is what it is for


def pool(**config: Any) -> Any:
    """A pool that would take five minutes to close."""
    return snakepit.open_pool("tests.helpers.interrupted:SlowToClose", workers=1, shutdown_timeout=300, **config)


async def body(how: str) -> None:
    """One pool, or two, and what is done in it."""
    if how == "nested":
        async with pool() as outer:
            print("pids", *[worker.pid for worker in outer.list_workers()], flush=True)
            await body("closing")
        return
    if how == "opening":
        print("opening", flush=True)
    async with pool(options={"start": 60 if how == "opening" else 0}) as it:
        print("pids", *[worker.pid for worker in it.list_workers()], flush=True)
        try:
            if how == "host tool":
                it.expose(block)
                await it.execute("ask")
            elif how != "closing":
                print("open", flush=True)
                await trio.sleep_forever()
        finally:
            print("closing", flush=True)


async def main(how: str) -> None:
    """Do it."""
    if how != "side by side":
        await body(how)
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body, "first")
            nursery.start_soon(body, "second")
    finally:
        # Signals that come from here on are the program's own, and would end it in another way.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # coverage, when it runs, has a handler of its own
    trio.run(main, sys.argv[1])
