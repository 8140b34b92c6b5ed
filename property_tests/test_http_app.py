"""Whatever clients send, and whenever they leave: each answer is valid, and nothing of theirs runs on."""

from __future__ import annotations

import json
from typing import Any

import attrs
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import snakepit_trio as snakepit
from property_tests.pool_tools import LINGER, Tools
from snakepit_trio.testing import InMemory

PATHS = st.one_of(
    st.sampled_from(["/tools/nap", "/tools/linger", "/tools/count", "/tools/tick"]),
    st.sampled_from(["/", "", "//", "/tools", "/tools/", "/tools/na", "/tools/a/b", "/livez", "/readyz"]),
    st.text(max_size=20).map(lambda text: f"/tools/{text}"),
)
TOKEN = st.integers(0, 9)


def _call(tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return f"/tools/{tool}", arguments


GOOD = st.one_of(
    st.builds(_call, st.sampled_from(["nap", "linger"]), token=TOKEN, seconds=st.floats(0, 5)),
    st.builds(_call, st.sampled_from(["count", "tick"]), token=TOKEN, n=st.integers(0, 50)),
)
ARGUMENTS = st.fixed_dictionaries(
    {"token": st.integers(0, 9)}, optional={"seconds": st.floats(0, 5), "n": st.integers(0, 50), "x": st.none()}
)
BODIES = st.one_of(
    ARGUMENTS.map(lambda value: json.dumps(value).encode()),
    st.recursive(st.none() | st.text() | st.floats(), st.lists).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"", b"{", b"[" * 900, b"x" * 3000, b'{"token": 1, "seconds": 1e999}']),
)
TEXTS = st.text(st.characters(max_codepoint=255), max_size=12).map(lambda text: text.encode("latin-1"))
JSON = (b"content-type", b"application/json")
HEADERS = st.one_of(
    st.just(JSON),
    st.tuples(st.just(b"accept"), st.sampled_from([b"text/event-stream", b"application/json", b"*/*;q=0.1", b"x"])),
    st.tuples(st.just(b"request-timeout"), st.sampled_from([b"0.5", b"3", b"0", b"x", b"99999999"])),
    st.tuples(st.just(b"call-priority"), st.sampled_from([b"5", b"-100", b"101", b""])),
    st.tuples(st.just(b"session-id"), st.sampled_from([b"a", b"b", b"", b"\xff"])),
    st.tuples(
        st.sampled_from([b"content-type", b"content-length", b"content-encoding", b"origin", b"host", b"x"]),
        TEXTS,
    ),
)


@attrs.frozen
class Request:
    """A request; its client leaves after `leaves` seconds and takes a part of the answer in each `pause` seconds."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: list[bytes]
    leaves: float | None
    pause: float
    starts: float


ANY = st.builds(
    Request,
    method=st.sampled_from(["POST"] * 6 + ["GET", "HEAD", "DELETE", "x"]),
    path=PATHS,
    headers=st.lists(HEADERS, max_size=3).map(lambda some: [JSON, *some]) | st.lists(HEADERS, max_size=4),
    body=st.lists(BODIES, min_size=1, max_size=2),
    leaves=st.none() | st.floats(0, 6),
    pause=st.sampled_from([0.0, 0.0, 0.3, 4.0]),
    starts=st.floats(0, 3),
)


@st.composite
def good(draw: st.DrawFn) -> Request:
    """A request of a tool that can be answered, or would be if its client stayed."""
    request, (path, arguments) = draw(ANY), draw(GOOD)
    events = [(b"accept", b"text/event-stream")] if draw(st.booleans()) else []
    limits = [(b"request-timeout", b"2")] if draw(st.booleans()) else []
    body = [json.dumps(arguments).encode()]
    return attrs.evolve(request, method="POST", path=path, headers=[JSON, *events, *limits], body=body)


REQUESTS = good() | ANY


class Client:
    """Makes a request of an app, and checks that what it is sent is a response."""

    def __init__(self, app: Any, request: Request) -> None:
        self._app = app
        self._request = request
        self._left = trio.Event()
        self._parts = list(request.body)
        self.status: int | None = None
        self._headers: dict[str, str] = {}
        self._body = b""
        self._is_whole = False

    async def run(self) -> None:
        request = self._request
        await trio.sleep(request.starts)
        begun = trio.current_time()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "server": ("10.0.0.1", 80),
        }
        async with trio.open_nursery() as nursery:
            if request.leaves is not None:
                nursery.start_soon(self._leave, request.leaves)
            await self._app(scope, self._receive, self._send)
            nursery.cancel_scope.cancel()
        event(f"status {self.status}, {'whole' if self._is_whole else 'cut'}")
        if request.leaves is not None:
            # Its tool may linger, and at most four parts of the answer are on their way.
            assert trio.current_time() <= begun + request.leaves + LINGER + request.pause * 4 + 0.1
        self._check()

    async def _leave(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._left.set()

    async def _receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self._parts and not self._left.is_set():
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        assert not self._is_whole
        if message["type"] == "http.response.start":
            assert self.status is None
            self.status = message["status"]
            self._headers = {name.decode("ascii"): value.decode("latin-1") for name, value in message["headers"]}
            assert all(name == name.lower() for name in self._headers)
        else:
            assert message["type"] == "http.response.body"
            assert self.status is not None
            self._body += message["body"]
            self._is_whole = not message["more_body"]
        await trio.sleep(self._request.pause)

    def _check(self) -> None:
        if not self._is_whole:
            assert self._left.is_set()
            return
        assert self.status is not None
        assert self.status != 500  # no tool raises, and the app has no faults
        kind, length = self._headers["content-type"], self._headers.get("content-length")
        if self._request.method != "HEAD" and length is not None:
            assert int(length) == len(self._body)
        if self.status >= 400:
            assert kind == "application/problem+json"
            if self._request.method != "HEAD":
                problem = json.loads(self._body)
                assert problem["status"] == self.status
                assert problem["type"].startswith("urn:snakepit-trio:problem:")
        elif kind == "text/event-stream":
            last = self._body.decode().rstrip("\n").rpartition("\n\n")[2]
            assert last.startswith(("event: result", "event: end", "event: error"))
        elif self._request.method != "HEAD":
            json.loads(self._body)


@settings(deadline=None)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=6))
def test_any_requests(requests: list[Request]) -> None:
    Tools.running.clear()

    async def main() -> None:
        async with snakepit.open_pool(Tools, launcher=InMemory(), workers=2, max_queue=2) as pool:
            app = pool.asgi_app(max_body_bytes=2000, keep_alive=1.0, max_timeout=100.0)
            async with trio.open_nursery() as nursery:
                for request in requests:
                    nursery.start_soon(Client(app, request).run)
            stats = pool.get_stats()
            assert (stats.running, stats.queued, stats.restarts) == (0, 0, 0)
            assert Tools.running == set()
            assert await pool.execute("nap", {"token": 7, "seconds": 0}) == 7

    trio.run(main, clock=MockClock(autojump_threshold=0))
