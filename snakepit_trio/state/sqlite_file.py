"""A file of SQLite that holds sessions: opening it, its transactions, and what its errors mean.

Everything here blocks, so it runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import outcome

from bridge_py.wire.errors import SnakepitError, StoreCorrupt, StoreUnavailable, UsageError

T = TypeVar("T")
APPLICATION: Final = 0x534E504B  # "SNPK", in the header of the file
FORMAT: Final = 1
_SMALLEST: Final = (3, 24, 0)  # of SQLite: it has upserts
_BUSY: Final = 0.02  # seconds that a thread waits for other processes; it cannot be cancelled meanwhile
_WAL_BYTES: Final = 64 << 20
_CORRUPT: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA", "SQLITE_MISMATCH", "SQLITE_ERROR")
_ADVICE: Final = {
    "SQLITE_FULL": "the disk is full: make room",
    "SQLITE_READONLY": "it cannot be written to: check the rights of the file and of its folder",
    "SQLITE_CANTOPEN": "it cannot be opened: check that the folder is there and may be written to",
    "SQLITE_PERM": "it cannot be opened: check the rights of the file and of its folder",
    "SQLITE_NOMEM": "there is no memory left",
    "SQLITE_IOERR": "reading or writing failed: check the disk, its space, and limits on the size of files",
}

_SCHEMA: Final = """
CREATE TABLE sessions (
    birth INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL,
    ttl REAL,
    ends_at REAL,
    variables INTEGER NOT NULL,
    programs INTEGER NOT NULL,
    size INTEGER NOT NULL,
    held INTEGER NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (ends_at) WHERE ends_at IS NOT NULL;
CREATE TABLE parts (birth INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX parts_by_key ON parts (birth, key);
CREATE INDEX parts_by_version ON parts (birth, version);
CREATE TABLE programs (id TEXT PRIMARY KEY, data BLOB NOT NULL, size INTEGER NOT NULL);
CREATE TABLE notices (number INTEGER PRIMARY KEY, id TEXT NOT NULL, version INTEGER);
CREATE TABLE totals (
    number INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    held INTEGER NOT NULL,
    created INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    expired INTEGER NOT NULL
);
INSERT INTO totals VALUES (0, 0, 0, 0, 0, 0);
"""
# By the birth of a session: the host whose turn it is. Files of older versions of this project lack it, and those
# versions pass it over.
_TURNS: Final = (
    "CREATE TABLE IF NOT EXISTS turns (birth INTEGER PRIMARY KEY, host TEXT NOT NULL, ends_at REAL NOT NULL)"
)


class StoreBusy(StoreUnavailable):
    """Another process writes, or opens or closes the file. Nothing was done: try again in a moment."""


class Write(NamedTuple):
    """A step of a transaction. One that is not `is_synced` may be lost by a power cut."""

    change: Callable[[sqlite3.Connection], Any]
    is_synced: bool


class SqliteFile:
    """Connections to one file: one that writes, one that notes uses, some that read, one that looks for changes."""

    def __init__(self, path: str, synchronous: str, readers: int) -> None:
        self.path = path
        self._synchronous = synchronous
        self._readers = readers
        self._identity: tuple[int, int] | None = None
        self._connections: list[sqlite3.Connection] = []
        self.readers: list[sqlite3.Connection] = []
        self.writer: sqlite3.Connection
        self.toucher: sqlite3.Connection
        self.looker: sqlite3.Connection

    def open(self) -> None:
        """Open the file, or make it. Raises `UsageError`, `StoreUnavailable` and `StoreCorrupt`."""
        if sqlite3.sqlite_version_info < _SMALLEST:
            raise UsageError(f"SQLite is too old: {sqlite3.sqlite_version}, and 3.24 is needed")
        self._make_or_check()
        try:
            with self.translating():
                self.writer = self._prepared()
                self._check_others()  # again: the files beside it are there now
                # What only notes that a session was used need not reach the disk before the answer: a power cut may
                # make the session end earlier. The next change brings it to the disk too.
                self.toucher = self._connect("NORMAL" if self._synchronous == "FULL" else self._synchronous)
                self.readers = [self._connect("NORMAL") for _ in range(self._readers)]
                self.looker = self._connect("NORMAL", timeout=0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections. The last one to close in any process leaves one file."""
        for connection in reversed(self._connections):
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()

    def write(self, steps: Sequence[Write]) -> list[outcome.Maybe[Any]]:
        """Do steps in one transaction, each of them as a whole or not at all, and return what became of each.

        If SQLite fails in one of them, each one gets a transaction of its own. Raises `StoreBusy`, and then nothing is
        changed.
        """
        connection = self.writer if any(step.is_synced for step in steps) else self.toucher
        if len(steps) > 1:
            try:
                with self.translating(), _transaction(connection, "BEGIN IMMEDIATE"):
                    return [_saved(connection, step) for step in steps]
            except StoreBusy:
                raise
            except (StoreUnavailable, StoreCorrupt):
                pass  # whose fault is it?
        found: list[outcome.Maybe[Any]] = []
        for step in steps:
            one = outcome.capture(self._write_one, connection, step)
            if not found and isinstance(one, outcome.Error) and isinstance(one.error, StoreBusy):
                raise one.error
            found.append(one)
        return found

    def _write_one(self, connection: sqlite3.Connection, step: Write) -> Any:
        with self.translating(), _transaction(connection, "BEGIN IMMEDIATE"):
            return step.change(connection)

    def read(self, step: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        """Do a step that sees one state of the file. Raises `StoreUnavailable` and `StoreCorrupt`."""
        with self.translating(), _transaction(connection, "BEGIN"):
            return step(connection)

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """A block whose errors of SQLite are raised as ours. Raises `StoreUnavailable` if the file was taken away."""
        self._check_identity()
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> SnakepitError:
        name = getattr(error, "sqlite_errorname", "") or ""
        kind = "_".join(name.split("_")[:2])
        if isinstance(error, sqlite3.ProgrammingError):
            return UsageError(f"the store {self.path!r} is closed: use it inside of its block")
        if kind in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            return StoreBusy(f"the store {self.path!r}: another process has held it for too long ({name})")
        if name.startswith("SQLITE_READONLY_DBMOVED"):
            return self._taken_away()
        if kind in _ADVICE:
            return StoreUnavailable(f"the store {self.path!r}: {_ADVICE[kind]} ({name}: {error})")
        if kind in _CORRUPT or not name:
            return StoreCorrupt(f"the store {self.path!r} is damaged, or is no store: {error} ({name})")
        return StoreUnavailable(f"the store {self.path!r} cannot be used: {error} ({name})")

    def _check_identity(self) -> None:
        # SQLite would go on with a file that has no name any more, and all of it would be lost at the end.
        if self._identity is not None:
            try:
                found = os.stat(self.path)
            except OSError:
                raise self._taken_away() from None
            if (found.st_dev, found.st_ino) != self._identity:
                raise self._taken_away()

    def _taken_away(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store {self.path!r} was deleted, moved or replaced while it was open: put the file back,"
            " or close the store and open it again"
        )

    # Opening.

    def _make_or_check(self) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            found = os.stat(self.path)
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else os.strerror(error.errno or 0)
            raise StoreUnavailable(f"the store {self.path!r} cannot be opened: {reason}") from error
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{self.path!r} is no file: give the path of a file, or of one to make")
        self._check_others()
        self._identity = found.st_dev, found.st_ino

    def _check_others(self) -> None:
        """Refuse files that other users could write to: the store's own, and those that SQLite keeps beside it."""
        for path in (self.path, f"{self.path}-wal", f"{self.path}-shm", f"{self.path}-journal"):
            try:
                found = os.lstat(os.path.realpath(path) if path == self.path else path)
            except OSError:
                continue
            if found.st_uid not in (os.geteuid(), 0):
                raise UsageError(f"{path!r} belongs to another user, who could change sessions: give another path")
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UsageError(f"other users may write to {path!r}, and change sessions: chmod 600 {path}")
        folder = os.path.dirname(self.path)
        mode = os.stat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UsageError(
                f"all users may put files into {folder!r}, and replace the store: give a folder of your own"
            )

    def _prepared(self) -> sqlite3.Connection:
        connection = self._connect("FULL")
        self._prepare(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._check_ours(connection)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise UsageError(
                f"the folder of {self.path!r} is of a kind on which SQLite has no write-ahead log: put the file on a"
                " disk of this machine"
            )
        with _transaction(connection, "BEGIN IMMEDIATE"):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(_TURNS)

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or version or tables):
            raise UsageError(f"{self.path!r} is a database of another program: give another path")
        if version > FORMAT:
            raise UsageError(
                f"{self.path!r} was written by a newer snakepit-trio (format {version}; this one knows {FORMAT}):"
                " use that one, or another file"
            )

    def _connect(self, synchronous: str, timeout: float = _BUSY) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=timeout,
            isolation_level=None,  # we begin and commit ourselves
            check_same_thread=False,  # one thread after the other uses it
        )
        self._connections.append(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        return connection


def _saved(connection: sqlite3.Connection, step: Write) -> outcome.Maybe[Any]:
    connection.execute("SAVEPOINT step")
    found: outcome.Maybe[Any] = outcome.capture(step.change, connection)
    if isinstance(found, outcome.Error):
        if isinstance(found.error, sqlite3.Error):
            raise found.error
        connection.execute("ROLLBACK TO step")
    connection.execute("RELEASE step")
    return found


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
