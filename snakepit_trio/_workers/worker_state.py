"""Where a worker is in its life."""

from __future__ import annotations

from enum import StrEnum


class WorkerState(StrEnum):
    """Where a worker process is in its life. Each state is a `str`, such as "ready".

    - STARTING: its process is being started, or has not reported yet.
    - SPARE: it has started, and gets no calls until it steps in for another worker.
    - READY: it takes calls, and has none.
    - BUSY: it takes calls, and has some.
    - DRAINING: it takes no more calls. It finishes those that it has, or it is being ended.
    - STOPPED: its process has ended, and no other is started in its place.
    - RESTARTING: its process has ended, and the next one starts soon.
    - QUARANTINED: its processes have ended too often before they served a call. The next one starts after the pool's
      `quarantine`.
    """

    STARTING = "starting"
    SPARE = "spare"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
