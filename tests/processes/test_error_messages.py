"""Errors of calls name the tool, the worker, and what it did."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS

MIB = 1 << 20


async def test_what_a_tool_raises_names_it_and_its_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.ToolError) as caught:
            await pool.execute("fail", {"text": "no luck"})
    error = caught.value
    assert str(error) == "tool 'fail' on worker pool-1 raised tests.helpers.tools.CustomError: no luck"
    assert (error.tool, error.worker_id, error.type, error.message) == (
        "fail",
        "pool-1",
        "tests.helpers.tools.CustomError",
        "no luck",
    )


async def test_what_a_stream_raises_names_it_and_its_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(
            snakepit.ToolError, match="tool 'count_then_fail' on worker pool-1 raised .*CustomError: enough"
        ):
            async with pool.stream("count_then_fail", {"n": 2}) as chunks:
                async for _ in chunks:
                    pass


async def test_a_result_that_cannot_be_sent_names_its_tool() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(
            snakepit.EncodeError, match="tool 'unsendable' on worker pool-1 gave what cannot .*: result"
        ):
            await pool.execute("unsendable")


async def test_other_errors_have_a_note_of_their_tool() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.InvalidArguments) as caught:
            await pool.execute("add", {"a": "x"})
    assert "raised by tool 'add' on worker pool-1" in caught.value.__notes__


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_crash_names_the_tool_that_ran(concurrency: int) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency) as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("segfault")
    told = "worker pool-1 died (killed by signal 11, SIGSEGV) while it ran 'segfault'"
    assert str(caught.value) == told
    assert (caught.value.tool, caught.value.worker_id) == ("segfault", "pool-1")


async def test_a_crash_names_each_call_that_it_ended(tmp_path: Path) -> None:
    told: dict[str, str] = {}

    async def call(pool: snakepit.Pool, name: str, **args: object) -> None:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute(name, args)
        told[name] = str(caught.value)
        assert caught.value.tool == name

    async with snakepit.open_pool(TOOLS, workers=1, concurrency=3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(pool, "sleep", seconds=60))
        while not pool.get_stats().running:
            await trio.sleep(0.01)
        nursery.start_soon(lambda: call(pool, "die_by", number=signal.SIGKILL))
    assert told["sleep"] == "worker pool-1 died (killed by signal 9, SIGKILL) while it ran 'sleep' and 1 other"
    assert told["die_by"] == "worker pool-1 died (killed by signal 9, SIGKILL) while it ran 'die_by' and 1 other"


async def test_a_timeout_names_the_worker_and_its_share() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        told = r"'sleep' was stopped: it did not end within 0\.5 s: it waited \d\.\d{3} s in the queue, and ran"
        told += r" for \d+\.\d{3} s on worker pool-1"
        with pytest.raises(snakepit.CallTimeout, match=told):
            await pool.execute("sleep", {"seconds": 60}, timeout=0.5)


async def test_a_timeout_in_line_says_that_the_call_never_started() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, send_ahead=0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "sleep", {"seconds": 60})
        while not pool.get_stats().running:
            await trio.sleep(0.01)
        told = r"'add' never started: it did not leave the queue within 0\.2 s .queued=1, running=1, workers=1"
        with pytest.raises(snakepit.CallTimeout, match=told):
            await pool.execute("add", {"a": 1}, timeout=0.2)
        with pytest.raises(snakepit.CallTimeout, match="'count' never started: it did not leave the queue"):
            async with pool.stream("count", {"n": 1}, timeout=0.2) as chunks:
                async for _ in chunks:
                    pass
        nursery.cancel_scope.cancel()


async def test_a_timeout_of_a_call_that_was_sent_and_waited_there(tmp_path: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=60) as pool:
        for _ in range(50):  # so quick that the next ones are sent ahead
            await pool.execute("add", {"a": 1})
        async with trio.open_nursery() as nursery:
            # It holds the GIL, and so no call can be called back.
            log = tmp_path / "log"
            nursery.start_soon(pool.execute, "hold_the_gil", {"seconds": 5, "path": str(log)})
            while not log.exists():
                await trio.sleep(0.001)
            with pytest.raises(snakepit.CallTimeout, match=r"'add' never started"):
                await pool.execute("add", {"a": 1}, timeout=0.5)


# Memory.


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_worker_that_holds_too_much_is_killed(concurrency: int) -> None:
    recycle = snakepit.RecyclePolicy(max_resident_bytes=300 * MIB)
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, recycle=recycle) as pool:
        before = pool.workers.list()[0].pid
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("fill", {"mebibytes": 600})
        told = str(caught.value)
        assert told.startswith("worker pool-1 was killed: it held ")
        assert "and may hold 300 (max_resident_bytes)" in told
        assert told.endswith("while it ran 'fill'")
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.workers.list()[0].pid != before


async def test_a_command_that_takes_too_much_again_and_again_is_tainted() -> None:
    recycle = snakepit.RecyclePolicy(max_resident_bytes=300 * MIB)
    async with snakepit.open_pool(TOOLS, workers=1, recycle=recycle, taint_after=2) as pool:
        for _ in range(2):
            with pytest.raises(snakepit.WorkerCrashed):
                await pool.execute("fill", {"mebibytes": 600}, timeout=60)
        with pytest.raises(snakepit.Tainted):
            await pool.execute("fill", {"mebibytes": 600})
        assert await pool.execute("add", {"a": 1}) == 2
