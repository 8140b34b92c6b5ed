"""The worker's end of the lane: two pipes that carry the link's batches past HTTP/2, an event loop and a thread.

The main thread reads while it waits for a call, and each thread writes its own replies. So a call that comes to an idle
worker wakes one thread, which also runs the call and writes the result. These rules make that safe:

- `_endpoint_lock` guards the endpoint. A thread never waits for this lock in order to reply: if the lock is taken, the
  thread leaves its reply in the outbox. The holder looks into the outbox again after it has released the lock. A thread
  that has logged waits for a moment: its process may die next.
- `_read_lock` guards the pipe that is read. The main thread holds it while it waits for a call; at other times the
  *follower* may hold it. The follower is a thread that looks every `_TICK` whether the main thread still runs the same
  call as at the last look. If so, the follower reads in its place, so that the worker hears cancels, credit, recalls
  and pings while a tool runs. When the main thread waits for a call again, the follower brings it that call, and from
  then on the main thread reads for itself. While the worker is idle, the follower sleeps until the next call begins.
- A full pipe blocks no thread: the follower writes the rest of the batch when there is room.

Small replies in quick succession are collected for a tick at most, if the next call was a quick one lately: then one
write carries many of them. Replies that are collected are lost when the worker dies.

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
_QUIET_TICKS: Final = 5  # without a reply, until a follower that reads no longer looks every tick
_QUICK: Final = 0.0005  # seconds between two replies that may travel together
_READ_BYTES: Final = 65536  # what a pipe holds
_LOG_WAITS: Final = 0.02  # seconds that a thread which has logged waits for the link
_STOPS: Final = 2.0  # seconds that the follower gets to end

logger = logging.getLogger("snakepit.link")


def _never() -> bool:
    return False


class Endpoint(Protocol):
    """The worker's end of the link, as a lane uses it."""

    is_ending: bool
    is_stopping: bool  # whether code of a call is being stopped, and was not met where that may be done

    @property
    def has_posts(self) -> bool:
        """Whether the outbox has entries. Any thread may ask."""
        ...

    def take_outbox(self) -> None:
        """Make frames of what is in the outbox."""

    def receive(self, data: bytes) -> None:
        """Handle a batch from the host. Raises `ProtocolError` and `DecodeError`."""

    def data_to_send(self) -> bytes:
        """Return the next batch; empty bytes if there is none."""
        ...


class Lane:
    """Moves the batches of a `LinkEndpoint` through two pipes. Calls `lost` when that is no longer possible.

    A batch that comes may have `max_batch` bytes; None stands for no limit.
    """

    def __init__(
        self, endpoint: Endpoint, reading: int, writing: int, lost: Callable[[], None], max_batch: int | None = None
    ) -> None:
        self._endpoint = endpoint
        self._reading = reading
        self._writing = writing
        self._lost = lost
        os.set_blocking(writing, False)
        self._batches = BatchReader(max_batch)
        self._endpoint_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._reader = 0  # the id of the thread that handles batches, and has `_endpoint_lock`
        self._rest = b""  # of a batch that was written in part: the follower writes it
        self._bell = _Bell()  # wakes the follower
        self._sleeps = self._ticks = False  # whether the follower sleeps; whether it looks every tick
        self._is_wanted = False  # whether a thread waits for a message of the host
        self._turns = 0  # calls that the main thread has begun
        self._main_waits = False  # whether it waits for a call while the follower reads
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
        """Return the next of `calls`, and read the lane while there is none. For the main thread."""
        while calls.empty():
            self._speak()
            if self._is_closed or not self._read_lock.acquire(blocking=False):
                call_id = self._wait_for(calls)
                break
            try:
                self._read()
            finally:
                self._read_lock.release()
        else:
            call_id = calls.get()
        self._turns += 1
        if self._sleeps:
            self._bell.ring()
        return call_id

    def _wait_for(self, calls: SimpleQueue[int | None]) -> int | None:
        self._main_waits = True
        try:
            return calls.get()
        finally:
            self._main_waits = False

    def leave(self) -> None:
        """Read in place of the main thread from now on, which waits for no more calls."""
        self._main_reads = False
        self._want()

    # For the endpoint: its `Driver`.

    clock = staticmethod(time.monotonic)

    def post(self, verb: str) -> None:
        """Send what is in the endpoint's outbox. `verb` is the kind of the last entry. Any thread may call this."""
        if verb == "ask":
            self._speak()
            self._want()
        elif verb == "log":
            self._write_now()
        elif not self._may_wait(verb):
            self._speak()

    def _may_wait(self, verb: str) -> bool:
        """Whether another reply will come so soon that the two can travel together."""
        now = time.monotonic()
        is_quick, self._said_at = now - self._said_at < _QUICK, now
        if not is_quick or (verb != "chunk" and not self._is_next_quick()):
            return False
        if not self._ticks:
            self._wake()  # from now on
        return self._ticks

    def flush(self) -> None:
        """Do nothing: the holder of `_endpoint_lock` writes all frames before it releases the lock."""

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function after some time, on the follower. It runs under `_endpoint_lock`, as this must, too."""
        timer = time.monotonic() + seconds, next(self._numbers), lambda: function(*args)
        heapq.heappush(self._timers, timer)
        self._bell.ring()
        self._wake()

    def make_queue(self) -> SimpleQueue[Any]:
        """Make the queue at which a thread waits for a message of the host."""
        return _Waited(self)

    def waits(self) -> None:
        """Have the follower read now, because a thread waits for a message of the host."""
        self._speak()
        self._want()

    def _want(self) -> None:
        self._is_wanted = True
        self._bell.ring()

    # Reading.

    def _read(self) -> None:
        """Wait for bytes, and handle the batches in them. The caller holds `_read_lock`."""
        data = os.read(self._reading, _READ_BYTES)
        if not data:
            self._is_closed = True
            self._give_up()
            return
        try:
            batches = self._batches.feed(data)
            if batches:
                with self._endpoint_lock:
                    self._reader = threading.get_ident()
                    for batch in batches:
                        self._endpoint.receive(batch)
                    self._write()
                    self._reader = 0
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
        if not self._endpoint.is_ending:
            self._lost()

    # Writing.

    def _speak(self) -> None:
        """Write what is in the outbox, unless another thread is doing that."""
        while self._endpoint.has_posts and self._endpoint_lock.acquire(blocking=False):
            self._write_outbox()

    def _write_outbox(self) -> None:
        """Write what is in the outbox. The caller holds `_endpoint_lock`, which this releases."""
        try:
            self._endpoint.take_outbox()
            self._write()
        except Exception as error:
            self._fail(error)
        finally:
            self._endpoint_lock.release()

    def _write_now(self) -> None:
        """Write what is in the outbox, also if another thread has the link just now: this process may die next.

        That thread may wait for its turn to run Python, as long as this one goes on.
        """
        if self._endpoint.is_stopping:  # the thread that stops this one has the lock: it must not always meet it here
            self._speak()
            return
        if self._reader == threading.get_ident() or not self._endpoint_lock.acquire(timeout=_LOG_WAITS):
            return  # whoever has the link writes it
        self._write_outbox()
        self._speak()

    def _write(self) -> None:
        """Write all frames. The caller holds `_endpoint_lock`."""
        while not self._rest and (data := self._endpoint.data_to_send()):
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
        """Write the rest of a batch, as far as the pipe has room for it now."""
        with self._endpoint_lock:
            rest, self._rest = self._rest, b""
            self._send(rest)
            self._write()
        self._speak()

    # The follower.

    def open(self, has_next: Callable[[], bool] | None, is_next_quick: Callable[[], bool] = _never) -> None:
        """Start the follower.

        `has_next` tells whether a call waits for the main thread; it is None if the main thread does not read the lane.
        `is_next_quick` tells whether that call was a quick one lately.
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
            if not self._main_reads or self._is_wanted or (is_same and not self._read_lock.locked()):
                self._listen()
                idle = 0

    def _sleep(self, turn: int) -> None:
        # The main thread counts its turn first and looks at `_sleeps` then, so one of the two sees the other.
        self._ticks = False
        self._sleeps = True
        if turn == self._turns and self._read_lock.locked() and not self._is_closed:
            self._bell.wait()
        self._sleeps = False

    def _listen(self) -> None:
        """Read in place of the main thread, until it has waited for a call and got one."""
        if not self._read_lock.acquire(blocking=False):
            self._is_wanted = False  # the main thread reads
            return
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        quiet = 0
        try:
            while not self._is_closed:
                ready = self._wait_in(poll, self._nap(quiet))
                quiet = 0 if self._endpoint.has_posts or self._was_woken(ready) else quiet + 1
                self._run_timers()
                self._speak()
                if self._reading in ready and self._reads_for_main():
                    return
        finally:
            self._is_wanted = False
            self._read_lock.release()

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
        """How long to wait for the host, in milliseconds; None: for ever. `quiet` counts the ticks without a reply."""
        self._ticks = quiet <= _QUIET_TICKS
        if self._ticks:
            return _TICK * 1000
        self._speak()  # a thread may have left a reply to us a moment ago
        return max(0.0, self._timers[0][0] - time.monotonic()) * 1000 if self._timers else None

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
            with self._endpoint_lock:
                heapq.heappop(self._timers)[2]()
                self._write()
            self._speak()

    def close(self) -> None:
        """End the follower, because the interpreter ends.

        All pipes stay open until the process ends: threads that tools have left behind may still write.
        """
        self._speak()
        self._is_closed = True
        self._wake()
        self._bell.ring()
        self._follower.join(_STOPS)


class _Bell:
    """Wakes one thread, even one that has not begun to wait yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        # The bell may be ringing already.
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float = -1) -> None:
        self._lock.acquire(timeout=seconds)


class _Waited(SimpleQueue[Any]):
    """A queue that has the follower read the lane while a thread waits at the queue."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.empty():
            self._lane.waits()
        return super().get(block, timeout)
