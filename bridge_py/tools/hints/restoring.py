"""Makes objects again of what they were sent as, where the receiver has a hint that may not tell everything."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, Final, get_args

from bridge_py.wire.registry import Marked

from .builder import enforced
from .own import Unenforceable, check_lists, convert, plain

_STREAMS: Final = ("Generator", "Iterator", "Iterable", "AsyncGenerator", "AsyncIterator", "AsyncIterable")


def restored(value: Any, hint: Any) -> Any:
    """Make enums and objects with fields again in a value, by its hint. Everything else stays as it came.

    What the hint does not tell, or nobody can enforce, arrives as plain values. Raises `ValueError` if an object came
    that does not fit the hint.
    """
    if not has_marks(value):
        return value
    try:
        found, makes_sets = _enforced(hint)
    except Unenforceable:
        return plain(value)
    except TypeError:  # a part of the hint has no hash
        found, makes_sets = enforced(hint, special=True)
    if makes_sets:
        check_lists(value)
    return convert(value, found)


@functools.lru_cache(10_000)
def _enforced(hint: Any) -> tuple[Any, bool]:
    return enforced(hint, special=True)


def has_marks(value: Any) -> bool:
    """Whether a value, or a part of it, is an enum or an object with fields that is not made again yet."""
    if isinstance(value, Marked):
        return True
    if isinstance(value, dict):
        return any(map(has_marks, value)) or any(map(has_marks, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(has_marks, value))


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The hints of a function, by parameter, and "return"; none if they cannot be resolved here."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # it may be no function, or name what is imported for type checkers only
        return {}


def hint_of_chunks(hint: Any) -> Any:
    """The hint of what a generator yields, by the hint of what its function returns."""
    args = get_args(hint)
    return args[0] if args and getattr(typing.get_origin(hint), "__name__", "") in _STREAMS else Any
