"""Replaces workers because the owner of the pool asks for it: one of them, or all, to run code that has changed.

A worker is replaced by its starter, in the way in which it is recycled. This module asks for that, and waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import trio

from snakepit_trio._util.changes import Changes

from .supervisor import WorkerStarter
from .worker_process import Worker

_RESTART: Final = "its pool's owner asked for it"
_RELOAD: Final = "its pool is reloaded"


class Renewal:
    """Replaces the workers of one pool."""

    def __init__(self, starters: Mapping[str, WorkerStarter], changes: Changes) -> None:
        self._starters = starters
        self._changes = changes
        self._turn = trio.Lock()

    async def renew(self, starter: WorkerStarter) -> None:
        """Replace a worker by a fresh one. Returns when the fresh worker is ready, or when the starter is gone.

        If a spare steps in, that is the fresh worker. Raises the `WorkerStartError` of a fresh worker that cannot
        start. If cancelled, the replacement goes on.
        """
        # A worker that starts is fresh, and cannot be replaced yet.
        old = [starter.worker] if starter.worker.was_ready else []
        was_spare = starter.is_spare
        await self._replace(starter, old, _RESTART, lambda each: each.is_spare is not was_spare)

    async def reload(self) -> None:
        """Replace all workers and spares that there are now, one at a time. Returns when fresh ones are ready.

        Raises the `WorkerStartError` of the first fresh worker that cannot start; further workers are not replaced. If
        cancelled, the replacement under way goes on, and no further one begins.
        """
        old = {worker for starter in self._starters.values() for worker in (*starter.workers, starter.worker)}
        async with self._turn:
            # A second reload looks here first when its turn comes: the first may have replaced all that it is about.
            while (starter := self._next(old)) is not None:
                await self._replace(starter, old, _RELOAD, lambda each: each.is_stopping)

    def _next(self, old: Collection[Worker]) -> WorkerStarter | None:
        """A starter whose worker is old, or is not up; spares come first, so that they step in with the new code."""
        left = [each for each in self._starters.values() if not each.is_stopping and not _is_fresh(each, old)]
        return min(left, key=lambda each: not each.is_spare, default=None)

    async def _replace(
        self, starter: WorkerStarter, old: Collection[Worker], reason: str, is_enough: Callable[[WorkerStarter], bool]
    ) -> None:
        failed = starter.failed_starts
        while starter.id in self._starters and not _is_fresh(starter, old) and not is_enough(starter):
            if starter.failed_starts > failed and starter.start_failure is not None:
                raise starter.start_failure
            # Again and again: the worker may only just have started. But a start that fails is over before the next.
            if starter.worker in old and not starter.is_starting:
                starter.worker.recycle(reason)
            await self._changes.wait()


def _is_fresh(starter: WorkerStarter, old: Collection[Worker]) -> bool:
    return starter.worker not in old and starter.worker.is_up
