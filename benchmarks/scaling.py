"""Where the host's one loop saturates: a small model, calibrated here by CPU time, beside what is measured.

`python -m benchmarks.scaling 1 10 100 1000` prints what the model is made of, and its predictions for so many workers
and for tools of 1 ms, 10 ms, 100 ms and 1 s. It measures up to 100 of these workers, or up to `--measure` workers.
They are real processes, forked from a template, and take 11 MB each. `make bench ARGS="--figures scaling"` has the
parts of the model, and how far it errs.

The parts are CPU times, because times of the clock are noise on a machine with other work. The tools sleep.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs
import psutil
import trio

import snakepit_trio as snakepit

from .counts import _cpu_of

ADAPTER: Final = "benchmarks.tools:Tools"
PAYLOAD: Final = 100  # bytes
LARGE: Final = 32  # KiB
TOOLS: Final = (0.001, 0.01, 0.1, 1.0)  # seconds
WORKERS: Final = (1, 10, 100, 1000)
ROUNDS: Final = 3
_FEW: Final = 10  # workers
_MANY: Final = 100
_CALLS: Final = 2000
_IDLE: Final = 3.0  # seconds
_QUEUED: Final = 2  # callers for each worker, so that no worker waits for a caller


@attrs.frozen
class Sample:
    """Calls that were made, and what they took, in seconds: by the clock, and of CPU time of the host and workers."""

    calls: int
    wall: float
    host: float
    workers: float

    def host_call(self, idle: float) -> float:
        """CPU seconds of the host for a call, without what it does for `idle` seconds of CPU time a second anyway."""
        return (self.host - idle * self.wall) / self.calls


@attrs.frozen
class Model:
    """What a host costs. Times are seconds of its CPU time, if nothing else is said."""

    alone: float  # a call while the loop has little to do: it sleeps and wakes for each
    together: float  # a call while the loop has much to do: one turn serves many
    kib: float  # each KiB of arguments that comes back as the result
    idle: float  # a worker that has nothing to do, for a second
    start: float  # a worker that is forked from a template
    in_worker: float  # a call, in its worker
    turnaround: float  # of the clock: a call beyond the time of its tool
    resident: float  # bytes of the host for a worker
    descriptors: float  # of the host for a worker
    standstill: float  # a full garbage collection with 100 workers, during which the loop stands still
    frozen: float  # the same after `gc.freeze()`

    def demand(self, workers: int, tool: float) -> float:
        """Calls a second that workers can run."""
        return workers / (tool + self.turnaround)

    def capacity(self, workers: int) -> float:
        """Calls a second that one loop can serve, beside its care for the workers; 0 if that alone is too much."""
        return max(0.0, 1 - workers * self.idle) / self.together

    def cores(self, cores: int) -> float:
        """Calls a second for which the workers find CPU time on the other cores of the machine."""
        return max(1, cores - 1) / self.in_worker

    def rate(self, workers: int, tool: float, cores: int) -> tuple[float, str]:
        """Calls a second, and what bounds them."""
        bounds = {
            "workers": self.demand(workers, tool),
            "the loop": self.capacity(workers),
            f"{cores} cores": self.cores(cores),
        }
        name = min(bounds, key=lambda each: bounds[each])
        return bounds[name], name

    def utilisation(self, workers: int, rate: float) -> float:
        """The share of its time that the loop is busy. A busy loop serves many calls in a turn, so each costs less."""
        saved = rate * (self.alone - self.together)
        return min(1.0, (workers * self.idle + rate * self.alone) / (1 + saved))

    def saturates_at(self, tool: float) -> float:
        """The number of workers that one loop can keep busy."""
        return 1 / (self.together / (tool + self.turnaround) + self.idle)

    def wait(self, utilisation: float) -> float:
        """Seconds that a call waits for the loop, on average, if calls come at random and take the same time: M/D/1."""
        return self.together * utilisation / (2 * (1 - utilisation)) if utilisation < 1 else float("inf")


def _open(workers: int) -> AbstractAsyncContextManager[snakepit.Pool]:
    return snakepit.open_pool(ADAPTER, workers=workers, template=True, start_timeout=600)


async def run(pool: snakepit.Pool, callers: int, calls: int, seconds: float, size: int = PAYLOAD) -> Sample:
    """Have callers share a number of calls."""
    left = iter(range(calls))
    arguments = {"seconds": seconds, "payload": "x" * size}

    async def caller() -> None:
        for _ in left:
            await pool.execute("nap", arguments)

    pids = [worker.pid for worker in pool.list_workers() if worker.pid]
    before, host, began = sum(map(_cpu_of, pids)), time.process_time(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(min(callers, calls)):
            nursery.start_soon(caller)
    wall, host = time.perf_counter() - began, time.process_time() - host
    return Sample(calls, wall, host, sum(map(_cpu_of, pids)) - before)


async def _idle(seconds: float) -> float:
    began = time.process_time()
    await trio.sleep(seconds)
    return (time.process_time() - began) / seconds


async def _collection(pool: snakepit.Pool) -> float:
    """CPU seconds of a full garbage collection while two hundred calls are under way."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, pool, 200, 200, 0.3)
        await trio.sleep(0.1)
        before = time.process_time()
        gc.collect()
        after = time.process_time()
    return after - before


async def calibrate(scale: float) -> Model:
    """Measure what the model is made of, in rounds, and take the medians."""
    few = await _calibrate_with_few(scale)
    many = await _calibrate_with_many(scale)
    idle = max(0.0, (many.pop("idle") - few.pop("idle")) / (_MANY - _FEW))
    return Model(idle=idle, **few, **many)


async def _calibrate_with_few(scale: float) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in ("alone", "kib", "in_worker", "turnaround")}
    calls = max(200, int(_CALLS * scale))
    async with _open(_FEW) as pool:
        idle = await _idle(max(0.5, _IDLE * scale))
        await run(pool, _FEW, calls, 0)
        for _ in range(ROUNDS):
            small = await run(pool, 1, calls, 0)
            large = await run(pool, 1, calls // 4, 0, LARGE << 10)
            slow = await run(pool, _FEW, max(50, calls // 5), 0.01)
            found["kib"].append((large.host / large.calls - small.host / small.calls) / LARGE)
            found["alone"].append(slow.host_call(idle))
            found["in_worker"].append(slow.workers / slow.calls)
            found["turnaround"].append(slow.wall * _FEW / slow.calls - 0.01)
    return {"idle": idle, **{name: max(0.0, statistics.median(each)) for name, each in found.items()}}


async def _calibrate_with_many(scale: float) -> dict[str, float]:
    before = _held()
    async with _open(_MANY) as pool:
        start, resident, descriptors = ((late - early) / _MANY for late, early in zip(_held(), before, strict=True))
        idle = await _idle(max(0.5, _IDLE * scale))
        together = [await run(pool, _MANY, max(200, int(_CALLS * scale)), 0) for _ in range(ROUNDS)]
        standstill = [await _collection(pool) for _ in range(ROUNDS)]
        gc.freeze()
        frozen = [await _collection(pool) for _ in range(ROUNDS)]
        gc.unfreeze()
    return {
        "idle": idle,
        "start": start,
        "resident": resident,
        "descriptors": descriptors,
        "together": statistics.median(sample.host_call(idle) for sample in together),
        "standstill": statistics.median(standstill),
        "frozen": statistics.median(frozen),
    }


def _held() -> tuple[float, float, float]:
    """CPU seconds, resident bytes and descriptors of this process."""
    process = psutil.Process()
    return time.process_time(), process.memory_info().rss, process.num_fds()


async def cells(workers: int, tools: Sequence[float], scale: float) -> list[Sample]:
    """Measure a pool of so many workers with tools of several times."""
    found = []
    async with _open(workers) as pool:
        for tool in tools:
            calls = max(2 * workers, int(min(4000, workers / tool) * scale))
            await run(pool, _QUEUED * workers, max(workers, calls // 10), min(tool, 0.01))
            found.append(await run(pool, _QUEUED * workers, calls, tool))
    return found


async def measure(scale: float) -> dict[str, float]:
    """The parts of the model, and how far its predictions for 10 and 100 workers are from what is measured then."""
    model = await calibrate(scale)
    figures = {
        "call alone, us": model.alone * 1e6,
        "call of many, us": model.together * 1e6,
        "KiB there and back, us": model.kib * 1e6,
        "idle worker, us/s": model.idle * 1e6,
        "forked start, ms": model.start * 1e3,
        "worker, KiB": model.resident / 1024,
        "worker, descriptors": model.descriptors,
        "collection, ms": model.standstill * 1e3,
        "collection when frozen, ms": model.frozen * 1e3,
    }
    errors, rates = [], []
    for workers in (10, 100):
        tools = TOOLS[1:3]
        for tool, sample in zip(tools, await cells(workers, tools, scale), strict=True):
            rate = sample.calls / sample.wall
            errors.append(abs(model.utilisation(workers, rate) / (sample.host / sample.wall) - 1))
            rates.append(abs(model.rate(workers, tool, os.cpu_count() or 1)[0] / rate - 1))
    figures["loop busy, off by %"] = statistics.median(errors) * 100
    figures["calls/s, off by %"] = statistics.median(rates) * 100
    figures["workers of 100 ms for one loop"] = model.saturates_at(0.1)
    return figures


async def table(sizes: Sequence[int], most: int, cores: int, scale: float) -> list[str]:
    """The parts of the model and its predictions for a machine with so many cores, as lines."""
    model = await calibrate(scale)
    lines = [f"{attrs.fields_dict(Model)[name].name:<12} {value:.6g}" for name, value in attrs.asdict(model).items()]
    lines += [f"a loop keeps {model.saturates_at(tool):,.0f} workers busy with tools of {tool:g} s" for tool in TOOLS]
    lines += [f"wait for a loop that is {busy:.0%} busy: {model.wait(busy) * 1e6:.0f} us" for busy in (0.5, 0.8, 0.95)]
    for workers in sizes:
        samples: Sequence[Sample | None] = [None] * len(TOOLS)
        if workers <= most:
            samples = await cells(workers, TOOLS, scale)
        for tool, sample in zip(TOOLS, samples, strict=True):
            lines.append(_line(model, cores, workers, tool, sample))
    return lines


def _line(model: Model, cores: int, workers: int, tool: float, sample: Sample | None) -> str:
    rate, bound = model.rate(workers, tool, cores)
    line = f"{workers:>5} workers, {tool:>5g} s: {rate:>8,.0f} calls/s by {bound:<8}"
    line += f" loop busy {model.utilisation(workers, rate):>4.0%}"
    if sample is not None:
        found = sample.calls / sample.wall
        busy = sample.host / sample.wall
        line += f" | measured {found:>8,.0f} calls/s, busy {busy:>4.0%}, predicted for that rate"
        line += f" {model.utilisation(workers, found):>4.0%}"
    return line


def main() -> None:
    """Measure, and print the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("workers", nargs="*", type=int, default=WORKERS)
    parser.add_argument("--measure", type=int, default=100, help="measure pools of up to so many workers")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="predict for a machine with so many")
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    for line in trio.run(table, options.workers, options.measure, options.cores, options.scale):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
