"""Finds the part of a message that cannot be decoded, for the error that tells of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from .keys import check_maps
from .registry import name_of, parts_of

DecodeExtension = Callable[[int, memoryview], Any]
_LOOK_DOWN: Final = 16  # extensions, one inside the other
_LISTS: Final = (2, 3, 24)
_PAIRS: Final = 4
_MARKED: Final = 23


def find_broken(raw: Any, decode: DecodeExtension, error: Exception) -> tuple[str, str, Exception]:
    """Find the extension that cannot be decoded, in a value whose extensions are not decoded yet.

    Returns its path, the name of its type, and the error; an empty name if there is no such extension.
    """
    return _find(raw, decode, "", "", error, _LOOK_DOWN)


def _find(
    raw: Any, decode: DecodeExtension, path: str, what: str, error: Exception, levels: int
) -> tuple[str, str, Exception]:
    if isinstance(raw, msgspec.msgpack.Ext):
        try:
            decode(raw.code, memoryview(raw.data))
            return "", "", error
        except Exception as cause:
            what, error = name_of(raw.code), cause
        raw, named = _content_of(raw)
        what, levels = named or what, levels - 1
        if not levels:
            return path, what, error
    for label, part in parts_of(raw):
        found = _find(part, decode, path + label, "", error, levels)
        if found[1]:
            return found
    return path, what, error


def _content_of(extension: Any) -> tuple[Any, str]:
    """Return the parts of the value that an extension consists of, and the name of its class; None and "" for none."""
    try:
        check_maps(extension.data)
        raw = msgspec.msgpack.decode(extension.data)
        if extension.code in _LISTS:
            return raw, ""
        if extension.code == _PAIRS:
            return {str(key): value for key, value in raw}, ""
        if extension.code == _MARKED:
            return raw[2], str(raw[0])
    except Exception:  # noqa: S110 - the extension itself is broken
        pass
    return None, ""
