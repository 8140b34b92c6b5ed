"""Keeps the pool at strength: a starter per worker restarts it when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from .errors import WorkerStartError
from .worker import Worker

logger = logging.getLogger("snakepit.supervisor")

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0


class WorkerStarter:
    """Runs one worker after another under one id."""

    def __init__(self, id: str, make_worker: Callable[[str], Worker]) -> None:
        self.id = id
        self.worker = make_worker(id)
        self.restarts = 0
        self._make_worker = make_worker
        self._stopping = trio.Event()

    async def run(self) -> None:
        """Run and restart until `stop`. Raises `WorkerStartError` if the very first start fails."""
        vain = 0  # workers in a row that ended before they had served a call
        while not self._stopping.is_set():
            try:
                await self.worker.run()
            except WorkerStartError as error:
                if self.restarts == 0:
                    raise
                logger.error("%s", error)
            if self._stopping.is_set():
                return
            if self.worker.failure is not None:
                logger.warning("%s; it is replaced", self.worker.failure)
            vain = 0 if self.worker.calls_served else vain + 1
            await self._pause(vain)
            self.restarts += 1
            self.worker = self._make_worker(self.id)

    async def _pause(self, vain: int) -> None:
        if vain > 1:
            delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(vain - 2, 10))
            with trio.move_on_after(delay):
                await self._stopping.wait()

    def stop(self) -> None:
        """End the worker in order and start no other."""
        self._stopping.set()
        self.worker.stop()


class Supervisor:
    """All starters of a pool."""

    def __init__(
        self, ids: list[str], make_worker: Callable[[str], Worker], report_failure: Callable[[], None]
    ) -> None:
        self._report_failure = report_failure
        self.starters = [WorkerStarter(worker_id, make_worker) for worker_id in ids]
        self._first_failure: WorkerStartError | None = None
        self._ended = trio.Event()

    async def run(self) -> None:
        """Run all starters, at once, until `stop`."""
        try:
            async with trio.open_nursery() as nursery:
                for starter in self.starters:
                    nursery.start_soon(self._run, starter)
        finally:
            self._ended.set()

    async def _run(self, starter: WorkerStarter) -> None:
        try:
            await starter.run()
        except WorkerStartError as error:
            self._first_failure = self._first_failure or error
            self._report_failure()

    def check(self) -> None:
        """Raise the `WorkerStartError` of the first worker that could not start, if any."""
        if self._first_failure is not None:
            raise self._first_failure

    async def stop(self) -> None:
        """End all workers in order, side by side; returns when they have ended."""
        for starter in self.starters:
            starter.stop()
        await self._ended.wait()
