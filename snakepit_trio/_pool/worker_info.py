"""The workers of a pool, as the application sees and manages them."""

from __future__ import annotations

from typing import Literal

import attrs

from bridge_py.wire.amounts import plain
from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import PoolConfig, Site
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.validation import check_whole
from snakepit_trio._workers.autoscaling import AutoscalingPolicy
from snakepit_trio._workers.renewal import Renewal
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
    added. The worker that replaces it has the same, unless a spare steps in: a spare has a number of its own.
    `is_spare` is whether it is a spare, or will be one when it has started again. It gets no calls until it steps in
    for another worker. Its state is `WorkerState.SPARE` when it could step in at once.
    `resources` are the amounts that it offers, by name, and `resources_in_use` those that its calls take of them.
    `dropped_logs` is how many of its log records were dropped, because there were too many at a time.
    `restarts` is how often its process has been replaced after it had ended.
    `node` is the machine that it runs on, if a launcher of a cluster has chosen that. The `pid` is that machine's then,
    and `resident_bytes` is from the latest look at the worker. None for this machine, and while there is no process.
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
    is_spare: bool
    resources: dict[str, float] = attrs.field(factory=dict)
    resources_in_use: dict[str, float] = attrs.field(factory=dict)
    dropped_logs: int = 0
    restarts: int = 0
    node: str | None = None


@attrs.frozen
class PoolHealth:
    """How many workers of a pool work, of the `expected` number. Spares are listed, and are not counted.

    A worker and the one that replaces it count as one while both take calls.

    `status` is "healthy" when all workers work, "degraded" when some work, and "unavailable" when none works.
    """

    status: Literal["healthy", "degraded", "unavailable"]
    expected: int
    working: int
    workers: tuple[WorkerInfo, ...]

    @classmethod
    def of(cls, workers: list[WorkerInfo], expected: int, is_closed: bool) -> PoolHealth:
        """Judge a pool by its workers."""
        answering = sum(worker.state in _WORKING and not worker.missed_pings for worker in workers)
        working = 0 if is_closed else min(answering, expected)
        status: Literal["healthy", "degraded", "unavailable"] = "degraded"
        if working >= expected:
            status = "healthy"
        elif not working:
            status = "unavailable"
        return cls("unavailable" if is_closed else status, expected, working, tuple(workers))


class Workers:
    """A pool's workers: `pool.workers`."""

    def __init__(
        self, supervisor: Supervisor, renewal: Renewal, site: Site, config: PoolConfig, policy: AutoscalingPolicy
    ) -> None:
        self._supervisor = supervisor
        self._renewal = renewal
        self._policy = policy
        self._site = site
        self._worker_options = config.worker_options
        self._spares = config.spares

    def list(self) -> list[WorkerInfo]:
        """All workers and spares, in the order of the numbers in their ids.

        A worker that is being replaced is listed twice.
        """
        return [info for starter in self._supervisor.starters.values() for info in _describe(starter)]

    def count(self) -> int:
        """How many workers there should be, without spares."""
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

        Many workers are started a few at a time. Raises `UsageError` for more workers than this machine can hold, or
        than an autoscaled pool may have, and for what `per_worker` gives for them; no worker is started then.
        Raises `WorkerStartError`, at once, if a worker cannot start; the workers that can start stay. Raises
        `PoolClosed` if the pool closes. If cancelled, no more workers are started, and starts under way go on.
        """
        require_trio()
        check_whole("number", number, 0)
        self._supervisor.check_open()
        wanted, bounds = self._supervisor.target + number, self._policy.bounds
        if bounds.is_range and wanted > bounds.most:
            raise UsageError(
                f"this pool has at most {bounds.most} workers: resize((least, most)) gives it other bounds"
            )
        added = await self._add(number)
        self._supervisor.check_open()
        return added

    async def _add(self, number: int) -> tuple[str, ...]:
        self._prepare(self._supervisor.target + number)
        starters = await self._supervisor.start(number, self._site.starts_at_once)
        return tuple(starter.id for starter in starters)

    def _prepare(self, wanted: int) -> None:
        self._check_room(wanted)
        self._worker_options.prepare(wanted + self._spares)

    async def stop(self, worker_id: str) -> None:
        """Take a worker out of the pool: it takes no more calls, finishes the calls that it has, and ends.

        No spare steps in for it. If it is a spare, it ends, and the pool starts another spare. An autoscaled pool
        starts another worker if there are too few then.

        Raises `UsageError` if there is no worker of that id. If this is cancelled, the worker still ends.
        """
        require_trio()
        await self._supervisor.retire(self._starter(worker_id))

    async def restart(self, worker_id: str) -> None:
        """Replace a worker by a fresh one. The fresh one starts first; then the old one finishes its calls and ends.

        If there is a spare that could step in at once, it does so, under its own id, and a fresh spare gets the id of
        the old worker. Returns when the fresh worker is ready. If cancelled, the replacement goes on. Raises
        `WorkerStartError` if the fresh worker cannot start, and the old one stays. (With `per_worker`, the old one has
        ended by then, and the pool tries again.) Raises `UsageError` if there is no worker of that id, and `PoolClosed`
        if the pool closes.
        """
        require_trio()
        self._supervisor.check_open()
        await self._renewal.renew(self._starter(worker_id))
        self._supervisor.check_open()

    def _check_room(self, workers: int) -> None:
        if not self._spares:
            self._site.check_room(workers)
            return
        try:
            self._site.check_room(workers + self._spares)
        except UsageError as error:
            raise UsageError(f"workers={workers} with spares={self._spares}: {error}") from None

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
    return [
        _info(worker, starter.state, starter.restarts, is_spare=starter.is_spare)
        if worker is starter.worker
        else _info(worker, worker.state, starter.restarts, is_spare=worker.is_spare)
        for worker in workers
    ]


def _info(worker: Worker, state: WorkerState, restarts: int, *, is_spare: bool) -> WorkerInfo:
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
        is_spare,
        plain(worker.slot.offers),
        plain({name: amount - worker.slot.free[name] for name, amount in worker.slot.offers.items()}),
        0 if worker.logs is None else worker.logs.dropped,
        restarts,
        worker.node,
    )
