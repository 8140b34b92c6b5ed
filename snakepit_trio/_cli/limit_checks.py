"""What `snakepit doctor` checks of the limits of this process, of its user, and of its control groups."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from .checks import MIB, Finding, State

_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60  # bytes; version 1 of control groups writes a number beyond it for no limit
_ENOUGH: Final = 32  # workers
_LEAST_SPACE: Final = 512 * MIB  # of addresses: a worker of ours maps half of it, and libraries such as numpy more
_LITTLE_SPACE: Final = 4096 * MIB
_LEAST_FILE: Final = 16 * MIB  # a step in which shared memory grows
_LITTLE_FILE: Final = 1024 * MIB


def _descriptors() -> Finding:
    from snakepit_trio._processes.capacity import DESCRIPTORS

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return "ok", "unlimited"
    workers = max(0, soft - 64) // DESCRIPTORS
    text = f"{soft} (RLIMIT_NOFILE; hard limit {_number(hard)}), enough for about {workers} workers"
    if workers >= _ENOUGH:
        return "ok", text
    higher = "" if hard == resource.RLIM_INFINITY or hard >= 4096 else ", which needs a higher hard limit (limits.conf)"
    return _grade(workers), text, f"raise it: ulimit -n 4096{higher}"


def _processes() -> Finding:
    from snakepit_trio._processes.capacity import THREADS

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() == 0:
        soft = resource.RLIM_INFINITY  # it does not hold for root
    text = f"{_number(soft)} (RLIMIT_NPROC"
    free: list[int] = []
    if soft != resource.RLIM_INFINITY:
        free.append(soft - (threads := _threads_of_user()))
        text += f", {threads} used"
    group, used = _group_limit("pids", "pids.max", "pids.max"), _group_limit("pids", "pids.current", "pids.current")
    text += "), unlimited" if group is None else f"), {group}, {used or 0} used"
    text += " (control group)"
    if group is not None:
        free.append(group - (used or 0))
    workers = max(0, min(free, default=100_000) // THREADS)
    if workers >= _ENOUGH:
        return "ok", text
    remedy = "raise it: ulimit -u, or the container's limit of pids (docker run --pids-limit=1000)"
    return _grade(workers), f"{text}: at most {workers} workers", remedy


def _threads_of_user() -> int:
    """The threads that the kernel counts for RLIMIT_NPROC: those of all processes of this user."""
    from snakepit_trio._processes.proc import threads_of

    return threads_of(os.getuid())


def _address_space() -> Finding:
    limits = {"RLIMIT_AS": "ulimit -v", "RLIMIT_DATA": "ulimit -d"}
    found = {name: resource.getrlimit(getattr(resource, name))[0] for name in limits}
    name = min(found, key=lambda each: _size(found[each]))
    least = found[name]
    if least == resource.RLIM_INFINITY:
        return "ok", "unlimited"
    text = f"{least // MIB} MiB for each process ({name})"
    state: State = "fail" if least < _LEAST_SPACE else "warn" if least < _LITTLE_SPACE else "ok"
    remedy = f"raise it: {limits[name]} unlimited; limits=Limits(memory=...) of a pool limits its workers alone"
    return (state, text) if state == "ok" else (state, text, remedy)


def _file_size() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY:
        return "ok", "unlimited"
    text = f"{soft / MIB:.1f} MiB (RLIMIT_FSIZE), which is for shared memory too"
    state: State = "fail" if soft < _LEAST_FILE else "warn" if soft < _LITTLE_FILE else "ok"
    return (state, text) if state == "ok" else (state, text, "raise it: ulimit -f unlimited")


def _processor_time() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    cpus = len(os.sched_getaffinity(0))
    if soft == resource.RLIM_INFINITY:
        return "ok", f"unlimited, on {cpus} CPUs"
    name = signal.Signals.SIGXCPU.name
    text = f"each process is killed ({name}) after {soft} s of processor time (RLIMIT_CPU)"
    return "fail" if soft < 60 else "warn", text, "raise it: ulimit -t unlimited"


def _memory() -> Finding:
    from snakepit_trio._processes.proc import memory

    limit = _group_limit("memory", "memory.max", "memory.limit_in_bytes")
    used = _group_limit("memory", "memory.current", "memory.usage_in_bytes")
    free = memory("MemAvailable")
    text = f"{memory('MemTotal') / 2**30:.1f} GiB"
    if limit is not None and limit < _UNLIMITED:
        text += f", {limit / 2**30:.1f} GiB for the control group"
        free = min(free, limit - (used or 0))
    text += f", {free / 2**30:.1f} GiB free"
    if free < 512 * MIB:
        return "fail" if free < 64 * MIB else "warn", text, "end other programs, or raise the container's memory limit"
    return "ok", text


def _grade(workers: int) -> State:
    return "warn" if workers >= 2 else "fail"


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _size(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _group_limit(controller: str, name: str, old_name: str) -> int | None:
    """The least number in the files of this name, of the control groups that this process is in; None without one."""
    found: list[int] = []
    for path in _group_files(controller, name, old_name):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(path.read_text()))
            if not name.endswith("max"):
                break  # the use of the innermost group
    return min(found, default=None)


def _group_files(controller: str, name: str, old_name: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for line in _own_groups().splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers in ("", controller):
                root, file = (_CGROUPS / controller, old_name) if controllers else (_CGROUPS, name)
                group = root / own.strip("/")
                yield from (each / file for each in (group, *group.parents) if each.is_relative_to(root))


def _own_groups() -> str:
    return Path("/proc/self/cgroup").read_text()


LIMIT_CHECKS: Final[dict[str, Callable[[], Finding]]] = {
    "descriptors": _descriptors,
    "processes": _processes,
    "address space": _address_space,
    "file size": _file_size,
    "processor time": _processor_time,
    "memory": _memory,
}
