"""Creates variables that belong to no session, checks values, and finds their types."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.types import VariableType, get_type, infer_type, list_types, valid, validate
from bridge_py.wire.variable import Variable, new_variable

__all__ = ["VariableType", "create_variable", "get_type", "infer_type", "supported_types", "valid", "validate"]

_NOTHING: Final[Mapping[str, Any]] = {}


def supported_types() -> list[str]:
    """The names of the types that a variable may have."""
    return list_types()


def create_variable(
    name: str,
    type: str | None = None,
    value: Any = None,
    *,
    constraints: Mapping[str, Any] = _NOTHING,
    metadata: Mapping[str, str] = _NOTHING,
) -> Variable:
    """Create a variable of version 1 that belongs to no session. Without `type`, its value decides its type.

    Raises `InvalidValue`.
    """
    return new_variable(name, type, value, now=time.time(), constraints=constraints, metadata=metadata)
