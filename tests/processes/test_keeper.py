"""Keepers: workers start clean below them, and what workers have started ends with them, also if one is attacked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from benchmarks.scenarios import is_alive, seconds_until
from bridge_py import BaseAdapter, tool
from snakepit_trio._processes import registry
from snakepit_trio._processes.children import interpreter
from snakepit_trio.launchers.place import Place
from tests.helpers.workers import TOOLS, kill_worker

#: Each generation has one child and ends, in a session of its own, so that its pid changes all the time.
CHAIN = """
import os, sys, time
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
    open(sys.argv[1], "w").write(str(time.monotonic_ns()))
"""
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


class Unkind(BaseAdapter):
    """Starts what is hard to find again."""

    @tool
    def start(self, code: str, path: str) -> None:
        """Start a Python process without the worker's environment, and wait until it has written to `path`."""
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code, path], env={}, start_new_session=True)
        while not Path(path).exists() or not Path(path).read_text():
            time.sleep(0.005)

    @tool
    def descriptors(self) -> dict[str, str]:
        """What this process has open."""
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
        return found

    @tool
    def parents(self) -> list[int]:
        """The keeper's pid, session and group, and this process's session and group."""
        keeper = os.getppid()
        return [keeper, os.getsid(keeper), os.getpgid(keeper), os.getsid(0), os.getpgid(0)]

    @tool
    def make(self, path: str) -> None:
        """Make a file."""
        Path(path).touch()


def keeper_of(pool: snakepit.Pool) -> int:
    """The pid of the keeper of a pool's only worker."""
    (worker,) = pool.list_workers()
    return psutil.Process(worker.pid).ppid()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where processes write to."""
    return tmp_path / "path"


async def test_a_daemon_without_the_workers_environment_ends_with_the_worker(path: Path) -> None:
    async with snakepit.open_pool(Unkind, workers=1) as pool:
        await pool.execute("start", {"code": DAEMON, "path": str(path)})
        daemon = int(path.read_text())
        assert is_alive(daemon)
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        await kill_worker(pool, worker.pid)
        assert not is_alive(daemon)
        path.unlink()
        await pool.execute("start", {"code": DAEMON, "path": str(path)})
        daemon = int(path.read_text())
    assert not is_alive(daemon)


async def test_processes_that_never_keep_a_pid_end_with_the_worker(path: Path) -> None:
    async with snakepit.open_pool(Unkind, workers=1) as pool:
        await pool.execute("start", {"code": CHAIN, "path": str(path)})
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        await kill_worker(pool, worker.pid)
        last = path.read_text()
        await trio.sleep(0.2)
        assert path.read_text() == last


@pytest.mark.parametrize("before", [[], [signal.SIGSTOP]], ids=["killed", "stopped, then killed"])
async def test_a_keeper_that_is_killed_takes_its_worker_along(before: list[signal.Signals], log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, trio.open_nursery() as nursery:
        left = await pool.execute("leave_behind")

        async def attack() -> None:
            await seconds_until(log.exists)
            for number in (*before, signal.SIGKILL):
                os.kill(keeper, number)

        keeper = keeper_of(pool)
        nursery.start_soon(attack)
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("sleep", {"seconds": 60, "path": str(log)})
        assert not is_alive(left)
        assert await pool.execute("add", {"a": 1}) == 2


async def test_a_keeper_that_is_stopped_still_ends_its_worker(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.2) as pool:
        os.kill(keeper_of(pool), signal.SIGSTOP)
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("stubborn", {"path": str(log)}, timeout=1)
        await pool.await_ready()
        os.kill(keeper_of(pool), signal.SIGSTOP)
        with pytest.raises(snakepit.WorkerCrashed, match="exit code 7"):
            await pool.execute("exit", {"code": 7})
        await pool.await_ready()
        os.kill(keeper_of(pool), signal.SIGSTOP)


async def test_a_worker_shares_its_output_with_its_host_and_nothing_with_its_keeper() -> None:
    async with snakepit.open_pool(Unkind, workers=1) as pool:
        worker = set((await pool.execute("descriptors")).values())
        host, keeper = channels_of(os.getpid()), channels_of(keeper_of(pool))
    assert len(host & worker) == 2 + 2 * pool.config.lane  # stdout, stderr and the two pipes of the lane
    assert keeper & worker == set()
    assert len(keeper) == 2  # the socket, and what tells it of the ends of children


def channels_of(pid: int) -> set[str]:
    """The pipes and sockets that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return {target for target in found if target.startswith(("pipe:", "socket:"))}


async def test_worker_and_keeper_lead_groups_in_the_session_of_their_host() -> None:
    async with snakepit.open_pool(Unkind, workers=1) as pool:
        keeper, its_session, its_group, session, group = await pool.execute("parents")
        (worker,) = pool.list_workers()
        assert (its_group, group) == (keeper, worker.pid)
        # In sessions of their own they would be scheduled as rivals of the host: sched(7), autogroup.
        assert its_session == session == os.getsid(0)


async def test_the_umask_of_workers(tmp_path: Path) -> None:
    usual = os.umask(0o027)
    try:
        for umask, mode in ((None, 0o640), (0o077, 0o600), (0, 0o666)):
            async with snakepit.open_pool(Unkind, workers=1, umask=umask) as pool:
                made = tmp_path / f"made with {umask}"
                await pool.execute("make", {"path": str(made)})
                assert made.stat().st_mode & 0o777 == mode
    finally:
        os.umask(usual)
    with pytest.raises(snakepit.UsageError, match="umask=512: give a whole number from 0 to 511"):
        snakepit.PoolConfig(adapter=TOOLS, umask=0o1000)


async def test_a_host_whose_umask_denies_everything() -> None:
    usual = os.umask(0o777)
    try:
        async with snakepit.open_pool(TOOLS, workers=1) as pool:
            (worker,) = pool.list_workers()
            assert worker.pid is not None
            await kill_worker(pool, worker.pid)
            assert await pool.execute("add", {"a": 1}) == 2
            folder = next(run.folder for run in registry.runs() if run.is_alive)
            assert all(path.stat().st_mode & 0o600 for path in folder.rglob("*"))
    finally:
        os.umask(usual)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cwd": "/no/such/folder"}, r"could not be started: \[Errno 2\] No such file or directory: '/no/such/folder'"),
        ({"python": "/etc/passwd"}, r"could not be started: \[Errno 13\] Permission denied"),
    ],
)
async def test_what_cannot_be_run_is_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(snakepit.WorkerStartError, match=message):
        async with snakepit.open_pool(TOOLS, **settings):  # type: ignore[arg-type]
            pytest.fail("the block was entered")


def test_who_runs_keepers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interpreter("/usr/bin/python9") == interpreter(sys.executable) == sys.executable
    for executable in ("/usr/sbin/uwsgi", "", None):
        monkeypatch.setattr(sys, "executable", executable)
        assert interpreter("/usr/bin/python9") == "/usr/bin/python9"
        with pytest.raises(snakepit.UsageError, match="give python= the path of one"):
            interpreter(executable)  # type: ignore[arg-type]


def test_a_place_has_absolute_paths_and_closes_its_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("below")
    place = Place.of(snakepit.PoolConfig(adapter=TOOLS))
    monkeypatch.chdir("/")
    assert place.folder == str(tmp_path)
    assert str(tmp_path / "below") in json.loads(place.environment({})["SNAKEPIT_SYS_PATH"])
    place.close()
