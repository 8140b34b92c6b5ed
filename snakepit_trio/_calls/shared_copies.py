"""Copies of large arguments, made before their calls stand in line, and never too many."""

from __future__ import annotations

from typing import Final

import trio

from bridge_py.buffers.buffer_sets import BufferSet
from bridge_py.buffers.shared_memory import Segments
from snakepit_trio._util.nurseries import told
from snakepit_trio._util.threads import run_in_thread
from snakepit_trio.errors import OutOfResources

_AT_ONCE: Final = 16 * 1024 * 1024  # bytes: copying more would keep the event loop for too long
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
    """The copies that calls of one pool hold. At most `places` calls have one, each until it is over.

    Besides these there may be some more copies, of 64 MiB together. So what is not too large is copied the moment it is
    sent, however many calls are there, and may be changed by other tasks from then on.
    """

    def __init__(self, places: int) -> None:
        self._segments = Segments()
        self._room = trio.Semaphore(places)
        self._loaded: set[BufferSet] = set()
        self._early: set[BufferSet] = set()  # those of them that hold no place
        self._early_bytes = 0

    async def take(self, buffers: BufferSet, *, share: bool) -> None:
        """Copy buffers, once: to shared memory with `share`. Waits for a place; up to 16 MiB are copied at once.

        If cancelled, nothing is left of the copy. Raises `OutOfResources`.
        The place is held until `give_back`, also then.
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
        """Its call is over."""
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
