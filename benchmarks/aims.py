"""What to reach in the figures that only our own peer has."""

from __future__ import annotations

from typing import Final

#: By figure: the aim in words, its bound (None: there is none), and whether more is better.
Aims = dict[str, tuple[str, float | None, bool]]

_STATE: Final[Aims] = {
    "host gets/s": ("", None, True),
    "host updates/s": ("", None, True),
    "store with 10,000, x": ("a store with 10,000 sessions within 20% of one with 10", 0.8, True),
    "store with 100,000, x": ("a store with 100,000 sessions within 20% of one with 10", 0.8, True),
    "all 100,000 at random, x": ("", None, True),
    "cached get, us": ("a cached get in a worker under 2 us", 2.0, False),
    "get, round trips": ("an uncached get in at most one round trip", 1.0, False),
    "batch of 100, round trips": ("a batch of 100 in under 3 round trips", 3.0, False),
}
_DATASET: Final[Aims] = {
    "dataset MB/s": ("CSV at 50 MB/s", 50.0, True),
    "worker grows, MB": ("a worker that grows by less than 20 MB", 20.0, False),
    "host grows, MB": ("a host that grows by less than 20 MB", 20.0, False),
}
_ENDURANCE: Final[Aims] = {
    "CPU us, 1 workers": ("", None, False),
    "CPU us, 8 workers": ("", None, False),
    "CPU us, 64 workers": ("", None, False),
    "1 to 64 workers, x": ("cost per call with 1, 8 and 64 workers within 20%", 1.2, False),
    "replaced in, ms": ("a crashed worker replaced within 60 ms", 60.0, False),
    "host grew, MiB": ("a million calls without growth of the host (8 MiB)", 8.0, False),
    "workers grew, MiB": ("a million calls without growth of workers (8 MiB)", 8.0, False),
    "descriptors": ("a million calls without a new descriptor", 0.0, False),
}
_FUNCTIONS: Final[Aims] = {
    "run, x execute": ("a run of an empty function at most 5% more CPU time than execute", 1.05, False),
    "map by 1, x faster": ("a map 3 x as fast as ProcessPoolExecutor's, by CPU time, one by one", 3.0, True),
    "map by 10, x faster": ("the same, by tens", 3.0, True),
    "map by 100, x faster": ("the same, by hundreds", 3.0, True),
}
_PROGRESS: Final[Aims] = {
    "report, us": ("a report in well under 1 us", 0.5, False),
    "slowed, %": ("a tool that reports each 20 us slowed by at most 1%", 1.0, False),
    "watched report, us": ("the same while somebody watches", 0.5, False),
    "watched, slowed, %": ("the same while somebody watches", 1.0, False),
}
_TELEMETRY: Final[Aims] = {
    "off, us": ("", None, False),
    "cost of off, %": ("telemetry with nobody attached under 1% of a call", 1.0, False),
    "a handler, slower by %": ("", None, False),
    "Prometheus, slower by %": ("", None, False),
    "OpenTelemetry, slower by %": ("", None, False),
}
_SPARES: Final[Aims] = {
    "next call, ms": ("with a spare, the next call is served 20 ms after the death of a worker", 20.0, False),
    "slowest, ms": ("", None, False),
}
_FOREIGN: Final[Aims] = {
    **{
        f"{contract}, {sessions}, {callers}": (
            f"{contract} workers, {sessions}, callers: {callers}: 0.95 of a plain grpcio client's rate", 0.95, True
        )
        for contract in ("0.4", "0.13")
        for sessions in ("no session", "one session", "100 sessions")
        for callers in (1, 64)
    },
    "last of 10,000, x first": ("10,000 calls of a 0.13 worker at a flat rate", 0.8, True),
    "heartbeats": ("one heartbeat for calls without a session", 1.0, False),
}  # fmt: skip
_BATCHING: Final[Aims] = {
    "one by one, calls/s": ("", None, True),
    "in batches, calls/s": ("", None, True),
    "in batches, x": ("a small scikit-learn model in batches at 5 x the calls/s of one by one", 5.0, True),
}
_TEMPLATE: Final[Aims] = {
    "a forked start, ms": ("a forked worker with scikit-learn starts within 60 ms", 60.0, False),
    "a start, ms": ("", None, False),
    "a forked start, CPU ms": ("a forked start in 60 ms of CPU time", 60.0, False),
    "replaced by a fork in, ms": ("", None, False),
    "replaced in, with scikit-learn, ms": ("", None, False),
    "MiB of 8 forked": ("", None, False),
    "MiB of 8": ("", None, False),
    "forked, x the memory": ("eight forked workers in half of the memory of others", 0.5, False),
}
_IMPORTS: Final[Aims] = {
    "import snakepit_trio, ms": ("`import snakepit_trio` in 120 ms more than the bare interpreter", 120.0, False),
    "and open_pool, ms": ("", None, False),
    "import trio, ms": ("", None, False),
    "bridge_py --help, ms": ("`python -m bridge_py --help` in 60 ms more than the bare interpreter", 60.0, False),
    "and a tool, ms": ("", None, False),
    "packages": ("at most 15 packages beside our two", 15.0, False),
}
_LINK_NAMES: Final = ("lane", "unix", "tls", "TLS")  # the last one has the ratios
_STORE_NAMES: Final = ("memory", "sqlite", "sqlite, normal", "redis", "redis, everysec")
_LINKS: Final[Aims] = {
    **{
        f"{way}, {what}": ("", None, more)
        for way in _LINK_NAMES[:3]
        for what, more in (
            ("p50 us", False),
            ("host CPU us", False),
            ("calls/s of 64", True),
            ("host CPU us of 64", False),
            ("10 MB ms", False),
        )
    },
    "TLS, time x lane": ("", None, False),
    "TLS, host CPU x lane": ("", None, False),
    "TLS, rate x lane": ("", None, True),
    "TLS, host CPU of 64 x lane": ("", None, False),
    "TLS, 10 MB x lane": ("", None, False),
    "TLS, time x unix": ("a call over TCP with TLS in at most twice the time over the Unix socket", 2.0, False),
    "TLS, host CPU x unix": ("and at most twice the CPU time of the host", 2.0, False),
    "TLS, rate x unix": ("", None, True),
    "TLS, host CPU of 64 x unix": ("", None, False),
    "TLS, 10 MB x unix": ("", None, False),
}
_STORES: Final[Aims] = {
    f"{name}, {what}": ("", None, not what.endswith("x"))
    for name in _STORE_NAMES
    for what in (
        "gets/s",
        "updates/s",
        "gets/s of 32",
        "updates/s of 32",
        "updates/s of one session from two hosts",
        "gets/s, memory x",
        "updates/s, memory x",
    )
}
_SCALING: Final[Aims] = {
    "call alone, us": ("", None, False),
    "call of many, us": ("", None, False),
    "KiB there and back, us": ("", None, False),
    "idle worker, us/s": ("", None, False),
    "forked start, ms": ("", None, False),
    "worker, KiB": ("", None, False),
    "worker, descriptors": ("a worker takes at most 8 descriptors of its host", 8.0, False),
    "collection, ms": ("", None, False),
    "collection when frozen, ms": ("", None, False),
    "loop busy, off by %": ("the model of scaling tells within 20% how busy the loop is", 20.0, False),
    "calls/s, off by %": ("the model of scaling tells the rate within 20%", 20.0, False),
    "workers of 100 ms for one loop": ("one loop keeps 500 workers busy with tools of 100 ms", 500.0, True),
}


def _of(aims: Aims, beginning: str) -> Aims:
    """Those whose names begin so, and go on with one part."""
    return {name: aim for name, aim in aims.items() if name.startswith(beginning) and _is_one(name[len(beginning) :])}


def _is_one(rest: str) -> bool:
    return not rest.startswith(("normal, ", "everysec, "))


#: The tables of these figures, by title.
AIMS: Final[dict[str, Aims]] = {
    "State": _STATE,
    "Dataset": _DATASET,
    "Endurance": _ENDURANCE,
    "Functions": _FUNCTIONS,
    "Progress": _PROGRESS,
    "Batches": _BATCHING,
    "Templates": _TEMPLATE,
    "Spares": _SPARES,
    "Telemetry": _TELEMETRY,
    **{f"Store: {store}": _of(_STORES, f"{store}, ") for store in _STORE_NAMES},
    **{f"Link: {link}": _of(_LINKS, f"{link}, ") for link in _LINK_NAMES},
    "Scaling": _SCALING,
    "Imports": _IMPORTS,
    "Workers of contract 0.4": {name: aim for name, aim in _FOREIGN.items() if name.startswith("0.4,")},
    "Workers of contract 0.13": {name: aim for name, aim in _FOREIGN.items() if name.startswith("0.13,")},
    "A 0.13 worker": {name: aim for name, aim in _FOREIGN.items() if not name.startswith(("0.4,", "0.13,"))},
}
