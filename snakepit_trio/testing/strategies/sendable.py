"""Values that can be sent, and a comparison of an arrived value with the sent one."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
import pathlib
import random
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from snakepit_trio.testing.extra import MissingPackage

Values = st.SearchStrategy[Any]
_LARGE: Final = (10_000, 11_000)  # bytes: some are large enough to travel beside the message
_BY_REPR: Final = (float, complex, Decimal)  # == is no help: NaN equals nothing, -0.0 equals 0.0, 1.0 equals 1.00


def values(*, arrays: bool | None = None, leaves: Values | None = None, max_leaves: int = 8) -> Values:
    """Values that can be an argument, a result or a chunk, and that arrive `equal` to the sent ones.

    `arrays` says whether the values may contain numpy arrays. By default they may if numpy is installed. `leaves` adds
    other values that you send, for example objects with a codec of yours. Raises `MissingPackage`.
    """
    kinds = [_scalars()] if leaves is None else [_scalars(), leaves]
    if arrays or (arrays is None and importlib.util.find_spec("numpy")):
        kinds.append(_arrays())
    keys = _keys()
    return st.recursive(
        st.one_of(kinds),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
            st.sets(keys, max_size=3),
            st.frozensets(keys, max_size=3),
        ),
        max_leaves=max_leaves,
    )


def plain_values(*, max_leaves: int = 10) -> Values:
    """Values of JSON: None, bools, ints of any size, finite floats, text, lists, and dicts with text as keys."""
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
        max_leaves=max_leaves,
    )


def arrays() -> Values:
    """Numpy arrays of any dtype that can be sent, in any layout: Fortran, strided, reversed, empty, of no dimension.

    Raises `MissingPackage`.
    """
    return _arrays()


def equal(sent: Any, arrived: Any) -> bool:
    """Whether the arrived value equals the sent one, with the same types throughout. Tuples may arrive as lists.

    NaN equals NaN, and 0.0 does not equal -0.0. Arrays have the same dtype, shape and bytes. Tables are compared by
    their own method `equals`.
    """
    if isinstance(sent, tuple):
        return isinstance(arrived, (list, tuple)) and _equal_items(sent, arrived)
    if type(sent) is not type(arrived):
        return False
    if isinstance(sent, list):
        return _equal_items(sent, arrived)
    if isinstance(sent, dict):
        return _equal_keys(sent, arrived) and all(equal(item, arrived[key]) for key, item in sent.items())
    if isinstance(sent, (set, frozenset)):
        return _equal_keys(sent, arrived)
    return _equal_leaves(sent, arrived)


def _equal_items(sent: Any, arrived: Any) -> bool:
    return len(sent) == len(arrived) and all(map(equal, sent, arrived))


def _equal_keys(sent: Any, arrived: Any) -> bool:
    # True == 1 == 1.0, so the key that was found may be of another type.
    found = {key: key for key in arrived}
    return len(sent) == len(found) and all(key in found and equal(key, found[key]) for key in sent)


def _equal_leaves(sent: Any, arrived: Any) -> bool:
    if isinstance(sent, _BY_REPR):
        return repr(sent) == repr(arrived)
    if hasattr(sent, "equals"):
        return bool(sent.equals(arrived))
    if hasattr(sent, "__array__") and getattr(sent, "shape", None) is not None:
        return _equal_arrays(sent, arrived)
    return bool(sent == arrived) or repr(sent) == repr(arrived)


def _equal_arrays(sent: Any, arrived: Any) -> bool:
    import numpy as np

    one, other = np.asarray(sent), np.asarray(arrived)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _scalars() -> Values:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        floats(),
        st.text(),
        st.binary(),
        st.builds(_large, st.integers(0, 2**32), st.integers(*_LARGE)),
        st.complex_numbers(),
        st.dates(),
        st.times(),
        st.datetimes(),
        st.datetimes(timezones=_offsets()),
        st.timedeltas(),
        st.decimals(),
        st.uuids(),
        paths(),
        st.binary(max_size=20).map(bytearray),
    )


def floats() -> st.SearchStrategy[float]:
    """Any floats, and often the special ones: NaN, the infinities and -0.0."""
    return st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])


def paths() -> st.SearchStrategy[pathlib.Path]:
    """Paths whose text UTF-8 can hold."""
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(pathlib.Path)


def _offsets() -> st.SearchStrategy[dt.tzinfo]:
    day = 60 * 24
    return st.integers(1 - day, day - 1).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))


def _large(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


def _keys() -> Values:
    """Keys of dicts and items of sets."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.dates(),
        st.uuids(),
    )
    return st.recursive(
        scalars, lambda keys: st.one_of(st.tuples(keys, keys), st.frozensets(keys, max_size=3)), max_leaves=3
    )


def _dtypes() -> Values:
    from hypothesis.extra import numpy as hnp

    plain = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.complex_number_dtypes(),
        hnp.datetime64_dtypes(),
        hnp.timedelta64_dtypes(),
        hnp.byte_string_dtypes(min_len=1),
        hnp.unicode_string_dtypes(min_len=1),
    )
    return st.one_of(plain, hnp.array_dtypes(plain), hnp.nested_dtypes(plain))


def _arrays() -> Values:
    if not importlib.util.find_spec("numpy"):
        raise MissingPackage("numpy", "numpy")
    from hypothesis.extra import numpy as hnp

    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    laid_out = st.tuples(st.booleans(), st.sampled_from([1, 2, -1]), st.booleans())
    return st.builds(_array, shapes, _dtypes(), st.integers(0, 2**32 - 1), laid_out)


def _array(shape: tuple[int, ...], dtype: Any, seed: int, laid_out: tuple[bool, int, bool]) -> Any:
    import numpy as np

    data = np.zeros(int(np.prod(shape)) * dtype.itemsize, np.uint8)
    if dtype.kind not in "SUb" and not dtype.names and not dtype.subdtype:  # not all bytes are text, or a bool
        data[:] = np.random.default_rng(seed).integers(0, 256, data.size, np.uint8)
    made = np.ndarray(shape, dtype, data.tobytes()).copy()
    is_fortran, step, is_transposed = laid_out
    made = np.asfortranarray(made) if is_fortran and made.ndim else made
    made = made[::step] if made.ndim else made
    return made.T if is_transposed else made
