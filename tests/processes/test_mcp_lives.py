"""MCP servers from their start to their end: sessions, clients that go away, signals, and who is let in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.routing import Mount

import snakepit_trio as snakepit
from tests.helpers import agent_tools
from tests.helpers.agent_tools import Tools
from tests.helpers.certificates import Authority

from .test_mcp import ENVIRONMENT, over_stdio, pytestmark, serving, text_of, until_has

__all__ = ["pytestmark"]
HEADERS = {"accept": "application/json, text/event-stream"}


# Sessions.


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_over_stdio_has_a_session(mode: Any) -> None:
    with trio.fail_after(60):
        async with Client(over_stdio("--workers", "1"), mode=mode) as client:
            counts = [(await client.call_tool("visits")).structured_content for _ in range(3)]
    assert counts == [{"result": 1}, {"result": 2}, {"result": 3}]


async def test_each_client_over_http_has_a_session() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools) as pool, serving(pool.mcp_app()) as address:
            async with Client(address, mode="legacy") as one, Client(address, mode="legacy") as other:
                results: list[Any] = []

                async def visit(client: Client) -> None:
                    results.append((await client.call_tool("visits")).structured_content)

                async with trio.open_nursery() as nursery:
                    for client in (one, other):
                        nursery.start_soon(visit, client)
                assert results == [{"result": 1}] * 2
                await visit(one)
                assert results[-1] == {"result": 2}
                assert len(await pool.sessions.list_sessions()) == 2
            with trio.fail_after(20):
                while await pool.sessions.list_sessions():
                    await trio.sleep(0.01)
            async with Client(address) as modern:  # a protocol without sessions: each call has one
                results.clear()
                await visit(modern)
                await visit(modern)
                assert results == [{"result": 1}] * 2
                assert await pool.sessions.list_sessions() == []


# Clients that go away, over HTTP.


async def _post(client: httpx2.AsyncClient, address: str, body: dict[str, Any], **headers: str) -> Any:
    return await client.post(address, json={"jsonrpc": "2.0", **body}, headers={**HEADERS, **headers})


async def _initialized(client: httpx2.AsyncClient, address: str) -> str:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await _post(client, address, {"id": 1, "method": "initialize", "params": params})
    session_id = str(answer.headers["mcp-session-id"])
    await _post(client, address, {"method": "notifications/initialized"}, **{"mcp-session-id": session_id})
    return session_id


async def test_a_call_ends_if_its_client_goes_away(log: Path) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool, serving(pool.mcp_app()) as address:
            async with trio.open_nursery() as nursery, httpx2.AsyncClient(timeout=None) as client:
                session_id = await _initialized(client, address)
                body = {"id": 2, "method": "tools/call", "params": {"name": "hang", "arguments": {"path": str(log)}}}

                async def call() -> None:
                    await _post(client, address, body, **{"mcp-session-id": session_id})

                nursery.start_soon(call)
                await until_has(log, "begin")
                nursery.cancel_scope.cancel()  # which closes the connection, and says nothing
            await until_has(log, "end")
            assert await pool.execute("add", {"a": 1}) == 2


async def test_a_client_that_goes_away_harms_no_other(log: Path) -> None:
    with trio.fail_after(60):
        async with (
            snakepit.open_pool(Tools, workers=2) as pool,
            serving(pool.mcp_app()) as address,
            Client(address, mode="legacy") as other,
            httpx2.AsyncClient(timeout=None) as leaving,
        ):
            session = {"mcp-session-id": await _initialized(leaving, address)}
            hang = {"id": 2, "method": "tools/call", "params": {"name": "hang", "arguments": {"path": str(log)}}}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(_post, leaving, address, hang, **session))
                await until_has(log, "begin")
                nursery.cancel_scope.cancel()
            await until_has(log, "end")
            while pool.get_stats().running:
                await trio.sleep(0.01)
            assert (await other.call_tool("visits")).structured_content == {"result": 1}
            again = {"id": 3, "method": "tools/call", "params": {"name": "visits", "arguments": {}}}
            assert (await _post(leaving, address, again, **session)).status_code == 200


async def test_a_server_that_ends_stops_its_calls(log: Path) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool, trio.open_nursery() as nursery:

            async def call(address: str) -> None:
                with trio.CancelScope():
                    try:
                        async with Client(address) as client:
                            await client.call_tool("hang", {"path": str(log)})
                    except* Exception:  # the connection has ended
                        pass

            async with serving(pool.mcp_app()) as address:
                nursery.start_soon(call, address)
                await until_has(log, "begin")
            await until_has(log, "end")
            nursery.cancel_scope.cancel()


# Who is let in.


async def test_who_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool, httpx2.AsyncClient() as client:
            async with serving(pool.mcp_app()) as address:
                params = {"id": 1, "method": "ping"}
                assert (await _post(client, address, params, host="evil.example")).status_code == 421
                assert (await _post(client, address, params, origin="http://evil.example")).status_code == 403
                assert (await client.get(f"{address}/.well-known/oauth-protected-resource")).status_code == 404
            app = pool.mcp_app(allowed_hosts=["*"], allowed_origins=["https://ours.example", "http://localhost:*"])
            async with serving(app) as address:
                for origin, is_refused in (
                    ("https://ours.example", False),
                    ("http://localhost:6274", False),
                    ("http://localhost", True),
                    ("https://ours.example.evil.example", True),
                    ("https://evil.example", True),
                ):
                    answer = await _post(client, address, params, host="any.example", origin=origin)
                    assert (answer.status_code == 403) == is_refused, origin
            async with serving(pool.mcp_app(token="a token")) as address:
                for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "Basic a token"}):
                    answer = await _post(client, address, params, **headers)
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"] == "Bearer"
                allowed = httpx2.AsyncClient(headers={"authorization": "Bearer a token"})
                async with allowed, Client(streamable_http_client(address, http_client=allowed)) as agent:
                    assert (await agent.call_tool("add", {"a": 1})).structured_content == {"result": 2}


async def test_an_application_can_have_it_in_itself() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            agents = pool.mcp_app(
                functions=[agent_tools.double, agent_tools.halves], tools=["add"], name="sums", instructions="Add."
            )
            app = Starlette(routes=[Mount("/agents/mcp", agents)], lifespan=agents.lifespan)
            async with serving(app) as address, Client(f"{address}/agents/mcp/") as client:
                assert client.instructions == "Add."
                names = [tool.name for tool in (await client.list_tools()).tools]
                assert names == ["add", "double", "halves"]
                assert (await client.call_tool("double", {"number": 4})).structured_content == {"result": 8}
                assert (await client.call_tool("halves", {"number": 4})).structured_content == {"result": [2, 1]}
                wrong = await client.call_tool("double", {"number": "x"})
                assert text_of(wrong).startswith("InvalidArguments: double: the argument 'number' does not fit")


async def test_what_cannot_be_served_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        with pytest.raises(snakepit.UsageError, match="tools='add'.*give a list"):
            pool.mcp_app(tools="add")
        with pytest.raises(snakepit.UsageError, match="3 is no function"):
            pool.mcp_app(functions=[3])  # type: ignore[list-item]
        with pytest.raises(snakepit.UsageError, match="functions=.* give a list of functions"):
            pool.mcp_app(functions=agent_tools.double)  # type: ignore[arg-type]
        with pytest.raises(snakepit.UsageError, match="timeout=-1"):
            pool.mcp_app(timeout=-1)
        with pytest.raises(snakepit.UsageError, match="token="):
            pool.mcp_app(token="")
        with pytest.raises(snakepit.UsageError, match="there is no tool 'ad' to serve; there are: add, count"):
            async with pool.mcp_app(tools=["ad"]).lifespan():
                pass
        with pytest.raises(snakepit.UsageError, match="does not run yet"):
            await pool.mcp_app()({"type": "http", "path": "/", "headers": []}, _never, _never)
        monkeypatch.setitem(sys.modules, "mcp.server", None)
        with pytest.raises(snakepit.UsageError, match=r"pip install 'snakepit-trio\[mcp\]'"):
            pool.mcp_app()


async def _never(*_: Any) -> Any:
    raise AssertionError


# The command.


@contextmanager
def command(*args: str) -> Iterator[subprocess.Popen[str]]:
    """The command, with pipes; it is killed when the block ends."""
    line = [sys.executable, "-m", "snakepit_trio", "mcp", "tests.helpers.agent_tools:Tools", *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen[str], **message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def answer(process: subprocess.Popen[str]) -> Any:
    """The next answer; each line of stdout is a message."""
    assert process.stdout is not None
    while "id" not in (message := json.loads(process.stdout.readline())):
        pass
    return message


def handshake(process: subprocess.Popen[str]) -> None:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    send(process, id=1, method="initialize", params=params)
    assert answer(process)["result"]["serverInfo"]["name"] == "snakepit"
    send(process, method="notifications/initialized")


def call(process: subprocess.Popen[str], name: str, **arguments: Any) -> None:
    send(process, id=2, method="tools/call", params={"name": name, "arguments": arguments})


def wait_for(path: Path, word: str) -> None:
    for _ in range(3000):
        if path.exists() and word in path.read_text().split():
            return
        trio.run(trio.sleep, 0.01)
    raise AssertionError(f"{word} never came")


def test_what_is_printed_never_reaches_the_client() -> None:
    with command("--workers", "1") as process:
        handshake(process)
        call(process, "shout")
        assert answer(process)["result"]["structuredContent"] == {"result": "shouted"}
        send(process, id="x" * 300_000, method="ping")
        assert len(answer(process)["id"]) == 300_000
        rest, errors = process.communicate(timeout=240)
        assert (rest, process.returncode) == ("", 0)
        assert "printed by a worker" in errors or errors == ""


@pytest.mark.parametrize("how", ["closes stdin", "closes both"])
def test_a_client_that_goes_away_ends_the_server(log: Path, how: str) -> None:
    with command("--workers", "1") as process:
        handshake(process)
        call(process, "hang", path=str(log))
        wait_for(log, "begin")
        assert process.stdin is not None
        assert process.stdout is not None
        if how == "closes both":
            process.stdout.close()
        process.stdin.close()
        assert process.wait(timeout=240) == 0
        assert log.read_text().split() == ["begin", "end"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_signals(log: Path, number: signal.Signals, code: int, transport: str) -> None:
    with command(*(["--http", "127.0.0.1:0"] if transport == "http" else []), "--workers", "1") as process:
        if transport == "stdio":
            handshake(process)
            call(process, "hang", path=str(log))
            wait_for(log, "begin")
        else:
            assert process.stderr is not None
            assert re.match(r"serving MCP at http://127\.0\.0\.1:\d+/mcp\n", process.stderr.readline())
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        assert transport == "http" or log.read_text().split() == ["begin", "end"]


@asynccontextmanager
async def http_command(*args: str) -> AsyncIterator[str]:
    with command("--http", "127.0.0.1:0", *args) as process:
        assert process.stderr is not None
        line = await trio.to_thread.run_sync(process.stderr.readline)
        yield line.split()[-1]
        process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(process.communicate)


async def test_the_command_over_http(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with trio.fail_after(60):
        async with http_command("--token-file", str(tmp_path / "token"), "--workers", "1", "--timeout", "1") as address:
            allowed = httpx2.AsyncClient(headers={"authorization": "Bearer secret"})
            async with allowed, Client(streamable_http_client(address, http_client=allowed)) as client:
                assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}
                late = await client.call_tool("hang", {"path": str(tmp_path / "log")})
                assert text_of(late).startswith("CallTimeout")


async def test_the_command_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    authority.server("server", ["127.0.0.1"])
    files = ["--certfile", str(tmp_path / "server.pem"), "--keyfile", str(tmp_path / "server.key")]
    with trio.fail_after(60):
        async with http_command(*files, "--workers", "1") as address:
            assert address.startswith("https://127.0.0.1:")
            trusting = httpx2.AsyncClient(verify=authority.client())
            async with trusting, Client(streamable_http_client(address, http_client=trusting)) as client:
                assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--http", "0.0.0.0:0"], "other machines reach 0.0.0.0:0: give --token-file, or serve on 127.0.0.1"),
        (["--http", "8000"], "--http 8000: write it as 127.0.0.1:8000"),
        (["--http", "unix:/run/tools"], "--http unix:/run/tools: write it as 127.0.0.1:8000"),
        (["--token-file", "/no/such"], "does not exist"),
        (["--token-file", __file__], "--token-file, --certfile and --keyfile are for --http"),
        (["--http", "127.0.0.1:0", "--certfile", __file__], "TLS needs both --certfile and --keyfile"),
    ],
)
def test_the_command_refuses(args: list[str], message: str) -> None:
    with command(*args) as process:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 2
        assert message in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "name"), [(0, "stdin"), (1, "stdout")])
def test_a_client_without_pipes_is_told_so(number: int, name: str) -> None:
    line = f"exec {sys.executable} -m snakepit_trio mcp {number}>&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], env=ENVIRONMENT, input="", capture_output=True, text=True, timeout=60, check=False
    )
    message = f"Error: {name} is closed: start the command with pipes, or give --http\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_an_adapter_is_named_from_where_the_user_is(tmp_path: Path) -> None:
    (tmp_path / "own_tools.py").write_text("raise ValueError('no database')")
    # -P: the command is a script in another folder, so Python does not look here by itself.
    line = [sys.executable, "-P", "-m", "snakepit_trio", "mcp", "own_tools:Tools", "--workers", "1"]
    done = subprocess.run(
        line, cwd=tmp_path, env=ENVIRONMENT, input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert done.stderr.rstrip().splitlines()[-1].endswith("could not start: ValueError: no database")
    assert "last lines of its stderr" not in done.stderr  # they stand above already


def test_the_showcase_is_the_first_server() -> None:
    line = [sys.executable, "-m", "snakepit_trio", "mcp"]
    first = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": first},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    ]
    process = subprocess.Popen(
        line, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process:
        for message in messages:
            send(process, **message)
        answer(process)
        assert "add" in [tool["name"] for tool in answer(process)["result"]["tools"]]
        process.communicate(timeout=240)
        assert process.returncode == 0
