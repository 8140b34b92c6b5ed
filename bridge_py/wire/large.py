"""Large messages, read piece by piece.

msgspec reads a message in one go, and no other thread runs Python meanwhile. So arrays and maps that are larger than a
piece are read here, and msgspec gets pieces: some of their items, in 64 KiB at the most. Between two pieces other
threads have their turns, and `between_pieces` is called, which may raise to end the reading.

Keys of large maps are checked as they come: see `keys` for what they could do.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from .errors import DecodeError
from .keys import EXTENSIONS, FORMS, CheckedDict, read_at_once

#: A message of more bytes is read piece by piece.
LARGE: Final = 128 * 1024
_PIECE: Final = 64 * 1024
_MOST_LEVELS: Final = 200
_GROWTH: Final = 8
_TEXT_PIECES: Final = 16  # are read at once of a text, which is quick
_TEXTS: Final = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB})
_TIMESTAMP: Final = 0xFF  # the code of the extension that msgspec reads itself
_HEAD: Final = 5  # bytes of an array's head
#: What msgspec says of bytes that begin with a value and do not end with it. Without that, items are read one by one.
_REST: Final = re.compile(r"trailing characters \(byte (\d+)\)")

_skip = msgspec.msgpack.Decoder(msgspec.Raw).decode


def _go_on() -> None:
    pass


#: Called between two pieces, by the thread that reads them.
between_pieces: ContextVar[Callable[[], None]] = ContextVar("between_pieces", default=_go_on)


def read_large(data: bytes | memoryview, extension: Callable[[int, memoryview], Any], piece: int = _PIECE) -> Any:
    """Read a message, as msgspec does, with `extension` for its extensions. `piece` is the size of a piece in bytes.

    Raises the errors of msgspec and of `extension`, and `DecodeError` for keys that would take endless time.
    """
    reader = _Reader(data, extension, piece)
    value = reader.large(0)
    if reader.at != len(data):
        raise DecodeError(f"the value ends at byte {reader.at} of {len(data)}")
    return value


class _Reader:
    """Reads one message, from its beginning to its end."""

    def __init__(self, data: bytes | memoryview, extension: Callable[[int, memoryview], Any], piece: int) -> None:
        self.at = 0
        self._data = memoryview(data)
        self._extension = extension
        self._piece = piece
        self._pause = between_pieces.get()

    def large(self, level: int) -> Any:
        """Read the next value, whatever its size."""
        data, begin = self._data, self.at
        if begin >= len(data) or level > _MOST_LEVELS:
            raise DecodeError("it ends too early" if begin >= len(data) else f"more than {_MOST_LEVELS} levels")
        lead = data[begin]
        size, count, values = FORMS[lead]
        self.at = begin + 1 + size
        count += int.from_bytes(data[begin + 1 : self.at], "big")
        if values == 1:
            return self._list(count, level + 1)
        if values:
            return self._dict(count, level + 1)
        end = self.at + count
        if end > len(data):
            raise DecodeError("it ends too early")
        content, self.at = data[self.at : end], end
        if lead in EXTENSIONS and content[0] != _TIMESTAMP:
            return self._extension(int.from_bytes(content[:1], "big", signed=True), content[1:])
        if lead in _TEXTS and count > self._piece:
            return self._text(content)
        return msgspec.msgpack.decode(data[begin:end], ext_hook=self._extension)

    def _list(self, count: int, level: int) -> list[Any]:
        found: list[Any] = []
        for piece in self._pieces(count, level):
            found += piece
        return found

    def _dict(self, count: int, level: int) -> dict[Any, Any]:
        found = CheckedDict()
        left: list[Any] = []  # a key whose value has not come yet
        for piece in self._pieces(2 * count, level):
            left += piece
            even = len(left) & ~1
            found.add(left[0:even:2], left[1:even:2])
            left = left[even:]
        return found.made

    def _text(self, content: memoryview) -> str:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        parts = []
        size = _TEXT_PIECES * self._piece
        for at in range(0, len(content), size):
            parts.append(decode(content[at : at + size], at + size >= len(content)))
            self._pause()
        return "".join(parts)

    def _pieces(self, left: int, level: int) -> Iterator[list[Any]]:
        """The next values, in lists."""
        many = 1
        while left:
            self._pause()
            many = min(many, left)
            end = self._end_of(many)
            if end is not None:
                begin, self.at = self.at, end
                yield self._read(many, begin)
                left -= many
                fit = many * self._piece * 3 // (4 * (end - begin))
                many = max(1, min(many * _GROWTH, fit))
            elif many > 1:
                many = max(1, many // _GROWTH)
            else:
                yield [self.large(level)]
                left -= 1

    def _end_of(self, many: int) -> int | None:
        """Where the next `many` values end; None if they do not fit into a piece."""
        piece = self._data[self.at : self.at + self._piece]
        try:
            _skip(_array(many, piece))
        except (msgspec.DecodeError, RecursionError) as error:
            found = _REST.search(str(error))
            return self.at + int(found[1]) - _HEAD if found else None
        return self.at + len(piece)

    def _read(self, many: int, begin: int) -> list[Any]:
        found: list[Any] = read_at_once(_array(many, self._data[begin : self.at]), self._extension)
        return found


def _array(count: int, items: memoryview) -> bytes:
    return b"".join((b"\xdd", count.to_bytes(4, "big"), items))
