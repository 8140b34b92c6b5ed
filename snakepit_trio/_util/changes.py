"""Waiting for the next change of something."""

from __future__ import annotations

import trio


class Changes:
    """Wakes all who wait whenever something has changed; what exactly, they look at themselves."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Something has changed."""
        changed, self._event = self._event, trio.Event()
        changed.set()

    async def wait(self) -> None:
        """Wait for the next `notify`. A checkpoint of trio; cancelling loses nothing."""
        await self._event.wait()
