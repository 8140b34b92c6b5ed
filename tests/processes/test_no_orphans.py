"""No orphans: whatever happens to a host, nothing of its pools lives on."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from benchmarks.scenarios import Host, is_alive, kill_a_busy_host, seconds_until, sweep_ten_dead_hosts
from snakepit_trio._processes import registry
from snakepit_trio._processes.children import Child
from tests.helpers.workers import TOOLS


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A busy host."""
    one = Host(tmp_path)
    yield one
    one.kill()


def guardians_of(pid: int) -> list[int]:
    """The guardians among the children of a process."""
    children = psutil.Process(pid).children()
    return [child.pid for child in children if is_alive(child.pid) and "guardian.py" in str(child.cmdline())]


async def test_a_killed_host_leaves_nothing_though_its_workers_hold_the_gil(tmp_path: Path) -> None:
    number, seconds = await kill_a_busy_host(tmp_path)
    assert number == 6  # two workers with two children each
    assert seconds < 20


@pytest.mark.parametrize("how", ["times out", "crashes"])
async def test_when_a_call_is_over_nothing_runs_of_what_it_has_started(how: str, log: Path) -> None:
    """Not in a session of its own either; and its worker holds the GIL."""
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.1) as pool, trio.open_nursery() as nursery:
        if how == "crashes":
            nursery.start_soon(_kill_when_there, pool, log)
        for timeout in (3, 60) if how == "times out" else (60,):  # 3 s may be too few for the children to come
            with pytest.raises((snakepit.CallTimeout, snakepit.WorkerCrashed)) as caught:
                await pool.execute("hold_the_gil_with_children", {"path": str(log)}, timeout=timeout)
            if _pids_in(log):
                break
        assert [is_alive(pid) for pid in _pids_in(log)] == [False, False]
        assert caught.type is (snakepit.CallTimeout if how == "times out" else snakepit.WorkerCrashed)


def _pids_in(log: Path) -> list[int]:
    pids = [int(pid) for pid in log.read_text().split()] if log.exists() else []
    return pids if len(pids) == 2 else []


async def _kill_when_there(pool: snakepit.Pool, log: Path) -> None:
    await seconds_until(lambda: bool(_pids_in(log)))
    (worker,) = pool.list_workers()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


async def test_what_calls_have_left_behind_ends_with_their_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        first = await pool.execute("leave_behind")
        assert is_alive(first)
        (worker,) = pool.list_workers()
        await pool.workers.restart(worker.id)
        await seconds_until(lambda: not is_alive(first))
        second = await pool.execute("leave_behind")
    assert not is_alive(second)


async def test_the_next_start_sweeps_what_dead_hosts_and_guardians_left(tmp_path: Path) -> None:
    swept = await sweep_ten_dead_hosts(tmp_path)
    assert (swept.processes, swept.runs) == (40, 10)  # workers end with their keepers


async def test_a_guardian_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async with snakepit.open_pool(TOOLS, workers=1):
        (first,) = guardians_of(os.getpid())
        os.kill(first, signal.SIGKILL)
        with trio.fail_after(60):
            while first in (now := guardians_of(os.getpid())) or not now:
                await trio.sleep(0.01)
        assert f"the guardian (pid {first}) ended" in caplog.text
    assert guardians_of(os.getpid()) == []


async def test_a_host_that_only_loses_its_guardian_and_is_killed_later(host: Host) -> None:
    os.kill(host.guardian, signal.SIGKILL)
    await seconds_until(lambda: guardians_of(host.process.pid) not in ([], [host.guardian]), 60)
    host.kill()
    await seconds_until(lambda: not any(map(is_alive, host.pids)), 60)
    await seconds_until(lambda: not registry.runs(), 60)


async def test_ps_shows_pools_and_sweep_removes_dead_ones(tmp_path: Path) -> None:
    assert "no pools are open" in await snakepit_command("ps")
    assert await snakepit_command("sweep") == "nothing to sweep\n"
    async with snakepit.open_pool(TOOLS, workers=1, name="mine") as pool:
        dead = await trio.to_thread.run_sync(Host, tmp_path)
        dead.kill_with_helpers()
        (worker,) = pool.list_workers()
        mine, other = json.loads(await snakepit_command("ps", "--json"))
        assert (mine["pool"], mine["host"], mine["is_alive"]) == ("mine", os.getpid(), True)
        (entry,) = mine["workers"]
        assert (entry["id"], entry["pid"], entry["state"]) == ("mine-1", worker.pid, "ready")
        assert entry["memory"] > 2**20
        assert (other["pool"], other["is_alive"], len(other["workers"])) == ("a-host", False, 2)
        table = await snakepit_command("ps")
        assert all(text in table for text in ("mine-1", "(dead)", "snakepit sweep", str(worker.pid)))
        assert f"pool 'a-host', host {dead.process.pid}: 4 processes killed" in await snakepit_command("sweep")
        assert not any(is_alive(pid) for pid in dead.pids)
        assert await pool.execute("pid") == worker.pid


async def snakepit_command(*arguments: str) -> str:
    """The output of a `snakepit` command."""
    command = [sys.executable, "-m", "snakepit_trio", *arguments]
    done = await trio.run_process(command, capture_stdout=True, env={**os.environ, "COLUMNS": "200"})
    return done.stdout.decode()


def test_an_entry_that_was_only_reserved_is_found_by_its_run() -> None:
    """The host died between the spawn of a worker and the note of its pid."""
    run = registry.ProcessRegistry.open("half")
    run.reserve("half-1")
    environment = {**os.environ, "SNAKEPIT_RUN_ID": run.run_id}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment) as orphan:
        os.close(run._lock)  # as the kernel does when a host dies
        (swept,) = registry.sweep()
        assert (swept.run.id, swept.killed) == (run.run_id, 1)
        assert orphan.wait(60) == -signal.SIGKILL


def test_a_recorded_pid_that_belongs_to_another_process_now_is_left_alone() -> None:
    run = registry.ProcessRegistry.open("old")
    with subprocess.Popen(["sleep", "600"], process_group=0) as stranger:
        key = run.reserve("old-1")
        ours, theirs = socket.socketpair()
        run.activate(key, stranger.pid, Child(stranger, ours))
        theirs.close()
        ours.close()
        (path,) = (run.folder / "workers").iterdir()
        path.write_text(path.read_text().replace('start_ticks": ', 'start_ticks": 1'))
        os.close(run._lock)
        (swept,) = registry.sweep()
        assert swept.killed == 0
        assert stranger.poll() is None
        stranger.kill()


@pytest.fixture
def dead_runs() -> list[str]:
    """The ids of a hundred runs whose hosts are dead."""
    runs = [registry.ProcessRegistry.open("dead") for _ in range(100)]
    for run in runs:
        os.close(run._lock)
    return [run.run_id for run in runs]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep looks for processes again at once."""
    monkeypatch.setattr("snakepit_trio._processes.guardian._PASS", 0)


@pytest.mark.usefixtures("no_pause")
def test_who_looks_at_runs_does_not_keep_a_sweep_off(dead_runs: list[str]) -> None:
    """`snakepit ps` beside the start of a pool."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            assert not any(run.is_alive for run in registry.runs())

    with ThreadPoolExecutor() as threads:
        looking = [threads.submit(look) for _ in range(3)]
        swept = registry.sweep()
        over.set()
    assert [one.run.id for one in swept] == dead_runs
    assert all(thread.exception() is None for thread in looking)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("stuck", ["host.json", "lock", "look", "workers"])
def test_what_of_a_run_could_not_be_removed_a_later_sweep_removes(stuck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = registry.ProcessRegistry.open("stuck")
    (run.folder / "look").touch()
    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), stuck))
    run.close()
    assert (run.folder / stuck).exists()
    monkeypatch.undo()
    os.utime(run.folder, (0, 0))
    registry.sweep()
    assert not run.folder.exists()


def refusing(remove: Callable[..., None], stuck: str) -> Callable[..., None]:
    """A function that removes anything but what has this name."""

    def removes(path: str | Path, **how: Any) -> None:
        if Path(path).name == stuck:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        remove(path, **how)

    return removes


@pytest.mark.usefixtures("no_pause")
def test_several_sweeps_at_once_find_each_run_once(dead_runs: list[str]) -> None:
    with ThreadPoolExecutor() as threads:
        sweeps = [threads.submit(registry.sweep) for _ in range(3)]
        found = [swept.run.id for sweep in sweeps for swept in sweep.result()]
    assert sorted(found) == sorted(dead_runs)
    assert registry.runs() == []


def test_a_folder_that_others_could_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        monkeypatch.setenv("SNAKEPIT_RUN_DIR", str(tmp_path / name))
        with pytest.raises(snakepit.UsageError, match=f"{name} must be a folder of your own .* SNAKEPIT_RUN_DIR"):
            registry.runs_folder()


async def test_force_cleanup_kills_all_workers_at_once() -> None:
    async with snakepit.open_pool(TOOLS, workers=2) as one, snakepit.open_pool(TOOLS, workers=1) as other:
        pids = [worker.pid for pool in (one, other) for worker in pool.list_workers()]
        registry.force_cleanup_all()
        with trio.fail_after(60):
            while any(is_alive(pid or 0) for pid in pids):
                await trio.sleep(0.01)
            await one.await_ready()
            assert await one.execute("add", {"a": 1}) == 2
