"""What a pool tells its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install
from snakepit_trio._util.log import get_logger
from snakepit_trio._workers.worker_state import WorkerState
from snakepit_trio.state.store import SessionStore
from snakepit_trio.telemetry import Events

from .stats import PoolStats
from .worker_info import WorkerInfo, Workers

if TYPE_CHECKING:
    from snakepit_trio.telemetry.prometheus import PoolMetrics

logger = get_logger("snakepit.pool")


class PoolSource:
    """A pool, as its metrics see it."""

    states: Sequence[str] = tuple(WorkerState)

    def __init__(self, name: str, stats: Callable[[], PoolStats], workers: Workers, store: SessionStore) -> None:
        self.name = name
        self.stats = stats
        self._workers = workers
        self._store = store

    def workers(self) -> list[WorkerInfo]:
        """The workers of the pool."""
        return self._workers.list()

    def sessions(self) -> int | None:
        """How many sessions there are; None if the store would have to wait to tell it, or cannot."""
        if self._store.may_wait:
            return None
        asking = self._store.get_stats()
        try:
            asking.send(None)
        except StopIteration as stop:
            found: int = stop.value.sessions
            return found
        except Exception:
            logger.exception("the store of sessions could not be counted")
        asking.close()
        return None


def metrics_of(source: PoolSource, token: trio.lowlevel.TrioToken, events: Events) -> PoolMetrics:
    """Make the metrics of a pool, which count its calls from now on. Raises `UsageError` without prometheus-client."""
    try:
        from snakepit_trio.telemetry.prometheus import PoolMetrics
    except ModuleNotFoundError as error:
        raise UsageError(f"metrics need the package prometheus-client: {install('prometheus')} ({error})") from error
    metrics = PoolMetrics(source, token)
    for pattern in ("call.*", "stream.*"):
        events.attach(pattern, metrics.calls.note)
    return metrics
