"""Frames from CSV files as people have them. Faults that pandas would not report are found before it reads a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.errors import InvalidCall, UsageError

from .streams.files import Records, TextSource

_LINES: Final = 10_000  # lines that are checked at a time
#: Parameters of pandas.read_csv with which the caller says how the file is written.
_OWN_WAY: Final = ("compression", "dialect", "escapechar", "quotechar", "quoting", "doublequote", "lineterminator")


def csv_options(path: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Find parameters to add to those of `pandas.read_csv`: encoding and compression of a local file.

    Raises `InvalidCall` if characters cannot be decoded, or if a quote is not closed: pandas would take all lines to
    the next quote for a single cell. Finds nothing, and leaves all to pandas, if the path is no local file, if the
    separator is not one character, or if `params` say themselves how the file is written.
    """
    separator = params.get("sep") or params.get("delimiter") or ","
    if any(name in params for name in _OWN_WAY) or len(separator) != 1 or not os.path.isfile(path):
        return {}
    try:
        with contextlib.closing(TextSource(path, "csv", params.get("encoding"))) as source:
            _check(source, separator, path)
            return {"compression": source.compression, "encoding": source.encoding}
    except UsageError as error:
        raise InvalidCall(str(error)) from None


def _check(source: TextSource, separator: str, path: str) -> None:
    records, broken, replaced, first = Records(source, separator, f"csv: {path}"), 0, 0, b""
    for piece in records.pieces(_LINES):
        first = first or piece.first_broken
        broken += piece.broken
        replaced += piece.replaced
    if broken:
        raise InvalidCall(
            f"csv: {path}: {broken} lines have a quote that is not closed, the first is {first[:100]!r}: mend them, or "
            "give quoting=3 to have quotes taken as they are"
        )
    if replaced:
        raise InvalidCall(
            f"csv: {path}: {replaced} characters are no {source.encoding}: name its encoding, such as encoding='cp1252'"
        )
