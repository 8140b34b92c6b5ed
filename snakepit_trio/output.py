"""What workers print becomes log records; the last lines of stderr are kept for error messages."""

from __future__ import annotations

import logging
from collections import deque

import trio

_LONGEST_LINE = 64 * 1024


async def log_lines(
    stream: trio.abc.ReceiveStream, logger: logging.Logger, level: int, tail: deque[str] | None = None
) -> None:
    """Log each line of a worker's output until it ends. Lines over 64 KiB are cut into several."""
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            _log(line, logger, level, tail)
    if rest:
        _log(rest, logger, level, tail)


def _log(line: bytes, logger: logging.Logger, level: int, tail: deque[str] | None) -> None:
    text = line.decode("utf-8", "replace").rstrip("\r")
    if tail is not None:
        tail.append(text)
    logger.log(level, "%s", text)
