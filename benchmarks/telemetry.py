"""What telemetry costs a call: with nobody attached, with a handler, with Prometheus, and with OpenTelemetry."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.wire.frames import RESULT, Frame
from bridge_py.wire.trace_context import current_trace
from snakepit_trio._calls.call import Call
from snakepit_trio._calls.timing import TimeSpent
from snakepit_trio.telemetry.opentelemetry import instrument
from snakepit_trio.telemetry.tallies import Tallies

from .tools import Tools

Way = Callable[[snakepit.Pool], AbstractContextManager[Any]]
_ROUNDS: Final = 30
_STEPS: Final = 20_000


def _hear(_event: snakepit.Event) -> None:
    """Hear of it."""


@contextmanager
def _handler(pool: snakepit.Pool) -> Iterator[None]:
    detach = pool.events.attach("*", _hear)
    yield
    detach()


@contextmanager
def _prometheus(pool: snakepit.Pool) -> Iterator[None]:
    detach = pool.events.attach("call.*", Tallies().note)  # as `pool.metrics` does, which nothing detaches
    yield
    detach()


@contextmanager
def _opentelemetry(pool: snakepit.Pool) -> Iterator[None]:
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    with instrument(pool, tracer_provider=tracers, meter_provider=meters):
        yield
    tracers.shutdown()
    meters.shutdown()


WAYS: dict[str, Way] = {
    "off": nullcontext,
    "a handler": _handler,
    "Prometheus": _prometheus,
    "OpenTelemetry": _opentelemetry,
}


async def measure(scale: float) -> dict[str, float]:
    """Microseconds of a call in each way, in rounds that take turns, as medians; what no listener costs, in percent."""
    calls = max(20, int(200 * scale))
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    async with snakepit.open_pool(Tools, workers=1) as pool:
        await _time(pool, calls)
        for _ in range(_ROUNDS):
            for name, way in WAYS.items():
                with way(pool):
                    times[name].append(await _time(pool, calls))
        off = statistics.median(times["off"])
        figures = {"off, us": off, "cost of off, %": _cost_of_off(pool) / off * 100}
    for name in WAYS:
        if name != "off":
            ratios = [with_it / without for with_it, without in zip(times[name], times["off"], strict=True)]
            figures[f"{name}, slower by %"] = (statistics.median(ratios) - 1) * 100
    return figures


async def _time(pool: snakepit.Pool, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await pool.execute("empty", {"payload": ""})
    return (time.perf_counter() - began) / calls * 1e6


def _cost_of_off(pool: snakepit.Pool) -> float:
    """Microseconds of all that each call does for telemetry, on both sides, if nobody is attached.

    The steps are run alone, as there is no build without them to compare with: two looks for listeners and one for a
    correlation id, the times that the worker takes, and the sums that the host keeps.
    """
    call, spent, events = Call("nothing", EncodedValue(b"", None), "", 30.0), TimeSpent(), pool.events
    final = Frame(RESULT, 1, "", "", 120)

    def steps() -> None:
        _ = events.is_heard, current_trace.get()
        began = time.monotonic_ns()
        final.began, final.number = began, (time.monotonic_ns() - began) // 1000
        spent.note(call, final, None, 1.0)
        _ = events.is_heard

    return min(_each(steps) for _ in range(5)) - min(_each(partial(int)) for _ in range(5))


def _each(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(_STEPS):
        function()
    return (time.perf_counter() - began) / _STEPS * 1e6
