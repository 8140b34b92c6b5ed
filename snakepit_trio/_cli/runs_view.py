"""What `snakepit ps` and `snakepit sweep` print."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from bridge_py.wire.readable import readable
from snakepit_trio._processes.proc import resident_bytes
from snakepit_trio._processes.registry import RunInfo, Swept, WorkerEntry

from .hosts import PoolLook
from .rendering import Console, Table

_COLUMNS = ("run", "pool", "host", "calls", "worker", "pid", "state", "age", "memory")
Looks = Mapping[str, PoolLook | None]  # by the ids of runs: what their hosts have answered


def as_json(found: list[RunInfo], looks: Looks) -> str:
    """All runs with their workers, as JSON. Ages are in seconds, memory is in bytes."""
    return json.dumps([_plain(run, looks.get(run.id)) for run in found], indent=2)


def show(console: Console, found: list[RunInfo], looks: Looks) -> None:
    """Print one line for each worker."""
    if not found:
        console.print("no pools are open, and none has left anything")
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for run in found:
        look = looks.get(run.id)
        host = str(run.host_pid) if run.is_alive else f"{run.host_pid} (dead)"
        first = [run.id, readable(run.pool), host, _calls(run, look)]
        for worker in run.workers or (None,):
            table.add_row(*first, *_cells(run, look, worker))
            first = ["", "", "", ""]
    console.print(table)
    if not all(run.is_alive for run in found):
        hint = "`snakepit sweep` removes what dead hosts have left; so does the next pool that opens"
        console.print(hint, style="dim", soft_wrap=True)


def show_swept(console: Console, swept: list[Swept]) -> None:
    """Print one line for each run that was removed."""
    if not swept:
        console.print("nothing to sweep")
    for one in swept:
        console.print(
            f"run {one.run.id} of pool {readable(one.run.pool)!r}, host {one.run.host_pid}: "
            f"{one.killed} processes killed"
        )


def _calls(run: RunInfo, look: PoolLook | None) -> str:
    if not run.is_alive:
        return "-"
    return "no answer" if look is None else f"{look.stats.running} running, {look.stats.queued} queued"


def _cells(run: RunInfo, look: PoolLook | None, worker: WorkerEntry | None) -> list[str]:
    age = f"{time.time() - run.started_at:.0f} s"
    if worker is None:
        return ["-", "-", "-", age, "-"]
    memory = f"{resident_bytes(worker.pid) / 2**20:.0f} MiB" if worker.is_alive else "-"
    return [readable(worker.id), str(worker.pid or "-"), _state(worker, look), age, memory]


def _state(worker: WorkerEntry, look: PoolLook | None) -> str:
    """The state that the host tells of, or else what its file tells."""
    if worker.state == "active" and not worker.is_alive:
        return "gone"
    told = [each.state for each in look.workers if each.pid == worker.pid] if look is not None and worker.pid else []
    return told[0] if told else worker.state


def _plain(run: RunInfo, look: PoolLook | None) -> dict[str, Any]:
    stats = None if look is None else look.stats
    return {
        "run": run.id,
        "pool": run.pool,
        "host": run.host_pid,
        "is_alive": run.is_alive,
        "age": time.time() - run.started_at,
        "answers": look is not None,
        "ready": None if stats is None else stats.ready,
        "busy": None if stats is None else stats.busy,
        "running": None if stats is None else stats.running,
        "queued": None if stats is None else stats.queued,
        "workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "state": _state(worker, look),
                "memory": resident_bytes(worker.pid) if worker.is_alive else 0,
            }
            for worker in run.workers
        ],
    }
