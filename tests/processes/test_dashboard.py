"""The dashboard without a browser: its streams, its history, its servers and their ends."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.http_server import hypercorn_for
from tests.helpers.tools import Tools
from tests.processes.test_http_mounts import MOUNTS


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(90):
        async with snakepit.open_pool(Tools, workers=1, name="shop") as opened:
            yield opened  # noqa: ASYNC119


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token of the dashboard."""
    base, _, token = url.partition("#token=")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60) as client:
        yield client


def address_of(url: str) -> tuple[int, str, str]:
    """The port, the path and the token of a dashboard."""
    parts = urlsplit(url)
    assert parts.port is not None
    return parts.port, parts.path, parts.fragment.removeprefix("token=")


class Stream:
    """One stream of events, which may be left at any time."""

    def __init__(self, url: str, connection: trio.SocketStream) -> None:
        self._url = url
        self._connection = connection
        self._received = b""

    async def begin(self) -> None:
        """Send the request, and read the head of the answer. By HTTP/1.0 the body comes as it is."""
        _, path, token = address_of(self._url)
        head = f"GET {path}events HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
        await self._connection.send_all(head.encode())
        answer = await self._until(b"\r\n\r\n")
        assert b" 200 " in answer
        assert b"text/event-stream" in answer

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            part = await self._connection.receive_some()
            if not part:
                raise EOFError(self._received)
            self._received += part
        found, _, self._received = self._received.partition(mark)
        return found

    async def next(self) -> tuple[str, Any]:
        """The next event. Raises `EOFError`."""
        fields = dict(line.split(": ", 1) for line in (await self._until(b"\n\n")).decode().splitlines())
        return fields["event"], json.loads(fields["data"])

    async def until(self, is_there: Callable[[Any], object]) -> Any:
        """Read pictures until one of them is as wanted; returns it."""
        while True:
            name, picture = await self.next()
            assert name == "picture"
            if is_there(picture):
                return picture


@asynccontextmanager
async def following(url: str) -> AsyncIterator[Stream]:
    """Follow the events of a dashboard."""
    connection = await trio.open_tcp_stream("127.0.0.1", address_of(url)[0])
    async with connection:
        stream = Stream(url, connection)
        await stream.begin()
        yield stream


async def test_a_picture_has_the_pool_its_workers_and_its_calls(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, following(url) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.execute("sleep", {"seconds": 600}, session="alice"))
        picture = await stream.until(lambda picture: picture["calls"] and picture["calls"][0]["pid"])
        (call,), (worker,), (info,) = picture["calls"], picture["workers"], pool.list_workers()
        assert (call["tool"], call["session_id"]) == ("sleep", "alice")
        assert (call["worker_id"], call["pid"]) == (info.id, info.pid)
        assert (worker["id"], worker["pid"], worker["restarts"]) == (info.id, info.pid, 0)
        assert picture["about"]["name"] == "shop"
        assert picture["sessions"]["calls"] == {"alice": 1}
        nursery.cancel_scope.cancel()


async def test_sessions_that_only_calls_name_are_counted_with_those_of_the_store(pool: snakepit.Pool) -> None:
    for number in range(120):  # more than a picture lists
        await pool.sessions.create_session(f"stored {number:03}")
    listed = await pool.sessions.list_sessions()

    async def call(session: str) -> None:
        await pool.execute("sleep", {"seconds": 600}, session=session)

    async with pool.serve_dashboard() as url, following(url) as stream, trio.open_nursery() as nursery:
        for name in (listed[0], listed[-1], "only called", "only called"):
            nursery.start_soon(call, name)
        picture = await stream.until(lambda picture: picture["sessions"]["known"] and len(picture["calls"]) == 4)
        assert picture["sessions"]["ids"] == listed[:100]
        assert picture["sessions"]["count"] == 121
        assert picture["sessions"]["calls"] == {listed[0]: 1, listed[-1]: 1, "only called": 2}
        nursery.cancel_scope.cancel()


async def test_a_browser_that_comes_late_gets_the_history_and_then_only_what_is_new(pool: snakepit.Pool) -> None:
    logging.getLogger("snakepit.before").error("nobody hears this")
    async with pool.serve_dashboard() as url:
        logging.getLogger("snakepit.test").error("the first line %d", 1)
        await trio.sleep(2.1)
        async with following(url) as stream:
            _, first = await stream.next()
            assert len(first["samples"]) >= 3
            assert [line["text"] for line in first["lines"]] == ["the first line 1"]
            logging.getLogger("snakepit.test").error("the second line")
            _, second = await stream.next()
            assert [line["text"] for line in second["lines"]] == ["the second line"]
            assert len(second["samples"]) <= 1


async def test_the_times_of_calls_come_from_the_events_of_the_pool(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, following(url) as stream:
        for _ in range(3):
            await pool.execute("sleep_async", {"seconds": 0.05})
        picture = await stream.until(lambda picture: any(each["p50"] for each in picture["samples"]))
        sample = next(each for each in picture["samples"] if each["p50"])
        assert 0.05 <= sample["p50"] <= sample["p95"] <= sample["p99"] < 90


async def test_a_call_is_cancelled_and_one_that_is_over_is_not(pool: snakepit.Pool) -> None:
    errors: list[snakepit.CallCancelled] = []

    async def call() -> None:
        try:
            await pool.execute("sleep", {"seconds": 600})
        except snakepit.CallCancelled as error:
            errors.append(error)

    async with pool.serve_dashboard() as url, client_of(url) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while not (calls := pool.list_calls()):
                await trio.sleep(0.01)
            answer = await client.post(f"calls/{calls[0].id}/cancel", json={})
            assert (answer.status_code, answer.json()) == (200, {"cancelled": True})
        assert [error.reason for error in errors] == ["on the dashboard"]
        answer = await client.post(f"calls/{calls[0].id}/cancel", json={})
        assert (answer.status_code, answer.json()) == (200, {"cancelled": False})
        assert (await client.post("calls/one/cancel", json={})).status_code == 404
        assert (await client.get("calls/1/cancel")).status_code == 405
        assert (await client.post("events", json={})).status_code == 405
        assert (await client.post("", json={})).status_code == 405
        assert (await client.get("../../pyproject.toml")).status_code == 404


async def test_a_browser_that_takes_nothing_holds_up_nobody(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, AsyncExitStack() as stack:
        for number in range(400):
            logging.getLogger("snakepit.test").error("%d %s", number, "x" * 2000)  # more than the kernel's buffers take
        for _ in range(5):
            await stack.enter_async_context(following(url))  # and nobody reads on
        for number in range(20):
            assert await pool.execute("add", {"a": number}) == number + 1
        stream = await stack.enter_async_context(following(url))
        for _ in range(3):
            await stream.next()


async def test_many_browsers_get_pictures_and_one_too_many_is_refused(pool: snakepit.Pool) -> None:
    async with pool.serve_dashboard() as url, client_of(url) as client:
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(following(url)) for _ in range(64)]
            for stream in streams:
                await stream.next()
            assert (await client.get("events")).status_code == 503
        while True:  # until the server has noticed that they have left
            with contextlib.suppress(AssertionError):
                async with following(url) as stream:
                    await stream.next()
                break


async def test_streams_end_with_the_block(pool: snakepit.Pool) -> None:
    async with AsyncExitStack() as stack:
        async with pool.serve_dashboard() as url:
            stream = await stack.enter_async_context(following(url))
            await stream.next()
        await to_the_end(stream)
        with pytest.raises(EOFError):
            await stream.next()
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", address_of(url)[0])
    assert await pool.execute("add", {"a": 1}) == 2


async def to_the_end(stream: Stream) -> None:
    """Read on until an event says that this is the end."""
    while (await stream.next())[0] != "end":
        pass


async def test_an_app_that_outlives_its_pool_ends_its_streams() -> None:
    apps: list[Any] = []

    async def later(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await apps[0](scope, receive, send)

    with trio.fail_after(60):
        async with hypercorn_for(later) as port, AsyncExitStack() as stack:
            async with snakepit.open_pool(Tools, workers=1) as pool:
                app = pool.dashboard_app()
                apps.append(app)
                url = f"http://127.0.0.1:{port}/#token={app.token}"
                stream = await stack.enter_async_context(following(url))
            await to_the_end(stream)
            client = await stack.enter_async_context(client_of(url))
            assert (await client.get("events")).status_code == 503
            with pytest.raises(snakepit.PoolClosed):
                pool.dashboard_app()


@pytest.mark.parametrize("mount", MOUNTS, ids=lambda each: each.__name__)
async def test_below_a_path(pool: snakepit.Pool, mount: Callable[[Any], Any]) -> None:
    app = pool.dashboard_app()
    async with (
        hypercorn_for(mount(app)) as port,
        client_of(f"http://127.0.0.1:{port}/api/v1/#token={app.token}") as client,
    ):
        page = await client.get("")
        assert "<title>snakepit dashboard</title>" in page.text
        for name, kind in [("style.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")]:
            found = await client.get(name)
            assert found.status_code == 200
            assert found.headers["content-type"].startswith(kind)
        async with following(f"http://127.0.0.1:{port}/api/v1/#token={app.token}") as stream:
            assert (await stream.next())[1]["about"]["name"] == "shop"
        bare = await client.get(f"http://127.0.0.1:{port}/api/v1", follow_redirects=True)
        assert str(bare.url).endswith("/api/v1/")


async def test_two_dashboards_share_one_history_and_have_their_own_tokens(pool: snakepit.Pool) -> None:
    handlers = len(logging.getLogger("snakepit").handlers)
    async with pool.serve_dashboard() as one, pool.serve_dashboard() as two:
        assert one.partition("#")[2] != two.partition("#")[2]
        assert len(logging.getLogger("snakepit").handlers) == handlers + 1
        async with following(one) as first, following(two) as second:
            assert (await first.next())[0] == (await second.next())[0] == "picture"
        crossed = one.partition("#")[0] + "#" + two.partition("#")[2]
        async with client_of(crossed) as wrong:
            assert (await wrong.get("events")).status_code == 401


async def test_nothing_is_left_of_it_when_the_pool_has_closed() -> None:
    handlers = list(logging.getLogger("snakepit").handlers)
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            assert not pool.events.is_heard
            async with pool.serve_dashboard():
                assert pool.events.is_heard
        assert not pool.events.is_heard
    assert logging.getLogger("snakepit").handlers == handlers


async def test_wrong_options_are_refused_at_once(pool: snakepit.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(snakepit.UsageError, match="token"):
        pool.serve_dashboard(token="short")
    with pytest.raises(snakepit.UsageError, match="allowed_hosts"):
        pool.dashboard_app(allowed_hosts="localhost")
    with pytest.raises(snakepit.UsageError, match="port"):
        async with pool.serve_dashboard(port=70000):
            pass
    with pytest.raises(snakepit.UsageError, match="host"):
        async with pool.serve_dashboard(host=""):
            pass
    with pytest.raises(OSError, match="cannot listen at 192.0.2.1"):
        async with pool.serve_dashboard(host="192.0.2.1"):
            pass
    async with pool.serve_dashboard() as url:
        port, *_ = address_of(url)
        with pytest.raises(OSError, match=f"port {port}: Address already in use"):
            async with pool.serve_dashboard(port=port):
                pass
    for name in [name for name in sys.modules if name.startswith("hypercorn")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    with pytest.raises(snakepit.UsageError, match="snakepit-trio\\[serve\\]"):
        async with pool.serve_dashboard():
            pass
