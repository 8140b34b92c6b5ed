"""When a call is over, it is over: cancelling, timing out and leaving early stop the remote code first."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS, is_alive


async def _started(log: Path) -> None:
    while not log.exists() or not log.read_text():
        await trio.sleep(0.005)


async def _cancel_when_started(pool: snakepit.Pool, name: str, args: dict[str, object], log: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, name, {**args, "path": str(log)})
        await _started(log)
        nursery.cancel_scope.cancel()


def _is_quiet(log: Path) -> bool:
    size = log.stat().st_size
    time.sleep(0.1)
    return log.stat().st_size == size


# A thread in time.sleep cannot be interrupted: that one is in the next test.
@pytest.mark.parametrize(
    ("tool", "concurrency"), [("sleep_async", 1), ("spin", 1), ("sleep", 1), ("sleep_async", 3), ("spin", 3)]
)
async def test_cancelling_stops_the_code_before_the_caller_goes_on(tool: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=20) as pool:
        args: dict[str, object] = {} if tool == "spin" else {"seconds": 60}
        before = trio.current_time()
        await _cancel_when_started(pool, tool, args, log)
        assert trio.current_time() - before < 19
        assert _is_quiet(log)
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


# Not under coverage. While a signal waits for the main thread, a traced thread of Python 3.11 repeats its next call's
# first instruction until the main thread asks for its turn. This tool would do that after 1,000 s.
@pytest.mark.usefixtures("untraced_workers")
@pytest.mark.parametrize("lane", [True, False])
async def test_code_that_leaves_other_threads_no_turn_is_stopped(lane: bool, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, lane=lane, cancel_grace=20) as pool:
        await _cancel_when_started(pool, "keep_the_interpreter", {}, log)
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize(("tool", "concurrency"), [("stubborn", 1), ("stubborn", 3), ("sleep", 3)])
async def test_code_that_does_not_stop_costs_its_worker(tool: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=0.2) as pool:
        (worker,) = pool.list_workers()
        args: dict[str, object] = {"seconds": 60} if tool == "sleep" else {}
        await _cancel_when_started(pool, tool, args, log)
        assert worker.pid is not None
        assert not is_alive(worker.pid)
        assert _is_quiet(log)
        await pool.await_ready(20)
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 1


@pytest.mark.parametrize("tool", ["sleep", "sleep_async", "stubborn", "spin"])
async def test_a_timeout_stops_the_code_too(tool: str, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.3) as pool:
        args: dict[str, object] = {"path": str(log)}
        if tool.startswith("sleep"):
            args["seconds"] = 60
        with pytest.raises(snakepit.CallTimeout, match="did not end within 0.3 s") as caught:
            await pool.execute(tool, args, timeout=0.3)
        assert isinstance(caught.value, TimeoutError)
        assert _is_quiet(log)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_no_lock_of_logging_stays_taken(concurrency: int) -> None:
    dice = random.Random(5)
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=30) as pool:
        for _ in range(60):
            with trio.move_on_after(0.01 + dice.random() * 0.01):
                await pool.execute("log_all_the_time")
            assert pool.get_stats().restarts == 0
        assert await pool.execute("lock_of_logging_is_free")


async def test_a_block_that_has_been_entered_is_left() -> None:
    """Python 3.14 handles signals between `__enter__` and the block, where `__exit__` would not be called."""
    dice = random.Random(6)
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=30) as pool:
        for _ in range(100):
            with trio.move_on_after(0.005 + dice.random() * 0.005):
                await pool.execute("take_locks_all_the_time")
            assert await pool.execute("lock_is_free")
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_an_import_is_not_interrupted_half_way(concurrency: int, tmp_path: Path, log: Path) -> None:
    mark = f"open({str(log)!r}, 'a').write"
    (tmp_path / "slow.py").write_text(
        f"import time\n{mark}('begin ')\nfor _ in range(30): time.sleep(0.01)\nVALUE = 1\n{mark}('end ')\n"
    )
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=30) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "import_slowly", {"folder": str(tmp_path)})
            await _started(log)
            nursery.cancel_scope.cancel()
        assert await pool.execute("import_slowly", {"folder": str(tmp_path)}) == 1
        assert log.read_text() == "begin end "


async def test_grandchildren_go_with_a_killed_worker(caplog: pytest.LogCaptureFixture) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "spawn_and_wait")
            while not (
                lines := [record.getMessage() for record in caplog.records if "snakepit.worker." in record.name]
            ):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            while is_alive(int(lines[0])):
                await trio.sleep(0.01)


async def test_a_call_that_waits_in_line_is_just_withdrawn(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, send_ahead=0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "sleep", {"seconds": 60, "path": str(log)})
        await _started(log)
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("add", {"a": 1}, timeout=0.05)
        assert pool.get_stats().queued == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tool", ["count", "count_async"])
async def test_leaving_a_stream_early_closes_the_generator(tool: str, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream(tool, {"n": 10**9, "path": str(log)}) as chunks:
            assert await anext(chunks) == 0
        assert "stopped at" in log.read_text()
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0


async def test_a_stream_that_times_out() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream("count", {"n": 10**9}, timeout=0.3) as chunks:
            with pytest.raises(snakepit.CallTimeout):
                async for _ in chunks:
                    pass
        assert pool.get_stats().running == 0


@pytest.mark.parametrize("tool", ["count", "count_async"])
async def test_a_stream_whose_tool_is_faster_than_its_consumer_times_out_too(tool: str, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream(tool, {"n": 10**9, "path": str(log)}, timeout=0.3) as chunks:
            with trio.fail_after(30), pytest.raises(snakepit.CallTimeout):
                async for _ in chunks:
                    await trio.sleep(0.001)  # so the next chunk is always there already
        assert "stopped at" in log.read_text()
        assert (pool.get_stats().running, pool.get_stats().timed_out) == (0, 1)


async def test_calls_behind_a_stuck_one_go_elsewhere(log: Path) -> None:
    """Calls sent ahead to a worker that then gets stuck are recalled; none waits for the stuck call."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        for _ in range(50):
            await pool.execute("add", {"a": 1})  # now the workers count as quick
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "sleep", {"seconds": 60, "path": str(log)})
            with trio.fail_after(50):
                async with trio.open_nursery() as quick:
                    for number in range(200):
                        quick.start_soon(pool.execute, "add", {"a": number})
            nursery.cancel_scope.cancel()


async def test_killing_a_stuck_worker_loses_no_call_that_had_not_started(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.1) as pool:
        for _ in range(50):
            await pool.execute("add", {"a": 1})
        results: list[int] = []

        async def add(number: int) -> None:
            results.append(await pool.execute("add", {"a": number}))

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as stuck:
                nursery.start_soon(_cancel_soon, stuck, log)
                nursery.start_soon(_add_behind, add, log)
                await pool.execute("stubborn", {"path": str(log)})
        assert sorted(results) == list(range(1, 21))


async def _cancel_soon(scope: trio.CancelScope, log: Path) -> None:
    await _started(log)
    await trio.sleep(0.1)
    scope.cancel()


async def _add_behind(add: object, log: Path) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(add, number)  # type: ignore[arg-type]


# How a tool says that it is to be stopped.


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_cooperative_tool_looks_itself(concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=20) as pool:
        await _cancel_when_started(pool, "polite", {}, log)
        assert log.read_text() == "begin\nreturned\n"
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_cooperative_tool_that_does_not_look_costs_its_worker(concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=0.2) as pool:
        (worker,) = pool.list_workers()
        await _cancel_when_started(pool, "deaf", {}, log)
        assert worker.pid is not None
        assert not is_alive(worker.pid)


@pytest.mark.parametrize("tool", ["count", "count_politely"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_sync_stream_that_waits_for_its_consumer_ends_at_once(tool: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, stream_window=1, cancel_grace=30) as pool:
        async with pool.stream(tool, {"n": 10**9, "path": str(log)}) as chunks:
            assert await anext(chunks) == 0
            for _ in range(20 if concurrency > 1 else 0):
                await pool.execute("add", {"a": 1})  # by now the stream has used up its credit
        assert log.read_text().startswith("stopped at" if tool == "count" else "GeneratorExit\n")
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("tool", ["hold_gil", "sleep_to_death"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_running_call_of_a_kill_tool_is_not_waited_for(tool: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=60) as pool:
        (worker,) = pool.list_workers()
        before = trio.current_time()
        await _cancel_when_started(pool, tool, {}, log)
        assert trio.current_time() - before < 20
        assert worker.pid is not None
        assert not is_alive(worker.pid)
        await pool.await_ready(20)
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 1


async def test_workers_killed_to_stop_a_call_are_replaced_without_pauses(log: Path) -> None:
    # Were they taken for workers that cannot serve, the third would not be replaced.
    limits: dict[str, Any] = {"max_restarts": 1, "restart_period": 600, "quarantine": 600}
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=60, **limits) as pool:
        for number in range(4):
            await _cancel_when_started(pool, "hold_gil", {}, log.with_name(f"log {number}"))
            await pool.await_ready(60)
        assert pool.get_stats().restarts == 4


async def test_leaving_the_stream_of_a_kill_tool() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=60) as pool:
        (worker,) = pool.list_workers()
        async with pool.stream("count_to_death", {"n": 10**9}) as chunks:
            assert await anext(chunks) == 0
        assert worker.pid is not None
        assert not is_alive(worker.pid)
        async with pool.stream("count_to_death", {"n": 2}) as chunks:
            assert [chunk async for chunk in chunks] == [0, 1]
        assert pool.get_stats().restarts == 1


async def test_the_others_learn_who_was_killed(log: Path) -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, concurrency=2, cancel_grace=60) as pool,
        trio.open_nursery() as nursery,
    ):

        async def other() -> None:
            with pytest.raises(snakepit.WorkerCrashed, match="'sleep_to_death' was cancelled.*cancel='kill'"):
                await pool.execute("sleep_async", {"seconds": 60, "path": f"{log}.other"})

        nursery.start_soon(other)
        await _started(log.with_name(f"{log.name}.other"))
        await _cancel_when_started(pool, "sleep_to_death", {}, log)


@pytest.mark.parametrize(("concurrency", "send_ahead"), [(1, 32), (1, 0), (2, 32)])
async def test_a_kill_tool_that_has_not_started_is_just_withdrawn(concurrency: int, send_ahead: int, log: Path) -> None:
    """With calls sent ahead, the worker may have it already."""
    async with snakepit.open_pool(
        TOOLS, workers=1, concurrency=concurrency, send_ahead=send_ahead, cancel_grace=60
    ) as pool:
        for _ in range(20):
            await pool.execute("add", {"a": 1})  # answers quickly, so that calls are sent ahead
        async with trio.open_nursery() as nursery:
            for number in range(concurrency):
                busy = log.with_name(f"busy {number}")
                nursery.start_soon(pool.execute, "sleep_async", {"seconds": 60, "path": str(busy)})
                await _started(busy)
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("sleep_to_death", {"path": str(log)}, timeout=0.001)
            nursery.cancel_scope.cancel()
        assert not log.exists()
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0
        assert await pool.execute("add", {"a": 1}) == 2


async def test_a_kill_tool_that_starts_while_it_is_cancelled() -> None:
    """Cancelled at any moment around its start: withdrawn or killed, never waited for."""
    dice = random.Random(7)
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=60) as pool:
        for _ in range(12):
            await pool.await_ready(20)
            before = trio.current_time()
            with trio.move_on_after(dice.random() * 0.002):
                await pool.execute("sleep_to_death", {"path": ""})
            assert trio.current_time() - before < 20
        assert await pool.execute("add", {"a": 1}) == 2
