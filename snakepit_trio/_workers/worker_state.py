"""Where a worker is in its life."""

from __future__ import annotations

from enum import StrEnum


class WorkerState(StrEnum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
