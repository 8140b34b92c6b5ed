"""The metrics of a pool for Prometheus: `pool.metrics`. Needs the extra `prometheus`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol

import outcome
import trio
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from .tallies import Histogram, Tallies, ToolTally

_POOL: Final = ("pool",)
_LONGEST_TURN: Final = 10.0  # seconds


class Stats(Protocol):
    """The counts of a pool that are metrics: see `PoolStats`."""

    @property
    def workers(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def succeeded(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def timed_out(self) -> int: ...
    @property
    def crashed(self) -> int: ...
    @property
    def retried(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def recycled(self) -> int: ...


class Described(Protocol):
    """What is told of a worker: see `WorkerInfo`."""

    @property
    def state(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def resident_bytes(self) -> int | None: ...


class Source(Protocol):
    """Where the numbers come from. They are read in the pool's own thread."""

    #: The name of the pool.
    name: str
    #: All states that a worker may be in.
    states: Sequence[str]

    def stats(self) -> Stats:
        """The counts of the pool."""
        ...

    def workers(self) -> Iterable[Described]:
        """The workers of the pool."""
        ...

    def sessions(self) -> int | None:
        """How many sessions there are; None if the store would have to wait to tell it."""
        ...


class PoolMetrics:
    """The metrics of one pool: `pool.metrics`. It is a collector of prometheus_client, with a registry of its own.

    Counters and gauges are those of the moment of asking. The histograms have the calls that ended since `pool.metrics`
    was first asked for. Any thread may collect; a thread other than the pool's waits until the pool's has a turn.
    """

    def __init__(self, source: Source, token: trio.lowlevel.TrioToken) -> None:
        """Make them, in the pool's run of trio, whose token is `token`."""
        self._source = source
        self._token = token
        self._thread = threading.get_ident()
        #: The histograms.
        self.calls = Tallies()
        #: A registry that has these metrics and no others, for functions of prometheus_client.
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(self)

    def exposition(self, *, openmetrics: bool = False) -> str:
        """All metrics in Prometheus' text format 0.0.4, or in that of OpenMetrics 1.0."""
        encode = generate_openmetrics if openmetrics else generate_latest
        return encode(self.registry).decode()

    def answer(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that an Accept header asks for, and the content type of that format."""
        try:
            encode, content_type = choose_encoder(accept)
            return encode(self.registry), content_type
        except ValueError:  # a version that is no number
            return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> list[Metric]:
        """All metrics, for prometheus_client."""
        if threading.get_ident() == self._thread:
            return self._read()
        found: SimpleQueue[outcome.Maybe[list[Metric]]] = SimpleQueue()
        try:
            # Not `trio.from_thread`, which the threads of other runs of trio may not use.
            self._token.run_sync_soon(lambda: found.put(outcome.capture(self._read)))
            return found.get(timeout=_LONGEST_TURN).unwrap()
        except (trio.RunFinishedError, Empty):
            return self._read()  # the run is over, or ends just now: nothing changes any more

    def _read(self) -> list[Metric]:
        return [*self._gauges(), *self._counters(), *self._histograms()]

    def _gauges(self) -> Iterator[Metric]:
        stats, workers, source = self._source.stats(), list(self._source.workers()), self._source
        yield self._by("snakepit_workers", "Workers by state, spares included.", "state", _states(source, workers))
        yield self._gauge("snakepit_workers_wanted", "Workers that there should be, without spares.", stats.workers)
        yield self._gauge("snakepit_queued_calls", "Calls that wait for a worker.", stats.queued)
        yield self._gauge("snakepit_running_calls", "Calls that workers have.", stats.running)
        memory = "Resident memory of workers, by number."
        yield self._by("snakepit_worker_resident_memory_bytes", memory, "worker", _memory(workers))
        if (sessions := source.sessions()) is not None:
            yield self._gauge("snakepit_sessions", "Sessions in the pool's store.", sessions)

    def _counters(self) -> Iterator[Metric]:
        stats = self._source.stats()
        outcomes = CounterMetricFamily("snakepit_calls", "Calls that ended, by outcome.", labels=(*_POOL, "outcome"))
        for name in ("succeeded", "failed", "cancelled", "timed_out", "crashed"):
            outcomes.add_metric((self._source.name, name), getattr(stats, name))
        yield outcomes
        yield self._counter("snakepit_calls_submitted", "Calls that the pool has taken.", stats.calls)
        yield self._counter("snakepit_call_retries", "Runs of calls after a crash.", stats.retried)
        yield self._counter("snakepit_worker_restarts", "Workers that were replaced after a crash.", stats.restarts)
        yield self._counter("snakepit_workers_recycled", "Workers that were replaced as planned.", stats.recycled)

    def _histograms(self) -> Iterator[Metric]:
        for name, told, find in _HISTOGRAMS:
            family = HistogramMetricFamily(name, told, labels=(*_POOL, "tool"))
            for tool, tally in self.calls:
                found = find(tally)
                buckets = [(_bound(bound), count) for bound, count in found.buckets()]
                family.add_metric((self._source.name, tool), buckets, found.total)
            yield family

    def _gauge(self, name: str, told: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, told, labels=_POOL)
        family.add_metric((self._source.name,), value)
        return family

    def _by(self, name: str, told: str, label: str, values: dict[str, float]) -> Metric:
        family = GaugeMetricFamily(name, told, labels=(*_POOL, label))
        for key, value in values.items():
            family.add_metric((self._source.name, key), value)
        return family

    def _counter(self, name: str, told: str, value: float) -> Metric:
        family = CounterMetricFamily(name, told, labels=_POOL)
        family.add_metric((self._source.name,), value)
        return family


_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[ToolTally], Histogram]], ...]] = (
    ("snakepit_call_queue_seconds", "Time that calls waited for a worker.", lambda tally: tally.queue),
    ("snakepit_call_tool_seconds", "Time that calls ran in their worker.", lambda tally: tally.ran),
    ("snakepit_call_duration_seconds", "Time from a call to its outcome.", lambda tally: tally.total),
    ("snakepit_call_argument_bytes", "Size of the arguments of calls.", lambda tally: tally.sent),
    ("snakepit_call_result_bytes", "Size of the results of calls that are no streams.", lambda tally: tally.received),
)


def _states(source: Source, workers: Iterable[Described]) -> dict[str, float]:
    found = Counter(str(worker.state) for worker in workers)
    return {str(state): found[str(state)] for state in source.states}


def _memory(workers: Iterable[Described]) -> dict[str, float]:
    # By number: ids of spares and replacements would be new labels without end.
    found: Counter[str] = Counter()
    for worker in workers:
        found[str(worker.number)] += worker.resident_bytes or 0
    return dict(found)


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))
