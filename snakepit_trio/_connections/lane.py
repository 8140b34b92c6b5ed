"""The host's end of the lane: two pipes that carry the link's batches past HTTP/2 and asyncio.

A frame for a worker that has nothing else to do is written at once, by the task that says it. Other frames are written
in trio's next turn, together. A full pipe blocks nobody: one task waits until there is room. Another task reads.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from typing import Final, NoReturn

import trio

from bridge_py.wire.frames import BatchReader, head_of

from .link import LinkConnection, LinkLost

_READ_BYTES: Final = 65536  # what a pipe holds
SECONDS_PER_TURN: Final = 0.005  # for what one worker has sent


class Pipes:
    """The two pipes of a lane: the host's ends, and those of the worker until it has them."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            self.theirs_reading, self.writing = _pipe(undo)
            self.reading, self.theirs_writing = _pipe(undo)
            for ours in (self.reading, self.writing):
                os.set_blocking(ours, False)
            undo.pop_all()
        self._is_open = True

    @property
    def theirs(self) -> tuple[int, int]:
        """The worker's ends: to read from, and to write to."""
        return self.theirs_reading, self.theirs_writing

    def give(self) -> None:
        """Close our copies of the worker's ends. By now the worker has them, or it never will."""
        for descriptor in self.theirs:
            os.close(descriptor)

    def close(self) -> None:
        """Close our own. Once."""
        if self._is_open:
            self._is_open = False
            for descriptor in (self.reading, self.writing):
                trio.lowlevel.notify_closing(descriptor)
                os.close(descriptor)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


class Lane:
    """The lane of one link: it writes the link's batches, and hands each batch that it reads to the link.

    A batch that comes may have `max_batch` bytes; None stands for no limit.
    """

    def __init__(self, pipes: Pipes, link: LinkConnection, max_batch: int | None = None) -> None:
        self._pipes = pipes
        self._link = link
        self._batches = BatchReader(max_batch)
        self._unread: deque[bytes] = deque()  # batches that have come whole, and that the link has not got yet
        self._rest = b""  # of a batch that was written in part
        self._sleeper: trio.lowlevel.Task | None = None  # the one that writes, while it has nothing to do
        self._has_work = False
        self._is_lost = False

    def flush(self) -> None:
        """Write what the link has to say: now, or in the next turn of trio if the worker has other calls."""
        if self._has_work:
            return  # in the next turn, with what is written then
        if self._link.conversation.open_calls > 1:
            self._write_soon()
        else:
            self._write_now()

    def _write_now(self) -> None:
        """Write all batches, as far as there is room in the pipe."""
        while not self._rest and not self._is_lost and (data := self._link.next_batch()):
            self._send(head_of(data), data)
        if self._rest:
            self._write_soon()

    def _write_soon(self) -> None:
        self._has_work = True
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(sleeper)

    def _send(self, *parts: bytes) -> None:
        try:
            written = os.writev(self._pipes.writing, parts)
        except BlockingIOError:
            written = 0
        except OSError:
            self._is_lost = True  # the reader sees the end of the worker too, and tells it
            return
        if written < sum(map(len, parts)):
            self._rest = b"".join(parts)[written:]

    # A KeyboardInterrupt in the middle would lose bytes.
    @trio.lowlevel.enable_ki_protection
    async def write(self) -> NoReturn:
        """Write what waits for room in the pipe, or for its turn. Runs until cancelled."""
        while True:
            if not self._has_work:
                self._sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_sleeping)
            self._has_work = False
            while self._rest:
                await trio.lowlevel.wait_writable(self._pipes.writing)
                rest, self._rest = self._rest, b""
                self._send(rest)
            self._write_now()

    def _stop_sleeping(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    @trio.lowlevel.enable_ki_protection
    async def read(self) -> NoReturn:
        """Read until the pipe ends, then raise `LinkLost`. Exceptions of `receive` pass.

        However much has come, it is handled some milliseconds at a time, so that other tasks have their turns.
        """
        while True:
            await trio.lowlevel.wait_readable(self._pipes.reading)
            with contextlib.suppress(BlockingIOError):
                self._read()
            while self._unread or self._link.is_late:
                await trio.lowlevel.checkpoint()
                if self._link.is_late:
                    self._link.handle_late()
                else:
                    self._handle_batches()

    def end(self) -> None:
        """Write nothing any more."""
        self._is_lost = True
        self._rest = b""

    def drain(self) -> None:
        """Read what is in the pipe, without waiting. Exceptions of `receive` pass.

        It stops after as many bytes as a pipe holds: a worker that goes on writing must not keep the host here.
        """
        left = _READ_BYTES
        with contextlib.suppress(BlockingIOError, LinkLost):
            while left > 0:
                while self._unread:
                    self._handle_batches()
                left -= self._read(left)
        while self._unread:
            self._handle_batches()

    def _read(self, most: int = _READ_BYTES) -> int:
        data = os.read(self._pipes.reading, most)
        if not data:
            raise LinkLost("the worker closed the link")
        batches = self._batches.feed(data)
        if len(batches) == 1 and not self._unread:  # as nearly always
            self._link.receive(batches[0])
        else:
            self._unread += batches
            self._handle_batches()
        return len(data)

    def _handle_batches(self) -> None:
        """Hand batches to the link, for some milliseconds."""
        until = time.monotonic() + SECONDS_PER_TURN
        while self._unread:
            self._link.receive(self._unread.popleft())
            if self._unread and (self._link.is_late or time.monotonic() > until):
                break
