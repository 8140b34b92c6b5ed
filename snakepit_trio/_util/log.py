"""Loggers for work that must go on: exceptions of the application's handlers and filters stop nothing here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose methods never raise an `Exception`."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a record at a level. Exceptions of handlers and filters are swallowed."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **kwargs)

    def hand_on(self, values: dict[str, Any]) -> None:
        """Hand on a record that was made elsewhere, by its attributes. Raises no `Exception`."""
        with contextlib.suppress(Exception):
            if self.isEnabledFor(values["levelno"]):
                self.logger.handle(_made(values))

    @contextlib.contextmanager
    def tolerates(self, what: str) -> Iterator[None]:
        """Log an `Exception` of one step, so that the other steps are done too."""
        try:
            yield
        except Exception:
            self.exception("%s failed", what)

    def child(self, suffix: str) -> SafeLogger:
        """A logger below this one, by a suffix of its name."""
        return SafeLogger(self.logger.getChild(suffix), {})


def _made(values: dict[str, Any]) -> logging.LogRecord:
    try:
        return logging.makeLogRecord(values)
    except Exception:  # the application's own factory of records has raised
        record = logging.LogRecord("", 0, "", 0, "", None, None)
        record.__dict__.update(values)
        return record


def get_logger(name: str) -> SafeLogger:
    """The logger of this name, which never raises."""
    return SafeLogger(logging.getLogger(name), {})
