"""Values between JSON and Python: arguments as a tool's schema says, and results as everybody reads them.

| in Python | in JSON |
| --- | --- |
| dict, and objects with fields | an object; keys that are no texts become texts |
| list, tuple, set, deque, range | an array |
| arrays of numpy, tensors | nested arrays |
| data frames, tables of pyarrow | an array with an object for each row |
| bytes | a text in base64 |
| dates, times, durations | a text in ISO 8601 |
| Decimal, Fraction, UUID, complex, paths | a text |
| NaN, the infinities, missing values of pandas | null |
"""

from __future__ import annotations

import base64
import collections
import contextlib
import datetime as dt
import functools
import importlib
import itertools
import operator
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from bridge_py.tools.hints.leaves import DIMENSIONS, DTYPE, PYTHON
from bridge_py.wire.errors import EncodeError, InvalidArguments

from .schemas import ToolSchema

_DEEPEST: Final = 200  # levels of a value
LARGE_TEXT: Final = 20_000  # bytes, or characters, that take longer than a turn of the loop should
_MANY: Final = 1000  # values, likewise
_MOST_STEPS: Final = 3_000_000  # in comparing an argument, or a result, with its schema
Schema = Mapping[str, Any]


# From JSON to Python.


class _Unfit(ValueError):
    """A value does not fit a schema."""


class _Endless(Exception):
    """A value is compared with so many parts of a schema that it would take too long."""


def arguments_of(tool: ToolSchema, given: object) -> dict[str, Any]:
    """Make the arguments of a tool from a JSON object, which is decoded already.

    This makes what only the host can make: arrays, frames, paths, keys that are numbers. The worker converts the rest
    by its hints, and checks everything. Raises `InvalidArguments`, which names the parameter.
    """
    if not isinstance(given, Mapping):
        raise InvalidArguments(f"{tool.name}: give the arguments as an object, by their names")
    definitions = _object_of(tool.input.get("$defs"))
    properties, rest = _object_of(tool.input.get("properties")), tool.input.get("additionalProperties")
    found = {}
    for name, value in given.items():
        schema = _object_of(properties.get(name, rest))
        try:
            found[name] = _Reader(definitions, makes=True).read(value, schema)
        except Exception as error:  # also of a library that makes an array or a frame
            text = f"{tool.name}: the argument {name!r} does not fit: {error}"
            raise InvalidArguments(text[:2000], str(name)) from None
    return found


def misfit(plain: Any, schema: Schema) -> str:
    """Say why a value, as `to_plain` has made it, does not fit a schema; an empty text if it does.

    Patterns and formats are not checked: a worker that is not to be trusted could write patterns that take endless
    time. What takes too long for another reason is not checked to its end either.
    """
    try:
        _Reader(_object_of(schema.get("$defs")), makes=False).read(plain, schema)
    except (_Unfit, RecursionError) as error:
        return str(error)
    except Exception:  # the schema is no schema
        return ""
    return ""


def _object_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Reader:
    """Compares a value with a schema, and makes what the schema asks for. Bounded, as schemas come from workers."""

    def __init__(self, definitions: Mapping[str, Any], *, makes: bool) -> None:
        self._definitions = definitions
        self._makes = makes
        self._left = _MOST_STEPS

    def read(self, value: Any, schema: Schema, depth: int = 0) -> Any:
        """Convert a value as far as its schema asks for it. Raises `_Unfit` if it is clearly something else."""
        self._left -= 1
        if self._left < 0:
            raise _Endless("comparing it with its schema takes too long")
        if depth > _DEEPEST:
            raise _Unfit("it is nested too deeply")
        if (place := schema.get("$ref")) is not None:
            return self.read(value, self._definitions.get(str(place).removeprefix("#/$defs/"), {}), depth + 1)
        if (members := schema.get("anyOf")) is not None:
            return self._choose(value, members, depth)
        if "enum" in schema or "const" in schema:
            return _member(value, schema.get("enum", [schema.get("const")]))
        _check_type(value, schema)
        _check_bounds(value, schema)
        if type(value) is float and schema.get("type") == "integer":
            value = int(value)
        elif isinstance(value, Mapping):
            value = self._object(value, schema, depth)
        elif isinstance(value, list):
            value = self._list(value, schema, depth)
        kind = schema.get(PYTHON) if self._makes else None
        return value if kind is None else _made(value, str(kind), schema)

    def _list(self, value: list[Any], schema: Schema, depth: int) -> list[Any]:
        first, rest = list(schema.get("prefixItems", ())), _object_of(schema.get("items"))
        if not first and not rest:
            return value
        parts = itertools.chain(first, itertools.repeat(rest))
        return [self.read(each, part, depth + 1) for each, part in zip(value, parts, strict=False)]

    def _choose(self, value: Any, members: list[Schema], depth: int) -> Any:
        fitting = []
        for member in members:
            with contextlib.suppress(ValueError, TypeError, ArithmeticError, ImportError):
                found = self.read(value, member, depth + 1)
                if not self._makes or found is value or (type(found) is type(value) and found == value):
                    return found  # the worker, too, leaves a value alone if a member of the union takes it as it is
                fitting.append(found)
        if not fitting:
            raise _Unfit(f"{value!r:.100} fits no part of the union")
        return fitting[0]

    def _object(self, value: Mapping[str, Any], schema: Schema, depth: int) -> Any:
        properties, rest = _object_of(schema.get("properties")), schema.get("additionalProperties", {})
        if missing := [name for name in schema.get("required", ()) if name not in value]:
            raise _Unfit(f"{missing[0]!r} is missing")
        if rest is False and (unknown := [name for name in value if name not in properties]):
            raise _Unfit(f"there is no field {unknown[0]!r:.100}")
        others = _object_of(rest)
        found = {name: self.read(each, properties.get(name, others), depth + 1) for name, each in value.items()}
        kind = _object_of(schema.get("propertyNames")).get(PYTHON) if self._makes else None
        if kind is None:
            return found
        made = {_made(name, str(kind), {}): each for name, each in found.items()}
        if len(made) < len(found):
            raise _Unfit("two of its keys are equal")
        return made


def _member(value: Any, members: list[Any]) -> Any:
    for each in members:
        if (type(each) is bool) == (type(value) is bool) and each == value:
            return each  # 1.0 is 1 in JSON
    raise _Unfit(f"{value!r:.100} is none of {members!r:.500}")


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "integer": lambda value: type(value) is int or (type(value) is float and value.is_integer()),
    "number": lambda value: type(value) in (int, float),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}


def _check_type(value: Any, schema: Schema) -> None:
    if (kinds := schema.get("type")) is None:
        return
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_TYPES.get(kind, lambda _: True)(value) for kind in kinds):
        raise _Unfit(f"expected {' or '.join(kinds)}, got {value!r:.100}")


_BOUNDS: Final[tuple[tuple[str, tuple[type, ...], Callable[[Any, Any], bool]], ...]] = (
    ("minimum", (int, float), operator.ge),
    ("maximum", (int, float), operator.le),
    ("exclusiveMinimum", (int, float), operator.gt),
    ("exclusiveMaximum", (int, float), operator.lt),
    ("minLength", (str,), lambda value, bound: len(value) >= bound),
    ("maxLength", (str,), lambda value, bound: len(value) <= bound),
    ("minItems", (list,), lambda value, bound: len(value) >= bound),
    ("maxItems", (list,), lambda value, bound: len(value) <= bound),
    ("minProperties", (dict,), lambda value, bound: len(value) >= bound),
    ("maxProperties", (dict,), lambda value, bound: len(value) <= bound),
)


def _check_bounds(value: Any, schema: Schema) -> None:
    if len(schema) < 2:  # its type
        return
    for keyword, kinds, holds in _BOUNDS:
        if (bound := schema.get(keyword)) is not None and type(value) in kinds and not holds(value, bound):
            raise _Unfit(f"{value!r:.100} does not keep to {keyword} {bound!r:.50}")


def _made(value: Any, kind: str, schema: Schema) -> Any:
    """Make a value of a class. Names of classes that are not listed here change nothing: they come from a worker."""
    try:
        if kind == "numpy.ndarray":
            return _array(value, schema)
        if kind.startswith("numpy."):
            return _scalar(value, kind.removeprefix("numpy."))
        make = _MAKERS.get(kind)
        return value if make is None else make(value)
    except ImportError as error:
        raise _Unfit(f"it becomes a {kind}, and this process cannot import it: {error}") from None


def _array(value: Any, schema: Schema) -> Any:
    import numpy as np

    found = np.array(value, dtype=_numpy(schema.get(DTYPE)))
    if found.dtype.kind not in "biufcUmM":
        raise _Unfit("give nested lists of numbers")
    missing = schema.get(DIMENSIONS, 0) - found.ndim
    return found.reshape(found.shape + (0,) * missing) if missing > 0 and not found.size else found


def _numpy(name: Any) -> Any:
    import numpy as np

    kind = getattr(np, str(name), None)
    if kind in (np.floating, np.inexact):
        return float
    # The names of other abstract classes say nothing about the items: numpy chooses.
    return kind if isinstance(kind, type) and issubclass(kind, np.generic) and kind not in _abstract() else None


@functools.cache
def _abstract() -> frozenset[Any]:
    import numpy as np

    names = ("generic", "number", "integer", "signedinteger", "unsignedinteger", "complexfloating", "flexible")
    return frozenset({getattr(np, name) for name in names} | {np.character, np.void, np.object_})


def _scalar(value: Any, name: str) -> Any:
    kind = _numpy(name)
    return value if kind in (None, float) else kind(value)


def _library(module: str, name: str) -> Callable[[Any], Any]:
    """The function of that name, of a library that is imported when the function is first called."""

    def make(value: Any) -> Any:
        return operator.attrgetter(name)(importlib.import_module(module))(value)

    return make


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": int,
    "float": float,
    "complex": complex,
    "collections.defaultdict": lambda value: collections.defaultdict(None, value),
    "fractions.Fraction": Fraction,
    "zoneinfo.ZoneInfo": ZoneInfo,
    **{
        f"pathlib.{name}": _library("pathlib", name)
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    "pandas.Timestamp": _library("pandas", "Timestamp"),
    "pandas.Timedelta": _library("pandas", "Timedelta"),
    "pandas.DataFrame": _library("pandas", "DataFrame"),
    "pandas.Series": _library("pandas", "Series"),
    "polars.DataFrame": _library("polars", "DataFrame"),
    "polars.Series": _library("polars", "Series"),
    "pyarrow.Table": _library("pyarrow", "Table.from_pylist"),
    "torch.Tensor": _library("torch", "tensor"),
}


# From Python to JSON.


def to_json(value: Any, *, what: str = "the result") -> bytes:
    """A value as JSON text, in UTF-8. Raises `EncodeError`, see `to_plain`."""
    plain = to_plain(value, what=what)
    try:
        return msgspec.json.encode(plain)
    except ValueError as error:  # Python refuses to write whole numbers of thousands of digits
        raise EncodeError(f"{what} cannot become JSON: {error}") from None


def is_small(value: Any) -> bool:
    """Whether it takes no time to convert a value. Looks at a thousand parts of it at the most."""
    left, unseen = _MANY, [value]
    while unseen and left > 0:
        each = unseen.pop()
        left -= 1
        if isinstance(each, (str, bytes)):
            left -= len(each) * _MANY // LARGE_TEXT
        elif isinstance(each, (dict, list, tuple)):
            if len(each) > left:
                return False
            unseen.extend(each.values() if isinstance(each, dict) else each)
        elif each is not None and not isinstance(each, (bool, int, float)):
            return False
    return left > 0


def to_plain(value: Any, *, what: str = "the result") -> Any:
    """Make a value of what JSON has: dict, list, str, int, float, bool and None.

    Floats are never NaN or infinite: these become None. Raises `EncodeError` for values that JSON cannot express,
    such as objects of your own classes, two keys that become one text, and more than 200 levels. The error says where
    the value is.
    """
    try:
        return _plain(value, what, 0)
    except ValueError as error:  # as in `to_json`: of a key, or of a part of a Fraction
        raise EncodeError(f"{what} cannot become JSON: {error}") from None


def _plain(value: Any, at: str, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is int:
        return value
    if kind is float:
        return value if value - value == 0 else None
    if depth > _DEEPEST:
        raise EncodeError(f"{at[:500]} cannot become JSON: it is nested too deeply")
    if kind is dict or isinstance(value, dict):
        return _plain_dict(value, at, depth)
    if kind in (list, tuple, set, frozenset, collections.deque, range):
        return [_plain(each, f"{at}[{index}]", depth + 1) for index, each in enumerate(value)]
    for known, make in _LEAVES:
        if isinstance(value, known):
            return make(value)
    return _of_library(value, at, depth)


def _plain_dict(value: dict[Any, Any], at: str, depth: int) -> dict[str, Any]:
    found = {_key(key, at): _plain(each, f"{at}[{key!r:.60}]", depth + 1) for key, each in value.items()}
    if len(found) < len(value):
        raise EncodeError(f"{at[:500]} cannot become JSON: two of its keys become the same text")
    return found


def _key(key: Any, at: str) -> str:
    if isinstance(key, str):
        return str(key)
    plain = _plain(key, at, 0) if not isinstance(key, (tuple, frozenset)) else None
    if plain is None or isinstance(plain, (list, dict)):
        raise EncodeError(f"{at[:500]} cannot become JSON: its key {key!r:.60} is no text")
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


def _moment(value: Any) -> str | None:
    return None if value != value else str(value.isoformat())  # pandas' NaT is not equal to itself


def _duration(value: dt.timedelta) -> str | None:
    if value != value:
        return None
    # Not the value itself, which may be pandas' own.
    return str(msgspec.to_builtins(dt.timedelta(value.days, value.seconds, value.microseconds)))


_LEAVES: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    ((bytes, bytearray), _base64),
    (memoryview, lambda value: _base64(value.tobytes())),
    ((dt.datetime, dt.date, dt.time), _moment),
    (dt.timedelta, _duration),
    ((Decimal, Fraction, uuid.UUID, PurePath, ZoneInfo), str),
    (dt.tzinfo, str),
    (complex, lambda value: str(complex(value)).strip("()")),
)


def _of_library(value: Any, at: str, depth: int) -> Any:
    name = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        return _of_numpy(value, at, depth)
    if name in ("pandas.DataFrame", "polars.DataFrame", "pyarrow.Table"):
        return _plain(_rows(value, name, at), at, depth)
    if name in ("pandas.NAType", "pandas.NaTType"):
        return None
    for method in ("tolist", "to_list", "to_pylist"):
        if name.partition(".")[0] in ("array", "pandas", "polars", "pyarrow", "torch") and hasattr(value, method):
            return _plain(getattr(value, method)(), at, depth)
    raise EncodeError(
        f"{at[:500]} cannot become JSON: it is an object of type {name}: return plain values, such as a dict"
    )


def _of_numpy(value: Any, at: str, depth: int) -> Any:
    if value.dtype.kind in "mMV" and value.dtype.names is None and not value.ndim:
        return None if value.dtype.kind in "mM" and value != value else str(value)
    if value.dtype.kind in "mM":
        return [_plain(each, f"{at}[{index}]", depth + 1) for index, each in enumerate(value)]
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        value = value.astype("f8")
    return _plain(value.tolist(), at, depth)


def _rows(value: Any, name: str, at: str) -> Any:
    if name == "pyarrow.Table":
        return value.to_pylist()
    if name == "polars.DataFrame":
        return value.to_dicts()
    if not value.columns.is_unique:
        raise EncodeError(f"{at[:500]} cannot become JSON: two columns of the frame have the same name")
    return value.to_dict("records")
