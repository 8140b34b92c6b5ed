"""What the curated tables say about classes and modules.

A class counts by its identity, never by the name that it gives itself. An object may use the names of the listed
classes of its own package from which its class derives.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.public_names import home_of

from . import curated_core, curated_frames, curated_science

_TABLES: Final = (curated_core, curated_science, curated_frames)
#: By module: the names that dynamic calls may use in it.
MODULES: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(names.split()) for table in _TABLES for name, names in table.MODULES.items()
}
#: By class, as "module:name": the methods and attributes that dynamic calls may use.
TYPES: Final[Mapping[str, frozenset[str]]] = {
    **{name: frozenset(names.split()) for table in _TABLES for name, names in table.TYPES.items()},
    **{name: frozenset() for table in _TABLES for name in table.HELD.split()},
}
#: Packages of the tables.
ROOTS: Final = frozenset(name.partition(".")[0] for name in MODULES) | {"builtins"}
#: Functions that are objects of classes of their own.
_FUNCTION_LIKE: Final = ("cython_function_or_method", "fused_cython_function", "_ArrayFunctionDispatcher")
_FUNCTIONS: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    functools.partial,
    functools.partialmethod,
    staticmethod,
    classmethod,
    property,
    types.GenericAlias,
)
_CODE: Final = (types.CodeType, types.FrameType, types.TracebackType, types.CellType)


def root_of(kind: type) -> str:
    """Return the package that defines a class."""
    return str(home_of(kind)).partition(".")[0]


def names_of(kind: type) -> frozenset[str] | None:
    """Return the names that the tables list for objects of a class, or None if the class is not listed."""
    found = _known.get(kind)
    if found is None:
        found = _look_up(kind)
        if found is not None:
            _known[kind] = found
    return found


def named(key: str) -> Any:
    """Return the object that a "module:name" means, or None if its module is not imported or has no such name."""
    module, _, name = key.partition(":")
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def key_of(kind: type) -> str:
    """Return how owners name a class: "module:name"."""
    return f"{home_of(kind)}:{kind.__qualname__}"


def is_function_like(found: Any) -> bool:
    """Whether an object is a function of a compiled module that has a class of its own."""
    return type(found).__name__ in _FUNCTION_LIKE


def is_code(found: Any) -> bool:
    """Whether an object is a function, a class, a module, or a part of the interpreter."""
    return isinstance(found, (type, types.ModuleType, *_FUNCTIONS, *_CODE)) or is_function_like(found)


def is_inner_part(found: Any) -> bool:
    """Whether an object is a part of the interpreter, such as a frame."""
    return isinstance(found, _CODE)


_known: Final[dict[type, frozenset[str]]] = {}
_classes: Final[dict[type, frozenset[str]]] = {}
_pending: Final[dict[str, frozenset[str]]] = dict(TYPES)
_lock: Final = threading.Lock()


def _look_up(kind: type) -> frozenset[str] | None:
    root = root_of(kind)
    with _lock:
        _resolve(root)
        listed = [_classes[base] for base in kind.__mro__ if base in _classes and root_of(base) == root]
    return frozenset().union(*listed) if listed else None


def _resolve(root: str) -> None:
    """Find the classes of a package that are listed and have been imported since the last time."""
    for key in [key for key in _pending if key.startswith((f"{root}.", f"{root}:"))]:
        found = _BUILTIN.get(key) or named(key)
        if isinstance(found, type):
            _classes[found] = _classes.get(found, frozenset()) | _pending.pop(key)


def _generator() -> Any:
    yield


_VALUES: Final[tuple[Any, ...]] = (
    *({}.keys(), {}.values(), {}.items(), types.MappingProxyType({}), _generator(), iter([]), iter(())),
    *(iter({}), iter({}.values()), iter({}.items()), iter(set()), iter(range(1)), iter("a"), iter("\u1234")),
    *(iter(b""), reversed([])),
)
_BUILTIN: Final[dict[str, type]] = {f"builtins:{type(each).__name__}": type(each) for each in _VALUES}
