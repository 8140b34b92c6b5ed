"""How the health of a pool is judged by its workers."""

from __future__ import annotations

import pytest

from snakepit_trio._pool.worker_info import PoolHealth, WorkerInfo
from snakepit_trio._workers.worker_state import WorkerState

READY, BUSY, STARTING = WorkerState.READY, WorkerState.BUSY, WorkerState.STARTING


def info(state: WorkerState, missed_pings: int = 0) -> WorkerInfo:
    return WorkerInfo("pool-1", 1, state, 0, 0.0, None, None, missed_pings, 0, False)


@pytest.mark.parametrize(
    ("workers", "expected", "working", "status"),
    [
        ([info(READY)], 1, 1, "healthy"),
        ([info(READY), info(READY)], 1, 1, "healthy"),  # one replaces the other
        ([info(BUSY), info(STARTING)], 2, 1, "degraded"),
        ([info(READY, missed_pings=1)], 1, 0, "unavailable"),
        ([], 1, 0, "unavailable"),
    ],
    ids=["ready", "replaced", "starting", "silent", "none"],
)
def test_the_health_of_a_pool(workers: list[WorkerInfo], expected: int, working: int, status: str) -> None:
    health = PoolHealth.of(workers, expected, is_closed=False)
    assert (health.working, health.status) == (working, status)
    assert PoolHealth.of(workers, expected, is_closed=True).status == "unavailable"
