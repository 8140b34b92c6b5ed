"""Templates: workers are forked from a process that has imported their modules, and are like all other workers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from benchmarks.scenarios import is_alive, seconds_until
from snakepit_trio import testing
from snakepit_trio._processes import registry
from snakepit_trio._processes.guardian import RUN_VARIABLE, pids_of
from tests.helpers.workers import kill_worker

ROOT = Path(__file__).parent.parent.parent
TOOLS = "tests.helpers.template_tools:TemplateTools"


def run_of(pool: snakepit.Pool) -> str:
    """The id of a pool's run."""
    return pool._site._registry.run_id  # type: ignore[attr-defined, no-any-return]


def processes_of(run: str) -> set[int]:
    """The living processes of a run, wherever they are."""
    return pids_of(RUN_VARIABLE, run)


def workers_of(pool: snakepit.Pool) -> list[int]:
    """The pids of a pool's workers."""
    return [worker.pid for worker in pool.list_workers() if worker.pid]


def keeper_of(worker: int) -> int:
    """The keeper of a worker."""
    return psutil.Process(worker).ppid()


def template_of(pool: snakepit.Pool) -> int:
    """The template that a pool has now."""
    template = pool._site._templates._current  # type: ignore[attr-defined]
    return int(template._process.pid)


async def gone(run: str) -> None:
    """Wait until nothing of a run is left."""
    with trio.fail_after(30):
        while processes_of(run):
            await trio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a process writes its pid."""
    return str(tmp_path / "path")


async def test_modules_are_imported_once_and_all_else_is_as_in_other_workers() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        plain = [await pool.execute("state"), await pool.execute("descriptors")]
    async with snakepit.open_pool(TOOLS, workers=1, template=True) as pool:
        run, template = run_of(pool), template_of(pool)
        assert [await pool.execute("state"), await pool.execute("descriptors")] == plain
        (worker,) = workers_of(pool)
        assert await pool.execute("pids") == [template, worker, worker]
        assert await pool.execute("spawned") == 3
        assert await pool.execute("variable", {"name": "BY_IMPORT"}) == "yes"
        assert await pool.execute("variable", {"name": "SNAKEPIT_TEMPLATE"}) is None
        assert str(await pool.execute("variable", {"name": "SNAKEPIT_WORKER_KEY"})).startswith(f"{run}/pool")
        before = await pool.execute("numbers")
        await kill_worker(pool, worker)
        (replacement,) = workers_of(pool)
        assert await pool.execute("pids") == [template, replacement, replacement]
        assert all(one != other for one, other in zip(before, await pool.execute("numbers"), strict=True))
    await gone(run)


async def test_each_worker_has_its_own_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def differ(number: int) -> snakepit.WorkerOptions:
        return snakepit.WorkerOptions(env={"MINE": str(number), "OTHER": "b"}, cpus={number})

    settings = {"cwd": tmp_path, "umask": 0o027, "env": {"MINE": "?", "OURS": "1", "OTHER": "a"}}
    async with snakepit.open_pool(TOOLS, workers=2, template=True, per_worker=differ, **settings) as pool:  # type: ignore[arg-type]
        found: set[tuple[object, ...]] = set()
        with trio.fail_after(60):
            while len(found) < 2:
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(_look_at, pool, found)
    assert found == {
        (str(number), "1", "b", str(tmp_path), "0o27", str([number])) for number in range(2)
    }  # the number, and all that follows from it
    assert "module tests.helpers.template_tools has read the variable OTHER" in caplog.text
    assert "variable MINE" not in caplog.text  # no module has read it


async def _look_at(pool: snakepit.Pool, found: set[tuple[object, ...]]) -> None:
    async with pool.session(affinity="strict") as session:
        variables = [await session.execute("variable", {"name": name}) for name in ("MINE", "OURS", "OTHER")]
        state = await session.execute("state")
        found.add((*variables, state["cwd"], state["umask"], state["cpus"]))


@pytest.mark.parametrize("victim", ["worker", "keeper", "template", "the template's keeper"])
@pytest.mark.parametrize("how", ["killed", "stopped, then killed"])
async def test_whoever_is_killed_nothing_of_it_is_left_and_the_others_go_on(victim: str, how: str, path: str) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, template=True) as pool:
        run, template = run_of(pool), template_of(pool)
        (worker,) = workers_of(pool)
        daemon, forked = await pool.execute("daemon", {"path": path}), await pool.execute("fork")
        victims = {"worker": worker, "keeper": keeper_of(worker), "template": template}
        pid = victims.get(victim) or psutil.Process(template).ppid()
        restarts = pool.get_stats().restarts
        if how == "stopped, then killed":
            os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        if victim in ("worker", "keeper"):
            with trio.fail_after(60):
                while pool.get_stats().restarts == restarts:
                    await pool._dispatcher.workers_changed.wait()
            await pool.await_ready()
            assert (await pool.execute("pids"))[0] == template
            # To find a daemon without the worker's environment was up to the keeper. The template's keeper has it now.
            left = [worker, forked, *([daemon] if victim == "worker" else [])]
            assert [is_alive(each) for each in left] == [False] * len(left)
        else:
            with trio.fail_after(60):
                while is_alive(template):  # the kernel ends it with its keeper, and until then it may fork
                    await trio.sleep(0.01)
            await pool.resize(2)  # by another template
            assert template_of(pool) != template
            assert not is_alive(template)
            assert worker in workers_of(pool)
            assert is_alive(daemon)
            assert is_alive(forked)
    await gone(run)
    assert not is_alive(daemon)
    assert not is_alive(forked)


async def test_kills_at_any_moment_leave_a_whole_pool_and_nothing_else() -> None:
    chance = random.Random(1)
    async with snakepit.open_pool(TOOLS, workers=2, template=True, max_restarts=1000) as pool:
        run = run_of(pool)
        for _ in range(5):
            for pid in workers_of(pool):
                _kill(pid)
            await trio.sleep(chance.random() / 10)  # its workers are being forked
            if found := sorted(processes_of(run)):  # there are none for a moment, if the template has just died
                _kill(chance.choice(found))
            await pool.await_ready(60)
            await pool.execute("pids")
    await gone(run)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def test_a_template_that_ends_takes_along_what_its_imports_have_started(path: str) -> None:
    env = {"TROUBLE": f"daemon {path}"}
    async with snakepit.open_pool(TOOLS, workers=1, template=True, env=env) as pool:
        daemon, template, (worker,) = int(Path(path).read_text()), template_of(pool), workers_of(pool)
        assert is_alive(daemon)
        os.kill(template, signal.SIGKILL)
        await seconds_until(lambda: not is_alive(daemon))
        await pool.resize(2)
        assert worker in workers_of(pool)
        daemon = int(Path(path).read_text())
    assert not is_alive(daemon)


async def test_a_template_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit_trio.launchers.template._LONGEST_FORK", 0.5)
    async with snakepit.open_pool(TOOLS, workers=1, template=True) as pool:
        template, (worker,) = template_of(pool), workers_of(pool)
        os.kill(template, signal.SIGSTOP)
        await pool.resize(2)
        assert worker in workers_of(pool)
        assert not is_alive(template)


async def test_a_worker_that_ends_by_itself_has_its_exit_code() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, template=True) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="exit code 3") as caught:
            await pool.execute("leave", {"code": 3})
        assert caught.value.exit_code == 3
        await pool.await_ready()


@pytest.mark.parametrize("stage", ["importing", "busy"])
@pytest.mark.parametrize("others", ["", "guardian", "guardian template", "keeper", "template keeper"])
async def test_nothing_outlives_a_host_that_is_killed(stage: str, others: str, path: str) -> None:
    """The guardian, the template and its keeper may be killed at the same moment."""
    with _host(stage, path) as host:
        await seconds_until(lambda: os.path.exists(path) and Path(path).read_text() != "")
        (run,) = [each for each in registry.runs() if each.host_pid == host.pid]
        children: list[psutil.Process] = []
        victims: list[int] = []

        def are_found() -> bool:
            # A process that has just been forked does not have its own command line yet.
            children[:] = psutil.Process(host.pid).children(recursive=True)
            victims[:] = [each.pid for each in children if _role_of(each) in others.split()]
            return len(victims) == len(others.split())

        await seconds_until(are_found)
        for pid in (host.pid, *victims):
            os.kill(pid, signal.SIGSTOP)
        for pid in (*victims, host.pid):
            os.kill(pid, signal.SIGKILL)
        host.wait()
    await gone(run.id)
    await seconds_until(lambda: not any(is_alive(each.pid) for each in children))  # the guardian is the last
    registry.sweep()


def _host(stage: str, path: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.helpers.template_host", stage, path], cwd=ROOT)


def _role_of(process: psutil.Process) -> str:
    if not is_alive(process.pid):
        return ""
    command = [*process.cmdline(), "", "", "", ""]
    if command[2] == "--template":
        return "template" if process.name() in ("snakepit-fork", "python") else ""
    return next((role for role in ("guardian", "keeper") if command[3].endswith(f"{role}.py")), "")


REFUSED = {
    "thread": "template_tools has started thread 'a poller' when it was imported",
    "cuda": "template_tools has initialised the GPU when it was imported",
    "connection": "template_tools has connected to 127.0.0.1:",
    "error": "no licence",
    "exit": "exit code 7: this module gives up",
    "hang": "did not import its modules within 1.5 s",
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("trouble", REFUSED)
async def test_what_must_not_be_forked_is_told(trouble: str, listener: socket.socket) -> None:
    env = {"TROUBLE": f"{trouble} {listener.getsockname()[1] if trouble == 'connection' else ''}"}
    timeout = 1.5 if trouble == "hang" else 60
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(TOOLS, workers=1, template=True, env=env, start_timeout=timeout):
            pytest.fail("it has opened")
    assert REFUSED[trouble] in str(caught.value)
    if trouble in ("thread", "cuda", "connection"):
        assert "do that in the adapter's setup(), or leave out template=" in str(caught.value)


async def test_a_thread_that_has_ended_is_no_danger() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, template=True, env={"TROUBLE": "short thread"}) as pool:
        assert (await pool.execute("pids"))[0] == template_of(pool)


async def test_a_renewed_template_imports_anew(tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    text = "from bridge_py import BaseAdapter, tool\nclass A(BaseAdapter):\n    @tool\n    def version(self) -> int:\n"
    module.write_text(f"{text}        return 1\n")
    async with snakepit.open_pool(f"{module}:A", workers=1, template=True) as pool:
        run, template, (worker,) = run_of(pool), template_of(pool), workers_of(pool)
        module.write_text(f"{text}        return 22\n")
        assert await pool.execute("version") == 1
        pool._site.renew_template()
        assert await pool.execute("version") == 1
        assert workers_of(pool) == [worker]
        await kill_worker(pool, worker)
        assert await pool.execute("version") == 22
        assert template_of(pool) != template
        assert not is_alive(template)
    await gone(run)


async def test_templates_that_are_renewed_while_they_start_hold_up_no_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=4, template=True, max_restarts=100) as pool:
        for _ in range(4):
            pool._site.renew_template()
            for worker in workers_of(pool):
                os.kill(worker, signal.SIGKILL)
            await until_workers_wait_for(pool)
            pool._site.renew_template()
            with trio.fail_after(20):
                await pool.await_ready()
                while len(workers_of(pool)) < 4:
                    await trio.sleep(0.01)


async def until_workers_wait_for(pool: snakepit.Pool) -> None:
    """Wait until no worker has a process, and the template that is to fork them has one and imports."""
    while workers_of(pool) or pool._site._templates._current._process is None:  # type: ignore[attr-defined]
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()


async def test_a_template_that_is_renewed_before_it_has_a_process_ends() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, template=True) as pool:
        run, number, (worker,) = run_of(pool), len(processes_of(run_of(pool))), workers_of(pool)
        for turns in range(10):
            pool._site.renew_template()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
        pool._site.renew_template()
        with trio.fail_after(30):
            await kill_worker(pool, worker)  # the keeper of its template ends with it
            while len(processes_of(run)) != number:
                await trio.sleep(0.01)


async def test_further_modules_are_imported_by_the_template() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, template=["tests.helpers.start_tools", "wave"]) as pool:
        template = Path(f"/proc/{template_of(pool)}/cmdline").read_text()
        assert "--preload=tests.helpers.start_tools,wave" in template
    with pytest.raises(snakepit.WorkerStartError, match="No module named 'there_is_no_such_module'"):
        async with snakepit.open_pool(TOOLS, workers=1, template=["there_is_no_such_module"]):
            pytest.fail("it has opened")


@pytest.mark.parametrize("settings", range(5))
async def test_what_cannot_be_is_refused_at_once(settings: int) -> None:
    thread_variables = lambda _: snakepit.WorkerOptions(env={"OMP_NUM_THREADS": "2"})  # noqa: E731
    wrong, words = (
        ({"template": "numpy"}, "give True, False, or a list of the names of modules"),
        ({"template": ["not a name"]}, "give True, False, or a list of the names of modules"),
        ({"adapter": snakepit.StdioJson("a_program")}, "is for adapters that are Python classes"),
        ({"launcher": testing.InMemory()}, "InMemory starts none"),
        ({"per_worker": thread_variables}, r"per_worker\(0\): env: OMP_NUM_THREADS is read when"),
    )[settings]
    with pytest.raises(snakepit.UsageError, match=words):
        async with snakepit.open_pool(**{"adapter": TOOLS, "template": True, **wrong}):  # type: ignore[arg-type]
            pytest.fail("it has opened")
