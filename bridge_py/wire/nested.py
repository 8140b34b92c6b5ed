"""Numbers in nested lists: their shape, their order, and the texts for numbers that JSON lacks."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Final

SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of nested lists of numbers, or of an array. Raises `ValueError` if the lists have none."""
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
    """List the numbers of nested lists, in order."""
    return [number for item in value for number in flatten(item)] if isinstance(value, (list, tuple)) else [value]


def fold(items: list[Any], shape: tuple[int, ...]) -> Any:
    """Make nested lists of that shape from exactly as many items as the shape holds."""
    if not shape:
        return items[0]
    step = len(items) // shape[0] if shape[0] else 0
    return [fold(items[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def refold(data: Any, found: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Bring flat data, whose shape is `found`, into another shape. Raises `ValueError` if they do not fit."""
    size = math.prod(shape)
    if size == 0 == math.prod(found):
        return data  # an empty list does not say of which shape its items would be
    if len(found) != 1 or found[0] != size:
        raise ValueError(f"has data of shape {list(found)} where shape is {list(shape)}")
    return fold(data, shape)


def with_special(data: Any) -> Any:
    """Replace NaN and the infinities in nested lists by texts."""
    if isinstance(data, (list, tuple)):
        return [with_special(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data


def without_special(data: Any, null: Any = None) -> Any:
    """Replace the texts of `with_special` by the numbers that they stand for, and None by `null`.

    Some writers of JSON write null for NaN and for the infinities.
    """
    if isinstance(data, list):
        return [without_special(item, null) for item in data]
    return SPECIAL.get(data, data) if isinstance(data, str) else null if data is None else data
