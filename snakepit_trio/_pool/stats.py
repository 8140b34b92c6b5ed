"""Counts of a pool."""

from __future__ import annotations

import attrs


@attrs.frozen
class PoolStats:
    """Counts of a pool since it was opened; `ready`, `busy`, `queued`, `limited` and `running` at the moment of asking.

    `limited` counts the queued calls that have limits: they wait for places, or for a worker together with places.
    """

    workers: int
    ready: int
    busy: int
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
    uptime: float
