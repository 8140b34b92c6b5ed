"""Follows a log file as it grows, and reports lines that match patterns."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import re
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Final

from bridge_py import InvalidArguments, UsageError

LONGEST_LINE: Final = 1 << 20  # bytes; a longer line comes in pieces
_READ: Final = 1 << 16
_TOOL: Final = "tail_and_analyze"
_SEVERITIES: Final = {
    "TRACE": "DEBUG",
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "NOTICE": "INFO",
    "WARN": "WARN",
    "WARNING": "WARN",
    "ERROR": "ERROR",
    "SEVERE": "ERROR",
    "CRITICAL": "FATAL",
    "FATAL": "FATAL",
    "PANIC": "FATAL",
}
_SEVERITY: Final = re.compile(rf"\b({'|'.join(_SEVERITIES)})\b")
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?")
_COMMON: Final = re.compile(r"\b\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}")


async def tail(
    log_path: str,
    patterns: list[str],
    context_lines: int,
    idle_seconds: float | None,
    max_matches: int | None,
    from_start: bool,
    poll_interval: float,
    logger: logging.Logger,
) -> AsyncGenerator[dict[str, Any], None]:
    """Follow a file; `Showcase.tail_and_analyze` describes the chunks. A cancellation ends its waiting at once."""
    _check(context_lines, idle_seconds, max_matches, poll_interval)
    analyzer = Analyzer(patterns, context_lines)
    follower = Follower(log_path, from_start, logger)
    clock = asyncio.get_running_loop().time
    reason, heard = "", clock()
    try:
        while not reason:
            before = follower.taken
            lines = follower.read()
            has_news = follower.taken != before or bool(lines)
            if has_news:
                heard = clock()  # a line may come in many parts
            elif idle_seconds is not None and clock() - heard >= idle_seconds:
                reason, lines = "idle", follower.rest()
            for line in lines:
                if (found := analyzer.take(line)) is not None:
                    yield found
                if analyzer.matches == max_matches:
                    reason = "max_matches"
                    break
            if not reason:
                # Even while lines come: without a turn of the event loop nobody could stop this.
                await asyncio.sleep(0 if has_news else poll_interval)
    finally:
        follower.close()
    yield {**analyzer.totals(), "rotations": follower.rotations, "truncations": follower.truncations, "reason": reason}


class Follower:
    """The lines of a file, as `tail -F` follows it: by its name, through rotation and truncation.

    If a file is cut, and has grown beyond its old length by the next look, this looks like a file that has only grown.
    """

    def __init__(self, path: str, from_start: bool, logger: logging.Logger) -> None:
        self.rotations = self.truncations = 0
        self.taken = 0  # bytes read so far
        self._path = path
        self._logger = logger
        self._part = bytearray()  # a line that has no end yet
        self._file: int | None = None
        self._open()
        if self._file is not None and not from_start:
            os.lseek(self._file, 0, os.SEEK_END)
        logger.info("following %s%s", path, "" if self._file is not None else ", which is not there yet")

    def read(self) -> list[str]:
        """Return lines that have come, some at a time; none if there is no new line now, or none with an end."""
        if self._file is None:
            self._open()
        if self._file is None:
            return []
        if data := os.read(self._file, _READ):
            return self._split(data)
        return self._look_for_changes()

    def rest(self) -> list[str]:
        """Return the last line if it has no end."""
        part, self._part = self._part, bytearray()
        return [_text(bytes(part))] if part else []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{_TOOL}: {self._path} cannot be read: {error.strerror}") from error
        if not os.path.isfile(self._path):
            self.close()
            raise UsageError(f"{_TOOL}: {self._path} is no regular file")

    def _split(self, data: bytes) -> list[str]:
        self.taken += len(data)
        first, *rest = data.split(b"\n")
        self._part += first
        lines = [self._part, *rest]
        self._part = bytearray(lines.pop())
        if len(self._part) >= LONGEST_LINE:
            lines.append(self._part)
            self._part = bytearray()
        return [_text(bytes(line)) for line in lines]

    def _look_for_changes(self) -> list[str]:
        assert self._file is not None
        ours = os.fstat(self._file)
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return []  # the file is being rotated, and programs may still write to it
        # While we hold a file open, its inode's number is not used again, so an equal number means the same file.
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            return self._rotate()
        if ours.st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            self._logger.info("%s was cut: read again from its start", self._path)
            self.truncations += 1
            os.lseek(self._file, 0, os.SEEK_SET)
            return self.rest()
        return []

    def _rotate(self) -> list[str]:
        # Reads what was written to the old file between our last read and the appearance of the new one. A program that
        # writes to the old file later has not been told of the rotation. We do not read its lines; nor does `tail -F`.
        assert self._file is not None
        lines = []
        while data := os.read(self._file, _READ):
            lines += self._split(data)
        lines += self.rest()
        self.close()
        self._logger.info("%s was rotated: reading the new file", self._path)
        self.rotations += 1
        return lines


class Analyzer:
    """Finds patterns in lines. Raises `InvalidArguments` for a pattern that is no regular expression."""

    def __init__(self, patterns: list[str], context_lines: int) -> None:
        if not patterns:
            raise InvalidArguments(f"{_TOOL}: patterns is empty: give regular expressions to look for", "patterns")
        self._patterns = [_compile(number, pattern) for number, pattern in enumerate(patterns)]
        self._before: deque[str] = deque(maxlen=context_lines)
        self._counts = dict.fromkeys(patterns, 0)
        self._lines = 0
        self.matches = 0

    def take(self, line: str) -> dict[str, Any] | None:
        """Return the chunk for a line, by the first pattern that it matches; None if it matches none."""
        self._lines += 1
        found = next((pattern.pattern for pattern in self._patterns if pattern.search(line)), None)
        chunk = None if found is None else self._chunk(line, found)
        self._before.append(line)
        return chunk

    def totals(self) -> dict[str, Any]:
        """Make the last chunk."""
        return {"lines": self._lines, "matches": self.matches, "matches_by_pattern": self._counts, "is_final": True}

    def _chunk(self, line: str, pattern: str) -> dict[str, Any]:
        self.matches += 1
        self._counts[pattern] += 1
        return {
            "severity": severity_of(line),
            "timestamp": timestamp_of(line),
            "log_line": line,
            "pattern_matched": pattern,
            "context": list(self._before),
            "line_number": self._lines,
            "is_final": False,
        }


def severity_of(line: str) -> str:
    """Return DEBUG, INFO, WARN, ERROR or FATAL, by the first word in capitals that names a level; else UNKNOWN."""
    found = _SEVERITY.search(line)
    return "UNKNOWN" if found is None else _SEVERITIES[found.group()]


def timestamp_of(line: str) -> str | None:
    """Find the first time in a line, and return it in ISO 8601; None if there is none.

    It knows ISO 8601 and the common log format of web servers.
    """
    try:
        if found := _ISO.search(line):
            return dt.datetime.fromisoformat(found.group().replace(",", ".")).isoformat()
        if found := _COMMON.search(line):
            return dt.datetime.strptime(found.group(), "%d/%b/%Y:%H:%M:%S %z").isoformat()
    except ValueError:  # it only looked like a time
        return None
    return None


def _check(context_lines: int, idle_seconds: float | None, max_matches: int | None, poll_interval: float) -> None:
    for name, value, least in (
        ("context_lines", context_lines, 0),
        ("idle_seconds", idle_seconds, 0),
        ("max_matches", max_matches, 1),
        ("poll_interval", poll_interval, 0.001),
    ):
        if value is not None and not value >= least:
            raise InvalidArguments(f"{_TOOL}: {name}={value} must be {least} or more", name)


def _compile(number: int, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        text = f"{_TOOL}: patterns[{number}] {pattern!r} is no regular expression: {error}"
        raise InvalidArguments(text, "patterns") from None


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
