"""What functions that may be called may be given: names of functions, files, and settings that reach further."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from bridge_py.wire.errors import UsageError

from . import kinds
from .allowed_names import words
from .arguments import Refuse, check_texts, with_own_arrays

_Call = tuple[Sequence[Any], Mapping[str, Any]]

#: Functions that write to a file if they are given one, and return text otherwise; with the parameters for the file.
_WRITERS: Final = words("to_csv to_json to_string to_html write_csv write_json write_ndjson info")
#: Functions of pandas that call the functions whose names they are given.
_DISPATCHERS: Final = words("apply agg aggregate transform")
_AGGREGATORS: Final = words("pivot_table crosstab pivot")
#: The names that these may be given, and the words of their other parameters.
_FUNCTIONS: Final = words(
    "sum mean min max count std var sem median mode first last nunique size prod product any all skew kurt quantile"
    " idxmax idxmin cumsum cumprod cummax cummin diff rank pct_change shift ffill bfill describe abs round sqrt exp log"
    " log10 log2 log1p expm1 sin cos tan floor ceil square sign unique value_counts ptp head tail isna notna cumcount"
    " ngroup ohlc nth argmax argmin"
) | words("index columns rows expand reduce broadcast")
_WINDOWS: Final = words(
    "boxcar triang blackman hamming bartlett parzen bohman blackmanharris nuttall barthann hann cosine lanczos tukey"
    " taylor flattop kaiser gaussian general_gaussian exponential chebwin"
)
#: Functions that read files, with the parameters that may name one. The first argument names one too.
_READERS: Final = re.compile(r"read_.*|scan_.*|load|loadtxt|genfromtxt")
_FILES: Final = words("filepath_or_buffer path_or_buf path io source file fname filename")
#: Parameters that reach the network, run code, read pickles, keep files or leave arrays without memory.
_PARAMETERS: Final = {
    "memory": "is a folder of pickles",
    "allow_pickle": "runs what is in a file",
    "refcheck": "may leave arrays without memory",
    "storage_options": "is for the network",
    "credential_provider": "is for the network",
    "filesystem": "is for the network",
    "opener": "opens files",
    "verify_integrity": "leaves positions unchecked",
    "engine_kwargs": "is for compilers",
    "formatters": "calls what it is given",
}
#: Methods of pandas that make labels from data. In place, nobody could check the labels.
_LABELLERS: Final = words("rename rename_axis set_axis set_index reset_index add_prefix add_suffix eval query")
_SETTERS: Final = words("__setitem__ insert setdefault update isetitem assign")
#: Functions that take positions. Another call must not change those between their check and their use.
_INDEXERS: Final = words(
    "__getitem__ __setitem__ take put at choose place putmask take_along_axis put_along_axis delete insert reduceat"
    " ravel_multi_index unravel_index bincount repeat compress gather scatter"
)
_POSITIONS: Final = words("ind indices indexer mask values v vals minlength obj repeats multi_index condition")
_SPARSE: Final = re.compile(r"(csr|csc|bsr)_(array|matrix)")
_OBJECTS: Final = re.compile(r"[|<>=]?O\d*|object_?0?", re.IGNORECASE)
_BUFFERS: Final = words("array asarray asanyarray ones zeros full fromiter astype ones_like zeros_like full_like")


class Roots:
    """The folders below which dynamic calls may read files."""

    def __init__(self, roots: Iterable[str | os.PathLike[str]]) -> None:
        if roots is None or isinstance(roots, (str, bytes, os.PathLike)):
            raise UsageError(f"roots is {roots!r}; give a list of folders, such as ['data']")
        self.paths = tuple(os.path.realpath(os.path.expanduser(os.fspath(root))) for root in roots)

    def check(self, path: Any, refuse: Refuse) -> None:
        """Call `refuse` unless a path, or each of a list of paths, is below one of the folders."""
        if isinstance(path, (list, tuple, set, frozenset)):
            for each in path:
                self.check(each, refuse)
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, (str, PurePath)):
            refuse(f"a {type(path).__name__} names no file")
        text = str(path)
        if "://" in text or text.startswith("\\\\"):
            refuse(f"{text!r:.200} would be read from the network")
        if "\0" in text or ("[" in text and not os.path.exists(text)):
            refuse(f"{text!r:.200} is no plain path")
        for spelled in {text, os.path.expanduser(text)}:
            found = os.path.realpath(spelled)
            if not any(found == root or found.startswith(root.rstrip(os.sep) + os.sep) for root in self.paths):
                there = ", ".join(self.paths) or "(there are none)"
                refuse(
                    f"the file {text!r:.200} is below none of the folders {there} that files are read from;"
                    " options={'roots': [...]} names them"
                )
            if os.path.exists(found) and not (os.path.isfile(found) or os.path.isdir(found)):
                refuse(f"{text!r:.200} is no regular file")


def check_call(name: str, root: str, call: _Call, roots: Roots, refuse: Refuse) -> None:
    """Call `refuse` if a function must not be given these arguments. `root` is the package of the function."""
    args, kwargs = call
    _check_parameters([kwargs, *args], refuse)
    if name in _WRITERS and (args or _FILES & kwargs.keys() or "buf" in kwargs):
        refuse(f"{name!r} would write to a file: leave its path out and it returns text")
    if root == "pandas" or root not in kinds.ROOTS:
        _check_names(name, args, kwargs, refuse)
    if _READERS.fullmatch(name):
        is_data = root == "polars" and bool(args) and isinstance(args[0], bytes)
        _check_reading(name, args[1:] if is_data else args, kwargs, roots, refuse)
    if name in _LABELLERS and kwargs.get("inplace"):
        refuse(f"{name!r} makes labels from data, which are not checked with inplace=True: store its result instead")
    if name in _SETTERS:
        for value in (*args, *kwargs.values()):
            check_texts(value, refuse)
    _check_kinds(name, root, args, kwargs, refuse)


def own_positions(name: str, call: _Call, *, is_method: bool) -> _Call:
    """Give a function that takes positions arrays of its own, except for the array that it may change."""
    args, kwargs = call
    if name not in _INDEXERS:
        return call
    first = 0 if is_method and name != "at" else 1
    mine = {key: with_own_arrays(value) if key in _POSITIONS else value for key, value in kwargs.items()}
    return [*args[:first], *map(with_own_arrays, args[first:])], mine


def _check_names(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], refuse: Refuse) -> None:
    if name in _AGGREGATORS:
        _check_functions([*args[3:], kwargs.get("aggfunc")], refuse)
    elif name in _DISPATCHERS:
        if kwargs.get("engine") is not None:
            refuse(f"{name!r} takes no 'engine' here")
        named = [value[1:] if _is_pair(value) else value for value in kwargs.values()]
        _check_functions([*args, *named], refuse)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str)


def _check_functions(given: Iterable[Any], refuse: Refuse) -> None:
    """Refuse all texts but listed names of functions; the keys of dicts are columns."""
    parts = list(given)
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            if part not in _FUNCTIONS:
                refuse(f"its argument {part!r:.100} may be the name of a function, and is not on the list of these")
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, (list, tuple, set, frozenset)):
            parts += part
        elif not isinstance(part, (int, float, type(None))):
            refuse(f"an argument is a {type(part).__name__}, where only plain values may be, or names")


def _check_reading(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], roots: Roots, refuse: Refuse) -> None:
    if name == "load" and (len(args) > 1 or kwargs.keys() - {"file"}):
        refuse("'load' takes a path here, and nothing else: it may read pickles, or write")
    for path in [*args[:1], *(value for key, value in kwargs.items() if key in _FILES)]:
        roots.check(path, refuse)
    for value in (*args, *kwargs.values()):
        for text in _plain_texts(value):
            if "://" in text:
                refuse(f"{name!r} would read from the network")


def _check_parameters(given: Iterable[Any], refuse: Refuse) -> None:
    for part in _dicts_in(given):
        for key, value in part.items():
            name = str(key).rpartition("__")[2]
            if (
                value is None
                or (value is False and name == "allow_pickle")
                or (value is True and name == "verify_integrity")
            ):
                continue
            if name in _PARAMETERS:
                refuse(f"the parameter {name!r} {_PARAMETERS[name]}")
            if name == "input" and any(text in ("filename", "file") for text in _plain_texts(value)):
                refuse("the parameter 'input' would read files")
            if name == "win_type" and value not in _WINDOWS:
                refuse(f"there is no window {value!r:.100} here; there are: {', '.join(sorted(_WINDOWS))}")
            if name in ("float_format", "date_format") and any("{" in text for text in _plain_texts(value)):
                refuse(f"the parameter {name!r} takes no format with braces")


def _check_kinds(name: str, root: str, args: Sequence[Any], kwargs: Mapping[str, Any], refuse: Refuse) -> None:
    if name in ("bytes", "bytearray", "tobytes") and any(map(_has_objects, args)):
        refuse("the bytes of an array of objects are addresses")
    if (
        root == "scipy"
        and _SPARSE.fullmatch(name)
        and any(isinstance(value, tuple) and len(value) == 3 for value in (*args[:1], kwargs.get("arg1")))
    ):
        refuse("positions are not checked in (data, indices, indptr): give a dense array, or (data, (row, column))")
    if root == "numpy" and name in _BUFFERS:
        for value in (*args[name != "astype" : 3], kwargs.get("dtype")):
            if any(_OBJECTS.fullmatch(text.strip()) for whole in _plain_texts(value) for text in whole.split(",")):
                refuse("arrays of objects are not made here")


def check_owner(owner: Any, name: str, refuse: Refuse) -> None:
    """Call `refuse` if a method would tell addresses in memory."""
    if name == "tobytes" and _has_objects(owner):
        refuse("the bytes of an array of objects are addresses")


def _has_objects(value: Any) -> bool:
    return bool(getattr(getattr(value, "dtype", None), "hasobject", False))


def _dicts_in(given: Iterable[Any]) -> Iterable[Mapping[Any, Any]]:
    parts = list(given)
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield part
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif getattr(getattr(part, "dtype", None), "kind", "") == "O" and hasattr(part, "tolist"):
            parts += part.tolist() if isinstance(part.tolist(), list) else []


def _plain_texts(value: Any) -> Iterable[str]:
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, (str, PurePath)):
            yield str(part)
        elif isinstance(part, dict):
            parts += [*part, *part.values()]
        elif isinstance(part, (list, tuple, set, frozenset)):
            parts += part
