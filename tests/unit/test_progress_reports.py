"""Reports of progress: what tools may report arrives, and nothing else does. And what happens on the way."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import Sizes
from bridge_py.link.endpoint import LinkEndpoint
from bridge_py.tools.context import SessionContext
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import Fault, RemoteProtocolError, UsageError
from bridge_py.wire.frames import Kind
from bridge_py.wire.progress import MOST, checked, encode_report, read_report
from snakepit_trio._calls.progress import CallProgress
from snakepit_trio.testing import InMemory
from tests.helpers.progress_tools import Tools

AMOUNTS = st.integers(0, MOST) | st.floats(0, MOST)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)


@given(AMOUNTS, st.none() | AMOUNTS, st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_what_a_tool_may_report_arrives(done: float, total: float | None, note: str) -> None:
    arrived = read_report(encode_report(checked(done, total, note)))
    assert arrived[:2] == (done, total)
    assert arrived[2] == note[:200]


@given(st.text(max_size=300))
def test_any_note_can_be_sent_and_shown(note: str) -> None:
    shown = read_report(encode_report(checked(0, None, note)))[2]
    assert "\x1b" not in shown
    shown.encode()


@given(ANYTHING | st.tuples(ANYTHING, ANYTHING, ANYTHING), st.booleans())
def test_what_no_tool_may_report_is_refused(value: Any, cut: bool) -> None:
    body = msgspec.msgpack.encode(value)
    try:
        done, total, note = read_report(body[:-1] if cut else body)
    except RemoteProtocolError:
        return
    checked(done, total, "")
    assert isinstance(note, str)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_tool_that_reports_anything_else_gets_a_usage_error(done: Any, total: Any, note: Any) -> None:
    try:
        reported = checked(done, total, note)
    except UsageError:
        return
    read_report(encode_report(reported))


class Driver:
    """Has the endpoint's timers run when the test says so."""

    def __init__(self) -> None:
        self.timers: list[Any] = []
        self.end: Any = None

    def post(self, verb: str) -> None:
        self.end.take_outbox()

    def later(self, seconds: float, function: Any, *args: Any) -> None:
        self.timers.append((seconds, function, args))

    def flush(self) -> None: ...

    def clock(self) -> float:
        return 0.0

    def make_queue(self) -> None: ...

    def run_timers(self) -> None:
        timers, self.timers = self.timers, []
        for _, function, args in timers:
            function(*args)


class Executor:
    """Takes calls and runs none."""

    def submit(self, call: Any) -> None: ...


@pytest.fixture
def joined() -> tuple[Driver, LinkEndpoint, Conversation]:
    driver = Driver()
    end = driver.end = LinkEndpoint(Tools(), "s", Sizes(), driver, lambda: None)
    end.begin(Executor())  # type: ignore[arg-type]
    host = Conversation(Side.HOST)
    host.hello(msgspec.msgpack.encode({"protocol": 0}))
    host.receive(end.data_to_send())
    conversation = end._conversation
    conversation.receive(host.data_to_send())
    return driver, end, host


def test_a_host_that_reads_nothing_gets_no_more_reports(joined: tuple[Driver, LinkEndpoint, Conversation]) -> None:
    driver, end, host = joined
    host.open("report_for_ever", b"")
    end._conversation.receive(host.data_to_send())
    context = SessionContext(1, None, None, end)
    for done in range(10_000):
        context.progress(done)
        driver.run_timers()
    assert end._conversation.waiting_frames <= 100
    assert len(driver.timers) == 1
    frames = host.receive(end.data_to_send())
    context.progress(10_000)
    driver.run_timers()
    frames += host.receive(end.data_to_send())
    assert read_report(frames[-1].body)[0] == 10_000


def test_the_last_report_goes_before_the_end_and_none_comes_after_it(
    joined: tuple[Driver, LinkEndpoint, Conversation],
) -> None:
    driver, end, host = joined
    for _ in range(2):
        host.open("fail", b"")
    end._conversation.receive(host.data_to_send())
    one, late = SessionContext(1, None, None, end), SessionContext(3, None, None, end)
    for done in range(10):
        one.progress(done)
    end.error(1, Fault("tool", "x"))
    end.error(3, Fault("tool", "x"))
    late.progress(1)
    one.progress(10)
    driver.run_timers()
    sent = [(frame.kind, frame.call_id) for frame in host.receive(end.data_to_send())]
    assert sent == [(Kind.PROGRESS, 1), (Kind.PROGRESS, 1), (Kind.ERROR, 1), (Kind.ERROR, 3)]
    assert driver.timers == []


async def test_workers_in_memory_report_at_their_own_time(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[tuple[float, float]] = []
    async with snakepit.open_pool(Tools, workers=1, launcher=InMemory()) as pool:
        began = trio.current_time()
        await pool.execute(
            "count_async_only",
            {"n": 10, "pause": 1.0},
            on_progress=lambda progress: heard.append((progress.done, round(trio.current_time() - began))),
        )
    assert heard == [(done, done) for done in range(10)] + [(10, 10)]


async def test_the_next_report_is_told_when_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[snakepit.Progress] = []
    progress = CallProgress(heard.append)
    assert progress.tell() == math.inf
    progress.take(snakepit.Progress(1))
    assert progress.tell() == math.inf
    progress.take(snakepit.Progress(2))
    progress.take(snakepit.Progress(3))
    due = progress.tell()
    assert due == pytest.approx(trio.current_time() + 0.025)
    await trio.sleep_until(due)
    assert progress.tell() == math.inf
    assert heard == [snakepit.Progress(1), snakepit.Progress(3)]
    assert isinstance(progress.again(), CallProgress)
