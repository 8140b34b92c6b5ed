"""Copies and checks arguments of dynamic calls, so that nothing can change between the check and the call.

Lists, dicts and sets are copied; frames of pandas get labels of their own. All else must be of a listed class.
"""

from __future__ import annotations

import collections
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from . import kinds

#: Raises the error for an argument that is refused, given the reason.
Refuse = Callable[[str], NoReturn]
#: Attributes by which libraries ask an object for its memory or its conversion. No caller may make such a name.
PROTOCOLS: Final = frozenset(
    f"__{name}__"
    for name in (
        *(
            "array_interface",
            "array_struct",
            "array",
            "array_priority",
            "array_finalize",
            "array_wrap",
            "array_prepare",
        ),
        *("array_function", "array_ufunc", "array_namespace", "arrow_c_array", "arrow_c_stream", "arrow_c_schema"),
        *("arrow_array", "arrow_ext_class", "buffer", "release_buffer", "dataframe", "dlpack", "dlpack_device"),
        *("cuda_array_interface", "geo_interface", "fspath", "reduce", "reduce_ex", "getstate", "setstate", "class"),
        *("dict", "call", "getattr", "getattribute", "getitem", "len", "iter", "index", "float", "int", "complex"),
    )
)
#: Those that libraries look up on an object itself, and not on its class.
_LOOKED_UP: Final = frozenset(
    f"__{name}__"
    for name in (
        *("array_interface", "array_struct", "cuda_array_interface", "array_namespace", "dlpack", "dlpack_device"),
        *("arrow_array", "arrow_c_array", "arrow_c_stream", "geo_interface", "buffer", "fspath"),
    )
)
_LEAVES: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_UNCHECKED: Final = _LEAVES - {str, bytes}
#: A time zone that pandas would read from a file of that name.
_ZONE_FILE: Final = re.compile(r"(datetime64\[\w+, *|\s*)dateutil/")
_SMALL: Final = 1_000_000  # elements; texts of longer arrays and columns are searched only where they become labels
_DEEPEST: Final = 100


def copied(value: Any, refuse: Refuse, *, is_strict: bool, depth: int = 0) -> Any:
    """Return an argument for a call: checked, and with containers of its own. Calls `refuse` if it is not allowed.

    If it `is_strict`, objects of classes that are not listed are refused too.
    """
    kind = type(value)
    if kind in _LEAVES:
        check_text(value, refuse)
        return value
    if depth > _DEEPEST:
        refuse(f"an argument is nested deeper than {_DEEPEST}")
    make = _CONTAINERS.get(kind)
    if make is not None:
        return make(value, lambda part: copied(part, refuse, is_strict=is_strict, depth=depth + 1), refuse)
    if kind is memoryview:
        return bytes(value)
    return _checked(value, refuse, is_strict)


def with_own_arrays(value: Any) -> Any:
    """Return an index with arrays of its own: compiled code checks positions first, and uses them afterwards."""
    if isinstance(value, (list, tuple)):
        return type(value)(with_own_arrays(part) for part in value)
    kinds_of_arrays = (_class("numpy", "ndarray"), _class("pandas", "Series"))
    return value.copy() if isinstance(value, kinds_of_arrays) else value


def check_labels(value: Any, refuse: Refuse) -> None:
    """Call `refuse` for an object that libraries would ask for its memory because of its data, such as a label."""
    kind = type(value)
    if kind in _LEAVES or kind in _CONTAINERS:
        return
    labels = _labels_of(value)
    if labels is not None and (found := next((name for name in _LOOKED_UP if _is_in(name, labels)), None)):
        refuse(f"a {kind.__name__} has a label {found!r}, by which libraries would ask it for its memory")


def check_texts(value: Any, refuse: Refuse) -> None:
    """Call `refuse` if a text in an array, an index or a column is one of the `PROTOCOLS`."""
    for text in _texts_of(value):
        check_text(text, refuse)


def _checked(value: Any, refuse: Refuse, is_strict: bool) -> Any:
    kind, root = type(value), kinds.root_of(type(value))
    if kinds.is_code(value):
        refuse(f"an argument is, or has in it, a {kind.__name__}, which is not passed on")
    if kinds.names_of(kind) is None:
        if is_strict or root in kinds.ROOTS:
            refuse(f"an argument is a {kind.__name__} of {root}, which may only be held, not passed on")
        return value
    check_labels(value, refuse)
    if root == "numpy":
        _check_array(value, refuse)
    elif root == "pandas":
        return _frame(value, refuse)
    elif root == "polars":
        _check_polars(value, refuse)
    return value


def _check_array(value: Any, refuse: Refuse) -> None:
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")
    if kind == "V" and getattr(dtype, "hasobject", False):
        refuse("an argument is an array of records with objects in them")
    if kind == "O" and isinstance(value, _class("numpy", "ndarray")):
        _check_elements(value.ravel(), refuse)
    elif kind in ("U", "S", "T") and value.size <= _SMALL:
        check_texts(value, refuse)


def _frame(value: Any, refuse: Refuse) -> Any:
    """Check the elements of a pandas object, and give a frame or a series labels of its own."""
    if isinstance(value, _class("pandas", "DataFrame")):
        for position, dtype in enumerate(value.dtypes):
            if str(dtype) == "object":
                _check_elements(value.iloc[:, position].to_numpy(), refuse)
    elif isinstance(value, (_class("pandas", "Series"), _class("pandas", "Index"))):
        if str(value.dtype) == "object":
            _check_elements(value.to_numpy(), refuse)
        return value if isinstance(value, _class("pandas", "Index")) else value.copy(deep=False)
    else:
        return value
    return value.copy(deep=False)


def _check_polars(value: Any, refuse: Refuse) -> None:
    schema = [value.dtype] if type(value).__name__ == "Series" else getattr(value, "dtypes", ())
    if type(value).__name__ in ("Series", "DataFrame") and any("Object" in str(each) for each in schema):
        refuse("an argument has a column of Python objects")


def _check_elements(values: Any, refuse: Refuse) -> None:
    """Refuse objects inside of an array of objects unless they are plain values, or arrays of them."""
    for kind in set(map(type, values)) - _LEAVES:
        if kind in _CONTAINERS:
            for value in values:
                if type(value) is kind:
                    copied(value, refuse, is_strict=True)
        elif kinds.root_of(kind) not in _ELEMENTS or kinds.names_of(kind) is None or hasattr(kind, "_info_axis"):
            refuse(f"an argument has a {kind.__name__} of {kinds.root_of(kind)} among its elements")
    if len(values) <= _SMALL:
        for value in values:
            check_text(value, refuse)


def check_text(value: Any, refuse: Refuse) -> None:
    """Call `refuse` for a text that is one of the `PROTOCOLS`, or that makes pandas read a file."""
    if isinstance(value, bytes):
        value = value[:100].decode("latin-1")
    if not isinstance(value, str):
        return
    if value in PROTOCOLS:
        refuse(f"the text {value!r:.60} is the name of an attribute by which libraries ask for memory or conversions")
    if _ZONE_FILE.match(value):
        refuse(f"the time zone {value!r:.60} would be read from a file")


def _texts_of(value: Any) -> Any:
    if type(value) in _LEAVES or type(value) in _CONTAINERS:
        return ()
    values = value.to_numpy() if hasattr(value, "to_numpy") else value
    if not isinstance(values, _class("numpy", "ndarray")):
        return ()
    return values.ravel().tolist() if values.dtype.kind in ("U", "S", "T", "O") else ()


def _labels_of(value: Any) -> Any:
    """Return the labels that pandas offers as attributes, the keys of a dict of attributes, or None."""
    if kinds.root_of(type(value)) == "pandas":
        is_frame, is_series = (isinstance(value, _class("pandas", name)) for name in ("DataFrame", "Series"))
        labels = value.columns if is_frame else value.index if is_series else None
        return None if getattr(getattr(labels, "dtype", None), "kind", "i") in "biufcmM" else labels
    return value if isinstance(value, dict) and hasattr(type(value), "__getattr__") else None


def _is_in(name: str, labels: Any) -> bool:
    try:
        return name in labels
    except Exception:
        return False


def _class(module: str, name: str) -> Any:
    """Return a class of a package, or nothing that anything is an instance of, if the package is not imported."""
    return getattr(sys.modules.get(module), name, ())


def _dict(value: Mapping[Any, Any], copy: Callable[[Any], Any], refuse: Refuse) -> dict[Any, Any]:
    found = {copy(key): copy(item) for key, item in dict(value).items()}
    if "typestr" in found and "shape" in found:
        refuse("a dict with 'typestr' and 'shape' describes raw memory")
    return found


def _list(value: list[Any], copy: Callable[[Any], Any]) -> list[Any]:
    found = set(map(type, value))
    if found <= _UNCHECKED or (found <= _UNCHECKED | {str} and PROTOCOLS.isdisjoint(value)):
        return value  # it is a copy already; long lists of plain values are common
    return [copy(part) for part in value]


_CONTAINERS: Final[Mapping[type, Callable[[Any, Callable[[Any], Any], Refuse], Any]]] = {
    dict: _dict,
    collections.defaultdict: _dict,
    collections.OrderedDict: lambda value, copy, refuse: collections.OrderedDict(_dict(value, copy, refuse)),
    collections.Counter: lambda value, copy, refuse: collections.Counter(_dict(value, copy, refuse)),
    collections.deque: lambda value, copy, _: collections.deque(map(copy, list(value)), value.maxlen),
    list: lambda value, copy, _: _list(list(value), copy),
    tuple: lambda value, copy, _: tuple([copy(part) for part in value]),
    set: lambda value, copy, _: {copy(part) for part in list(value)},
    frozenset: lambda value, copy, _: frozenset([copy(part) for part in value]),
    bytearray: lambda value, _, __: bytearray(value),
    slice: lambda value, copy, _: slice(copy(value.start), copy(value.stop), copy(value.step)),
}
_ELEMENTS: Final = ("numpy", "datetime", "decimal", "fractions", "uuid", "pandas", "pathlib")
