"""Copies of values. A copy and its original share no part that can change."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import pathlib
import sys
import uuid
from typing import Any, Final

import msgspec

from . import codec
from .errors import EncodeError
from .registry import fields_of, has_codec

#: Types whose values cannot change.
LEAVES: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_UNCHANGING: Final = (
    *(int, float, complex, str, bytes, enum.Enum),
    *(dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, pathlib.PurePath),
)


def own(value: Any, what: str = "value") -> Any:
    """Copy a value that can be sent, nested to any depth. Parts that cannot change are not copied.

    Containers, dataclasses, attrs objects and msgspec Structs keep their types. All other parts become what they would
    be after sending: arrays are read-only, and nobody can make them writable. Raises `EncodeError`, which calls the
    value `what`, if it cannot be sent.
    """
    try:
        return _own(value)
    except (EncodeError, RecursionError):
        codec.encode(value, what)  # its error says which part it is
        raise


def _own(value: Any) -> Any:
    kind = type(value)
    if kind in LEAVES:
        return value
    if kind is list:
        return list(value) if LEAVES.issuperset(map(type, value)) else [_own(item) for item in value]
    if kind is dict:
        if LEAVES.issuperset(map(type, value.values())) and LEAVES.issuperset(map(type, value)):
            return dict(value)
        return {_own(key): _own(item) for key, item in value.items()}
    if kind is tuple or kind is set or kind is frozenset:
        return kind(map(_own, value))
    if has_codec(kind):
        return _sent(value)
    if isinstance(value, _UNCHANGING) or _is_unchanging_array(value):
        return value
    return _own_object(value)


def _own_object(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple.__new__(type(value), map(_own, value))
    if isinstance(value, (list, dict)):
        found = copy.copy(value)
        # The base's method, because the class's own may refuse changes.
        put: Any = dict.__setitem__ if isinstance(value, dict) else list.__setitem__
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            put(found, key, _own(item))
        return found
    if isinstance(value, (set, frozenset, bytearray)):
        return copy.copy(value)
    fields = fields_of(type(value))
    return _sent(value) if fields is None else _own_fields(value, [attribute for _, attribute in fields])


def _own_fields(value: Any, attributes: list[str]) -> Any:
    found = copy.copy(value)
    # These functions write to frozen objects too.
    put = msgspec.structs.force_setattr if isinstance(value, msgspec.Struct) else object.__setattr__
    for name in attributes:
        if hasattr(value, name):
            put(found, name, _own(getattr(value, name)))
    return found


def _sent(value: Any) -> Any:
    """Return a value as it would arrive after sending."""
    encoded = codec.encode(value)
    area = b"".join(encoded.buffers)
    codec.let_go(encoded.buffers)
    return codec.decode(encoded.body, area)


def _is_unchanging_array(value: Any) -> bool:
    """Whether a value is a scalar of numpy's, or an array in memory that nobody can write to."""
    np = sys.modules.get("numpy")
    if np is None:
        return False
    if isinstance(value, np.generic):
        return not isinstance(value, np.void)
    while type(value) is np.ndarray:
        if value.flags.writeable:
            return False
        value = value.base
    return type(value.obj if isinstance(value, memoryview) else value) is bytes
