"""What no call can have is refused before it has a place, with an error that names it; and the pool is unharmed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from tests.helpers.workers import TOOLS

ADD: dict[str, Any] = {"name": "add", "args": {"a": 1}}


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"name": 3}, snakepit.UsageError, "the tool's name is 3, which is no str; give it as a str"),
        ({"name": None}, snakepit.UsageError, "the tool's name is None"),
        (
            {"name": print},
            snakepit.UsageError,
            "builtins:print is a function, and no tool: call it with run or iterate",
        ),
        ({"name": "a\ud800"}, snakepit.EncodeError, r"the tool's name, 'a\\ud800', cannot be sent"),
        ({"session": 3}, snakepit.UsageError, "session=3 of 'add' is no session's id"),
        ({"session": 0}, snakepit.UsageError, "session=0 of 'add' is no session's id"),
        ({"session": b"x"}, snakepit.UsageError, "session=b'x' of 'add'"),
        ({"session": "\ud800"}, snakepit.EncodeError, "session= of 'add'"),
        ({"args": {1: 3}}, snakepit.UsageError, "the arguments of 'add' have the key 1"),
        ({"args": {"\ud800": 3}}, snakepit.EncodeError, "add: args"),
        ({"args": [1]}, snakepit.UsageError, "the arguments of 'add' are of type list"),
        ({"timeout": "3"}, snakepit.UsageError, "timeout='3' of 'add'; give seconds"),
        ({"timeout": True}, snakepit.UsageError, "timeout=True of 'add'"),
        ({"timeout": -1}, snakepit.UsageError, "timeout=-1 of 'add'"),
        ({"timeout": math.nan}, snakepit.UsageError, "timeout=nan of 'add'"),
    ],
)
async def test_what_cannot_be_asked_for(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(kind, match=message):
            await pool.execute(**{**ADD, **wrong})
        with pytest.raises(kind, match=message):
            async with pool.stream(**{**ADD, **wrong}):
                pytest.fail("the block was entered")
        stats = pool.get_stats()
        assert (stats.queued, stats.running, stats.calls) == (0, 0, 0)
        assert await pool.execute(**ADD) == 2
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("retries", [-1, True, "x", 1.5])
async def test_what_is_no_number_of_retries(retries: Any) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.UsageError, match="retries="):
            await pool.execute(**ADD, retries=retries)
        assert await pool.execute(**ADD) == 2


@pytest.mark.parametrize("timeout", [1e10, 1e18, 1e300, 10**400, math.inf])
async def test_a_limit_beyond_what_the_wire_holds_is_no_limit(timeout: float) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        assert (await pool.execute("about", timeout=timeout))["left"] is None
        async with pool.stream("count", {"n": 2}, timeout=timeout) as chunks:
            assert [chunk async for chunk in chunks] == [0, 1]
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_cannot_be_encoded_for_want_of_memory(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("bridge_py.wire.codec.encode", _starve)
            with pytest.raises(snakepit.OutOfResources, match="the arguments of 'add' could not be encoded"):
                await pool.execute("add", {"a": "x" * size})
        with monkeypatch.context() as patch:
            patch.setattr("bridge_py.wire.codec.decode", _starve)
            with pytest.raises(snakepit.OutOfResources, match="what 'add' sent back could not be read"):
                await pool.execute(**ADD)
        stats = pool.get_stats()
        assert (stats.queued, stats.running) == (0, 0)
        assert await pool.execute(**ADD) == 2


def _starve(*_args: Any, **_kwargs: Any) -> None:
    raise MemoryError


class Leaver(BaseAdapter):
    """Leaves a thread behind that calls the host."""

    @tool
    def leave(self, ctx: SessionContext) -> int:
        """Have a thread call the host, and return."""
        threading.Thread(target=ctx.call_host_tool, args=("linger",)).start()
        time.sleep(0.2)
        return os.getpid()

    @tool
    def one(self) -> int:
        """The number 1."""
        return 1


async def test_a_fault_of_the_host_runs_no_call_again_that_it_still_works_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    may_end = trio.Event()

    async def linger() -> None:
        nonlocal begun
        begun += 1
        with trio.CancelScope(shield=True):
            await may_end.wait()

    async with (
        snakepit.open_pool(f"{__name__}:Leaver", workers=1, concurrency=2) as pool,
        trio.open_nursery() as nursery,
    ):
        pool.expose(linger)
        nursery.start_soon(pool.execute, "leave")
        while not begun:
            await trio.sleep(0.01)
        await trio.sleep(0.5)  # the tool has ended by now
        with monkeypatch.context() as patch:
            patch.setattr("snakepit_trio._calls.dispatcher.Dispatcher.call_over", _starve)
            with pytest.raises(snakepit.OutOfResources):
                await pool.execute("one")
        assert await pool.execute("one") == 1
        may_end.set()
    assert begun == 1


@pytest.mark.parametrize(
    "where", ["_calls.dispatcher.Dispatcher.call_over", "_workers.worker_calls.WorkerCalls._call_ended"]
)
async def test_a_fault_of_the_host_when_a_call_ends_fails_that_call_alone(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, taint_after=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(f"snakepit_trio.{where}", _starve)
            with pytest.raises(snakepit.OutOfResources, match="'add' failed: what became of it .*: MemoryError"):
                await pool.execute(**ADD)
        assert await pool.execute(**ADD) == 2
        stats = pool.get_stats()
        assert (stats.queued, stats.running, stats.restarts) == (0, 0, 0)


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("snakepit_trio._workers.worker_calls.WorkerCalls._ends", ADD),
        ("snakepit_trio._connections.link.LinkConnection._route", {"name": "fail", "args": {"text": "x"}}),
        ("bridge_py.wire.conversation.Conversation.receive", ADD),
    ],
)
async def test_a_fault_of_the_host_is_blamed_on_no_command(
    where: str, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, taint_after=1) as pool:
        pid = pool.list_workers()[0].pid
        assert pid is not None

        def starve_after_its_death(*args: object) -> None:
            # The death that comes of the fault may be seen as soon as the fault itself.
            with contextlib.suppress(ProcessLookupError):
                while True:
                    os.kill(pid, signal.SIGKILL)
                    time.sleep(0.02)
            _starve(*args)

        with monkeypatch.context() as patch:
            patch.setattr(where, starve_after_its_death)
            with pytest.raises(snakepit.WorkerCrashed, match="lost its link by a fault of the host: MemoryError"):
                await pool.execute(**call)
        assert await pool.execute(**ADD) == 2
