"""Values that a type of variables refuses. They are made to be wrong: nothing here asks the type about them."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from bridge_py.wire.nested import fold

from .sendable import Values, floats, plain_values

_TEXTS: Final = ("", "\0", " ", "\n", "0", "7", "-1", "a", "Z", "_", ".", "é", "~~~", "a b", "0" * 40, "x" * 40)


def strangers(name: str) -> Values:
    """Values that are not of the type with this name."""
    return _STRANGERS[name]()


def breaking(name: str, constraint: str, bound: Any) -> Values:
    """Values of the type with this name that do not meet a constraint; none if all its values do."""
    return _BREAKING[constraint](name, bound)


def _no_numbers() -> Values:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.text(),
        st.binary(),
        st.complex_numbers(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.integers()),
    )


def _no_texts() -> Values:
    return st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.dates())


def _no_integers() -> Values:
    halves = st.integers(-(10**9), 10**9).map(lambda whole: whole + 0.5)
    return st.one_of(_no_numbers(), halves, st.sampled_from([math.nan, math.inf, -math.inf]))


def _no_embeddings() -> Values:
    lists = st.tuples(st.lists(st.floats()), _no_numbers(), st.lists(st.floats()))
    with_one = lists.map(lambda parts: [*parts[0], parts[1], *parts[2]])
    return st.one_of(with_one, st.none(), st.text(), st.binary(), st.floats(), st.dictionaries(st.text(), st.floats()))


def _no_tensors() -> Values:
    ragged = st.lists(st.floats(), max_size=3).map(lambda row: [row, [*row, 0.0]])
    mixed = st.lists(st.floats(), min_size=1, max_size=3).map(lambda row: [row, 0.0])
    no_data = st.dictionaries(st.text(), st.integers())
    return st.one_of(
        ragged, mixed, no_data, st.none(), st.text(), st.complex_numbers(), st.lists(st.text(), min_size=1)
    )


def _no_lists() -> Values:
    return st.one_of(
        st.none(), st.text(), st.binary(), st.integers(), st.sets(st.integers()), st.dictionaries(st.text(), st.text())
    )


def _no_maps() -> Values:
    other_keys = st.dictionaries(st.integers() | st.binary(), st.integers(), min_size=1)
    return st.one_of(other_keys, st.none(), st.text(), st.integers(), st.lists(st.tuples(st.text(), st.text())))


_STRANGERS: Final[dict[str, Callable[[], Values]]] = {
    "float": lambda: _no_numbers() | st.integers(2**1024, 2**1030),
    "integer": _no_integers,
    "string": _no_texts,
    "boolean": lambda: st.one_of(st.none(), st.sampled_from([0, 1, 0.0, 1.0]), st.text(), st.lists(st.booleans())),
    "choice": _no_texts,
    "module": _no_texts,
    "embedding": _no_embeddings,
    "tensor": _no_tensors,
    "list": _no_lists,
    "map": _no_maps,
}


def _below(name: str, bound: Any) -> Values:
    """Numbers below a bound. For floats also NaN, which is not above any bound."""
    if name == "integer":
        return st.nothing() if bound == -math.inf else _integers_below(bound)
    edge = _largest_below(bound)
    numbers = st.just(math.nan)
    return numbers if edge is None else numbers | st.floats(max_value=edge)


def _above(name: str, bound: Any) -> Values:
    return _below(name, -bound).map(lambda value: -value)


def _integers_below(bound: Any) -> Values:
    return st.integers(max_value=None if bound == math.inf else math.ceil(bound) - 1)


def _largest_below(bound: Any) -> float | None:
    try:
        edge = float(bound)
    except OverflowError:
        return sys.float_info.max if bound > 0 else -math.inf
    return None if edge == -math.inf else math.nextafter(edge, -math.inf)


def _too_short(name: str, bound: int) -> Values:
    if bound == 0:
        return st.nothing()
    return st.text(max_size=bound - 1) if name == "string" else st.lists(plain_values(), max_size=bound - 1)


def _too_long(name: str, bound: int) -> Values:
    if name == "string":
        return st.text(max_size=5).map(lambda more: "x" * (bound + 1) + more)
    return st.lists(plain_values(), max_size=2).map(lambda more: [None] * (bound + 1) + more)


def _unlike(_name: str, pattern: str) -> Values:
    # Only known texts are tried: if all texts match a pattern, no search would find one that does not.
    found = [text for text in _TEXTS if re.search(pattern, text) is None]
    return st.sampled_from(found) if found else st.nothing()


def _no_choice(_name: str, choices: list[str]) -> Values:
    longest = max(choices, key=len)
    return st.text().map(lambda more: f"{longest}x{more}")


def _of_other_size(_name: str, bound: int) -> Values:
    sizes = [size for size in (bound - 1, bound + 1, 0, 2 * bound) if size >= 0 and size != bound]
    return st.builds(lambda number, size: [number] * size, st.floats(), st.sampled_from(sizes))


def _of_other_shape(_name: str, bound: list[int | None]) -> Values:
    """One number, repeated in another shape: of more or fewer dimensions, or of as many, all of length 1 or 2."""
    count = len(bound)
    shapes = [(1,) * depth for depth in range(count + 2) if depth != count]
    shapes += [(length,) * count for length in (1, 2) if any(size not in (None, length) for size in bound)]
    return st.builds(lambda number, shape: fold([number] * math.prod(shape), shape), floats(), st.sampled_from(shapes))


def _of_other_dtype(_name: str, bound: str) -> Values:
    kinds: dict[str, Values] = {"bool": st.booleans(), "int64": st.integers(), "float64": st.floats()}
    return st.one_of([st.lists(numbers, min_size=1) for dtype, numbers in kinds.items() if dtype != bound])


def _lacking(required: list[str]) -> Values:
    """Maps that lack one of the keys."""
    return st.sampled_from(required).flatmap(
        lambda lacking: st.fixed_dictionaries({key: plain_values(max_leaves=2) for key in required if key != lacking})
    )


_BREAKING: Final[dict[str, Callable[[str, Any], Values]]] = {
    "min": _below,
    "max": _above,
    "min_length": _too_short,
    "max_length": _too_long,
    "pattern": _unlike,
    "enum": _no_choice,
    "choices": _no_choice,
    "dimensions": _of_other_size,
    "shape": _of_other_shape,
    "dtype": _of_other_dtype,
    "element_type": lambda _name, bound: strangers(bound).map(lambda stranger: [stranger]),
    "value_type": lambda _name, bound: st.builds(lambda key, item: {key: item}, st.text(), strangers(bound)),
    "required": lambda _name, bound: _lacking(bound),
}
