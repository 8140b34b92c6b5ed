"""What `snakepit ps` and `snakepit sweep` print."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from snakepit_trio._processes.proc import resident_bytes
from snakepit_trio._processes.registry import RunInfo, Swept, WorkerEntry

_COLUMNS = ("run", "pool", "host", "worker", "pid", "state", "age", "memory")


def as_json(found: list[RunInfo]) -> str:
    """All runs with their workers, as JSON. Ages are in seconds, memory is in bytes."""
    return json.dumps([_plain(run) for run in found], indent=2)


def show(console: Console, found: list[RunInfo]) -> None:
    """Print one line for each worker."""
    if not found:
        console.print("no pools are open, and none has left anything")
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for run in found:
        host = str(run.host_pid) if run.is_alive else f"{run.host_pid} (dead)"
        first = [run.id, run.pool, host]
        for worker in run.workers or (None,):
            table.add_row(*first, *_cells(run, worker))
            first = ["", "", ""]
    console.print(table)
    if not all(run.is_alive for run in found):
        console.print("[dim]`snakepit sweep` removes what dead hosts have left; so does the next pool that opens[/dim]")


def show_swept(console: Console, swept: list[Swept]) -> None:
    """Print one line for each run that was removed."""
    if not swept:
        console.print("nothing to sweep")
    for one in swept:
        console.print(
            f"run {one.run.id} of pool {one.run.pool!r}, host {one.run.host_pid}: {one.killed} processes killed"
        )


def _cells(run: RunInfo, worker: WorkerEntry | None) -> list[str]:
    age = f"{time.time() - run.started_at:.0f} s"
    if worker is None:
        return ["-", "-", "-", age, "-"]
    memory = f"{resident_bytes(worker.pid) / 2**20:.0f} MiB" if worker.is_alive else "-"
    return [worker.id, str(worker.pid or "-"), _state(worker), age, memory]


def _state(worker: WorkerEntry) -> str:
    return "gone" if worker.state == "active" and not worker.is_alive else worker.state


def _plain(run: RunInfo) -> dict[str, Any]:
    return {
        "run": run.id,
        "pool": run.pool,
        "host": run.host_pid,
        "is_alive": run.is_alive,
        "age": time.time() - run.started_at,
        "workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "state": _state(worker),
                "memory": resident_bytes(worker.pid) if worker.is_alive else 0,
            }
            for worker in run.workers
        ],
    }
