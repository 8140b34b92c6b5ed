"""Text files as people have them: compressed, in other encodings, with quotes that nobody closes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO, Final, NamedTuple

from bridge_py import InvalidArguments, UsageError

LONGEST_LINE: Final = 1 << 20  # bytes; also how far the end of a quoted field may be from its start
_SNIFFED: Final = 1000  # bytes
_HEADER_LINES: Final = 100
_LINE_END: Final = re.compile(rb"\r\n?|\n")
_OPENERS: Final[dict[bytes, tuple[str, Callable[[BinaryIO], Any]]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bz2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
_NO_TEXT: Final = {
    b"PK\x03\x04": "a ZIP archive, or a workbook of Excel",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "a SQLite database",
    b"\xd0\xcf\x11\xe0": "a workbook of old Excel",
    b"%PDF": "a PDF",
}
_MARKS: Final = {  # the longer marks first: the one of UTF-32 begins as the one of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_REPLACEMENT: Final = "\ufffd".encode()
_BROKEN: Final = (EOFError, OSError, zlib.error, lzma.LZMAError)


class TextSource:
    """The lines of a file, as UTF-8, whatever its compression and encoding are.

    Errors call the reader `what`. Raises `UsageError` for an empty file, and for a file that holds no text.
    """

    def __init__(self, path: str, what: str, encoding: str | None = None) -> None:
        self._what = f"{what}: {path}"
        #: Its compression: "gzip", "bz2", "xz", or None.
        self.compression: str | None = None
        #: A name of its encoding. Under this name, the file's mark, if it has one, is not read as a character.
        self.encoding = ""
        self._raw = open(path, "rb")  # noqa: SIM115 - closed by `close`
        try:
            self.size = os.fstat(self._raw.fileno()).st_size
            if self.size == 0:
                raise UsageError(f"{self._what} is empty, or no regular file: progress needs its size")
            self._file: Any = self._decompressed()
            self._text: io.TextIOWrapper | None = None
            self._decode(encoding)
        except BaseException:
            self.close()
            raise

    def readline(self) -> bytes:
        """Return the next line, or its next part if it is too long; nothing at the end. Raises `UsageError`."""
        try:
            if self._text is None:
                found: bytes = self._file.readline(LONGEST_LINE)
                return found
            return self._text.readline(LONGEST_LINE).encode("utf-8", "replace")
        except _BROKEN as error:
            if self._file is self._raw:
                raise
            raise UsageError(f"{self._what} is broken, or cut off, after byte {self._raw.tell()}: {error}") from None

    def valid(self, data: bytes) -> tuple[bytes, int]:
        """Turn lines into valid UTF-8; returns them, and how many characters were invalid and have been replaced."""
        if self._text is not None:
            return data, data.count(_REPLACEMENT)
        try:
            data.decode()
        except UnicodeDecodeError:
            text = data.decode("utf-8", "replace")
            return text.encode(), text.count("\ufffd") - data.count(_REPLACEMENT)
        return data, 0

    def tell(self) -> int:
        """Return how many bytes of the file have been read."""
        return self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _peek(self, file: Any) -> bytes:
        try:
            found: bytes = file.read(_SNIFFED)
            file.seek(0)
        except _BROKEN as error:
            raise UsageError(f"{self._what} is broken: {error}") from None
        return found

    def _decompressed(self) -> Any:
        start = self._peek(self._raw)
        for magic, kind in _NO_TEXT.items():
            if start.startswith(magic):
                raise UsageError(
                    f"{self._what} is {kind}: give a text file, which may be compressed by gzip, bz2 or xz"
                )
        for magic, (name, opened) in _OPENERS.items():
            if start.startswith(magic):
                self.compression = name
                return opened(self._raw)
        return self._raw

    def _decode(self, encoding: str | None) -> None:
        start = self._peek(self._file)
        mark = next((mark for mark in _MARKS if start.startswith(mark)), b"")
        found = encoding or _MARKS.get(mark) or _without_mark(start)
        try:
            name = codecs.lookup(found).name
            self.encoding = name.removesuffix("-le").removesuffix("-be") if mark else name
            is_ours = name in ("utf-8", "utf-8-sig", "ascii")
            self._file.seek(len(mark) if mark and (is_ours or name == _MARKS[mark]) else 0)
            if not is_ours:
                # A line ends at the same character as in bytes.
                self._text = io.TextIOWrapper(self._file, name, "replace", newline="\n")
        except LookupError as error:
            raise InvalidArguments(f"{self._what}: encoding={found!r}: {error}", "encoding") from None


def _without_mark(start: bytes) -> str:
    """Guess the encoding of a file without a mark. In UTF-16, each Latin letter has a NUL byte."""
    even, odd = start[::2], start[1::2]
    if len(start) > 3 and odd.count(0) > 0.7 * len(odd) and not even.count(0):
        return "utf-16-le"
    if len(start) > 3 and even.count(0) > 0.7 * len(even) and not odd.count(0):
        return "utf-16-be"
    return "utf-8"


class Piece(NamedTuple):
    """Whole records of CSV, as valid UTF-8.

    `broken` counts lines that were left out, because a quoted field begins in them and does not end as it must: at a
    quote before a delimiter or the end of a line. `replaced` counts characters that could not be decoded.
    """

    data: bytes
    broken: int
    replaced: int
    first_broken: bytes = b""


class Records:
    """The records of a CSV file, some lines at a time. Errors call the file `what`."""

    def __init__(self, source: TextSource, delimiter: str, what: str) -> None:
        self._lines = iter(source.readline, b"")
        self._source = source
        self._what = what
        self._carry = b""  # a record that has no end yet
        self._replaced = 0  # replaced characters that are not reported yet
        # A quote has a meaning only where a field begins.
        edge = rb"\r\n" + re.escape(delimiter.encode())
        field, end = rb'(?<![^%b])"[^"]*+(?:""[^"]*+)*+' % edge, rb'"(?![^%b])' % edge
        self._field = re.compile(rb"%b(%b)?" % (field, end))
        # In this form it processes 90 MB/s, in other forms a third of that.
        self._well_formed = re.compile(rb'[^"]*+(?:%b%b[^"]*+|(?<=[^%b])"[^"]*+)*+' % (field, end, edge))

    def header(self) -> bytes:
        """Return the first record. Raises `UsageError` if its quotes are not closed, or if the file is no text."""
        data = b""
        for line in islice(self._lines, _HEADER_LINES):
            if b"\0" in line:
                raise UsageError(f"{self._what} is no text: there are NUL bytes in its first line")
            data += line
            whole, _, broken = self._split(data, is_end=False)
            if whole:
                end = self._record_end(whole)
                header, replaced = self._source.valid(whole[:end])
                self._carry, more = self._source.valid(whole[end:])
                self._replaced = replaced + more
                return header
            if broken:
                break
        raise UsageError(f"{self._what}: a quote in the header is not closed: {data[:100]!r}")

    def _record_end(self, data: bytes) -> int:
        """Find the end of the first record, which is well formed. A line may have several: old Macs end them by CR."""
        at = 0
        while (end := _LINE_END.search(data, at)) is not None:
            field = self._field.search(data, at)
            if field is None or end.start() < field.start():
                return end.end()
            at = field.end()
        return len(data)

    def pieces(self, lines: int) -> Iterator[Piece]:
        """Yield all further records, `lines` lines at a time, and more if a record needs them. Raises `UsageError`."""
        while True:
            found = list(islice(self._lines, lines))
            # A record without an end is checked again each time. At least as many new bytes must come before that,
            # which keeps the total time linear.
            missing = len(self._carry) - sum(map(len, found))
            while missing > 0 and (line := next(self._lines, b"")):
                found.append(line)
                missing -= len(line)
            if not found and not self._carry and not self._replaced:
                return
            if found and max(map(len, found)) >= LONGEST_LINE:
                at = self._source.tell()
                raise UsageError(f"{self._what}: there is a line of more than {LONGEST_LINE} bytes before byte {at}")
            data, replaced = self._source.valid(b"".join(found))
            whole, self._carry, broken = self._split(self._carry + data, is_end=not found)
            yield Piece(whole, len(broken), replaced + self._replaced, broken[0] if broken else b"")
            self._replaced = 0

    def _split(self, data: bytes, *, is_end: bool) -> tuple[bytes, bytes, list[bytes]]:
        """Split data into whole records, the start of a record that is not whole yet, and the broken ones left out."""
        well_formed = self._well_formed.match(data)
        if well_formed is not None and well_formed.end() == len(data):
            return data, b"", []
        kept: list[bytes] = []
        broken: list[bytes] = []
        at = record = kept_from = 0
        while (field := self._field.search(data, at)) is not None:
            record = max(record, data.rfind(b"\n", at, field.start()) + 1, data.rfind(b"\r", at, field.start()) + 1)
            at = field.end()
            if field[1] is not None:
                continue
            if at == len(data) and not is_end and at - field.start() < LONGEST_LINE:
                return b"".join([*kept, data[kept_from:record]]), data[record:], broken
            kept.append(data[kept_from:record])
            line_end = _LINE_END.search(data, field.start())
            end = len(data) if line_end is None else line_end.end()
            broken.append(data[record:end])
            at = record = kept_from = end
        return b"".join([*kept, data[kept_from:]]), b"", broken
