"""One typed, versioned variable. Immutable: every change makes a new one, so what was handed out never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from bridge_py.wire import types

Source = Literal["host", "worker"]
_NO_METADATA: Final[Mapping[str, str]] = {}


@attrs.frozen(kw_only=True)
class Optimization:
    """Who optimizes a variable, since when (Unix time, seconds)."""

    id: str
    optimizer_id: str
    started_at: float
    config: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class AccessRules:
    """Who may change a variable: nobody, or its owner alone. Everybody in its session may read it."""

    read_only: bool = False
    owner: str | None = None


@attrs.frozen(kw_only=True)
class Variable:
    """A variable of a session. Times are Unix time in seconds; versions count from 1."""

    id: str
    name: str
    type: str
    value: Any
    created_at: float
    updated_at: float
    constraints: Mapping[str, Any] = attrs.field(factory=dict)
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    version: int = 1
    source: Source = "host"
    access_rules: AccessRules = attrs.field(factory=AccessRules)
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
        """The variable with another value and the next version. Raises `InvalidValue`."""
        return attrs.evolve(
            self,
            value=types.validate(value, self.type, self.constraints),
            version=self.version + 1,
            updated_at=now,
            metadata={**self.metadata, **metadata},
            source=source,
        )

    def to_map(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return attrs.asdict(self, recurse=True)

    def to_export_map(self) -> dict[str, Any]:
        """What another session needs to have the same variable: no id, times or optimization."""
        exported = self.to_map()
        for name in ("id", "created_at", "updated_at", "optimization"):
            del exported[name]
        return exported


@attrs.frozen
class HistoryEntry:
    """A version that a variable has, or had."""

    version: int
    value: Any
    timestamp: float
    changed_by: Source
    metadata: Mapping[str, str]
