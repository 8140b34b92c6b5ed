"""Statistics of the columns of a table that is read once, in bounded memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

#: A text column has counts if it has at most so many different values, and none is longer than so many characters.
MOST_VALUES: Final = 100
LONGEST_VALUE: Final = 100


class Numbers:
    """Count, mean, deviation, least and greatest of a column of numbers.

    Blocks are merged by the pairwise update of T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances", Stanford STAN-CS-79-773, 1979. It takes no difference of large
    sums, in which digits would cancel.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.mean = self._squares = 0.0  # the sum of squared differences from the mean
        self._least, self._greatest = math.inf, -math.inf

    def merge(self, count: int, mean: float, squares: float, least: float, greatest: float) -> None:
        """Add a block of `count` numbers with these statistics."""
        if count == 0:
            return
        total = self.count + count
        difference = mean - self.mean
        self.mean += difference * count / total
        self._squares += squares + difference * difference * self.count * count / total
        self.count = total
        self._least = min(self._least, least)
        self._greatest = max(self._greatest, greatest)

    def summary(self) -> dict[str, Any]:
        """Return the statistics; `std` is the sample's (divided by n - 1), and None for less than two numbers."""
        if self.count == 0:
            return {"kind": "number", "count": 0}
        std = math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else None
        found = {"count": self.count, "mean": self.mean, "std": std, "min": self._least, "max": self._greatest}
        return {"kind": "number", **found}


class Texts:
    """Counts how often each value of a text column occurs, if there are few values."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[str, int] | None = {}  # None: too many values, or too long ones
        self._count = 0

    def add(self, counts: Iterable[tuple[str, int]]) -> None:
        """Add the values of a block, and how often each occurs."""
        for value, times in counts:
            self._count += times
            if self.counts is not None:
                self.counts[value] = self.counts.get(value, 0) + times
                if len(self.counts) > MOST_VALUES or len(value) > LONGEST_VALUE:
                    self.counts = None

    def skip(self, cells: int) -> None:
        """Add cells whose values do not matter any more."""
        self._count += cells

    def summary(self) -> dict[str, Any]:
        """Return the counts; `values` is None if there are too many values, or too long ones."""
        if self.counts is None:
            return {"kind": "text", "count": self._count, "values": None}
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {"kind": "text", "count": self._count, "values": dict(ordered)}


class Block(ABC):
    """A parsed block.

    `errors` counts rows with a cell that should be a number and is none, and the `misfits` too. `misfits` are rows with
    too many or too few cells, which are dropped in any case. `missing` counts other rows that lack a number.
    """

    rows: int
    misfits: int
    errors: int
    missing: int

    @abstractmethod
    def aggregate(self, *, only_clean: bool, normalise: bool) -> None:
        """Add it to its columns: only rows without errors and missing numbers, or all cells that can be used."""


def number(text: str) -> float:
    """Read a cell as a finite number, or nan if it is none. Blanks around it do not matter; `1_000` is no number."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    return not math.isnan(number(text))


def normalise(text: str) -> str:
    """Bring a text into one form: no blanks around it, one between words, all small letters."""
    return " ".join(text.split()).casefold()
