"""One typed, versioned variable.

It is immutable: every change makes a new object, so an object that was handed out never changes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from . import types
from .errors import DecodeError, InvalidValue
from .owning import LEAVES, own

Source = Literal["host", "worker"]
_NO_METADATA: Final[Mapping[str, str]] = {}


class Optimization(msgspec.Struct, frozen=True, kw_only=True):
    """Who optimizes a variable, and since when (Unix time in seconds)."""

    id: str
    optimizer_id: str
    started_at: float
    config: dict[str, str] = {}

    def detached(self) -> Optimization:
        """Make a copy for code that may change it."""
        return msgspec.structs.replace(self, config=own(self.config))


class AccessRules(msgspec.Struct, frozen=True, kw_only=True):
    """Who may change a variable: nobody, or its owner alone. Everybody in its session may read it.

    The owner is a name. Host code gives its own as `owner=`; code in a worker has the name of its tool.
    """

    read_only: bool = False
    owner: str | None = None


_NO_RULES: Final = AccessRules()


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable of a session. Times are Unix time in seconds; versions count from 1."""

    id: str
    name: str
    type: str
    value: Any
    created_at: float
    updated_at: float
    constraints: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    version: int = 1
    source: Source = "host"
    access_rules: AccessRules = _NO_RULES
    optimization: Optimization | None = None

    def age(self, now: float) -> float:
        """Seconds since it was made."""
        return now - self.created_at

    def time_since_update(self, now: float) -> float:
        """Seconds since its value was set."""
        return now - self.updated_at

    @property
    def optimizing(self) -> bool:
        """Whether it is being optimized."""
        return self.optimization is not None

    def update_value(
        self, value: Any, now: float, *, metadata: Mapping[str, str] = _NO_METADATA, source: Source = "host"
    ) -> Variable:
        """Make the variable with another value and the next version. Raises `InvalidValue`."""
        return msgspec.structs.replace(
            self,
            value=_fitting(self.name, value, self.type, self.constraints),
            version=self.version + 1,
            updated_at=now,
            metadata=own({**self.metadata, **metadata}) if metadata else self.metadata,
            source=source,
        )

    def detached(self) -> Variable:
        """Make a copy for code that may change it. The copy and this variable share no part that can change."""
        found: Variable = self.__copy__()  # type: ignore[attr-defined]  # every struct of msgspec has it
        # This is twice as fast as making a new one, and each reading of a remembered variable does it.
        if type(self.value) not in LEAVES:
            force_setattr(found, "value", own(self.value, self.name))
        force_setattr(found, "constraints", own(self.constraints) if self.constraints else {})
        force_setattr(found, "metadata", own(self.metadata) if self.metadata else {})
        if self.optimization is not None:
            force_setattr(found, "optimization", self.optimization.detached())
        return found

    def pack(self) -> list[Any]:
        """Turn it into a list for `unpack`. The list holds few containers, because each one takes the codec time."""
        rules, running = self.access_rules, self.optimization
        return [
            self.id,
            self.name,
            self.type,
            self.value,
            self.created_at,
            self.updated_at,
            self.version,
            self.source,
            self.constraints or None,
            self.metadata or None,
            None if rules is _NO_RULES else [rules.read_only, rules.owner],
            None if running is None else [running.id, running.optimizer_id, running.started_at, running.config],
        ]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Variable:
        """Make the variable from the list that `pack` returned. Raises `DecodeError`."""
        try:
            first, name, kind, value, created_at, updated_at, version, source, *rest = packed
            constraints, metadata, rules, running = rest
            return cls(
                id=first,
                name=name,
                type=kind,
                value=value,
                created_at=created_at,
                updated_at=updated_at,
                version=version,
                source=source,
                constraints=constraints or {},
                metadata=metadata or {},
                access_rules=_NO_RULES if rules is None else AccessRules(read_only=rules[0], owner=rules[1]),
                optimization=None
                if running is None
                else Optimization(**dict(zip(_OPTIMIZATION, running, strict=True))),
            )
        except (TypeError, ValueError, IndexError) as error:
            raise DecodeError(f"this is no variable: {error}") from None

    def to_map(self) -> dict[str, Any]:
        """Return all fields as a dict of plain values."""
        found = msgspec.structs.asdict(self.detached())
        found["access_rules"] = msgspec.structs.asdict(self.access_rules)
        if self.optimization is not None:
            found["optimization"] = msgspec.structs.asdict(self.optimization)
        return found

    def to_export_map(self) -> dict[str, Any]:
        """Return the fields that another session needs for the same variable: all but id, times and optimization."""
        exported = self.to_map()
        for name in ("id", "created_at", "updated_at", "optimization"):
            del exported[name]
        return exported


_OPTIMIZATION: Final = Optimization.__struct_fields__


def new_variable(
    name: str,
    type: str | None,
    value: Any,
    *,
    now: float,
    constraints: Mapping[str, Any] = _NO_METADATA,
    metadata: Mapping[str, str] = _NO_METADATA,
    access_rules: AccessRules | None = None,
    source: Source = "host",
    version: int = 1,
) -> Variable:
    """Make a variable that is created `now`. Without a type it gets the type of its value. Raises `InvalidValue`."""
    if not isinstance(name, str) or not name:
        raise no_name(name)
    kind = types.infer_type(value) if type is None else type
    return Variable(
        id=f"var_{name}_{secrets.token_hex(4)}",
        name=name,
        type=kind,
        value=_fitting(name, value, kind, constraints),
        created_at=now,
        updated_at=now,
        constraints=own(dict(constraints), f"{name}: constraints"),
        metadata=own(dict(metadata), f"{name}: metadata"),
        version=version,
        source=source,
        access_rules=access_rules or _NO_RULES,
    )


def no_name(name: object) -> InvalidValue:
    """Make the error for what cannot be a variable's name."""
    return InvalidValue(f"{name!r:.100} is no name of a variable: give a text")


def list_of_names(names: Iterable[str]) -> list[str]:
    """List names of variables, each once. Raises `InvalidValue` for a text, and for what is no name."""
    if isinstance(names, str):
        raise InvalidValue(f"{names!r:.100} is one name of a variable: give a list of them, [{names!r:.100}]")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise no_name(name)
    return list(dict.fromkeys(listed))


class HistoryEntry(msgspec.Struct, frozen=True):
    """A version that a variable has, or had."""

    version: int
    value: Any
    timestamp: float
    changed_by: Source
    metadata: dict[str, str]
    #: Bytes of the value, as it would be sent.
    size: int

    def detached(self) -> HistoryEntry:
        """Make a copy for code that may change it."""
        return msgspec.structs.replace(self, value=own(self.value), metadata=own(self.metadata))


def _fitting(name: str, value: Any, type: str, constraints: Mapping[str, Any]) -> Any:
    try:
        return own(types.validate(value, type, constraints), name)
    except InvalidValue as error:
        raise InvalidValue(f"variable {name!r}: {error}", error.type, error.constraint) from None
