"""What workers print becomes log records; the last lines of stderr are kept for error messages."""

from __future__ import annotations

import logging
import re
from collections import deque
from typing import Final

import trio

from bridge_py.wire.readable import readable
from snakepit_trio._connections.base import Output
from snakepit_trio._util.log import SafeLogger

_LONGEST_LINE: Final = 64 * 1024  # bytes of one log record
_LONGEST_KEPT: Final = 4 * 1024  # characters of a line that error messages show
_LINES_PER_TURN: Final = 64
_BYTES_PER_TURN: Final = 128 * 1024
_HEAD: Final = 100  # characters of a line, among which its level is looked for
_LEVELS: Final = logging.getLevelNamesMapping()
# As Python's logging writes them, and as Elixir's, Node's and Rust's do.
_LEVEL: Final = re.compile(
    r"\b(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b|\[(debug|info|warn|warning|error|fatal)\]"
)


async def log_lines(output: Output, logger: SafeLogger, tail: deque[str]) -> None:
    """Log each line of a worker's output until it ends. Lines over 64 KiB are cut into several.

    Control characters are escaped. A worker that floods its output slows no other task: after 64 lines, or 128 KiB,
    the others have their turn. `tail` gets the lines of stderr, up to 4,096 characters of each.
    """
    rest = b""
    lines_left, bytes_left = _LINES_PER_TURN, _BYTES_PER_TURN
    async for data in output.stream:
        *lines, rest = (rest + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            _log(line, output, logger, tail)
            lines_left, bytes_left = lines_left - 1, bytes_left - len(line)
            if lines_left <= 0 or bytes_left <= 0:
                lines_left, bytes_left = _LINES_PER_TURN, _BYTES_PER_TURN
                await trio.lowlevel.checkpoint()
    if rest:
        _log(rest, output, logger, tail)


def _log(line: bytes, output: Output, logger: SafeLogger, tail: deque[str]) -> None:
    text = readable(line.decode("utf-8", "replace").rstrip("\r"), 2 * _LONGEST_LINE)
    if output.is_stderr:
        tail.append(readable(text, _LONGEST_KEPT))
    if output.hear is not None:
        output.hear(text)
    logger.log(_level_of(text, output), "%s", text)


def _level_of(text: str, output: Output) -> int:
    found = _LEVEL.search(text[:_HEAD]) if output.has_levels else None
    return _LEVELS[found[0].strip("[]").upper()] if found else output.level
