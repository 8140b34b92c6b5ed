"""Public names say the package that users import them from, and not the file that defines them.

So do tracebacks, documentation and pickles: `bridge_py.UsageError` in place of `bridge_py.wire.errors.UsageError`.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable
from types import FunctionType
from typing import Any, Final

#: Where classes were defined that name another module now.
_HOMES: Final[dict[type, str]] = {}


def publish(package: str, names: Iterable[str]) -> None:
    """Have classes and functions of a package name it as their module. Others are left as they are."""
    namespace = vars(sys.modules[package])
    for name in names:
        if isinstance(value := namespace.get(name), (type, FunctionType)):
            _publish(package, value)


def home_of(kind: type) -> str:
    """The module that defines a class, whichever it names."""
    return _HOMES.get(kind, kind.__module__)


def _publish(package: str, value: type | FunctionType) -> None:
    if isinstance(value, type):
        _resolve_hints(value)
        _HOMES.setdefault(value, value.__module__)
    value.__module__ = package


def _resolve_hints(kind: type) -> None:
    # `typing.get_type_hints` and msgspec look names up in the module that a class names, which will not have them.
    own: dict[str, Any] = vars(kind).get("__annotations__", {})
    # A named tuple has references that belong to no module; those of a typed dict tell theirs.
    if any(isinstance(hint, str) or getattr(hint, "__forward_module__", "") is None for hint in own.values()):
        hints = typing.get_type_hints(kind, include_extras=True)
        own.update({name: hints[name] for name in own})
