"""Features of a pool that meet: batches, resources, spares, reloads, autoscaling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit

BOUND = 60
HEAD = "import os, time\nfrom bridge_py import BaseAdapter, tool\n\nclass App(BaseAdapter):\n    @tool\n"
HOLD = """
    def hold(self, path: str, until: str) -> int:
        open(path, "w").close()
        while not os.path.exists(until):
            time.sleep(0.005)
        return os.getpid()
"""
PLAIN = """
    @tool
    def many(self, n: int) -> int:
        return 1
"""
TOGETHER = """
    @tool(batch={batch})
    def many(self, n: list[int]) -> list[int]:
        assert len(n) <= {batch}
        return [len(n)] * len(n)
"""
CODES = {
    "to a batch tool": (PLAIN, TOGETHER.format(batch=3)),
    "to a plain tool": (TOGETHER.format(batch=3), PLAIN),
    "to smaller batches": (TOGETHER.format(batch=5), TOGETHER.format(batch=2)),
    "to larger batches": (TOGETHER.format(batch=2), TOGETHER.format(batch=5)),
}


def write(app: Path, tools: str) -> None:
    # Python may take a compiled file for new that is as old as its source, to the second, and of the same size.
    app.write_text(HEAD + HOLD + tools + "#" * (app.stat().st_size if app.exists() else 0))


async def until(is_true: Callable[[], object]) -> None:
    with trio.fail_after(BOUND):
        while not is_true():
            await trio.sleep(0.005)


async def call_all_the_time(pool: snakepit.Pool, found: list[int]) -> None:
    while True:
        found.append(await pool.execute("many", {"n": 1}))


@pytest.mark.parametrize("settings", [{}, {"spares": 1}, {"template": True}], ids=["plain", "spare", "template"])
@pytest.mark.parametrize("name", sorted(CODES))
async def test_no_call_fails_when_the_new_code_batches_otherwise(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    app, found = tmp_path / "app.py", list[int]()
    before, after = CODES[name]
    write(app, before)
    async with snakepit.open_pool(f"{app}:App", workers=2, **settings) as pool, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call_all_the_time, pool, found)
        await until(lambda: len(found) > 100)
        write(app, after)
        with trio.fail_after(BOUND):
            await pool.reload()
        count = len(found)
        await until(lambda: len(found) > count + 100)
        nursery.cancel_scope.cancel()


async def test_a_waiting_batch_is_split_for_a_worker_that_takes_fewer_calls(tmp_path: Path) -> None:
    app, sizes = tmp_path / "app.py", list[int]()
    write(app, TOGETHER.format(batch=5))
    async with snakepit.open_pool(f"{app}:App", workers=1, send_ahead=0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "hold", {"path": str(tmp_path / "held"), "until": str(tmp_path / "end")})
        await until((tmp_path / "held").exists)

        async def call() -> None:
            sizes.append(await pool.execute("many", {"n": 1}))

        for _ in range(5):
            nursery.start_soon(call)
        await until(lambda: pool.get_stats().queued == 5)
        write(app, TOGETHER.format(batch=2))
        with trio.fail_after(BOUND):
            await pool.reload()
            while len(sizes) < 5:
                await trio.sleep(0.005)
        stats = pool.get_stats()
        (tmp_path / "end").touch()
    assert sorted(sizes) == [1, 2, 2, 2, 2]
    assert (stats.queued, stats.failed, stats.running) == (0, 0, 1), "the replaced worker still has a call"
    assert pool.get_stats().running == 0
