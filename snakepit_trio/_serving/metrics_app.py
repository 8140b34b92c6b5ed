"""A pool's metrics over HTTP, as an app of ASGI 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from snakepit_trio._util.log import get_logger

from .asgi import Answer, ClientLeft, Receive, Scope, Send
from .http_guard import Guard
from .http_options import HttpSettings
from .http_requests import Headers
from .problems import Problem, problem_of

logger = get_logger("snakepit.http")


class Metrics(Protocol):
    """What the app needs of a pool's metrics."""

    def answer(self, accept: str) -> tuple[bytes, str]:
        """See `PoolMetrics.answer`."""
        ...


def metrics_answer(metrics: Metrics, headers: Headers) -> Answer:
    """The response to a scrape, in the format that its Accept header asks for."""
    body, content_type = metrics.answer(headers.all("accept") or "")
    return Answer(200, body, content_type)


class MetricsApp:
    """The app. Made by `Pool.metrics_app`. Each path has the metrics; it runs on trio and on asyncio."""

    def __init__(
        self, metrics: Metrics, token: str | None, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]
    ) -> None:
        settings = HttpSettings(token=token, allowed_hosts=allowed_hosts, allowed_origins=allowed_origins)
        self._metrics = metrics
        self._guard = Guard(settings.token, settings.allowed_hosts, settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI: a request, or the server's start and end. A WebSocket is refused."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            try:
                await self._answer(scope).send(send, without_body=scope["method"] == "HEAD")
            except ClientLeft:
                logger.debug("a client of the metrics has left")

    def _answer(self, scope: Scope) -> Answer:
        headers = Headers(scope["headers"])
        try:
            self._guard.check(scope, headers)
            if scope["method"] not in ("GET", "HEAD"):
                raise Problem(405, "wrong-method", "The method does not fit", "send GET", headers=(("allow", "GET"),))
            return metrics_answer(self._metrics, headers)
        except Exception as error:
            return problem_of(error).answer()


async def _live(receive: Receive, send: Send) -> None:
    """Follow the server's start and end."""
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
