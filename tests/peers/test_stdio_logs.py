"""Log records of workers on stdin and stdout."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._config.stdio_adapters import StdioJson
from tests.helpers.stdio_tools import BOTH, JSON, open_it, pid_of

LOGS: list[dict[str, Any]] = [
    {"message": "no \x1b[31mapples", "level": "error", "logger": "shop", "exception": "Error: none"},
    {"message": "plain"},
    {"message": 5, "level": 5, "logger": None},
    {"message": "x" * 50_000},
    {},
]


@pytest.fixture
def seen() -> Any:
    """All records of workers."""
    found: list[Any] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    logger, handler = logging.getLogger("snakepit.worker"), Notes()
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    yield found
    logger.setLevel(before)
    logger.removeHandler(handler)


@BOTH
async def test_log_frames_become_records(adapter: StdioJson, seen: list[Any]) -> None:
    with trio.fail_after(60):
        async with open_it(adapter) as pool, pool.session() as session:
            pid = pid_of(pool)
            await session.execute("log", {"logs": LOGS})
            found = [record for record in seen if record.stream is None]
    first, plain, odd, long, empty, of_none, of_another = found
    assert (first.name, first.levelname, first.getMessage()) == ("shop", "ERROR", r"no \x1b[31mapples")
    assert (first.exc_text, first.worker, first.pid) == ("Error: none", "pool-1", pid)
    assert (first.tool, first.session) == ("log", session.id)
    assert (plain.name, plain.levelname, plain.getMessage()) == ("foreign", "INFO", "plain")
    assert (odd.levelname, odd.getMessage()) == ("INFO", "5")
    assert 16_000 <= len(long.getMessage()) < 17_000
    assert empty.getMessage() == ""
    assert (of_none.call, of_another.call, of_another.tool) == (None, None, None)


async def test_a_flood_of_them_is_bounded(seen: list[Any]) -> None:
    with trio.fail_after(60):
        async with open_it(JSON) as pool:
            assert await pool.execute("log", {"logs": [{"message": "flood"}], "times": 20_000}) == 20_000
            dropped = pool.get_stats().dropped_logs
    passed = sum(record.stream is None and not record.dropped for record in seen)
    assert passed + dropped == 20_002
    assert sum(record.dropped for record in seen) == dropped
    assert dropped > 1_000


@pytest.mark.parametrize("log", [None, 5, "text", []])
async def test_what_is_no_record_ends_that_worker(log: Any) -> None:
    async with open_it(JSON) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="a log record of type .*, which is no map"):
            await pool.execute("say", {"frames": [{"log": log}]}, timeout=20)
