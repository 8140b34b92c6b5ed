"""One session: its variables and their history, programs, metadata. Plain state, without a clock.

The time of a session, in seconds, is the time of the last `touch`. It stands still until the next one.
"""

from __future__ import annotations

import fnmatch
import secrets
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from bridge_py.wire.errors import (
    AccessDenied,
    SessionError,
    SnakepitError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)
from bridge_py.wire.owning import own
from bridge_py.wire.variable import AccessRules, HistoryEntry, Optimization, Source, Variable, new_variable, no_name

from .checks import check_program_id, no_program_of
from .quotas import Quotas, check_bytes, check_quota, size_beside, size_in, size_of, size_of_entries, size_of_version

_NOTHING: Final[Mapping[str, Any]] = {}
_ABSENT: Final = object()
_NAMED: Final = 10  # variables that an error lists


class _Entry(msgspec.Struct, frozen=True):
    variable: Variable
    history: tuple[HistoryEntry, ...]  # oldest first
    serial: int  # its place in the order of creation
    dependents: Mapping[str, str] = {}  # the variables that depend on this one: by name, the kind of dependency
    bases: frozenset[str] = frozenset()  # the names of the variables that this one depends on


class Change(msgspec.Struct, frozen=True):
    """A change of one variable.

    `before` is the variable as it was, and `variable` as it is now. Each is None if there was none at that time. If
    only a variable has changed that this one depends on, `cause` names that variable.
    """

    name: str
    before: Variable | None
    variable: Variable | None
    cause: str | None = None


class Session:
    """A session: its id, the times when it was made and last used, and what it holds.

    Variables are found by their name or their id. All changes between `begin` and `commit` can be undone. The session
    takes copies of values and hands out copies: changing a value outside of it does not change the session.
    """

    def __init__(
        self,
        id: str,
        *,
        now: float,
        ttl: float | None,
        metadata: Mapping[str, str] = _NOTHING,
        quotas: Quotas | None = None,
    ) -> None:
        self.id = id
        self.ttl = ttl
        self.created_at = self.last_accessed = now
        self.bytes = 0
        self.worker_id: str | None = None
        self.host_id: str | None = None  # who holds the session
        self.epoch = 0  # rises with each takeover
        self._quotas = quotas or Quotas()
        self._metadata: dict[str, str] = own(dict(metadata))
        self._programs: dict[str, Any] = {}
        self._entries: dict[str, _Entry] = {}  # by name, in the order of their creation
        self._names: dict[str, str] = {}  # by id
        self._serial = 0
        self._journal: list[tuple[dict[str, Any], str, Any]] | None = None  # what `undo` puts back, and where
        self._grow(size_of_entries(self._metadata))

    # Use and expiry, undoing changes.

    def touch(self, now: float) -> None:
        """Note that the session is used at this time."""
        self.last_accessed = max(self.last_accessed, now)

    def expires_at(self) -> float | None:
        """When the session expires if it is not used before; None if it does not expire."""
        return None if self.ttl is None else self.last_accessed + self.ttl

    def expired(self, now: float) -> bool:
        """Whether the session has expired at this time."""
        end = self.expires_at()
        return end is not None and now >= end

    def begin(self) -> None:
        """Begin to record changes, so that they can be undone."""
        self._journal = []

    def commit(self) -> list[Change]:
        """Keep the changes since `begin`. Returns the changes of variables, and the changes that dependencies cause."""
        journal, self._journal = self._journal or (), None
        before: dict[str, _Entry | Any] = {}
        for mapping, key, old in journal:
            if mapping is self._entries:
                before.setdefault(key, old)
        changes = []
        for name, old in before.items():
            was = None if old is _ABSENT else old.variable
            there = self._entries.get(name)
            now = None if there is None else there.variable
            if was is not now:
                changes.append(Change(name, was, now))
        lost = {name: old.dependents for name, old in before.items() if old is not _ABSENT and old.dependents}
        return [*changes, *self._consequences(changes, lost)]

    def undo(self) -> None:
        """Undo all changes since `begin`."""
        journal, self._journal = self._journal or [], None
        is_in_order = True
        for mapping, key, old in reversed(journal):
            if old is _ABSENT:
                del mapping[key]
            else:
                is_in_order = is_in_order and (mapping is not self._entries or key in mapping)
                mapping[key] = old
        if not is_in_order:
            self._entries = dict(sorted(self._entries.items(), key=lambda item: item[1].serial))

    # Reading.

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, identifier: str) -> bool:
        return self._name_of(identifier) in self._entries

    @property
    def metadata(self) -> Mapping[str, str]:
        """A copy of the metadata of the session."""
        return MappingProxyType(own(self._metadata))

    @property
    def programs(self) -> Mapping[str, Any]:
        """Copies of the session's programs, by their id."""
        return MappingProxyType(own(self._programs))

    def program_ids(self) -> list[str]:
        """The ids of the session's programs, oldest first."""
        return list(self._programs)

    def get(self, identifier: str) -> Variable:
        """The variable of that name or id. Raises `VariableNotFound`."""
        return self._entry(identifier).variable.detached()

    def get_many(self, identifiers: Iterable[str]) -> tuple[dict[str, Variable], list[str]]:
        """The variables that exist, by the given identifiers, and the identifiers that are missing."""
        asked = list(identifiers)
        found = {identifier: self.get(identifier) for identifier in asked if identifier in self}
        return found, [identifier for identifier in asked if identifier not in found]

    def matching(self, pattern: str = "*") -> list[Variable]:
        """The variables whose names match a pattern with `*`, `?` and `[...]`, oldest first."""
        variables = [entry.variable for entry in self._entries.values()]
        return [found.detached() for found in variables if pattern == "*" or fnmatch.fnmatchcase(found.name, pattern)]

    def history(self, identifier: str, limit: int | None = None) -> list[HistoryEntry]:
        """The versions of a variable, latest first. Raises `VariableNotFound`."""
        entries = self._entry(identifier).history[::-1]
        wanted = entries if limit is None else entries[: max(0, limit)]
        return [entry.detached() for entry in wanted]

    def dependents(self, identifier: str) -> dict[str, str]:
        """The names of the variables that depend on one, each with the kind of dependency."""
        return dict(self._entry(identifier).dependents)

    # Changing variables.

    def register(
        self,
        name: str,
        type: str | None,
        value: Any,
        *,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
        source: Source = "host",
    ) -> Variable:
        """Add a variable. Without a type, it gets the type of its value.

        Raises `VariableExists`, `QuotaExceeded`, `InvalidValue` and `EncodeError`.
        """
        self._check_new(name)
        found = new_variable(
            name,
            type,
            value,
            now=self.last_accessed,
            constraints=constraints,
            metadata=metadata,
            access_rules=access_rules,
            source=source,
        )
        self._add(found, ())
        return found.detached()

    def restore(self, variable: Variable, history: Iterable[HistoryEntry]) -> None:
        """Add a variable of another session as it was there. `history` has the versions that it had, oldest first.

        Raises `VariableExists` and `QuotaExceeded`.
        """
        self._check_new(variable.name)
        older = tuple(
            msgspec.structs.replace(entry.detached(), size=size_of_version(entry.value, entry.metadata, variable.name))
            for entry in history
            if entry.version < variable.version
        )
        self._add(variable.detached(), older)

    def _add(self, variable: Variable, older: tuple[HistoryEntry, ...]) -> None:
        self._grow(size_beside(variable) + sum(entry.size for entry in older))
        self._serial += 1
        self._put(_Entry(variable, older, self._serial))
        self._set(self._names, variable.id, variable.name)

    def update(
        self,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> Variable:
        """Set a variable's value; its version goes up by one.

        `owner` is the name under which the caller asks. Raises `VariableNotFound`, `AccessDenied`, `VersionConflict`,
        `QuotaExceeded` and `InvalidValue`.
        """
        entry = self._writable(identifier, owner)
        found = entry.variable
        if expected_version is not None and found.version != expected_version:
            raise VersionConflict(
                f"variable {found.name!r} is at version {found.version}, not {expected_version}: get it again first"
            )
        changed = found.update_value(value, self.last_accessed, metadata=metadata, source=source)
        self._put(msgspec.structs.replace(entry, variable=changed))
        return changed.detached()

    def update_many(
        self,
        updates: Mapping[str, Any],
        *,
        atomic: bool = False,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> dict[str, Variable | Exception]:
        """Set several values. Returns the outcome of each: the variable, or the error.

        With `atomic` either all values are set, or none. If none is set, only the errors are returned. Call it only
        between `begin` and `commit`.
        """
        assert self._journal is not None
        start = len(self._journal)
        outcome: dict[str, Variable | Exception] = {}
        for identifier, value in updates.items():
            try:
                outcome[identifier] = self.update(identifier, value, metadata=metadata, source=source, owner=owner)
            except SnakepitError as error:
                outcome[identifier] = error
        failed: dict[str, Variable | Exception] = {
            key: error for key, error in outcome.items() if isinstance(error, Exception)
        }
        if not atomic or not failed:
            return outcome
        while len(self._journal) > start:
            mapping, key, old = self._journal.pop()
            mapping[key] = old  # an update never makes an entry, so there is always an old one
        return failed

    def delete(self, identifier: str, *, owner: str | None = None) -> Variable:
        """Remove a variable, and the dependencies on it. Raises `VariableNotFound` and `AccessDenied`."""
        entry = self._writable(identifier, owner)
        found = entry.variable
        size = sum(version.size for version in entry.history) + size_beside(found)
        self._grow(-size - size_of_entries(entry.dependents))
        self._drop(self._entries, found.name)
        self._drop(self._names, found.id)
        for name in entry.bases:
            base = self._entries[name]
            left = {key: kind for key, kind in base.dependents.items() if key != found.name}
            self._grow(-size_in(base.dependents, found.name))
            self._set(self._entries, name, msgspec.structs.replace(base, dependents=left))
        for name in entry.dependents:
            other = self._entries[name]
            self._set(self._entries, name, msgspec.structs.replace(other, bases=other.bases - {found.name}))
        return found.detached()

    def rollback(self, identifier: str, version: int, *, source: Source = "host", owner: str | None = None) -> Variable:
        """Give a variable the value of an earlier version, as a new version.

        Raises `VersionConflict` if the earlier version is not known.
        """
        for entry in self._entry(identifier).history:
            if entry.version == version:
                metadata = {"rollback": str(version)}
                return self.update(identifier, entry.value, source=source, owner=owner, metadata=metadata)
        raise VersionConflict(
            f"version {version} of variable {identifier!r} is not known: `history` has the versions that are"
        )

    def start_optimization(
        self, identifier: str, optimizer_id: str, *, config: Mapping[str, str] = _NOTHING
    ) -> Optimization:
        """Mark a variable as being optimized. Raises `AccessDenied` if it is marked already."""
        entry = self._entry(identifier)
        running = entry.variable.optimization
        if running is not None:
            raise AccessDenied(
                f"variable {entry.variable.name!r} is being optimized by {running.optimizer_id!r}: stop that first"
            )
        mark, now = f"opt_{secrets.token_hex(4)}", self.last_accessed
        begun = Optimization(id=mark, optimizer_id=optimizer_id, started_at=now, config=own(dict(config)))
        self._mark(entry, begun)
        return begun.detached()

    def stop_optimization(self, identifier: str) -> Variable:
        """Remove the mark that a variable is being optimized. Its value stays."""
        entry = self._entry(identifier)
        return self._mark(entry, None) if entry.variable.optimizing else entry.variable.detached()

    def add_dependency(self, identifier: str, on: str, kind: str = "data") -> None:
        """Make a variable depend on another one. Raises `AccessDenied` if that would make a circle."""
        entry, base = self._entry(identifier), self._entry(on)
        dependent, name = entry.variable.name, base.variable.name
        if dependent == name or name in self._reached_from(dependent):
            raise AccessDenied(f"{dependent!r} cannot depend on {name!r}: that depends on {dependent!r} already")
        dependents = {**base.dependents, dependent: kind}
        self._grow(size_of([dependent, kind], name) - size_in(base.dependents, dependent))
        self._set(self._entries, name, msgspec.structs.replace(base, dependents=dependents))
        self._set(self._entries, dependent, msgspec.structs.replace(entry, bases=entry.bases | {name}))

    # Changing the rest.

    def put_metadata(self, key: str, value: str) -> None:
        """Set an entry of the session's metadata. Raises `QuotaExceeded`."""
        self._grow(size_of([key, value], key) - size_in(self._metadata, key))
        self._set(self._metadata, key, own(value))

    def delete_metadata(self, key: str) -> None:
        """Remove an entry of the session's metadata, if it is there."""
        if key in self._metadata:
            self._grow(-size_in(self._metadata, key))
            self._drop(self._metadata, key)

    def put_program(self, program_id: str, program: Any) -> None:
        """Keep a program, which is any value that can be sent. Raises `QuotaExceeded` and `EncodeError`."""
        check_program_id(program_id)
        if program_id not in self._programs:
            check_quota(len(self._programs), self._quotas.programs, f"session {self.id!r}", "programs")
        mine = own(program, program_id)
        self._grow(size_of([program_id, mine], program_id) - size_in(self._programs, program_id))
        self._set(self._programs, program_id, mine)

    def get_program(self, program_id: str) -> Any:
        """A copy of the program of this id. Raises `ProgramNotFound`."""
        return own(self._program(program_id))

    def change_program(self, program_id: str, changes: Mapping[str, Any]) -> Any:
        """Set some fields of a program and return it. Raises `ProgramNotFound`, and `SessionError` if it is no dict."""
        program = self._program(program_id)
        if not isinstance(program, dict):
            raise SessionError(f"program {program_id!r} is no dict, but a {type(program).__name__}: store it anew")
        self.put_program(program_id, {**program, **changes})
        return self.get_program(program_id)

    def delete_program(self, program_id: str) -> None:
        """Remove a program. Raises `ProgramNotFound`."""
        self._program(program_id)
        self._grow(-size_in(self._programs, program_id))
        self._drop(self._programs, program_id)

    def bind(self, worker_id: str | None) -> None:
        """Note which worker serves the session."""
        self._set(self.__dict__, "worker_id", worker_id)

    def hold(self, host_id: str | None, epoch: int) -> None:
        """Note which host holds the session, None for no host, and its epoch."""
        self._set(self.__dict__, "host_id", host_id)
        self._set(self.__dict__, "epoch", epoch)

    # Helpers.

    def _program(self, program_id: str) -> Any:
        if program_id not in self._programs:
            raise no_program_of(self.id, program_id)
        return self._programs[program_id]

    def _entry(self, identifier: str) -> _Entry:
        found = self._entries.get(self._name_of(identifier))
        if found is None:
            names = ", ".join(f"{name!r:.100}" for name in self._entries) if len(self._entries) <= _NAMED else ""
            there = f"; there are: {names}" if names else ""
            raise VariableNotFound(
                f"variable {identifier!r} not found in session {self.id!r}{there}; register_variable adds one"
            )
        return found

    def _writable(self, identifier: str, owner: str | None) -> _Entry:
        entry = self._entry(identifier)
        name, rules = entry.variable.name, entry.variable.access_rules
        if rules.read_only:
            raise AccessDenied(f"variable {name!r} is read-only")
        if rules.owner is not None and rules.owner != owner:
            raise AccessDenied(f"variable {name!r} belongs to {rules.owner!r}; {owner!r} may not change it")
        return entry

    def _check_new(self, name: str) -> None:
        if isinstance(name, str) and name in self:
            raise VariableExists(f"session {self.id!r} has a variable {name!r} already: update it, or delete it first")
        check_quota(len(self._entries), self._quotas.variables, f"session {self.id!r}", "variables")

    def _put(self, entry: _Entry) -> None:
        """Store a new version of a variable."""
        found = entry.variable
        size = size_of_version(found.value, found.metadata, found.name)
        version = HistoryEntry(found.version, found.value, found.updated_at, found.source, found.metadata, size)
        gone = entry.history[: max(0, len(entry.history) + 1 - self._quotas.history)]
        self._grow(size - sum(old.size for old in gone))
        history = (*entry.history[len(gone) :], version)
        kept = _Entry(found, history, entry.serial, entry.dependents, entry.bases)
        self._set(self._entries, found.name, kept)

    def _mark(self, entry: _Entry, optimization: Optimization | None) -> Variable:
        found = msgspec.structs.replace(entry.variable, optimization=optimization)
        self._grow(size_beside(found) - size_beside(entry.variable))
        self._set(self._entries, found.name, msgspec.structs.replace(entry, variable=found))
        return found.detached()

    def _grow(self, size: int) -> None:
        check_bytes(self.bytes, size, self._quotas.bytes, f"session {self.id!r}")
        self._set(self.__dict__, "bytes", self.bytes + size)

    def _set(self, mapping: dict[str, Any], key: str, value: Any) -> None:
        if self._journal is not None:
            self._journal.append((mapping, key, mapping.get(key, _ABSENT)))
        mapping[key] = value

    def _drop(self, mapping: dict[str, Any], key: str) -> None:
        if self._journal is not None:
            self._journal.append((mapping, key, mapping[key]))
        del mapping[key]

    def _consequences(self, changes: list[Change], lost: Mapping[str, Mapping[str, str]]) -> list[Change]:
        """The changes of variables that depend on the changed ones.

        `lost` has the dependents that changed variables had before, even those of deleted variables.
        """
        told = {change.name for change in changes}
        found: list[Change] = []
        for change in changes:
            if change.name not in lost and not self._has_dependents(change.name):
                continue
            for name in self._reached_from(change.name, lost.get(change.name, ())):
                if name not in told:
                    told.add(name)
                    variable = self._entries[name].variable
                    found.append(Change(name, variable, variable, change.name))
        return found

    def _has_dependents(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and bool(entry.dependents)

    def _reached_from(self, start: str, also: Iterable[str] = ()) -> list[str]:
        """The names of the variables that depend on one, directly or not. `also` are names of further dependents."""
        left = [start, *(name for name in also if name in self._entries)]
        seen = dict.fromkeys(left)
        while left:
            entry = self._entries.get(left.pop())
            following = [name for name in entry.dependents if name not in seen] if entry is not None else ()
            seen.update(dict.fromkeys(following))
            left.extend(following)
        return [name for name in seen if name != start]

    def _name_of(self, identifier: str) -> str:
        if not isinstance(identifier, str):
            raise no_name(identifier)
        return self._names.get(identifier, identifier)
