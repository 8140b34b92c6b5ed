"""The host's side of breakpoints, with workers that break its rules."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable

import pytest
import trio

from snakepit_trio._workers.breakpoints import Breakpoints

CANCELLED = 9


class Told:
    """Counts what the worker's host is told."""

    def __init__(self) -> None:
        self.begun = self.over = 0

    def begin(self) -> None:
        self.begun += 1

    def end(self) -> None:
        self.over += 1


def make(control: socket.socket, told: Told, interrupt: Callable[[], None] = lambda: None) -> Breakpoints:
    control.setblocking(False)
    return Breakpoints(
        "w-1", sys.executable, control, interrupt, lambda call_id: call_id == CANCELLED, told.begin, told.end
    )


@pytest.mark.parametrize("message", [b"no json", b"[]", b'{"open": "one"}', b'{"call": -1.5}', b"\xff", b"x" * 30_000])
async def test_a_message_that_no_worker_sends_ends_it(message: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, trio.fail_after(30):
        told = Told()
        theirs.send(message)
        await make(ours, told).run()
        assert theirs.recv(100) == b""  # a breakpoint that asks later does not wait
        assert (told.begun, told.over) == (0, 0)


async def test_unknown_numbers_do_nothing_and_the_end_of_the_worker_ends_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, trio.fail_after(30):
        told = Told()
        breakpoints = make(ours, told)
        with theirs:
            for said in ({"close": 7}, {}, {"open": 0}):
                theirs.send(json.dumps(said).encode())
        breakpoints.hang_up(1)
        await breakpoints.run()
        assert not breakpoints.is_open
        assert (told.begun, told.over) == (0, 0)


async def test_a_cancelled_call_gets_no_terminal() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, trio.fail_after(30):
        told = Told()
        breakpoints = make(ours, told)
        with theirs:
            theirs.send(json.dumps({"open": 1, "call": CANCELLED}).encode())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(breakpoints.run)
                await trio.lowlevel.wait_readable(theirs)
                assert json.loads(theirs.recv(1000)) == {"open": 1, "problem": "the call was cancelled"}
                nursery.cancel_scope.cancel()
        assert (told.begun, told.over) == (0, 0)
