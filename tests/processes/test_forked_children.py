"""A child that a tool forks is a program of its own, which ends where the tool does. It is never a second worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit

TOOLS = "tests.helpers.forking_tools:ForkingTools"
CODES = {"returns": 0, "exits": 5, "says": 1, "raises": 1}
LONG = 30.0  # a bound for what must end, and for nothing else


async def _call(pool: snakepit.Pool, name: str, args: dict[str, Any]) -> list[Any]:
    with trio.fail_after(LONG):
        if "generator" not in name:
            return [await pool.execute(name, args)]
        async with pool.stream(name, args) as chunks:
            return [chunk async for chunk in chunks]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", ["sync", "coroutine", "generator", "async_generator", "task", "thread"])
async def test_a_child_ends_as_its_tool_does(kind: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency) as pool:
        for how, code in CODES.items():
            assert await _call(pool, kind, {"how": how, "path": str(log)}) == [code], how
        assert log.read_text().split() == ["child"] * len(CODES)
        assert await _call(pool, "sync", {"how": "returns", "path": str(log)}) == [0]
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_child_tells_why_it_has_ended(concurrency: int, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency) as pool:
        for how in ("says", "raises"):
            await _call(pool, "sync", {"how": how, "path": str(log)})
    assert "said by a child" in caplog.text
    assert "ValueError: raised by a child" in caplog.text


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(("kind", "code"), [("callback", 5), ("waiting", 1), ("asking", 1), ("atexit", 5)])
async def test_a_child_takes_nothing_from_its_parent(kind: str, code: int, concurrency: int, log: Path) -> None:
    """Neither its loop, nor its link, nor what it has registered for its own end."""
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency) as pool:
        args = {"path": str(log)} | ({"how": "exits"} if kind == "callback" else {})
        async with pool.session() as session:
            with trio.fail_after(LONG):
                assert await session.execute(kind, args) == code
            assert log.read_text().split() == ["child"]
        assert pool.get_stats().restarts == 0


async def test_a_child_of_setup_is_no_worker(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, options={"log": str(log)}) as pool:
        assert log.read_text().splitlines() == ["child", "setup returned by a child", "setup 0"]
        assert await _call(pool, "sync", {"how": "exits", "path": str(log)}) == [5]


async def test_a_child_of_the_links_thread_has_no_link(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, options={"log": str(log)}) as pool:
        async with pool.session("s") as session:
            assert await session.execute("remember") == 1
        await pool.sessions.delete_session("s")
        with trio.fail_after(LONG):
            while "s 0" not in log.read_text().splitlines():
                await trio.sleep(0.01)
        assert await _call(pool, "sync", {"how": "exits", "path": str(log)}) == [5]
        assert pool.get_stats().restarts == 0
