"""Processes in the world as it is: forks and signals of the host, tools that hide what they start, containers, exec.

Hosts are programs of their own (`tests.helpers.world_host`), so that they may do to themselves what no test should.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from benchmarks.scenarios import is_alive, seconds_until
from snakepit_trio._processes import registry
from snakepit_trio._processes.guardian import start_ticks
from tests.helpers.world_tools import START

ROOT = Path(__file__).parents[2]
TOOLS = "tests.helpers.world_tools:Tools"
BOUND = 30  # seconds in which things must end, on a busy machine too


def command(name: str, *arguments: str) -> list[str]:
    """A host program."""
    return [sys.executable, "-m", "tests.helpers.world_host", name, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Of a host program: our modules can be imported, and its workers are not traced, for they are many."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COVERAGE_PROCESS_CONFIG": "", **more}


def run_host(*words: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a host to its end, and return what it has told. `prefix` is a command that runs it."""
    done = subprocess.run(
        [*prefix, *command(*words)],
        check=False,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@contextmanager
def host(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A host that runs, and is killed in the end."""
    with subprocess.Popen(command(*words), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a host tells."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def ends(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def alive_of(pids: list[int]) -> list[str]:
    """Those of these processes that live, with what they run."""
    found = []
    for pid in filter(is_alive, pids):
        try:
            found.append(f"{pid}: {Path(f'/proc/{pid}/cmdline').read_text()}")
        except OSError:
            continue
    return found


def _may_have_namespaces() -> bool:
    try:
        return subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
in_containers = pytest.mark.skipif(not _may_have_namespaces(), reason=f"{' '.join(CONTAINER)} is not allowed here")


# Children of the host's own.


def test_forked_children_end_by_signals_and_harm_nothing() -> None:
    told = run_host("forks")
    assert told["codes"] == {
        "SIGTERM": -signal.SIGTERM,
        "SIGINT": 42,
        "in order": 0,
        "multiprocessing": -signal.SIGTERM,
    }
    assert told["is_same"], "the exit of a forked child has cost the parent a worker"
    assert (told["runs"], told["runs_left"], told["restarts"]) == ([True], 0, 0)


def test_a_forked_child_does_not_keep_the_workers_of_its_dead_parent() -> None:
    with host("forks_and_waits") as process:
        told = told_by(process)
        process.kill()
        process.wait()
        try:
            ends(lambda: not alive_of(told["pids"]), f"workers live on: {alive_of(told['pids'])}")
            ends(lambda: not registry.runs(), "the run's files are there")
            assert is_alive(told["child"])
        finally:
            os.kill(told["child"], signal.SIGKILL)


# Signals.


@pytest.mark.parametrize("how", ["blocked", "ignored", "reaped by others", "as usual"])
def test_workers_start_with_clean_signals(how: str) -> None:
    told = run_host("with_signals", how)
    clean: dict[str, list[int]] = {"blocked": [], "ignored": []}
    assert (told["state"]["worker"], told["state"]["child"]) == (clean, clean)
    assert told["codes"] == [7, -signal.SIGSEGV]
    assert told["restarts_of_cancelling"] == 0
    assert told["state"]["umask"] == 0o027, "the host's own"


async def test_workers_get_the_umask_of_the_settings() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, umask=0o077) as pool:
        assert (await pool.execute("state"))["umask"] == 0o077
    with pytest.raises(snakepit.UsageError, match="umask=-1: give"):
        async with snakepit.open_pool(TOOLS, umask=-1):
            pass


async def test_a_forked_child_of_a_tool_that_exits_ends() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        assert await pool.execute("fork_and_exit", timeout=BOUND) == 5
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


# What tools start ends with its worker.


@pytest.mark.parametrize("how", START)
async def test_what_a_tool_has_started_is_gone_when_its_worker_is_killed(how: str, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, trio.open_nursery() as nursery:
        (worker,) = pool.list_workers()
        nursery.start_soon(_kill_when_there, worker.pid, log)
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("leave_and_insist", {"how": how, "path": str(log)}, timeout=60)
        assert alive_of(_pids_in(log)) == []
        await pool.await_ready()
        assert await pool.execute("add", {"a": 1}) == 2


@pytest.mark.parametrize("how", START)
async def test_what_a_tool_has_started_is_gone_when_its_call_is_over(how: str, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.2) as pool:
        if how == "child":
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("leave_and_insist", {"how": how, "path": str(log)}, timeout=3)
        else:
            await _give_up_when_there(pool, {"how": how, "path": str(log)}, log)
        assert alive_of(_pids_in(log)) == []
        await pool.await_ready()
        assert await pool.execute("add", {"a": 1}) == 2


async def _give_up_when_there(pool: snakepit.Pool, args: dict[str, object], log: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "leave_and_insist", args)
        await seconds_until(log.exists, BOUND)
        nursery.cancel_scope.cancel()


def _pids_in(log: Path) -> list[int]:
    return [int(pid) for pid in log.read_text().split()]


async def _kill_when_there(pid: int | None, log: Path) -> None:
    await seconds_until(log.exists, BOUND)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", START)
async def test_what_tools_have_left_ends_when_the_pool_closes(how: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        pids = await pool.execute("leave", {"how": how})
        assert len(alive_of(pids)) == len(pids)
        began = trio.current_time()
    assert alive_of(pids) == []
    assert trio.current_time() - began < BOUND


@pytest.mark.parametrize("how", START)
def test_what_a_tool_has_started_is_gone_soon_after_its_host_is_killed(how: str, log: Path) -> None:
    with host("leaves", how, str(log)) as process:
        ends(log.exists, "the tool has not started")
        pids = _pids_in(log)
        assert len(alive_of(pids)) == len(pids)
        process.kill()
        ends(lambda: not alive_of(pids), f"they live on: {alive_of(pids)}")
        ends(lambda: not registry.runs(), "the run's files are there")


@pytest.mark.parametrize("end", ["killed", "closed"])
async def test_shared_memory_of_a_worker_is_removed_by_its_resource_tracker(end: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        paths = [Path("/dev/shm", await pool.execute("share_memory")) for _ in range(3)]
        assert all(path.exists() for path in paths)
        if end == "killed":
            for worker in pool.list_workers():
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
            await seconds_until(lambda: pool.get_stats().restarts >= 1, BOUND)
            await pool.await_ready()
    assert [path for path in paths if path.exists()] == []


# No innocent victim.


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that leads a group and has nothing to do with any pool; by its pid."""
    with subprocess.Popen(["sleep", "600"], process_group=0) as process:
        yield process.pid
        assert process.poll() is None, "an innocent process was killed"
        process.kill()


@pytest.fixture
def left_of_its_group() -> Iterator[tuple[int, int]]:
    """A group whose leader has ended, and a process that is left in it."""
    code = "sleep 600 >/dev/null 2>&1 & echo $!"
    with subprocess.Popen(["sh", "-c", code], process_group=0, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        pid = int(leader.stdout.read())
        leader.wait()
        assert os.getpgid(pid) == leader.pid
        yield leader.pid, pid
        assert is_alive(pid), "an innocent process was killed"
        os.kill(pid, signal.SIGKILL)


def dead_run(pid: int, ticks: int | None, host: dict[str, object], entry: dict[str, object]) -> str:
    """A dead run whose files name a process as its worker, with changes to what they say of host and worker."""
    run = registry.ProcessRegistry.open("other life")
    run.reserve("other-1")
    (path,) = (run.folder / "workers").glob("*.json")
    recorded = {"state": "active", "pid": pid, "start_ticks": ticks, "keeper": pid, "keeper_start_ticks": ticks}
    _change(path, {**recorded, **entry})
    _change(run.folder / "host.json", host)
    run_id = run.run_id
    os.close(run._lock)
    registry._open_here.discard(run)
    return run_id


def _change(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


OTHER_LIVES: dict[str, dict[str, object]] = {
    "boot": {"boot": "00000000-0000-0000-0000-000000000000"},
    "namespace": {"pid_namespace": "pid:[1]"},
}


@pytest.mark.parametrize("life", OTHER_LIVES)
def test_a_run_of_another_boot_or_namespace_names_no_process_of_ours(life: str, stranger: int) -> None:
    change = OTHER_LIVES[life]
    run_id = dead_run(stranger, start_ticks(stranger), change, change)
    swept = [one for one in registry.sweep() if one.run.id == run_id]
    assert [one.killed for one in swept] in ([0], [])
    time.sleep(0.1)  # the fixture looks whether it lives


def test_a_missing_leader_proves_nothing_about_its_group(left_of_its_group: tuple[int, int]) -> None:
    leader, pid = left_of_its_group
    run_id = dead_run(leader, 12345, {}, {})
    (swept,) = [one for one in registry.sweep() if one.run.id == run_id]
    assert swept.killed == 0
    assert is_alive(pid)


@in_containers
async def test_two_containers_that_share_the_folder_of_runs_leave_each_other_alone(tmp_path: Path) -> None:
    """One lives on while the other one sweeps; and is dead then, with pids that are others' here."""
    ready, end = tmp_path / "ready", tmp_path / "end"
    words = command("lives_in_container", str(ready), str(end))
    # Not the first process of its container, so that the container does not end with it.
    inside = [*CONTAINER, "sh", "-c", '"$@" & wait', "sh", *words]
    with subprocess.Popen(  # noqa: ASYNC220 - a moment
        inside, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as container:
        try:
            await seconds_until(ready.exists, BOUND)
            assert [one.killed for one in registry.sweep()] == []
            async with snakepit.open_pool(TOOLS, workers=1) as pool:
                assert await pool.execute("add", {"a": 1}) == 2
                assert registry.sweep() == []
            end.touch()
            assert container.stdout is not None
            told = json.loads(await trio.to_thread.run_sync(container.stdout.readline))
            assert told["is_same"], "the container's worker was killed from outside"
            assert told["own_pid"] != 1
        finally:
            container.kill()
    await seconds_until(lambda: all(not run.is_alive for run in registry.runs()), BOUND)
    assert [one.killed for one in registry.sweep()] == [0]
    assert registry.runs() == []


# As the first process, with exec, and frozen.


@in_containers
def test_as_the_first_process_of_a_container_no_zombies_pile_up() -> None:
    told = run_host("first_process", prefix=CONTAINER)
    assert told["pid"] == 1
    assert (told["zombies"], told["in_use"]) == ([], 2)
    assert (told["left"], told["zombies_left"]) == ([], [])


def test_a_host_that_becomes_another_program_leaves_nothing() -> None:
    told = run_host("execs")
    assert (told["children"], told["runs"]) == ([], 0)


def test_a_frozen_program_is_told_to_name_an_interpreter() -> None:
    told = run_host("frozen")
    assert "python=" in told["refused"]
    assert told["result"] == 2


# The ground moves.


@pytest.mark.parametrize(
    "how",
    [
        "deleted before",
        "deleted",
        "left",
        "relative path",
        "relative python",
        "relative adapter",
        "run folder",
        "folder of runs",
    ],
)
def test_workers_are_replaced_though_the_ground_moves(
    how: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Path(os.environ[registry.FOLDER_VARIABLE], "of-its-own")
    runs.mkdir(mode=0o700)
    monkeypatch.setenv(registry.FOLDER_VARIABLE, str(runs))
    try:
        told = run_host("ground", how, str(tmp_path))
        assert told["codes"] == [7, 7], "the deaths of two workers, one after the other"
        assert told["result"] == 2
        assert told["imported"] == ("ours" if how == "relative path" else "")
        assert (told["left"], told["children"]) == ([], 0)
    finally:
        for folder in (*runs.iterdir(), runs) if runs.exists() else ():
            folder.rmdir()


# The guardian dies when nothing can be had.


@pytest.mark.parametrize("what", ["process", "thread", "descriptor"])
async def test_the_guardian_dies_while_no_other_can_be_started(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from benchmarks import host_faults

    events = {
        "process": ("subprocess.Popen", lambda: BlockingIOError(11, "Resource temporarily unavailable")),
        "thread": ("trio._threads.start_thread_soon", lambda: RuntimeError("can't start new thread")),
        "descriptor": ("socket.socketpair", lambda: OSError(24, "Too many open files")),
    }
    caplog.set_level(logging.INFO)
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        await seconds_until(lambda: host_faults.guardian() is not None, BOUND)
        with host_faults.refused(*events[what]):
            first = host_faults.guardian()
            assert first is not None
            os.kill(first, signal.SIGKILL)
            with trio.move_on_after(3):
                while True:
                    assert await pool.execute("add", {"a": 1}) == 2
                    await trio.sleep(0.1)
        assert pool.get_health().status
        await seconds_until(lambda: host_faults.guardian() not in (None, first), BOUND)
        if what != "thread":  # without one, it may be started all the same
            assert "guardian" in caplog.text
        assert await pool.execute("add", {"a": 1}) == 2


SLOWLY_FORKED = """
import os, signal, time
is_slow = False
os.register_at_fork(after_in_child=lambda: is_slow and time.sleep(1))
import trio
import snakepit_trio as snakepit

async def main():
    global is_slow
    async with snakepit.open_pool("tests.helpers.world_tools:Tools", workers=1):
        is_slow = True
        pid = os.fork()
        if not pid:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

trio.run(main)
"""


def test_a_signal_to_a_child_that_is_just_being_forked_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOWLY_FORKED],
        check=False,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGTERM:d}\n"), done.stderr
