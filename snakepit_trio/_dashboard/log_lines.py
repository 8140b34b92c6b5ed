"""The latest lines of the log, for the dashboard."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from typing import Any, Final

_KEPT: Final = 500  # lines
_LONGEST: Final = 2000  # characters of a line


class LogLines(logging.Handler):
    """Keeps the latest records of the loggers below "snakepit", whichever thread logs them.

    It sees what passes the levels of the loggers, and changes no level.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._numbers = itertools.count(1)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record. Never raises."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {record.exc_info[1]!r}"
        except Exception as error:  # arguments that do not fit the message, or whose text cannot be made
            text = f"a record that cannot be shown: {type(error).__name__}"
        self._lines.append(
            {
                "number": next(self._numbers),
                "at": record.created,
                "level": record.levelname[:20],
                "logger": record.name[:200],
                "text": text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...",
            }
        )

    def after(self, number: int) -> list[dict[str, Any]]:
        """The lines that came after the one of that number, the oldest first."""
        return [line for line in list(self._lines) if line["number"] > number]
