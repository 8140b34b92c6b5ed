"""One session: its variables and their history, programs, metadata. Plain state; times are arguments, in seconds."""

from __future__ import annotations

import fnmatch
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from bridge_py.wire import types
from bridge_py.wire.errors import InvalidValue
from snakepit_trio.errors import AccessDenied, QuotaExceeded, VariableExists, VariableNotFound, VersionConflict

from .variable import AccessRules, HistoryEntry, Optimization, Source, Variable

_NOTHING: Final[Mapping[str, Any]] = {}


@attrs.frozen(kw_only=True)
class Quotas:
    """What one store may hold. None: no bound."""

    #: Sessions.
    sessions: int | None = None
    #: Variables of one session.
    variables: int | None = 10_000
    #: Programs of one session.
    programs: int | None = 10_000
    #: Versions of one variable that `history` and `rollback` know, the latest.
    history: int = 100


class Session:
    """A session. Its id, when it was made and used, and what it holds.

    Variables are found by their name or their id. What is handed out is immutable; what changes the session is
    all or nothing.
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
        self.metadata: dict[str, str] = dict(metadata)
        self.programs: dict[str, Any] = {}
        self.worker_id: str | None = None
        self._quotas = quotas or Quotas()
        self._variables: dict[str, Variable] = {}  # by name, in the order of their creation
        self._names: dict[str, str] = {}  # by id
        self._history: dict[str, deque[HistoryEntry]] = {}  # by name
        self._dependents: dict[str, dict[str, str]] = {}  # by name: who depends on it, and how

    # Its life.

    def touch(self, now: float) -> None:
        """It is in use."""
        self.last_accessed = max(self.last_accessed, now)

    def expires_at(self) -> float | None:
        """When it expires unless it is used before, or None."""
        return None if self.ttl is None else self.last_accessed + self.ttl

    def expired(self, now: float) -> bool:
        """Whether it has expired."""
        end = self.expires_at()
        return end is not None and now >= end

    # Reading.

    def __len__(self) -> int:
        return len(self._variables)

    def __contains__(self, identifier: str) -> bool:
        return self._name_of(identifier) in self._variables

    def get(self, identifier: str) -> Variable:
        """The variable of that name or id. Raises `VariableNotFound`."""
        found = self._variables.get(self._name_of(identifier))
        if found is None:
            raise VariableNotFound(f"variable {identifier!r} not found in session {self.id!r}")
        return found

    def get_many(self, identifiers: Iterable[str]) -> tuple[dict[str, Variable], list[str]]:
        """Those that are there, by what was asked for, and what is missing."""
        found, missing = {}, []
        for identifier in identifiers:
            if identifier in self:
                found[identifier] = self.get(identifier)
            else:
                missing.append(identifier)
        return found, missing

    def matching(self, pattern: str = "*") -> list[Variable]:
        """The variables whose names match a pattern with `*`, `?` and `[...]`, oldest first."""
        return [found for found in self._variables.values() if fnmatch.fnmatchcase(found.name, pattern)]

    def history(self, identifier: str, limit: int | None = None) -> list[HistoryEntry]:
        """The versions of a variable, latest first. Raises `VariableNotFound`."""
        entries = list(reversed(self._history[self.get(identifier).name]))
        return entries if limit is None else entries[: max(0, limit)]

    def dependents(self, identifier: str) -> dict[str, str]:
        """The names of the variables that depend on one, each with the kind of dependency."""
        return dict(self._dependents.get(self.get(identifier).name, {}))

    # Changing.

    def register(
        self,
        name: str,
        type: str,
        value: Any,
        *,
        now: float,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
        source: Source = "host",
    ) -> Variable:
        """Add a variable. Raises `VariableExists`, `QuotaExceeded` and `InvalidValue`."""
        if name in self:
            raise VariableExists(f"session {self.id!r} has a variable {name!r} already: update it, or delete it first")
        check_quota(len(self._variables), self._quotas.variables, f"session {self.id!r}", "variables")
        found = Variable(
            id=f"var_{name}_{secrets.token_hex(4)}",
            name=name,
            type=type,
            value=types.validate(value, type, constraints),
            constraints=dict(constraints),
            metadata=dict(metadata),
            access_rules=access_rules or AccessRules(),
            source=source,
            created_at=now,
            updated_at=now,
        )
        self._history[name] = deque(maxlen=self._quotas.history)
        self._names[found.id] = name
        self._store(found)
        return found

    def update(
        self,
        identifier: str,
        value: Any,
        *,
        now: float,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> Variable:
        """Set a variable's value; its version goes up by one.

        `owner` is who asks. Raises `VariableNotFound`, `AccessDenied`, `VersionConflict` and `InvalidValue`.
        """
        found = self._changed(identifier, value, now, expected_version, metadata, source, owner)
        self._store(found)
        return found

    def update_many(
        self,
        updates: Mapping[str, Any],
        *,
        now: float,
        atomic: bool = False,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> dict[str, Variable | Exception]:
        """Set several values. The outcome of each: the variable, or why not.

        `atomic`: either all are set, or none; then what could have been set is missing from the outcome.
        """
        outcome: dict[str, Variable | Exception] = {}
        for identifier, value in updates.items():
            try:
                outcome[identifier] = self._changed(identifier, value, now, None, metadata, source, owner)
            except (InvalidValue, AccessDenied, VariableNotFound) as error:
                outcome[identifier] = error
        failed = {key: error for key, error in outcome.items() if isinstance(error, Exception)}
        if atomic and failed:
            return dict(failed)
        for changed in outcome.values():
            if isinstance(changed, Variable):
                self._store(changed)
        return outcome

    def delete(self, identifier: str, *, owner: str | None = None) -> Variable:
        """Remove a variable, and the dependencies on it. Raises `VariableNotFound` and `AccessDenied`."""
        found = self._writable(identifier, owner)
        del self._variables[found.name], self._names[found.id], self._history[found.name]
        self._dependents.pop(found.name, None)
        for dependents in self._dependents.values():
            dependents.pop(found.name, None)
        return found

    def rollback(self, identifier: str, version: int, *, now: float, owner: str | None = None) -> Variable:
        """Give a variable the value that it had; that is a new version. Raises `VersionConflict` if it is not known."""
        for entry in self.history(identifier):
            if entry.version == version:
                return self.update(identifier, entry.value, now=now, owner=owner, metadata={"rollback": str(version)})
        raise VersionConflict(f"version {version} of variable {identifier!r} is not known")

    def _changed(
        self,
        identifier: str,
        value: Any,
        now: float,
        expected_version: int | None,
        metadata: Mapping[str, str],
        source: Source,
        owner: str | None,
    ) -> Variable:
        found = self._writable(identifier, owner)
        if expected_version is not None and found.version != expected_version:
            raise VersionConflict(
                f"variable {found.name!r} is at version {found.version}, not {expected_version}: get it again first"
            )
        return found.update_value(value, now, metadata=metadata, source=source)

    def _writable(self, identifier: str, owner: str | None) -> Variable:
        found = self.get(identifier)
        rules = found.access_rules
        if rules.read_only:
            raise AccessDenied(f"variable {found.name!r} is read-only")
        if rules.owner is not None and rules.owner != owner:
            raise AccessDenied(f"variable {found.name!r} is {rules.owner!r}'s, and {owner!r} may not change it")
        return found

    def _store(self, variable: Variable) -> None:
        self._variables[variable.name] = variable
        self._history[variable.name].append(
            HistoryEntry(variable.version, variable.value, variable.updated_at, variable.source, variable.metadata)
        )

    def _name_of(self, identifier: str) -> str:
        return self._names.get(identifier, identifier)

    # Optimization and dependencies.

    def start_optimization(
        self, identifier: str, optimizer_id: str, *, now: float, config: Mapping[str, str] = _NOTHING
    ) -> Optimization:
        """Mark a variable as being optimized. Raises `AccessDenied` if it is already."""
        found = self.get(identifier)
        if found.optimization is not None:
            raise AccessDenied(
                f"variable {found.name!r} is being optimized by {found.optimization.optimizer_id!r}: stop that first"
            )
        begun = Optimization(
            id=f"opt_{secrets.token_hex(4)}", optimizer_id=optimizer_id, started_at=now, config=dict(config)
        )
        self._variables[found.name] = attrs.evolve(found, optimization=begun)
        return begun

    def stop_optimization(self, identifier: str) -> Variable:
        """The mark goes; the value stays."""
        found = attrs.evolve(self.get(identifier), optimization=None)
        self._variables[found.name] = found
        return found

    def add_dependency(self, identifier: str, on: str, kind: str = "data") -> None:
        """A variable depends on another one. Raises `AccessDenied` if that would make a circle."""
        dependent, base = self.get(identifier).name, self.get(on).name
        if dependent == base or self._reaches(dependent, base):
            raise AccessDenied(f"{dependent!r} cannot depend on {base!r}: that depends on {dependent!r} already")
        self._dependents.setdefault(base, {})[dependent] = kind

    def _reaches(self, start: str, goal: str) -> bool:
        left, seen = [start], {start}
        while left:
            following = self._dependents.get(left.pop(), {}).keys() - seen
            if goal in following:
                return True
            seen |= following
            left.extend(following)
        return False


def check_quota(count: int, most: int | None, whose: str, what: str) -> None:
    """Raise `QuotaExceeded` if one more would be too many."""
    if most is not None and count >= most:
        raise QuotaExceeded(f"{whose} has {count} {what}, and may have {most}: delete some, or raise the quota")
