"""Floods of frames, batches, requests and output: each is bounded, and other tasks of the host have their turns.

What the host's loop spends without a turn for others is measured without the time in which other processes had the
processor, so that a busy machine does not change it. Without the bounds, most of these floods would keep the loop for
seconds, or for ever.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import AsyncIterator

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import (
    BATCH_BYTES,
    BATCH_FRAMES,
    BatchReader,
    Frame,
    Kind,
    decode_batch,
    encode_batch,
    head_of,
    most_bytes,
)
from snakepit_trio._connections.base import Output
from snakepit_trio._connections.output import log_lines
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._util.log import get_logger
from tests.helpers.hostile import LONGEST, counted_turns, open_hostile
from tests.helpers.log_notes import noted


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pongs", "an answer to no ping"),
        ("pings", "a frame of kind 11, which a worker does not send"),
        ("huge_batch", "a batch of 4294967295 bytes is over the limit of 75497472 bytes"),
        ("many_frames", "a batch of 5000 frames or more"),
        ("channel_fields", "a batch of 5000 frames or more"),
        ("unknown_fields", "a batch is broken: Expected `array` of at most length 13"),
        ("more_than_said", "a batch is broken: MessagePack data is malformed"),
        ("short_array", "a batch is broken: it begins with 159"),
        ("negative", r"a batch is broken: Expected `int` >= 0"),
        ("large_frame", r"a frame of 681574\d\d bytes is over the limit of 67108864 bytes"),
        ("host_tools", r"was opened while 1000 others have no answer yet \(max_asks\)"),
        ("close_and_flood", "closed its link"),
        ("long_verb", "a request whose name has 1000000 characters"),
        ("channel_huge", "a batch of 4294967295 bytes is over the limit of 75497472 bytes"),
        ("channel_compressed", "its channel is broken: Compression not implemented"),
        ("channel_cut", "its channel is broken: Received less data than expected"),
    ],
)
async def test_a_flood_that_is_refused_costs_the_worker(how: str, message: str) -> None:
    own = [await standstill_of(how, message)]
    while own[-1] >= LONGEST and len(own) < 3:  # other programs slow the copies of large frames down
        own.append(await standstill_of(how, message))
    assert own[-1] < LONGEST, own


async def standstill_of(how: str, message: str) -> float:
    """How long the loop stands still, by itself, until the worker is refused."""
    async with open_hostile(how) as pool, counted_turns() as turns:
        pool.expose(trio.sleep_forever, name="wait")
        with trio.fail_after(60), pytest.raises(snakepit.WorkerCrashed, match=message):
            await pool.execute("attack", timeout=50)
    turns.tell(how)
    return turns.own


@pytest.mark.parametrize("how", ["cancels", "empty_batches", "asks", "single_asks", "odd_asks", "channel_small"])
async def test_a_flood_that_is_legal_slows_nobody(how: str) -> None:
    async with open_hostile(how) as pool, pool.session() as session, counted_turns() as turns:
        with pytest.raises(snakepit.CallTimeout):
            await session.execute("attack", timeout=2)
    turns.tell(how)
    assert turns.own < LONGEST
    assert turns.count > 5


@pytest.mark.parametrize("how", ["progress", "single_progress"])
async def test_a_flood_of_progress_slows_nobody_and_its_listeners_hear_of_little_of_it(how: str) -> None:
    heard: list[snakepit.Progress] = []
    events: list[snakepit.Event] = []
    async with open_hostile(how) as pool, counted_turns() as turns:
        pool.events.attach("call.progress", events.append)
        began = trio.current_time()
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("attack", timeout=2, on_progress=heard.append)
        took = trio.current_time() - began
    turns.tell(how)
    assert turns.own < LONGEST
    assert turns.count > 5
    assert 5 < len(heard) <= 2 + 40 * took
    assert 5 < len(events) <= 2 + 40 * took


@pytest.mark.parametrize("how", ["logs", "large_logs", "dropped_logs"])
async def test_a_flood_of_log_records_slows_nobody_and_little_of_it_is_passed_on(how: str) -> None:
    with noted("snakepit.worker") as seen:
        async with open_hostile(how) as pool, counted_turns() as turns:
            began = trio.current_time()
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("attack", timeout=2)
            took = trio.current_time() - began
            assert pool.get_stats().dropped_logs > 10
    turns.tell(how)
    assert turns.own < LONGEST
    assert turns.count > 5
    assert 5 < len(seen) < 2 * (4_000 + 2_000 * took)


async def test_what_is_no_request_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with open_hostile("no_requests") as pool:
        await pool.execute("attack", timeout=20)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_worker_that_asks_more_than_the_owner_allows_is_ended() -> None:
    async with open_hostile("host_tools", max_asks=7) as pool:
        pool.expose(trio.sleep_forever, name="wait")
        with pytest.raises(snakepit.WorkerCrashed, match="while 7 others have no answer yet"):
            await pool.execute("attack", timeout=20)


async def test_a_call_reads_no_session_of_a_call_that_stands_behind_it() -> None:
    async def asked_for(how: str) -> list[str]:
        answers: list[str] = []
        async with open_hostile(how) as pool, pool.session() as one, pool.session() as other:

            async def make_quick() -> None:
                for _ in range(50):
                    await pool.execute("attack")

            async def call(session: snakepit.SessionHandle) -> None:
                answers.append(await session.execute("attack", timeout=20))

            for session in (one, other):
                await session.register_variable("secret", "string", "x")
            # A worker gets calls ahead if it answers quickly.
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(make_quick)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, one)
                nursery.start_soon(call, other)
        return answers

    assert await asked_for("behind") == ["get_variable: the call has not started: the worker runs 1 at a time"] * 2
    assert await asked_for("first") == ["its value"] * 2


@pytest.mark.parametrize("how", ["unread", "unread_stream"])
async def test_a_worker_that_reads_no_answers_is_ended(how: str) -> None:
    async def pour() -> AsyncIterator[str]:
        while True:
            yield "x" * 100_000

    resident = psutil.Process().memory_info().rss
    async with open_hostile(how, max_unread_bytes=30_000_000, missed_pings=1000) as pool, pool.session() as session:
        pool.expose(pour)
        await session.register_variable("large", "string", "x" * 100_000)
        message = r"it leaves more than 30000000 bytes of answers unread \(max_unread_bytes\)"
        with trio.fail_after(60), pytest.raises(snakepit.WorkerCrashed, match=message):
            await session.execute("attack", timeout=50)
        assert psutil.Process().memory_info().rss - resident < 150_000_000
        assert await session.get_variable_value("large") == "x" * 100_000


def test_only_what_is_unread_counts() -> None:
    host, worker = Conversation(Side.HOST, max_unread=100_000), Conversation(Side.WORKER)
    host.hello(b"")
    worker.hello(b"")
    worker.receive(host.data_to_send())
    host.receive(worker.data_to_send())
    for _ in range(100):  # read soon
        host.open("calls do not count", bytes(50_000))
        host.receive(encode_batch([Frame(Kind.CALL, ask := 2 * host._gone, "x")]))
        host.result(ask, bytes(50_000))
        assert not host.is_overdue
        host.data_to_send()
    for number in range(1, 1000):  # not read
        host.receive(encode_batch([Frame(Kind.CALL, ask + 2 * number, "x")]))
        host.result(ask + 2 * number, b"x")
        if host.is_overdue:
            break
    assert 300 < number < 500
    while host.data_to_send():
        pass
    host.receive(encode_batch([Frame(Kind.CALL, ask + 5000, "x")]))
    host.result(ask + 5000, bytes(1_000_000))  # more than the limit, and alone
    assert not host.is_overdue


def test_a_batch_is_refused_as_soon_as_its_size_has_come() -> None:
    reader = BatchReader(1_000)
    assert reader.feed(head_of(bytes(1_000)) + bytes(999)) == []
    assert reader.feed(b"x" + head_of(b"y") + b"y") == [bytes(999) + b"x", b"y"]
    with pytest.raises(RemoteProtocolError, match="a batch of 1001 bytes is over the limit of 1000 bytes"):
        reader.feed(head_of(bytes(1_001)))


def test_a_side_sends_no_batch_that_the_other_one_refuses() -> None:
    host, worker = Conversation(Side.HOST), Conversation(Side.WORKER, max_frames=5_000)
    host.hello(b"")
    worker.hello(b"")
    worker.receive(host.data_to_send())
    host.receive(worker.data_to_send())
    small = [host.open("small", b"x") for _ in range(3 * BATCH_FRAMES)]
    large = [host.open("large", bytes(BATCH_BYTES // 3)) for _ in range(8)]
    taken = []
    while data := host.data_to_send():
        assert len(data) <= most_bytes(0)
        assert len(decode_batch(data)) <= BATCH_FRAMES
        taken += [frame.call_id for frame in worker.receive(data)]
    assert taken == [*small, *large]
    assert not host.has_data_to_send


def test_fields_that_are_skipped_count_as_frames() -> None:
    frames = encode_batch([Frame(Kind.PING)] * 3)
    assert len(decode_batch(frames + b"\x10\x01" * 6, max_frames=10)) == 3
    with pytest.raises(RemoteProtocolError, match="a batch of 10 frames or more"):
        decode_batch(frames + b"\x10\x01" * 7, max_frames=10)


@pytest.mark.parametrize("how", ["newlines", "long_lines"])
async def test_a_flood_of_output_slows_nobody(how: str) -> None:
    logger = logging.getLogger("snakepit.worker")
    logger.addHandler(handler := logging.NullHandler())
    logger.propagate = False
    try:
        async with open_hostile(how) as pool, counted_turns() as turns:
            await pool.execute("attack", timeout=50)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    turns.tell(how)
    assert turns.own < LONGEST
    assert turns.count > 5


async def test_no_turn_logs_more_than_64_lines() -> None:
    turns: list[int] = []
    logged: list[str] = []

    class Counts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    async def take_turns() -> None:
        while True:
            turns.append(len(logged))
            await trio.lowlevel.checkpoint()

    reading, writing = os.pipe()
    stream = trio.lowlevel.FdStream(reading)
    os.write(writing, b"\n" * 60_000)
    os.close(writing)
    logger = logging.getLogger("snakepit.test_floods")
    logger.addHandler(handler := Counts())
    logger.propagate = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            logs = WorkerLogs("pool-1", get_logger("snakepit.test_floods"), deque())
            await log_lines(Output(stream, logging.WARNING), logs)
            nursery.cancel_scope.cancel()
    finally:
        logger.removeHandler(handler)
        await stream.aclose()
    assert len(logged) == 60_000
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2 * 64
