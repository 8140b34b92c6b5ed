"""What other processes are told of a pool and of its host: plain values, of bounded size."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final, Protocol

import attrs

from bridge_py.wire.readable import readable
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._util.task_tree import describe_tasks, describe_threads

from .call_info import CallInfo
from .stats import PoolStats
from .worker_info import WorkerInfo

_MOST_WORKERS: Final = 1000
_MOST_CALLS: Final = 500
_LONGEST_NAME: Final = 200  # characters


class LookedAt(Protocol):
    """What a pool tells of itself."""

    config: PoolConfig

    def list_workers(self) -> list[WorkerInfo]:
        """Its workers."""
        ...

    def list_calls(self, most: int | None = None) -> list[CallInfo]:
        """Its calls that are under way."""
        ...

    def get_stats(self) -> PoolStats:
        """Its counts."""
        ...


def pool_snapshot(pool: LookedAt) -> dict[str, Any]:
    """The pool's counts, workers and calls. `clock` is seconds of a clock for differences, times are in seconds."""
    workers, calls, stats = pool.list_workers(), pool.list_calls(_MOST_CALLS), pool.get_stats()
    more_calls = max(0, stats.running + stats.queued - len(calls)) if len(calls) == _MOST_CALLS else 0
    return {
        "pool": readable(pool.config.name, _LONGEST_NAME),
        "host": os.getpid(),
        "adapter": readable(str(pool.config.adapter), _LONGEST_NAME),
        "concurrency": pool.config.concurrency,
        "clock": time.monotonic(),
        "stats": attrs.asdict(stats),
        "workers": [_worker(worker) for worker in workers[:_MOST_WORKERS]],
        "calls": [_call(call) for call in calls],
        "left_out": {"workers": max(0, len(workers) - _MOST_WORKERS), "calls": more_calls},
    }


def host_snapshot() -> dict[str, Any]:
    """The tasks of this thread's loop, and the threads of this process, with their stacks. `loop` tells loops apart."""
    return {
        "host": os.getpid(),
        "loop": threading.get_native_id(),
        "tasks": describe_tasks(),
        "threads": describe_threads(),
    }


def _worker(worker: WorkerInfo) -> dict[str, Any]:
    return {
        "id": readable(worker.id, _LONGEST_NAME),
        "pid": worker.pid,
        "state": str(worker.state.value),
        "calls_served": worker.calls_served,
        "started_at": worker.started_at,
        "memory": worker.resident_bytes,
        "latency": worker.latency,
        "missed_pings": worker.missed_pings,
        "is_spare": worker.is_spare,
        "node": worker.node,
    }


def _call(call: CallInfo) -> dict[str, Any]:
    names = {name: _name(getattr(call, name)) for name in ("tool", "session_id", "worker_id")}
    return {**attrs.asdict(call), **names}


def _name(text: str | None) -> str | None:
    return None if text is None else readable(text, _LONGEST_NAME)
