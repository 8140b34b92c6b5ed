"""Code that runs in asyncio, or in no loop of trio at all, is told in one line what to do."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio import testing
from tests.helpers import functions as f

Given = dict[str, Any]
NOTHING: list[int] = []


async def enter(block: AbstractAsyncContextManager[Any]) -> None:
    async with block:
        pass


def run_in_asyncio(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine as asyncio does by itself: other tests import trio-asyncio, whose loops run inside of trio."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(coroutine)


#: What can be reached without a pool, by name.
ALONE: dict[str, Callable[[], Awaitable[Any]]] = {
    "open_pool": lambda: enter(snakepit.open_pool()),
    "open_pool in memory": lambda: enter(snakepit.open_pool(launcher=testing.InMemory())),
    "open_pool wrongly": lambda: enter(snakepit.open_pool(workers=0)),
    "Context": lambda: enter(snakepit.Context()),
    "Context.run": lambda: snakepit.Context().run(math.sqrt, 4),
    "Context.execute": lambda: snakepit.Context().execute("double", {"n": 1}),
    "Context.to_bridged": lambda: snakepit.Context().to_bridged(),
    "open_client": lambda: enter(snakepit.open_client("127.0.0.1:9")),
    "conformance": lambda: testing.conformance.store(snakepit.MemoryStore).run(),
    "a check of conformance": testing.conformance.store(snakepit.MemoryStore)[0],
}


def of_python(call: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Given], Awaitable[Any]]:
    """A use of `pool.python` in a session."""
    return lambda its: call(its["python"].python, its["python_session"])


#: What needs a pool that was opened in trio.
OF_A_POOL: dict[str, Callable[[Given], Awaitable[Any]]] = {
    "execute": lambda its: its["pool"].execute("double", {"n": 1}),
    "run": lambda its: its["pool"].run(math.sqrt, 4),
    "options": lambda its: its["pool"].options(timeout=3).run(math.sqrt, 4),
    "iterate": lambda its: enter(its["pool"].iterate(range, 3)),
    "stream": lambda its: enter(its["pool"].stream(f.Tools.count, {"to": 1})),
    "execute_stream": lambda its: its["pool"].execute_stream("count", {"to": 1}, print),
    "map": lambda its: enter(its["pool"].map(math.sqrt, [4])),
    "session": lambda its: enter(its["pool"].session()),
    "resize": lambda its: its["pool"].resize(2),
    "await_ready": lambda its: its["pool"].await_ready(),
    "workers.start": lambda its: its["pool"].workers.start(),
    "workers.stop": lambda its: its["pool"].workers.stop("pool-1"),
    "workers.restart": lambda its: its["pool"].workers.restart("pool-1"),
    "tools": lambda its: its["pool"].tools.execute_tool(None, "double", {"n": 1}),
    "host tools": lambda its: its["pool"].tools.execute_local_tool(None, "ours"),
    "session.execute": lambda its: its["session"].execute("double", {"n": 1}),
    "session.run": lambda its: its["session"].run(math.sqrt, 4),
    "session.map": lambda its: enter(its["session"].map(math.sqrt, [4])),
    "session.watch": lambda its: enter(its["session"].watch()),
    "chunks": lambda its: anext(its["chunks"]),
    "results": lambda its: anext(its["results"]),
    "updates": lambda its: anext(its["updates"]),
    "run_reaper": lambda its: its["pool"].sessions.run_reaper(1.0),
    "a client": lambda its: its["client"].ping(),
    "a stream of a client": lambda its: anext(aiter(its["client"].execute_streaming_tool("count"))),
    "python.call": of_python(lambda python, _: python.call("math.sqrt", {"x": 4})),
    "python.info": of_python(lambda python, _: python.info()),
    "python.store": of_python(lambda python, session: python.store("x", 3, session=session)),
    "python.retrieve": of_python(lambda python, session: python.retrieve("x", session=session)),
    "python.list_stored": of_python(lambda python, session: python.list_stored(session=session)),
    "python.pipeline": of_python(lambda python, session: python.pipeline([("math.sqrt", {"x": 4})], session=session)),
}


def check(make: Callable[[], Awaitable[Any]]) -> None:
    """Await something in asyncio, and expect one clear line."""

    async def main() -> None:
        await make()

    with pytest.raises(snakepit.UsageError, match=r"runs in trio, and this code does not: call trio.run\(main\)") as it:
        run_in_asyncio(main())
    assert it.value.__cause__ is None
    shown = "".join(traceback.format_exception(it.value))
    assert "/trio/" not in shown
    assert "During handling" not in shown


@pytest.mark.parametrize("name", ALONE)
def test_without_a_pool(name: str) -> None:
    check(ALONE[name])


@asynccontextmanager
async def opened() -> AsyncIterator[Given]:
    async with (
        snakepit.open_pool("bridge_py.adapters.python_calls:PythonCalls", workers=1) as python,
        python.session() as python_session,
        snakepit.open_pool(f.Tools, workers=1, bridge_server=True) as pool,
        snakepit.open_client(pool.bridge_address) as client,
        pool.session() as session,
        pool.iterate(f.points, 0) as chunks,
        pool.map(f.add, NOTHING) as results,
        session.watch() as updates,
    ):
        pool.expose(lambda: 1, name="ours")
        yield {
            "pool": pool, "session": session, "chunks": chunks, "results": results, "updates": updates,
            "client": client, "python": python, "python_session": python_session,
        }  # fmt: skip


async def test_with_a_pool_of_trio_in_another_thread() -> None:
    async with opened() as given:
        for name, use in OF_A_POOL.items():
            print(name)
            await trio.to_thread.run_sync(check, lambda use=use: use(given))
        assert await given["pool"].run(f.add, 1) == 2  # nothing of the pool has suffered
        assert await given["client"].ping() is not None


async def test_a_script_inside_of_trio_is_told() -> None:
    async def function(pool: snakepit.Pool) -> None: ...

    with pytest.raises(snakepit.UsageError, match="run_as_script starts trio, and trio runs here already"):
        snakepit.run_as_script(function)


async def in_trio() -> float:
    async with snakepit.open_pool(workers=1) as pool:
        return await pool.run(math.sqrt, 4)


def test_a_program_of_asyncio_runs_a_pool_beside_itself() -> None:
    async def main() -> Any:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        outcomes: list[Any] = []

        def over(outcome: Any) -> None:
            outcomes.append(outcome)
            done.set()

        trio.lowlevel.start_guest_run(in_trio, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=over)
        await done.wait()
        return outcomes[0].unwrap()

    assert run_in_asyncio(main()) == 2.0


def test_a_program_of_asyncio_runs_a_pool_in_a_thread() -> None:
    async def main() -> float:
        return await asyncio.to_thread(trio.run, in_trio)

    assert run_in_asyncio(main()) == 2.0
