"""How kills by the kernel for want of memory are counted, by control group and by machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snakepit_trio._processes import oom
from snakepit_trio._processes.oom import Mount, OomWatch
from tests.helpers.kernel_counts import EVENTS, V2_MOUNT, make_proc

V2_GROUP = "0::/user.slice/user-1000.slice/app.scope\n"
V1_GROUP = "11:pids:/job\n9:hugetlb,memory:/batch/job:7\n1:name=systemd:/init.scope\n0::/\n"
HYBRID_MOUNTS = (
    "24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,hugetlb,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
OOM_CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VMSTAT = "nr_free_pages 838274\noom_kill {}\ndrop_pagecache 0\n"


# The files of the kernel.


def test_groups_of_both_versions() -> None:
    assert oom.parse_groups(V2_GROUP) == {2: "/user.slice/user-1000.slice/app.scope"}
    assert oom.parse_groups(V1_GROUP) == {1: "/batch/job:7", 2: "/"}
    assert oom.parse_groups("") == {}


def test_mounts_of_both_versions() -> None:
    assert oom.parse_mounts(V2_MOUNT) == [Mount(2, "/", Path("/sys/fs/cgroup"))]
    assert oom.parse_mounts(HYBRID_MOUNTS) == [
        Mount(1, "/", Path("/sys/fs/cgroup/memory")),
        Mount(2, "/", Path("/sys/fs/cgroup/unified")),
    ]
    spaced = V2_MOUNT.replace("/sys/fs/cgroup ", r"/odd\040place ")
    assert oom.parse_mounts(spaced) == [Mount(2, "/", Path("/odd place"))]


def test_where_a_count_is_looked_for() -> None:
    def paths(groups: str, mounts: str) -> list[str]:
        return [str(path) for path in oom.candidates_of(oom.parse_groups(groups), oom.parse_mounts(mounts))]

    # Ancestors count too; the memory controller may be switched on in one of them only.
    assert paths("0::/a/b\n", V2_MOUNT) == [f"/sys/fs/cgroup{group}/memory.events" for group in ("/a/b", "/a", "")]
    assert paths(V1_GROUP, HYBRID_MOUNTS) == [
        "/sys/fs/cgroup/unified/memory.events",
        "/sys/fs/cgroup/memory/batch/job:7/memory.oom_control",
    ]
    # In a container without a namespace of its own for groups, its group is what is mounted.
    container = V2_MOUNT.replace(" / /sys", " /docker/4e2f /sys")
    assert paths("0::/docker/4e2f\n", container) == ["/sys/fs/cgroup/memory.events"]
    assert paths("0::/docker/4e2f/inner\n", container)[0] == "/sys/fs/cgroup/inner/memory.events"
    assert paths(V1_GROUP, V2_MOUNT) == ["/sys/fs/cgroup/memory.events"]


@pytest.mark.parametrize("text", [EVENTS, OOM_CONTROL, VMSTAT])
def test_the_count_in_each_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(text.format(12))
    assert oom.read_count(file) == 12
    file.write_text("oom_kill_disable 0\nunder_oom 0\n")  # Linux before 4.13
    assert oom.read_count(file) is None
    assert oom.read_count(tmp_path / "missing") is None


def test_the_files_of_this_machine_can_be_read() -> None:
    if (counter := oom.find_counter(os.getpid())) is None:
        pytest.skip("this kernel does not count its OOM kills anywhere that we may read")
    assert (oom.read_count(counter) or 0) >= 0


# Which death a kill explains.


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a process 7."""
    return make_proc(tmp_path)


def test_a_kill_since_the_start_explains_one_death(proc: Path) -> None:
    first, second = OomWatch(7, proc), OomWatch(7, proc)
    assert not first.was_victim()
    (proc / "memory.events").write_text(EVENTS.format(4))
    assert first.was_victim()
    assert not second.was_victim()
    third = OomWatch(7, proc)
    (proc / "memory.events").write_text(EVENTS.format(6))
    assert second.was_victim()
    assert third.was_victim()
    assert not third.was_victim()


def test_the_count_of_the_machine_where_groups_have_none(proc: Path) -> None:
    (proc / "memory.events").unlink()
    (proc / "vmstat").write_text(VMSTAT.format(0))
    watch = OomWatch(7, proc)
    (proc / "vmstat").write_text(VMSTAT.format(1))
    assert watch.was_victim()


def test_where_nothing_is_counted_nothing_is_found(tmp_path: Path) -> None:
    assert not OomWatch(7, tmp_path).was_victim()
