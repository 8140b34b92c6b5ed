"""Bounds of a worker process: limits that the kernel enforces, and the threads of numeric libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import attrs

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.validation import instance, whole
from snakepit_trio.state.quotas import Quotas

#: A library reads its variable when it is loaded. All libraries follow OMP_NUM_THREADS if their own is missing.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def _limit(least: int, most: int | None = None) -> Any:
    return attrs.field(default=None, validator=whole(least, most, or_none="no limit"))


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of each worker process; None leaves one as it is. They hold for the whole life of a process.

    They are set as soft and hard limits in the worker before its adapter is imported. A limit that cannot be
    set, such as one over the hard limit of this process, causes a `WorkerStartError`.
    """

    #: Bytes of address space (RLIMIT_AS), at least 256 MiB. Mapped memory counts, even if it is not used: shared
    #: libraries, and for each thread about 75 MiB. Beyond it a tool gets MemoryError, and its caller a `ToolError`.
    address_space: int | None = _limit(256 * 1024 * 1024)
    #: Seconds of CPU time, of all threads and calls of the process together (RLIMIT_CPU). Then SIGXCPU
    #: kills the worker, its calls fail with `WorkerCrashed`, and it is replaced.
    cpu_seconds: int | None = _limit(1)
    #: Open file descriptors (RLIMIT_NOFILE), at least 32; a worker needs about 20 for itself.
    open_files: int | None = _limit(32)
    #: Niceness, 0 to 19: how far it steps back for other processes. Values below this process's own need privileges.
    nice: int | None = _limit(0, 19)

    def chosen(self) -> dict[str, int]:
        """The limits that are not None, by name."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)


def share_of_cores(workers: object) -> int:
    """The cores that this process may use, divided by `workers`, or by the most of them; at least 1."""
    if isinstance(workers, (tuple, list)) and len(workers) == 2:
        workers = workers[1]
    count = workers if isinstance(workers, int) and workers > 0 else 1  # its own validator reports other values
    return max(1, len(os.sched_getaffinity(0)) // count)


def thread_variables(threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that cap the threads of BLAS and OpenMP, as far as `environment` leaves the choice to the pool."""
    if threads is None or "OMP_NUM_THREADS" in environment:
        return {}
    return {name: str(threads) for name in THREAD_VARIABLES if name not in environment}


def check_quotas(config: Any, field: attrs.Attribute[Any], quotas: object) -> None:
    """Raise `UsageError` for what is no `Quotas`, and for quotas that no store would hear of."""
    instance(Quotas, remedy="give a snakepit_trio.Quotas")(config, field, quotas)
    if config.store is not None and quotas != Quotas():
        raise UsageError("quotas= is for the store in this process: give them to the store itself, as its quotas=")
