"""The application's own asyncio is left alone, wherever it runs: beside a pool, around it, and with a trio-asyncio."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import errno
import gc
import subprocess
import sys
from typing import Any

import pytest

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.workers import TOOLS

ADD: dict[str, Any] = {"name": "add", "args": {"a": 1}}
try:
    import trio_asyncio
except AttributeError:  # see docs/upstream.md
    can_be_imported = False
else:
    can_be_imported = True
NEEDS_TRIO_ASYNCIO = pytest.mark.skipif(not can_be_imported, reason="`import trio_asyncio` fails on this Python")
#: What goes through the channel, and what goes past it.
LANES = pytest.mark.parametrize("lane", [True, False])

_LOOK = """
import asyncio, sys, trio

def look():
    names = ("get_running_loop", "_get_running_loop", "get_event_loop", "set_event_loop", "new_event_loop")
    names += ("current_task", "get_event_loop_policy", "set_event_loop_policy")
    places = (asyncio, asyncio.events, asyncio.tasks)
    found = {(place.__name__, name): getattr(place, name) for place in places for name in names if hasattr(place, name)}
    return {**found, "policy": asyncio.get_event_loop_policy()}

before = look()
import snakepit_trio as snakepit
print(sorted({"trio_asyncio", "grpclib", "h2"} & sys.modules.keys()))

async def main():
    async with snakepit.open_pool(workers=1) as pool:
        print(await pool.execute("add", {"a": 1, "b": 2}))

trio.run(main)
after = look()
print([name for name in before if before[name] is not after[name]])
print("trio_asyncio" in sys.modules)
"""


def test_an_import_and_a_pool_change_nothing_in_asyncio() -> None:
    assert _run(_LOOK).splitlines() == ["[]", "3", "[]", "False"]


_USE = """
import asyncio, trio, snakepit_trio as snakepit

async def use_a_pool(lane):
    async with snakepit.open_pool("tests.helpers.tools:Tools", workers=1, lane=lane) as pool:
        try:
            await pool.execute("sleep", {"seconds": 60}, timeout=0.1)
        except snakepit.CallTimeout:
            return [await pool.execute("add", {"a": 1}) for _ in range(3)]
"""
_IN_A_NOTEBOOK = """
async def kernel(lane):
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    print(trio.run(use_a_pool, lane))
    print(asyncio.current_task() is task, asyncio.get_running_loop() is loop)
    await asyncio.sleep(0)
"""
_AS_A_GUEST = """
async def kernel(lane):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    trio.lowlevel.start_guest_run(
        use_a_pool, lane, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
    )
    print((await done).unwrap())
    print(asyncio.current_task() is not None, asyncio.get_running_loop() is loop)
"""


@LANES
@pytest.mark.parametrize("kernel", [_IN_A_NOTEBOOK, _AS_A_GUEST], ids=["in a notebook", "as a guest"])
def test_pools_work_where_an_asyncio_loop_runs_in_the_same_thread(kernel: str, lane: bool) -> None:
    assert _run(f"{_USE}{kernel}asyncio.run(kernel({lane}))") == "[2, 2, 2]\nTrue True\n"


def _run(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@NEEDS_TRIO_ASYNCIO
@LANES
async def test_a_pool_is_opened_inside_the_trio_asyncio_of_an_application(lane: bool) -> None:
    async with trio_asyncio.open_loop() as loop:
        async with snakepit.open_pool(TOOLS, workers=1, lane=lane) as pool:
            assert await pool.execute(**ADD) == 2
        assert trio_asyncio.current_loop.get() is loop
        assert await trio_asyncio.aio_as_trio(_look_for_the_loop)() is loop


@NEEDS_TRIO_ASYNCIO
@LANES
async def test_an_application_opens_its_trio_asyncio_beside_a_pool(lane: bool) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, lane=lane) as pool:
        assert await pool.execute(**ADD) == 2
        async with trio_asyncio.open_loop() as loop:
            assert await trio_asyncio.aio_as_trio(_look_for_the_loop)() is loop
            assert await pool.execute(**ADD) == 2
        assert await pool.execute(**ADD) == 2


@NEEDS_TRIO_ASYNCIO
async def test_pools_in_memory_run_coroutines_beside_the_trio_asyncio_of_an_application() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, launcher=InMemory()) as pool:
        assert await pool.execute("add_async", {"a": 1}) == 2
        async with trio_asyncio.open_loop() as loop:
            assert await trio_asyncio.aio_as_trio(_look_for_the_loop)() is loop
            assert await pool.execute("add_async", {"a": 1}) == 2
        await pool.execute("sleep_async", {"seconds": 0})


@NEEDS_TRIO_ASYNCIO
@LANES
def test_trio_asyncio_may_be_imported_while_a_pool_is_open(lane: bool) -> None:
    program = f"""
import trio, snakepit_trio as snakepit

async def main():
    async with snakepit.open_pool(workers=1, lane={lane}) as pool:
        print(await pool.execute("add", {{"a": 1, "b": 2}}))
        import trio_asyncio, asyncio
        print(await pool.execute("add", {{"a": 1, "b": 2}}))
        async with trio_asyncio.open_loop() as loop:
            print(await trio_asyncio.aio_as_trio(asyncio.sleep)(0, "slept"))
            print(await pool.execute("add", {{"a": 1, "b": 2}}))
    async with snakepit.open_pool(workers=1, lane={lane}) as pool:
        print(await pool.execute("add", {{"a": 1, "b": 2}}))

trio.run(main)
"""
    assert _run(program).split() == ["3", "3", "slept", "3", "3"]


async def _look_for_the_loop() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    return asyncio.get_running_loop()


async def test_a_loop_that_has_no_room_for_its_descriptors_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop._make_self_pipe", refuse)
    with pytest.raises(snakepit.OutOfResources, match="Too many open files"):
        async with snakepit.open_pool(TOOLS, workers=1):
            pytest.fail("the block was entered")
    gc.collect()  # a loop that is half made would raise in its `__del__`
