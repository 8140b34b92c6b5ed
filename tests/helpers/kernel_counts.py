"""Files of the kernel that count its kills, made up."""

from __future__ import annotations

from pathlib import Path

V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
EVENTS = "low 0\nhigh 0\nmax 513\noom 3\noom_kill {}\noom_group_kill 0\n"


def make_proc(folder: Path) -> Path:
    """A /proc with a process 7 in a group of version 2; its count is in `memory.events` beside it."""
    (folder / "self").mkdir()
    (folder / "7").mkdir()
    (folder / "7" / "cgroup").write_text("0::/\n")
    (folder / "self" / "mountinfo").write_text(V2_MOUNT.replace("/sys/fs/cgroup", str(folder)))
    (folder / "memory.events").write_text(EVENTS.format(3))
    return folder
