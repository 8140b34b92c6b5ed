"""A pool's tools over the Model Context Protocol: the SDK's own client, over both transports and both protocols."""

from __future__ import annotations

import gc
import os
import re
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp import MCPError, StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client

import snakepit_trio as snakepit
from tests.helpers.agent_tools import Tools

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WAYS = ["stdio, 2026", "stdio, 2025", "http, 2026", "http, 2025"]


# The SDK's client leaves generators of its HTTP library unclosed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx2|httpcore2)"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """The SDK's client may let go of its server's process before it has waited for it: that is told in its own test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application with hypercorn on trio; yields its address."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.2
    config.errorlog = None
    end = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=end.wait))
        yield address
        end.set()


def over_stdio(*args: str, adapter: str = "tests.helpers.agent_tools:Tools") -> Any:
    """The command, as a client starts it."""
    arguments = ["-m", "snakepit_trio", "mcp", adapter, *args]
    return stdio_client(StdioServerParameters(command=sys.executable, args=arguments, env=ENVIRONMENT))


@asynccontextmanager
async def client_of(way: str) -> AsyncIterator[Client]:
    transport, _, year = way.partition(", ")
    mode = "legacy" if year == "2025" else "auto"
    if transport == "stdio":
        async with Client(over_stdio(), mode=mode) as client:
            yield client
        return
    async with (
        snakepit.open_pool(Tools) as pool,
        serving(pool.mcp_app()) as address,
        Client(f"{address}/mcp", mode=mode) as client,
    ):
        yield client


@pytest.fixture(params=WAYS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    with trio.fail_after(100):
        async with client_of(request.param) as opened:
            assert opened.protocol_version.startswith(request.param[-4:])
            yield opened  # noqa: ASYNC119


async def until_has(path: Path, word: str) -> None:
    """Wait until a tool has written a word to a file."""
    with trio.fail_after(30):
        while not path.exists() or word not in path.read_text().split():
            await trio.sleep(0.01)


def text_of(result: Any) -> str:
    (content,) = result.content
    return str(content.text)


async def test_tools_are_listed_with_their_schemas(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].input_schema == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "The first one."},
            "b": {"type": "integer", "default": 1},
        },
        "additionalProperties": False,
        "required": ["a"],
    }
    assert tools["add"].output_schema == {
        "type": "object",
        "properties": {"result": {"type": "integer"}},
        "required": ["result"],
    }
    assert tools["move"].output_schema is not None
    assert tools["move"].output_schema["$defs"]["Point"]["description"] == "A point."
    assert "x-" not in str([tool.input_schema for tool in tools.values()])
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.output_schema is None or tool.output_schema["type"] == "object"


async def test_a_call_joins_the_trace_of_its_meta(client: Client) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    meta: Any = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "baggage": "user=7", "tracestate": "broken"}
    headers = (await client.call_tool("trace", {}, meta=meta)).structured_content
    assert headers is not None
    assert (headers["traceparent"].split("-")[1], headers["baggage"], "tracestate" in headers) == (
        trace_id,
        "user=7",
        False,
    )
    broken: Any = {"traceparent": "no", "baggage": "="}
    assert (await client.call_tool("trace", {}, meta=broken)).structured_content == {}


async def test_results_are_structured(client: Client) -> None:
    added = await client.call_tool("add", {"a": 1})
    assert (text_of(added), added.structured_content, added.is_error) == ("2", {"result": 2}, False)
    moved = await client.call_tool("move", {"point": {"x": 1}, "by": 2})
    assert moved.structured_content == {"x": 3.0, "y": 2.0}
    scaled = await client.call_tool("scale", {"values": [[1, 2.5]]})
    assert scaled.structured_content == {"result": [[2.0, 5.0]]}
    chunks = await client.call_tool("numbers", {"n": 3})
    assert (text_of(chunks), chunks.structured_content) == ("[0,1,2]", {"result": [0, 1, 2]})
    nothing = await client.call_tool("numbers", {"n": 0})
    assert nothing.structured_content == {"result": []}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("add", {"a": "x"}, "InvalidArguments: add: the argument 'a' does not fit: expected integer, got 'x'"),
        ("add", {}, "InvalidArguments: add: the argument 'a' is missing"),
        ("add", {"a": 1, "c": 2}, "InvalidArguments: add: there is no parameter 'c'"),
        ("fail", {"text": "too bad"}, "ToolError: .*ValueError: too bad"),
        ("lie", {}, "does not fit its type hint: expected integer, got 'no number'"),
        ("strange", {}, r"EncodeError: the result cannot become JSON: its key \(1, 2\) is no text"),
        ("crash", {}, "WorkerCrashed: worker .*"),
        ("slow", {}, "CallTimeout: "),
        ("flood", {}, "ToolError: the chunks of 'flood' have more than 4194304 bytes"),
    ],
)
async def test_errors_are_results(name: str, arguments: dict[str, Any], message: str) -> None:
    with trio.fail_after(60):
        async with client_of("http, 2025") as client:
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert re.search(message, text_of(result)), text_of(result)
            assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}


async def test_a_tool_that_hangs_or_crashes_costs_its_worker_only(client: Client, tmp_path: Path) -> None:
    before = (await client.call_tool("pid")).structured_content
    for name in ("crash", "slow"):
        result = await client.call_tool(name)
        assert result.is_error
        assert text_of(result).startswith({"crash": "WorkerCrashed", "slow": "CallTimeout"}[name])
    with pytest.raises(MCPError, match="no tool 'ad'; did you mean 'add'"):
        await client.call_tool("ad")
    assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}
    assert isinstance(before, dict)


async def test_a_cancelled_call_is_over(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call_tool, "hang", {"path": str(log)})
        await until_has(log, "begin")
        nursery.cancel_scope.cancel()
    await until_has(log, "end")
    assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}


async def test_progress(client: Client) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    result = await client.call_tool("count", {"n": 5}, progress_callback=hear)
    assert result.structured_content == {"result": 5}
    assert heard[-1] == (5.0, 5.0, "5 of 5")
    assert sorted(heard) == heard
    assert len(heard) > 1


async def test_the_progress_of_a_tool_that_ends_at_once_comes_before_its_result(client: Client) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    for calls in range(1, 6):
        await client.call_tool("count", {"n": 2, "pause": 0}, progress_callback=hear)
        assert heard.count(2.0) == calls


async def test_agents_see_the_tools_of_reloaded_workers(tmp_path: Path) -> None:
    code = "from bridge_py import BaseAdapter, tool\nclass App(BaseAdapter):\n    @tool\n    def {}(self): return 1\n"
    adapter = tmp_path / "app.py"
    adapter.write_text(code.format("old"))
    with trio.fail_after(100):
        async with (
            snakepit.open_pool(f"{adapter}:App", workers=1) as pool,
            serving(pool.mcp_app()) as address,
            Client(f"{address}/mcp") as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["old"]
            adapter.write_text(code.format("renewed"))
            await pool.reload()
            assert [tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools] == ["renewed"]
            assert text_of(await client.call_tool("renewed", {})) == "1"
