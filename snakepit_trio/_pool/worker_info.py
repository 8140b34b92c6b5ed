"""The workers of a pool, as the application sees and manages them."""

from __future__ import annotations

from typing import Literal

import attrs

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import Site
from snakepit_trio._config.worker_options import OptionsByNumber
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.validation import check_whole
from snakepit_trio._workers.supervisor import Supervisor, WorkerStarter
from snakepit_trio._workers.worker_process import Worker
from snakepit_trio._workers.worker_state import WorkerState

_WORKING = (WorkerState.READY, WorkerState.BUSY)


@attrs.frozen
class WorkerInfo:
    """One worker, at the moment of asking.

    `started_at` is Unix time in seconds. `resident_bytes` is the worker's resident memory. `latency` is how many
    seconds it took to answer the last ping. `missed_pings` is how many pings in a row it has not answered.
    `number` is the number that `per_worker` gets: the lowest, from 0 on, that no other worker had when this one was
    added. The worker that replaces it has the same.
    """

    id: str
    pid: int | None
    state: WorkerState
    calls_served: int
    started_at: float
    resident_bytes: int | None
    latency: float | None
    missed_pings: int
    number: int


@attrs.frozen
class PoolHealth:
    """How many workers of a pool work.

    `status` is "healthy" when all workers work, "degraded" when some work, and "unavailable" when none works.
    """

    status: Literal["healthy", "degraded", "unavailable"]
    expected: int
    working: int
    workers: tuple[WorkerInfo, ...]

    @classmethod
    def of(cls, workers: list[WorkerInfo], expected: int, is_closed: bool) -> PoolHealth:
        """Judge a pool by its workers."""
        working = 0 if is_closed else sum(worker.state in _WORKING and not worker.missed_pings for worker in workers)
        status: Literal["healthy", "degraded", "unavailable"] = "degraded"
        if working >= expected:
            status = "healthy"
        elif not working:
            status = "unavailable"
        return cls("unavailable" if is_closed else status, expected, working, tuple(workers))


class Workers:
    """A pool's workers: `pool.workers`."""

    def __init__(self, supervisor: Supervisor, site: Site, worker_options: OptionsByNumber) -> None:
        self._supervisor = supervisor
        self._site = site
        self._worker_options = worker_options

    def list(self) -> list[WorkerInfo]:
        """All workers, in the order of the numbers in their ids. A worker that is being replaced is listed twice."""
        return [info for starter in self._supervisor.starters.values() for info in _describe(starter)]

    def count(self) -> int:
        """How many workers there should be."""
        return self._supervisor.target

    def get(self, worker_id: str) -> WorkerInfo | None:
        """The worker of that id, or None."""
        starter = self._find(worker_id)
        return None if starter is None else _describe(starter)[-1]

    def by_pid(self, pid: int) -> WorkerInfo | None:
        """The worker whose process has that id, or None."""
        for starter in self._supervisor.starters.values():
            if any(worker.pid == pid for worker in starter.workers):
                return next(info for info in _describe(starter) if info.pid == pid)
        return None

    async def start(self, number: int = 1) -> tuple[str, ...]:
        """Add workers; returns their ids when all are ready.

        Many workers are started a few at a time. Raises `UsageError` for more workers than this machine can hold, and
        for what `per_worker` gives for them; no worker is started then.
        Raises `WorkerStartError`, at once, if a worker cannot start; the workers that can start stay. If cancelled, no
        more workers are started, and starts under way go on.
        """
        require_trio()
        check_whole("number", number, 0)
        wanted = self._supervisor.target + number
        self._site.check_room(wanted)
        self._worker_options.prepare(wanted)
        starters = await self._supervisor.start(number, self._site.starts_at_once)
        return tuple(starter.id for starter in starters)

    async def stop(self, worker_id: str) -> None:
        """Take a worker out of the pool: it takes no more calls, finishes the calls that it has, and ends.

        Raises `UsageError` if there is no worker of that id. If this is cancelled, the worker still ends.
        """
        require_trio()
        await self._supervisor.retire(self._starter(worker_id))

    async def restart(self, worker_id: str) -> None:
        """Replace a worker by a fresh one. The fresh one starts first; then the old one finishes its calls and ends.

        Returns when the fresh worker is ready. Raises `UsageError` if there is no worker of that id.
        """
        require_trio()
        starter = self._starter(worker_id)
        await self._supervisor.renew(starter)

    def _starter(self, worker_id: str) -> WorkerStarter:
        starter = self._find(worker_id)
        if starter is None:
            known = ", ".join(self._supervisor.starters)
            raise UsageError(f"there is no worker {worker_id!r}; there are: {known}")
        return starter

    def _find(self, worker_id: object) -> WorkerStarter | None:
        return self._supervisor.starters.get(worker_id) if isinstance(worker_id, str) else None


def _describe(starter: WorkerStarter) -> list[WorkerInfo]:
    workers = list(starter.workers)
    if starter.worker not in workers:
        workers.append(starter.worker)
    return [_info(worker, starter.state if worker is starter.worker else worker.state) for worker in workers]


def _info(worker: Worker, state: WorkerState) -> WorkerInfo:
    return WorkerInfo(
        worker.id,
        worker.pid,
        state,
        worker.calls_served,
        worker.started_at,
        worker.resident_bytes() or None,
        worker.health.latency,
        worker.health.missed,
        worker.number,
    )
