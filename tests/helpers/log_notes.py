"""Log records that would flood the output of a test are kept aside."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted(name: str) -> Iterator[list[Any]]:
    """During the block, the records of a logger and of those below it go into the list, and nowhere else."""
    seen: list[Any] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger, handler = logging.getLogger(name), Notes()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
