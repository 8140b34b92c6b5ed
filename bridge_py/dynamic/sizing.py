"""Describes an object from outside, without trusting it: its estimated size, its class, and a short repr."""

from __future__ import annotations

import reprlib
import sys
from typing import Any, Final

_MOST_PARTS: Final = 1_000_000
_LONGEST: Final = 200
_short: Final = reprlib.Repr()
_short.maxother = _short.maxstring = _LONGEST


def size_of(value: Any) -> int:
    """Estimate the size of a value, its plain contents and its attributes in bytes, and count each object once.

    An object with buffers has their size, any other object that of `sys.getsizeof`.
    """
    total, seen, parts = 0, {id(value)}, [value]
    while parts and len(seen) < _MOST_PARTS:
        part = parts.pop()
        buffers = _buffers_of(part)
        total += buffers or _own_size(part)
        for inner in () if buffers else _contents_of(part):
            if id(inner) not in seen:
                seen.add(id(inner))
                parts.append(inner)
    return total


def _own_size(value: Any) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:
        return 0


def _buffers_of(value: Any) -> int:
    """The bytes of an array's, tensor's or frame's buffers; 0 for any other value."""
    if isinstance(value, (str, bytes, int, float, list, tuple, dict, set, type)):
        return 0
    for measure in (_by_memory_usage, _by_nbytes, _by_estimated_size):
        try:
            found = measure(value)
        except Exception:  # noqa: S112 - it is none of this kind
            continue
        if found:
            return found
    return 0


def _by_nbytes(value: Any) -> int:
    return int(value.nbytes) if isinstance(getattr(value, "nbytes", None), int) else 0


def _by_memory_usage(value: Any) -> int:
    usage = value.memory_usage(deep=True)
    return int(usage.sum() if hasattr(usage, "sum") else usage)


def _by_estimated_size(value: Any) -> int:
    return int(value.estimated_size())


def _contents_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    attributes = getattr(value, "__dict__", None)
    return list(attributes.values()) if type(attributes) is dict else []


def repr_of(value: Any) -> str:
    """The beginning of a value's repr, in one line of at most 200 characters."""
    try:
        text = _short.repr(value) if type(value).__module__ == "builtins" else repr(value)
    except Exception as error:
        text = f"<its repr() raised {type(error).__name__}>"
    text = " ".join(text[: 4 * _LONGEST].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def type_of(value: Any) -> str:
    """The name of a value's class, with its module unless that is builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
