"""Frames on stdin and stdout, on streams in memory: how they are cut, what breaks them, and what was on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, wait_all_tasks_blocked

from bridge_py.wire.errors import EncodeError, RemoteProtocolError
from snakepit_trio import StdioJson, StdioMsgpack
from snakepit_trio._connections.link import LinkLost
from snakepit_trio._connections.stdio_frames import StdioFrames

ADAPTERS = [StdioJson("worker"), StdioMsgpack("worker")]


class Pipes:
    """The frames of a worker that does nothing: a test writes what it says, and reads what it hears."""

    def __init__(self, adapter: StdioJson = ADAPTERS[0], max_frame: int = 1000) -> None:
        self.adapter = adapter
        self.stdin = MemorySendStream()
        self.stdout = MemoryReceiveStream()
        self.answered: list[int] = []
        self.frames = StdioFrames(adapter, max_frame, self.stdin, self.stdout, self.answered.append)

    def framed(self, frame: dict[str, Any]) -> bytes:
        """A frame as it goes over a pipe."""
        data = self.adapter.encode(frame)
        return len(data).to_bytes(4, "big") + data

    def written(self) -> bytes:
        """All that has been written since the last time."""
        try:
            return bytes(self.stdin.get_data_nowait())
        except trio.WouldBlock:
            return b""


def fill(pipes: Pipes) -> trio.Event:
    """Have the worker read nothing until the event is set."""
    event = trio.Event()
    pipes.stdin.send_all_hook = event.wait
    return event


@pytest.mark.parametrize("adapter", ADAPTERS, ids=["json", "msgpack"])
async def test_what_is_sent_is_a_length_and_a_frame(adapter: StdioJson) -> None:
    pipes = Pipes(adapter)
    frames: list[dict[str, Any]] = [{"a": 1}, {"b": "\u00e9" * 10}]
    for frame in frames:
        pipes.frames.send(frame)
    pipes.frames.end()
    await pipes.frames.write()
    assert pipes.written() == b"".join(map(pipes.framed, frames))


@pytest.mark.parametrize("size", [1, 3, 5, 1000])
@pytest.mark.parametrize("adapter", ADAPTERS, ids=["json", "msgpack"])
async def test_frames_are_whole_however_they_are_cut(adapter: StdioJson, size: int) -> None:
    pipes = Pipes(adapter)
    frames: list[dict[str, Any]] = [{"a": 1}, {"b": "x" * 300}, {"c": [1, 2]}]
    data = b"".join(map(pipes.framed, frames))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    pipes.stdout.receive_some_hook = _one_after_another(pipes, pieces)
    assert [await pipes.frames.receive() for _ in frames] == frames


def _one_after_another(pipes: Pipes, pieces: list[bytes]) -> Callable[[], Any]:
    async def give() -> None:
        pipes.stdout.put_data(pieces.pop(0))

    return give


async def test_stdin_is_closed_behind_the_last_frame() -> None:
    pipes = Pipes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipes.frames.write)
        pipes.frames.send({"a": 1})
        await wait_all_tasks_blocked()
        assert pipes.written() == pipes.framed({"a": 1})
        pipes.frames.send({"a": 2})
        pipes.frames.end()
    assert bytes(await pipes.stdin.get_data()) == pipes.framed({"a": 2})
    assert await pipes.stdin.get_data() == b"", "it is closed"


async def test_what_is_too_large_is_refused_and_the_next_goes_through() -> None:
    pipes = Pipes(max_frame=20)
    with pytest.raises(EncodeError, match=r"bytes; a frame takes 20 \(max_frame_bytes\)"):
        pipes.frames.send({"a": "x" * 20})
    pipes.frames.send({"a": 1})
    pipes.frames.end()
    await pipes.frames.write()
    assert pipes.written() == pipes.framed({"a": 1})


async def test_a_frame_just_as_large_as_allowed_arrives() -> None:
    frame = {"a": "x" * 10}
    size = len(ADAPTERS[0].encode(frame))
    pipes = Pipes(max_frame=size)
    pipes.frames.send(frame)
    pipes.stdout.put_data(pipes.framed(frame))
    assert await pipes.frames.receive() == frame
    smaller = Pipes(max_frame=size - 1)
    smaller.stdout.put_data(pipes.framed(frame))
    with pytest.raises(RemoteProtocolError, match=f"a frame of {size} bytes is over the limit of {size - 1} bytes$"):
        await smaller.frames.receive()


async def test_text_that_was_printed_is_told_as_such() -> None:
    pipes = Pipes()
    pipes.stdout.put_data(b"loading model\n")
    with pytest.raises(RemoteProtocolError, match=r"begins with b'load'; was text printed to stdout\?"):
        await pipes.frames.receive()


async def test_what_is_no_frame_breaks_the_protocol() -> None:
    pipes = Pipes()
    pipes.stdout.put_data((3).to_bytes(4, "big") + b"{a}")
    with pytest.raises(RemoteProtocolError):
        await pipes.frames.receive()


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\x05{"], ids=["nothing", "half a length", "half a frame"])
async def test_the_end_of_stdout_is_the_end_of_the_link(said: bytes) -> None:
    pipes = Pipes()
    pipes.stdout.put_data(said)
    pipes.stdout.put_eof()
    with pytest.raises(LinkLost, match="closed its stdout"):
        await pipes.frames.receive()


async def test_a_closed_stdin_is_told_when_the_worker_has_had_its_last_words(autojump_clock: MockClock) -> None:
    pipes = Pipes()
    pipes.stdin.send_all_hook = _breaking
    pipes.frames.send({"a": 1}, call_id=3)
    began = trio.current_time()
    with pytest.raises(LinkLost, match="closed its stdin"):
        await pipes.frames.write()
    assert trio.current_time() - began == pytest.approx(0.5)
    assert pipes.frames.last_sent == 0, "it never came through"


async def _breaking() -> None:
    raise trio.BrokenResourceError


async def test_what_is_on_its_way_is_not_taken_back() -> None:
    pipes = Pipes()
    room = fill(pipes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipes.frames.write)
        pipes.frames.send({"a": 1}, call_id=1)
        pipes.frames.send({"a": 3}, call_id=3)
        pipes.frames.send({"a": 5}, call_id=5)
        await wait_all_tasks_blocked()
        assert pipes.frames.last_sent == 1
        assert not pipes.frames.withdraw(1)
        assert pipes.frames.withdraw(3)
        assert not pipes.frames.withdraw(3)
        room.set()
        pipes.frames.end()
    assert pipes.written() == pipes.framed({"a": 1}) + pipes.framed({"a": 5})
    assert pipes.frames.last_sent == 5


async def test_an_ask_counts_as_answered_when_its_answer_is_written() -> None:
    pipes = Pipes()
    room = fill(pipes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipes.frames.write)
        pipes.frames.send({"answer": 1}, ask=7)
        pipes.frames.send({"a": 1}, call_id=1)
        await wait_all_tasks_blocked()
        assert pipes.answered == []
        room.set()
        pipes.frames.end()
    assert pipes.answered == [7]
