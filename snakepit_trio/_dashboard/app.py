"""The dashboard as an app of ASGI 3: the page, its events, and the cancel button."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Final

import trio

from snakepit_trio._serving.asgi import (
    JSON,
    Answer,
    ClientLeft,
    Header,
    Receive,
    Scope,
    Send,
    send_part,
    start,
    until_left,
)
from snakepit_trio._serving.events import EVENT_HEADERS, Event
from snakepit_trio._serving.http_guard import Guard
from snakepit_trio._serving.http_options import HttpSettings
from snakepit_trio._serving.http_requests import Headers, check_content_type, path_of, read_body
from snakepit_trio._serving.problems import Problem, problem_of
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery

from .monitor import EVERY, Monitor, Seen, WatchedPool

logger = get_logger("snakepit.dashboard")

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_CANCEL: Final = re.compile(r"/calls/([0-9]{1,15})/cancel")
_MOST_BROWSERS: Final = 64
_STUCK: Final = 20.0  # seconds after which a browser that takes nothing is given up
_LONGEST_BODY: Final = 1000
#: Nothing of another site gets into the page, and the page gets into no other site.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGE_HEADERS: Final[tuple[Header, ...]] = (
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


class DashboardApp:
    """The app. Made by `Pool.dashboard_app`, which says what it does. It can be mounted below any path."""

    def __init__(
        self,
        pool: WatchedPool,
        monitor: Monitor,
        token: str | None,
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str],
    ) -> None:
        token = secrets.token_urlsafe(24) if token is None else token
        settings = HttpSettings(token=token, allowed_hosts=allowed_hosts, allowed_origins=allowed_origins)
        #: What the page asks for, or takes from the end of its address: `#token=...`.
        self.token = token
        self._pool = pool
        self._monitor = monitor
        self._guard = Guard(token, settings.allowed_hosts, settings.allowed_origins)
        self._is_closing = False
        self._browsers = 0

    def __repr__(self) -> str:
        return f"<DashboardApp with {self._browsers} browsers>"

    def close(self) -> None:
        """End all streams of events, and begin no further ones."""
        self._is_closing = True
        self._monitor.changes.notify()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. By ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the dashboard does not speak {scope['type']}")
        headers, method = Headers(scope["headers"]), str(scope["method"]).upper()
        try:
            answer = await self._answer(scope, headers, method, receive, send)
            if answer is not None:
                await answer.send(send, without_body=method == "HEAD")
        except ClientLeft:
            logger.debug("a browser has left")

    async def _answer(self, scope: Scope, headers: Headers, method: str, receive: Receive, send: Send) -> Answer | None:
        """Answer a request; returns the answer if it has not been sent yet."""
        try:
            path = path_of(scope)
            if path in _FILES:
                return self._file(path, scope, headers, method)
            self._guard.check(scope, headers)
            if path == "/events":
                _check_method(method, "GET")
                await self._stream(receive, send)
                return None
            if (found := _CANCEL.fullmatch(path)) is not None:
                _check_method(method, "POST")
                return await self._cancel(int(found[1]), headers, receive)
            raise Problem(404, "not-found", "There is nothing here", f"{path[:200]!r}")
        except ClientLeft:
            raise
        except Exception as error:
            return problem_of(error).answer()

    def _file(self, path: str, scope: Scope, headers: Headers, method: str) -> Answer:
        # The files have no secrets, and a browser that opens an address sends no token.
        self._guard.check_site(scope, headers)
        _check_method(method, "GET", "HEAD")
        # Without the slash, the page would look for its files beside the place where it is mounted.
        if path == "/" and not str(scope["path"]).endswith("/"):
            place = str(scope.get("root_path") or "").rstrip("/").rpartition("/")[2] or "."
            return Answer(307, b"", "text/plain", (("location", f"{place}/"),))
        name, kind = _FILES[path]
        body = resources.files("snakepit_trio._dashboard").joinpath("page", name).read_bytes()
        return Answer(200, body, kind, _PAGE_HEADERS)

    async def _cancel(self, call_id: int, headers: Headers, receive: Receive) -> Answer:
        check_content_type(headers)
        await read_body(receive, headers, _LONGEST_BODY)
        is_cancelled = self._pool.cancel_call(call_id, "on the dashboard")
        return Answer(200, b'{"cancelled":true}' if is_cancelled else b'{"cancelled":false}', JSON)

    async def _stream(self, receive: Receive, send: Send) -> None:
        if self._is_over:
            raise Problem(503, "closing", "The pool is closed", "its dashboard has ended")
        if self._browsers >= _MOST_BROWSERS:
            told = f"there are {_MOST_BROWSERS}: close some"
            raise Problem(503, "too-many", "Too many browsers watch this pool", told)
        with self._one_more():
            async with background_nursery() as nursery:
                nursery.start_soon(_raise_when_left, receive)
                await start(send, 200, EVENT_HEADERS)
                await self._send_pictures(send)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        self._browsers += 1
        self._monitor.watchers += 1
        try:
            yield
        finally:
            self._browsers -= 1
            self._monitor.watchers -= 1

    async def _send_pictures(self, send: Send) -> None:
        """Send pictures until the pool, or the server, ends. The next one is made when the last one has gone."""
        seen = Seen()
        number = 0
        while not self._is_over:
            number += 1
            if not await _sent_in_time(send, Event("picture", self._monitor.picture(seen)).encode(number), more=True):
                logger.info("a browser took nothing for %g s, and is given up", _STUCK)
                return
            with trio.move_on_after(EVERY):
                while not self._is_over:
                    await self._monitor.changes.wait()
        await _sent_in_time(send, Event("end", "{}").encode(number + 1), more=False)

    @property
    def _is_over(self) -> bool:
        return self._is_closing or self._monitor.has_ended


async def _raise_when_left(receive: Receive) -> None:
    await until_left(receive)
    raise ClientLeft


async def _sent_in_time(send: Send, body: bytes, *, more: bool) -> bool:
    with trio.move_on_after(_STUCK) as waiting:
        await send_part(send, body, more=more)
    return not waiting.cancelled_caught


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        header = ("allow", ", ".join(allowed))
        raise Problem(405, "wrong-method", "The method does not fit", f"send {' or '.join(allowed)}", headers=(header,))


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
