"""tail_and_analyze in real workers: a log that grows and rotates, and a stream that is left."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit

TOOL = "tail_and_analyze"


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


async def test_a_growing_and_rotated_log_in_a_worker(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "snakepit")
    log.write_text("ERROR before\n")
    async with snakepit.open_pool(workers=1) as pool:
        arguments = {"log_path": str(log), "patterns": ["ERROR", "FATAL"], "max_matches": 2, "poll_interval": 0.01}
        async with pool.stream(TOOL, arguments) as chunks, trio.open_nursery() as nursery:
            nursery.start_soon(_write_when_followed, log, caplog)
            found = [chunk async for chunk in chunks]
    assert [chunk.get("log_line") for chunk in found] == ["ERROR half and whole", "FATAL new", None]
    assert found[0]["context"] == ["INFO calm"]
    totals = {name: found[-1][name] for name in ("lines", "matches", "rotations", "reason", "is_final")}
    assert totals == {"lines": 3, "matches": 2, "rotations": 1, "reason": "max_matches", "is_final": True}


async def _write_when_followed(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    await _until_logged("following", caplog)
    append(log, "INFO calm\nERROR ha")
    append(log, "lf and whole\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("FATAL new\n")


async def _until_logged(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(30):
        while not any(text in record.getMessage() for record in caplog.records):
            await trio.sleep(0.01)


@pytest.mark.parametrize("exists", [True, False])
async def test_it_is_cancelled_at_once_while_it_waits(
    tmp_path: Path, exists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "snakepit")
    log = tmp_path / "log"
    if exists:
        log.touch()
    async with snakepit.open_pool(workers=1, cancel_grace=3600) as pool:
        pid = (await pool.execute("ping"))["pid"]
        arguments = {"log_path": str(log), "patterns": ["x"], "poll_interval": 3600.0}
        async with pool.stream(TOOL, arguments):
            await _until_logged("following", caplog)
        assert str(log) not in {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert (await pool.execute("ping"))["pid"] == pid


async def test_long_lines_are_read_whole_however_short_the_idle_time(log: Path) -> None:
    log.write_text("E0\n" + "x" * 900 * 1024 + " E1\nE2\n" + "y" * 900 * 1024 + " E3")
    arguments = {
        "log_path": str(log),
        "patterns": ["E\\d"],
        "from_start": True,
        "idle_seconds": 0.3,
        "poll_interval": 0.2,
    }
    async with snakepit.open_pool(workers=1) as pool, pool.stream(TOOL, arguments) as chunks:
        found = [chunk async for chunk in chunks]
    assert [chunk["log_line"][-2:] for chunk in found[:-1]] == ["E0", "E1", "E2", "E3"]
    assert (found[-1]["lines"], found[-1]["reason"]) == (4, "idle")
