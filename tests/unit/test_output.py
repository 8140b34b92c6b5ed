"""What workers print, as log records."""

from __future__ import annotations

import logging
import os
import time
from collections import deque

import pytest
import trio

from bridge_py.wire.logs import MARK, Logged, line_of
from snakepit_trio._connections.base import Output
from snakepit_trio._connections.output import log_lines
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._util.log import get_logger

LINES = [
    ("INFO:worker:ready", "INFO"),
    ("2026-11-27 01:02:03,456 - worker - ERROR - no model", "ERROR"),
    ("WARN no model", "WARNING"),
    ("12:01:02.345 [debug] a request", "DEBUG"),
    ("[error] no model", "ERROR"),
    ("CRITICAL: INFO is missing", "CRITICAL"),
    ("INFORMATION about errors", "WARNING"),
    ("an error: [infos]", "WARNING"),
    ("x" * 100 + " INFO", "WARNING"),
    ("", "WARNING"),
]


LOGGED = Logged("shop", 40, "ERROR", "no apples", process=7)
MARKED = [
    (line_of(LOGGED), [("shop", "ERROR", "no apples")]),
    (
        b"half a line " + line_of(LOGGED),
        [("snakepit.test_output", "WARNING", "half a line "), ("shop", "ERROR", "no apples")],
    ),
    (MARK + b"no record\n", [("snakepit.test_output", "WARNING", r"\x1esnakepit-log no record")]),
    (MARK + b"[1,2]\n", [("snakepit.test_output", "WARNING", r"\x1esnakepit-log [1,2]")]),
    (line_of(Logged("shop", 40, message="x" * 16_000 + "\x01" * 16_000)), None),
]


@pytest.mark.parametrize(("written", "expected"), MARKED, ids=["plain", "behind", "junk", "other", "long"])
async def test_marked_lines_of_stderr_are_records(
    caplog: pytest.LogCaptureFixture, written: bytes, expected: list[tuple[str, str, str]] | None
) -> None:
    tail: deque[str] = deque()
    logs = WorkerLogs("pool-1", get_logger("snakepit.test_output"), tail, pid=5)
    reading, writing = os.pipe()
    assert len(written) < 65_536
    os.write(writing, written)
    os.close(writing)
    async with trio.lowlevel.FdStream(reading) as stream:
        await log_lines(Output(stream, logging.WARNING, is_stderr=True), logs)
    found = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    if expected is None:
        assert [name for name, *_ in found] == ["shop"]
    else:
        assert found == expected
    assert len(tail) == len(found)


async def test_only_stderr_has_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reading, writing = os.pipe()
    os.write(writing, line_of(LOGGED))
    os.close(writing)
    async with trio.lowlevel.FdStream(reading) as stream:
        await log_lines(Output(stream, logging.INFO), WorkerLogs("pool-1", get_logger("snakepit.test_output"), deque()))
    assert [record.name for record in caplog.records] == ["snakepit.test_output"]


@pytest.mark.parametrize(
    "logged",
    [
        Logged("a\nb\x1b", 40, message="m", created=float("nan"), path="/x\n/y.py", line=-5),
        Logged("", -5, "no\nlevel", created=1e300, function="f\x00"),
        Logged("x" * 100_000, 1 << 62, "y" * 100_000, process=-1, call_id=1 << 60, thread=-7),
        Logged(dropped=1 << 63),
    ],
    ids=["controls", "negative", "huge", "dropped"],
)
def test_whatever_a_worker_says_is_a_record_that_can_be_shown(caplog: pytest.LogCaptureFixture, logged: Logged) -> None:
    logger = logging.getLogger("snakepit.test_output")
    logger.setLevel(1)
    try:
        WorkerLogs("pool-1", get_logger("snakepit.test_output"), deque(), pid=5).take(logged)
    finally:
        logger.setLevel(logging.NOTSET)
    for record in caplog.records:
        shown = logging.Formatter("%(asctime)s %(msecs)d %(levelname)s %(name)s %(pathname)s %(funcName)s").format(
            record
        )
        assert shown.isprintable()
        assert len(shown) < 1_000
        assert abs(record.created - time.time()) < 1_000


@pytest.mark.parametrize("has_levels", [True, False])
async def test_a_line_has_the_level_that_it_says(caplog: pytest.LogCaptureFixture, has_levels: bool) -> None:
    caplog.set_level(logging.DEBUG)
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{line}\n" for line, _ in LINES).encode())
    os.close(writing)
    async with trio.lowlevel.FdStream(reading) as stream:
        output = Output(stream, logging.WARNING, has_levels=has_levels)
        await log_lines(output, WorkerLogs("pool-1", get_logger("snakepit.test_output"), deque()))
    found = [(record.getMessage(), record.levelname) for record in caplog.records]
    assert found == [(line, level if has_levels else "WARNING") for line, level in LINES]
