"""Numpy arrays out of pickles of historic peers, by an unpickler that makes nothing else.

Read only where the pool's owner has allowed it for an adapter: what a pickle may name is checked here, but pickles
were never made for data that one does not trust (https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

from .errors import DecodeError

# What numpy 1 and numpy 2 write for arrays, scalars and dtypes.
_ALLOWED: Final = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *(
            (f"numpy.{core}.{module}", name)
            for core in ("core", "_core")
            for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
        ),
        ("_codecs", "encode"),
        ("__builtin__", "bytes"),
    }
)


def load_arrays(data: bytes) -> Any:
    """Arrays, scalars and plain values out of a pickle.

    Raises `DecodeError`, also for whatever else the pickle names.
    """
    try:
        found = _ArrayUnpickler(io.BytesIO(data)).load()
        _check(found)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"{len(data)} bytes are no pickle of an array: {type(error).__name__}: {error}") from None
    return found


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DecodeError(f"a pickle that names {module}.{name} is not read: only numpy arrays are")
        if (module, name) in _REPLACED:
            return _REPLACED[module, name]
        if name == "_reconstruct":
            return _empty_array
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    def persistent_load(self, pid: Any) -> Any:
        raise DecodeError(f"a pickle with the persistent id {pid!r} is not read: only numpy arrays are")


def _encode_latin1(text: str, encoding: str) -> bytes:
    # How pickles of protocol 2 and below write bytes.
    if encoding not in ("latin1", "latin-1"):
        raise DecodeError(f"a pickle that encodes text as {encoding!r} is not read: only numpy arrays are")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    # How they write an empty one.
    return b""


def _empty_array(_kind: object, _shape: object, _code: object) -> Any:
    # numpy's own function would make any class, of any size; the state that follows sets all there is.
    import numpy as np

    return np.empty(0, np.int8)


_REPLACED: Final = {
    ("numpy", "ndarray"): object(),  # named, but never called
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _no_bytes,
}


def _check(found: Any) -> None:
    if isinstance(found, dict):
        found = [*found.keys(), *found.values()]
    if isinstance(found, (list, tuple)):
        for item in found:
            _check(item)
    elif hasattr(found, "__array__"):
        if found.dtype.hasobject:
            raise DecodeError("a pickle of an array of objects is not read")
    elif not isinstance(found, (int, float, str, bytes, complex, type(None))):
        raise DecodeError(f"a pickle of a {type(found).__name__} is not read: only numpy arrays are")
