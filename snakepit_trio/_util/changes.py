"""Waiting for the next change of something."""

from __future__ import annotations

import trio


class Changes:
    """Wakes all waiting tasks whenever something has changed. They look for themselves at what has changed."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake all waiting tasks: something has changed."""
        changed, self._event = self._event, trio.Event()
        changed.set()

    async def wait(self) -> None:
        """Wait for the next `notify`. A checkpoint of trio; cancelling loses nothing."""
        await self._event.wait()
