"""The tools of a pool over HTTP, as an app of ASGI 3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol, Unpack

import attrs
import msgspec
import trio

from bridge_py.tools.adapter import unknown_tool
from snakepit_trio._calls.call import DEFAULT
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery

from .asgi import Answer, ClientLeft, Receive, Scope, Send, until_left
from .http_calls import CallingPool, HttpCall, closing_problem
from .http_guard import Guard
from .http_json import read_arguments
from .http_options import HttpOptions, HttpSettings
from .http_requests import Headers, check_content_type, options_of, path_of, read_body, trace_of, wants_events
from .metrics_app import Metrics, metrics_answer
from .openapi import openapi_of
from .problems import Problem, problem_of
from .schemas import ServedPool, ToolSchema
from .tool_list import ToolList

_TOOLS: Final = "/tools"
_LONGEST_NAME: Final = 200  # characters that a message shows, and that are compared with the names of tools
_NO_TRIO: Final = (
    "this app runs on trio, and its server runs it on asyncio: serve it by hypercorn with --worker-class trio"
)
logger = get_logger("snakepit.http")


class Health(Protocol):
    """What the app needs of a pool's health."""

    @property
    def status(self) -> Literal["healthy", "degraded", "unavailable"]: ...
    @property
    def expected(self) -> int: ...
    @property
    def working(self) -> int: ...


class HttpPool(ServedPool, CallingPool, Protocol):
    """What the app needs of a pool."""

    @property
    def metrics(self) -> Metrics: ...

    def get_health(self) -> Health:
        """See `Pool.get_health`."""
        ...


@attrs.frozen
class _Request:
    scope: Scope
    headers: Headers
    method: str
    path: str
    receive: Receive
    send: Send


class HttpApp:
    """The app. Made by `Pool.asgi_app`, which says what it does.

    It needs trio: under asyncio, each request is answered by 500, and a server that tells its apps of its start gets an
    error then. It can be mounted below any path.
    """

    def __init__(self, pool: HttpPool, **options: Unpack[HttpOptions]) -> None:
        self._pool = pool
        self._tools = ToolList(pool)
        self._settings = settings = HttpSettings(**options)
        self._guard = Guard(settings.token, settings.allowed_hosts, settings.allowed_origins)
        self._metrics = pool.metrics if settings.metrics else None
        self._calls: set[HttpCall] = set()
        self._is_closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI: a request, or the server's start and end. A WebSocket is refused."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif not trio.lowlevel.in_trio_task():
            logger.error("%s", _NO_TRIO)
            await Problem(500, "no-trio", "The server does not run on trio", _NO_TRIO).answer().send(send)
        else:
            await self._serve(scope, receive, send)

    def close(self) -> None:
        """Take no more calls, and say so in /readyz. Calls under way go on."""
        self._is_closing = True

    def stop_calls(self) -> None:
        """End all calls under way. Their clients are told that the server closes."""
        for call in list(self._calls):
            call.stop()

    # One request.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, method = Headers(scope["headers"]), str(scope["method"]).upper()
        request = _Request(scope, headers, method, path_of(scope), receive, send)
        try:
            answer = await self._answer(request)
            if answer is not None:
                await _send_whole(answer, request)
        except ClientLeft:
            logger.debug("the client of %s %s has left", method, request.path)

    async def _answer(self, request: _Request) -> Answer | None:
        """Answer a request; returns the answer if it has not been sent yet."""
        try:
            return await self._routed(request)
        except ClientLeft:
            raise
        except Exception as error:
            return problem_of(error).answer()

    async def _routed(self, request: _Request) -> Answer | None:
        path = request.path
        if path in ("/livez", "/readyz"):
            _check_method(request, "GET", "HEAD")
            return Answer(200, b'{"status":"alive"}') if path == "/livez" else self._ready()
        self._guard.check(request.scope, request.headers)
        if path in (_TOOLS, "/openapi.json"):
            _check_method(request, "GET", "HEAD")
            return await (self._list() if path == _TOOLS else self._openapi(request))
        if path == "/metrics" and self._metrics is not None:
            _check_method(request, "GET", "HEAD")
            return metrics_answer(self._metrics, request.headers)
        name = path.removeprefix(f"{_TOOLS}/")
        if not name or name == path:
            raise Problem(404, "not-found", "There is nothing here", f"{path[:200]!r}; there is {_TOOLS}/NAME")
        return await self._tool(request, name)

    # Looking at it.

    def _ready(self) -> Answer:
        health = self._pool.get_health()
        if self._is_closing:
            raise closing_problem("the server is closing, and takes no more calls")
        if health.status == "unavailable":
            detail = f"{health.working} of {health.expected} workers can work"
            raise Problem(503, "not-ready", "The server is not ready", detail, headers=(("retry-after", "1"),))
        return _json({"status": "ready", "workers": health.working, "expected": health.expected})

    async def _list(self) -> Answer:
        return _json({"tools": [_described(each) for each in (await self._tools.schemas()).values()]})

    async def _openapi(self, request: _Request) -> Answer:
        root = str(request.scope.get("root_path") or "").rstrip("/")
        schemas = await self._tools.schemas()
        return _json(openapi_of(schemas.values(), root, needs_token=self._settings.token is not None))

    # Calls.

    async def _tool(self, request: _Request, name: str) -> Answer | None:
        schemas = await self._tools.schemas()
        schema = schemas.get(name)
        if schema is None:
            raise unknown_tool(name[:_LONGEST_NAME], schemas)
        _check_method(request, "POST", "GET", "HEAD")
        if request.method != "POST":
            return _json(_described(schema))
        if self._is_closing:
            raise closing_problem("the server is closing, and takes no more calls")
        await self._call(request, schema)
        return None

    async def _call(self, request: _Request, schema: ToolSchema) -> None:
        settings, headers = self._settings, request.headers
        check_content_type(headers)
        options = options_of(headers, settings.max_timeout, settings.max_priority, sessions=settings.sessions)
        events = wants_events(headers, streaming=schema.streaming)
        body = await read_body(request.receive, headers, settings.max_body_bytes)
        arguments = await read_arguments(schema, body)
        call = HttpCall(self._pool, schema.name, arguments, options, self._seconds(schema, arguments, options.timeout))
        with self._under_way(call), trace_of(headers):
            if events:
                await call.answer_with_events(
                    request.receive, request.send, settings.keep_alive, streaming=schema.streaming
                )
            else:
                await call.answer(request.receive, request.send)

    def _seconds(self, schema: ToolSchema, arguments: dict[str, Any], wanted: float | None) -> float:
        if wanted is None:
            credit = self._pool.config.stream_window if schema.streaming else None
            wanted = self._pool._runner.budget(schema.name, arguments, DEFAULT, credit)
        return self._settings.max_timeout if wanted is None else min(wanted, self._settings.max_timeout)

    @contextmanager
    def _under_way(self, call: HttpCall) -> Iterator[None]:
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


def _json(value: object) -> Answer:
    return Answer(200, msgspec.json.encode(value))


def _described(schema: ToolSchema) -> dict[str, Any]:
    return {
        "name": schema.name,
        "description": schema.description,
        "streaming": schema.streaming,
        "input": schema.input,
        "output": schema.output,
    }


def _check_method(request: _Request, *allowed: str) -> None:
    if request.method not in allowed:
        detail = f"{request.method[:50]} is not for {request.path[:200]}: send {' or '.join(allowed)}"
        raise Problem(405, "wrong-method", "The method does not fit", detail, headers=(("allow", ", ".join(allowed)),))


async def _send_whole(answer: Answer, request: _Request) -> None:
    # Servers hand on what the client still sends, and wait until we have taken it.
    async with background_nursery() as nursery:
        nursery.start_soon(until_left, request.receive)
        await answer.send(request.send, without_body=request.method == "HEAD")


async def _live(receive: Receive, send: Send) -> None:
    """Follow the server's start and end."""
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.startup" and not trio.lowlevel.in_trio_task():
            await send({"type": "lifespan.startup.failed", "message": _NO_TRIO})
            return
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
