"""A host that is looked at: `python -m tests.helpers.looked_at`. It does what its stdin says, line by line, and tells.

`tools` are in this module too.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool


class Watched(BaseAdapter):
    """Tools that hold up their worker in several ways. Each touches a file when it begins."""

    @tool
    def add(self, a: int, b: int) -> int:
        return a + b

    @tool
    def sleep_long(self, begun: str) -> None:
        Path(begun).touch()
        time.sleep(600)

    @tool
    def hold_the_gil(self, begun: str) -> None:
        Path(begun).touch()
        re.fullmatch(r"(a|aa)+b", "a" * 60)  # takes years, and never gives the lock away

    @tool
    def loop_in_threads(self, begun: str) -> None:
        is_there = threading.Event()
        threading.Thread(target=a_named_loop, args=[is_there.set], name="the other thread", daemon=True).start()
        is_there.wait()
        a_named_loop(Path(begun).touch)

    @tool
    def close_everything(self, begun: str) -> None:
        for descriptor in os.listdir("/proc/self/fd"):
            if "snakepit-stacks" in link_of(int(descriptor)):
                os.close(int(descriptor))
        Path(begun).touch()
        time.sleep(600)


def link_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def a_named_loop(begin: Callable[[], object]) -> None:
    """Hold a core for ever, in Python. `begin` is called first."""
    begin()
    while True:
        pass


async def wait_for_an_event_of_ours() -> None:
    await trio.Event().wait()


async def in_a_loop_of_its_own(ends: threading.Event) -> None:
    async with snakepit.open_pool("tests.helpers.looked_at:Watched", workers=1, name="the other"):
        print("done", flush=True)
        await trio.to_thread.run_sync(ends.wait)


async def _another() -> None:
    ends = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, trio.run, in_a_loop_of_its_own, ends)
        try:
            await trio.sleep_forever()
        finally:
            ends.set()


async def _serve(pool: snakepit.Pool, folder: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_an_event_of_ours, name="a waiting task")
        number = 0
        print("open", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            what, *words = line.split()
            if what == "call":
                number += 1
                begun = folder / f"begun-{number}"
                nursery.start_soon(partial(_call, pool, words[0], {"begun": str(begun)}))
                while not begun.exists():
                    await trio.sleep(0.01)
            elif what == "add":
                await pool.execute("add", {"a": 1, "b": 2})
            elif what == "block":
                print("blocked", flush=True)
                time.sleep(float(words[0]))  # noqa: ASYNC251 - that is what blocks the loop
            elif what == "another":
                nursery.start_soon(_another)
                continue
            elif what == "end":
                break
            print("done", flush=True)
        nursery.cancel_scope.cancel()


async def _call(pool: snakepit.Pool, tool: str, arguments: dict[str, str]) -> None:
    try:
        await pool.execute(tool, arguments, timeout=600)
    except snakepit.SnakepitError as error:
        print(repr(error), file=sys.stderr, flush=True)


async def main(folder: str, options: str) -> None:
    settings: dict[str, Any] = {"workers": 2, "name": "looked at", **json.loads(options)}
    async with snakepit.open_pool("tests.helpers.looked_at:Watched", **settings) as pool:
        await _serve(pool, Path(folder))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
