"""Values that fit a type hint, and may be sent to a tool that has it."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, Final, get_args, get_origin

from hypothesis import strategies as st
from msgspec import inspect as info

from bridge_py.tools.hints import convert, enforced, objects, own
from bridge_py.wire import codec

from .sendable import Values, arrays, floats, paths, values

_STRANGERS: Final[tuple[Any, ...]] = (
    None,
    True,
    -7,
    2.5,
    "~",
    b"~",
    1j,
    [[]],
    {"~": [1j]},
    dt.timedelta(1),
    dt.date(1, 1, 1),
)


def fitting(hint: Any) -> Values:
    """Values that a parameter with this hint takes."""
    try:
        return _Fitting().of(info.type_info(hint))
    except TypeError:
        return _ours(hint)


def _ours(hint: Any) -> Values:
    """Values that fit a hint that msgspec does not know."""
    origin, args = get_origin(hint), get_args(hint)
    if len(members := own.flat_union(hint)) > 1:
        return st.one_of(list(map(fitting, members)))
    if origin is Annotated:
        return fitting(args[0])
    if origin in _GENERIC:
        return _GENERIC[origin](*(fitting(part) for part in args if part is not ...))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if isinstance(hint, type) and objects.has_fields(hint):
        return _object_of(hint)
    return st.from_type(hint)


def _later(hint: Any) -> Values:
    return st.deferred(lambda: fitting(hint))


def _object_of(kind: Any) -> Values:
    fields = [field for field in objects.fields_of(kind) if field.argument is not None]
    given = {str(field.argument): _later(field.hint) for field in fields}
    optional = {str(field.argument): given.pop(str(field.argument)) for field in fields if not field.required}
    return st.fixed_dictionaries(given, optional=optional).map(lambda found: kind(**found))


def not_fitting(hint: Any) -> list[Any]:
    """Some values that a parameter with this hint refuses; none if it takes all values."""
    return [stranger for stranger in _STRANGERS if not _fits(stranger, hint)]


def _fits(value: Any, hint: Any) -> bool:
    try:
        convert(codec.decode(codec.encode(value).body), enforced(hint, special=True)[0])
    except ValueError:
        return False
    return True


def _bounds(kind: Any) -> dict[str, Any]:
    return {"min_size": kind.min_length or 0, "max_size": kind.max_length}


def _integers(kind: info.IntType) -> Values:
    lows = [*([] if kind.ge is None else [kind.ge]), *([] if kind.gt is None else [kind.gt + 1])]
    highs = [*([] if kind.le is None else [kind.le]), *([] if kind.lt is None else [kind.lt - 1])]
    low, high = max(lows, default=None), min(highs, default=None)
    if (step := kind.multiple_of) is None:
        return st.integers(low, high)
    times = st.integers(None if low is None else -(-low // step), None if high is None else high // step)
    return times.map(lambda count: count * step)


def _floats(kind: info.FloatType) -> Values:
    low, high = kind.ge if kind.gt is None else kind.gt, kind.le if kind.lt is None else kind.lt
    if low is None and high is None:
        made = floats()
    else:
        made = st.floats(low, high, exclude_min=kind.gt is not None, exclude_max=kind.lt is not None)
    if (step := kind.multiple_of) is None:
        return made
    return made.filter(lambda value: value % step == 0)


def _texts(kind: info.StrType) -> Values:
    if kind.pattern is None:
        return st.text(**_bounds(kind))
    low, high = kind.min_length or 0, kind.max_length
    return st.from_regex(kind.pattern).filter(lambda text: low <= len(text) and (high is None or len(text) <= high))


def _zones(kind: Any) -> st.SearchStrategy[dt.tzinfo | None]:
    zones = st.timezones().filter(lambda zone: zone.utcoffset(None) is not None) | st.just(dt.UTC)
    return {None: st.none() | zones, True: zones, False: st.none()}[kind.tz]


_LEAVES: Final[dict[type, Callable[[Any], Values]]] = {
    info.AnyType: lambda _kind: values(max_leaves=3),
    info.NoneType: lambda _kind: st.none(),
    info.BoolType: lambda _kind: st.booleans(),
    info.IntType: _integers,
    info.FloatType: _floats,
    info.StrType: _texts,
    info.BytesType: lambda kind: st.binary(**_bounds(kind)),
    info.ByteArrayType: lambda kind: st.binary(**_bounds(kind)).map(bytearray),
    info.MemoryViewType: lambda kind: st.binary(**_bounds(kind)).map(memoryview),
    info.DateTimeType: lambda kind: st.datetimes(timezones=_zones(kind)),
    info.TimeType: lambda kind: st.times(timezones=_zones(kind)),
    info.DateType: lambda _kind: st.dates(),
    info.TimeDeltaType: lambda _kind: st.timedeltas(),
    info.UUIDType: lambda _kind: st.uuids(),
    info.DecimalType: lambda _kind: st.decimals(),
    info.EnumType: lambda kind: st.sampled_from(kind.cls),
    info.LiteralType: lambda kind: st.sampled_from(kind.values),
    info.CustomType: lambda kind: _custom(kind.cls),
}
_COLLECTIONS: Final[dict[type, Callable[..., Values]]] = {
    info.ListType: st.lists,
    info.CollectionType: st.lists,
    info.VarTupleType: lambda items, **bounds: st.lists(items, **bounds).map(tuple),
    info.SetType: st.sets,
    info.FrozenSetType: st.frozensets,
}


_GENERIC: Final[dict[Any, Callable[..., Values]]] = {
    list: st.lists,
    set: st.sets,
    frozenset: st.frozensets,
    dict: st.dictionaries,
    tuple: st.tuples,
}


def _custom(kind: Any) -> Values:
    kind = get_origin(kind) or kind
    if kind is object:
        return values(max_leaves=3)
    if inspect.isclass(kind) and issubclass(pathlib.Path, kind) and issubclass(kind, pathlib.PurePath):
        return paths()
    if (kind.__module__, kind.__qualname__) == ("numpy", "ndarray"):
        return arrays()
    return st.from_type(kind)


class _Fitting:
    """Strategies for one hint. The classes in the hint may refer to themselves."""

    def __init__(self) -> None:
        self._known: dict[type, Values] = {}

    def of(self, kind: Any) -> Values:
        """Values that fit one part of the hint."""
        if (leaf := _LEAVES.get(type(kind))) is not None:
            return leaf(kind)
        if (collection := _COLLECTIONS.get(type(kind))) is not None:
            return collection(self.of(kind.item_type), **_bounds(kind))
        if isinstance(kind, info.Metadata):
            return self.of(kind.type)
        if isinstance(kind, info.UnionType):
            return st.one_of([self.of(part) for part in kind.types])
        if isinstance(kind, info.TupleType):
            return st.tuples(*map(self.of, kind.item_types))
        if isinstance(kind, info.DictType):
            return st.dictionaries(self.of(kind.key_type), self.of(kind.value_type), **_bounds(kind))
        return self._object(kind)

    def _object(self, kind: Any) -> Values:
        """An object with fields: a TypedDict, a named tuple, a dataclass, an attrs class or a Struct."""
        made = self._known.get(kind.cls)
        if made is None:
            made = self._known[kind.cls] = st.deferred(lambda: self._fields(kind))
        return made

    def _fields(self, kind: Any) -> Values:
        given = {field.name: self.of(field.type) for field in kind.fields if field.required}
        optional = {field.name: self.of(field.type) for field in kind.fields if not field.required}
        fields = st.fixed_dictionaries(given, optional=optional)
        return fields if isinstance(kind, info.TypedDictType) else fields.map(lambda found: kind.cls(**found))
