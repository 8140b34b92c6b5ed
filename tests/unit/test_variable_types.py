"""The types of variables: what they take, what they refuse and how they say so."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bridge_py.wire.errors import InvalidValue, error_of, fault_of
from bridge_py.wire.types import get_type, infer_type, list_types, valid, validate


@pytest.mark.parametrize(
    ("name", "value", "canonical"),
    [
        ("float", 42, 42.0),
        ("float", np.float32(1.5), 1.5),
        ("float", Fraction(1, 2), 0.5),
        ("float", math.inf, math.inf),
        ("integer", 42.0, 42),
        ("integer", np.int16(3), 3),
        ("integer", 10**50, 10**50),
        ("string", "", ""),
        ("boolean", False, False),
        ("choice", "a", "a"),
        ("module", "dspy.Predict", "dspy.Predict"),
        ("embedding", [1, 2.5], [1.0, 2.5]),
        ("embedding", np.array([1, 2]), [1.0, 2.0]),
        ("tensor", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("tensor", {"shape": [2, 2], "data": [1, 2, 3, 4]}, [[1, 2], [3, 4]]),
        ("tensor", {"shape": [2, 0], "data": [[], []]}, [[], []]),
        ("tensor", 5, 5),
        ("list", (1, "a"), [1, "a"]),
        ("map", {"a": 1}, {"a": 1}),
    ],
)
def test_what_a_type_takes(name: str, value: Any, canonical: Any) -> None:
    found = validate(value, name)
    assert found == canonical
    assert type(found) is type(canonical)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("float", True, r"True \(bool\) is no number: it cannot be a float"),
        ("float", "1", "is no number"),
        ("float", Decimal(1), "is no number"),
        ("float", 10**400, r"000\.\.\. \(int\) is too large"),
        ("integer", 3.14, r"3.14 \(float\) is no whole number: it cannot be an integer"),
        ("integer", True, "is no whole number"),
        ("integer", "42", "is no whole number"),
        ("integer", math.nan, "is no whole number"),
        ("integer", math.inf, "is no whole number"),
        ("string", b"x", "is no text"),
        ("boolean", 1, "is neither True nor False"),
        ("choice", 1, "is no text"),
        ("embedding", "12", "is no list of numbers"),
        ("embedding", [1, "x"], "'x'"),
        ("embedding", np.zeros((2, 2)), "is no list of numbers"),
        ("tensor", [[1, 2], [3]], "has lists of several lengths"),
        ("tensor", [1, "x"], "holds 'x', which is no number"),
        ("tensor", {"shape": [3], "data": [1, 2]}, r"has data of shape \[2\] where shape is \[3\]"),
        ("tensor", {"data": [1]}, "has no shape and data"),
        ("tensor", np.array(["a"]), "has items of dtype <U1"),
        ("list", "ab", "is no list"),
        ("map", [1], "is no map"),
        ("map", {1: 2}, "has a key that is no text"),
        ("nonsense", 1, r"no variable type 'nonsense'; there are: float, integer, string"),
    ],
)
def test_what_a_type_refuses(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        validate(value, name)
    assert caught.value.type == name
    assert not valid(value, name)


@pytest.mark.parametrize(
    ("name", "value", "constraints", "message"),
    [
        ("float", 0.7, {"min": 1.0}, r"^0.7 is below the minimum of float: min=1.0$"),
        ("float", 0.7, {"max": 0.5}, r"^0.7 is above the maximum of float: max=0.5$"),
        ("float", math.nan, {"min": 0}, "is below the minimum"),
        ("integer", 11, {"min": 1, "max": 10}, "above the maximum of integer: max=10"),
        ("string", "ab", {"min_length": 3}, "is too short of string: min_length=3"),
        ("string", "abcd", {"max_length": 3}, "is too long"),
        ("string", "abc", {"pattern": "^x"}, "does not match the pattern"),
        ("string", "abc", {"enum": ["x", "y"]}, r"none of the choices of string: enum=\['x', 'y'\]"),
        ("choice", "z", {"choices": ["x", "y"]}, "'z' is none of the choices of choice"),
        ("module", "z", {"choices": ["x"]}, "none of the choices"),
        ("embedding", [1.0], {"dimensions": 2}, "another number of dimensions"),
        ("tensor", [[1, 2]], {"shape": [2, None]}, "another shape"),
        ("tensor", [[1, 2]], {"dtype": "float64"}, "another dtype"),
        ("list", [1, "a"], {"element_type": "integer"}, "holds an element of another type"),
        ("map", {"a": 1}, {"required": ["b"]}, "lacks a required key"),
        ("map", {"a": 1}, {"value_type": "string"}, "holds a value of another type"),
    ],
)
def test_constraints(name: str, value: Any, constraints: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        validate(value, name, constraints)
    assert caught.value.constraint in constraints


@pytest.mark.parametrize(
    ("name", "value", "constraints"),
    [
        ("float", 1, {"min": 1, "max": 1}),
        ("string", "abc", {"pattern": "b", "min_length": 3, "max_length": 3, "enum": ["abc"]}),
        ("embedding", np.zeros(3), {"dimensions": 3}),
        ("tensor", np.zeros((2, 5)), {"shape": [2, None], "dtype": "float64"}),
        ("tensor", [[True], [False]], {"shape": [None, 1], "dtype": "bool"}),
        ("list", [1, 2], {"element_type": "integer", "max_length": 2}),
        ("map", {"a": "x"}, {"required": ["a"], "value_type": "string"}),
    ],
)
def test_constraints_that_are_met(name: str, value: Any, constraints: dict[str, Any]) -> None:
    validate(value, name, constraints)


@pytest.mark.parametrize(
    ("name", "constraints", "message"),
    [
        ("float", {"minimum": 1}, "float has no constraint 'minimum'; there are: min, max"),
        ("boolean", {"min": 1}, "boolean has no constraint 'min'; there are: none"),
        ("float", {"min": "1"}, "min='1' of float: give a number"),
        ("integer", {"min": 2, "max": 1}, "min=2 of integer is above max=1"),
        ("string", {"min_length": -1}, "give a length"),
        ("string", {"pattern": "("}, "give a regular expression"),
        ("choice", {"choices": []}, "give a list of texts"),
        ("tensor", {"shape": "2x2"}, "give a list of lengths, None for any"),
        ("list", {"element_type": "nonsense"}, "give the name of a type"),
    ],
)
def test_constraints_that_cannot_be(name: str, constraints: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        get_type(name).check_constraints(constraints)


def test_inferred_types() -> None:
    values = [True, 1, 1.5, "x", [1], {"a": 1}, np.zeros(2), np.float32(1), np.int8(1)]
    expected = ["boolean", "integer", "float", "string", "list", "map", "tensor", "float", "integer"]
    assert [infer_type(value) for value in values] == expected
    assert set(expected) < set(list_types())
    with pytest.raises(InvalidValue, match="has no variable type: name one"):
        infer_type(object())


def test_the_error_crosses_the_wire() -> None:
    with pytest.raises(InvalidValue) as caught:
        validate(1, "float", {"min": 2})
    again = error_of(fault_of(caught.value))
    assert type(again) is InvalidValue
    assert str(again) == str(caught.value)
