"""The HTTP app under a real hypercorn on trio: clients that leave, that are slow, and that speak HTTP/2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.http_server import H2Client, events_of, hypercorn_for, read_until, request
from tests.helpers.tools import Tools

EVENTS = "Accept: text/event-stream"


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(120):
        async with snakepit.open_pool(Tools, workers=2) as opened:
            yield opened  # noqa: ASYNC119


async def until(condition: Any) -> None:
    """Wait for something that nothing tells of."""
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.005)


async def nothing_runs(pool: snakepit.Pool) -> None:
    await until(lambda: (pool.get_stats().running, pool.get_stats().queued) == (0, 0))


@pytest.mark.parametrize("headers", [(), (EVENTS,)], ids=["JSON", "events"])
@pytest.mark.parametrize("tool", ["sleep", "sleep_async"])
async def test_a_client_that_leaves_stops_its_tool(
    pool: snakepit.Pool, log: Path, tool: str, headers: tuple[str, ...]
) -> None:
    async with hypercorn_for(pool.asgi_app()) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request(f"/tools/{tool}", {"seconds": 600, "path": str(log)}, *headers))
        await until(log.exists)
        await stream.aclose()
        await nothing_runs(pool)
        assert "end" in log.read_text() or pool.get_stats().restarts  # a sleep in C ends with its worker
        assert pool.get_stats().cancelled == 1


async def test_a_client_that_leaves_while_its_call_is_queued_takes_it_out(pool: snakepit.Pool, log: Path) -> None:
    async with hypercorn_for(pool.asgi_app()) as port, trio.open_nursery() as nursery:
        async with httpx_client(port) as client:
            await client.get("/tools")
        for _ in range(2):
            nursery.start_soon(pool.execute, "sleep_async", {"seconds": 600})
        await until(lambda: pool.get_stats().running == 2)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request("/tools/sleep", {"seconds": 600, "path": str(log)}))
        await until(lambda: pool.get_stats().queued == 1)
        await stream.aclose()
        await until(lambda: pool.get_stats().queued == 0)
        nursery.cancel_scope.cancel()
    assert not log.exists()


def httpx_client(port: int, **settings: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, **settings)


async def test_a_client_that_leaves_in_the_middle_of_its_body_has_no_call(pool: snakepit.Pool) -> None:
    async with hypercorn_for(pool.asgi_app()) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request("/tools/add", {"a": 1}, length=1000))
        await stream.aclose()
        async with httpx_client(port) as client:
            assert (await client.post("/tools/add", json={"a": 1})).json() == 2
        await nothing_runs(pool)
        assert pool.get_stats().succeeded <= 2  # the schemas, and the second client's call


async def test_of_fifty_clients_a_third_leaves_and_nothing_of_theirs_runs_on(tmp_path: Path) -> None:
    results: list[int] = []

    async def stays(port: int, number: int) -> None:
        async with httpx_client(port) as client:
            answer = await client.post("/tools/add_async", json={"a": number, "b": 0})
            results.append(answer.json())

    async def leaves(port: int, number: int) -> None:
        tool, further = [("sleep", ()), ("sleep_async", (EVENTS,)), ("count_async", ())][number // 3 % 3]
        path = str(tmp_path / str(number))
        arguments = {"n": 10**9, "path": path} if tool == "count_async" else {"seconds": 600, "path": path}
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request(f"/tools/{tool}", arguments, *further))
            with trio.move_on_after(number / 50):  # some leave while they wait, others while they run
                await read_until(stream, b"no such thing")

    with trio.fail_after(200):
        async with (
            snakepit.open_pool(Tools, workers=4, cancel_grace=0.2) as pool,
            hypercorn_for(pool.asgi_app()) as port,
        ):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(leaves if number % 3 == 0 else stays, port, number)
            assert sorted(results) == [number for number in range(50) if number % 3]
            await nothing_runs(pool)
            sizes = {path: path.stat().st_size for path in tmp_path.iterdir()}
            assert await pool.execute("add", {"a": 1}) == 2
            assert {path: path.stat().st_size for path in tmp_path.iterdir()} == sizes


async def test_a_slow_reader_slows_its_tool_and_may_leave(pool: snakepit.Pool, log: Path) -> None:
    arguments = {"n": 10**9, "size": 100_000, "path": str(log)}
    async with hypercorn_for(pool.asgi_app()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request("/tools/blobs_async", arguments))
        await read_until(stream, b"event: chunk")
        await trio.sleep(1)  # an unhindered tool makes thousands in this time
        assert not log.exists()
        # The connection is full, and the server waits in `send`. The tool ends even so.
        await stream.aclose()
        await nothing_runs(pool)
    assert int(log.read_text().rpartition(" ")[2]) < 500


async def test_a_client_that_reads_nothing_keeps_no_tool_beyond_its_time(pool: snakepit.Pool, log: Path) -> None:
    arguments = {"n": 10**9, "size": 100_000, "path": str(log)}
    async with hypercorn_for(pool.asgi_app()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request("/tools/blobs_async", arguments, "Request-Timeout: 1.5"))
        await until(lambda: pool.get_stats().running == 1)
        await nothing_runs(pool)
        assert "stopped" in log.read_text()


async def test_idle_streams_send_comments(pool: snakepit.Pool) -> None:
    async with hypercorn_for(pool.asgi_app(keep_alive=0.05)) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request("/tools/sleep_async", {"seconds": 600}, EVENTS))
        await read_until(stream, b": keep-alive\n\n\r\n")
        await stream.aclose()
        await nothing_runs(pool)


@pytest.mark.parametrize("is_http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_one_connection_serves_call_after_call(pool: snakepit.Pool, is_http2: bool) -> None:
    async with (
        hypercorn_for(pool.asgi_app(max_body_bytes=100_000)) as port,
        httpx_client(port, http1=not is_http2, http2=is_http2) as client,
    ):
        for number in range(5):
            answer = await client.post("/tools/add", json={"a": number})
            assert (answer.json(), answer.http_version) == (number + 1, "HTTP/2" if is_http2 else "HTTP/1.1")
            assert events_of((await client.post("/tools/count", json={"n": 2})).text)[-1] == ("end", {"chunks": 2})
            assert (await client.post("/tools/fail", json={"text": "no"})).status_code == 500
            too_large = b'"' + b"x" * 3_000_000 + b'"'
            refused = await client.post("/tools/add", content=too_large, headers={"content-type": "application/json"})
            assert refused.status_code == 413


async def test_a_client_of_http2_that_resets_its_stream_stops_its_tool_alone(pool: snakepit.Pool, log: Path) -> None:
    async with hypercorn_for(pool.asgi_app()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = H2Client(stream)
        first = await client.post("/tools/sleep_async", {"seconds": 600, "path": str(log)})
        second = await client.post("/tools/sleep_async", {"seconds": 0.5})
        await until(log.exists)
        await client.reset(first)
        assert await client.body_of(second) == b'"slept"'
        await nothing_runs(pool)
        assert pool.get_stats().cancelled == 1


async def test_a_path_of_http2_that_is_no_text_ends_its_connection_alone(pool: snakepit.Pool) -> None:
    async with hypercorn_for(pool.asgi_app()) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = H2Client(stream)
            number = await client.post("/tools/pid", {}, path=b"/tools/\xff", end=False)
            assert number == 1
            await until_closed(stream)
        async with httpx_client(port) as other:
            assert (await other.post("/tools/add", json={"a": 1})).json() == 2


async def until_closed(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def test_names_of_foreign_sites_do_not_reach_a_server_on_loopback(pool: snakepit.Pool) -> None:
    async with hypercorn_for(pool.asgi_app()) as port, httpx_client(port) as client:
        for host, status in [("localhost", 200), (f"[::1]:{port}", 200), ("evil.example", 421), ("", 421)]:
            assert (await client.get("/tools", headers={"host": host})).status_code == status, host
        assert (await client.get("/livez", headers={"host": "evil.example"})).status_code == 200


async def test_calls_are_stopped_when_the_app_closes(pool: snakepit.Pool) -> None:
    app = pool.asgi_app()
    answers = []
    async with hypercorn_for(app) as port, httpx_client(port) as client:

        async def call() -> None:
            answers.append(await client.post("/tools/sleep_async", json={"seconds": 600}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await until(lambda: pool.get_stats().running == 1)
            app.close()
            for path in ("/readyz", "/tools/add"):
                refused = await client.request("GET" if path == "/readyz" else "POST", path, json={"a": 1})
                assert (refused.status_code, refused.json()["type"][-7:]) == (503, "closing")
            app.stop_calls()
        assert answers[0].status_code == 503
        await nothing_runs(pool)
