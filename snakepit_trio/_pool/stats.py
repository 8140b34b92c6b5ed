"""Counts of a pool."""

from __future__ import annotations

import attrs


@attrs.frozen
class PoolStats:
    """Counts of a pool since it was opened; `ready`, `busy`, `queued` and `running` at the moment of asking."""

    workers: int
    ready: int
    busy: int
    queued: int
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
    uptime: float
