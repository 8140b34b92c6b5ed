"""Looks at pools again and again, and works out rates and processor time from two looks in a row."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

import attrs

from snakepit_trio._processes.proc import resident_bytes, stat_of
from snakepit_trio._processes.registry import RunInfo

from .hosts import PoolLook, Seen, WorkerLook, look_at_all, runs_of

_UNKNOWN: Final = "?"  # the state of a worker whose host does not answer


@attrs.frozen
class Usage:
    """What a process uses: processor time in percent of one core since the last look, and resident memory in bytes."""

    cpu: float | None = None
    memory: int | None = None


@attrs.frozen
class Sample:
    """A pool at one moment. `rates` are numbers per second since the last look, by the names of the counts.

    They are empty at the first look. `usage` is by pid, and has the host too.
    """

    seen: Seen
    rates: dict[str, float]
    usage: dict[int, Usage]

    @property
    def workers(self) -> list[WorkerLook]:
        """The workers, as the host tells them, or else as the registry knows them."""
        if self.seen.look is not None:
            return self.seen.look.workers
        known = self.seen.run.workers
        return [WorkerLook(id=each.id, pid=each.pid, state=_UNKNOWN if each.is_alive else "gone") for each in known]


class Sampler:
    """Looks at the pools of one host, or of all hosts if `pid` is None."""

    def __init__(self, pid: int | None, patience: float) -> None:
        self._pid = pid
        self._patience = patience
        self._looks: dict[str, PoolLook] = {}  # the last answers, by the ids of runs
        self._times: dict[tuple[int, int], tuple[float, float]] = {}  # of processes: when, and processor seconds

    async def sample(self) -> list[Sample]:
        """Look once; waits for a host `patience` seconds at the most. Raises `NoPool`."""
        seen = await look_at_all(runs_of(self._pid), self._patience)
        times: dict[tuple[int, int], tuple[float, float]] = {}
        found = [Sample(each, self._rates(each), self._usage(_pids(each), times)) for each in seen]
        self._times = times
        return found

    def _rates(self, seen: Seen) -> dict[str, float]:
        before, now = self._looks.get(seen.run.id), seen.look
        if now is None:
            return {}
        self._looks[seen.run.id] = now
        if before is None or now.clock <= before.clock:
            return {}
        seconds = now.clock - before.clock
        counts = ("calls", "succeeded", "failed", "cancelled", "timed_out", "crashed", "restarts")
        return {name: (getattr(now.stats, name) - getattr(before.stats, name)) / seconds for name in counts}

    def _usage(self, pids: Iterable[int], times: dict[tuple[int, int], tuple[float, float]]) -> dict[int, Usage]:
        return {pid: self._usage_of(pid, times) for pid in pids}

    def _usage_of(self, pid: int, times: dict[tuple[int, int], tuple[float, float]]) -> Usage:
        memory, found = resident_bytes(pid), stat_of(pid)
        if found is None:
            return Usage()
        key = (pid, found.started)
        now = times[key] = (time.monotonic(), found.cpu_seconds)
        before = self._times.get(key)
        if before is None or now[0] <= before[0]:
            return Usage(None, memory)
        return Usage(100 * max(0.0, now[1] - before[1]) / (now[0] - before[0]), memory)


def _pids(seen: Seen) -> list[int]:
    if not _is_visible(seen.run):
        return []
    pids = [each.pid for each in seen.run.workers]
    if seen.look is not None:
        pids = [worker.local_pid for worker in seen.look.workers]
    return [seen.run.host_pid, *(pid for pid in pids if pid is not None)]


def _is_visible(run: RunInfo) -> bool:
    """Whether the pids of a run are pids here. They are not if it is in another container."""
    return os.path.exists(f"/proc/{run.host_pid}") and (not run.workers or any(each.pid for each in run.workers))


def as_plain(samples: Iterable[Sample]) -> list[dict[str, object]]:
    """What `snakepit top --json` prints. Times are in seconds, memory in bytes, processor time in percent of a core."""
    return [_plain(sample) for sample in samples]


def _plain(sample: Sample) -> dict[str, object]:
    run, look = sample.seen.run, sample.seen.look
    host = sample.usage.get(run.host_pid, Usage())
    return {
        "run": run.id,
        "pool": run.pool,
        "host": run.host_pid,
        "answers": look is not None,
        "problem": sample.seen.problem,
        "answered_in": sample.seen.seconds,
        "cpu": host.cpu,
        "memory": host.memory,
        "adapter": None if look is None else look.adapter,
        "concurrency": None if look is None else look.concurrency,
        "stats": None if look is None else look.stats,
        "rates": sample.rates,
        "workers": [_plain_worker(sample, worker) for worker in sample.workers],
        "calls": None if look is None else look.calls,
        "left_out": None if look is None else look.left_out,
    }


def _plain_worker(sample: Sample, worker: WorkerLook) -> dict[str, object]:
    usage = Usage() if worker.local_pid is None else sample.usage.get(worker.local_pid, Usage())
    return {
        "id": worker.id,
        "pid": worker.pid,
        "state": worker.state,
        "cpu": usage.cpu,
        "memory": worker.memory or usage.memory,
        "calls_served": worker.calls_served,
        "started_at": worker.started_at,
        "latency": worker.latency,
        "missed_pings": worker.missed_pings,
        "is_spare": worker.is_spare,
        "node": worker.node,
    }
