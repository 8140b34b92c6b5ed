"""Reads numpy arrays of numbers from pickles of historic peers, with an unpickler that makes nothing else.

Pickles are read only where the pool's owner has allowed that for an adapter. A pickle gets none of numpy's own
functions, because they trust their arguments and crash on broken ones. Stand-ins note the data that the pickle gives,
and the data are checked before an array is made of them
(https://docs.python.org/3/library/pickle.html#restricting-globals,
https://numpy.org/doc/stable/reference/generated/numpy.ndarray.__setstate__.html).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from typing import Any, Final, Literal

from .errors import DecodeError

_NUMBERS: Final = re.compile(r"b1|i[1248]|u[1248]|f[248]|c(8|16)")
# Keys that a pickle has chosen could take endless time; a value that is read has none.
_HASHING: Final = {
    **dict.fromkeys(("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"), "dict"),
    **dict.fromkeys(("EMPTY_SET", "ADDITEMS"), "set"),
    "FROZENSET": "frozenset",
}
_MEMO: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
# All that a pickle of nested lists of numbers is made of: frames, lists, numbers and the memo. Such a pickle may be
# large, and this checks it much faster than opcode after opcode.
_ONLY_LISTS: Final = re.compile(rb"(?:G.{8}|K.|M..|J.{4}|[\](ea\x88\x89\x94]|h.|j.{4}|\x80.|\x95.{8})*+\.", re.DOTALL)
_PLAIN: Final = frozenset({float, int, bool})
# Lists that hold each other many times are small in a pickle, but reading them out would never end.
_MAX_ITEMS: Final = 1 << 20


def load_arrays(data: bytes) -> Any:
    """Read arrays, scalars, and lists of numbers and text from a pickle.

    Raises `DecodeError`, also if the pickle names anything else.
    """
    try:
        _check_opcodes(data)
        return _Reader(max(_MAX_ITEMS, len(data))).read(_Unpickler(io.BytesIO(data)).load())
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"{len(data)} bytes are no pickle of an array: {type(error).__name__}: {error}") from None


def _check_opcodes(data: bytes) -> None:
    if _ONLY_LISTS.fullmatch(data):
        return
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _HASHING:
            raise DecodeError(f"a pickle of a {_HASHING[opcode.name]} is not read: only numpy arrays are")
        # The unpickler in C makes room for as many entries as the highest number of an entry says.
        if opcode.name in _MEMO and argument is not None and argument > len(data):
            raise DecodeError(f"a pickle of {len(data)} bytes with a memo entry {argument}")


class _Dtype:
    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise DecodeError(f"a pickle of an array of dtype {code!r:.100} is not read: only numbers are")
        self.code = code
        self.order: Literal["<", ">", "=", "|"] = "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, and fields of other dtypes). The order is "|" where it does not matter.
        if state[1] not in ("<", ">", "=", "|"):
            raise DecodeError(f"a pickle of an array with the byte order {state[1]!r:.100}")
        self.order = state[1]


class _Array:
    """The data that a pickle gives for an array."""

    def __init__(self, data: object, dtype: object, shape: Any, order: object) -> None:
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, "F" if fortran else "C"

    def array(self) -> Any:
        import numpy as np

        if not isinstance(self.dtype, _Dtype) or self.order not in ("C", "F"):
            raise DecodeError("a pickle of an array without its dtype or order")
        if not isinstance(self.data, (bytes, bytearray)) or not self._fits(int(self.dtype.code[1:]), len(self.data)):
            raise DecodeError(f"a pickle of an array of the shape {self.shape!r:.100}, which its data does not have")
        dtype = np.dtype(self.dtype.code).newbyteorder(self.dtype.order)
        return np.frombuffer(self.data, dtype).reshape(self.shape, order=self.order)

    def _fits(self, itemsize: int, size: int) -> bool:
        if not isinstance(self.shape, tuple) or len(self.shape) > 32:
            return False
        if not all(type(n) is int and 0 <= n < 1 << 48 for n in self.shape):
            return False
        return math.prod(self.shape) * itemsize == size


class _Scalar(_Array):
    pass


def _reconstruct(*_: object) -> _Array:
    return _Array(None, None, None, None)  # the opcode BUILD gives all data


def _scalar(dtype: object, data: object) -> _Scalar:
    return _Scalar(data, dtype, (), "C")


def _encode_latin1(text: str, encoding: str) -> bytes:
    # Pickles of protocol 2 and below write bytes as a call of this.
    if encoding not in ("latin1", "latin-1"):
        raise DecodeError(f"a pickle that encodes text as {encoding!r} is not read: only numpy arrays are")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    # Pickles of protocol 2 and below write empty bytes as a call of this.
    return b""


# The names that numpy 1 and numpy 2 write for arrays, scalars and dtypes.
_STAND_INS: Final[dict[tuple[str, str], object]] = {
    ("numpy", "ndarray"): object(),  # named, but never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _Array),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DecodeError(f"a pickle that names {module}.{name} is not read: only numpy arrays are")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise DecodeError(f"a pickle with the persistent id {pid!r} is not read: only numpy arrays are")


class _Reader:
    """Makes values from the data that the stand-ins have noted."""

    def __init__(self, max_items: int) -> None:
        self._items_left = max_items

    def read(self, found: Any) -> Any:
        self._items_left -= 1
        if self._items_left < 0:
            raise DecodeError("a pickle of more items than it has bytes")
        if isinstance(found, _Scalar):
            return found.array()[()]
        if isinstance(found, _Array):
            return found.array()
        if isinstance(found, list) and _PLAIN.issuperset(map(type, found)):
            self._items_left -= len(found)
            return found[:]
        if isinstance(found, (list, tuple)):
            return type(found)(map(self.read, found))
        if isinstance(found, (int, float, str, bytes, complex, type(None))):
            return found
        raise DecodeError(f"a pickle of a {type(found).__name__} is not read: only numpy arrays are")
