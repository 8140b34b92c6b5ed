"""The outer form of an Arrow IPC stream, checked before a library reads it.

A library that believes a message's sizes asks for that much memory. For polars a size that cannot be had is the end of
the process, which no `except` prevents. So each message must be whole, its buffers must lie inside its body, and
nothing is compressed: compressed buffers only state how large they are.

Format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc. Metadata
are flatbuffers: https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from typing import Any, Final

_CONTINUATION: Final = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_PAIR: Final = struct.Struct("<qq")  # a buffer's offset and length, or a column's length and count of nulls


def check_messages(stream: bytes | memoryview) -> None:
    """Raise `ValueError` unless the messages of a stream are whole and hold all that they announce."""
    data, at = memoryview(stream), 0
    while at < len(data):
        if _number(data, at, 4) != _CONTINUATION:
            raise ValueError("it is no Arrow stream")
        size = _number(data, at + 4, 4)
        at += 8
        if size == 0:
            return
        message = _Table(_part(data, at, size), _number(data, at, 4))
        at += size
        body = message.number(3, 8)
        _part(data, at, body)
        at += body
        _check_message(message, body)


def _check_message(message: _Table, body: int) -> None:
    kind = message.number(1, 1)
    if kind == _SCHEMA:
        return
    if kind not in (_DICTIONARY, _BATCH):
        raise ValueError(f"a message of kind {kind} in an Arrow stream")
    header = message.table(2)
    batch = header.table(1) if kind == _DICTIONARY else header
    if batch.has(3):
        raise ValueError("an Arrow stream with compressed buffers")
    for length, nulls in batch.pairs(1):
        if not 0 <= nulls <= length:
            raise ValueError(f"a column with {nulls} nulls among {length} items")
    for offset, length in batch.pairs(2):
        if not 0 <= offset <= offset + length <= body or length < 0:
            raise ValueError(f"bytes {offset} to {offset + length} of a body of {body}")


class _Table:
    """A table of a flatbuffer. Raises `ValueError` for places outside of the buffer."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - _number(data, at, 4, signed=True)
        self._size = _number(data, self._fields, 2)

    def has(self, index: int) -> bool:
        """Whether the table has a field."""
        return self._place(index) is not None

    def number(self, index: int, size: int) -> int:
        """A field that is a number of `size` bytes; 0 if the field is missing."""
        place = self._place(index)
        return 0 if place is None else _number(self._data, place, size, signed=size == 8)

    def table(self, index: int) -> _Table:
        """A field that is another table."""
        return _Table(self._data, self._target(index))

    def pairs(self, index: int) -> Any:
        """Iterate over a field that is a vector of pairs of numbers; it is empty if the field is missing."""
        if not self.has(index):
            return ()
        at = self._target(index)
        return _PAIR.iter_unpack(_part(self._data, at + 4, _PAIR.size * _number(self._data, at, 4)))

    def _target(self, index: int) -> int:
        place = self._place(index)
        if place is None:
            raise ValueError("a message of an Arrow stream lacks a part")
        return place + _number(self._data, place, 4)

    def _place(self, index: int) -> int | None:
        entry = 4 + 2 * index
        if entry + 2 > self._size:
            return None
        offset = _number(self._data, self._fields + entry, 2)
        return self._at + offset if offset else None


def _number(data: memoryview, at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(_part(data, at, size), "little", signed=signed)


def _part(data: memoryview, at: int, size: int) -> memoryview:
    if not (at >= 0 and 0 <= size <= len(data) - at):
        raise ValueError("a message of an Arrow stream is cut off")
    return data[at : at + size]
