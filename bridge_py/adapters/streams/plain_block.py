"""A block of CSV parsed by the standard library."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator

from .columns import Block, Numbers, Texts, normalise, number


def parse_plain(block: bytes, columns: list[Numbers | Texts], delimiter: str, _names: list[str]) -> Block:
    """Parse a block."""
    return _PlainBlock(block, columns, delimiter)


def rows_of(block: bytes, delimiter: str) -> Iterator[list[str]]:
    """Iterate over the rows that are not empty."""
    # Cells may be longer than the library's own limit. The limit is never lowered: user code may have raised it.
    csv.field_size_limit(max(csv.field_size_limit(), len(block)))
    return filter(None, csv.reader(io.StringIO(block.decode("utf-8", "replace"), newline=""), delimiter=delimiter))


class _PlainBlock(Block):
    def __init__(self, block: bytes, columns: list[Numbers | Texts], delimiter: str) -> None:
        rows = list(rows_of(block, delimiter))
        self._kept = [row for row in rows if len(row) == len(columns)]
        self.rows = len(rows)
        self.misfits = self.errors = len(rows) - len(self._kept)
        self.missing = 0
        self._columns = columns
        self._cells: list[list[str]] = [list(cells) for cells in zip(*self._kept, strict=True)] or [[] for _ in columns]
        self._values = {
            n: [number(cell) for cell in self._cells[n]] for n, c in enumerate(columns) if isinstance(c, Numbers)
        }
        self._clean = [self._judge(row) for row in range(len(self._kept))]

    def _judge(self, row: int) -> bool:
        bad = [self._cells[column][row] for column, values in self._values.items() if math.isnan(values[row])]
        if any(bad):
            self.errors += 1
        elif bad:
            self.missing += 1
        return not bad

    def aggregate(self, *, only_clean: bool, normalise: bool) -> None:
        keep = self._clean if only_clean else [True] * len(self._kept)
        for index, column in enumerate(self._columns):
            if isinstance(column, Numbers):
                values = zip(self._values[index], keep, strict=True)
                _merge(column, [value for value, kept in values if kept and not math.isnan(value)])
            elif column.counts is None:
                column.skip(sum(keep))
            else:
                _count(column, [cell for cell, kept in zip(self._cells[index], keep, strict=True) if kept], normalise)


def _merge(column: Numbers, values: list[float]) -> None:
    if values:
        mean = _sum(values) / len(values)
        differences = [value - mean for value in values]
        squares = _sum([difference * difference for difference in differences])
        column.merge(len(values), mean, squares, min(values), max(values))


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond the range of a float; there a plain sum is infinite or nan
        return sum(values)


def _count(column: Texts, cells: list[str], normal: bool) -> None:
    counts = Counter(cells).items()
    column.add((normalise(value), times) for value, times in counts) if normal else column.add(counts)
