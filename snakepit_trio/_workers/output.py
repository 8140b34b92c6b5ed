"""What workers print becomes log records; the last lines of stderr are kept for error messages."""

from __future__ import annotations

from collections import deque

from snakepit_trio._connections.base import Output
from snakepit_trio._util.log import SafeLogger

_LONGEST_LINE = 64 * 1024


async def log_lines(output: Output, logger: SafeLogger, tail: deque[str]) -> None:
    """Log each line of a worker's output until it ends. Lines over 64 KiB are cut into several.

    `tail` gets the lines of stderr.
    """
    rest = b""
    async for data in output.stream:
        *lines, rest = (rest + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            _log(line, output, logger, tail)
    if rest:
        _log(rest, output, logger, tail)


def _log(line: bytes, output: Output, logger: SafeLogger, tail: deque[str]) -> None:
    text = line.decode("utf-8", "replace").rstrip("\r")
    if output.is_stderr:
        tail.append(text)
    if output.hear is not None:
        output.hear(text)
    logger.log(output.level, "%s", text)
