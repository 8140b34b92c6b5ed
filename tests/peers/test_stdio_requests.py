"""What workers on stdin and stdout ask of the host; and the workers of the examples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import EncodedValue
from snakepit_trio import testing
from snakepit_trio._calls.call import Call
from snakepit_trio._config.stdio_adapters import StdioJson
from snakepit_trio._requests.contract_requests import ContractRequests
from tests.helpers.stdio_tools import BOTH, CANCELS, EXAMPLES, JSON, PERL, open_it, pid_of

# Asks.


@BOTH
async def test_variables(adapter: StdioJson) -> None:
    async with open_it(adapter) as pool, pool.session() as session:
        await session.register_variable("x", "integer", 5)
        assert await session.execute("ask", {"command": "get_variable", "args": {"name": "x"}}) == 5
        for name, version in [("x", 2), ("new", 1), ("new", 2)]:
            args = {"command": "set_variable", "args": {"name": name, "value": 6}}
            assert await session.execute("ask", args) == version
        assert (await session.get_variable("x")).value == 6
        assert (await session.get_variable("new")).type == "integer"


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("get_variable", {"name": "y"}, "VariableNotFound: variable 'y' not found"),
        ("get_variable", {}, "InvalidArguments: get_variable takes a map of arguments, with a name"),
        ("get_variable", [], "InvalidArguments: get_variable takes a map of arguments, with a name"),
        ("get_variable", {"name": "odd"}, r"EncodeError: result\[0\]: a value of type bytes cannot be sent"),
        ("get_variable", {"name": "large"}, "EncodeError: 20.* a frame takes 10000"),
        ("set_variable", {"name": "x"}, "InvalidArguments: set_variable takes a value"),
        ("set_variable", {"name": "x", "value": "text"}, "InvalidValue: .*integer"),
        ("call_host_tool", {"name": "missing"}, "UnknownTool: no tool 'missing'"),
        ("call_host_tool", {"name": "shout", "args": {"texts": 1}}, "InvalidArguments: "),
        ("call_host_tool", {"name": "shout", "args": {"text": ""}}, "ValueError: nothing to shout"),
        ("call_host_tool", {"name": "shout", "args": 5}, "InvalidArguments: "),
        ("fly", {}, "UnknownTool: a worker cannot ask for 'fly'; it can for: get_variable"),
    ],
)
async def test_asks_that_fail(command: str, args: Any, message: str) -> None:
    async with open_it(JSON, max_frame_bytes=10_000) as pool, pool.session() as session:
        session.expose(shout)
        await session.register_variable("x", "integer", 5)
        await session.register_variable("odd", "list", [b"x"])
        await session.register_variable("large", "string", "x" * 20_000)
        with pytest.raises(snakepit.ToolError, match=message):
            await session.execute("ask", {"command": command, "args": args})
        assert pool.get_stats().crashed == 0


def shout(text: str) -> str:
    """Make it loud."""
    if not text:
        raise ValueError("nothing to shout")
    return text.upper()


async def test_a_call_without_a_session_has_no_variables() -> None:
    async with open_it(JSON) as pool:
        with pytest.raises(snakepit.ToolError, match="SessionError: get_variable: the call has no session"):
            await pool.execute("ask", {"command": "get_variable", "args": {"name": "x"}})


@BOTH
async def test_host_tools(adapter: StdioJson) -> None:
    async with open_it(adapter) as pool, pool.session() as session:
        pool.expose(shout)
        session.expose(lambda: (1, [2]), name="pair", description="Two.")
        args = {"command": "call_host_tool", "args": {"name": "shout", "args": {"text": "a"}}}
        assert await pool.execute("ask", args) == "A"
        assert await session.execute("ask", {"command": "call_host_tool", "args": {"name": "pair"}}) == [1, [2]]
        everything = [{"name": "shout", "description": "Make it loud."}, {"name": "pair", "description": "Two."}]
        assert await session.execute("ask", {"command": "list_host_tools", "args": {}}) == everything
        assert await pool.execute("ask", {"command": "list_host_tools", "args": {}}) == everything[:1]


async def test_a_host_tool_calls_the_pool_again() -> None:
    async with open_it(JSON, concurrency=2) as pool:

        @pool.expose
        async def again(value: int) -> Any:
            return await pool.execute("echo", {"value": value})

        args = {"command": "call_host_tool", "args": {"name": "again", "args": {"value": 3}}}
        assert await pool.execute("ask", args) == 3


@pytest.mark.parametrize("adapter", [JSON, CANCELS], ids=["killed", "cancelled"])
async def test_a_cancelled_call_takes_its_host_tool_along(adapter: StdioJson) -> None:
    began, ended = trio.Event(), trio.Event()
    async with open_it(adapter, cancel_grace=60) as pool:

        @pool.expose
        async def wait() -> None:
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "ask", {"command": "call_host_tool", "args": {"name": "wait"}})
            await began.wait()
            assert not ended.is_set()
            nursery.cancel_scope.cancel()
        assert ended.is_set()
        await pool.await_ready()
        assert await pool.execute("echo", {"value": 1}) == 1
        assert pool.get_stats().restarts == (adapter is JSON)


async def test_a_call_is_over_when_its_asks_are() -> None:
    ended = 0
    async with open_it(JSON) as pool, pool.session() as session:

        @pool.expose
        async def slow() -> None:
            nonlocal ended
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(10):
                        await trio.lowlevel.checkpoint()
                ended += 1

        for number in range(1, 20):
            await session.execute("set_and_go", {"name": "x", "value": number})
            assert (await session.get_variable("x")).value == number
            assert (await session.execute("last_answer", {"number": 77}))["result"] == number
            await session.execute("call_and_go", {"name": "slow"})
            assert ended == number
            answer = await session.execute("last_answer", {"number": 78})
            assert answer["error"]["type"] == "cancelled"


async def test_asks_for_calls_that_are_none() -> None:
    async with open_it(JSON) as pool:
        for call_id in (0, 2, 500):  # the second call is number 2
            answer = await pool.execute("ask_for", {"call_id": call_id})
            assert answer.get("error", {}).get("type") == (None if call_id == 2 else "SessionError")
            pids = {pid_of(pool)}
        assert len(pids) == 1


async def test_an_ask_that_comes_twice() -> None:
    async with open_it(JSON) as pool:
        pool.expose(trio.sleep_forever, name="wait")
        ask = {"ask": 1, "id": "my id", "command": "call_host_tool", "args": {"name": "wait"}}
        with pytest.raises(snakepit.WorkerCrashed, match="ask 1 has no answer yet, and comes again"):
            await pool.execute("say", {"frames": [ask, ask]})


def test_an_ask_that_comes_when_the_line_has_just_ended() -> None:
    """The host tool cannot be started any more, and nobody must wait for its end: that call would never be over."""

    async def story() -> None:
        services: Any = SimpleNamespace(store=snakepit.MemoryStore())
        requests, call, ended = ContractRequests(services, "pool-1"), Call("say", EncodedValue(b"", None), "", None), []
        async with trio.open_nursery() as nursery:
            await nursery.start(requests.run)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                with pytest.raises((snakepit.SessionError, snakepit.ToolError)):
                    await requests.call_host_tool(call, "wait", {})
                requests.host_tool_runs.when_over(call, lambda: ended.append(call))
        assert ended == [call]

    for seed in range(20):  # in some of them it is the requests's turn first
        testing.run(story, seed=seed)


# The examples.


async def test_perl() -> None:
    async with open_it(PERL, workers=2) as pool, pool.session() as session:
        session.expose(shout)
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        assert await pool.execute("reverse", {"text": "\u00fcber"}) == "reb\u00fc"
        async with pool.stream("count", {"n": 200}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(1, 201))
        with pytest.raises(snakepit.ToolError, match="PerlError: no luck"):
            await pool.execute("fail", {"why": "no luck"})
        with pytest.raises(snakepit.ToolError, match="there is no tool fly"):
            await pool.execute("fly")
        assert await session.execute("remember", {"name": "x", "value": [1, "a"]}) == 1
        assert await session.execute("recall", {"name": "x"}) == [1, "a"]
        assert await session.execute("relay", {"name": "shout", "args": {"text": "a"}}) == "A"
        with pytest.raises(snakepit.ToolError, match="PerlError: VariableNotFound: "):
            await session.execute("recall", {"name": "y"})
        assert pool.get_info()["worker_python"][0].startswith("Perl v5")
        assert pool.get_stats().restarts == 0


async def test_a_perl_stream_left_early() -> None:
    async with open_it(PERL, cancel_grace=60) as pool:
        async with pool.stream("count", {"n": 1_000_000_000}) as chunks:
            assert await anext(chunks) == 1
        await pool.await_ready()
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_four_lines() -> None:
    script = EXAMPLES / "four_lines.py"
    assert len(script.read_text().partition("\nwhile")[2].splitlines()) == 4
    async with open_it(StdioJson(str(script))) as pool:
        assert await pool.execute("anything", {"a": 2, "b": 3}) == 5
