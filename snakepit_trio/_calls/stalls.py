"""Recalls calls that were sent ahead to a worker, if the worker then makes no progress."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from snakepit_trio._util.log import get_logger

from .call import Call, CallWorker
from .queues import Slot
from .scheduler import PATIENCE, Scheduler

logger = get_logger("snakepit.dispatcher")


class Stalls:
    """Watches the workers of a pool that hold more calls than they have places."""

    def __init__(self, scheduler: Scheduler[Call], workers: Mapping[Slot[Call], CallWorker]) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._sent_ahead = trio.Event()

    def note(self) -> None:
        """Note that a call was sent ahead."""
        if not self._sent_ahead.is_set():
            self._sent_ahead.set()

    async def watch(self) -> None:
        """Until cancelled, recall the calls that were sent ahead to workers that make no progress."""
        while True:
            await self._sent_ahead.wait()
            while self._scheduler.has_sent_ahead:
                await trio.sleep(PATIENCE)
                with logger.tolerates("recalling calls that were sent ahead"):
                    for slot, calls in self._scheduler.stalled(trio.current_time()):
                        for call in calls:
                            self._workers[slot].recall(call)
            self._sent_ahead = trio.Event()
