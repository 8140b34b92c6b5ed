"""Tools that write to their session when they are told, and a host program of its own whose tools these are.

`python -m tests.helpers.epoch_tools STORE PREFIX FOLDER HOW` makes one call in the session "s", by a handle or by the
pool. It prints how the call has ended.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import bridge_py
from bridge_py import SessionContext, tool
from bridge_py.wire.errors import StaleEpoch

if TYPE_CHECKING:
    from snakepit_trio.state.store import SessionStore

TOOLS = "tests.helpers.epoch_tools:EpochTools"


class EpochTools(bridge_py.BaseAdapter):
    """All of them."""

    @tool
    def write(self, context: SessionContext, name: str, value: Any) -> Any:
        """Set a variable, and return what it was."""
        before = context[name] if context.has_variable(name) else None
        context[name] = value
        return before

    @tool
    def write_late(self, context: SessionContext, folder: str, name: str, value: Any, looks: bool = False) -> str:
        """Say that it runs, wait until it is told to go on, and set a variable. `looks` reads the variable first."""
        if looks:
            context[name]
        (Path(folder) / "begun").write_text("begun")
        (Path(folder) / "go").read_text()
        try:
            context[name] = value
        except StaleEpoch as error:
            return f"StaleEpoch, and reads {context.get_variable(name, bypass_cache=True).value}: {error}"
        return "written"


def make_pipes(folder: Path) -> None:
    """Make two pipes: a worker says in one that its call has begun, and waits at the other."""
    for name in ("begun", "go"):
        os.mkfifo(folder / name)


def open_store(address: str, prefix: str) -> AbstractAsyncContextManager[SessionStore]:
    """The store at the URL of a Redis server, or in a file."""
    from snakepit_trio.state.redis import RedisStore
    from snakepit_trio.state.sqlite import SqliteStore

    return RedisStore(address, prefix=prefix) if "://" in address else SqliteStore(address, poll=0.05)


async def main(address: str, prefix: str, folder: str, how: str) -> None:
    """Be a host."""
    import snakepit_trio as snakepit

    async with (
        open_store(address, prefix) as store,
        snakepit.open_pool(TOOLS, workers=1, store=store, ping_interval=3600) as pool,
        pool.session("s", ttl=None) as session,
    ):
        arguments: dict[str, Any] = {"folder": folder, "name": "x", "value": "of the late host"}
        match how:
            case "handle":
                print(await session.execute("write_late", arguments, timeout=600), flush=True)
            case "pool":
                await pool.execute("write", {"name": "x", "value": "first"}, session="s")
                print(await pool.execute("write_late", arguments, session="s", timeout=600), flush=True)
            case "looks":
                await session.register_variable("x", value="first")
                arguments["looks"] = True
                print(await pool.execute("write_late", arguments, session="s", timeout=600), flush=True)
            case "taken":
                await session.take_over()
                await session.register_variable("x", value="first")
                await pool.execute("write_late", arguments, session="s", timeout=600)
                try:
                    await session.update_variable("x", "by the handle")
                except snakepit.StaleEpoch as error:
                    print(f"StaleEpoch: {error}", flush=True)
            case "begins":
                await session.register_variable("x", value=1)
                await session.store_program("p", {"step": 1})
                await session.execute("write", {"name": "x", "value": 2})
                (Path(folder) / "begun").write_text("begun")
                await trio.sleep_forever()
            case _:
                raise ValueError(how)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
