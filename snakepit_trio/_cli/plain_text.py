"""What the commands use of rich, as plain text, for environments without it. There are no live views then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pprint import pformat
from typing import Any, ClassVar, Final, NoReturn, TextIO

_GAP: Final = "  "  # between columns


def pretty_repr(value: object) -> str:
    """The text of a value, in several lines if it is long."""
    return pformat(value, width=80, sort_dicts=False)


class Text:
    """A line that is put together; styles are left out."""

    def __init__(self, text: str = "", **_look: Any) -> None:
        self._text = text

    def append(self, text: str, _style: str = "", **_look: Any) -> Text:
        """Add text at the end."""
        self._text += text
        return self

    def __str__(self) -> str:
        return self._text


class Padding:
    """Something with spaces before it."""

    def __init__(self, inner: object, around: tuple[int, int, int, int]) -> None:
        self._text = f"{' ' * around[3]}{inner}"

    def __str__(self) -> str:
        return self._text


class Table:
    """Columns as wide as their widest cell."""

    def __init__(self, *headings: str, title: str = "", **_look: Any) -> None:
        self._title = title
        self._headings = list(headings)
        self._right = [False] * len(headings)
        self._rows: list[list[str]] = []

    def add_column(self, heading: str = "", justify: str = "left", **_look: Any) -> None:
        """Add a column at the right."""
        self._headings.append(heading)
        self._right.append(justify == "right")

    def add_row(self, *cells: object) -> None:
        """Add a row at the bottom."""
        self._rows.append([str(cell) for cell in cells])

    def __str__(self) -> str:
        rows = [self._headings, *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self._headings))]
        lines = [self._title] if self._title else []
        for row in rows:
            sized = zip(row, widths, self._right, strict=True)
            lines.append(_GAP.join(cell.rjust(size) if right else cell.ljust(size) for cell, size, right in sized))
        return "\n".join(line.rstrip() for line in lines)


class Console:
    """Prints to a file."""

    is_terminal: ClassVar[bool] = False
    is_dumb_terminal: ClassVar[bool] = True

    def __init__(self, *, file: TextIO, **_look: Any) -> None:
        self._file = file
        self._captured: list[str] | None = None

    def print(self, thing: object = "", **_look: Any) -> None:
        """Print a line, or several."""
        text = f"{thing}\n"
        if self._captured is not None:
            self._captured.append(text)
            return
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> NoReturn:
        """Called when nobody reads any more."""
        raise SystemExit(1)

    @contextmanager
    def capture(self) -> Iterator[Captured]:
        """Keep what is printed in the block."""
        texts: list[str] = []
        self._captured = texts
        try:
            yield Captured(texts)
        finally:
            self._captured = None


class Captured:
    """What a console has kept."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def get(self) -> str:
        """The text."""
        return "".join(self._texts)
