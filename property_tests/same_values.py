"""What a value arrives as by docs/values.md, and whether one is that."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa


def form(value: Any, *, is_key: bool = False) -> Any:
    """What arrives where no hint names a class."""
    if isinstance(value, enum.Enum):
        return form(value.value, is_key=is_key)
    if (fields := _fields(value)) is not None:
        return form(fields)
    if isinstance(value, tuple):
        return (tuple if is_key else list)(form(item, is_key=is_key) for item in value)
    if type(value) in (list, collections.deque):
        items = [form(item) for item in value]
        return items if type(value) is list else collections.deque(items, value.maxlen)
    if type(value) in (set, frozenset):
        return type(value)(form(item, is_key=True) for item in value)
    if isinstance(value, dict):
        items = [(form(key, is_key=True), form(item)) for key, item in value.items()]
        kind: Any = type(value)
        first = [getattr(value, "default_factory", None)] if kind is collections.defaultdict else []
        return kind(*first, dict(items))
    return value


def _fields(value: Any) -> dict[str, Any] | None:
    if isinstance(value, type):
        return None
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        tag = {} if (config := value.__struct_config__).tag is None else {config.tag_field: config.tag}
        return tag | {name: getattr(value, attribute) for name, attribute in names}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    return None


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, in value and in type, throughout; NaN is NaN, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, enum.Enum):
        return one is other
    if (fields := _fields(one)) is not None:
        return same(fields, _fields(other))
    if isinstance(one, (list, tuple, collections.deque)):
        return _same_items(one, other) and getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
    if isinstance(one, dict):
        factories = getattr(one, "default_factory", None), getattr(other, "default_factory", None)
        return factories[0] is factories[1] and _same_items(one, other) and _same_items(one.values(), other.values())
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(item, each) for each in other) for item in one)
    return _same_leaves(one, other)


def _same_items(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(map(same, list(one), list(other)))


def _same_leaves(one: Any, other: Any) -> bool:
    for kind, compare in _COMPARED.items():
        if isinstance(one, kind):
            return compare(one, other)
    if isinstance(one, decimal.Decimal):
        return repr(one) == repr(other)  # a signalling NaN cannot even be compared
    return repr(one) == repr(other) and (one is other or bool(one == other) or bool(one != one))


def _same_frames(one: Any, other: Any) -> bool:
    columns = one.shape == other.shape and all(
        _same_series(one.iloc[:, at], other.iloc[:, at]) for at in range(one.shape[1])
    )
    return columns and _same_index(one.columns, other.columns) and _same_about(one, other)


def _same_arrays(one: Any, other: Any) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _same_polars(one: Any, other: Any) -> bool:
    kind = "schema" if isinstance(one, pl.DataFrame) else "dtype"
    names = getattr(one, "name", None) == getattr(other, "name", None)
    return bool(names and getattr(one, kind) == getattr(other, kind) and one.shape == other.shape and one.equals(other))


def _same_views(one: Any, other: Any) -> bool:
    return (one.format, one.shape, one.tobytes()) == (other.format, other.shape, other.tobytes())


def _same_moments(one: Any, other: Any) -> bool:
    if one is pd.NaT:
        return other is pd.NaT
    units = getattr(one, "unit", None) == getattr(other, "unit", None)
    zones = type(one.tzinfo) is type(other.tzinfo) and repr(one.tzinfo) == repr(other.tzinfo)
    return units and zones and one.fold == other.fold and one.replace(tzinfo=None) == other.replace(tzinfo=None)


def _same_arrow(one: Any, other: Any) -> bool:
    if _is_valid(one):
        other.validate(full=True)
    return same(one.to_pylist(), other.to_pylist())


def _is_valid(value: Any) -> bool:
    try:
        value.validate(full=True)
    except pa.ArrowInvalid:  # pyarrow makes such ones of nulls
        return False
    return True


def _same_series(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and _same_index(one.index, other.index) and _same_column(one.array, other.array)


def _same_column(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one.dtype != other.dtype or len(one) != len(other):
        return False
    if one.dtype == "category":
        kinds = one.categories, other.categories
        return one.ordered == other.ordered and _same_index(*kinds) and list(one.codes) == list(other.codes)
    return str(one.dtype) == str(other.dtype) and all(map(same, list(one), list(other)))


def _same_index(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or not _same_items(list(one.names), list(other.names)):
        return False
    if isinstance(one, pd.MultiIndex):
        levels = all(map(_same_index, one.levels, other.levels))
        return levels and all(list(a) == list(b) for a, b in zip(one.codes, other.codes, strict=True))
    if getattr(one, "freq", None) != getattr(other, "freq", None):
        return False
    return one.dtype == other.dtype and _same_column(one.array, other.array)


def _same_about(one: Any, other: Any) -> bool:
    flags = one.flags.allows_duplicate_labels == other.flags.allows_duplicate_labels
    return flags and same(form(one.attrs), other.attrs)


_COMPARED: Final[dict[Any, Callable[[Any, Any], bool]]] = {
    pd.DataFrame: _same_frames,
    pd.Series: lambda one, other: _same_series(one, other) and same(one.name, other.name) and _same_about(one, other),
    pd.Index: _same_index,
    pd.api.extensions.ExtensionArray: _same_column,
    np.ndarray: _same_arrays,
    (pl.DataFrame, pl.Series): _same_polars,
    (pa.Table, pa.RecordBatch): lambda one, other: one.schema.equals(other.schema, True) and _same_arrow(one, other),
    (pa.Array, pa.ChunkedArray): lambda one, other: one.type.equals(other.type) and _same_arrow(one, other),
    (dt.datetime, dt.time): _same_moments,
    memoryview: _same_views,
}
