"""A CSV file of any size in constant memory: cleaned, transformed, aggregated, with progress by bytes read.

The file is read in blocks of so many lines (`files`). Memory holds only one block, and the statistics of the columns.
pyarrow parses a block if the worker has it (`arrow_block`), else the standard library does (`plain_block`). The outcome
is the same, because both get whole records of valid UTF-8, whose quotes are well formed.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

from bridge_py import InvalidArguments, UsageError
from bridge_py.wire.extras import install

from .columns import Block, Numbers, Texts, is_number
from .configs import Engine, Operation
from .files import Piece, Records, TextSource
from .plain_block import parse_plain, rows_of

Record = dict[str, Any]

_SAMPLED_ROWS: Final = 1000
_MOSTLY: Final = 0.9
_TOOL: Final = "process_large_dataset"


def process(
    file_path: str,
    chunk_size: int,
    operations: list[Operation],
    delimiter: str = ",",
    numeric_columns: list[str] | None = None,
    engine: Engine = "auto",
    encoding: str | None = None,
) -> Iterator[Record]:
    """Work on a file; `Showcase.process_large_dataset` describes the chunks.

    Raises `UsageError` for a file that is no CSV with a header, and `OSError`.
    """
    _check(chunk_size, delimiter)
    with closing(TextSource(file_path, _TOOL, encoding)) as file:
        records = Records(file, delimiter, f"{_TOOL}: {file_path}")
        names = _read_header(records, file_path, delimiter, numeric_columns)
        parse, engine = _choose(engine)
        dataset = _Dataset(names, delimiter, operations, parse)
        began = time.monotonic()
        for piece in records.pieces(chunk_size):
            if dataset.columns is None and piece.data:
                dataset.columns = _make_columns(names, numeric_columns, piece.data, delimiter)
            dataset.take(piece)
            yield dataset.progress(file.tell(), file.size)
        seconds = time.monotonic() - began
        yield {**dataset.final(), "bytes": file.size, "seconds": seconds, "engine": engine, "is_final": True}


def memory_mb() -> float:
    """Resident memory of this process, in MB."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class _Dataset:
    """The counts and columns of a file so far."""

    def __init__(self, names: list[str], delimiter: str, operations: list[Operation], parse: _Parse) -> None:
        self.columns: list[Numbers | Texts] | None = None
        self._names = names
        self._delimiter = delimiter
        self._operations = operations
        self._parse = parse
        self._rows = self._errors = self._missing = self._dropped = self._replaced = 0

    def take(self, piece: Piece) -> None:
        """Work on one block."""
        self._rows += piece.broken
        self._errors += piece.broken
        self._dropped += piece.broken
        self._replaced += piece.replaced
        if self.columns is None or not piece.data:
            return
        found = self._parse(piece.data, self.columns, self._delimiter, self._names)
        clean = "clean" in self._operations
        self._rows += found.rows
        self._errors += found.errors
        self._missing += found.missing
        self._dropped += found.misfits + (found.errors - found.misfits + found.missing if clean else 0)
        if "aggregate" in self._operations:
            found.aggregate(only_clean=clean, normalise="transform" in self._operations)

    def progress(self, done: int, size: int) -> Record:
        """Make the chunk for a block."""
        return {
            "progress_percent": round(100 * done / max(done, size), 2),
            "processed_rows": self._rows,
            "estimated_rows": round(self._rows * max(done, size) / done),
            "memory_usage_mb": memory_mb(),
            "is_final": False,
        }

    def final(self) -> Record:
        """Make the last chunk."""
        columns = self.columns or []
        aggregate = "aggregate" in self._operations
        return {
            "final_stats": {
                "processed": self._rows - self._dropped,
                "errors": self._errors,
                "missing": self._missing,
                "skipped": self._dropped,
                "replaced": self._replaced,
                "columns": {column.name: column.summary() for column in columns} if aggregate else {},
            },
            "total_rows": self._rows,
            "memory_usage_mb": memory_mb(),
        }


_Parse = Callable[[bytes, list[Numbers | Texts], str, list[str]], Block]


def _check(chunk_size: int, delimiter: str) -> None:
    if chunk_size < 1:
        raise InvalidArguments(f"{_TOOL}: chunk_size={chunk_size} is no number of rows: give 1 or more", "chunk_size")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InvalidArguments(f"{_TOOL}: delimiter={delimiter!r} must be one ASCII character, no quote", "delimiter")


def _read_header(records: Records, path: str, delimiter: str, numeric: list[str] | None) -> list[str]:
    record = records.header().decode("utf-8", "replace")
    names = [name.strip() for name in next(csv.reader(io.StringIO(record, newline=""), delimiter=delimiter), [])]
    if not names or "" in names:
        raise UsageError(f"{_TOOL}: the first line of {path} must name every column, and is {record[:100]!r}")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{_TOOL}: the header of {path} has more than one column of the name {doubled[0]!r}")
    if strange := [name for name in numeric or () if name not in names]:
        text = f"{_TOOL}: numeric_columns: no column {strange[0]!r}; there are: {', '.join(names)}"
        raise InvalidArguments(text, "numeric_columns")
    return names


def _choose(engine: Engine) -> tuple[_Parse, Engine]:
    if engine != "csv":
        try:
            from .arrow_block import parse_arrow
        except ImportError as error:
            if engine == "pyarrow":
                raise UsageError(f"{_TOOL}: engine='pyarrow': {error}: {install('pandas')}") from error
        else:
            return parse_arrow, "pyarrow"
    return parse_plain, "csv"


def _make_columns(names: list[str], numeric: list[str] | None, block: bytes, delimiter: str) -> list[Numbers | Texts]:
    """Make the columns. `numeric` names the columns of numbers.

    If it is None, these are the columns in whose first rows nine of ten cells that are not empty are numbers.
    """
    if numeric is None:
        rows = [row for row in islice(rows_of(block, delimiter), _SAMPLED_ROWS) if len(row) == len(names)]
        numeric = [name for number, name in enumerate(names) if _looks_numeric([row[number] for row in rows])]
    return [Numbers(name) if name in numeric else Texts(name) for name in names]


def _looks_numeric(cells: list[str]) -> bool:
    filled = [is_number(cell) for cell in cells if cell.strip()]
    return bool(filled) and sum(filled) >= _MOSTLY * len(filled)
