"""Workers that speak frames on their stdin and stdout: in Perl and in Python, in JSON and in MessagePack."""

from __future__ import annotations

import datetime as dt
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from snakepit_trio._config.stdio_adapters import StdioJson, StdioMsgpack
from tests.helpers.stdio_tools import BOTH, CANCELS, JSON, MSGPACK, PERL, WORKER, lines_of, open_it, pid_of, until_lines
from tests.helpers.workers import is_alive

# Which program runs.


@pytest.mark.parametrize(
    ("script", "runner"),
    [
        ("a.py", "/the/python"),
        ("a.pl", "perl"),
        ("a.js", "node"),
        ("a.mjs", "node"),
        ("a.cjs", "node"),
        ("a.sh", "bash"),
        ("a.rb", "ruby"),
        ("a", ""),
    ],
)
def test_what_runs_a_script(script: str, runner: str) -> None:
    adapter = StdioJson(script, ["-x"])
    assert adapter.executable_path("/the/python") == runner
    assert adapter.script_path() == os.path.abspath(script)
    assert adapter.script_args() == ["-x"]
    assert StdioJson(script, executable="awk").executable_path("/the/python") == "awk"


def test_what_cannot_run_is_named() -> None:
    assert "no such.pl" in (StdioJson("no such.pl").unavailable(sys.executable) or "")
    assert "no_such_program" in (StdioJson(WORKER, executable="no_such_program").unavailable(sys.executable) or "")
    assert "stdio_worker" in (StdioJson(WORKER, executable="").unavailable("no_stdio_worker_python") or "")
    assert JSON.unavailable(sys.executable) is None
    assert PERL.unavailable(sys.executable) is None
    assert StdioJson("", executable="cat").unavailable(sys.executable) is None
    with pytest.raises(snakepit.UsageError, match="StdioMsgpack names no program"):
        StdioMsgpack("")
    with pytest.raises(snakepit.UsageError, match="give a list of texts"):
        StdioJson("a.py", "--flag")


# Values.


def test_what_can_be_written() -> None:
    frame = {"id": 1, "args": {"all": [None, True, 1 << 63, -0.5, "\u00fc", {"x": []}]}}
    for adapter in (JSON, MSGPACK):
        assert adapter.decode(adapter.encode(frame)) == frame
    assert JSON.decode(JSON.encode({"x": 1 << 200})) == {"x": 1 << 200}
    assert MSGPACK.decode(MSGPACK.encode({"x": {1: b"y"}})) == {"x": {1: b"y"}}


@pytest.mark.parametrize(
    ("adapter", "value", "path", "why"),
    [
        (JSON, b"x", "args.rows[1].deep", "type bytes cannot be sent as JSON"),
        (JSON, float("nan"), "args.rows[1].deep", "Out of range float"),
        (JSON, {1: 2}, "args.rows[1].deep", "1 cannot be a key in JSON"),
        (JSON, "\ud800", "args.rows[1].deep", "surrogates not allowed"),
        (MSGPACK, {1, 2}, "args.rows[1].deep", "type set cannot be sent as MessagePack"),
        (MSGPACK, 1 << 64, "args.rows[1].deep", "can't serialize ints"),
    ],
)
def test_what_cannot_be_written_is_named(adapter: StdioJson, value: Any, path: str, why: str) -> None:
    with pytest.raises(snakepit.EncodeError) as caught:
        adapter.encode({"id": 1, "args": {"ok": [1, {"x": "y"}], "rows": [0, {"deep": value}]}})
    assert str(caught.value).startswith(f"{path}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b'{"x": NaN}', b'{"x": 1} 2', b'"\xff"', b"[" * 100_000])
def test_what_is_no_frame(data: bytes) -> None:
    for adapter in (JSON, MSGPACK):
        with pytest.raises(snakepit.DecodeError):
            adapter.decode(data)


@BOTH
async def test_results(adapter: StdioJson) -> None:
    value: list[Any] = [None, True, False, 1, -70_000, 0.5, "\u00fc\u2028", {"x": [{}]}]
    async with open_it(adapter) as pool:
        assert await pool.execute("echo", {"value": value}) == value
        frame = await pool.execute("frame_of", timeout=None)
        assert frame == {"id": 2, "command": "frame_of", "args": {}, "session": None, "timeout": None, "stream": False}
        async with pool.session("s") as session:
            frame = await session.execute("frame_of", timeout=100)
            assert frame["session"] == "s"
            assert 99 < frame["timeout"] <= 100


async def test_bytes_are_for_msgpack() -> None:
    async with open_it(MSGPACK) as pool:
        for data in (b"\x00\xff", bytes(200_000)):
            assert await pool.execute("echo", {"value": data}) == data


async def test_what_cannot_be_sent_ends_its_call_and_no_other(log: Path) -> None:
    async with open_it(JSON, concurrency=2) as pool:
        pid = pid_of(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "sleep", {"path": str(log)})
            await until_lines(log, 1)
            for value in (b"x", bytes(100_000), float("inf"), {1}, dt.date(2020, 1, 1)):
                with pytest.raises(snakepit.EncodeError, match=r"echo: args\.value\[0\]: "):
                    await pool.execute("echo", {"value": [value]})
            assert await pool.execute("echo", {"value": 1}) == 1
            assert pid_of(pool) == pid
            nursery.cancel_scope.cancel()


async def test_a_frame_that_is_too_large_is_not_sent() -> None:
    async with open_it(MSGPACK, max_frame_bytes=10_000) as pool:
        with pytest.raises(snakepit.EncodeError, match="a frame takes 10000"):
            await pool.execute("echo", {"value": bytes(40_000)})
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_an_extension_type_is_no_plain_value() -> None:
    async with open_it(MSGPACK) as pool:
        with pytest.raises(snakepit.EncodeError, match="say_packed: result: an object of type msgspec"):
            await pool.execute("say_packed", {"key": "result", "hex": "d40561"})
        assert pool.get_stats().crashed == 0
        async with pool.stream("say_packed", {"key": "chunk", "hex": "d40561"}) as chunks:
            with pytest.raises(snakepit.DecodeError, match="'say_packed' sent back .*: say_packed: chunk: an object"):
                await anext(chunks)
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.get_stats().crashed == 0


async def test_timestamps_of_msgpack() -> None:
    async with open_it(MSGPACK) as pool:
        found = await pool.execute("say_packed", {"key": "result", "hex": "d6ff00000001"})
        assert found == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)


@BOTH
async def test_large_values(adapter: StdioJson) -> None:
    size = 10_000_000
    async with open_it(adapter) as pool:
        assert await pool.execute("big", {"size": size}) == "x" * size
        assert await pool.execute("echo", {"value": "y" * size}) == "y" * size
        if adapter is MSGPACK:
            assert await pool.execute("big", {"size": size, "bytes": True}) == b"x" * size


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_thousand_calls(concurrency: int) -> None:
    async with open_it(JSON, workers=2, concurrency=concurrency) as pool:
        numbers = range(1000)
        async with pool.map("echo", ({"value": number} for number in numbers), ordered=True) as results:
            assert [result async for result in results] == list(numbers)


# Errors.


@BOTH
async def test_errors(adapter: StdioJson) -> None:
    async with open_it(adapter) as pool:
        with pytest.raises(snakepit.ToolError, match="ValueError: no luck") as caught:
            await pool.execute("fail", {"how": "value"})
        assert (caught.value.type, caught.value.message) == ("ValueError", "no luck")
        assert caught.value.remote_traceback == "in line 7"
        with pytest.raises(snakepit.ToolError) as caught:
            await pool.execute("fail", {"how": "plain"})
        assert (caught.value.type, caught.value.message) == ("", "no luck")
        # Nobody has cancelled it, so that is just a name.
        with pytest.raises(snakepit.ToolError, match="cancelled: as you wish"):
            await pool.execute("fail", {"how": "cancelled"})


async def test_an_error_with_half_a_character() -> None:
    async with open_it(JSON) as pool:
        with pytest.raises(snakepit.ToolError, match=r"half of a \\ud83d"):
            await pool.execute("fail", {"how": "surrogate"})


async def test_a_death_in_the_middle() -> None:
    async with open_it(JSON) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="exit code 3") as caught:
            await pool.execute("die")
        assert "these are my last words" in caught.value.stderr_tail
        await pool.await_ready()
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_a_worker_that_closes_its_stdin() -> None:
    script = """read(STDIN, $_, 4); read(STDIN, $_, unpack("N", $_)); close STDIN;
        $_ = q({"id": 0, "result": {}}); $| = 1; print pack("N", length), $_; sleep 100"""
    async with open_it(StdioJson("", ["-e", script], executable="perl")) as pool:
        # It was not sent, so others get it; they are no better.
        with pytest.raises(snakepit.WorkerCrashed, match="closed its link"):
            await pool.execute("anything", timeout=60)
        assert pool.get_stats().restarts >= 3


# Streams.


@BOTH
async def test_streams(adapter: StdioJson) -> None:
    async with open_it(adapter, stream_window=3) as pool:
        async with pool.stream("count", {"n": 100}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(100))
        async with pool.stream("count", {"n": 0}) as chunks:
            assert [chunk async for chunk in chunks] == []
        async with pool.stream("count_and_fail") as chunks:
            assert await anext(chunks) == 0
            with pytest.raises(snakepit.ToolError, match="ValueError: no more"):
                await anext(chunks)


async def test_a_slow_consumer_stops_the_worker(log: Path) -> None:
    n, size, window = 200, 10_000, 4
    async with open_it(JSON, stream_window=window) as pool:
        args = {"n": n, "size": size, "path": str(log)}
        async with pool.stream("count", args) as chunks:
            await anext(chunks)
            await until_lines(log, window)
            before = -1
            while before < (before := len(lines_of(log))):
                await trio.sleep(0.2)
            # What the pipe holds, what the host has read at one go, and what it keeps back.
            assert before <= window + 2 * 65_536 // size + 4
            assert len([chunk async for chunk in chunks]) == n - 1
        assert len(lines_of(log)) == n


@pytest.mark.parametrize("adapter", [JSON, CANCELS], ids=["killed", "cancelled"])
async def test_leaving_a_stream_early(adapter: StdioJson, log: Path) -> None:
    async with open_it(adapter, stream_window=2, cancel_grace=60) as pool:
        pid = pid_of(pool)
        async with pool.stream("count", {"n": 1_000_000, "size": 1000, "path": str(log)}) as chunks:
            await anext(chunks)
        assert is_alive(pid) == (adapter is CANCELS)
        done = len(lines_of(log))
        await pool.await_ready()
        assert await pool.execute("echo", {"value": 1}) == 1
        assert len(lines_of(log)) == done
        assert pool.get_stats().restarts == (adapter is not CANCELS)


async def test_a_slow_stream_does_not_keep_a_cancelled_one() -> None:
    async with open_it(CANCELS, concurrency=2, stream_window=2, cancel_grace=60) as pool:
        async with pool.stream("count", {"n": 1000}) as chunks:
            await anext(chunks)
        async with pool.stream("count", {"n": 10}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(10))
        assert pool.get_stats().restarts == 0


# Stopping.


@pytest.mark.parametrize("adapter", [JSON, CANCELS], ids=["killed", "cancelled"])
async def test_timeouts(adapter: StdioJson, log: Path) -> None:
    async with open_it(adapter, cancel_grace=60) as pool:
        pid = pid_of(pool)
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("sleep", {"path": str(log)}, timeout=0.5)
        assert is_alive(pid) == (adapter is CANCELS)
        assert (lines_of(log)[-1:] == ["cancelled"]) == (adapter is CANCELS)
        await pool.await_ready()
        assert await pool.execute("echo", {"value": 1}) == 1


@pytest.mark.parametrize("adapter", [JSON, CANCELS], ids=["killed", "cancelled"])
async def test_cancelling_one_of_two(adapter: StdioJson, tmp_path: Path) -> None:
    failures: list[Exception] = []

    async def sleep(pool: snakepit.Pool, name: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await pool.execute("sleep", {"path": str(tmp_path / name)})
            except snakepit.WorkerCrashed as error:
                failures.append(error)

    scopes = [trio.CancelScope(), trio.CancelScope()]
    async with open_it(adapter, concurrency=2, cancel_grace=60) as pool, trio.open_nursery() as nursery:
        for name, scope in zip("ab", scopes, strict=True):
            nursery.start_soon(sleep, pool, name, scope)
            await until_lines(tmp_path / name, 1)
        scopes[0].cancel()
        if adapter is CANCELS:
            await until_lines(tmp_path / "b", len(lines_of(tmp_path / "b")) + 5)
            scopes[1].cancel()
    assert len(failures) == (adapter is JSON)


async def test_what_was_not_sent_is_withdrawn(log: Path) -> None:
    async with open_it(StdioJson(WORKER, ["--deaf", str(log)]), concurrency=2) as pool, trio.open_nursery() as nursery:
        pid = pid_of(pool)
        nursery.start_soon(pool.execute, "echo", {"value": "x" * 1_000_000})
        await _until_running(pool, 1)
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("echo", {"value": 1}, timeout=0.1)
        assert is_alive(pid)
        nursery.cancel_scope.cancel()
    assert not is_alive(pid)


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_what_was_not_sent_runs_elsewhere(how: str, log: Path) -> None:
    results: list[Any] = []
    scope = trio.CancelScope()

    async def echo(pool: snakepit.Pool, scope: trio.CancelScope, value: Any) -> None:
        with scope:
            results.append(await pool.execute("echo", {"value": value}))

    async with open_it(StdioJson(WORKER, ["--deaf", str(log)]), concurrency=2) as pool:
        pid = pid_of(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, pool, scope, "x" * 1_000_000)
            await _until_running(pool, 1)
            nursery.start_soon(echo, pool, trio.CancelScope(), 1)
            await _until_running(pool, 2)
            if how == "restarted":
                await pool.workers.restart(pool.list_workers()[0].id)
                while not results:
                    await trio.sleep(0.01)
                assert is_alive(pid)
            scope.cancel()
        assert not is_alive(pid)
        assert results == [1]


async def _until_running(pool: snakepit.Pool, calls: int) -> None:
    while pool.get_stats().running < calls:
        await trio.sleep(0.005)


async def test_an_idle_worker_ends_with_its_stdin() -> None:
    async with open_it(JSON, shutdown_timeout=60) as pool:
        before = trio.current_time()
        pid = pid_of(pool)
    assert trio.current_time() - before < 50
    assert not is_alive(pid)


async def test_a_busy_worker_is_replaced_in_order() -> None:
    async with open_it(JSON) as pool:
        pid = pid_of(pool)
        numbers = range(1000)
        async with pool.map("echo", ({"value": number} for number in numbers), ordered=True) as results:
            assert await anext(results) == 0
            await pool.workers.restart(pool.list_workers()[0].id)
            assert [result async for result in results] == list(numbers[1:])
        assert pid_of(pool) != pid


# Starting.


async def test_what_a_worker_says_of_itself() -> None:
    async with open_it(CANCELS) as pool:
        info = pool.get_info()
        assert info["worker_python"] == ["of the tests"]
        assert [tool["name"] for tool in info["tools"]] == ["echo", "sleep", "count"]
        assert info["tools"][2]["streaming"] is True
        assert info["tools"][0]["description"] == "It says it."


async def test_an_error_is_an_answer_to_hello_too() -> None:
    async with open_it(StdioJson(WORKER, ["--how", "error_hello"])) as pool:
        assert await pool.execute("echo", {"value": 1}) == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("silent", "was not ready within 0.5 s"),
        ("wrong_tools", "its hello describes its tools wrongly: Expected `str`, got `int`"),
        ("early", "an answer to call 1, which is not open"),
    ],
)
async def test_a_start_that_fails(how: str, message: str) -> None:
    timeout = 0.5 if how == "silent" else 60
    with pytest.raises(snakepit.WorkerStartError, match=message) as caught:
        async with open_it(StdioJson(WORKER, ["--how", how]), start_timeout=timeout):
            pytest.fail("the block was entered")
    assert caught.value.stderr_tail == ("the worker is here",) or how == "silent"


async def test_a_program_that_ends_at_once() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="ended before it was ready"):
        async with open_it(StdioJson("", ["-e", "die qq(no\\n)"], executable="perl")):
            pytest.fail("the block was entered")


async def test_a_program_that_just_talks() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="was text printed to stdout"):
        async with open_it(StdioJson("", ["-e", "$| = 1; print qq(Hello\\n); sleep 60"], executable="perl")):
            pytest.fail("the block was entered")


# Broken rules.


def _frame(text: bytes) -> str:
    return (struct.pack(">I", len(text)) + text).hex()


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("write", {"hex": b"Loading...\n".hex()}, "it begins with b'Load'; was text printed to stdout?"),
        ("write", {"hex": struct.pack(">I", 100_001).hex()}, "a frame of 100001 bytes is over the limit of 100000"),
        ("write", {"hex": _frame(b"{'id': 1}")}, "is no JSON"),
        ("write", {"hex": _frame(b'{"id":1,"result":NaN}')}, "NaN is not of JSON"),
        ("write", {"hex": _frame(b"[]")}, "a frame is no map, but a list"),
        ("say", {"frames": [{"id": 99, "result": 1}]}, "an answer to call 99, which is not open"),
        ("say", {"frames": [{"id": 0, "result": 1}]}, "an answer to call 0, which is not open"),
        ("say", {"frames": [{"id": "x", "result": 1}]}, "a frame whose 'id' is 'x', not a number"),
        ("say", {"frames": [{"id": True, "result": 1}]}, "a frame whose 'id' is True, not a number"),
        ("say", {"frames": [{"result": 1}]}, "a frame whose 'id' is None, not a number"),
        ("say", {"frames": [{"id": "my id"}]}, "a frame with 0 of result, error, chunk, end"),
        ("say", {"frames": [{"id": "my id", "result": 1, "error": None}]}, "a frame with 2 of"),
        ("say", {"frames": [{"id": "my id", "chunk": 1}]}, "'chunk' for call 1, which is no stream"),
        ("say", {"frames": [{"id": "my id", "end": True}]}, "'end' for call 1, which is no stream"),
        ("say", {"frames": [{"id": "my id", "error": 7}]}, "an error of type int, which is neither text nor a map"),
        ("say", {"frames": [{"ask": "k", "id": "my id"}]}, "a frame whose 'ask' is 'k', not a number"),
        ("ask_many", {"n": 1001}, "more than 1000 asks"),
    ],
)
async def test_a_broken_rule_ends_that_worker(tool: str, args: dict[str, Any], message: str) -> None:
    async with open_it(JSON, max_frame_bytes=100_000) as pool:
        pool.expose(trio.sleep_forever, name="wait")
        pid = pid_of(pool)
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute(tool, args, timeout=60)
        assert "broke the protocol" in str(caught.value)
        assert message in str(caught.value)
        await pool.await_ready()
        assert pid_of(pool) != pid
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_a_result_for_a_stream() -> None:
    async with open_it(JSON) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="'result' for call 1, which is a stream"):
            async with pool.stream("say", {"frames": [{"id": "my id", "result": 1}]}) as chunks:
                await anext(chunks)


async def test_a_second_answer() -> None:
    async with open_it(JSON) as pool:
        pid = pid_of(pool)
        assert await pool.execute("say", {"frames": [{"id": "my id", "result": 1}, {"id": "my id", "result": 2}]}) == 1
        while is_alive(pid):
            await trio.sleep(0.01)
        await pool.await_ready()
