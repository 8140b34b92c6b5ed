"""How each kind of hint is enforced."""

from __future__ import annotations

import collections
import collections.abc
import enum
import typing
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from bridge_py.wire.keys import check_hashes
from bridge_py.wire.registry import Marked

from . import objects
from .own import (
    Unenforceable,
    check_instance,
    check_known,
    convert,
    flat_union,
    has_constraints,
    is_own,
    name_of,
    of_kind,
    of_parts,
    own,
    plain,
    same,
    scalar,
    shown,
    type_of,
    union_of,
)

ALIAS: Final = getattr(typing, "TypeAliasType", None)
SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
LISTS: Final = (
    list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection, *SETS,
)  # fmt: skip
ITERABLES: Final = (collections.abc.Iterable, collections.abc.Reversible, collections.abc.Container)
DICTS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
KEPT: Final = (collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter)
WRAPPERS: Final = tuple(
    getattr(typing, name)
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
)


def enforced(hint: Any, *, special: bool) -> tuple[Any, bool]:
    """Translate a hint to terms of msgspec and `hook`; the second result says whether it makes sets of lists.

    With `special` the outcome is for values that hold `Marked` objects or numpy's scalars. Checking then takes longer.
    Raises `Unenforceable`.
    """
    builder = Builder(special)
    found = builder.of(hint)
    check_known(found, hint)
    return found, builder.makes_sets


class Builder:
    """Translates hints to terms of msgspec. Each class is translated once, so a class may refer to itself."""

    def __init__(self, special: bool) -> None:
        self.special = special
        #: Whether a hint, or a part of one, takes a list and makes a set of it.
        self.makes_sets = False
        self._made: dict[Any, Any] = {}

    def of(self, hint: Any) -> Any:
        """Translate a hint, or a part of one. Raises `Unenforceable`."""
        origin, args = get_origin(hint), get_args(hint)
        if hint is Any or hint is object:
            return own("Any", plain) if self.special else Any
        if hint is None or hint is type(None):
            return None
        if origin is Annotated:
            return self._annotated(args[0], args[1:])
        if origin in WRAPPERS:
            return self.of(args[0])
        if len(members := flat_union(hint)) > 1:
            return self._union(hint, members)
        if origin is Literal:
            return self._literal(args)
        if isinstance(hint, typing.TypeVar):
            return self._variable(hint)
        if isinstance(hint, typing.NewType):
            return self.of(hint.__supertype__)
        if ALIAS is not None and isinstance(hint if origin is None else origin, ALIAS):
            return self.of(hint.__value__ if origin is None else origin.__value__[args])
        return self._class(hint, origin or hint, args)

    def _annotated(self, hint: Any, metadata: tuple[Any, ...]) -> Any:
        if not has_constraints(metadata):
            return self.of(hint)
        found = self.of(hint)
        if not is_own(found):
            return of_parts(Annotated, [found, *metadata])
        # The converted value must also meet the constraints.
        origin = get_origin(hint)
        bare = origin if origin in (*LISTS, *DICTS, tuple) else Builder(False).of(hint)
        whole = of_parts(Annotated, [bare, *metadata])
        check_known(whole, of_parts(Annotated, [hint, *metadata]))
        return own("value", lambda value: convert(convert(value, found), whole))

    def _variable(self, hint: Any) -> Any:
        if hint.__constraints__:
            return self.of(union_of(hint.__constraints__))
        return self.of(Any if hint.__bound__ is None else hint.__bound__)

    def _literal(self, args: tuple[Any, ...]) -> Any:
        if not self.special and all(type(each) in (str, int, type(None)) for each in args):
            return of_parts(Literal, args)
        texts = " | ".join(map(repr, args))
        members = [
            (each, objects.enum_of(type(each)).convert if isinstance(each, enum.Enum) else None) for each in args
        ]

        def choose(value: Any) -> Any:
            for each, of_enum in members:
                if of_enum is None:
                    if same(scalar(value), each):
                        return each
                elif objects.fits(of_enum, value, each):
                    return each
            raise ValueError(f"Invalid value {plain(value)!r:.100}: give {texts}")

        return own("Literal", choose)

    def _union(self, hint: Any, members: list[Any]) -> Any:
        found = [self.of(member) for member in members]
        if Any in found:
            return Any
        others = [each for each in found if each is not None]
        if len(others) == 1 and None in found:
            return union_of(found)
        if not any(map(is_own, found)):
            native = union_of(found)
            try:
                check_known(native, hint)
                return native
            except Unenforceable:
                pass
        for each, member in zip(found, members, strict=True):
            check_known(each, member)
        return own("Union", lambda value: _choose(value, hint, found))

    def _class(self, hint: Any, kind: Any, args: tuple[Any, ...]) -> Any:
        if kind is getattr(typing, "LiteralString", None):
            return self.of(str)
        if not isinstance(kind, type):
            raise Unenforceable(f"`{shown(hint)}` is nothing that a value can be checked against")
        if (found := self._several(hint, kind, args)) is not None:
            return self._unmarked(found)
        if kind in KEPT:
            return objects.kept(kind, [self.of(each) for each in args] or [self.of(Any)] * 2)
        if issubclass(kind, enum.Enum):
            return objects.enum_of(kind)
        return self._object(kind, args) if objects.has_fields(kind) else self._other(hint, kind, args)

    def _several(self, hint: Any, kind: Any, args: tuple[Any, ...]) -> Any:
        """Translate a container that MessagePack knows; returns None for any other hint."""
        if kind is tuple:
            return self._tuple(args)
        if kind in LISTS:
            return self._container(hint, kind, args, 1)
        if kind in ITERABLES and args:
            return self._container(hint, list, args, 1)
        return self._container(hint, kind, args, 2) if kind in DICTS else None

    def _object(self, kind: Any, args: tuple[Any, ...]) -> Any:
        key = kind, args
        if key not in self._made:
            self._made[key] = made = own(kind.__qualname__, plain)
            made.convert = staticmethod(objects.converter_of(kind, args, self.of))
        return self._made[key]

    def _unmarked(self, found: Any) -> Any:
        """Let a hint of a dict or list also take an object, by its fields, and let a dict keep its kind."""
        if not self.special:
            return found

        def make(value: Any) -> Any:
            value = value.content if isinstance(value, Marked) else value
            made = convert(value, found)
            return of_kind(value, made) if type(made) is dict else made

        return own("container", make)

    def _tuple(self, args: tuple[Any, ...]) -> Any:
        if not args:
            return of_parts(tuple, [self.of(Any), ...]) if self.special else tuple
        if args == ((),):
            return tuple[()]
        return of_parts(tuple, [each if each is ... else self.of(each) for each in args])

    def _container(self, hint: Any, kind: Any, args: tuple[Any, ...], count: int) -> Any:
        self.makes_sets = self.makes_sets or kind in SETS
        if not args and not self.special:
            return hint
        parts = [self.of(each) for each in args or (Any,) * count]
        if count == 2 and not _is_known(parts[0]):
            for part in parts:
                check_known(part, hint)
            return objects.dict_of(*parts)
        if kind in SETS and is_own(parts[0]):
            return own("set", lambda value: _set_of(kind, convert(value, of_parts(list, parts))))
        return of_parts(kind, parts)

    def _other(self, hint: Any, kind: type, args: tuple[Any, ...]) -> Any:
        if name_of(kind) == "numpy.ndarray" and args:
            return objects.array_of(hint, args)
        if any(name_of(base) == "numpy.generic" for base in kind.__mro__):
            return objects.numpy_scalar_of(kind)
        # Functions, classes and iterators cannot be sent, so the parameters of their abstract classes need no check.
        if args and kind is not type and kind.__module__ != "collections.abc" and any(each is not Any for each in args):
            raise Unenforceable(
                f"`{shown(hint)}`: what a {kind.__qualname__} is made of cannot be checked: leave it out"
            )
        try:
            isinstance(None, kind)
        except TypeError as error:
            raise Unenforceable(f"`{shown(hint)}` cannot be checked: {error}") from None
        if _is_known(kind):
            return own(kind.__name__, lambda value: convert(scalar(value), kind)) if self.special else kind
        return own(kind.__qualname__, lambda value: check_instance(kind, value))


def _set_of(kind: Any, items: list[Any]) -> Any:
    """Make a set of converted items. Raises `DecodeError` if they were chosen to take long."""
    check_hashes(items, set)
    return frozenset(items) if kind is frozenset else set(items)


def _is_known(hint: Any) -> bool:
    """Whether msgspec itself converts to a hint."""
    return not is_own(hint) and type(msgspec.inspect.type_info(hint)) is not msgspec.inspect.CustomType


def _choose(value: Any, hint: Any, members: list[Any]) -> Any:
    fitting = []
    for member in members:
        try:
            found = convert(value, member)
        except Exception:  # noqa: S112 - the next member may fit
            continue
        if same(found, value) or (isinstance(value, Marked) and type(found).__qualname__ == value.kind):
            return found
        fitting.append(found)
    if not fitting:
        raise ValueError(f"Expected `{shown(hint)}`, got `{type_of(value)}`")
    if len(kinds := {type(each) for each in fitting if objects.has_fields(type(each))}) > 1:
        names = ", ".join(sorted(kind.__qualname__ for kind in kinds))
        raise ValueError(f"`{shown(hint)}`: it fits several, {names}: send an object of one of them")
    return next((found for found in fitting if type(found) is type(value)), fitting[0])
