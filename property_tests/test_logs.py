"""Log records of workers: all can be sent, whatever has come can be shown, and their rate is bounded."""

from __future__ import annotations

import contextlib
import logging
import unicodedata
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_py.execution.logs import _described
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.logs import (
    MARK,
    Bucket,
    Logged,
    encode_logged,
    line_of,
    read_line,
    read_logged,
)
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._util.log import get_logger

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers())
ATTRIBUTES = (
    *("name", "levelname", "msg", "args", "exc_info", "exc_text", "stack_info", "created"),
    *("pathname", "lineno", "funcName", "thread", "threadName"),
)
RECORDS = st.fixed_dictionaries({"levelno": st.integers() | st.floats()}, optional=dict.fromkeys(ATTRIBUTES, ANYTHING))
PLAIN = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
LOGGED = st.builds(
    Logged,
    *(PLAIN, NUMBERS, PLAIN, PLAIN, PLAIN, PLAIN, st.floats(), PLAIN),
    *(NUMBERS, PLAIN, NUMBERS, NUMBERS, PLAIN, NUMBERS, NUMBERS),
)


class Shows(logging.Handler):
    """Formats records, as handlers of applications do."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.append(self.format(record))


@settings(deadline=None)  # the machine may be busy
@given(RECORDS)
def test_any_record_can_be_sent(attributes: dict[str, Any]) -> None:
    logged = _described(logging.makeLogRecord(attributes), 1, lambda: 7)
    assert read_logged(encode_logged(logged)) == logged or logged.created != logged.created
    line = line_of(logged)
    assert line.count(b"\n") == 1
    assert read_line(line.removeprefix(MARK)) is not None or abs(logged.created) == float("inf")


@settings(deadline=None)
@given(LOGGED)
def test_any_record_that_has_come_can_be_shown(logged: Logged) -> None:
    logger, handler = logging.Logger("shown", 1), Shows()  # noqa: LOG001 - of this example alone
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(pathname)s:%(lineno)d %(message)s"))
    logger.addHandler(handler)
    tail: deque[str] = deque(maxlen=5)
    safe = get_logger("shown")
    safe.logger = logger
    WorkerLogs("pool-1", safe, tail, pid=5).take(logged)
    assert len(handler.shown) == (logged.level > 0 or logged.dropped > 0)
    for text in (*handler.shown, *tail):
        assert all(char in "\n\t" or unicodedata.category(char) != "Cc" for char in text)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_record_or_refused(body: bytes) -> None:
    read_line(body)
    with contextlib.suppress(RemoteProtocolError):
        read_logged(body)


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=50))
def test_no_more_passes_than_the_rate_allows(most: int, per_second: int, steps: list[tuple[float, int]]) -> None:
    now = 0.0
    bucket = Bucket(most, per_second, lambda: now)
    passed = 0
    for pause, cost in steps:
        now += pause
        if bucket.take(cost):
            passed += cost
        assert passed <= most + now * per_second + 1e-6
    now += most / per_second + 1e-6
    assert bucket.take(most)
