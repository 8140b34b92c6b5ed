"""The worker's end of the lane: two pipes that carry the link's batches past HTTP/2, an event loop and a thread.

Whoever has something to say writes it, and the main thread reads while it waits for a call: so a call that comes to an
idle worker wakes one thread, and its result is written by the thread that ran it. What makes that safe:

- The endpoint belongs to whoever holds `_link`. Nobody waits for it in order to speak: a thread that finds it taken
  leaves its reply in the outbox, and the holder looks into the outbox again after letting go of the lock.
- The pipe belongs to whoever holds `_ears`: the main thread while it waits for a call, else the *follower*. This thread
  looks every `_TICK` whether the main thread has been with the same call since the last look. If so, it reads in
  its place: so cancels, credit, recalls and pings are heard while a tool runs. When the main thread waits for a call
  again, the follower brings it that call, and the main thread reads for itself from then on. A follower that finds the
  worker idle for a while sleeps until the next call begins.
- A full pipe blocks nobody: the follower writes the rest of the batch when there is room.

Small replies in quick succession are collected for a tick at the most, as long as the next call has lately been a quick
one: writing each on its own costs a third of the throughput. What is collected dies with its worker.

Coroutine tools with `concurrency > 1` have the main thread for their event loop, so there the follower always reads.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Protocol

from bridge_py.wire.errors import DecodeError, ProtocolError
from bridge_py.wire.frames import BatchReader, head_of

__uninterruptible__ = True  # a batch that is half read or half written would be the end of the link
_TICK: Final = 0.002  # seconds
_IDLE_TICKS: Final = 50  # until the follower sleeps
_QUIET_TICKS: Final = 5  # with nothing to say, until a follower that listens does nothing else
_QUICK: Final = 0.0005  # seconds between two replies that may travel together
_READ_BYTES: Final = 65536  # what a pipe holds
_STOPS: Final = 2.0  # seconds for the threads to end

logger = logging.getLogger("snakepit.link")


def _never() -> bool:
    return False


class Endpoint(Protocol):
    """What a lane needs of the worker's end of the link."""

    is_ending: bool

    @property
    def has_posts(self) -> bool:
        """Whether there is something in the outbox. From any thread."""
        ...

    def take_outbox(self) -> None:
        """Say what is in the outbox."""

    def receive(self, data: bytes) -> None:
        """A batch has come. Raises `ProtocolError` and `DecodeError`."""

    def data_to_send(self) -> bytes:
        """The next batch; nothing if there is none."""
        ...


class Lane:
    """Moves the batches of a `LinkEndpoint` through two pipes. `lost` is called when they can be moved no more."""

    def __init__(self, end: Endpoint, reading: int, writing: int, lost: Callable[[], None]) -> None:
        self._end = end
        self._reading = reading
        self._writing = writing
        self._lost = lost
        os.set_blocking(writing, False)
        self._batches = BatchReader()
        self._link = threading.Lock()
        self._ears = threading.Lock()
        self._rest = b""  # of a batch that was written in part; the follower's
        self._bell = _Bell()  # wakes the follower
        self._sleeps = self._ticks = False  # the follower
        self._is_wanted = False  # somebody waits for what the host will say
        self._turns = 0  # calls that the main thread has begun
        self._main_waits = False  # for a call, while the follower reads
        self._is_closed = False
        self._said_at = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._woken, self._waker = os.pipe()
        self._is_woken = False
        self._follower = threading.Thread(target=self._run_follower, name="lane", daemon=True)
        self._has_next = self._is_next_quick = _never
        self._main_reads = False

    # For the executor.

    def next(self, calls: SimpleQueue[int | None]) -> int | None:
        """The main thread waits for the next call: the next of `calls`."""
        while calls.empty():
            self._speak()
            if self._is_closed or not self._ears.acquire(blocking=False):
                return self._begin(self._wait_for(calls))
            try:
                self._read()
            finally:
                self._ears.release()
        return self._begin(calls.get())

    def _wait_for(self, calls: SimpleQueue[int | None]) -> int | None:
        self._main_waits = True
        try:
            return calls.get()
        finally:
            self._main_waits = False

    def _begin(self, call_id: int | None) -> int | None:
        self._turns += 1
        if self._sleeps:
            self._bell.ring()
        return call_id

    def leave(self) -> None:
        """The main thread waits for calls no more."""
        self._main_reads = False
        self._want()

    # For the endpoint: its `Driver`.

    clock = staticmethod(time.monotonic)

    def post(self, verb: str) -> None:
        """There is something in the outbox. From any thread."""
        if verb == "ask":
            self._speak()
            self._want()
        elif not self._may_wait(verb):
            self._speak()

    def _may_wait(self, verb: str) -> bool:
        """Whether more will be said soon that can travel together with this."""
        now = time.monotonic()
        is_quick, self._said_at = now - self._said_at < _QUICK, now
        if not is_quick or (verb != "chunk" and not self._is_next_quick()):
            return False
        if not self._ticks:
            self._wake()  # from now on
        return self._ticks

    def flush(self) -> None:
        """Do nothing: whoever has the link writes what there is before it lets go of it."""

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function after some time, with the link in hand. With the link in hand."""
        timer = time.monotonic() + seconds, next(self._numbers), lambda: function(*args)
        heapq.heappush(self._timers, timer)
        self._bell.ring()
        self._wake()

    def make_queue(self) -> SimpleQueue[Any]:
        """What a thread waits at for something that the host will say."""
        return _Waited(self)

    def waits(self) -> None:
        """A thread waits for something that the host will say."""
        self._speak()
        self._want()

    def _want(self) -> None:
        self._is_wanted = True
        self._bell.ring()

    # Reading.

    def _read(self) -> None:
        """Wait for bytes, and do what they say. With `_ears` in hand."""
        data = os.read(self._reading, _READ_BYTES)
        if not data:
            self._is_closed = True
            self._give_up()
            return
        try:
            batches = self._batches.feed(data)
            if batches:
                with self._link:
                    for batch in batches:
                        self._end.receive(batch)
                    self._write()
        except Exception as error:
            self._fail(error)
        self._speak()

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, (ProtocolError, DecodeError)):
            logger.error("the host broke the protocol: %s", error)
        else:
            logger.error("the link failed", exc_info=error)
        self._give_up()

    def _give_up(self) -> None:
        if not self._end.is_ending:
            self._lost()

    # Writing.

    def _speak(self) -> None:
        """Say and write what is in the outbox, here if nobody else does."""
        while self._end.has_posts and self._link.acquire(blocking=False):
            try:
                self._end.take_outbox()
                self._write()
            except Exception as error:
                self._fail(error)
            finally:
                self._link.release()

    def _write(self) -> None:
        """Write what was said. With the link in hand."""
        while not self._rest and (data := self._end.data_to_send()):
            self._send(head_of(data), data)

    def _send(self, *parts: bytes) -> None:
        try:
            written = os.writev(self._writing, parts)
        except BlockingIOError:
            written = 0
        except OSError:
            self._give_up()  # the host has gone
            return
        if written < sum(map(len, parts)):
            self._rest = b"".join(parts)[written:]
            self._bell.ring()
            self._wake()

    def _write_rest(self) -> None:
        """Write what the pipe had no room for, as far as it has some now."""
        with self._link:
            rest, self._rest = self._rest, b""
            self._send(rest)
            self._write()
        self._speak()

    # The follower.

    def open(self, has_next: Callable[[], bool] | None, is_next_quick: Callable[[], bool] = _never) -> None:
        """Begin. `has_next` tells whether a call waits for the main thread; None if that reads nothing.

        `is_next_quick` tells whether such a call will take no time worth mentioning.
        """
        self._is_next_quick = is_next_quick
        if has_next is not None:
            self._main_reads = True
            self._has_next = has_next
        self._follower.start()

    def _run_follower(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: ASYNC103 - a thread's own: without it the worker would be deaf
            self._fail(error)

    def _follow(self) -> None:
        turn, idle = -1, 0
        has_room = select.poll()
        has_room.register(self._writing, select.POLLOUT)
        while not self._is_closed:
            if idle > _IDLE_TICKS and not self._timers and not self._rest:
                self._sleep(turn)
                idle = 0
            self._ticks = True
            if not self._rest:
                self._bell.wait(_TICK)
            elif has_room.poll(_TICK * 1000):
                self._write_rest()
            self._run_timers()
            self._speak()
            is_same, turn = turn == self._turns, self._turns
            idle = idle + 1 if is_same else 0
            if not self._main_reads or self._is_wanted or (is_same and not self._ears.locked()):
                self._listen()
                idle = 0

    def _sleep(self, turn: int) -> None:
        # The main thread counts its turn first and looks at `_sleeps` then, so one of the two sees the other.
        self._ticks = False
        self._sleeps = True
        if turn == self._turns and self._ears.locked() and not self._is_closed:
            self._bell.wait()
        self._sleeps = False

    def _listen(self) -> None:
        """Read in place of the main thread, until that waits for a call and has got it."""
        if not self._ears.acquire(blocking=False):
            self._is_wanted = False  # the main thread reads
            return
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        quiet = 0
        try:
            while not self._is_closed:
                ready = self._wait_in(poll, self._nap(quiet))
                quiet = 0 if self._end.has_posts or self._was_woken(ready) else quiet + 1
                self._run_timers()
                self._speak()
                if self._reading in ready and self._reads_for_main():
                    return
        finally:
            self._is_wanted = False
            self._ears.release()

    def _wait_in(self, poll: select.poll, milliseconds: float | None) -> list[int]:
        is_full = bool(self._rest)
        if is_full:
            poll.register(self._writing, select.POLLOUT)
        ready = [descriptor for descriptor, _ in poll.poll(milliseconds)]
        if is_full:
            poll.unregister(self._writing)
            if self._writing in ready:
                self._write_rest()
        return ready

    def _reads_for_main(self) -> bool:
        """Read. Returns whether the main thread has waited for a call and has got it."""
        main_waits = self._main_waits
        self._read()
        return main_waits and (self._has_next() or not self._main_waits)

    def _nap(self, quiet: int) -> float | None:
        """How long to wait for the host, in milliseconds; None for ever. `quiet`: ticks without anything to say."""
        self._ticks = quiet <= _QUIET_TICKS or bool(self._timers)
        if self._ticks:
            return _TICK * 1000
        self._speak()  # somebody may have left it to us a moment ago
        return None

    def _wake(self) -> None:
        """Have the follower look each tick."""
        if not self._is_woken:
            self._is_woken = True
            os.write(self._waker, b"x")

    def _was_woken(self, ready: list[int]) -> bool:
        if self._woken not in ready:
            return False
        os.read(self._woken, 1)
        self._is_woken = False
        return True

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            with self._link:
                heapq.heappop(self._timers)[2]()
                self._write()
            self._speak()

    def close(self) -> None:
        """End the follower: in an interpreter that is finalized it would have nowhere to go.

        The lane's pipes stay open: their end is the end of the link.
        """
        self._speak()
        self._is_closed = True
        self._wake()
        self._bell.ring()
        self._follower.join(_STOPS)
        if not self._follower.is_alive():
            os.close(self._woken)
            os.close(self._waker)


class _Bell:
    """Wakes one thread, also one that only begins to wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        # It may ring already.
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float = -1) -> None:
        self._lock.acquire(timeout=seconds)


class _Waited(SimpleQueue[Any]):
    """A queue whose thread has the lane read while it waits."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.empty():
            self._lane.waits()
        return super().get(block, timeout)
