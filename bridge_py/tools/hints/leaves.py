"""JSON Schemas of classes that are no containers: Python's own, and those of numpy, pandas, polars, pyarrow and torch.

Classes of libraries are found by their names, so that no library is imported.
"""

from __future__ import annotations

from typing import Any, Final, get_args, get_origin

Schema = dict[str, Any]
#: The keyword that names the class of which a host makes a value before it sends it.
PYTHON: Final = "x-python"
DTYPE: Final = "x-dtype"
DIMENSIONS: Final = "x-dimensions"

_BASE64: Final[Schema] = {"type": "string", "contentEncoding": "base64"}
#: A float in results: JSON has neither NaN nor infinities.
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"], "description": "null stands for NaN and the infinities"}
_DECIMAL: Final = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,6})?$"
_COMPLEX: Final = "a complex number as Python writes it, such as 1+2j"
_ROWS: Final[Schema] = {"type": "array", "items": {"type": "object"}, "description": "a table: a list of its rows"}
_COLUMN: Final[Schema] = {"type": "array", "description": "a column: a list of its values"}

_INPUT: Final[dict[str, Schema]] = {
    "builtins.NoneType": {"type": "null"},
    "builtins.bool": {"type": "boolean"},
    "builtins.int": {"type": "integer"},
    "builtins.float": {"type": "number"},
    "builtins.str": {"type": "string"},
    "builtins.bytes": _BASE64,
    "builtins.bytearray": _BASE64,
    "builtins.memoryview": _BASE64,
    "builtins.complex": {"type": "string", "description": _COMPLEX, PYTHON: "complex"},
    "datetime.datetime": {"type": "string", "format": "date-time"},
    "datetime.date": {"type": "string", "format": "date"},
    "datetime.time": {"type": "string", "format": "time"},
    "datetime.timedelta": {"type": "string", "format": "duration"},
    "uuid.UUID": {"type": "string", "format": "uuid"},
    "decimal.Decimal": {"type": ["string", "number"], "pattern": _DECIMAL, "description": "a decimal number"},
    "fractions.Fraction": {
        "type": "string",
        "pattern": r"^[+-]?[0-9]{1,1000}(/0*[1-9][0-9]{0,1000})?$",
        "description": "a fraction, such as 1/3",
        PYTHON: "fractions.Fraction",
    },
    "zoneinfo.ZoneInfo": {
        "type": "string",
        "description": "the name of a time zone, such as Europe/Berlin",
        PYTHON: "zoneinfo.ZoneInfo",
    },
    **{
        f"pathlib.{name}": {"type": "string", "description": "a path", PYTHON: f"pathlib.{name}"}
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    "pandas.Timestamp": {"type": "string", "format": "date-time", PYTHON: "pandas.Timestamp"},
    "pandas.Timedelta": {"type": "string", "format": "duration", PYTHON: "pandas.Timedelta"},
    "pandas.DataFrame": {**_ROWS, PYTHON: "pandas.DataFrame"},
    "pandas.Series": {**_COLUMN, PYTHON: "pandas.Series"},
    "polars.DataFrame": {**_ROWS, PYTHON: "polars.DataFrame"},
    "polars.Series": {**_COLUMN, PYTHON: "polars.Series"},
    "pyarrow.Table": {**_ROWS, PYTHON: "pyarrow.Table"},
    "torch.Tensor": {
        "type": "array",
        "items": {"type": ["number", "boolean", "array"]},
        "description": "a tensor: nested lists of numbers, of which all of one level have the same length",
        PYTHON: "torch.Tensor",
    },
}
_MOMENT: Final[Schema] = {"type": "string", "description": "a date and time in ISO 8601"}
_TENSOR: Final[Schema] = {"description": "a tensor: nested lists of numbers"}
_OUTPUT: Final[dict[str, Schema]] = _INPUT | {
    "builtins.float": NUMBER_OR_NULL,
    "datetime.datetime": _MOMENT,  # "date-time" would ask for an offset
    "datetime.time": {"type": "string", "description": "a time in ISO 8601"},
    "decimal.Decimal": {"type": "string", "description": "a decimal number"},
    "builtins.range": {"type": "array", "items": {"type": "integer"}},
    "array.array": {"type": "array", "items": {"type": ["number", "string", "null"]}},
    "pandas.Timestamp": {"type": ["string", "null"], "description": "a date and time in ISO 8601"},
    "pandas.Timedelta": {"type": ["string", "null"], "description": "a duration in ISO 8601"},
    "torch.Tensor": _TENSOR,
}


def schema_of(kind: type, args: tuple[Any, ...], output: bool) -> Schema | None:
    """Describe a class; None if no schema describes it."""
    if (name := f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}") == "numpy.ndarray":
        return _array(args, output)
    if name.startswith("numpy.") and any(base.__qualname__ == "generic" for base in kind.__mro__):
        return _numpy_scalar(kind, output)
    found = (_OUTPUT if output else _INPUT).get(name)
    return None if found is None else dict(found)


def _numpy_scalar(kind: type, output: bool) -> Schema | None:
    import numpy as np  # the hint has imported it

    if issubclass(kind, np.bool_):
        return {"type": "boolean"}
    if issubclass(kind, np.timedelta64):
        return None
    if issubclass(kind, np.integer):
        abstract = (np.integer, np.signedinteger, np.unsignedinteger)
        concrete = np.int64 if kind in abstract else kind
        limits = np.iinfo(concrete)
        made: Schema = {"type": "integer", PYTHON: f"numpy.{concrete.__name__}"}
        return made if output else made | {"minimum": int(limits.min), "maximum": int(limits.max)}
    if issubclass(kind, np.complexfloating):
        name = "complex128" if kind is np.complexfloating else kind.__name__
        return {"type": "string", "description": _COMPLEX, PYTHON: f"numpy.{name}"}
    if issubclass(kind, np.floating) or kind in (np.number, np.inexact):
        name = "float64" if kind in (np.floating, np.number, np.inexact) else kind.__name__
        return dict(_OUTPUT["builtins.float"]) if output else {"type": "number", PYTHON: f"numpy.{name}"}
    if issubclass(kind, np.str_):
        return {"type": "string", PYTHON: "numpy.str_"}
    return None


def _array(args: tuple[Any, ...], output: bool) -> Schema:
    shape = get_args(args[0]) if args and get_origin(args[0]) is tuple else ()
    dimensions = None if not shape or ... in shape else len(shape)
    of = get_args(args[1])[0] if len(args) > 1 and get_args(args[1]) else Any
    item = _item(of, output)
    items = f" of {of.__name__}" if isinstance(of, type) else ""
    depth = f" with {dimensions} dimensions" if dimensions else ""
    described = f"a numpy array{items}{depth}: nested lists, of which all of one level have the same length"
    found: Schema = {"description": described, PYTHON: "numpy.ndarray"}
    if isinstance(of, type) and of.__module__ == "numpy":
        found[DTYPE] = of.__name__
    if dimensions is None:
        return found | ({"items": {}} if output else {"type": "array", "items": _nested(item)})
    found[DIMENSIONS] = dimensions
    for _ in range(dimensions - 1):
        item = {"type": "array", "items": item}
    return {"type": "array", "items": item} | found


def _nested(item: Schema) -> Schema:
    kinds = item.get("type")
    return {} if kinds is None else {"type": ["array", *(kinds if isinstance(kinds, list) else [kinds])]}


def _item(of: Any, output: bool) -> Schema:
    if not isinstance(of, type):
        return {} if output else {"type": ["number", "boolean", "string"]}
    found = _numpy_scalar(of, output) or {}
    return {key: value for key, value in found.items() if key in ("type", "minimum", "maximum")}
