"""What `SqliteStore` asks of its file, in SQL. Each step runs within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from .backend import TURN, Commit, Committed, Known, NewSession, Sizes, State
from .quotas import Quotas, check_bytes, check_quota
from .store import StoreStats

_NOTICES: Final = 10_000  # that the file keeps
_ALL: Final = -1  # for LIMIT
_AT_ONCE: Final = 500  # ids in one statement
# A use is noted if the last one is longer ago than this part of the ttl, or than so many seconds.
_NOTED_PART: Final = 0.001
_NOTED_SECONDS: Final = 1.0

_FIND: Final = (
    "SELECT birth, id, version, removed, created_at, used_at, ttl, ends_at, variables, programs, size, held"
    " FROM sessions WHERE id = ?"
)
_ALIVE: Final = "(ends_at IS NULL OR ends_at > ?)"


class _Row(NamedTuple):
    birth: int
    id: str
    version: int
    removed: int
    created_at: float
    used_at: float
    ttl: float | None
    ends_at: float | None
    variables: int
    programs: int
    size: int
    held: int


def find(connection: sqlite3.Connection, session_id: str, now: float) -> _Row | None:
    found = connection.execute(_FIND, (session_id,)).fetchone()
    row = None if found is None else _Row(*found)
    return None if row is None or (row.ends_at is not None and row.ends_at <= now) else row


def fetch(connection: sqlite3.Connection, session_id: str, known: Known | None, now: float) -> State | None:
    row = find(connection, session_id, now)
    return None if row is None else _state(connection, row, known)


def _state(connection: sqlite3.Connection, row: _Row, known: Known | None) -> State:
    since = known.version if known is not None and known.birth == row.birth else 0
    found: dict[str, bytes] = {}
    keys: list[str] | None = None
    if row.version != since:
        query = "SELECT key, data FROM parts WHERE birth = ? AND version > ?"
        found = dict(connection.execute(query, (row.birth, since)).fetchall())
        if row.removed > since:
            keys = [key for (key,) in connection.execute("SELECT key FROM parts WHERE birth = ?", (row.birth,))]
    return State(row.birth, row.version, since, row.created_at, row.used_at, row.ttl, row.size, found, keys)


def used(state: State, now: float) -> State:
    return msgspec.structs.replace(state, last_accessed=max(state.last_accessed, now))


def noted_after(ttl: float | None) -> float:
    return _NOTED_SECONDS if ttl is None else min(_NOTED_SECONDS, _NOTED_PART * ttl)


def touch(connection: sqlite3.Connection, birth: int, now: float) -> bool:
    done = connection.execute(
        "UPDATE sessions SET used_at = max(used_at, :now), ends_at = max(used_at, :now) + ttl"
        " WHERE birth = :birth AND (ends_at IS NULL OR ends_at > :now)",
        {"now": now, "birth": birth},
    )
    return done.rowcount == 1


def create(connection: sqlite3.Connection, new: NewSession, now: float) -> State | None:
    if find(connection, new.session_id, now) is not None:
        return None
    old = connection.execute(_FIND, (new.session_id,)).fetchone()
    if old is not None:
        _remove(connection, [_Row(*old)], "expired")
    _make_room(connection, new, now)
    number = _grow(connection, new.sizes.held, sessions=1, created=1)
    ttl = None if new.ttl is None else float(new.ttl)  # an int may be larger than SQLite's are
    ends_at = None if ttl is None else now + ttl
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, new.session_id, number, now, now, ttl, ends_at, *_counts(new.sizes)),
    )
    _put_parts(connection, number, number, new.parts.items())
    _notify(connection, number, new.session_id, number)
    return State(number, number, 0, now, now, new.ttl, new.sizes.size, {}, None)


def _make_room(connection: sqlite3.Connection, new: NewSession, now: float) -> None:
    sessions, held = connection.execute("SELECT sessions, held FROM totals").fetchone()
    most, most_bytes = new.quotas.sessions, new.quotas.store_bytes
    if (most is not None and sessions >= most) or (most_bytes is not None and held + new.sizes.held > most_bytes):
        expire(connection, now)
        sessions, held = connection.execute("SELECT sessions, held FROM totals").fetchone()
    check_quota(sessions, most, "the store", "sessions")
    check_bytes(held, new.sizes.held, most_bytes, "the store")


def commit_change(connection: sqlite3.Connection, commit: Commit, now: float) -> Committed | State | None:
    row = find(connection, commit.session_id, now)
    if row is None:
        return None
    host = _whose_turn(connection, row.birth, now)
    if Known(row.birth, row.version) != commit.known or host not in (None, commit.host_id):
        if commit.asks_for_turn and host is None:
            turn = (row.birth, commit.host_id, now + TURN)
            connection.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?)", turn)
        return _state(connection, row, commit.known)
    if host is not None:
        connection.execute("DELETE FROM turns WHERE birth = ?", (row.birth,))
    _check_more(connection, commit.sizes.held - row.held, commit.quotas, now)
    number = _grow(connection, commit.sizes.held - row.held)
    _put_parts(connection, row.birth, number, commit.parts.items())
    connection.executemany(
        "DELETE FROM parts WHERE birth = ? AND key = ?", [(row.birth, key) for key in commit.removed]
    )
    used_at = max(row.used_at, now)
    connection.execute(
        "UPDATE sessions SET version = ?, removed = ?, used_at = ?, ends_at = ?, variables = ?, programs = ?,"
        " size = ?, held = ? WHERE birth = ?",
        (
            number,
            number if commit.removed else row.removed,
            used_at,
            None if row.ttl is None else used_at + row.ttl,
            *_counts(commit.sizes),
            row.birth,
        ),
    )
    _notify(connection, number, commit.session_id, number)
    return Committed(number, used_at)


def _whose_turn(connection: sqlite3.Connection, birth: int, now: float) -> str | None:
    """The host whose turn it is to change a session, because it has lost against others many times."""
    # None lasts longer than it was given: the clock may have been set back since.
    query = "SELECT host FROM turns WHERE birth = ? AND ends_at BETWEEN ? AND ?"
    found = connection.execute(query, (birth, now, now + TURN)).fetchone()
    return None if found is None else found[0]


def _check_more(connection: sqlite3.Connection, more: int, quotas: Quotas, now: float) -> None:
    """Check that so many bytes more are not too many, after the expired sessions have made room."""
    (held,) = connection.execute("SELECT held FROM totals").fetchone()
    if more > 0 and quotas.store_bytes is not None and held + more > quotas.store_bytes:
        expire(connection, now)
        (held,) = connection.execute("SELECT held FROM totals").fetchone()
    check_bytes(held, more, quotas.store_bytes, "the store")


def _counts(sizes: Sizes) -> tuple[int, int, int, int]:
    return sizes.variables, sizes.programs, sizes.size, sizes.held


def _put_parts(connection: sqlite3.Connection, birth: int, version: int, found: Iterable[tuple[str, bytes]]) -> None:
    connection.executemany(
        "INSERT INTO parts VALUES (?, ?, ?, ?)"
        " ON CONFLICT (birth, key) DO UPDATE SET version = excluded.version, data = excluded.data",
        [(birth, key, version, data) for key, data in found],
    )


def _grow(connection: sqlite3.Connection, held: int, **counts: int) -> int:
    """Count, and return the number of this change."""
    more = "".join(f", {name} = {name} + {count:d}" for name, count in counts.items())
    connection.execute(f"UPDATE totals SET number = number + 1, held = held + ?{more}", (held,))  # noqa: S608 - our own names
    return last_number(connection)


def last_number(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT number FROM totals").fetchone()[0])


def _notify(connection: sqlite3.Connection, number: int, session_id: str, version: int | None) -> None:
    connection.execute("INSERT INTO notices VALUES (?, ?, ?)", (number, session_id, version))
    connection.execute("DELETE FROM notices WHERE number <= ?", (number - _NOTICES,))


def notices_after(connection: sqlite3.Connection, since: int) -> tuple[list[tuple[str | None, int | None]], int]:
    """The notices after a number, and the last number. Where some are missing, one says so."""
    last = last_number(connection)
    if since < last - _NOTICES:
        return [(None, None)], last
    return connection.execute("SELECT id, version FROM notices WHERE number > ?", (since,)).fetchall(), last


def delete(connection: sqlite3.Connection, session_id: str, now: float) -> bool:
    row = find(connection, session_id, now)
    if row is not None:
        _remove(connection, [row], "deleted")
    return row is not None


def find_expired(connection: sqlite3.Connection, now: float, most: int = _ALL) -> list[_Row]:
    query = _FIND.replace("WHERE id = ?", "WHERE ends_at <= ? LIMIT ?")
    return [_Row(*found) for found in connection.execute(query, (now, most))]


def expire(connection: sqlite3.Connection, now: float, most: int = _ALL) -> list[str]:
    expired = find_expired(connection, now, most)
    _remove(connection, expired, "expired")
    return [row.id for row in expired]


def _remove(connection: sqlite3.Connection, rows: Iterable[_Row], counted_as: str) -> None:
    for row in rows:
        number = _grow(connection, -row.held, sessions=-1, **{counted_as: 1})
        connection.execute("DELETE FROM parts WHERE birth = ?", (row.birth,))
        connection.execute("DELETE FROM sessions WHERE birth = ?", (row.birth,))
        connection.execute("DELETE FROM turns WHERE birth = ?", (row.birth,))
        _notify(connection, number, row.id, None)


def list_ids(connection: sqlite3.Connection, now: float) -> list[str]:
    query = f"SELECT id FROM sessions WHERE {_ALIVE} ORDER BY birth"  # noqa: S608 - a constant
    return [found for (found,) in connection.execute(query, (now,))]


def find_versions(connection: sqlite3.Connection, session_ids: list[str], now: float) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for first in range(0, len(session_ids), _AT_ONCE):
        wanted = session_ids[first : first + _AT_ONCE]
        marks = ", ".join("?" * len(wanted))
        query = f"SELECT id, birth, version FROM sessions WHERE {_ALIVE} AND id IN ({marks})"  # noqa: S608 - marks alone
        found.update(
            {each: Known(birth, version) for each, birth, version in connection.execute(query, (now, *wanted))}
        )
    return found


def count(connection: sqlite3.Connection) -> StoreStats:
    sessions = connection.execute(
        "SELECT count(*), total(variables), total(programs), total(size) FROM sessions"
    ).fetchone()
    (programs,) = connection.execute("SELECT count(*) FROM programs").fetchone()
    created, deleted, expired = connection.execute("SELECT created, deleted, expired FROM totals").fetchone()
    return StoreStats(
        sessions=int(sessions[0]),
        variables=int(sessions[1]),
        programs=int(sessions[2]),
        global_programs=programs,
        bytes=int(sessions[3]),
        created=created,
        deleted=deleted,
        expired=expired,
    )


def put_program(
    connection: sqlite3.Connection, program_id: str, data: bytes, size: int, quotas: Quotas, now: float
) -> None:
    old = connection.execute("SELECT size FROM programs WHERE id = ?", (program_id,)).fetchone()
    if old is None:
        (there,) = connection.execute("SELECT count(*) FROM programs").fetchone()
        check_quota(there, quotas.programs, "the store", "global programs")
    more = size - (0 if old is None else old[0])
    _check_more(connection, more, quotas, now)
    connection.execute("UPDATE totals SET held = held + ?", (more,))
    connection.execute(
        "INSERT INTO programs VALUES (?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET data = excluded.data, size = excluded.size",
        (program_id, data, size),
    )


def delete_program(connection: sqlite3.Connection, program_id: str) -> bool:
    old = connection.execute("SELECT size FROM programs WHERE id = ?", (program_id,)).fetchone()
    if old is not None:
        connection.execute("UPDATE totals SET held = held - ?", (old[0],))
        connection.execute("DELETE FROM programs WHERE id = ?", (program_id,))
    return old is not None
