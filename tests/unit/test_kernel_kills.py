"""How a worker's death is told: exit codes, signals, our own kills, and the kernel's when memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import oom
from snakepit_trio._processes.oom import Mount, OomWatch
from tests.helpers.workers import TOOLS

V2_GROUP = "0::/user.slice/user-1000.slice/app.scope\n"
V1_GROUP = "11:pids:/job\n9:hugetlb,memory:/batch/job:7\n1:name=systemd:/init.scope\n0::/\n"
V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID_MOUNTS = (
    "24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,hugetlb,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
EVENTS = "low 0\nhigh 0\nmax 513\noom 3\noom_kill {}\noom_group_kill 0\n"
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
    """A /proc with a process 7 in a group of version 2; its count is in `memory.events` beside it."""
    (tmp_path / "self").mkdir()
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("0::/\n")
    (tmp_path / "self" / "mountinfo").write_text(V2_MOUNT.replace("/sys/fs/cgroup", str(tmp_path)))
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    return tmp_path


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


# Deaths of workers.


@pytest.fixture
def count(proc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A counter in place of the kernel's, for every worker that starts."""
    monkeypatch.setattr(oom, "find_counter", lambda _pid, _proc: proc / "memory.events")
    return proc / "memory.events"


async def test_a_kill_that_the_kernel_counted_is_named(count: Path, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.WorkerCrashed, match="was killed by the kernel: out of memory") as caught:
            await pool.execute("die_by", {"number": signal.SIGKILL})
        assert caught.value.signal is signal.SIGKILL
        assert caught.value.stderr_tail == ("about to die",)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_other_kills_are_not(number: int, count: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        if number == signal.SIGTERM:  # not how the kernel kills
            count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.WorkerCrashed, match="died") as caught:
            await pool.execute("die_by", {"number": number})
        assert caught.value.signal == number


async def test_our_own_kills_are_not(count: Path, log: Path) -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, concurrency=2, cancel_grace=0.2) as pool,
        trio.open_nursery() as nursery,
    ):

        async def other() -> None:
            with pytest.raises(snakepit.WorkerCrashed, match="'stubborn' did not end within 0.2 s") as caught:
                await pool.execute("print_and_wait")
            assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGKILL, signal.SIGKILL)
            assert caught.value.stderr_tail == ("waiting",)

        nursery.start_soon(other)
        while pool.get_stats().running < 1:
            await trio.sleep(0.005)
        count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("stubborn", {"path": str(log)}, timeout=0.3)


async def test_a_start_that_ends_by_a_signal() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="ended before it was ready.*SIGTERM") as caught:
        async with snakepit.open_pool("tests.helpers.tools:DiesAtStart", workers=1):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGTERM, signal.SIGTERM)
    assert caught.value.stderr_tail == ("about to die",)


async def test_a_start_that_we_end() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="was not ready") as caught:
        async with snakepit.open_pool("tests.helpers.tools:SlowStart", workers=1, start_timeout=0.5):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGKILL, signal.SIGKILL)


async def test_a_start_without_a_process() -> None:
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(TOOLS, workers=1, python="/no/such/python"):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal, caught.value.stderr_tail) == (None, None, ())


async def test_an_exit_is_no_signal() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("exit", {"code": 7})
    assert (caught.value.exit_code, caught.value.signal) == (7, None)
    assert caught.value.stderr_tail == ("about to exit",)


async def test_a_signal_without_a_name() -> None:
    number = signal.SIGRTMIN + 3
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match=f"signal {number}, unknown") as caught:
            await pool.execute("die_by", {"number": number})
    assert caught.value.signal == number


@pytest.mark.skipif(
    "SNAKEPIT_TEST_GROUP" not in os.environ,
    reason="SNAKEPIT_TEST_GROUP names no memory-limited control group in which a worker may be killed",
)
async def test_a_real_kill_by_the_kernel(log: Path) -> None:
    """Memory really runs out, for the worker alone: it moves itself into a group with a limit of its own.

    Which group that may be is for the owner of the machine to say, so by default this is skipped. As root, with
    version 2: `mkdir /sys/fs/cgroup/oom; echo 256M >/sys/fs/cgroup/oom/memory.max; echo 0 >.../memory.swap.max`.
    """
    group = {"TEST_GROUP": os.environ["SNAKEPIT_TEST_GROUP"]}
    async with snakepit.open_pool("tests.helpers.tools:InGroup", workers=1, env=group) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="was killed by the kernel: out of memory"):
            await pool.execute("devour", {"path": str(log)}, timeout=60)
        await pool.await_ready(20)
        with pytest.raises(snakepit.WorkerCrashed, match="died"):
            await pool.execute("die_by", {"number": signal.SIGKILL})
