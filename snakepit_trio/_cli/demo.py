"""`snakepit demo`: measures a source tree in worker processes, even while they are being killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any, Final

import psutil
import trio

import snakepit_trio as snakepit
from bridge_py.adapters.source_metrics import source_files

from .progress import Progress
from .view import counted, make_console, report, show

ADAPTER: Final = "bridge_py.adapters.source_metrics:SourceMetrics"
MOST_TRIES: Final = 20
_IN_FLIGHT: Final = 4  # files for each worker
_FILE_TIMEOUT: Final = 120.0
_SAMPLE_EVERY: Final = 0.5
_KILL_EVERY: Final = 0.3
_ALIVE: Final = (snakepit.WorkerState.READY, snakepit.WorkerState.BUSY)


def files_of_demo(path: Path | None) -> tuple[Path, list[str]]:
    """The root and the sorted Python files of a tree. Without a path it is the interpreter's standard library."""
    if path is not None:
        return path, source_files(path)
    library = Path(sysconfig.get_paths()["stdlib"])
    return library, source_files(library, skip=["site-packages", "dist-packages"])


def run(progress: Progress, *, workers: int, chaos: bool, top: int) -> int:
    """Measure the files of `progress`, show the progress, and print the report. Returns the exit code.

    The exit code is 0 if all is well, and 130 after Ctrl-C. It is 1 if files were given up, workers are left or the
    reader of stdout has gone. Raises `WorkerStartError` if the pool cannot start.
    """
    if chaos:
        # The supervisor would warn of each worker that the demo kills.
        logging.getLogger("snakepit.supervisor").setLevel(logging.ERROR)
    console = make_console(sys.stdout)
    files = counted(len(progress.files), "file")
    console.print(f"{files} below {progress.root}, {counted(workers, 'worker')}{', chaos' if chaos else ''}")
    try:
        trio.run(_run, progress, workers, chaos, console)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        return _exit_code_of(error, progress)
    report(progress, console, top)
    return 1 if progress.failed or progress.left_over() else 0


def _exit_code_of(error: BaseException, progress: Progress) -> int:
    # Under trio, Ctrl-C and the end of a pipe are raised in whichever task is running.
    group = BaseExceptionGroup("", [error])
    if group.subgroup(KeyboardInterrupt):
        print(f"interrupted; {len(progress.left_over())} worker processes left", file=sys.stderr)
        return 130
    if group.subgroup(SystemExit):
        return 1
    raise error


async def _run(progress: Progress, workers: int, chaos: bool, console: Any) -> None:
    # On a slow machine several of our kills in a row may hit one command. That says nothing about the command, so it
    # must not be tainted.
    taint_after = 1000 if chaos else 3
    async with snakepit.open_pool(ADAPTER, workers=workers, name="demo", taint_after=taint_after) as pool:
        progress.began = time.monotonic()
        _sample(pool, progress)
        async with trio.open_nursery() as services:
            services.start_soon(show, progress, console)
            services.start_soon(_watch, pool, progress)
            if chaos:
                services.start_soon(_kill_workers, pool, progress)
            await _measure_all(pool, progress, _IN_FLIGHT * workers)
            progress.seconds = time.monotonic() - progress.began
            services.cancel_scope.cancel()
    # Replacements may have been started after the last sample.
    _sample(pool, progress)


async def _measure_all(pool: snakepit.Pool, progress: Progress, limit: int) -> None:
    waiting = iter(progress.files)

    async def lane() -> None:
        for path in waiting:
            await _measure_file(pool, progress, path)

    async with trio.open_nursery() as nursery:
        for _ in range(limit):
            nursery.start_soon(lane)


async def _measure_file(pool: snakepit.Pool, progress: Progress, path: str) -> None:
    problem = ""
    for attempt in range(1, MOST_TRIES + 1):
        try:
            progress.records[path] = await pool.execute("measure_file", {"path": path}, timeout=_FILE_TIMEOUT)
            return
        except snakepit.WorkerCrashed as error:
            # Measuring a file changes nothing, so it may be done again.
            progress.run_again += attempt < MOST_TRIES
            problem = f"{MOST_TRIES} workers died over it; the last: {error}"
        except snakepit.SnakepitError as error:
            problem = str(error)
            break
    progress.failed[path] = problem


async def _watch(pool: snakepit.Pool, progress: Progress) -> None:
    while True:
        await trio.sleep(_SAMPLE_EVERY)
        _sample(pool, progress)


def _sample(pool: snakepit.Pool, progress: Progress) -> None:
    progress.workers = pool.list_workers()
    for worker in progress.workers:
        if worker.pid is not None:
            _note(worker.pid, progress)


def _note(pid: int, progress: Progress) -> None:
    try:
        process = psutil.Process(pid)
        # The pid of a worker that is gone may belong to another process by now.
        if process.ppid() == os.getpid():
            progress.seen.add(process)
    except psutil.NoSuchProcess:
        return


async def _kill_workers(pool: snakepit.Pool, progress: Progress) -> None:
    # Small trees are done within the first pause. So the first worker is killed as soon as there are calls: all lanes
    # have submitted theirs when this task runs again.
    await trio.lowlevel.checkpoint()
    _kill_one(pool, progress)
    while True:
        await trio.sleep(_KILL_EVERY)
        _kill_one(pool, progress)


def _kill_one(pool: snakepit.Pool, progress: Progress) -> None:
    workers = [w for w in pool.list_workers() if w.state in _ALIVE]
    busy = [w for w in workers if w.state is snakepit.WorkerState.BUSY]
    if workers:
        pid = random.choice(busy or workers).pid  # noqa: S311 - any will do
        assert pid is not None
        _note(pid, progress)
        os.kill(pid, signal.SIGKILL)
        progress.killed += 1
