"""What workers print, as log records."""

from __future__ import annotations

import logging
import os
from collections import deque

import pytest
import trio

from snakepit_trio._connections.base import Output
from snakepit_trio._util.log import get_logger
from snakepit_trio._workers.output import log_lines

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


@pytest.mark.parametrize("has_levels", [True, False])
async def test_a_line_has_the_level_that_it_says(caplog: pytest.LogCaptureFixture, has_levels: bool) -> None:
    caplog.set_level(logging.DEBUG)
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{line}\n" for line, _ in LINES).encode())
    os.close(writing)
    async with trio.lowlevel.FdStream(reading) as stream:
        output = Output(stream, logging.WARNING, has_levels=has_levels)
        await log_lines(output, get_logger("snakepit.test_output"), deque())
    found = [(record.getMessage(), record.levelname) for record in caplog.records]
    assert found == [(line, level if has_levels else "WARNING") for line, level in LINES]
