"""Values of the types of variables, with constraints that they meet, and values that must be refused."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from bridge_py.wire.nested import fold
from bridge_py.wire.types import get_type, list_types

from .refused import breaking, strangers
from .sendable import Values, floats, plain_values

Possible = dict[str, Values]
_LARGEST: Final = 10**400  # beyond any float
Made = st.SearchStrategy[tuple[Any, Possible]]


class TypedValue(NamedTuple):
    """Arguments to register a variable: the name of its type, a value, and constraints that the value meets."""

    type: str
    value: Any
    constraints: dict[str, Any]


def variable_types() -> st.SearchStrategy[str]:
    """The names of all types of variables."""
    return st.sampled_from(list_types())


def variables(*types: str) -> st.SearchStrategy[TypedValue]:
    """Types, values and constraints of variables, of the given types or of all.

    A value has the form that its type gives it: the value that is read from the variable is `equal` to it. Raises
    `InvalidValue` for an unknown type.
    """
    made = [_typed(get_type(name).name) for name in types or list_types()]
    return st.one_of(made)


def bad_values(type: str, constraints: Mapping[str, Any] | None = None) -> Values:
    """Values that a variable of a type, with constraints, must refuse: of another type, or beyond a constraint.

    Raises `InvalidValue` for invalid constraints.
    """
    bounds = constraints or {}
    get_type(type).check_constraints(bounds)
    kinds = [strangers(type), *(breaking(type, name, bound) for name, bound in bounds.items())]
    # one_of() alone would give each kind of stranger as much weight as a constraint.
    return st.sampled_from([kind for kind in kinds if not kind.is_empty]).flatmap(lambda kind: kind)


@st.composite
def _typed(draw: st.DrawFn, name: str) -> TypedValue:
    value, possible = draw(_MADE[name]())
    return TypedValue(name, value, draw(st.fixed_dictionaries({}, optional=possible)))


# Each function makes a value, and strategies for the constraints that the value meets.


def _floats() -> Made:
    return floats().map(lambda value: (value, {} if math.isnan(value) else _float_bounds(value)))


def _float_bounds(value: float) -> Possible:
    low, high = st.just(value) | st.floats(max_value=value), st.just(value) | st.floats(min_value=value)
    if math.isinf(value):
        return {"min": low, "max": high}
    return {
        "min": low | st.integers(max_value=math.floor(value)),
        "max": high | st.integers(min_value=math.ceil(value)),
    }


def _integers() -> Made:
    made = st.one_of(st.integers(), st.integers(-_LARGEST, _LARGEST))
    return made.map(lambda value: (value, _integer_bounds(value)))


def _integer_bounds(value: int) -> Possible:
    edge = st.just(value)
    return {"min": edge | st.integers(max_value=value), "max": edge | st.integers(min_value=value)}


def _lengths(value: Any) -> Possible:
    size = len(value)
    edge = st.just(size)
    return {"min_length": edge | st.integers(0, size), "max_length": edge | st.integers(size, size + 1000)}


def _strings() -> Made:
    def possible(value: str) -> Possible:
        return {**_lengths(value), "pattern": _patterns(value), "enum": _choices(value)}

    return st.text().map(lambda value: (value, possible(value)))


def _patterns(value: str) -> st.SearchStrategy[str]:
    size = len(value)
    starts = st.integers(0, size).map(lambda end: "^" + re.escape(value[:end]))
    sizes = st.integers(0, size).map(lambda least: rf"(?s)\A.{{{least},{size}}}\Z")
    return st.one_of(starts, sizes, st.just(re.escape(value)))


def _choices(value: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.text(), max_size=3).flatmap(lambda others: st.permutations([value, *others]))


def _booleans() -> Made:
    return st.booleans().map(lambda value: (value, {}))


def _of_choices(least: int) -> Made:
    return st.text(min_size=least).map(lambda value: (value, {"choices": _choices(value)}))


def _embeddings() -> Made:
    return st.lists(floats()).map(lambda value: (value, {"dimensions": st.just(len(value))}))


def _tensors() -> Made:
    integers = st.integers(-(2**63), 2**63 - 1)
    nested = _nested("float64", floats()) | _nested("int64", integers) | _nested("bool", st.booleans())
    return nested | _numeric_arrays() if importlib.util.find_spec("numpy") else nested


@st.composite
def _nested(draw: st.DrawFn, dtype: str, numbers: Values) -> tuple[Any, Possible]:
    shape: tuple[int, ...] = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    is_empty = draw(st.booleans())
    if shape and is_empty:
        shape = (*shape[:-1], 0)  # an empty list says nothing of the shape inside it
    size = math.prod(shape)
    value = fold(draw(st.lists(numbers, min_size=size, max_size=size)), shape)
    return value, _tensor_bounds(shape, dtype if size else "float64")


def _numeric_arrays() -> Made:
    from hypothesis.extra import numpy as hnp

    kinds = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(sizes=(16, 32, 64)),
    )
    made = hnp.arrays(kinds, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    return made.map(lambda value: (value, _tensor_bounds(value.shape, str(value.dtype))))


def _tensor_bounds(shape: tuple[int, ...], dtype: str) -> Possible:
    sizes = st.tuples(*(st.sampled_from([size, None]) for size in shape)).map(list)
    return {"shape": sizes, "dtype": st.just(dtype)}


_FINITE: Final = st.floats(allow_nan=False, allow_infinity=False)
# Lists and maps hold values that JSON has.
_ELEMENTS: Final[dict[str | None, Values]] = {
    None: plain_values(max_leaves=4),
    "float": _FINITE,
    "integer": st.integers(),
    "string": st.text(),
    "boolean": st.booleans(),
    "module": st.text(min_size=1),
    "embedding": st.lists(_FINITE, max_size=3),
    "tensor": st.lists(st.lists(st.integers(), min_size=2, max_size=2), max_size=2),
    "list": st.lists(plain_values(max_leaves=2), max_size=2),
    "map": st.dictionaries(st.text(), plain_values(max_leaves=2), max_size=2),
}
_ELEMENT_TYPES: Final = st.sampled_from(list(_ELEMENTS))


@st.composite
def _lists(draw: st.DrawFn) -> tuple[Any, Possible]:
    of = draw(_ELEMENT_TYPES)
    value = draw(st.lists(_ELEMENTS[of], max_size=5))
    return value, {**_lengths(value), **({"element_type": st.just(of)} if of else {})}


@st.composite
def _maps(draw: st.DrawFn) -> tuple[Any, Possible]:
    of = draw(_ELEMENT_TYPES)
    value = draw(st.dictionaries(st.text(), _ELEMENTS[of], max_size=5))
    required = {"required": st.lists(st.sampled_from(list(value)), min_size=1, unique=True)} if value else {}
    return value, {**required, **({"value_type": st.just(of)} if of else {})}


_MADE: Final[dict[str, Callable[[], Made]]] = {
    "float": _floats,
    "integer": _integers,
    "string": _strings,
    "boolean": _booleans,
    "choice": lambda: _of_choices(0),
    "module": lambda: _of_choices(1),
    "embedding": _embeddings,
    "tensor": _tensors,
    "list": _lists,
    "map": _maps,
}
