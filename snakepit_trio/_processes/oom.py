"""Tells whether the kernel killed a process because memory ran out.

The SIGKILL of the kernel's out-of-memory killer looks like any other, but the kernel counts its victims: in
each memory control group, and for the whole machine. If a process died by SIGKILL, and a count has grown since
its start, memory ran out. With several workers in one group, each kill explains the death of one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
_claimed: Counter[Path] = Counter()  # kills that have explained a death already, by the file that counted them


class OomWatch:
    """Watches over one process. Make it while the process lives. Where the kernel does not count, it finds nothing."""

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._counter = find_counter(pid, proc)
        self._before = self._unclaimed()

    def was_victim(self) -> bool:
        """Whether a kill since the start explains the death of the process. Ask once, after a death by SIGKILL."""
        if self._counter is None or self._unclaimed() <= self._before:
            return False
        _claimed[self._counter] += 1
        return True

    def _unclaimed(self) -> int:
        if self._counter is None:
            return 0
        return (read_count(self._counter) or 0) - _claimed[self._counter]


class Mount(NamedTuple):
    """The mount point of a hierarchy of memory control groups, and which of its groups is seen there."""

    version: int
    root: str
    point: Path


def find_counter(pid: int, proc: Path = PROC) -> Path | None:
    """The file that counts kills nearest to a process: in its group, else in the machine; None if there is none."""
    try:
        groups = parse_groups((proc / str(pid) / "cgroup").read_text())
        mounts = parse_mounts((proc / "self" / "mountinfo").read_text())
    except OSError:
        groups, mounts = {}, []
    candidates = [*candidates_of(groups, mounts), proc / "vmstat"]
    return next((path for path in candidates if read_count(path) is not None), None)


def candidates_of(groups: dict[int, str], mounts: list[Mount]) -> Iterator[Path]:
    """The files that may count for a process, nearest first, given its groups by version."""
    for mount in sorted(mounts, reverse=True):
        if mount.version not in groups:
            continue
        group = groups[mount.version].removeprefix(mount.root.rstrip("/"))
        folder = mount.point / group.strip("/")
        if mount.version == 1:
            yield folder / "memory.oom_control"
            continue
        # Version 2 counts in ancestors too, and only where the memory controller is switched on.
        for ancestor in (folder, *folder.parents):
            if ancestor.is_relative_to(mount.point):
                yield ancestor / "memory.events"


def parse_groups(text: str) -> dict[int, str]:
    """The memory control groups in /proc/<pid>/cgroup, by version of the interface: cgroups(7)."""
    groups = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            groups[2] = path
        elif "memory" in controllers.split(","):
            groups[1] = path
    return groups


def parse_mounts(text: str) -> list[Mount]:
    """Where /proc/self/mountinfo says that memory control groups are: proc_pid_mountinfo(5)."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_unescape(field) for field in before.split()[3:5])
        kind, _source, options = after.split()[:3]
        if kind == "cgroup2":
            mounts.append(Mount(2, root, Path(point)))
        elif kind == "cgroup" and "memory" in options.split(","):
            mounts.append(Mount(1, root, Path(point)))
    return mounts


def read_count(path: Path) -> int | None:
    """The `oom_kill` of memory.events, memory.oom_control or /proc/vmstat; None if the file does not have it."""
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
