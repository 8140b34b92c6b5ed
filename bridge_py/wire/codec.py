"""Values to bytes and back: MessagePack (https://msgpack.org), with extension types for what it lacks.

    extension  value                          payload
    ---------  -----                          -------
    1          int beyond 64 bits             signed, big endian
    2, 3       set, frozenset                 array
    4          dict with other keys           array of pairs; MessagePack's own map takes text, bytes and numbers
    5, 6, 7    datetime, date, time           ISO 8601; with a fold or a zone of a name: 21
    8          timedelta                      array: days, seconds, microseconds
    9          Decimal                        text
    10         UUID                           16 bytes
    11         path                           array: name of the class, text
    12         complex                        two floats
    13         bytes of the area              array: offset, size
    14, 15     bytearray, bytes               bytes, or where they are in the area
    16         array                          see `arrays`
    17         memoryview                     see `arrays`
    18         array.array                    see `arrays`
    19         torch tensor                   see `arrays`
    20         polars, pyarrow                see `tables`
    21         of the standard library        array: name, what it is made from; see `extensions`
    22         pandas                         see `pandas_values`
    23         enum, object with fields       array: class, name of the member, value or fields
    24         tuple that stays one           array
    25         what could not be passed on    text: why
    32         what `register_codec` added    array: tag, value
    33         a pickle of a whole value      bytes, or where they are in the area

Tuples become lists, except in cells of frames and in an `Exact`. Enums, named tuples, attrs classes, dataclasses and
msgspec Structs are sent as their value or fields, and become themselves again where a hint of the receiver asks for it.
A subclass of any other type is refused, because it would arrive as its base. There is no pickle, except of a value in
an `Exact` that asks for it, and for a receiver that reads pickles.

A value that can be encoded must also be decodable. On arrival, keys of dicts or items of sets could be equal, or not
hashable, so the encoder decodes them to check that.

Buffers of `beside` bytes or more are not copied into the message. They form the *area*, one behind the other, and the
message says where in the area each of them is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec

from .broken import find_broken
from .decoder import AREA, PICKLE, UNREADABLE, ValueDecoder
from .errors import DecodeError, EncodeError, Fault
from .keys import SMALL, SMALL_PART, hashable, read_at_once
from .large import LARGE, read_large
from .readable import readable
from .registry import Refused, TooDeep, encoder_of, parts_of, type_of

BESIDE_BYTES: Final = 10_240
MAX_DEPTH: Final = 200
_ALIGNMENT: Final = 64
_LARGEST_FAULT: Final = 1 << 20  # bytes; ours have at most a third of that
_LOOK_INTO: Final = 32 * 1024
_LONGEST_PROBLEM: Final = 2_000
_SHORT: Final = 4096  # bytes: a shorter message may be decoded twice
_TUPLE: Final = 24
_MARKED: Final = 23
_NOWHERE: Final = 1 << 62
_LEAVES: Final = frozenset({type(None), bool, int, float, str})
# MessagePack takes all values of these types. The other leaves, ints and texts, must be checked one by one.
SURE_LEAVES: Final = frozenset({type(None), bool, float})
_KEYS: Final = _LEAVES | {bytes}
_SURE_KEYS: Final = SURE_LEAVES | {bytes}

_pack = msgspec.msgpack.Encoder().encode
_NOT_PLAIN: Final = object()
_decode_fault = msgspec.msgpack.Decoder(Fault).decode


class Encoded(msgspec.Struct, gc=False):
    """A value ready to be sent: its message, and the buffers that make up its area of `size` bytes."""

    body: bytes
    buffers: list[memoryview | bytes] = []
    size: int = 0


class Exact(msgspec.Struct, gc=False):
    """Stands around a whole value whose tuples are to arrive as tuples.

    `pickle`, which raises `Refused`, pickles the value if it has a part that the codec does not take, or that would
    arrive as something else for lack of a hint. Without it, `advise` tells what to do about a part that cannot be sent.
    """

    value: Any
    pickle: Callable[[Any], bytes] | None = None
    advise: Callable[[Any], str] | None = None

    def settled(self, what: str, own: Callable[[Any, str], Any]) -> Exact:
        """Copy it, so that it is sent as it is now. `own` copies values without pickles. Raises `EncodeError`."""
        if self.pickle is None:
            return Exact(own(self.value, what), None, self.advise)
        try:
            data = self.pickle(self.value)
        except Refused as error:
            raise EncodeError(f"{what}{error.path}: {error}") from None
        return Exact(Exact, lambda _: data)  # any class would do: it is sent as a pickle, which is `data`


def encode(value: Any, what: str = "value", *, beside: int = BESIDE_BYTES) -> Encoded:
    """Encode a value, or what stands in an `Exact`. Error messages call the value `what`.

    The outcome has the value's own buffers, not copies. Raises `EncodeError`, which says which part of the value
    cannot be sent.
    """
    pickle = advise = None
    if tuples := type(value) is Exact:
        value, pickle, advise = value.value, value.pickle, value.advise
    takes_marks = pickle is None
    try:
        return Encoded(_pack(value)) if _is_plain(value) else _encode(value, _LEAVES, beside, tuples, takes_marks)
    except Exception:  # noqa: S110 - classes of others run their own code here, and may raise anything
        pass
    try:
        # This is slower, but it takes large ints, and finds the part at fault.
        return _encode(value, SURE_LEAVES, beside, tuples, takes_marks)
    except Exception as error:
        if pickle is not None:
            return _pickled(value, what, pickle, beside)
        path, why, part = (what, str(error), value) if type(error) is TooDeep else find_culprit(value, what, error)
        raise EncodeError(f"{path}: {why}{advise(part) if advise else ''}") from None


def decode(body: bytes, area: bytes | memoryview = b"", *, plain: bool = False, trusted: bool = False) -> Any:
    """Decode what `encode` wrote. Arrays refer to the memory of `area` and are read-only.

    With `plain`, numpy's scalars become Python's numbers, for receivers that know no others. With `trusted`, the sender
    is trusted not to write to an area in shared memory any more, which saves copies. Raises `DecodeError` for bytes
    that are no value; the error says where in the value they are, and what should be there. Raises `CodecError`
    if decoding needs a library or a codec that is missing here.
    """
    if (value := _decode_plain(body)) is not _NOT_PLAIN:
        return value
    return _decode(body, ValueDecoder(area, plain, trusted=trusted))


def decode_marked(
    body: bytes,
    area: bytes | memoryview = b"",
    *,
    trusted: bool = False,
    unpickle: Callable[[bytes | memoryview], Any] | None = None,
) -> tuple[Any, bool]:
    """Decode a value for a receiver with hints: enums and objects with fields are `Marked` with their classes' names.

    The second result says whether the value has a part that plain hints do not take: a `Marked` object, or a scalar of
    numpy's. `trusted` is that of `decode`. `unpickle`, which raises `DecodeError`, reads pickles; without it they are
    refused. Raises the same errors as `decode`.
    """
    if (value := _decode_plain(body)) is not _NOT_PLAIN:
        return value, False
    decoder = ValueDecoder(area, marks=True, trusted=trusted, unpickle=unpickle)
    return _decode(body, decoder), decoder.is_special


def encode_plain(value: Any) -> bytes:
    """Encode a value of our own that has no buffers."""
    return _pack(value)


def encode_unreadable(why: str) -> bytes:
    """Encode a substitute for a value that cannot be passed on. Decoding it raises `DecodeError` with `why`."""
    return _pack(msgspec.msgpack.Ext(UNREADABLE, why.encode("utf-8", "backslashreplace")))


def decode_fault(data: bytes) -> Fault:
    """Decode the body of an error frame. Raises `DecodeError`. An error of more than 1 MiB is left out, with a mark."""
    if len(data) > _LARGEST_FAULT:
        return Fault("tool", f"(an error of {len(data)} bytes, of which {_LARGEST_FAULT} are read: it was left out)")
    try:
        return _decode_fault(data)
    except (ValueError, RecursionError) as error:  # errors of msgspec's are ValueErrors
        raise DecodeError(f"the body of an error frame is broken: {error}") from None


def let_go(buffers: Iterable[memoryview | bytes]) -> None:
    """Release views of a value's memory. As long as a view exists, as in an error's traceback, it cannot be resized."""
    for buffer in buffers:
        if isinstance(buffer, memoryview):
            buffer.release()


def _is_plain(value: Any) -> bool:
    """Whether msgspec encodes a value as it is: a leaf, or leaves in lists and dicts, of which one may be in another.

    So are most arguments and results. They need no `ValueEncoder`.
    """
    if _is_flat(value):
        return True
    return type(value) is dict and _KEYS.issuperset(map(type, value)) and all(map(_is_flat, value.values()))


def _is_flat(value: Any) -> bool:
    kind = type(value)
    if kind in _LEAVES:
        return True
    if kind is list:
        return _LEAVES.issuperset(map(type, value))
    return kind is dict and _KEYS.issuperset(map(type, value)) and _LEAVES.issuperset(map(type, value.values()))


def _encode(
    value: Any, leaves: frozenset[type], beside: int, tuples: bool = False, takes_marks: bool = True
) -> Encoded:
    encoder = ValueEncoder(leaves, beside, tuples, takes_marks)
    try:
        body = _pack(encoder.prepare(value))
    except BaseException:
        let_go(encoder.buffers)
        raise
    return Encoded(body, encoder.buffers, encoder.size) if encoder.size else Encoded(body)


def _decode_plain(body: bytes) -> Any:
    """Decode a short message without extensions, which needs no `ValueDecoder`; `_NOT_PLAIN` for any other."""
    if len(body) > _SHORT:
        return _NOT_PLAIN
    try:
        return _decode_without_extensions(body)
    except Exception:  # it is broken, or has an extension: `_decode` knows
        return _NOT_PLAIN


def _refuse_extension(_code: int, _payload: memoryview) -> Any:
    raise NotImplementedError


_decode_without_extensions = msgspec.msgpack.Decoder(ext_hook=_refuse_extension).decode


def _pickled(value: Any, what: str, pickle: Callable[[Any], bytes], beside: int) -> Encoded:
    encoder = ValueEncoder(_LEAVES, beside)
    try:
        body = _pack(encoder.wrap(PICKLE, encoder.buffer(pickle(value))))
    except Refused as error:
        raise EncodeError(f"{what}{error.path}: {error}") from None
    return Encoded(body, encoder.buffers, encoder.size)


def _decode(body: bytes, decoder: ValueDecoder) -> Any:
    try:
        if len(body) <= SMALL:
            return msgspec.msgpack.decode(body, ext_hook=decoder.decode_extension)
        decoder.small = SMALL_PART
        read = read_at_once if len(body) <= LARGE else read_large
        return read(body, decoder.decode_extension)
    except Exception as error:
        raise _locate(body, decoder, error) from None


def _locate(body: bytes, decoder: ValueDecoder, error: Exception) -> DecodeError:
    """Make the error for a value that cannot be decoded; it gives the place and the type of a broken part.

    In a large message the place is not looked for, and in a deep one only so far, because that takes longer than
    decoding it.
    """
    path = what = ""
    is_short = len(body) <= _LOOK_INTO and not isinstance(error, RecursionError)
    if is_short and not decoder.has_unpickled:  # it would read the pickles again
        with contextlib.suppress(Exception):
            path, what, error = find_broken(msgspec.msgpack.decode(body), decoder.decode_extension, error)
    kind = type(error) if isinstance(error, DecodeError) else DecodeError
    text = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
    text, path = readable(text, _LONGEST_PROBLEM), readable(path, _LONGEST_PROBLEM)
    if what:
        return kind(f"{path or 'it'} is no {what}: {text}")
    return kind(text if isinstance(error, DecodeError) else f"{len(body)} bytes are no value: {text}")


class ValueEncoder:
    """Turns one value into types that msgspec encodes, and collects the value's large buffers."""

    def __init__(self, leaves: frozenset[type], beside: int, tuples: bool = False, takes_marks: bool = True) -> None:
        self.buffers: list[memoryview | bytes] = []
        self.size = 0
        self._leaves = leaves
        self._beside = beside
        self._depth = 0
        self._keeps_tuples = tuples
        self._takes_marks = takes_marks  # enums and objects with fields, which need a hint where they arrive

    def prepare(self, value: Any) -> Any:
        """Turn a value into types that MessagePack has. Raises `Refused`."""
        kind = type(value)
        if kind in self._leaves:
            return value
        if kind is dict:
            return self._prepare_dict(value)
        if kind is list or (kind is tuple and not self._keeps_tuples):
            return self._prepare_items(value)
        return encoder_of(kind)(self, value)

    def items(self, value: Iterable[Any]) -> Any:
        """Prepare a tuple, or another sequence of items. Raises `Refused`."""
        prepared = self._prepare_items(value)
        return self.wrap(_TUPLE, prepared) if self._keeps_tuples and type(value) is tuple else prepared

    def extension(self, code: int, content: Any) -> Any:
        """Make an extension whose payload is a value that is not prepared yet. Raises `Refused`."""
        takes, self._takes_marks = self._takes_marks, True  # the extension's own codec makes the value again
        prepared = self.prepare(content)
        self._takes_marks = takes
        return self.wrap(code, prepared)

    def keys(self, keys: Collection[Any]) -> list[Any]:
        """Prepare keys of a dict, or items of a set. Raises `Refused` unless all arrive hashable and different."""
        beside, self._beside = self._beside, _NOWHERE
        keeps, self._keeps_tuples = self._keeps_tuples, False
        prepared = self._prepare_items(keys)
        self._beside, self._keeps_tuples = beside, keeps
        if not _KEYS.issuperset(map(type, keys)):
            _prove_keys(keys, _pack(prepared))
        return prepared

    def keys_of(self, keys: Iterable[Any]) -> list[Any]:
        """Prepare labels, as `keys` does, except that some may be equal. Raises `Refused`."""
        keys = list(keys)
        if _KEYS.issuperset(map(type, keys)):
            return self._prepare_items(keys)
        return [prepared for key in keys for prepared in self.keys([key])]

    def cells(self, values: Iterable[Any]) -> Any:
        """Encode the cells of a column as a buffer, so that their number has no limit. Tuples stay tuples.

        Raises `Refused`.
        """
        keeps, self._keeps_tuples = self._keeps_tuples, True
        values = list(values)
        try:
            prepared = self._prepare_items(values)
        except Refused:
            path, why, _ = find_culprit(values, "", None)
            raise Refused(why, path) from None
        self._keeps_tuples = keeps
        return self.buffer(_pack(prepared))

    def wrap(self, code: int, prepared: Any) -> Any:
        """Make an extension whose payload is prepared already. Raises `Refused`."""
        if code == _MARKED and not self._takes_marks:
            raise Refused("it would arrive as plain values")
        return msgspec.msgpack.Ext(code, _pack(prepared))

    def buffer(self, data: memoryview | bytes) -> Any:
        """Return the bytes of a small buffer; add a large one to the area, and return its place there."""
        size = len(data)
        if size < self._beside:
            return bytes(data)
        if gap := -self.size % _ALIGNMENT:
            self.buffers.append(bytes(gap))
        offset = self.size + gap
        self.buffers.append(data)
        self.size = offset + size
        return msgspec.msgpack.Ext(AREA, _pack((offset, size)))

    def _prepare_dict(self, value: dict[Any, Any]) -> Any:
        if not self._has_plain_keys(value):
            return self.pairs(4, value)
        if self._leaves.issuperset(map(type, value.values())):
            return value
        return dict(zip(value, self._prepare_items(value.values()), strict=True))

    def pairs(self, code: int, value: dict[Any, Any]) -> Any:
        """Put a dict with any keys into an extension. Raises `Refused`."""
        return self.wrap(code, self.prepare_pairs(value))

    def prepare_pairs(self, value: dict[Any, Any]) -> list[Any]:
        """Prepare the pairs of a dict with any keys. Raises `Refused`."""
        return list(map(list, zip(self.keys(value.keys()), self._prepare_items(value.values()), strict=True)))

    def _has_plain_keys(self, value: dict[Any, Any]) -> bool:
        if not _KEYS.issuperset(map(type, value)):
            return False
        return self._leaves is _LEAVES or _SURE_KEYS.issuperset(map(type, value))

    def _prepare_items(self, values: Iterable[Any]) -> list[Any]:
        if self._leaves.issuperset(map(type, values)):
            return values if type(values) is list else list(values)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        prepare = self.prepare
        items = [prepare(item) for item in values]
        self._depth -= 1
        return items


def _prove_keys(keys: Collection[Any], packed: bytes) -> None:
    """Raise `Refused` unless the packed keys arrive hashable, and as many different ones as there are."""
    try:
        arrived = [hashable(key) for key in msgspec.msgpack.decode(packed, ext_hook=ValueDecoder(b"").decode_extension)]
    except Exception as error:
        raise Refused(f"a key of it cannot be read where it arrives: {type(error).__name__}: {error}") from None
    for sent, key in zip(keys, arrived, strict=True):
        if not is_hashable(sent):  # labels of pandas may be unhashable; a list would arrive as a tuple
            raise Refused(f"its label {sent!r:.100} is not hashable: give text, or a tuple of plain values")
        if not is_hashable(key):
            text = f"{type_of(sent)} arrives as {type(key).__name__}, which can be no key: send a tuple or text for it"
            raise Refused(text)
    if len(set(arrived)) < len(keys):
        raise Refused("two of its keys are equal where they arrive, such as an enum's member and its value: rename one")


def is_hashable(value: object) -> bool:
    """Whether a value and all of its parts can be hashed, so that it can be a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def find_culprit(value: Any, path: str, error: Exception | None) -> tuple[str, str, Any]:
    """Find the part of a value that cannot be sent; returns its path, what is wrong with it, and the part itself."""
    for label, part in parts_of(value):
        try:
            _encode(part, SURE_LEAVES, BESIDE_BYTES)
        except RecursionError:
            continue
        except Exception as found:
            return find_culprit(part, path + label, found)
    if error is None:
        try:
            _encode(value, SURE_LEAVES, BESIDE_BYTES)
        except Exception as found:
            error = found
    if isinstance(error, Refused):
        return path + error.path, str(error), value
    if isinstance(error, RecursionError):
        return path, "it is nested too deeply, or contains itself", value
    return path, f"it cannot be sent: {type(error).__name__}: {error}", value
