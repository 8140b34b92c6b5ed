"""What workers print becomes log records; the last lines of stderr are kept for error messages."""

from __future__ import annotations

import logging
import re
from typing import Final

import trio

from bridge_py.wire.logs import MARK, cost_of_log, read_line
from bridge_py.wire.readable import readable

from .base import Output
from .worker_logs import WorkerLogs

_LONGEST_LINE: Final = 64 * 1024  # bytes of one log record
_LINES_PER_TURN: Final = 64
_BYTES_PER_TURN: Final = 128 * 1024
_HEAD: Final = 100  # characters of a line, among which its level is looked for
_LEVELS: Final = logging.getLevelNamesMapping()
# As Python's logging writes them, and as Elixir's, Node's and Rust's do.
_LEVEL: Final = re.compile(
    r"\b(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b|\[(debug|info|warn|warning|error|fatal)\]"
)


async def log_lines(output: Output, logs: WorkerLogs) -> None:
    """Log each line of a worker's output until it ends. Lines over 64 KiB are cut into several.

    Control characters are escaped. A worker that floods its output slows no other task: after 64 lines, or 128 KiB,
    the others have their turn. A line of stderr may have a log record (see `bridge_py.wire.logs`).
    """
    rest = b""
    lines_left, bytes_left = _LINES_PER_TURN, _BYTES_PER_TURN
    async for data in output.stream:
        *lines, rest = (rest + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            _log(line, output, logs)
            lines_left, bytes_left = lines_left - 1, bytes_left - len(line)
            if lines_left <= 0 or bytes_left <= 0:
                lines_left, bytes_left = _LINES_PER_TURN, _BYTES_PER_TURN
                await trio.lowlevel.checkpoint()
    if rest:
        _log(rest, output, logs)


def _log(line: bytes, output: Output, logs: WorkerLogs) -> None:
    if output.is_stderr and MARK in line:
        before, _, content = line.partition(MARK)
        logged = read_line(content)
        if logged is not None:
            if before:
                _log(before, output, logs)  # somebody had begun to print a line
            if logs.is_taken(cost_of_log(len(content))):
                logs.take(logged)
            return
    text = readable(line.decode("utf-8", "replace").rstrip("\r"), 2 * _LONGEST_LINE)
    if output.hear is not None:
        output.hear(text)
    logs.print(text, _level_of(text, output), "stderr" if output.is_stderr else "stdout")


def _level_of(text: str, output: Output) -> int:
    found = _LEVEL.search(text[:_HEAD]) if output.has_levels else None
    return _LEVELS[found[0].strip("[]").upper()] if found else output.level
