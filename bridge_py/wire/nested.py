"""Numbers in nested lists: their shape, their order, and how JSON has those that it has no numbers for."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Final

SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of nested lists of numbers, or of an array. Raises `ValueError` if they have none."""
    if hasattr(value, "__array__"):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        shapes = {shape_of(item) for item in value}
        if len(shapes) > 1:
            raise ValueError("has lists of several lengths")
        return (len(value), *(shapes.pop() if shapes else ()))
    if not isinstance(value, Real):
        raise ValueError(f"holds {value!r:.100}, which is no number")
    return ()


def flatten(value: Any) -> list[Any]:
    """The numbers of nested lists, in order."""
    return [number for item in value for number in flatten(item)] if isinstance(value, (list, tuple)) else [value]


def fold(items: list[Any], shape: tuple[int, ...]) -> Any:
    """Nested lists of that shape, of as many items as it takes."""
    if not shape:
        return items[0]
    step = len(items) // shape[0] if shape[0] else 0
    return [fold(items[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def refold(data: Any, found: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Flat data in another shape. Raises `ValueError` if they do not fit."""
    size = math.prod(shape)
    if size == 0 == math.prod(found):
        return data  # lists say nothing of what is inside of an empty one
    if len(found) != 1 or found[0] != size:
        raise ValueError(f"has data of shape {list(found)} where shape is {list(shape)}")
    return fold(data, shape)


def with_special(data: Any) -> Any:
    """Numbers in nested lists, with texts for NaN and the infinities."""
    if isinstance(data, (list, tuple)):
        return [with_special(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data


def without_special(data: Any) -> Any:
    """What `with_special` was given."""
    if isinstance(data, list):
        return [without_special(item) for item in data]
    return SPECIAL.get(data, data) if isinstance(data, str) else data
