"""The interface of everything that keeps variables, wherever it keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridge_py.wire.variable import AccessRules, Source, Variable

_NOTHING: Final[Mapping[str, Any]] = {}


class StateProvider(ABC):
    """Typed, versioned variables, found by name or id. Every method is atomic."""

    @abstractmethod
    async def register_variable(
        self,
        name: str,
        type: str | None = None,
        value: Any = None,
        *,
        constraints: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
        access_rules: AccessRules | None = None,
        source: Source = "host",
    ) -> Variable:
        """Add a variable. Without a type, it gets the type of its value.

        Raises `VariableExists`, `QuotaExceeded`, `InvalidValue` and `EncodeError`.
        """

    @abstractmethod
    async def get_variable(self, identifier: str) -> Variable:
        """The variable: value, version, type and the rest. Raises `VariableNotFound`."""

    @abstractmethod
    async def get_variables(self, identifiers: Iterable[str]) -> tuple[dict[str, Variable], list[str]]:
        """The variables that exist, by the given identifiers, and the identifiers that are missing."""

    @abstractmethod
    async def has_variable(self, identifier: str) -> bool:
        """Whether there is a variable of this name or id."""

    @abstractmethod
    async def list_variables(self, pattern: str = "*") -> list[Variable]:
        """The variables whose names match a pattern with `*`, `?` and `[...]`, in the order of their creation."""

    @abstractmethod
    async def update_variable(
        self,
        identifier: str,
        value: Any,
        *,
        expected_version: int | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> Variable:
        """Set a value; the version goes up by one.

        Raises `VariableNotFound`, `InvalidValue`, `AccessDenied`, `QuotaExceeded`, and `VersionConflict` if the
        version is not the expected one.
        """

    @abstractmethod
    async def update_variables(
        self,
        updates: Mapping[str, Any],
        *,
        atomic: bool = False,
        metadata: Mapping[str, str] = _NOTHING,
        source: Source = "host",
        owner: str | None = None,
    ) -> dict[str, Variable | Exception]:
        """Set several values. Returns the outcome of each: the variable, or the error.

        With `atomic` either all values are set, or none. If none is set, only the errors are returned.
        """

    @abstractmethod
    async def delete_variable(self, identifier: str, *, owner: str | None = None) -> None:
        """Remove a variable, with its history and dependencies. Raises `VariableNotFound` and `AccessDenied`."""

    @abstractmethod
    async def export_variables(self) -> list[dict[str, Any]]:
        """All variables as plain values, in the order of their creation."""

    @abstractmethod
    async def import_variables(self, exported: Iterable[Mapping[str, Any]]) -> list[Variable]:
        """Add the variables of an export of `export_variables`: all or none. Raises as `register_variable` does."""

    async def get_variable_value(self, identifier: str) -> Any:
        """The value of a variable. Raises `VariableNotFound`."""
        return (await self.get_variable(identifier)).value
