"""How many workers this machine can hold, by its own limits. More are refused before any worker is started."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge_py.wire.errors import UsageError

from .proc import memory

# What each worker takes at least, its keeper included. A pool beyond that is sure to fail; a smaller one may fail.
THREADS: Final = 3
DESCRIPTORS: Final = 6
_BYTES: Final = 16 << 20

_CGROUPS: Final = Path("/sys/fs/cgroup")


def check_room(workers: int) -> None:
    """Raise `UsageError` for more workers than this machine can hold, even if nothing else runs on it."""
    most, limit = min(_limits())
    if workers > most:
        raise UsageError(f"workers={workers}: this machine can hold {most} at the most, by {limit}; give fewer")


def _limits() -> Iterator[tuple[int, str]]:
    """For each limit: how many workers it allows, and its name."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY:
        yield descriptors // DESCRIPTORS, f"the {descriptors} descriptors that this process may have (ulimit -n)"
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if processes != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield processes // THREADS, f"the {processes} processes and threads of one user (ulimit -u)"
    for path in ("pid_max", "threads-max"):
        if (most := _read(Path("/proc/sys/kernel") / path)) is not None:
            yield most // THREADS, f"the {most} threads of all processes (kernel.{path})"
    for path in ("pids.max", "pids/pids.max"):
        if (most := _read(_CGROUPS / path)) is not None:
            yield most // THREADS, f"the {most} threads of its control group (pids.max)"
    with contextlib.suppress(OSError):  # the process has no descriptor left: then this limit is not known
        bytes_here = min(_memory())
        yield bytes_here // _BYTES, f"its memory, {bytes_here / 2**30:.1f} GiB, of which each takes 16 MiB or more"


def _memory() -> Iterator[int]:
    yield memory("MemTotal") + memory("SwapTotal")
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        if (most := _read(_CGROUPS / path)) is not None:
            yield most


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # the file is not there, or says "max"
        return None
