"""Counts of a pool."""

from __future__ import annotations

import attrs


@attrs.frozen
class PoolStats:
    """Counts of a pool.

    Of the moment of asking: `workers` is how many workers there should be, without spares, `ready` how many of them
    take calls, and `busy` how many of these have a call. `spares` is how many spares could step in at once. `queued` is
    how many calls wait, and `running` how many calls workers have. `limited` is how many of the queued calls have
    limits: they wait for places, or for a worker together with places.

    Since the pool was opened: each run of a call counts as one of `calls`, and when it has ended, as one of these:
    `succeeded` returned, or was a stream whose block was left early; `failed` raised an error of its code or of its
    arguments; `crashed` lost its worker; `cancelled` was cancelled; `timed_out` used up its time. A call that the pool
    has refused is none of them. `retried` is how often a crashed call was run again. `restarts` is how often a worker
    that had ended was started again, and `recycled` how often one was replaced because it was due. `dropped_logs` is
    how many log records of workers were dropped, because there were too many at a time.

    In seconds: `queue_time`, `link_time` and `run_time` tell where the time of all calls went that workers have ended:
    in the queue, between host and worker, and in tools. `uptime` is how long ago the pool began to open.
    """

    workers: int
    ready: int
    busy: int
    spares: int
    queued: int
    limited: int
    running: int
    calls: int
    succeeded: int
    failed: int
    cancelled: int
    timed_out: int
    crashed: int
    retried: int
    restarts: int
    recycled: int
    queue_time: float
    link_time: float
    run_time: float
    uptime: float
    dropped_logs: int
