"""The HTTP app below the paths of other frameworks, on trio; and servers that do not run on trio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import fastapi
import httpx
import pytest
import quart_trio
import starlette.applications
import starlette.routing
import trio
from hypercorn.middleware.dispatcher import TrioDispatcherMiddleware
from openapi_spec_validator import validate

import snakepit_trio as snakepit
from tests.helpers.http_server import events_of, hypercorn_for
from tests.helpers.tools import Tools


def in_starlette(app: Any) -> Any:
    return starlette.applications.Starlette(routes=[starlette.routing.Mount("/api/v1", app)])


def in_fastapi(app: Any) -> Any:
    outer = fastapi.FastAPI()
    outer.mount("/api/v1", app)
    return outer


def in_quart(app: Any) -> Any:
    outer = quart_trio.QuartTrio("outer")
    return TrioDispatcherMiddleware({"/api/v1": app, "": outer})


def in_a_router_that_cuts_paths(app: Any) -> Any:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/api/v1", "path": scope["path"].removeprefix("/api/v1")}
        await app(scope, receive, send)

    return outer


MOUNTS = [in_starlette, in_fastapi, in_quart, in_a_router_that_cuts_paths]


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as opened:
            yield opened  # noqa: ASYNC119


@pytest.mark.parametrize("mount", MOUNTS, ids=lambda each: each.__name__)
async def test_below_a_path(pool: snakepit.Pool, mount: Callable[[Any], Any]) -> None:
    async with (
        hypercorn_for(mount(pool.asgi_app())) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60) as client,
    ):
        assert (await client.post("/tools/add", json={"a": 1})).json() == 2
        assert events_of((await client.post("/tools/count", json={"n": 1})).text)[0] == ("chunk", 0)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/nothing")).json()["type"].endswith(":not-found")
        document = (await client.get("/openapi.json")).json()
        validate(document)
        assert document["servers"] == [{"url": "/api/v1"}]


async def test_starts_and_ends_with_its_server(pool: snakepit.Pool) -> None:
    sent: list[Any] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await pool.asgi_app()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_sockets_of_the_web_are_refused(pool: snakepit.Pool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await pool.asgi_app()({"type": "websocket"}, trio.sleep_forever, send)
    assert sent == ["websocket.close"]


def run_in_asyncio(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it on asyncio's own loop, whatever loop other tests have set as usual."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


async def test_a_server_on_asyncio_is_told_that_the_app_needs_trio(
    pool: snakepit.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    app = pool.asgi_app()
    sent: list[Any] = []

    async def ask() -> httpx.Response:
        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"type": "lifespan"}, receive, send)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/tools/add", json={"a": 1})

    with caplog.at_level(logging.ERROR, "snakepit.http"):
        answer = await trio.to_thread.run_sync(run_in_asyncio, ask())
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:snakepit-trio:problem:no-trio")
    assert "--worker-class trio" in caplog.text
    assert sent[0]["type"] == "lifespan.startup.failed"
