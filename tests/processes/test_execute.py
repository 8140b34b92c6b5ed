"""End to end: calls into real worker processes, and what comes back."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS


async def test_a_pool_without_arguments_has_the_showcase_tools() -> None:
    async with snakepit.open_pool() as pool:
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        assert (await pool.execute("ping"))["message"] == "pong"
        assert await pool.execute("echo", {"x": [1, {"y": None}]}) == {"x": [1, {"y": None}]}
        text = await pool.execute("process_text", {"text": "A b. A c!", "top": 1})
        assert (text["words"], text["sentences"], text["most_frequent"]) == (4, 2, [["a", 2]])
        stats = await pool.execute("get_stats", session="s")
        assert stats["session"] == "s"
        assert stats["peak_memory_bytes"] > 1_000_000
        async with pool.stream("ping_stream", {"count": 3}) as chunks:
            assert [chunk["number"] async for chunk in chunks] == [0, 1, 2]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_sync_and_async_tools(concurrency: int) -> None:
    async with snakepit.open_pool(TOOLS, concurrency=concurrency) as pool:
        assert await pool.execute("add", {"a": 1}) == 2
        assert await pool.execute("add_async", {"a": 1, "b": 5}) == 6
        for tool in ("count", "count_async"):
            async with pool.stream(tool, {"n": 300}) as chunks:
                assert [chunk async for chunk in chunks] == list(range(300))


async def test_many_callers_get_their_own_results() -> None:
    results: dict[int, int] = {}
    async with snakepit.open_pool(TOOLS) as pool, trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            results[number] = await pool.execute("add", {"a": number, "b": 1000})

        for number in range(500):
            nursery.start_soon(call, number)
    assert results == {number: number + 1000 for number in range(500)}


@pytest.mark.parametrize(
    ("args", "parameter", "message"),
    [
        ({}, "a", "the argument 'a' is missing"),
        ({"a": "x"}, "a", "Expected `int`, got `str`"),
        ({"a": 1, "c": 2}, "c", "there is no parameter 'c'; there are: a, b"),
    ],
)
async def test_wrong_arguments_name_the_parameter(args: dict[str, object], parameter: str, message: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.InvalidArguments, match=message) as caught:
            await pool.execute("add", args)
    assert caught.value.parameter == parameter


async def test_an_unknown_tool_lists_the_near_names() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.UnknownTool, match="did you mean 'sleep' or 'sleep_async'"):
            await pool.execute("slep")
        with pytest.raises(snakepit.UnknownTool, match="there are: about, add"):
            await pool.execute("xyzzy")


async def test_streams_and_plain_calls_are_told_apart() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.WrongCallKind, match=r"pool\.stream"):
            await pool.execute("count", {"n": 1})
        async with pool.stream("add", {"a": 1}) as chunks:
            with pytest.raises(snakepit.WrongCallKind, match=r"pool\.execute"):
                await anext(chunks)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_tool_error_shows_the_remote_traceback_below_the_local_one(concurrency: int) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency) as pool:
        with pytest.raises(snakepit.ToolError) as caught:
            await pool.execute("fail", {"text": "no such thing"})
    error = caught.value
    assert (error.type, error.message) == ("tests.helpers.tools.CustomError", "no such thing")
    printed = "".join(traceback.format_exception(error))
    local, remote = printed.index("await pool.execute("), printed.index("raise CustomError(text)")
    assert local < printed.index("Traceback in the worker") < remote
    assert "executor.py" not in error.remote_traceback
    assert "interrupts.py" not in error.remote_traceback


async def test_any_error_text_comes_through() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.ToolError, match="half a pair: .*d800"):
            await pool.execute("fail_with_surrogate", timeout=10)
        with pytest.raises(snakepit.ToolError, match=r"100000 characters"):
            await pool.execute("fail", {"text": "x" * 100_000})


async def test_what_cannot_be_sent_says_so_and_harms_nothing() -> None:
    sizes: dict[str, Any] = {"max_frame_bytes": 100_000, "max_buffer_bytes": 1_000_000}
    async with snakepit.open_pool(TOOLS, workers=1, **sizes) as pool:
        with pytest.raises(snakepit.EncodeError, match=r"add: args\.a\[1\]: an object of type builtins.object"):
            await pool.execute("add", {"a": [1, object()]})
        with pytest.raises(snakepit.EncodeError, match="max_frame_bytes"):
            await pool.execute("add", {"a": "x" * 100_000})
        with pytest.raises(snakepit.EncodeError, match=r"result\S*: an object"):
            await pool.execute("unsendable")
        with pytest.raises(snakepit.EncodeError, match="max_frame_bytes"):
            await pool.execute("make_text", {"size": 100_000})
        assert len(await pool.execute("make_text", {"size": 99_000})) == 99_000
        with pytest.raises(snakepit.EncodeError, match="1000001 bytes in arrays and the like.*max_buffer_bytes"):
            await pool.execute("make_bytes", {"size": 1_000_001})
        with pytest.raises(snakepit.EncodeError, match="max_buffer_bytes"):
            await pool.execute("echo", {"value": bytes(1_000_001)})
        assert pool.get_stats().restarts == 0


async def test_large_values_pass() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        assert await pool.execute("make_bytes", {"size": 40_000_000}) == bytes(40_000_000)


async def test_the_context_tells_about_the_call() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        about = await pool.execute("about", timeout=20, session="s1")
        assert (about["session"], about["cancelled"]) == ("s1", False)
        assert 10 < about["left"] <= 20
        unlimited = await pool.execute("about", timeout=None)
        assert (unlimited["session"], unlimited["left"]) == (None, None)
        assert unlimited["call_id"] > about["call_id"]


async def test_environment_and_working_directory(tmp_path: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, env={"COLOUR": "green"}, cwd=tmp_path) as pool:
        assert await pool.execute("environment", {"name": "COLOUR"}) == ["green", str(tmp_path)]
        assert (await pool.execute("environment", {"name": "SNAKEPIT_LINK_SECRET"}))[0] is None


async def test_output_becomes_log_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "snakepit.worker")
    async with snakepit.open_pool(TOOLS, workers=1, name="loud") as pool:
        assert await pool.execute("print_lines", {"n": 5000}) == 5000
    lines = [record for record in caplog.records if record.name == "snakepit.worker.loud-1"]
    assert sum(record.getMessage().startswith("out ") for record in lines) == 5000
    assert sum(record.getMessage().startswith("err ") for record in lines) == 5000


async def test_statistics_and_workers() -> None:
    async with snakepit.open_pool(TOOLS, workers=2, name="p") as pool:
        await pool.execute("add", {"a": 1})
        with pytest.raises(snakepit.ToolError):
            await pool.execute("fail", {"text": ""})
        with trio.move_on_after(0.05):
            await pool.execute("sleep", {"seconds": 60})
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("sleep", {"seconds": 60}, timeout=0.05)
        stats = pool.get_stats()
        assert (stats.workers, stats.ready, stats.busy, stats.queued, stats.running) == (2, 2, 0, 0, 0)
        assert (stats.calls, stats.succeeded, stats.failed, stats.cancelled, stats.timed_out) == (4, 1, 1, 1, 1)
        workers = pool.list_workers()
        assert [worker.id for worker in workers] == ["p-1", "p-2"]
        assert all(worker.resident_bytes and worker.resident_bytes > 1_000_000 for worker in workers)
        assert {worker.state for worker in workers} == {snakepit.WorkerState.READY}
        assert sum(worker.calls_served for worker in workers) == 4
        pids = {worker.pid for worker in workers}
        assert await pool.execute("pid") in pids
        assert os.getpid() not in pids


async def test_execute_stream_calls_back() -> None:
    seen: list[int] = []

    async def note(chunk: int) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(chunk)

    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        await pool.execute_stream("count", {"n": 100}, seen.append)
        await pool.execute_stream("count", {"n": 100}, note)
        assert seen == [*range(100), *range(100)]

        def refuse(_chunk: int) -> None:
            raise KeyError("stop")

        with pytest.raises(KeyError, match="stop"):
            await pool.execute_stream("count", {"n": 100_000_000}, refuse)


async def test_a_stream_error_comes_after_its_chunks() -> None:
    seen = []
    async with snakepit.open_pool(TOOLS, workers=1) as pool, pool.stream("count_then_fail", {"n": 200}) as chunks:
        with pytest.raises(snakepit.ToolError, match="enough"):
            async for chunk in chunks:
                seen.append(chunk)  # noqa: PERF401 - the chunks before the error are what is tested
    assert seen == list(range(200))


async def test_a_slow_consumer_stops_its_producer(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, stream_window=8) as pool:
        async with pool.stream("count", {"n": 1_000_000, "path": str(log)}) as chunks:
            for _ in range(20):
                await anext(chunks)
        # Granted: the window, and what was consumed; one more was made and never sent.
        assert int(log.read_text().split()[-1]) <= 20 + 8 + 1
