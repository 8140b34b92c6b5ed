"""Copies of large arguments: they are made before their calls are queued, and their number is bounded."""

from __future__ import annotations

from typing import Final

import trio

from bridge_py.buffers.buffer_sets import BufferSet
from bridge_py.buffers.shared_memory import Segments
from snakepit_trio._util.nurseries import told
from snakepit_trio._util.threads import run_in_thread
from snakepit_trio.errors import OutOfResources

_AT_ONCE: Final = 16 * 1024 * 1024  # bytes: copying more would block the event loop for too long
_EARLY: Final = 64 * 1024 * 1024  # bytes that are copied without a place


async def copy(buffers: BufferSet, segments: Segments | None) -> None:
    """Copy buffers: up to 16 MiB at once, without a checkpoint, and more in a thread.

    If cancelled, nothing is left of the copy. Raises `OutOfResources`.
    """
    steps = buffers.copy(segments)
    try:
        if buffers.size <= _AT_ONCE:
            for _ in steps:
                pass
        else:
            while await run_in_thread(next, steps, None) is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
    except (OSError, MemoryError, RuntimeError) as error:
        raise OutOfResources(f"{buffers.size} bytes could not be copied for a call: {told(error)}") from error
    finally:
        steps.close()


class SharedCopies:
    """The copies that calls of one pool hold. At most `places` calls have a copy, each until the call is over.

    Besides these there may be more copies, of 64 MiB together. So arguments that are not too large are copied at the
    moment of the call, however many calls there are. Other tasks may change the originals from then on.
    """

    def __init__(self, places: int) -> None:
        self._segments = Segments()
        self._room = trio.Semaphore(places)
        self._loaded: set[BufferSet] = set()
        self._early: set[BufferSet] = set()  # copies that hold no place
        self._early_bytes = 0

    async def take(self, buffers: BufferSet, *, share: bool) -> None:
        """Copy buffers, once; with `share`, into shared memory. Waits for a place; up to 16 MiB are copied at once.

        If cancelled, nothing is left of the copy. Raises `OutOfResources`. Even then a place that was taken is held
        until `give_back`.
        """
        if buffers in self._loaded:
            return
        await self._make_room(buffers)
        self._loaded.add(buffers)
        await copy(buffers, self._segments if share else None)

    async def _make_room(self, buffers: BufferSet) -> None:
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            if self._early_bytes + buffers.size > _EARLY:
                await self._room.acquire()
                return
            self._early.add(buffers)
            self._early_bytes += buffers.size

    def give_back(self, buffers: BufferSet) -> None:
        """Release the copy of buffers and its place, because their call is over."""
        if buffers in self._loaded:
            self._loaded.remove(buffers)
            if buffers in self._early:
                self._early.remove(buffers)
                self._early_bytes -= buffers.size
            else:
                self._room.release()
        buffers.release()

    def close(self) -> None:
        """Give the memory back."""
        self._segments.close()
