"""`snakepit serve --reload`: what changes of files do to a pool."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from snakepit_trio import WorkerStartError
from snakepit_trio._cli.reloading import reload_on_changes


class Reloaded:
    """A pool that notes that it was reloaded, and cannot be at the second time."""

    def __init__(self) -> None:
        self.send, self.times = trio.open_memory_channel[int](10)
        self._number = 0

    async def reload(self) -> None:
        self._number += 1
        self.send.send_nowait(self._number)
        if self._number == 2:
            raise WorkerStartError("pool-1", "could not start", last_words="SyntaxError: invalid syntax")


async def test_each_change_of_python_files_reloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, ending = Reloaded(), trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload_on_changes, pool, (tmp_path,), ending)
            for number in range(1, 4):
                await _write_until(tmp_path / "tools.py", pool, number)
            ending.set()
    told = capsys.readouterr()
    assert told.out.count("tools.py changed: the workers are started anew") == 3
    assert told.out.count("the workers have the new code") == 2
    assert told.err == (
        "the old workers stay, because the new ones cannot start: worker pool-1 could not start: "
        "SyntaxError: invalid syntax\n"
    )


async def _write_until(path: Path, pool: Reloaded, number: int) -> None:
    """Change a file until the pool is reloaded: the first changes may come before anybody watches."""
    while True:
        path.with_suffix(".txt").write_text("not code")
        path.write_text(f"VALUE = {number}")
        with trio.move_on_after(5):
            assert await pool.times.receive() == number
            return


async def test_it_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload_on_changes, Reloaded(), (tmp_path,), trio.Event())
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
