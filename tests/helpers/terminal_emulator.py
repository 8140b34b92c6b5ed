"""A small terminal with a program in it: it understands what our views write, and wraps its lines anew when resized."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_CODE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78c]")
_PATIENCE = 30.0  # seconds


class Page:
    """One of the two screens of a terminal: rows of characters, and for each row whether it goes on in the next."""

    def __init__(self, rows: int, columns: int, *, is_wrapped_anew: bool) -> None:
        self.rows, self.columns = rows, columns
        self.lines: list[list[str]] = [[]]
        self.goes_on: list[bool] = [False]
        self.row = self.column = 0
        self._is_wrapped_anew = is_wrapped_anew

    @property
    def top(self) -> int:
        """The first row that is not history."""
        return max(0, len(self.lines) - self.rows)

    def write(self, letter: str) -> None:
        if self.column >= self.columns:
            self.goes_on[self.row] = True
            self.column = 0
            self.down()
        line = self.lines[self.row]
        line += " " * (self.column + 1 - len(line))
        line[self.column] = letter
        self.column += 1

    def down(self) -> None:
        self.move(self.row + 1)

    def move(self, row: int) -> None:
        while row >= len(self.lines):
            self.lines.append([])
            self.goes_on.append(False)
        surplus = 0 if self._is_wrapped_anew else max(0, len(self.lines) - self.rows)
        del self.lines[:surplus], self.goes_on[:surplus]  # the other screen has no history
        self.row = row - surplus

    def erase(self, first: int) -> None:
        del self.lines[first:], self.goes_on[first:]
        self.move(self.row)

    def resize(self, rows: int, columns: int) -> None:
        """Cut the rows, or wrap them anew, as terminals do it with their ordinary screen."""
        if not self._is_wrapped_anew:
            self.lines = [line[:columns] for line in self.lines[:rows]]
            self.goes_on = self.goes_on[:rows]
            self.row = min(self.row, len(self.lines) - 1)
        elif columns != self.columns:
            self._wrap_anew(columns)
        self.rows, self.columns = rows, columns

    def _wrap_anew(self, columns: int) -> None:
        lines: list[list[str]] = []
        goes_on: list[bool] = []
        place = (0, 0)
        whole: list[str] = []
        for number, line in enumerate(self.lines):
            if number == self.row:
                at = len(whole) + self.column
                place = (len(lines) + at // columns, at % columns)
            whole += line
            if not self.goes_on[number]:
                parts = [whole[at : at + columns] for at in range(0, len(whole), columns)] or [[]]
                lines += parts
                goes_on += [True] * (len(parts) - 1) + [False]
                whole = []
        self.lines, self.goes_on = lines, goes_on
        self.column = place[1]
        self.move(place[0])


class Terminal:
    """Runs a program in a terminal. `with Terminal(command, rows=24, columns=80, env=...) as terminal`."""

    def __init__(self, command: list[str], *, rows: int, columns: int, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.main = Page(rows, columns, is_wrapped_anew=True)
        self.other: Page | None = None  # the one without history, while the program shows it
        self.resize(rows, columns)
        self._rest = ""
        self.pictures: list[str] = []  # of the other screen: each as it was when the next one began
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**env, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    @property
    def page(self) -> Page:
        return self.other or self.main

    @property
    def text(self) -> str:
        """What is to be seen, and on the ordinary screen its history too."""
        return "\n".join("".join(line).rstrip() for line in self.page.lines)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size. Call it in the middle of a picture, and the picture is torn, as for users."""
        self.main.resize(rows, columns)
        if self.other is not None:
            self.other.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def until(self, is_so: Callable[[str], object]) -> str:
        """Read on until the text is so, and return it."""
        end = time.monotonic() + _PATIENCE
        while not is_so(self.text):
            assert time.monotonic() < end, self.text
            if not self._read(0.1) and self.process.poll() is not None:
                assert is_so(self.text), self.text
        return self.text

    def next_picture(self) -> str:
        """Read on until a picture that was begun from now on is complete, and return it."""
        drawn = len(self.pictures) + 3  # the one under way, a cleared screen, and the one after it
        self.until(lambda _: len(self.pictures) > drawn)
        return self.pictures[-1]

    def wait(self) -> int:
        """Read on until the program has ended; returns its exit code."""
        end = time.monotonic() + _PATIENCE
        while self.process.poll() is None or self._read(0.0):
            self._read(0.1)
            assert time.monotonic() < end, self.text
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the program has ended
            return False
        self._take(self._rest + data.decode("utf-8", "replace"))
        return bool(data)

    def _take(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                code = _CODE.match(text, at)
                if code is None:
                    break  # the rest of it comes later
                self._obey(code[1] or "", code[2] or "")
                at = code.end()
            else:
                self._put(text[at])
                at += 1
        self._rest = text[at:]

    def _put(self, letter: str) -> None:
        if letter == "\n":
            self.page.down()
        elif letter == "\r":
            self.page.column = 0
        else:
            self.page.write(letter)

    def _obey(self, text: str, letter: str) -> None:
        page, number = self.page, int(text) if text.isdigit() else None
        if text == "?1049":
            self.other = Page(self.main.rows, self.main.columns, is_wrapped_anew=False) if letter == "h" else None
        elif letter == "H":
            self.pictures.append(self.text)
            page.move(page.top)
            page.column = 0
        elif letter == "A":
            page.move(max(page.top, page.row - (number or 1)))
        elif letter == "K":
            line = page.lines[page.row]
            del line[0 if number == 2 else page.column :]
        elif letter == "J":
            page.erase(page.top if number == 2 else page.row + 1)
        else:
            assert letter in "mhl", (text, letter)
