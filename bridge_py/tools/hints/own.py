"""Hints in terms of msgspec.

A part of a hint that msgspec does not know, or does not take strictly, is replaced by a class of our own, for which
msgspec calls `hook`. Everything around it, such as the list that it is in, stays msgspec's.
"""

from __future__ import annotations

import collections
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args, get_origin

import msgspec

from bridge_py.wire.registry import Marked

_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
Convert = Callable[[Any], Any]  # raises `ValueError` or `TypeError` for what does not fit


class Unenforceable(Exception):
    """A hint that nobody can check. The message says why, and what to write."""


class _Anything(type):
    # msgspec asks whether what the hook has made is an instance.
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Own(metaclass=_Anything):
    """Base of the classes that stand for parts of a hint."""

    convert: Convert


def own(name: str, convert: Convert) -> Any:
    """A class that stands for a part of a hint."""
    return _Anything(name, (Own,), {"convert": staticmethod(convert)})


def is_own(hint: Any) -> bool:
    """Whether a hint is such a class."""
    return isinstance(hint, type) and issubclass(hint, Own)


def hook(expected: Any, value: Any) -> Any:
    """Convert a value to a part of a hint that msgspec does not know."""
    if isinstance(expected, type) and issubclass(expected, Own):
        return expected.convert(value)
    return check_instance(expected, value)


def check_instance(expected: Any, value: Any) -> Any:
    """Take a value for a class that msgspec cannot convert to, if it is of that class already."""
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


def optional(hint: Any) -> Any:
    """A hint in terms of msgspec for what may be missing."""
    return Any if hint is Any else union_of([hint, msgspec.UnsetType])


def union_of(hints: Iterable[Any]) -> Any:
    """The union of some hints, of which one may be None."""
    union: Any = typing.Union  # to a checker, no class that can be subscripted by a value
    return union[tuple(hints)]


def of_parts(kind: Any, parts: Iterable[Any]) -> Any:
    """A generic class with its parameters."""
    return kind[tuple(parts)]


def check_known(found: Any, hint: Any) -> None:
    """Raise `Unenforceable` unless msgspec takes what a hint has become."""
    try:
        msgspec.msgpack.Decoder(found, dec_hook=hook)
    except (TypeError, ValueError) as error:
        raise Unenforceable(f"`{shown(hint)}` cannot be checked: {error}") from None


def name_of(kind: Any) -> str:
    """The name of a class, with its module unless it is builtin."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def type_of(value: Any) -> str:
    """The name of what a value is of."""
    return value.kind if isinstance(value, Marked) else type(value).__qualname__


def shown(hint: Any) -> str:
    """A hint as one writes it."""
    text = name_of(hint) if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\btyping\.|\bcollections\.abc\.", "", text)


def plain(value: Any) -> Any:
    """A value without marks: enums are their values, objects their fields."""
    if isinstance(value, Marked):
        return plain(value.content)
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is collections.deque:
        return collections.deque(map(plain, value), value.maxlen)
    if isinstance(value, dict):
        return of_kind(value, {_plain_key(key): plain(item) for key, item in value.items()})
    return type(value)(map(_plain_key, value)) if type(value) in (set, frozenset) else value


def of_kind(value: Any, found: dict[Any, Any]) -> Any:
    """What has been made of a dict, as the kind of dict that it was."""
    if isinstance(value, collections.defaultdict):
        return collections.defaultdict(value.default_factory, found)
    return type(value)(found) if isinstance(value, (collections.OrderedDict, collections.Counter)) else found


def _plain_key(key: Any) -> Any:
    found = plain(key)
    return tuple(found) if isinstance(found, list) else found


def same(one: Any, other: Any) -> bool:
    """Whether a conversion has changed nothing."""
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
    """What a value is for a hint that knows neither marks nor numpy: Python's own number."""
    if isinstance(value, Marked):
        value = plain(value)
    if not is_numpy_scalar(value):
        return value
    if isinstance(value, (str, bytes)):
        return str.__str__(value) if isinstance(value, str) else b"".join([value])
    return value.item() if value.dtype.kind in "biufc" else value


def is_numpy_scalar(value: Any) -> bool:
    """Whether a value is a scalar of numpy's, which is not imported for that."""
    return any(base.__module__ == "numpy" and base.__name__ == "generic" for base in type(value).__mro__)


def flat_union(hint: Any) -> list[Any]:
    """The members of a union; a hint that is none is the only one."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in get_args(hint) for member in flat_union(part)]
    return [hint]


def substitute(hint: Any, known: dict[Any, Any]) -> Any:
    """A hint with what its type variables stand for."""
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(known.get(each, each) for each in parameters)]


def variables_of(kind: type, args: Iterable[Any]) -> dict[Any, Any]:
    """What the type variables of a class, and of its bases, stand for."""
    known = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    for base in getattr(kind, "__orig_bases__", ()):
        if isinstance(origin := get_origin(base), type) and origin is not typing.Generic:
            known = {**variables_of(origin, [substitute(each, known) for each in get_args(base)]), **known}
    return known


def has_constraints(metadata: Iterable[Any]) -> bool:
    """Whether what a hint is annotated with bounds its values."""
    return any(
        isinstance(meta, msgspec.Meta) and any(getattr(meta, name) is not None for name in _CONSTRAINTS)
        for meta in metadata
    )
