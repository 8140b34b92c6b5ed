"""All figures of all peers come from these functions. Times are wall-clock seconds of `time.perf_counter`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

import trio

from . import dataset as large_file
from . import functions as function_costs
from . import imports as import_times
from . import progress as progress_costs
from . import scaling as scaling_costs
from . import spares
from . import stores as stores_of_sessions
from . import template as templates
from .endurance import cost_by_workers, million, replacement
from .peers import Ours, Peer, Session, from_many, repeat
from .state import measure

Figures = dict[str, float]


async def latency(peer: Peer, scale: float) -> Figures:
    """One caller, one call after the other: p50 and p99, in milliseconds, and the CPU time of the host for a call."""
    async with peer.open(2) as session:
        await repeat(session, 200)
        times = []
        cpu = time.process_time()
        for _ in range(int(2000 * scale)):
            began = time.perf_counter()
            await session.call()
            times.append(time.perf_counter() - began)
        cpu = (time.process_time() - cpu) / len(times)
    times.sort()
    return {
        "p50 ms": times[len(times) // 2] * 1e3,
        "p99 ms": times[len(times) * 99 // 100] * 1e3,
        "host CPU us": cpu * 1e6,
    }


async def throughput(peer: Peer, scale: float) -> Figures:
    """64 callers on two workers: calls a second."""
    async with peer.open(2) as session:
        await from_many(peer, session, 2000)
        calls = int(20_000 * scale)
        began = time.perf_counter()
        await from_many(peer, session, calls)
        return {"calls/s": calls / (time.perf_counter() - began)}


async def stream(peer: Peer, scale: float) -> Figures:
    """One stream with one consumer: chunks a second."""
    async with peer.open(2) as session:
        if session.stream is None:
            return {}
        await session.stream(1000)
        chunks = int(20_000 * scale)
        began = time.perf_counter()
        await session.stream(chunks)
        return {"chunks/s": chunks / (time.perf_counter() - began)}


async def values(peer: Peer, scale: float) -> Figures:
    """Arrays of float64 that come back increased, and a frame that comes back: p50, in milliseconds."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(1).random((1_000_000, 5)), columns=list("abcde"))
    figures = {}
    async with peer.open(2) as session:
        for name, value in (("1 MB", np.ones(125_000)), ("10 MB", np.ones(1_250_000)), ("frame", frame)):
            if session.send is None:
                continue
            times = []
            for _ in range(max(5, int(30 * scale))):
                began = time.perf_counter()
                result = await session.send(value)
                times.append(time.perf_counter() - began)
                assert result.shape == value.shape
            figures[f"{name}, ms"] = statistics.median(times) * 1e3
    return figures


async def beside(peer: Peer, _scale: float) -> Figures:
    """One caller of the empty tool, alone and while a gigabyte is on its way to another worker: p99, in ms."""
    import numpy as np

    array = np.ones(125_000_000)
    async with peer.open(2) as session:
        if session.pool is None:
            return {}
        await repeat(session, 200)
        alone = await _times(session, lambda: False, 1000)
        done = trio.Event()

        async def transfer() -> None:
            assert session.pool is not None
            for _ in range(3):
                await session.pool.execute("total", {"value": array}, timeout=120)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer)
            busy = await _times(session, done.is_set, 100_000)
    return {"p99 alone, ms": _p99(alone), "beside 1 GB, ms": _p99(busy)}


async def _times(session: Session, is_over: Callable[[], bool], most: int) -> list[float]:
    times: list[float] = []
    while len(times) < most and not is_over():
        began = time.perf_counter()
        await session.call()
        times.append(time.perf_counter() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100] * 1e3


async def startup(peer: Peer, _scale: float) -> Figures:
    """From nothing until 2, and until 8, workers have all answered: seconds."""
    figures = {}
    for workers in (2, 8):
        began = time.perf_counter()
        async with peer.open(workers):
            figures[f"start of {workers}, s"] = time.perf_counter() - began
    return figures


async def state(peer: Peer, scale: float) -> Figures:
    """What no other peer has: variables of sessions, on the host and from a worker."""
    return await measure(scale) if peer.name == Ours.name else {}


async def stores(peer: Peer, scale: float) -> Figures:
    """Stores of sessions against each other."""
    return await stores_of_sessions.measure(scale) if peer.name == Ours.name else {}


async def endurance(peer: Peer, scale: float) -> Figures:
    """Cost by the number of workers, the replacement of a worker, and a million calls."""
    if peer.name != Ours.name:
        return {}
    return {**await cost_by_workers(peer, scale), **await replacement(peer, scale), **await million(peer, scale)}


async def dataset(peer: Peer, scale: float) -> Figures:
    """A gigabyte of CSV through a tool of the showcase."""
    return await large_file.measure(scale) if peer.name == Ours.name else {}


async def functions(peer: Peer, scale: float) -> Figures:
    """Functions of the application, beside tools and beside ProcessPoolExecutor."""
    return await function_costs.measure(scale) if peer.name == Ours.name else {}


async def progress(peer: Peer, scale: float) -> Figures:
    """Reports of progress, with and without a watcher."""
    return await progress_costs.measure(scale) if peer.name == Ours.name else {}


async def foreign(peer: Peer, scale: float) -> Figures:
    """Workers that speak the wire contract, beside a plain client of grpcio."""
    if peer.name != Ours.name:
        return {}
    from .foreign import measure as measure_foreign  # needs what makes Google's classes

    return await measure_foreign(scale)


async def batching(peer: Peer, scale: float) -> Figures:
    """A small model of scikit-learn, one call at a time and in batches."""
    if peer.name != Ours.name:
        return {}
    from .batching import measure as measure_batching  # needs scikit-learn

    return await measure_batching(scale)


async def spare(peer: Peer, scale: float) -> Figures:
    """A worker that is killed and takes five seconds to load, with a spare."""
    return await spares.measure(scale) if peer.name == Ours.name else {}


async def links(peer: Peer, scale: float) -> Figures:
    """The cost of a call by each kind of link: lane, Unix socket, and TCP with TLS."""
    if peer.name != Ours.name:
        return {}
    from .links import measure as measure_links  # needs cryptography

    return await measure_links(scale)


async def template(peer: Peer, scale: float) -> Figures:
    """Workers with scikit-learn imported, forked from a template and not."""
    return await templates.measure(scale) if peer.name == Ours.name else {}


async def telemetry(peer: Peer, scale: float) -> Figures:
    """What telemetry costs a call, with nobody attached and with several listeners."""
    if peer.name != Ours.name:
        return {}
    from .telemetry import measure as measure_telemetry  # needs OpenTelemetry and Prometheus

    return await measure_telemetry(scale)


async def scaling(peer: Peer, scale: float) -> Figures:
    """The model of docs/scaling.md, and how far it errs."""
    return await scaling_costs.measure(scale) if peer.name == Ours.name else {}


async def imports(peer: Peer, scale: float) -> Figures:
    """What imports cost, in milliseconds more than the bare interpreter, and how many packages are installed."""
    return await trio.to_thread.run_sync(import_times.measure, scale) if peer.name == Ours.name else {}


FIGURES: dict[str, Callable[[Peer, float], Awaitable[Figures]]] = {
    "latency": latency,
    "throughput": throughput,
    "stream": stream,
    "startup": startup,
    "values": values,
    "beside": beside,
    "state": state,
    "stores": stores,
    "dataset": dataset,
    "endurance": endurance,
    "functions": functions,
    "progress": progress,
    "foreign": foreign,
    "batching": batching,
    "links": links,
    "template": template,
    "spare": spare,
    "telemetry": telemetry,
    "scaling": scaling,
    "imports": imports,
}
