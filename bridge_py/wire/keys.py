"""Keys of dicts and items of sets that would take endless time: refused before a dict or a set is made of them.

Python compares a key with all others of its hash, and walks past all places of its table that are taken. The hashes of
texts and bytes are secret. Those of numbers and tuples are not: a sender can choose 90,000 ints that differ in their
hashes and still lead past each other, which took 14 s. Tuples may even have one hash.

msgspec makes the dicts of MessagePack's own maps itself, so `check_maps` looks at their keys before msgspec does. It
reads them in Python, which takes several times as long as msgspec. So msgspec tries first whether there is a need: with
types that have only texts as keys, or only small maps. A map that is read piece by piece becomes a `CheckedDict`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, Final

import msgspec

from .errors import DecodeError

#: The keys in so many bytes cost some milliseconds at the most.
SMALL: Final = 8 * 1024
#: The same for a part of a large message, which may have many of them.
SMALL_PART: Final = 512
_FEW: Final = 64
_TYPED_LEVELS: Final = 8
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
_MOST_LEVELS: Final = 1_000
_GRACE: Final = 0.002  # seconds
_TIME_OF_A_KEY: Final = 0.000_001  # seconds; ten times what a key takes that was not chosen to take long


def hashable(key: Any) -> Any:
    """Turn the lists in a key back into tuples: MessagePack makes lists of tuples."""
    return tuple(map(hashable, key)) if type(key) is list else key


def check_hashes(keys: list[Any], kind: type = dict) -> None:
    """Raise `DecodeError` if a dict or a set (`kind`) of these keys would take far longer than others of its size."""
    if len(keys) <= _FEW:
        return
    began = time.thread_time()
    hashes = sorted(map(hash, keys))  # neither a set nor a dict: hashes may have been chosen too
    if any(map(operator.eq, hashes, islice(hashes, _FEW, None))):
        raise DecodeError(f"more than {_FEW} keys have the same hash")
    # A class of the user's own may take long to hash, which is no fault of the sender.
    grace = _GRACE + 4 * (time.thread_time() - began)
    # The second try is for a thread that was held up by something else.
    if _takes_long(keys, kind, grace) and _takes_long(keys, kind, grace):
        raise _chosen(len(keys))


def check_maps(body: bytes | memoryview) -> None:
    """Raise `DecodeError` if `check_hashes` refuses the keys of a map in a message, or if many are no plain values.

    The message may be broken: its keys count as far as they can be read. Maps inside extensions do not count.
    """
    data = bytes(body)
    if (
        not may_have_large_maps(data)
        or _is_read_by(_decoder_of_texts, data)
        or _is_read_by(_decoder_of_small_maps, data)
    ):
        return
    for keys in _large_maps(data):
        _check_odd(sum(not key for key in keys))
        if sum(key[:1] not in _SECRET for key in keys) > _FEW:
            check_hashes(_decoded(keys))


def may_have_large_maps(data: bytes) -> bool:
    """Whether the first byte of a map of more than 15 keys is anywhere in a message."""
    return b"\xde" in data or b"\xdf" in data


def read_at_once(data: bytes, extension: Callable[[int, memoryview], Any]) -> Any:
    """Read a message in one go, with `extension` for its extensions, after `check_maps`. Raises errors of msgspec's."""
    if may_have_large_maps(data):
        # If all keys are texts, or all maps small, no check is needed. Both fail for bytes and extensions too.
        for decoder in (_decoder_of_texts, _decoder_of_small_maps):
            with contextlib.suppress(ValueError, RecursionError):
                return decoder(False).decode(data)
        check_maps(data)
    return msgspec.msgpack.decode(data, ext_hook=extension)


class CheckedDict:
    """A dict that is made bit by bit, and refused as soon as its keys have taken far longer than others of its size."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}
        self._odd = self._done = 0
        self._spent = 0.0

    def add(self, keys: list[Any], values: list[Any]) -> None:
        """Add keys of a map and their values. Raises `DecodeError`, and `TypeError` for a key that has no hash."""
        kinds = set(map(type, keys))
        if kinds <= _SECRET_KINDS:
            self.made.update(zip(keys, values, strict=True))
            return
        if kinds != {int} or min(keys) < _LEAST or max(keys) > _MOST:
            self._odd += sum(not _is_plain(key) for key in keys)
            _check_odd(self._odd)
            keys = list(map(hashable, keys))
        for at in range(0, len(keys), _FEW):
            self._add_some(keys[at : at + _FEW], values[at : at + _FEW])

    def _add_some(self, keys: list[Any], values: list[Any]) -> None:
        began = time.thread_time()
        self.made.update(zip(keys, values, strict=True))
        self._spent += time.thread_time() - began
        self._done += _FEW
        if self._spent > _GRACE + self._done * _TIME_OF_A_KEY:
            # The second and third try are for a thread that was held up by something else.
            every = list(self.made)
            if _takes_long(every, dict, _GRACE) and _takes_long(every, dict, _GRACE):
                raise _chosen(len(every))
            self._spent = 0.0


def _is_plain(key: Any) -> bool:
    return _LEAST <= key <= _MOST if type(key) is int else type(key) in _PLAIN_KINDS


def _check_odd(count: int) -> None:
    if count > _FEW:
        raise DecodeError(f"a map has more than {_FEW} keys that are arrays or extensions")


def _chosen(count: int) -> DecodeError:
    return DecodeError(f"{count} keys were chosen to take long: their hashes lead past each other")


def _takes_long(keys: list[Any], kind: type, grace: float) -> bool:
    """Whether the keys take longer than they may, added one by one, as they would be for the real dict or set."""
    found: Any = kind()
    add = found.add if kind is set else found.setdefault
    left, began = iter(keys), time.thread_time()
    for done in range(0, len(keys), _FEW):
        deque(map(add, islice(left, _FEW)), 0)
        if time.thread_time() - began > grace + done * _TIME_OF_A_KEY:
            return True
    return False


@functools.cache
def _decoder_of_texts(has_extensions: bool) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of messages that have only texts as keys."""
    return _decoder(str, msgspec.Meta(), has_extensions)


@functools.cache
def _decoder_of_small_maps(has_extensions: bool) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of messages that have only small maps. It looks at a map's size before it makes a dict of it."""
    return _decoder(int | float | str | bool | None, msgspec.Meta(max_length=_FEW), has_extensions)


def _decoder(key: Any, bounds: msgspec.Meta, has_extensions: bool) -> msgspec.msgpack.Decoder[Any]:
    # msgspec knows no recursive types, and takes no union of text and bytes.
    leaf: Any = int | float | str | bool | None
    leaf = leaf | msgspec.msgpack.Ext if has_extensions else leaf
    shape: Any = leaf
    for _ in range(_TYPED_LEVELS):
        shape = leaf | list[shape] | Annotated[dict[key, shape], bounds]
    return msgspec.msgpack.Decoder(shape)


def _is_read_by(decoder: Callable[[bool], msgspec.msgpack.Decoder[Any]], data: bytes) -> bool:
    """Whether a decoder reads a message. False also for a message that has bytes, or too many levels."""
    try:
        decoder(True).decode(data)
    except (ValueError, RecursionError):  # errors of msgspec's are ValueErrors
        return False
    return True


def _forms() -> list[tuple[int, int, int]]:
    """What each first byte of a value announces: bytes of its length, a number to add, and values for each of these."""
    forms = [(0, 0, 0)] * 256
    for first, form in ((0x80, 2), (0x90, 1)):
        forms[first : first + 16] = [(0, count, form) for count in range(16)]
    forms[0xA0:0xC0] = [(0, size, 0) for size in range(32)]
    forms[0xC4:0xC7] = forms[0xD9:0xDC] = [(1, 0, 0), (2, 0, 0), (4, 0, 0)]
    forms[0xC7:0xCA] = [(1, 1, 0), (2, 1, 0), (4, 1, 0)]
    forms[0xCA:0xD4] = [(0, size, 0) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]
    forms[0xD4:0xD9] = [(0, size, 0) for size in (2, 3, 5, 9, 17)]
    forms[0xDC:0xE0] = [(2, 0, 1), (4, 0, 1), (2, 0, 2), (4, 0, 2)]
    return forms


#: What the first byte of a value says of the rest.
FORMS: Final = _forms()
#: The size of each value that is small and always has the same size, by its first byte; else 0.
_FIXED: Final = [
    0 if size or values or 0xC6 < lead < 0xCA or 0xD3 < lead < 0xD9 else count + 1
    for lead, (size, count, values) in enumerate(FORMS)
]
#: The first bytes of extensions.
EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})
_SECRET_KINDS: Final = frozenset({type(None), str, bytes})
_PLAIN_KINDS: Final = _SECRET_KINDS | {bool, int, float}
#: The first bytes of nil, texts and bytes.
_SECRET: Final = frozenset(bytes((lead,)) for lead in (*range(0xA0, 0xC1), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))


def _large_maps(data: bytes) -> list[list[bytes]]:
    """The encoded keys of each large map, also of one that is cut off. Keys that are no plain values are empty.

    Raises `DecodeError` for a message of so many levels that msgspec could not read it.
    """
    found: list[list[bytes]] = []
    outer: list[tuple[int, list[bytes] | None]] = []
    left, keys = 1, None  # of the innermost array or map: values to come, and the keys if it is a large map
    at, end = 0, len(data)
    while at < end:
        while not left and outer:
            left, keys = outer.pop()
        left -= 1
        into = keys if left & 1 else None  # behind a key, an odd number of values is to come
        lead = data[at]
        if stop := _FIXED[lead]:
            if into is not None:
                into.append(data[at : at + stop])
            at += stop
            continue
        size, count, values = FORMS[lead]
        begin, at = at, at + 1 + size
        count += int.from_bytes(data[begin + 1 : at], "big")
        if not values:
            at += count
            if into is not None:
                into.append(b"" if lead in EXTENSIONS else data[begin:at])
            continue
        if into is not None:
            into.append(b"")
        outer.append((left, keys))
        if len(outer) > _MOST_LEVELS:
            raise DecodeError(f"it is nested deeper than {_MOST_LEVELS} levels")
        left, keys = count * values, None
        if values == 2 and count > _FEW:
            keys = []
            found.append(keys)
    return found


def _decoded(keys: list[bytes]) -> list[Any]:
    keys = list(filter(None, keys))
    try:
        many: list[Any] = msgspec.msgpack.decode(b"\xdd" + len(keys).to_bytes(4, "big") + b"".join(keys))
        return many
    except ValueError:
        found: list[Any] = []
    with contextlib.suppress(ValueError):  # of a key that is broken; msgspec uses those before it
        found.extend(msgspec.msgpack.decode(key) for key in keys)
    return found
