"""What workers log reaches the application's logging as the records that they are."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.log_notes import noted
from tests.helpers.logging_tools import CHANGES, LateTools, Tools

Records = Callable[[str], list[Any]]


@pytest.fixture(params=["lane", "channel"])
async def pool(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> AsyncIterator[snakepit.Pool]:
    caplog.set_level(logging.DEBUG, "snakepit.worker")
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, lane=request.param == "lane") as opened:
            yield opened  # noqa: ASYNC119


@pytest.fixture
def found(caplog: pytest.LogCaptureFixture) -> Records:
    """Finds records by a part of their text."""
    return lambda text: [record for record in caplog.records if text in record.getMessage()]


async def _comes(found: Records, text: str, number: int = 1) -> list[Any]:
    while len(records := found(text)) < number:
        await trio.sleep(0.01)
    assert len(records) == number
    return records


async def test_a_record_comes_with_all_that_belongs_to_it(pool: snakepit.Pool, found: Records) -> None:
    async with pool.session() as session:
        pid = await session.execute("say", {"text": "no apples"})
        (record,) = await _comes(found, "no apples")
    assert (record.name, record.levelno, record.levelname) == ("shop.orders", logging.ERROR, "ERROR")
    assert record.getMessage() == "said: no apples"
    assert (record.worker, record.pid, record.process, record.processName) == ("pool-1", pid, pid, "pool-1")
    assert (record.tool, record.session, record.stream, record.dropped) == ("say", session.id, None, 0)
    assert record.call > 0
    assert (record.filename, record.funcName, record.threadName) == ("logging_tools.py", "say", "MainThread")
    assert record.exc_text is None


async def test_an_exception_comes_as_text(pool: snakepit.Pool, found: Records) -> None:
    await pool.execute("fail")
    (record,) = await _comes(found, "no such fruit")
    assert record.exc_text.startswith("Traceback (most recent call last):")
    assert record.exc_text.endswith("KeyError: 'apples'")
    assert "KeyError: 'apples'" in logging.Formatter().format(record)


async def test_records_of_every_kind_of_call_name_the_call(pool: snakepit.Pool, found: Records) -> None:
    events: list[snakepit.Event] = []
    pool.events.attach("call.start", events.append)
    await pool.execute("say_async", {"text": "pears"})
    (event,) = events
    for text in ("said: pears", "said in a thread: pears"):
        (record,) = await _comes(found, text)
        assert (record.call, record.tool, record.session) == (event.metadata["call"], "say_async", None)
    async with pool.stream("chunks", {"n": 3}) as chunks:
        assert [chunk async for chunk in chunks] == [0, 1, 2]
    assert {record.tool for record in await _comes(found, "chunk", 3)} == {"chunks"}
    await pool.run(logging.error, "in a function")
    (record,) = await _comes(found, "in a function")
    assert (record.name, record.tool) == ("root", "logging:error")


async def test_calls_side_by_side_are_told_apart(caplog: pytest.LogCaptureFixture, found: Records) -> None:
    caplog.set_level(logging.INFO, "snakepit.worker")
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=8) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(pool.execute, "say", {"text": f"sync {number}"})
                    nursery.start_soon(pool.execute, "say_async", {"text": f"async {number}"})
            sync, both = await _comes(found, "said: sync", 8), await _comes(found, "async", 16)
    assert len({record.call for record in sync}) == len({record.call for record in both}) == 8
    assert {record.tool for record in sync} == {"say"}
    assert {record.tool for record in both} == {"say_async"}


async def test_the_first_calls_find_the_link_ready_for_their_records(
    caplog: pytest.LogCaptureFixture, found: Records
) -> None:
    """Otherwise records go to stderr, and come when their calls are over."""
    caplog.set_level(logging.INFO, "snakepit.worker")
    with trio.fail_after(60):
        async with snakepit.open_pool(LateTools, workers=1, concurrency=8) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(pool.execute, "say", {"text": f"early {number}"})
            records = await _comes(found, "said: early", 40)
    assert {record.tool for record in records} == {"say"}


async def test_nothing_that_is_odd_about_a_record_breaks_anything(pool: snakepit.Pool, found: Records) -> None:
    await pool.execute("odd")
    (record,) = await _comes(found, "could not be read")
    assert "%d apples % ('three',) (its message could not be formatted, TypeError: %d format" in str(
        [each.getMessage() for each in found("apples")]
    )
    assert len(found("<its str() raised ValueError>")) == 1
    (silent,) = found("silent")
    assert "Silent: <exception str() failed>" in silent.exc_text
    assert len(found(r"half a character: \ud800")) == 1
    assert [each.getMessage() for each in found("cleared")] == [r"\x1b[2Jcleared\x00"]
    (huge,) = found("xxx")
    assert huge.getMessage().endswith("... (10000000 characters)")
    assert len(huge.getMessage()) < 40_000
    (level,) = found("at a level of its own")
    assert (level.levelno, level.levelname) == (35, "Level 35")
    assert await pool.execute("say", {"text": "still there"}) == record.pid


@pytest.mark.parametrize("how", CHANGES)
async def test_a_tool_may_configure_logging(pool: snakepit.Pool, found: Records, how: str) -> None:
    await pool.execute("configure", {"how": how})
    (record,) = await _comes(found, f"after {how}")
    assert (record.name, record.levelname, record.stream) == ("shop.orders", "ERROR", None)
    await pool.execute("say", {"text": "later"})
    await _comes(found, "said: later")


async def test_threads_and_children_log(pool: snakepit.Pool, found: Records) -> None:
    await pool.execute("in_threads", {"n": 20})
    records = await _comes(found, "in thread", 20)
    assert {record.tool for record in records} == {"in_threads"}
    child = await pool.execute("in_child")
    (record,) = await _comes(found, "said by a child")
    assert (record.name, record.levelname) == ("shop.orders", "ERROR")
    assert record.process == child != record.pid


async def test_a_call_that_is_stopped_logs_to_its_end(pool: snakepit.Pool, found: Records) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "until_cancelled")
        await _comes(found, "it begins")
        nursery.cancel_scope.cancel()
    records = await _comes(found, "it is stopped", 20)
    assert {record.tool for record in records} == {"until_cancelled"}
    await pool.run(os.getpid)  # a worker that was killed would be replaced by now
    assert pool.get_stats().restarts == 0


async def test_records_of_the_start_and_of_the_end(caplog: pytest.LogCaptureFixture, found: Records) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, options={"at_end": "atexit"}) as pool:
            await pool.execute("say", {"text": "in a call"})
    for text in ("said in the import", "said in setup", "in a call", "said in close", "said by an atexit function"):
        (record,) = found(text)
        assert (record.name, record.levelname, record.worker) == ("shop.orders", "ERROR", "pool-1")
    assert len(found("the last of")) == 100


async def test_a_worker_that_cannot_start_has_logged(caplog: pytest.LogCaptureFixture, found: Records) -> None:
    with trio.fail_after(60), pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(Tools, workers=1, options={"at_end": "fails"}):
            pytest.fail("its setup fails")
    assert [record.levelname for record in found("said in setup")] == ["ERROR"]
    assert "ERROR shop.orders: said in setup" in caught.value.stderr_tail


async def test_records_of_a_template(caplog: pytest.LogCaptureFixture, found: Records) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=2, template=True) as pool:
            pids = {await pool.execute("say", {"text": "forked"}) for _ in range(2)}
    (record,) = found("said in the import")
    assert (record.name, record.levelname, record.worker) == ("shop.orders", "ERROR", "pool/template")
    assert len(found("said in setup")) == 2
    assert {record.pid for record in found("forked")} == pids


@pytest.mark.parametrize("how", ["exit", "abort"])
async def test_the_last_words_of_a_crash(caplog: pytest.LogCaptureFixture, found: Records, how: str) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, lane=True) as pool:
            with pytest.raises(snakepit.WorkerCrashed) as caught:
                await pool.execute("crash", {"how": how})
            (record,) = await _comes(found, "last words")
    assert (record.levelname, record.tool) == ("ERROR", "crash")
    assert "ERROR shop.orders: the last words of a crash" in caught.value.stderr_tail


async def test_the_level_is_the_hosts(caplog: pytest.LogCaptureFixture, found: Records) -> None:
    caplog.set_level(logging.DEBUG, "snakepit.worker")
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, log_level="debug") as pool:
            await pool.execute("say", {"text": "details", "level": logging.DEBUG})
            (record,) = await _comes(found, "details")
            assert record.levelname == "DEBUG"
        async with snakepit.open_pool(Tools, workers=1) as pool:
            assert await pool.execute("below", {"n": 10}) == 0  # they are not even made
            await pool.execute("say", {"text": "details again", "level": logging.DEBUG})
            await pool.execute("say", {"text": "the end", "level": logging.INFO})
            await _comes(found, "the end")
    assert not found("details again")


async def test_the_application_may_raise_in_its_handlers_and_filters(pool: snakepit.Pool, found: Records) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no room")

    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError("no filter")

    logger, handler = logging.getLogger("snakepit.worker.pool-1"), Raises()
    logger.addHandler(handler)
    logger.addFilter(refuse)
    try:
        for number in range(10):
            await pool.execute("say", {"text": f"unheard {number}"})
    finally:
        logger.removeHandler(handler)
        logger.removeFilter(refuse)
    await pool.execute("say", {"text": "heard"})
    await _comes(found, "said: heard")


async def test_the_application_may_have_a_factory_of_records(pool: snakepit.Pool, found: Records) -> None:
    before = logging.getLogRecordFactory()

    def make(name: str, *args: Any, **more: Any) -> logging.LogRecord:
        record = before(name, *args, **more)
        record.app = name.upper()  # a record of a worker has no name yet
        return record

    logging.setLogRecordFactory(make)
    try:
        await pool.execute("say", {"text": "made"})
        (record,) = await _comes(found, "said: made")
        assert (record.name, record.levelname) == ("shop.orders", "ERROR")
    finally:
        logging.setLogRecordFactory(before)


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "channel"])
async def test_a_flood_is_bounded_and_every_record_is_accounted_for(lane: bool) -> None:
    with noted("snakepit.worker") as seen:
        with trio.fail_after(60):
            async with snakepit.open_pool(Tools, workers=1, lane=lane) as pool:
                made = await pool.execute("flood", {"seconds": 3.0})
                assert made > 5_000
                while not any(record.dropped for record in seen):
                    await trio.sleep(0.01)
                while _passed(seen) + _dropped(seen) < made:
                    await trio.sleep(0.01)
                assert _passed(seen) + _dropped(seen) == made
                assert pool.get_stats().dropped_logs == pool.list_workers()[0].dropped_logs == _dropped(seen) > 0
    told = next(record for record in seen if record.dropped)
    assert told.getMessage() == (
        f"worker pool-1 has logged more than is passed on: {told.dropped} log records were dropped"
    )
    assert told.levelname == "WARNING"


def _passed(seen: list[Any]) -> int:
    return sum("flood" in record.getMessage() for record in seen)


def _dropped(seen: list[Any]) -> int:
    return sum(record.dropped for record in seen)


async def test_a_tool_that_logs_all_the_time_is_stopped(pool: snakepit.Pool, found: Records) -> None:
    pid = await pool.execute("say", {"text": "before"})
    with trio.move_on_after(0.5) as scope:
        await pool.execute("flood_until_cancelled")
    assert scope.cancelled_caught
    assert await pool.execute("say", {"text": "after"}) == pid


@pytest.mark.parametrize("level", ["LOUD", 0, -1, 1.5, True, None, "", 100_000])
def test_levels_that_are_none(level: Any) -> None:
    with pytest.raises(snakepit.UsageError, match="log_level="):
        snakepit.PoolConfig(adapter=Tools, log_level=level)


@pytest.mark.parametrize(("level", "number"), [("Debug", 10), ("WARN", 30), (15, 15), ("CRITICAL", 50)])
def test_levels(level: Any, number: int) -> None:
    assert snakepit.PoolConfig(adapter=Tools, log_level=level).log_level == number
