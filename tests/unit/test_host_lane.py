"""The host's end of the lane over real pipes: what is written when, and a pipe that is full blocks nobody."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import BatchReader, head_of
from snakepit_trio._connections.lane import Lane, Pipes
from snakepit_trio._connections.link import LinkLost


class Ends:
    """A lane, what it is to say, what it has heard, and the worker's ends."""

    def __init__(self) -> None:
        self.pipes = Pipes()
        self.from_host, self.to_host = self.pipes.theirs
        os.set_blocking(self.from_host, False)
        self.to_say: deque[bytes] = deque()
        self.heard: list[bytes] = []
        self.open_calls = 1
        self.is_late = False
        self.lane = Lane(self.pipes, self.as_link())
        self.raised: list[Exception] = []
        self._batches = BatchReader()

    def as_link(self) -> Any:
        return self

    @property
    def conversation(self) -> Any:
        return self

    def next_batch(self) -> bytes:
        return self.to_say.popleft() if self.to_say else b""

    def receive(self, data: bytes) -> None:
        if data == b"broken":
            raise RemoteProtocolError("broken")
        self.heard.append(data)

    async def read(self) -> None:
        try:
            await self.lane.read()
        except Exception as error:
            self.raised.append(error)

    def arrived(self) -> list[bytes]:
        """The batches that have arrived at the worker."""
        found = []
        while True:
            try:
                found += self._batches.feed(os.read(self.from_host, 65536))
            except BlockingIOError:
                return found

    def send(self, data: bytes) -> None:
        os.write(self.to_host, data)


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.read)
        nursery.start_soon(made.lane.write)
        await wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()
    made.pipes.close()
    made.pipes.give()


async def test_what_is_said_now_is_there_at_once() -> None:
    async with ends() as it:
        it.to_say.extend([b"one", b"two"])
        it.lane.flush()
        assert it.arrived() == [b"one", b"two"]


async def test_what_is_said_soon_goes_in_the_next_turn() -> None:
    async with ends() as it:
        it.open_calls = 2
        it.to_say.append(b"one")
        it.lane.flush()
        it.to_say.append(b"two")
        it.lane.flush()
        assert it.arrived() == []
        await wait_all_tasks_blocked()
        assert it.arrived() == [b"one", b"two"]


async def test_a_full_pipe_blocks_nobody_and_loses_nothing() -> None:
    said = [b"%d" % number * 9_000 for number in range(10, 60)]
    async with ends() as it:
        for each in said:
            it.to_say.append(each)
            it.lane.flush()
        it.send(head_of(b"x") + b"x")
        await wait_all_tasks_blocked()
        assert it.heard == [b"x"], "it reads while it waits for room"
        arrived = it.arrived()
        assert 0 < len(arrived) < len(said)
        while len(arrived) < len(said):
            await wait_all_tasks_blocked()
            arrived += it.arrived()
        assert arrived == said


async def test_batches_are_heard_however_they_are_cut() -> None:
    async with ends() as it:
        for each in head_of(b"one") + b"one" + head_of(b"two") + b"two":
            it.send(bytes([each]))
            await wait_all_tasks_blocked()
        it.send(head_of(b"three") + b"three" + head_of(b"") + head_of(b"four") + b"fo")
        it.send(b"ur")
        await wait_all_tasks_blocked()
        assert it.heard == [b"one", b"two", b"three", b"", b"four"]


async def test_the_end_of_the_worker_is_the_end_of_the_link() -> None:
    async with ends() as it:
        os.close(it.to_host)
        await wait_all_tasks_blocked()
        it.pipes.theirs_writing = os.open(os.devnull, os.O_WRONLY)
        assert [type(error) for error in it.raised] == [LinkLost]


async def test_half_a_batch_of_a_worker_that_died_is_dropped() -> None:
    async with ends() as it:
        it.send(head_of(b"one") + b"on")
        os.close(it.to_host)
        await wait_all_tasks_blocked()
        it.pipes.theirs_writing = os.open(os.devnull, os.O_WRONLY)
        assert it.heard == []
        assert [type(error) for error in it.raised] == [LinkLost]


async def test_writing_to_a_dead_worker_raises_nothing_where_it_is_said() -> None:
    async with ends() as it:
        os.close(it.from_host)
        it.to_say.append(b"one")
        it.lane.flush()
        it.pipes.theirs_reading = os.open(os.devnull, os.O_RDONLY)
        it.to_say.append(b"two")
        it.lane.flush()
        await wait_all_tasks_blocked()
        assert (list(it.to_say), it.raised) == ([b"two"], []), "it writes no more, and waits for the reader to tell"


async def test_what_breaks_the_protocol_ends_the_reading() -> None:
    async with ends() as it:
        it.send(head_of(b"broken") + b"broken" + head_of(b"one") + b"one")
        await wait_all_tasks_blocked()
        assert it.heard == []
        assert [type(error) for error in it.raised] == [RemoteProtocolError]


async def test_the_tasks_of_a_lane_may_be_cancelled_wherever_they_wait() -> None:
    async with ends() as it:
        it.to_say.extend([bytes(100_000), b"more"])
        it.lane.flush()
        await wait_all_tasks_blocked()
        assert (it.heard, list(it.to_say)) == ([], [b"more"]), "one waits for room, and one for the worker"


def test_pipes_that_cannot_all_be_made_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = os.pipe, 0

    def fail_at_the_second() -> tuple[int, int]:
        nonlocal made
        made += 1
        if made == 2:
            raise OSError(24, "Too many open files")
        return make()

    monkeypatch.setattr(os, "pipe", fail_at_the_second)
    with pytest.raises(OSError, match="Too many"):
        Pipes()


async def test_what_a_worker_wrote_before_its_end_is_not_lost() -> None:
    it = Ends()
    it.send(b"".join(head_of(each) + each for each in [b"one", b"two"]))
    it.lane.drain()
    os.close(it.to_host)
    it.lane.drain()
    assert it.heard == [b"one", b"two"]
    it.pipes.close()
    os.close(it.from_host)
