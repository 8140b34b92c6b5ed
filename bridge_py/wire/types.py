"""The types of variables: the values of each type, its constraints, and its JSON on the wire of the contract.

type       value                                  constraints
----       -----                                  -----------
float      float; an int becomes one              min, max
integer    int of 10,000 digits; 42.0 becomes 42       min, max
string     str                                    min_length, max_length, pattern, enum
boolean    bool
choice     str                                    choices
module     str, the name of a module or class     choices
embedding  list of floats, or a 1-d array         dimensions
tensor     nested lists, or a numpy array         shape (None: any length), dtype
list       list                                   element_type, min_length, max_length
map        dict with text keys                    value_type, required
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, ClassVar, Final

import msgspec

from .errors import InvalidValue
from .nested import SPECIAL, flatten, refold, shape_of, with_special, without_special
from .patterns import check_given, finds

_LONGEST: Final = 100  # characters of a value in a message
_SAFE_DIGITS: Final = 4000  # int() and str() refuse longer ints, because they would take too long
_MOST_DIGITS: Final = 10_000
_SAFE_BITS: Final = 33_000  # ints of so many bits have fewer digits


class Constraint(msgspec.Struct, frozen=True):
    """One constraint of a type: which bounds it takes, and which values it lets pass."""

    takes: str
    is_bound: Callable[[Any], bool]
    holds: Callable[[Any, Any], bool]
    says: str


class VariableType(ABC):
    """One type of variables."""

    name: ClassVar[str]
    constraints: ClassVar[Mapping[str, Constraint]] = {}

    @abstractmethod
    def validate(self, value: Any) -> Any:
        """Convert a value to the form of this type. Raises `InvalidValue` if it is no value of this type."""

    def serialize(self, value: Any) -> bytes:
        """Encode a value as JSON. Raises `InvalidValue`."""
        try:
            return json.dumps(self.validate(value), ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refuse(value, f"has no JSON ({error})") from None

    def deserialize(self, data: bytes) -> Any:
        """Decode a value from JSON. Raises `InvalidValue`."""
        return self.validate(load_json(data, self.name))

    def check_constraints(self, constraints: Mapping[str, Any]) -> None:
        """Raise `InvalidValue` for constraints that this type does not have, or that no value could meet."""
        for name, bound in constraints.items():
            known = self.constraints.get(name)
            if known is None:
                there = ", ".join(self.constraints) or "none"
                raise InvalidValue(f"{self.name} has no constraint {name!r}; there are: {there}", self.name, name)
            if not known.is_bound(bound):
                raise InvalidValue(f"{name}={_clip(bound)} of {self.name}: give {known.takes}", self.name, name)
        for low, high in (("min", "max"), ("min_length", "max_length")):
            if low in constraints and high in constraints and constraints[low] > constraints[high]:
                text = f"{low}={constraints[low]} of {self.name} is above {high}={constraints[high]}"
                raise InvalidValue(text, self.name, low)

    def validate_constraints(self, value: Any, constraints: Mapping[str, Any]) -> None:
        """Raise `InvalidValue` if a value, which `validate` has converted, does not meet the constraints."""
        self.check_constraints(constraints)
        for name, bound in constraints.items():
            known = self.constraints[name]
            if not known.holds(value, bound):
                raise InvalidValue(
                    f"{_clip(value)} {known.says} of {self.name}: {name}={_clip(bound)}", self.name, name
                )

    def _refuse(self, value: Any, why: str) -> InvalidValue:
        what = f"an {self.name}" if self.name[0] in "aeiou" else f"a {self.name}"
        return InvalidValue(f"{_clip(value)} ({type(value).__name__}) {why}: it cannot be {what}", self.name)


def check_given_constraints(constraints: object) -> None:
    """Raise `InvalidValue` for constraints of others that would take endless time to check."""
    if isinstance(constraints, Mapping) and "pattern" in constraints:
        check_given(constraints["pattern"])


def get_type(name: str) -> VariableType:
    """Return the type of that name. Raises `InvalidValue`, which lists all types."""
    found = _TYPES.get(name)
    if found is None:
        raise InvalidValue(f"no variable type {name!r}; there are: {', '.join(_TYPES)}", name)
    return found


def list_types() -> list[str]:
    """The names of all types."""
    return list(_TYPES)


def infer_type(value: Any) -> str:
    """The name of the type that a value would have by itself. Raises `InvalidValue` if there is none."""
    for kind, name in _INFERRED:
        if isinstance(value, kind):
            return name
    if hasattr(value, "__array__"):
        return "tensor"
    raise InvalidValue(f"{_clip(value)} ({type(value).__name__}) has no variable type: name one", "")


def valid(value: Any, name: str, constraints: Mapping[str, Any] | None = None) -> bool:
    """Whether a value belongs to the type of that name, and meets the constraints."""
    try:
        validate(value, name, constraints)
    except InvalidValue:
        return False
    return True


def validate(value: Any, name: str, constraints: Mapping[str, Any] | None = None) -> Any:
    """Convert a value to the form of the type of that name. Raises `InvalidValue`, also for wrong constraints."""
    kind = get_type(name)
    found = kind.validate(value)
    kind.validate_constraints(found, constraints or {})
    return found


def load_json(data: bytes, what: str) -> Any:
    """Read JSON with ints of any size. Raises `InvalidValue`."""
    try:
        return json.loads(data, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{_clip(bytes(data))} is no JSON of a {what}: {error}", what) from None


def _parse_int(text: str) -> int:
    if len(text) < _SAFE_DIGITS:
        return int(text)
    if (digits := len(text.removeprefix("-"))) > _MOST_DIGITS:
        raise ValueError(f"a number of {digits} digits; it may have {_MOST_DIGITS}")
    return int(Decimal(text))


def _clip(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<its repr() raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_number(bound: Any) -> bool:
    if not isinstance(bound, Real) or isinstance(bound, bool):
        return False
    return isinstance(bound, Integral) or not math.isnan(bound)  # ints may be too large for a float


def _is_length(bound: Any) -> bool:
    return isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0


def _is_texts(bound: Any) -> bool:
    return isinstance(bound, (list, tuple)) and bool(bound) and all(isinstance(item, str) for item in bound)


def _is_pattern(bound: Any) -> bool:
    try:
        return isinstance(bound, str) and re.compile(bound) is not None
    except re.error:
        return False


def _is_shape(bound: Any) -> bool:
    return isinstance(bound, (list, tuple)) and all(size is None or _is_length(size) for size in bound)


def _is_type(bound: Any) -> bool:
    return bound in _TYPES


def _is_text(bound: Any) -> bool:
    return isinstance(bound, str)


_RANGE: Final = {
    "min": Constraint("a number", _is_number, lambda value, bound: bool(value >= bound), "is below the minimum"),
    "max": Constraint("a number", _is_number, lambda value, bound: bool(value <= bound), "is above the maximum"),
}
_LENGTHS: Final = {
    "min_length": Constraint("a length", _is_length, lambda value, bound: len(value) >= bound, "is too short"),
    "max_length": Constraint("a length", _is_length, lambda value, bound: len(value) <= bound, "is too long"),
}
_CHOICES: Final = Constraint(
    "a list of texts", _is_texts, lambda value, bound: value in bound, "is none of the choices"
)


class FloatType(VariableType):
    """A float. An int becomes one. NaN and the infinities are JSON strings."""

    name = "float"
    constraints: ClassVar[Mapping[str, Constraint]] = _RANGE

    def validate(self, value: Any) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise self._refuse(value, "is no number")
        try:
            return float(value)
        except OverflowError:
            raise self._refuse(value, "is too large") from None

    def serialize(self, value: Any) -> bytes:
        value = self.validate(value)
        if math.isfinite(value):
            return repr(value).encode()
        return b'"NaN"' if math.isnan(value) else b'"Infinity"' if value > 0 else b'"-Infinity"'

    def deserialize(self, data: bytes) -> float:
        found = load_json(data, self.name)
        return self.validate(SPECIAL.get(found, found) if isinstance(found, str) else found)


class IntegerType(VariableType):
    """An int of up to 10,000 digits. A float without a fraction becomes one."""

    name = "integer"
    constraints: ClassVar[Mapping[str, Constraint]] = _RANGE

    def validate(self, value: Any) -> int:
        if isinstance(value, Integral) and not isinstance(value, bool):
            number = value.__int__()
            if number.bit_length() > _SAFE_BITS and abs(number) >= 10**_MOST_DIGITS:
                raise self._refuse(value, f"has more than {_MOST_DIGITS} digits")
            return number
        if isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer():
            return int(float(value))
        raise self._refuse(value, "is no whole number")

    def serialize(self, value: Any) -> bytes:
        # str() refuses ints of more than 4300 digits; Decimal takes them.
        return format(Decimal(self.validate(value)), "f").encode()

    def deserialize(self, data: bytes) -> int:
        found = load_json(data, self.name)
        return int(found) if isinstance(found, bool) else self.validate(found)  # some peers write 1 as true


class StringType(VariableType):
    """A str."""

    name = "string"
    constraints: ClassVar[Mapping[str, Constraint]] = {
        **_LENGTHS,
        "pattern": Constraint(
            "a regular expression",
            _is_pattern,
            lambda value, bound: finds(bound, value),
            "does not match the pattern",
        ),
        "enum": _CHOICES,
    }

    def validate(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refuse(value, "is no text")
        return str(value)


class BooleanType(VariableType):
    """A bool."""

    name = "boolean"

    def validate(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refuse(value, "is neither True nor False")
        return value


class ChoiceType(StringType):
    """A str that is one of the `choices`."""

    name = "choice"
    constraints: ClassVar[Mapping[str, Constraint]] = {"choices": _CHOICES}


class ModuleType(StringType):
    """The name of a module or class. The empty text stands for none."""

    name = "module"
    constraints: ClassVar[Mapping[str, Constraint]] = {"choices": _CHOICES}


class EmbeddingType(VariableType):
    """A list of floats, also from a one-dimensional array."""

    name = "embedding"
    constraints: ClassVar[Mapping[str, Constraint]] = {
        "dimensions": Constraint(
            "a length",
            _is_length,
            lambda value, bound: len(value) == bound,
            "has another number of dimensions than that",
        )
    }

    def validate(self, value: Any) -> list[float]:
        items = value.tolist() if hasattr(value, "__array__") else value
        if not isinstance(items, (list, tuple)):
            raise self._refuse(value, "is no list of numbers")
        try:
            return [_FLOAT.validate(item) for item in items]
        except InvalidValue as error:
            raise self._refuse(value, f"is no list of numbers ({error})") from None

    def serialize(self, value: Any) -> bytes:
        return json.dumps(with_special(self.validate(value))).encode()

    def deserialize(self, data: bytes) -> list[float]:
        return self.validate(without_special(load_json(data, self.name), null=math.nan))


class TensorType(VariableType):
    """Numbers, or bools, in nested lists of equal lengths, or a numpy array. `{"shape", "data"}` is taken too."""

    name = "tensor"
    constraints: ClassVar[Mapping[str, Constraint]] = {
        "shape": Constraint(
            "a list of lengths, None for any", _is_shape, lambda value, bound: _fits(shape_of(value), bound),
            "has another shape than that",
        ),
        "dtype": Constraint(
            "a name", _is_text, lambda value, bound: _dtype_of(value) == bound, "has another dtype than that"
        ),
    }  # fmt: skip

    def validate(self, value: Any) -> Any:
        if hasattr(value, "__array__"):
            dtype = getattr(value, "dtype", None)  # a frame has no dtype, and torch's dtype has no kind
            if getattr(dtype, "kind", "?") not in "biuf":
                raise self._refuse(value, f"has items of dtype {dtype}")
            return value
        if isinstance(value, dict):
            return self._of_dict(value)
        try:
            shape_of(value)
        except ValueError as error:
            raise self._refuse(value, str(error)) from None
        return value

    def serialize(self, value: Any) -> bytes:
        value = self.validate(value)
        data = value.tolist() if hasattr(value, "__array__") else value
        found = {"shape": list(shape_of(value)), "data": with_special(data)}
        return json.dumps(found, allow_nan=False).encode()

    def deserialize(self, data: bytes) -> Any:
        found = load_json(data, self.name)
        if isinstance(found, dict) and "data" in found:
            found["data"] = without_special(found["data"], null=math.nan)
        elif isinstance(found, list):
            found = without_special(found, null=math.nan)
        return self.validate(found)

    def _of_dict(self, value: dict[str, Any]) -> Any:
        shape, data = value.get("shape"), value.get("data")
        try:
            if "data" not in value or not _is_shape(shape) or not all(map(_is_length, shape or ())):
                raise ValueError("has no shape and data")
            assert shape is not None
            data = without_special(data)
            found = shape_of(data)
            if found != tuple(shape):
                data = refold(data, found, tuple(shape))
        except (ValueError, RecursionError) as error:
            raise self._refuse(value, str(error)) from None
        return data


class ListType(VariableType):
    """A list of plain values."""

    name = "list"
    constraints: ClassVar[Mapping[str, Constraint]] = {
        **_LENGTHS,
        "element_type": Constraint(
            "the name of a type", _is_type, lambda value, bound: all(valid(item, bound) for item in value),
            "holds an element of another type than that",
        ),
    }  # fmt: skip

    def validate(self, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise self._refuse(value, "is no list")
        return list(value)


class MapType(VariableType):
    """A dict of plain values, with text as keys."""

    name = "map"
    constraints: ClassVar[Mapping[str, Constraint]] = {
        "required": Constraint(
            "a list of texts", _is_texts, lambda value, bound: set(bound) <= value.keys(), "lacks a required key"
        ),
        "value_type": Constraint(
            "the name of a type", _is_type, lambda value, bound: all(valid(item, bound) for item in value.values()),
            "holds a value of another type than that",
        ),
    }  # fmt: skip

    def validate(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._refuse(value, "is no map")
        if not all(isinstance(key, str) for key in value):
            raise self._refuse(value, "has a key that is no text")
        return dict(value)


def _fits(shape: tuple[int, ...], bound: Any) -> bool:
    return len(shape) == len(bound) and all(want in (None, size) for size, want in zip(shape, bound, strict=True))


def _dtype_of(value: Any) -> str:
    if hasattr(value, "__array__"):
        return str(value.dtype)
    kinds = {type(item) for item in flatten(value)}
    return "bool" if kinds == {bool} else "int64" if kinds == {int} else "float64"


_FLOAT: Final = FloatType()
_TYPES: Final[dict[str, VariableType]] = {
    kind.name: kind
    for kind in (
        _FLOAT, IntegerType(), StringType(), BooleanType(), ChoiceType(), ModuleType(), EmbeddingType(), TensorType(),
        ListType(), MapType(),
    )
}  # fmt: skip
_INFERRED: Final[tuple[tuple[Any, str], ...]] = (
    (bool, "boolean"),
    (Integral, "integer"),
    (Real, "float"),
    (str, "string"),
    ((list, tuple), "list"),
    (Mapping, "map"),
)
