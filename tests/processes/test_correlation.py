"""Correlation ids and trace contexts: from the caller to the tool, to host tools, and back in errors."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import bridge_py
import snakepit_trio as snakepit
from snakepit_trio.telemetry import correlated, correlation_id, trace_headers
from snakepit_trio.testing import InMemory
from tests.helpers.http_server import hypercorn_for
from tests.helpers.traced_tools import Tools, fail, seen_by_a_function

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"traceparent": PARENT, "tracestate": "a=1,b=2", "baggage": "user=ada,region=eu"}
NOTHING: list[Any] = [None, {}]
OWN = Path(bridge_py.__file__).with_name("__main__.py")


@pytest.fixture(params=["serial", "concurrent", "memory"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[snakepit.Pool]:
    kinds: dict[str, dict[str, Any]] = {
        "serial": {},
        "concurrent": {"concurrency": 3},
        "memory": {"launcher": InMemory()},
    }
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, **kinds[request.param]) as opened:
            yield opened  # noqa: ASYNC119


@pytest.mark.parametrize("name", ["plain", "with_context", "coroutine", "in_a_thread"])
async def test_a_tool_has_the_trace_of_its_call_and_of_no_other(pool: snakepit.Pool, name: str) -> None:
    with correlated("order-17", headers=HEADERS):
        first = await pool.execute(name)
    with correlated("order-18"):
        second = await pool.execute(name)
    third = await pool.execute(name)
    assert first[:2] == ["order-17", HEADERS]
    assert second[:2] == ["order-18", {}]
    assert third[:2] == NOTHING
    if len(first) == 3:
        assert [first[2], second[2], third[2]] == ["order-17", "order-18", None]


@pytest.mark.parametrize("name", ["items", "async_items"])
async def test_a_stream_has_it_in_each_chunk(pool: snakepit.Pool, name: str) -> None:
    with correlated("order-17", headers=HEADERS):
        async with pool.stream(name) as chunks:
            assert [chunk async for chunk in chunks] == [["order-17", HEADERS]] * 2
    async with pool.stream(name) as chunks:
        assert [chunk async for chunk in chunks] == [NOTHING] * 2


async def test_functions_and_maps_have_it(pool: snakepit.Pool) -> None:
    with correlated("order-17"):
        assert await pool.run(seen_by_a_function) == ["order-17", {}, "order-17"]
        async with pool.map("plain", [{}, {}]) as results:
            assert [found async for found in results] == [["order-17", {}]] * 2


async def test_calls_side_by_side_keep_theirs(pool: snakepit.Pool) -> None:
    async def call(number: int) -> None:
        with correlated(f"call-{number}"):
            assert (await pool.execute("coroutine"))[0] == f"call-{number}"

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, number)


async def test_host_tools_and_their_calls_have_it(pool: snakepit.Pool) -> None:
    @pool.expose
    async def waits() -> Any:
        return [correlation_id(), trace_headers(), await pool.execute("plain")]

    @pool.expose
    def blocks() -> Any:
        return [correlation_id(), trace_headers()]

    await pool.resize(2)  # one for the nested call
    with correlated("order-17", headers=HEADERS):
        assert await pool.execute("asks", {"name": "waits"}) == ["order-17", HEADERS, ["order-17", HEADERS]]
        assert await pool.execute("asks", {"name": "blocks"}) == ["order-17", HEADERS]
    assert await pool.execute("asks", {"name": "waits"}) == [None, {}, NOTHING]


async def test_host_tools_do_not_have_that_of_whoever_opened_the_pool() -> None:
    with trio.fail_after(60), correlated("opening"):
        async with snakepit.open_pool(Tools, workers=1) as pool:

            @pool.expose
            async def who() -> Any:
                return correlation_id()

            with correlated("call"):
                assert await pool.execute("asks", {"name": "who"}) == "call"
            async with trio.open_nursery() as nursery:
                contextvars.Context().run(nursery.start_soon, _expect_nothing, pool)


async def _expect_nothing(pool: snakepit.Pool) -> None:
    assert await pool.execute("asks", {"name": "who"}) is None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda pool: pool.execute("fails"), snakepit.ToolError),
        (lambda pool: pool.execute("missing"), snakepit.UnknownTool),
        (lambda pool: pool.execute("sleeps", timeout=0.3), snakepit.CallTimeout),
        (lambda pool: pool.execute_stream("items", {}, lambda _: fail()), ValueError),
    ],
    ids=["raises", "unknown", "late", "of the caller"],
)
async def test_an_error_names_it(
    pool: snakepit.Pool, call: Callable[[snakepit.Pool], Any], error: type[Exception]
) -> None:
    if "InMemory" in repr(pool.config.launcher) and error is snakepit.CallTimeout:
        pytest.skip("nothing stops a tool in memory that blocks")
    with pytest.raises(error) as caught, correlated("order-17"):
        await call(pool)
    expected = [] if error is ValueError else ["correlation id: order-17"]
    assert [note for note in getattr(caught.value, "__notes__", []) if "correlation" in note] == expected
    with pytest.raises(error) as caught:
        await call(pool)
    assert "correlation" not in str(getattr(caught.value, "__notes__", []))


async def test_a_crash_names_it_and_a_run_after_it_has_it_too() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            with pytest.raises(snakepit.WorkerCrashed) as caught, correlated("order-17"):
                await pool.execute("dies", retries=1)
    assert "correlation id: order-17" in caught.value.__notes__


async def test_clients_of_http_name_it() -> None:
    with trio.fail_after(60):
        async with (
            snakepit.open_pool(Tools, workers=1) as pool,
            hypercorn_for(pool.asgi_app()) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):

            async def call(headers: Any) -> Any:
                return (await client.post("/tools/plain", json={}, headers=headers)).json()

            assert await call({**HEADERS, "x-request-id": "order-17"}) == ["order-17", HEADERS]
            assert await call({}) == NOTHING
            assert await call({"traceparent": PARENT.upper(), "x-request-id": "a b"}) == NOTHING
            assert await call({"baggage": "a=1"}) == [None, {"baggage": "a=1"}]
            twice = [("traceparent", PARENT), ("traceparent", PARENT), ("baggage", "a=1"), ("baggage", "b=2")]
            assert await call(twice) == [None, {"baggage": "a=1,b=2"}]


async def test_the_contract_carries_it_in_its_metadata() -> None:
    adapter = snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.traced_tools:Tools", contract="0.13")
    metadata = {"correlation_id": "order-17", **HEADERS, "timeout_ms": "20000"}
    with trio.fail_after(60):
        async with snakepit.open_pool(adapter, workers=1, bridge_server=True) as pool:
            with correlated("order-17", headers=HEADERS):
                assert await pool.execute("plain") == ["order-17", HEADERS]
            assert await pool.execute("plain") == NOTHING
            async with snakepit.open_client(pool.bridge_address) as client:
                assert await client.execute_tool("plain", {}, metadata=metadata) == ["order-17", HEADERS]
                assert await client.execute_tool("plain", {}, metadata={"correlation_id": "\n"}) == NOTHING
                stream = client.execute_streaming_tool("items", {}, metadata=metadata)
                assert [chunk async for chunk in stream] == [["order-17", HEADERS]] * 2


async def test_the_contract_tells_it_with_the_events_of_calls() -> None:
    with trio.fail_after(60), correlated("opening"):
        async with (
            snakepit.open_pool(Tools, workers=1, bridge_server=True) as pool,
            snakepit.open_client(pool.bridge_address) as client,
        ):
            pool.expose(lambda: 1, name="one")
            events = client.stream_telemetry()
            found: list[tuple[str, str]] = []

            def note(event: Any) -> None:
                found.append((".".join(event.event_parts), event.correlation_id))

            async def follow() -> None:
                async for event in events:
                    note(event)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                while not pool.events.is_heard:
                    await trio.sleep(0.01)
                with correlated("order-17"):
                    await pool.execute("asks", {"name": "one"})
                while len(found) < 4:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await events.aclose()
    assert found == [(name, "order-17") for name in ("call.start", "tool.start", "tool.stop", "call.stop")]


def test_outside_of_calls_there_is_none() -> None:
    assert bridge_py.correlation_id() is None
    assert bridge_py.trace_headers() == {}
