"""Programs that use one file of sessions: `python -m tests.helpers.sqlite_programs WHAT PATH [NAME]`."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys

import trio

import snakepit_trio as snakepit
from snakepit_trio.state.session import Session
from snakepit_trio.state.sqlite import SqliteStore


async def session_of(store: SqliteStore, *names: str) -> snakepit.SessionView:
    with contextlib.suppress(snakepit.SessionError):
        await store.create_session("s", ttl=None)
    view = store.of("s")
    for name in names:
        with contextlib.suppress(snakepit.VariableExists):
            await view.register_variable(name, "integer", 0)
    return view


async def write(path: str, name: str) -> None:
    """Raise two variables together, for ever, and say what was acknowledged."""

    def step(session: Session) -> int:
        count = int(session.get(f"a{name}").value) + 1
        session.update(f"a{name}", count)
        session.update(f"b{name}", count)
        return count

    async with SqliteStore(path) as store:
        await session_of(store, f"a{name}", f"b{name}")
        while True:
            print(await store.update_session("s", step), flush=True)


async def count(path: str, name: str) -> None:
    """Raise one variable a hundred times, beside others who do the same."""
    async with SqliteStore(path) as store:
        await session_of(store, "n")
        for _ in range(100):
            await store.update_session("s", lambda session: session.update("n", session.get("n").value + 1))


async def watch(path: str, name: str) -> None:
    """Print what another program does to a session, until its end."""
    async with SqliteStore(path, poll=0.01) as store:
        view = await session_of(store, "n")
        async with view.watch("n") as updates:
            async for update in updates:
                print(update.kind, update.value, flush=True)
        print("ended", flush=True)


async def fill(path: str, name: str) -> None:
    """Write until there is no room; then make room, and go on."""
    async with SqliteStore(path) as store:
        view = await session_of(store, "n")
        # Python ignores SIGXFSZ, so that a write beyond the limit is an error.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
        written = 0
        try:
            for number in range(100):
                await view.store_program(f"p{number}", b"x" * 100_000)
                written += 1
        except snakepit.StoreUnavailable as error:
            print("full", error, flush=True)
        assert 0 < written < 100, written
        assert await view.list_programs() == [f"p{number}" for number in range(written)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await view.update_variable("n", written)
        print(written, flush=True)


if __name__ == "__main__":
    trio.run({"write": write, "count": count, "watch": watch, "fill": fill}[sys.argv[1]], sys.argv[2], sys.argv[-1])
