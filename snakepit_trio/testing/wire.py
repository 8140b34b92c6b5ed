"""One direction of a link in memory, and its faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import trio

from bridge_py.wire.frames import decode_batch, encode_batch

from .faults import BatchFault, Cut, Direction, Faults, Garbage, Silence, Slow, Split


class _Batch(NamedTuple):
    time: float  # it does not come before this time
    data: bytes
    is_whole: bool  # it may come together with others


class Wire:
    """Carries batches, in order, until it is closed. `broken` is called when a fault ends the link."""

    def __init__(self, faults: Faults, worker_id: str, direction: Direction, broken: Callable[[], None]) -> None:
        self._faults = faults
        self._worker_id = worker_id
        self._direction = direction
        self._broken = broken
        self._batches: deque[_Batch] = deque()
        self._news = trio.Event()
        self._is_closed = False
        self._is_silent = False

    def put(self, batch: bytes) -> None:
        """Send a batch. Nothing is sent after the end."""
        if self._is_closed or self._is_silent:
            return
        fault = None
        if self._faults.faults:
            fault = self._faults.take(BatchFault, self._worker_id, self._direction)
        earliest = self._batches[-1].time if self._batches else 0.0
        if fault is None:
            self._batches.append(_Batch(earliest, batch, True))
        else:
            for time, part, is_whole in self._parts(batch, fault):
                self._batches.append(_Batch(max(earliest, time), part, is_whole))
        self._news.set()

    def _parts(self, batch: bytes, fault: BatchFault) -> Iterator[tuple[float, bytes, bool]]:
        now = trio.current_time()
        match fault:
            case Slow(seconds=seconds):
                yield now + seconds, batch, True
            case Split(seconds=seconds):
                for number, frame in enumerate(decode_batch(batch)):
                    yield now + number * seconds, encode_batch([frame]), False
            case Cut(at=at):
                yield 0.0, batch[: int(at * len(batch))], False
                self._broken()
            case Garbage(data=data):
                yield 0.0, data, False
            case Silence():
                self._is_silent = True
            case _:
                pass

    def close(self) -> None:
        """Send the end. The batches that were sent still come before it."""
        self._is_closed = True
        self._news.set()

    async def get(self) -> bytes | None:
        """Wait for batches, and return all that have come as one batch; None at the end."""
        has_waited = False
        while not (come := self._take()):
            if self._is_closed and not self._batches:
                return None
            self._news = trio.Event()
            has_waited = True
            if self._batches:
                with trio.move_on_at(self._batches[0].time):
                    await self._news.wait()
            else:
                await self._news.wait()
        if not has_waited:
            await trio.lowlevel.checkpoint()
        return come

    def _take(self) -> bytes:
        # Frames are fields of a message, so several batches in a row are one batch. A broken batch comes alone, so that
        # it spoils no other.
        parts: list[bytes] = []
        batches = self._batches
        while batches and (batches[0].time == 0.0 or batches[0].time <= trio.current_time()):
            if parts and not batches[0].is_whole:
                break
            parts.append(batches[0].data)
            if not batches.popleft().is_whole:
                break
        return b"".join(parts)
