"""Reads the extensions of messages; `codec` has the table of them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .errors import CodecError, DecodeError
from .keys import SMALL, SMALL_PART, check_maps
from .large import LARGE, read_large
from .registry import Marked, decoder_of, is_panic

AREA: Final = 13
UNREADABLE: Final = 25
PICKLE: Final = 33


class ValueDecoder:
    """Reads the extensions of one message."""

    #: Whether a part has come that plain hints do not take.
    is_special = False
    #: The keys in a part of so many bytes need no check.
    small = SMALL
    #: Whether it has read a pickle.
    has_unpickled = False

    def __init__(
        self,
        area: bytes | memoryview,
        plain: bool = False,
        marks: bool = False,
        trusted: bool = False,
        unpickle: Callable[[bytes | memoryview], Any] | None = None,
    ) -> None:
        self._area = memoryview(area)
        if area:
            self.small = SMALL_PART
        self._unpickle = unpickle
        self._trusted = trusted
        self.is_plain = plain
        self._marks = marks

    def decode_extension(self, code: int, payload: memoryview) -> Any:
        if code == AREA:
            offset, size = msgspec.msgpack.decode(payload, type=tuple[int, int])
            if not 0 <= offset <= offset + size <= len(self._area):
                raise DecodeError(f"bytes {offset} to {offset + size} of an area of {len(self._area)}")
            return self._area[offset : offset + size]
        if code == UNREADABLE:
            raise DecodeError(str(payload, "utf-8"))
        if code == PICKLE:
            return self._read_pickle(payload)
        try:
            return decoder_of(code)(self, payload)
        except BaseException as error:
            if not is_panic(error):
                raise
            raise ValueError(f"a library panicked: {error}") from None  # noqa: ASYNC104 - there is no trio here

    def _read_pickle(self, payload: memoryview) -> Any:
        if self._unpickle is None:
            raise CodecError("a pickle has come, and this side takes none")
        data = self.value(payload)
        if not isinstance(data, (bytes, memoryview)):
            raise DecodeError(f"a {type(data).__name__} in place of a pickle")
        self.has_unpickled = True
        return self._unpickle(data)

    def own(self, data: bytes | memoryview) -> bytes | memoryview:
        """Return a buffer that nobody can change any more: a copy, if the sender still can."""
        # bytes(n) would make n zeros.
        if not isinstance(data, (bytes, memoryview)):
            raise TypeError(f"a {type(data).__name__} in place of bytes")
        # An area that came over the link is in memory of this process alone.
        is_own = self._trusted or type(self._area.obj) in (bytes, mmap.mmap)
        return data if is_own else bytes(data)

    def value(self, payload: memoryview) -> Any:
        """Decode the value that is an extension's payload."""
        if len(payload) > LARGE:
            return read_large(payload, self.decode_extension)
        if len(payload) > self.small:
            check_maps(payload)
        return msgspec.msgpack.decode(payload, ext_hook=self.decode_extension)

    def whole(self, payload: memoryview) -> Any:
        """Decode the value that is an extension's payload, without marks, for code that knows no marks."""
        marks, self._marks = self._marks, False
        try:
            return self.value(payload)
        finally:
            self._marks = marks

    def marked(self, kind: str, member: str | None, content: Any) -> Any:
        """Return an enum, or an object with fields: `Marked`, or only its content if the receiver has no hints."""
        if not self._marks:
            return content
        self.is_special = True
        return Marked(kind, member, content)

    def scalar(self, value: Any) -> Any:
        """Return a scalar of numpy's, or Python's number for it if `plain` was given."""
        self.is_special = True
        return value.item() if self.is_plain and value.dtype.kind in "biufc" and value.dtype.char not in "gG" else value
