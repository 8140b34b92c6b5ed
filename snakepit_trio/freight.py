"""Copies of large arguments in shared memory, made before their calls stand in line, and never too many."""

from __future__ import annotations

from typing import Final

import trio

from bridge_py.cargo import Cargo
from bridge_py.shared import Segments

from .errors import OutOfResources
from .nurseries import told
from .threads import run_in_thread

_IN_PLACE: Final = 1024 * 1024  # bytes that are copied faster than a thread is woken


class Freight:
    """The copies that calls of one pool hold. At most `places` calls have one, each until it is over."""

    def __init__(self, places: int) -> None:
        self._segments = Segments()
        self._room = trio.Semaphore(places)
        self._loaded: set[Cargo] = set()

    async def load(self, cargo: Cargo) -> None:
        """Copy a cargo, once; waits for a place. If cancelled, nothing is left of the copy.

        Raises `OutOfResources`. The place is held until `unload`, also then.
        """
        if cargo in self._loaded:
            return
        await self._room.acquire()
        self._loaded.add(cargo)
        steps = cargo.share(self._segments)
        try:
            if cargo.size <= _IN_PLACE:
                for _ in steps:
                    pass
            else:
                while await run_in_thread(next, steps, None) is not None:
                    pass
        except (OSError, MemoryError, RuntimeError) as error:
            raise OutOfResources(f"{cargo.size} bytes could not be copied for a call: {told(error)}") from error
        finally:
            steps.close()

    def unload(self, cargo: Cargo) -> None:
        """Its call is over."""
        if cargo in self._loaded:
            self._loaded.remove(cargo)
            self._room.release()
        cargo.release()

    def close(self) -> None:
        """Give the memory back."""
        self._segments.close()
