"""Calls of tools without a task: plain answers come at once, and all else goes as it would have gone with a task."""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from h2.errors import ErrorCodes

from bridge_py.contract.client import AsyncioClient
from bridge_py.contract.values import to_any
from bridge_py.wire.errors import DecodeError, RemoteError, SessionNotFound, ToolError
from bridge_py.wire.messages.snakepit import bridge as messages
from tests.helpers.http2_peer import Connection, Peer, serve

HEADERS: Final = [(":status", "200"), ("content-type", "application/grpc")]


def in_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        # A loop of its own kind: trio-asyncio has set a policy if another test has imported it.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(test(**arguments))

    return run


def answer(value: Any) -> bytes:
    return bytes(messages.ExecuteToolResponse(success=True, result=to_any(value, "result")[0]))


def body(message: bytes) -> bytes:
    return struct.pack(">?I", False, len(message)) + message


class Script:
    """What the peer sends for a call, in steps."""

    def __init__(self, connection: Connection, stream: int) -> None:
        self.connection = connection
        self.stream = stream
        self.h2 = connection._h2

    def headers(self, *more: tuple[str, str], end: bool = False) -> None:
        self.h2.send_headers(self.stream, [*HEADERS, *more], end_stream=end)

    def data(self, content: bytes, **options: Any) -> None:
        self.h2.send_data(self.stream, content, **options)

    def trailers(self, status: int = 0, message: str = "") -> None:
        self.h2.send_headers(self.stream, [("grpc-status", str(status)), ("grpc-message", message)], end_stream=True)

    def flush(self) -> None:
        self.connection._send()


def plain(script: Script) -> None:
    script.headers()
    script.data(body(answer([1, 2])))
    script.trailers()


def in_pieces(script: Script) -> None:
    script.headers()
    for each in body(answer([1, 2])):
        script.data(bytes([each]), pad_length=3)
        script.flush()
    script.trailers()


def large(script: Script) -> None:
    script.headers()
    content = body(answer(["x" * 400_000]))
    for at in range(0, len(content), 16_000):
        script.data(content[at : at + 16_000])
    script.trailers()


def told_by_betterproto(script: Script) -> None:
    script.headers()
    failure = messages.ExecuteToolResponse(success=False, error_message="no such thing")
    script.data(body(bytes(failure)))
    script.trailers()


def unreadable(script: Script) -> None:
    script.headers()
    script.data(body(b"\x08\x01\x12" + b"\x05\x0a\x03a/b"))
    script.trailers()


def no_session(script: Script) -> None:
    script.headers(("grpc-status", "5"), ("grpc-message", "session s not found"), end=True)


def failed_late(script: Script) -> None:
    script.headers()
    script.data(body(answer(1)))
    script.trailers(13, "too much")


def no_message(script: Script) -> None:
    script.headers()
    script.trailers()


def reset(script: Script) -> None:
    script.headers()
    script.connection.reset(script.stream, ErrorCodes.INTERNAL_ERROR)


def lost(script: Script) -> None:
    script.headers()
    script.flush()
    script.connection.transport.close()


def left(script: Script) -> None:
    script.headers()
    script.flush()
    script.connection.leave(script.stream)
    script.data(body(answer([1, 2])))
    script.trailers()


OUTCOMES: Final[list[tuple[Callable[[Script], None], Any]]] = [
    (plain, [1, 2]),
    (in_pieces, [1, 2]),
    (large, ["x" * 400_000]),
    (left, [1, 2]),
    (told_by_betterproto, ToolError),
    (unreadable, DecodeError),
    (no_session, SessionNotFound),
    (failed_late, "INTERNAL"),
    (no_message, "UNAVAILABLE"),
    (reset, "UNAVAILABLE"),
    (lost, "UNAVAILABLE"),
]


@asynccontextmanager
async def connected(peer: Peer) -> AsyncIterator[AsyncioClient]:
    async with asyncio.timeout(30), serve(peer) as port:
        client = AsyncioClient(f"127.0.0.1:{port}")
        peer.holds = False
        await client.ping()
        peer.holds = True
        try:
            yield client
        finally:
            client.close()
            await peer.until(lambda: not peer.open_connections)
            assert not client._channel._open_ones


class Call:
    """A call that was begun at once, and its outcome."""

    def __init__(self, client: AsyncioClient, args: dict[str, Any] | None = None) -> None:
        self.found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.went_on = False
        self._client = client
        self.has_begun = client.begin_tool("tool", args or {"a": 1}, self._take, self._go_on, session_id="s")

    def _take(self, message: bytes) -> None:
        try:
            self.found.set_result(self._client.result_of(message))
        except Exception as error:
            self.found.set_exception(error)

    def _go_on(self, rest: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.went_on = True
        self.task = asyncio.ensure_future(rest())
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # not each test asks for it

    async def outcome(self) -> Any:
        """The result or the error."""
        while not self.found.done() and not self.went_on:
            await asyncio.sleep(0.001)
        found = self.task if self.went_on else self.found
        return (await asyncio.gather(found, return_exceptions=True))[0]


async def follow(peer: Peer, steps: Callable[[Script], None]) -> None:
    """Have the peer answer the request that it has, or gets."""
    await peer.until(lambda: any(each.held for each in peer.connections))
    connection = next(each for each in peer.connections if each.held)
    stream = next(iter(connection.held))
    steps(Script(connection, stream))
    connection._send()
    connection.held.clear()


def check(found: Any, expected: Any) -> None:
    if isinstance(expected, str):
        assert isinstance(found, RemoteError)
        assert found.status == expected
    elif isinstance(expected, type):
        assert type(found) is expected
    else:
        assert found == expected


@pytest.mark.parametrize(("steps", "expected"), OUTCOMES, ids=[steps.__name__ for steps, _ in OUTCOMES])
@in_asyncio
async def test_it_ends_as_it_would_with_a_task(steps: Callable[[Script], None], expected: Any) -> None:
    peer = Peer()
    async with connected(peer) as client:
        call = Call(client)
        assert call.has_begun
        await follow(peer, steps)
        check(await call.outcome(), expected)
    async with connected(peer) as client:
        task = asyncio.ensure_future(client.execute_tool("tool", {"a": 1}))
        await follow(peer, steps)
        check((await asyncio.gather(task, return_exceptions=True))[0], expected)


@in_asyncio
async def test_a_plain_answer_needs_no_task() -> None:
    peer = Peer()
    async with connected(peer) as client:
        call = Call(client)
        await follow(peer, plain)
        assert await call.outcome() == [1, 2]
        assert not call.went_on


@in_asyncio
async def test_a_refused_call_is_made_again() -> None:
    peer = Peer()
    async with connected(peer) as client:
        peer.refusals = 2
        call = Call(client)
        assert call.has_begun
        await follow(peer, plain)
        assert await call.outcome() == [1, 2]
        assert peer.seen == ["ping", "tool", "tool", "tool"]
        assert peer.processed["tool"] == 1


@in_asyncio
async def test_a_call_that_the_peer_has_not_processed_goes_to_a_new_connection() -> None:
    peer = Peer()
    async with connected(peer) as client:
        peer.leaves_before = 1
        call = Call(client)
        await follow(peer, plain)
        assert await call.outcome() == [1, 2]
        assert peer.processed["tool"] == 1


@in_asyncio
async def test_a_call_begins_with_a_task_when_the_peer_takes_none_now() -> None:
    peer = Peer(limit=1)
    async with connected(peer) as client:
        assert Call(client).has_begun
        assert not Call(client).has_begun


@in_asyncio
async def test_a_call_begins_with_a_task_before_there_is_a_connection_or_for_large_arguments() -> None:
    peer = Peer()
    async with connected(peer) as client:
        assert not Call(client, {"a": "x" * 100_000}).has_begun
    assert not Call(client).has_begun


@in_asyncio
async def test_closing_hands_on_what_has_begun() -> None:
    peer = Peer()
    async with connected(peer) as client:
        call = Call(client)
        client.close()
        check(await call.outcome(), "UNAVAILABLE")
