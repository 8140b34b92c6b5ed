"""Hints in terms of msgspec.

A class of our own replaces each part of a hint that msgspec does not know, or does not check strictly. For such a class
msgspec calls `hook`. msgspec itself converts everything around that part, such as the list that it is in.
"""

from __future__ import annotations

import collections
import contextlib
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args, get_origin

import msgspec

from bridge_py.wire.keys import check_hashes, hashable
from bridge_py.wire.registry import Marked

_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
Convert = Callable[[Any], Any]  # raises `ValueError` or `TypeError` for a value that does not fit


class Unenforceable(Exception):
    """A hint cannot be checked. The message says why, and what to write."""


class _Anything(type):
    # msgspec checks that the hook's outcome is an instance.
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Own(metaclass=_Anything):
    """Base of the classes that stand for parts of a hint."""

    convert: Convert


def own(name: str, convert: Convert) -> Any:
    """Make a class that stands for a part of a hint."""
    return _Anything(name, (Own,), {"convert": staticmethod(convert)})


def is_own(hint: Any) -> bool:
    """Whether a hint is a class that stands for a part of a hint."""
    return isinstance(hint, type) and issubclass(hint, Own)


def hook(expected: Any, value: Any) -> Any:
    """Convert a value to a part of a hint that msgspec does not know."""
    if isinstance(expected, type) and issubclass(expected, Own):
        return expected.convert(value)
    return check_instance(expected, value)


def check_instance(expected: Any, value: Any) -> Any:
    """Return a value unchanged if it is of the class `expected`, which msgspec cannot make. Raises `TypeError`."""
    kind = get_origin(expected) or expected
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"Expected `{name_of(kind)}`, got `{type_of(value)}`")
    return value


def convert(value: Any, hint: Any) -> Any:
    """Convert a value to a part of a hint that is in terms of msgspec. Raises `ValueError`."""
    try:
        return msgspec.convert(value, hint, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def check_lists(value: Any) -> None:
    """Raise `DecodeError` if a set of the items of a list in a value would take far longer than others of its size.

    This is for values whose lists may become sets, as a hint of a tool asks for.
    """
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, Marked):
            left.append(value.content)
        elif isinstance(value, dict):
            left += value.values()
        elif type(value) in (list, tuple):
            with contextlib.suppress(TypeError):  # an item cannot be hashed, and so be in no set
                check_hashes(list(map(hashable, value)), set)
            left += value


def optional(hint: Any) -> Any:
    """Make a hint, in terms of msgspec, of a value that may be missing."""
    return Any if hint is Any else union_of([hint, msgspec.UnsetType])


def union_of(hints: Iterable[Any]) -> Any:
    """Make the union of some hints, of which one may be None."""
    union: Any = typing.Union  # Any, because type checkers do not let a value subscript it
    return union[tuple(hints)]


def of_parts(kind: Any, parts: Iterable[Any]) -> Any:
    """Give a generic class its parameters."""
    return kind[tuple(parts)]


def check_known(found: Any, hint: Any) -> None:
    """Raise `Unenforceable` unless msgspec accepts `found`, the translation of a hint."""
    try:
        msgspec.msgpack.Decoder(found, dec_hook=hook)
    except (TypeError, ValueError) as error:
        raise Unenforceable(f"`{shown(hint)}` cannot be checked: {error}") from None


def name_of(kind: Any) -> str:
    """The name of a class, with its module unless it is builtin."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def type_of(value: Any) -> str:
    """The name of a value's class."""
    return value.kind if isinstance(value, Marked) else type(value).__qualname__


def shown(hint: Any) -> str:
    """Show a hint as users write it."""
    text = name_of(hint) if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\btyping\.|\bcollections\.abc\.", "", text)


def plain(value: Any) -> Any:
    """Remove the marks from a value: an enum becomes its value, an object its fields."""
    if isinstance(value, Marked):
        return plain(value.content)
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is collections.deque:
        return collections.deque(map(plain, value), value.maxlen)
    if isinstance(value, dict):
        return of_kind(value, dict(zip(_plain_keys(value), map(plain, value.values()), strict=True)))
    return type(value)(_plain_keys(value, set)) if type(value) in (set, frozenset) else value


def of_kind(value: Any, found: dict[Any, Any]) -> Any:
    """Return `found`, which was made of a dict `value`, as a dict of the same kind."""
    if isinstance(value, collections.defaultdict):
        return collections.defaultdict(value.default_factory, found)
    return type(value)(found) if isinstance(value, (collections.OrderedDict, collections.Counter)) else found


def _plain_keys(keys: Iterable[Any], kind: type = dict) -> list[Any]:
    """Remove the marks from keys, for a dict or a set. Raises `DecodeError` if they were chosen to take long."""
    found = [tuple(key) if isinstance(key, list) else key for key in map(plain, keys)]
    check_hashes(found, kind)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether a value and its conversion are the same."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is dict:
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    try:
        return bool(one == other) or repr(one) == repr(other)
    except Exception:
        return False


def scalar(value: Any) -> Any:
    """Convert a value for a hint that knows neither marks nor numpy, to Python's own number or text."""
    if isinstance(value, Marked):
        value = plain(value)
    if not is_numpy_scalar(value):
        return value
    if isinstance(value, (str, bytes)):
        return str.__str__(value) if isinstance(value, str) else b"".join([value])
    return value.item() if value.dtype.kind in "biufc" else value


def is_numpy_scalar(value: Any) -> bool:
    """Whether a value is a scalar of numpy's. This does not import numpy."""
    return any(base.__module__ == "numpy" and base.__name__ == "generic" for base in type(value).__mro__)


def flat_union(hint: Any) -> list[Any]:
    """List the members of a union; for any other hint, the hint alone."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in get_args(hint) for member in flat_union(part)]
    return [hint]


def substitute(hint: Any, known: dict[Any, Any]) -> Any:
    """Replace the type variables in a hint by the hints that they stand for."""
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(known.get(each, each) for each in parameters)]


def variables_of(kind: type, args: Iterable[Any]) -> dict[Any, Any]:
    """Find the hints that the type variables of a class, and of its bases, stand for."""
    known = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    for base in getattr(kind, "__orig_bases__", ()):
        if isinstance(origin := get_origin(base), type) and origin is not typing.Generic:
            known = {**variables_of(origin, [substitute(each, known) for each in get_args(base)]), **known}
    return known


def has_constraints(metadata: Iterable[Any]) -> bool:
    """Whether the annotations of a hint constrain its values."""
    return any(
        isinstance(meta, msgspec.Meta) and any(getattr(meta, name) is not None for name in _CONSTRAINTS)
        for meta in metadata
    )
