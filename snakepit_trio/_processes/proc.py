"""What the kernel tells of processes and of this machine's memory, in /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


class ProcessStat(NamedTuple):
    """A process at one moment. `started` is in clock ticks since the boot: with the pid, it names the process."""

    state: str
    parent: int
    cpu_seconds: float
    started: int


def stat_of(pid: int) -> ProcessStat | None:
    """Read what `proc(5)` calls stat; None if there is no such process. A zombie is one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may have any characters, and ends at the last bracket.
            fields = file.read().rpartition(b")")[2].split()
        return ProcessStat(
            fields[0].decode(), int(fields[1]), (int(fields[11]) + int(fields[12])) * _TICK, int(fields[19])
        )
    except (OSError, ValueError, IndexError):  # it has ended meanwhile, or cannot be read
        return None


def resident_bytes(pid: int | None) -> int:
    """Resident memory of a process, in bytes; 0 if there is none."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, MemoryError, ValueError, IndexError):  # whatever the cause: nothing depends on the answer
        return 0


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped, by a debugger or a signal."""
    found = stat_of(pid)
    return found is not None and found.state in ("T", "t")


def is_computing(pid: int) -> bool:
    """Whether the main thread of a process runs, or waits for a processor. Then it is in no system call that waits."""
    found = stat_of(pid)
    return found is not None and found.state == "R"


def memory(name: str) -> int:
    """An amount of /proc/meminfo, in bytes, such as `MemTotal`, `MemAvailable` or `SwapTotal`. Raises `OSError`."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/meminfo does not tell {name}")


def threads_of(user: int) -> int:
    """The threads of all processes of a user, as far as this process can see them."""
    return sum(threads for owner, threads in _threads() if owner == user)


def _threads() -> Iterator[tuple[int, int]]:
    """For each process: its real user, and how many threads it has."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status", "rb") as file:
                lines = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
            yield int(lines[b"Uid"].split()[0]), int(lines[b"Threads"])
        except (OSError, ValueError, KeyError):  # it has ended meanwhile
            continue
