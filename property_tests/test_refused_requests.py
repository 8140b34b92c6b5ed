"""Whatever a peer does with requests: none is processed twice, and each has its own answer, or one true failure."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from h2.errors import ErrorCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_py.contract.client import AsyncioClient
from bridge_py.wire.errors import RemoteError
from tests.helpers.http2_peer import Connection, Peer, serve

SETTLED = 20  # turns of the loop in which frames arrive
CALLERS = 6

STEPS = st.lists(
    st.one_of(
        *(st.just((name, 0)) for name in ("ask", "answer", "lose", "fail")),
        *(st.tuples(st.just(name), st.integers(0, 3)) for name in ("refuse", "allow", "leave", "cancel")),
    ),
    max_size=25,
)


class Course:
    """A client and a peer that does one step after the other."""

    def __init__(self, peer: Peer, client: AsyncioClient) -> None:
        self._peer = peer
        self._client = client
        self._names = map(str, itertools.count())
        self.tasks: dict[str, asyncio.Task[str]] = {}
        self.cancelled: set[str] = set()

    async def take(self, step: str, number: int) -> None:
        act: Callable[[int], None] = getattr(self, step)
        act(number)
        for _ in range(SETTLED):
            await asyncio.sleep(0)

    def _live(self) -> list[Connection]:
        return [each for each in self._peer.connections if not each.transport.is_closing()]

    def ask(self, _number: int) -> None:
        name = next(self._names)
        self.tasks[name] = asyncio.ensure_future(self._client.ping(name))

    def answer(self, _number: int) -> None:
        for connection in self._live():
            for stream in tuple(connection.held)[:1]:
                connection.answer(stream)

    def refuse(self, number: int) -> None:
        self._peer.refusals += number

    def allow(self, number: int) -> None:
        self._peer.limit = number
        for connection in self._live():
            connection.allow(number)

    def leave(self, number: int) -> None:
        """Leave all connections, and say of some requests that they have not been processed."""
        for connection in self._live():
            streams = list(connection.held)
            last = streams[-number - 1] if len(streams) > number else 0
            for stream in [each for each in streams if each > last]:
                self._peer.processed[connection.held.pop(stream)] -= 1
            connection.leave(last)

    def lose(self, _number: int) -> None:
        for connection in self._live():
            connection.transport.abort()

    def fail(self, _number: int) -> None:
        for connection in self._live():
            for stream in tuple(connection.held)[:1]:
                connection.reset(stream, ErrorCodes.INTERNAL_ERROR)

    def cancel(self, number: int) -> None:
        for name in list(self.tasks)[number : number + 1]:
            if self.tasks[name].cancel():
                self.cancelled.add(name)

    async def finish(self) -> None:
        """Let all requests go on."""
        self._peer.refusals, self._peer.holds = 0, False
        while any(not task.done() for task in self.tasks.values()):
            self.allow(100)
            self.answer(0)
            await asyncio.sleep(0.005)


def check(course: Course, peer: Peer) -> None:
    for name, task in course.tasks.items():
        assert peer.processed[name] <= 1
        assert not task.cancelled() or name in course.cancelled
        if task.cancelled():
            continue
        error = task.exception()
        if error is None:
            assert task.result() == name
            assert peer.processed[name] == 1
        else:
            assert isinstance(error, RemoteError)
            assert error.status == "UNAVAILABLE"


async def follow(steps: list[tuple[str, int]]) -> None:
    peer = Peer(holds=True)
    async with asyncio.timeout(60), serve(peer) as port:
        client = AsyncioClient(f"127.0.0.1:{port}")
        course = Course(peer, client)
        for _ in range(CALLERS):
            course.ask(0)
        for step, number in steps:
            await course.take(step, number)
        await course.finish()
        check(course, peer)
        losses = {"lose", "fail"} & {step for step, _ in steps}
        failed = [task for task in course.tasks.values() if not task.cancelled() and task.exception()]
        # Refusals, limits and leaving fail nothing. grpclib prefers a loss to a cancellation in the same turn.
        assert losses or not failed
        assert losses or all(course.tasks[name].cancelled() for name in course.cancelled)
        client.close()
        await peer.until(lambda: not peer.open_connections)
        assert_nothing_is_left(client)


def assert_nothing_is_left(client: Any) -> None:
    assert not client._channel._open_ones
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(deadline=None, max_examples=100)
@given(STEPS)
def test_a_request_is_processed_at_most_once(steps: list[tuple[str, int]]) -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(follow(steps))
