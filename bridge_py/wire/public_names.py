"""Makes public names show the package that users import them from, and not the file that defines them.

Tracebacks, documentation and pickles then have `bridge_py.UsageError` in place of `bridge_py.wire.errors.UsageError`.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Collection, Iterable, Mapping
from types import FunctionType
from typing import Final

#: The defining modules of classes that name another module now.
_HOMES: Final[dict[type, str]] = {}


def expose(package: str, names: Mapping[str, object], without: Collection[str] = ()) -> None:
    """Put names into a package that has loaded them late, and publish them, but for those `without`."""
    vars(sys.modules[package]).update(names)
    publish(package, set(names).difference(without))


def publish(package: str, names: Iterable[str]) -> None:
    """Make classes and functions of a package name the package as their module. Other objects stay as they are."""
    namespace = vars(sys.modules[package])
    for name in names:
        if isinstance(value := namespace.get(name), (type, FunctionType)):
            _publish(package, value)


def home_of(kind: type) -> str:
    """Return the module that defines a class, whichever module the class names."""
    return _HOMES.get(kind, kind.__module__)


def _publish(package: str, value: type | FunctionType) -> None:
    if isinstance(value, type):
        _resolve_hints(value)
        _HOMES.setdefault(value, value.__module__)
    value.__module__ = package


def _resolve_hints(kind: type) -> None:
    # `typing.get_type_hints` and msgspec look names up in the module that a class names. That will not have them.
    own = inspect.get_annotations(kind)
    # In a named tuple, references name no module; in a typed dict they do.
    if any(isinstance(hint, str) or getattr(hint, "__forward_module__", "") is None for hint in own.values()):
        hints = typing.get_type_hints(kind, include_extras=True)
        found = {name: hints[name] for name in own}
        if "__annotations__" in vars(kind):
            vars(kind)["__annotations__"].update(found)
        else:
            kind.__annotations__ = found  # from Python 3.14 on
