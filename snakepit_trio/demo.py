"""`snakepit demo`: measures a source tree in worker processes, also while they are being killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import trio

import snakepit_trio as snakepit

ADAPTER: Final = "bridge_py.adapters.source_metrics:SourceMetrics"
KILL_EVERY: Final = 0.3
MOST_TRIES: Final = 20
Record = dict[str, Any]


@attrs.define
class Progress:
    """A run as it goes on; a view reads it whenever it likes."""

    files: list[str]
    records: dict[str, Record] = attrs.field(factory=dict)
    failed: list[str] = attrs.field(factory=list)
    killed: int = 0
    run_again: int = 0
    workers: list[snakepit.WorkerInfo] = attrs.field(factory=list)
    seen: set[psutil.Process] = attrs.field(factory=set)
    began: float = 0.0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Files that are measured or given up."""
        return len(self.records) + len(self.failed)

    def left_over(self) -> list[int]:
        """Pids of workers of this run that still live; psutil compares creation times too."""
        return [process.pid for process in self.seen if process.is_running() and process.status() != "zombie"]

    def totals(self) -> dict[str, int | str]:
        """What was found. The same for the same files, however the run went."""
        records = [self.records[path] for path in sorted(self.records)]
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
        return {
            "files": len(records),
            "lines": sum(record["lines"] for record in records),
            "functions": sum(record["functions"] for record in records),
            "branches": sum(record["branches"] for record in records),
            "complexity": sum(record["complexity"] for record in records),
            "files that do not parse": sum("error" in record for record in records),
            "checksum of all records": digest[:16],
        }

    def functions(self, key: str, top: int) -> list[tuple[str, Record]]:
        """The `top` functions with the most of `complexity` or `length`, with the paths of their files."""
        found = [(path, function) for path, record in self.records.items() for function in record["measured"]]
        found.sort(key=lambda pair: (-pair[1][key], pair[0], pair[1]["line"]))
        return found[:top]


def source_files(root: Path | None) -> list[str]:
    """The Python files below a folder, sorted; by default those of the interpreter's standard library."""
    folder = root or Path(sysconfig.get_paths()["stdlib"])
    skipped = {"__pycache__"} | ({"site-packages", "dist-packages"} if root is None else set())
    if folder.is_file():
        return [str(folder)]
    return sorted(str(path) for path in folder.rglob("*.py") if not skipped.intersection(path.parts))


async def measure(progress: Progress, *, workers: int, chaos: bool, started: Callable[[], None]) -> None:
    """Measure `progress.files` in a pool; fills `progress` as results come. Calls `started` when work begins."""
    async with snakepit.open_pool(ADAPTER, workers=workers, name="demo") as pool:
        progress.began = trio.current_time()
        started()
        async with trio.open_nursery() as services:
            services.start_soon(_watch, pool, progress)
            if chaos:
                services.start_soon(_kill_workers, pool, progress)
            await _measure_all(pool, progress, 4 * workers)
            services.cancel_scope.cancel()
        progress.seconds = trio.current_time() - progress.began
        _note(pool, progress)


async def _measure_all(pool: snakepit.Pool, progress: Progress, limit: int) -> None:
    waiting = iter(progress.files)

    async def lane() -> None:
        for path in waiting:
            await _measure_file(pool, progress, path)

    async with trio.open_nursery() as nursery:
        for _ in range(limit):
            nursery.start_soon(lane)


async def _measure_file(pool: snakepit.Pool, progress: Progress, path: str) -> None:
    # Measuring a file changes nothing, so it may be done again after its worker died.
    for _ in range(MOST_TRIES):
        try:
            progress.records[path] = await pool.execute("measure_file", {"path": path}, timeout=120)
        except snakepit.WorkerCrashed:
            progress.run_again += 1
        else:
            return
    progress.failed.append(path)


async def _watch(pool: snakepit.Pool, progress: Progress) -> None:
    while True:
        _note(pool, progress)
        await trio.sleep(0.25)


def _note(pool: snakepit.Pool, progress: Progress) -> None:
    progress.workers = pool.list_workers()
    for worker in progress.workers:
        if worker.pid is not None and worker.state != snakepit.WorkerState.STOPPED:
            try:
                progress.seen.add(psutil.Process(worker.pid))
            except psutil.NoSuchProcess:
                continue


async def _kill_workers(pool: snakepit.Pool, progress: Progress) -> None:
    # The first falls while work is sure to remain, also in a small tree.
    while True:
        _note(pool, progress)
        alive = [w.pid for w in progress.workers if w.pid is not None and w.state in ("ready", "busy")]
        if alive:
            os.kill(random.choice(alive), signal.SIGKILL)  # noqa: S311 - any will do
            progress.killed += 1
        await trio.sleep(KILL_EVERY)
