"""Which worker processes are ours: on disk, for the next start, and in memory.

A *run* is one open pool. It has a folder with all its files, and holds a lock in this folder. The kernel releases
the lock when the host dies, in whatever way. A run whose lock can be taken is dead, and may be swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import attrs
import msgspec

from bridge_py.wire.errors import UsageError
from snakepit_trio._util.log import get_logger

from .children import Child
from .guardian import alive, kill_run, remove_files, start_ticks

FOLDER_VARIABLE: Final = "SNAKEPIT_RUN_DIR"
_SESSION_FOLDER_VARIABLE: Final = "XDG_RUNTIME_DIR"
_LONGEST_FOLDER: Final = 60  # a socket's path holds 107 bytes: unix(7)
INSPECTION: Final = "look"  # the socket in a run's folder at which other processes look at its pool
_UNFINISHED: Final = ".new-"
_UNFINISHED_AFTER: Final = 60.0  # seconds after which an unfinished folder counts as left behind
_AT_ONCE: Final = 2.0  # seconds
_LONGEST_FILE: Final = 1 << 16  # bytes

T = TypeVar("T")
_Pid = Annotated[int, msgspec.Meta(gt=1)]  # the first process of a machine or container is never a worker
logger = get_logger("snakepit.processes")
_open_here: weakref.WeakSet[ProcessRegistry] = weakref.WeakSet()


class WorkerEntry(msgspec.Struct, frozen=True):
    """What the registry knows of one worker process, as its file has it. `start_ticks` is clock ticks since boot."""

    id: str
    state: str
    pid: _Pid | None = None
    start_ticks: int | None = None
    keeper: _Pid | None = None
    keeper_start_ticks: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether this process itself lives, and not another one with its pid."""
        return self.pid in alive(self.recorded)

    @property
    def recorded(self) -> dict[int, int | None]:
        """The pids of its process and keeper, each with its `start_ticks`; none if they may be another machine's."""
        pairs = ((self.pid, self.start_ticks), (self.keeper, self.keeper_start_ticks))
        return {pid: ticks for pid, ticks in pairs if pid is not None}


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


class _Host(msgspec.Struct):
    """The file `host.json` of a run."""

    pid: Annotated[int, msgspec.Meta(ge=1)]
    pool: str
    started_at: float
    boot: str = ""
    pid_namespace: str = ""

    @property
    def is_here(self) -> bool:
        """Whether its pids mean anything here.

        They do not if they are from before a restart of the machine, or from another container with the same folder.
        """
        return (self.boot, self.pid_namespace) == (_boot_id(), _pid_namespace())


class ProcessRegistry:
    """The worker processes of one run. An entry is reserved before its process is spawned and activated after.

    `keepers` are the keepers of these processes, by the keys of the entries.
    """

    def __init__(self, folder: Path, pool: str) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.keepers: dict[str, Child] = {}
        self._pids: dict[str, tuple[int, ...]] = {}
        self._guardian: Child | None = None
        self._pool = pool
        self._started_at = time.time()
        self._lock = -1

    @classmethod
    def open(cls, pool: str) -> ProcessRegistry:
        """Begin a run. Raises `UsageError` if the folder of all runs cannot be trusted, and `OSError`."""
        folder = runs_folder() / secrets.token_hex(6)
        registry = cls(folder, pool)
        registry._make_folder()
        _note_exec_and_forks()
        _open_here.add(registry)
        return registry

    def _make_folder(self) -> None:
        # The lock comes first: a folder without one, or with a free one, is a dead run's.
        parent = runs_folder()
        self.folder = parent / self.run_id  # elsewhere than before if the folder of a login session is gone
        hidden = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=parent))
        lock = -1
        try:
            hidden.chmod(0o700)  # whatever the umask is
            lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            os.fchmod(lock, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (hidden / "workers").mkdir()
            (hidden / "workers").chmod(0o700)
            _write(hidden / "host.json", self._host())
            hidden.rename(self.folder)
        except BaseException:
            if lock >= 0:
                os.close(lock)
            _remove_unfinished(hidden)
            raise
        self._close_lock()
        self._lock = lock

    def _host(self) -> dict[str, Any]:
        here = {"boot": _boot_id(), "pid_namespace": _pid_namespace()}
        pid = os.getpid()
        return {"pid": pid, "start_ticks": start_ticks(pid), "pool": self._pool, "started_at": self._started_at, **here}

    def restore(self) -> None:
        """Make the folder again if it has been removed, as by a program that cleans up temporary files."""
        if not (self.folder / "workers").is_dir():
            logger.warning("%s has been removed; it is made again", self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)
            self._make_folder()

    def reserve(self, worker_id: str) -> str:
        """Make the entry of a worker that is about to be spawned. Returns the key of the entry."""
        self.restore()
        key = f"{worker_id}.{secrets.token_hex(3)}"
        self._write(key, {"id": worker_id, "state": "reserved"})
        return key

    def activate(self, key: str, pid: int, keeper: Child) -> None:
        """Complete an entry: the process of the worker has been spawned, and its keeper before it."""
        self.keepers[key] = keeper
        self._pids[key] = (keeper.pid, pid)
        self._tell_guardian("+", key)
        entry = {"state": "active", "pid": pid, "start_ticks": start_ticks(pid)}
        kept_by = {"keeper": keeper.pid, "keeper_start_ticks": start_ticks(keeper.pid)}
        self._write(key, {"id": key.rpartition(".")[0], **entry, **kept_by})

    def forget(self, key: str) -> None:
        """Remove an entry: its process has been reaped, or was never spawned."""
        self._tell_guardian("-", key)
        self._pids.pop(key, None)
        self.keepers.pop(key, None)
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def set_guardian(self, guardian: Child | None) -> None:
        """Set the guardian, or None. A new guardian is told of all processes."""
        self._guardian = guardian
        for key in self._pids:
            self._tell_guardian("+", key)

    def _tell_guardian(self, sign: str, key: str) -> None:
        if self._guardian is not None:
            for pid in self._pids.get(key, ()):
                self._guardian.tell(f"{sign} {pid}\n".encode())

    def kill_all(self) -> None:
        """Kill all workers at once, with what they have started."""
        for keeper in list(self.keepers.values()):
            keeper.tell(bytes([signal.SIGKILL]))

    def end_at_once(self) -> None:
        """End all processes and remove all files of the run. Returns when that is done, in two seconds at the most."""
        self.kill_all()
        children = list(self.keepers.values())
        if self._guardian is not None:
            self._guardian.tell(b"bye\n")
            children.append(self._guardian)
        deadline = time.monotonic() + _AT_ONCE
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        remove_files(str(self.folder), self.run_id)

    def disown(self) -> None:
        """Let go of the run in a forked child: the run belongs to the parent."""
        for child in (*self.keepers.values(), *filter(None, [self._guardian])):
            child.let_go()
        self.keepers, self._pids, self._guardian = {}, {}, None
        self._close_lock()

    def close(self) -> None:
        """End the run: remove its files."""
        _open_here.discard(self)
        try:
            if self._lock >= 0:  # else this is a forked child, and the run is its parent's
                remove_files(str(self.folder), self.run_id)
        finally:
            self._close_lock()

    def _close_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _path(self, key: str) -> Path:
        return self.folder / "workers" / f"{key.replace('/', '_')}.json"

    def _write(self, key: str, entry: dict[str, Any]) -> None:
        _write(self._path(key), entry)


def _write(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".new")
    try:
        draft.write_text(json.dumps(content))
        draft.chmod(0o600)
        draft.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def runs_folder() -> Path:
    """The folder of all runs of this user.

    It is the first of these that there is: `SNAKEPIT_RUN_DIR`, one in `XDG_RUNTIME_DIR` if only this user can use that,
    one in the folder for temporary files. Raises `UsageError` if somebody else could put files into it.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else _session_folder() or Path(tempfile.gettempdir()) / f"snakepit-{os.getuid()}"
    if len(str(folder)) > _LONGEST_FOLDER and not named:
        folder = Path("/tmp") / f"snakepit-{os.getuid()}"  # noqa: S108 - checked below
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask is
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(
            f"{folder} must be a folder of your own that is closed to others (mode 700): "
            f"correct it, or set {FOLDER_VARIABLE} to a folder that is"
        )
    if len(str(folder)) > _LONGEST_FOLDER:
        raise UsageError(f"{FOLDER_VARIABLE} is longer than the {_LONGEST_FOLDER} bytes that leave room for sockets")
    return folder


def _session_folder() -> Path | None:
    """The folder of runs in the folder that the system has made for this user's login, or None."""
    named = os.environ.get(_SESSION_FOLDER_VARIABLE, "")
    folder = Path(named) / "snakepit"
    if not os.path.isabs(named) or len(str(folder)) > _LONGEST_FOLDER:
        return None
    try:
        found = os.lstat(named)
    except OSError:
        return None
    is_private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid()
    return folder if is_private and os.access(named, os.W_OK | os.X_OK) else None


def runs() -> list[RunInfo]:
    """All runs of this user, oldest first, dead ones too. Files that no pool wrote so are skipped, with a warning."""
    found = [_read(folder) for folder in runs_folder().iterdir() if not folder.name.startswith(".")]
    return sorted((run for run in found if run is not None), key=lambda run: run.started_at)


def sweep() -> list[Swept]:
    """Kill what dead runs of this user have left, and remove their files. Touches no living run.

    Takes ten seconds at the most for each dead run. Several sweeps at once do each other no harm.
    """
    _sweep_unfinished()
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
    # Not the run's own lock: a check whether that is free holds it for a moment, and would block the sweep.
    claim = _claim(run.folder)
    if claim is None:
        return None
    try:
        if not run.folder.exists():
            return None  # another sweep has removed it
        recorded = {pid: ticks for worker in run.workers for pid, ticks in worker.recorded.items()}
        killed = kill_run(run.id, recorded)
        remove_files(str(run.folder), run.id)
    finally:
        os.close(claim)
    return Swept(run, killed)


def _read(folder: Path) -> RunInfo | None:
    try:
        _check_ours(folder.lstat(), stat.S_IFDIR)
        host = _read_file(folder / "host.json", _Host)
        _check_ours((folder / "workers").lstat(), stat.S_IFDIR)
        workers = tuple(filter(None, [_entry(path, host) for path in sorted((folder / "workers").glob("*.json"))]))
        is_alive = _is_locked(folder / "lock")
    except FileNotFoundError:
        return None  # it is being removed
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("%s is no run of a pool, and is left alone: %s; remove it if no pool needs it", folder, error)
        return None
    return RunInfo(folder.name, folder, host.pool, host.pid, host.started_at, is_alive, workers)


def _entry(path: Path, host: _Host) -> WorkerEntry | None:
    try:
        entry = _read_file(path, WorkerEntry)
    except FileNotFoundError:
        return None  # the worker has ended
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("%s names no worker, and is skipped: %s", path, error)
        return None
    return entry if host.is_here else WorkerEntry(entry.id, entry.state)


def _read_file(path: Path, kind: type[T]) -> T:
    with open(path, "rb", opener=_open_unblocked) as file:
        _check_ours(os.fstat(file.fileno()), stat.S_IFREG)
        return msgspec.json.decode(file.read(_LONGEST_FILE), type=kind)


def _open_unblocked(path: str, flags: int) -> int:
    # A pipe in its place would block the opening.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _check_ours(found: os.stat_result, kind: int) -> None:
    if stat.S_IFMT(found.st_mode) != kind:
        raise OSError("it is a link, or another kind of file")
    if found.st_uid != os.getuid():
        raise OSError(f"it belongs to uid {found.st_uid}, not to uid {os.getuid()}")


def _sweep_unfinished() -> None:
    """Remove the folders of runs whose hosts ended while they were making or removing them."""
    for folder in runs_folder().iterdir():
        with contextlib.suppress(OSError):
            found = folder.lstat()
            _check_ours(found, stat.S_IFDIR)
            is_old = time.time() - found.st_mtime > _UNFINISHED_AFTER
            if is_old and not (folder / "host.json").exists() and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(folder: Path) -> bool:
    try:
        return _is_locked(folder / "lock")
    except FileNotFoundError:
        return False


def _remove_unfinished(folder: Path) -> None:
    # By name: a process that has no descriptor left cannot list a folder.
    for name in ("host.json", "host.new", "lock"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    for path in (folder / "workers", folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def _is_locked(path: Path) -> bool:
    # Shared, so that several checks at once do not take each other for the host.
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _claim(folder: Path) -> int | None:
    try:
        claim = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(claim)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return claim


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


# What happens to runs when this process executes another program, or forks.


@functools.cache
def _note_exec_and_forks() -> None:
    # An audit hook is the only notice that Python gives before an exec. It cannot be removed.
    sys.addaudithook(_before_exec)
    os.register_at_fork(after_in_child=_after_fork)


def _before_exec(event: str, _arguments: object) -> None:
    # The new program has our pid and knows nothing of our children: they would become its zombies.
    if event == "os.exec":
        for registry in list(_open_here):
            registry.end_at_once()


def _after_fork() -> None:
    for registry in list(_open_here):
        registry.disown()
    _open_here.clear()
