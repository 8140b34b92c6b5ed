"""`snakepit demo`: measures a source tree in worker processes, even while they are being killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import trio

import snakepit_trio as snakepit
from bridge_py.adapters.source_metrics import source_files
from snakepit_trio._processes.proc import stat_of

from .endings import ReaderLeft, silence
from .progress import Progress
from .screen import make_console
from .view import counted, report, show

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


def run(progress: Progress, *, workers: int, chaos: bool, top: int, dashboard: bool = False) -> int:
    """Measure the files of `progress`, show the progress, and print the report. Returns the exit code.

    The exit code is 0 if all is well, and 130 after Ctrl-C. It is 1 if files were given up, workers are left or the
    reader of stdout has gone. With a dashboard, the files are measured again and again until Ctrl-C, and that is no
    failure once all have been measured. Raises `WorkerStartError` if the pool cannot start, and `UsageError` if the
    dashboard cannot.
    """
    if chaos:
        # The supervisor would warn of each worker that the demo kills.
        logging.getLogger("snakepit.supervisor").setLevel(logging.ERROR)
    console = make_console(sys.stdout)
    files = counted(len(progress.files), "file")
    try:
        begins = f"{files} below {progress.root}, {counted(workers, 'worker')}{', chaos' if chaos else ''}"
        console.print(begins, soft_wrap=True)  # a long path stays whole
        trio.run(_run, progress, workers, chaos, dashboard, console)
        report(progress, console, top)
    except (ReaderLeft, KeyboardInterrupt, BaseExceptionGroup) as error:
        code = _exit_code_of(error, progress)
        if code != 130 or not dashboard or not progress.seconds:  # else it has measured all of them
            return code
        report(progress, console, top)
    return 1 if progress.failed or progress.left_over() else 0


def _exit_code_of(error: BaseException, progress: Progress) -> int:
    # Under trio, Ctrl-C and the end of a pipe are raised in whichever task is running.
    group = BaseExceptionGroup("", [error])
    if group.subgroup(KeyboardInterrupt):
        print(f"interrupted; {len(progress.left_over())} worker processes left", file=sys.stderr)
        return 130
    if group.subgroup(ReaderLeft):
        silence(1)
        return 1
    raise error


async def _run(progress: Progress, workers: int, chaos: bool, dashboard: bool, console: Any) -> None:
    # On a slow machine several of our kills in a row may hit one command. That says nothing about the command, so it
    # must not be tainted.
    taint_after = 1000 if chaos else 3
    async with (
        snakepit.open_pool(ADAPTER, workers=workers, name="demo", taint_after=taint_after) as pool,
        _dashboard(pool, console) if dashboard else nullcontext(),
    ):
        progress.began = time.monotonic()
        _sample(pool, progress)
        async with trio.open_nursery() as services:
            services.start_soon(show, progress, console)
            services.start_soon(_watch, pool, progress)
            if chaos:
                services.start_soon(_kill_workers, pool, progress)
            await _measure_all(pool, progress, _IN_FLIGHT * workers)
            progress.seconds = time.monotonic() - progress.began
            while dashboard:
                await _measure_all(pool, progress, _IN_FLIGHT * workers)
            services.cancel_scope.cancel()
    # Replacements may have been started after the last sample.
    _sample(pool, progress)


@asynccontextmanager
async def _dashboard(pool: snakepit.Pool, console: Any) -> AsyncIterator[None]:
    async with pool.serve_dashboard() as url:
        console.print(f"dashboard: {url}", soft_wrap=True)
        console.print("The files are measured again and again, until Ctrl-C.", soft_wrap=True)
        yield


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
    found = stat_of(pid)
    # The pid of a worker that is gone may belong to another process by now.
    if found is not None and found.parent == os.getpid():
        progress.seen.add((pid, found.started))


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
