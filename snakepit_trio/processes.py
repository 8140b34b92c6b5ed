"""Which worker processes are ours: on disk, for the next start, and in memory.

A *run* is one open pool. It has a folder with all its files, and holds a lock in there that the kernel
releases when the host dies, however it dies. A run whose lock can be taken is dead, and may be swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import stat
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from bridge_py.wire.errors import UsageError

from .guardian import kill_run, remove_files, start_ticks

FOLDER_VARIABLE: Final = "SNAKEPIT_RUN_DIR"
_LONGEST_FOLDER: Final = 60  # a socket's path holds 107 bytes: unix(7)

logger = logging.getLogger("snakepit.processes")
_open_here: weakref.WeakSet[ProcessRegistry] = weakref.WeakSet()


@attrs.frozen
class WorkerEntry:
    """What the registry knows of one worker process. `start_ticks` is clock ticks since boot."""

    id: str
    state: str
    pid: int | None = None
    start_ticks: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether that very process lives."""
        return self.pid is not None and self.start_ticks is not None and start_ticks(self.pid) == self.start_ticks


@attrs.frozen
class RunInfo:
    """One run on this machine. `started_at` is Unix time in seconds."""

    id: str
    folder: Path
    pool: str
    host_pid: int
    started_at: float
    is_alive: bool
    workers: tuple[WorkerEntry, ...]


@attrs.frozen
class Swept:
    """A dead run that was removed, and how many of its processes were killed."""

    run: RunInfo
    killed: int


class ProcessRegistry:
    """The worker processes of one run. An entry is reserved before its process is spawned and activated after."""

    def __init__(self, folder: Path, run_id: str, lock: int) -> None:
        self.folder = folder
        self.run_id = run_id
        self.pids: dict[str, int] = {}
        self.tell: Callable[[str], None] = lambda _line: None  # the guardian
        self._lock = lock
        self._boot = _boot_id()
        _open_here.add(self)

    @classmethod
    def open(cls, pool: str) -> ProcessRegistry:
        """Begin a run. Raises `UsageError` if the folder of all runs cannot be trusted, and `OSError`."""
        run_id = secrets.token_hex(6)
        folder = runs_folder() / run_id
        # The lock comes first: a folder without one, or with a free one, is a dead run's.
        hidden = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (hidden / "workers").mkdir()
        host = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "pool": pool, "started_at": time.time()}
        (hidden / "host.json").write_text(json.dumps(host))
        hidden.rename(folder)
        return cls(folder, run_id, lock)

    def reserve(self, worker_id: str) -> str:
        """A worker is about to be spawned. Returns the key of its entry."""
        key = f"{worker_id}.{secrets.token_hex(3)}"
        self._write(key, {"id": worker_id, "state": "reserved"})
        return key

    def activate(self, key: str, pid: int) -> None:
        """Its process has been spawned."""
        self.pids[key] = pid
        self.tell(f"+ {pid}")
        worker_id = key.rpartition(".")[0]
        entry = {"id": worker_id, "state": "active", "pid": pid, "start_ticks": start_ticks(pid), "boot": self._boot}
        self._write(key, entry)

    def forget(self, key: str) -> None:
        """Its process has been reaped, or was never spawned."""
        if pid := self.pids.pop(key, None):
            self.tell(f"- {pid}")
        self._path(key).unlink(missing_ok=True)

    def kill_all(self) -> None:
        """Kill all worker groups at once."""
        for pid in list(self.pids.values()):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the run: remove its files."""
        _open_here.discard(self)
        remove_files(str(self.folder), self.run_id)
        os.close(self._lock)

    def _path(self, key: str) -> Path:
        return self.folder / "workers" / f"{key.replace('/', '_')}.json"

    def _write(self, key: str, entry: dict[str, Any]) -> None:
        path = self._path(key)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(entry))
        draft.rename(path)


def runs_folder() -> Path:
    """The folder of all runs of this user: `SNAKEPIT_RUN_DIR`, or one in the folder for temporary files.

    Raises `UsageError` if somebody else could put files into it.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named or Path(tempfile.gettempdir()) / f"snakepit-{os.getuid()}")
    if len(str(folder)) > _LONGEST_FOLDER and not named:
        folder = Path("/tmp") / f"snakepit-{os.getuid()}"  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(
            f"{folder} must be a folder of your own that is closed to others (mode 700): "
            f"correct it, or set {FOLDER_VARIABLE} to a folder that is"
        )
    if len(str(folder)) > _LONGEST_FOLDER:
        raise UsageError(f"{FOLDER_VARIABLE} is longer than the {_LONGEST_FOLDER} bytes that leave room for sockets")
    return folder


def runs() -> list[RunInfo]:
    """All runs of this user, oldest first, dead ones too."""
    found = [_read(folder) for folder in runs_folder().iterdir() if not folder.name.startswith(".")]
    return sorted((run for run in found if run is not None), key=lambda run: run.started_at)


def sweep() -> list[Swept]:
    """Kill what dead runs of this user have left, and remove their files. Touches no living run.

    Takes ten seconds at the most for each dead run. Several sweeps at once do each other no harm.
    """
    return [swept for run in runs() if not run.is_alive and (swept := _sweep(run))]


def sweep_at_start() -> None:
    """Sweep, and log what was found."""
    for swept in sweep():
        run = swept.run
        logger.warning("swept run %s of pool %r, host %d: %d killed", run.id, run.pool, run.host_pid, swept.killed)


def force_cleanup_all() -> None:
    """Kill the workers of all pools of this process, at once and without goodbye. Their calls fail.

    For an emergency exit; may be called from a signal handler, `atexit` or any thread.
    """
    for registry in list(_open_here):
        registry.kill_all()


def _sweep(run: RunInfo) -> Swept | None:
    # Not the run's own lock: who only looks whether it is free holds it for a moment, and would keep the sweep off.
    claim = _claim(run.folder)
    if claim is None:
        return None
    try:
        if not run.folder.exists():
            return None  # another sweep has removed it
        recorded = {worker.pid: worker.start_ticks for worker in run.workers if worker.pid is not None}
        killed = kill_run(run.id, recorded)
        remove_files(str(run.folder), run.id)
    finally:
        os.close(claim)
    return Swept(run, killed)


def _read(folder: Path) -> RunInfo | None:
    try:
        host = json.loads((folder / "host.json").read_text())
        workers = tuple(_entry(path) for path in sorted((folder / "workers").glob("*.json")))
        is_alive = _is_locked(folder / "lock")
    except (OSError, ValueError):
        return None  # it is being removed
    return RunInfo(folder.name, folder, host["pool"], host["pid"], host["started_at"], is_alive, workers)


def _entry(path: Path) -> WorkerEntry:
    entry = json.loads(path.read_text())
    if entry.get("boot") != _boot_id():
        return WorkerEntry(entry["id"], entry["state"])  # pids of before a restart of the machine say nothing
    return WorkerEntry(entry["id"], entry["state"], entry["pid"], entry["start_ticks"])


def _is_locked(path: Path) -> bool:
    # Shared, so that several that look at once do not take each other for the host.
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _claim(folder: Path) -> int | None:
    try:
        claim = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return None
    return claim


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
