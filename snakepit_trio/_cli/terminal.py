"""Where a command writes: results on stdout, and what tools print, with their progress, on stderr."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
import trio

from bridge_py.wire.readable import readable
from snakepit_trio import Progress, UsageError

from .endings import ReaderLeft

_STDOUT: Final = 1
_WIDEST: Final = 100  # characters of a note
_CLEAR: Final = "\r\x1b[K"
_LOGGED: Final = logging.Formatter("%(levelname)s %(name)s: %(message)s")


class Terminal(logging.Handler):
    """Writes lines, and one line of progress below them if stderr is a terminal.

    Raises `UsageError` if stdout is closed: another file of this process would get its number, and the results.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        if sys.stdout is None:
            raise UsageError("stdout is closed: send it somewhere, such as to /dev/null")
        self.shows_progress = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._has_line = False

    @contextmanager
    def hears_workers(self) -> Iterator[None]:
        """Write what workers print and log, and the warnings of the pool, on stderr during the block."""
        logger = logging.getLogger("snakepit")
        workers = logging.getLogger("snakepit.worker")
        before = workers.level
        logger.addHandler(self)
        workers.setLevel(logging.INFO)
        try:
            yield
        finally:
            self.clear()
            workers.setLevel(before)
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of a logger."""
        # The supervisor warns of dead workers: the error of the call tells of that.
        least = logging.ERROR if record.name == "snakepit.supervisor" else logging.WARNING
        is_workers = hasattr(record, "worker")
        if is_workers or record.levelno >= least:
            is_logged = is_workers and vars(record)["stream"] is None
            self.clear()
            click.echo(_LOGGED.format(record) if is_logged else record.getMessage(), err=True)

    def show(self, progress: Progress) -> None:
        """Write the line of progress anew."""
        amount = f"{progress.done:g}" if progress.total is None else f"{progress.done:g}/{progress.total:g}"
        note = readable(progress.note, _WIDEST).replace("\n", " ").replace("\t", " ")
        click.echo(f"{_CLEAR}{amount} {note}".rstrip(), err=True, nl=False, color=True)
        self._has_line = True

    def clear(self) -> None:
        """Remove the line of progress."""
        if self._has_line:
            self._has_line = False
            click.echo(_CLEAR, err=True, nl=False, color=True)

    async def write(self, text: str) -> None:
        """Write a line of results on stdout; returns when it is written.

        A thread writes, so that a reader that does not read keeps nothing else waiting. If this is cancelled, a part
        of the line may have been written. Raises `ReaderLeft` if nobody reads stdout, and `OSError`.
        """
        self.clear()
        encoded = f"{text}\n".encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")
        try:
            await trio.to_thread.run_sync(_write_all, encoded, abandon_on_cancel=True)
        except BrokenPipeError:
            raise ReaderLeft from None


def _write_all(data: bytes) -> None:
    # Not by sys.stdout: a thread that is abandoned would hold its lock when Python ends.
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(_STDOUT, left) :]
        except BlockingIOError:  # whoever else has this pipe, or terminal, has made it so
            select.select([], [_STDOUT], [])
