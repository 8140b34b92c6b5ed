"""Hosts for tests/processes/test_forks_signals_containers.py, each a program of its own.

python -m tests.helpers.world_host NAME [ARGUMENT...]

Each prints JSON on its last line.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import registry

TOOLS = "tests.helpers.world_tools:Tools"


def tell(**facts: Any) -> None:
    """Print facts."""
    print(json.dumps(facts), flush=True)


# Children of the host's own.


def _forked(code: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        try:
            code()
        finally:
            os._exit(0)
    return pid


def _sleep_until_interrupted() -> None:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        os._exit(42)


def _end_in_order() -> None:
    """What an interpreter does at its end."""
    registry.force_cleanup_all()
    atexit._run_exitfuncs()


async def _exit_code(pid: int) -> int | None:
    with trio.move_on_after(20) as waiting:
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await trio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended
    return None if waiting.cancelled_caught else os.waitstatus_to_exitcode(status)


async def forks() -> None:
    """Fork with a pool open; end the children in several ways."""
    codes: dict[str, int | None] = {}
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        before = await pool.execute("pid")
        for name, number in (("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT)):
            pid = _forked(_sleep_until_interrupted)
            await trio.sleep(0.1)
            os.kill(pid, number)
            codes[name] = await _exit_code(pid)
        codes["in order"] = await _exit_code(_forked(_end_in_order))
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        await trio.sleep(0.1)
        child.terminate()
        await trio.to_thread.run_sync(child.join, 20)
        codes["multiprocessing"] = child.exitcode
        child.kill()
        runs = [run.is_alive for run in registry.runs()]
        after = await pool.execute("pid")
        restarts = pool.get_stats().restarts
    tell(codes=codes, is_same=before == after, runs=runs, runs_left=len(registry.runs()), restarts=restarts)


async def forks_and_waits() -> None:
    """Have a forked child that lives on, and wait to be killed."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        child = _forked(_sleep_until_interrupted)
        tell(pids=[worker.pid for worker in pool.list_workers()], child=child)
        await trio.sleep_forever()


# Signals.


async def with_signals(how: str) -> None:
    """Have workers although signals are blocked or ignored, or others reap our children."""
    numbers = {signal.SIGURG, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1}
    if how == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    elif how == "ignored":
        for number in numbers - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
    elif how == "reaped by others":
        threading.Thread(target=_reap_all, daemon=True).start()
    os.umask(0o027)
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        state = await pool.execute("state")
        with trio.move_on_after(0.2):
            await pool.execute("spin")
        restarts_of_cancelling = pool.get_stats().restarts
        codes = [await _code_of(pool, "exit", {"code": 7}), await _code_of(pool, "die_by", {"number": 11})]
        await pool.await_ready()
        assert await pool.execute("add", {"a": 1}) == 2
        began = trio.current_time()
    tell(state=state, codes=codes, restarts_of_cancelling=restarts_of_cancelling, closing=trio.current_time() - began)


def _reap_all() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)


async def _code_of(pool: snakepit.Pool, tool: str, args: dict[str, Any]) -> int | None:
    try:
        await pool.execute(tool, args)
    except snakepit.WorkerCrashed as error:
        return error.exit_code
    return None


# What tools start.


async def leaves(how: str, log: str) -> None:
    """Have a tool start processes, and wait to be killed."""
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        await pool.execute("leave_and_insist", {"how": how, "path": log})


# The first process, and exec.


async def first_process() -> None:
    """In a container of our own, as its first process: have workers die that leave daemons."""
    async with snakepit.open_pool(TOOLS, workers=2, taint_after=100) as pool:
        for _ in range(5):
            await pool.execute("leave", {"how": "daemon"})
            await pool.execute("leave", {"how": "subreaper"})
            await _code_of(pool, "exit", {"code": 1})
            await pool.await_ready()
        in_use = [worker.pid for worker in pool.list_workers()]
        zombies = await _zombies()
    tell(pid=os.getpid(), zombies=zombies, in_use=len(in_use), left=await _others(), zombies_left=await _zombies())


async def _zombies() -> list[str]:
    return await _none_or([psutil.STATUS_ZOMBIE])


async def _others() -> list[str]:
    return await _none_or(None)


async def _none_or(states: list[str] | None) -> list[str]:
    """All other processes, as soon as there is none or ten seconds are over."""
    found: list[str] = []
    with trio.move_on_after(10):
        while found := [
            f"{process.name()} {process.pid}"
            for process in psutil.process_iter()
            if process.pid != os.getpid() and (states is None or process.status() in states)
        ]:
            await trio.sleep(0.05)
    return found


async def lives_in_container(ready: str, end: str) -> None:
    """Have a pool; when a file is made, tell whether it still works, and wait to be killed."""
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        pid = await pool.execute("pid")
        Path(ready).touch()
        while not Path(end).exists():
            await trio.sleep(0.01)
        tell(is_same=await pool.execute("pid") == pid, own_pid=os.getpid())
        await trio.sleep_forever()


async def execs() -> None:
    """Become another program with a pool open; that one tells of our children."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        await pool.execute("leave", {"how": "daemon"})
        os.execv(sys.executable, [sys.executable, "-m", "tests.helpers.world_host", "was_executed"])


async def was_executed() -> None:
    """Tell of children that we have without having started any, of open descriptors and of runs."""
    with trio.move_on_after(10):
        while psutil.Process().children(recursive=True) or registry.runs():
            await trio.sleep(0.05)
    children = [f"{child.name()} {child.status()}" for child in psutil.Process().children(recursive=True)]
    tell(children=children, runs=len(registry.runs()))


async def frozen() -> None:
    """Be a program that PyInstaller has frozen."""
    python = sys.executable
    sys.frozen = True  # type: ignore[attr-defined]
    sys.executable = "/no/such/program"
    refused = ""
    try:
        async with snakepit.open_pool(TOOLS, python=sys.executable):
            pass
    except snakepit.UsageError as error:
        refused = str(error)
    async with snakepit.open_pool(TOOLS, workers=1, python=python) as pool:
        tell(refused=refused, result=await pool.execute("add", {"a": 1}))


# The ground moves.


async def ground(how: str, folder: str) -> None:
    """Open a pool; the ground moves, before or after it; a worker dies; call again. `folder` is ours."""
    os.chdir(folder)
    Path("here").mkdir()
    Path("elsewhere").mkdir()
    os.chdir("here")
    settings: dict[str, Any] = {}
    if how == "relative path":
        Path("modules").mkdir()
        Path("modules/of_ours.py").write_text("VALUE = 'ours'")
        sys.path.insert(0, "modules")
    adapter = TOOLS
    if how == "relative python":
        settings["python"] = os.path.relpath(sys.executable)
        adapter = f"{Path(__file__).parent / 'world_tools.py'}:Tools"  # another interpreter has another path
    if how == "relative adapter":
        shutil.copy(Path(__file__).parent / "world_tools.py", "some_tools.py")
        adapter = "some_tools.py:Tools"
    if how == "deleted before":
        shutil.rmtree(Path(folder, "here"))
    async with snakepit.open_pool(adapter, workers=1, taint_after=100, **settings) as pool:
        if how == "deleted":
            shutil.rmtree(Path(folder, "here"))
        if how == "run folder":
            for run in registry.runs():
                shutil.rmtree(run.folder)
        if how == "folder of runs":
            shutil.rmtree(registry.runs_folder())
        if how not in ("deleted", "deleted before"):
            os.chdir(Path(folder, "elsewhere"))
        codes = [await _code_of(pool, "exit", {"code": 7}) for _ in range(2)]
        await pool.await_ready(20)
        result = await pool.execute("add", {"a": 1})
        imported = await pool.execute("import_it", {"name": "of_ours"}) if how == "relative path" else ""
    left = os.listdir(registry.runs_folder())
    tell(codes=codes, result=result, imported=imported, left=left, children=len(psutil.Process().children()))


if __name__ == "__main__":
    trio.run(globals()[sys.argv[1]], *sys.argv[2:])
