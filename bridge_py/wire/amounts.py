"""Amounts of resources, such as GPUs. They are counted in whole thousandths, so that no sum drifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MOST: Final = 1 << 40  # of one resource
_MOST_NAMES: Final = 100
_LONGEST_NAME: Final = 100
_UNIT: Final = 1000
_NEAR: Final = 1e-6  # a float such as 0.1 is not exact; so near to a thousandth it means that one


def thousandths(resources: object) -> dict[str, int]:
    """Read amounts by name, in thousandths. Raises `ValueError`, which says what is wrong and what to give."""
    if not isinstance(resources, Mapping):
        raise ValueError('give amounts by name, such as {"gpu": 1}')
    if len(resources) > _MOST_NAMES:
        raise ValueError(f"give at most {_MOST_NAMES} names")
    return {_name(name): _amount(name, amount) for name, amount in resources.items()}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"the name {name!r:.120} is invalid: give printable text of at most {_LONGEST_NAME} letters")
    return name


def _amount(name: str, amount: Any) -> int:
    is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
    if not is_number or not 0 <= amount <= MOST:  # nan is in no order
        raise ValueError(f"{name}={amount!r:.100} is no amount: give a number from 0 to 2**40")
    whole: int = round(amount * _UNIT)
    if abs(amount * _UNIT - whole) > _NEAR:
        raise ValueError(f"{name}={amount!r} is too fine: give at most three decimals, such as {whole / _UNIT}")
    return whole


def plain(amounts: Mapping[str, int]) -> dict[str, float]:
    """Amounts in thousandths, as numbers for people: whole ones as int."""
    return {name: amount // _UNIT if amount % _UNIT == 0 else amount / _UNIT for name, amount in amounts.items()}


def shown(amounts: Mapping[str, int]) -> str:
    """Amounts in thousandths as text, such as "gpu=0.5, memory=8"."""
    return ", ".join(f"{name}={amount}" for name, amount in plain(amounts).items())
