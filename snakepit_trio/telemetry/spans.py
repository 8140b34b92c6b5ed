"""Spans: the events of what takes time. Each begins, and then it stops or fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from bridge_py.wire.errors import words_of

from .handlers import Events

_LONGEST: Final = 500  # characters


@contextmanager
def told(events: Events, of: str, metadata: dict[str, Any]) -> Iterator[None]:
    """Tell that the block begins, and how it ends. What it raises, also a cancellation, comes out as it is."""
    if not events.is_heard:
        yield
        return
    began = time.monotonic()
    events.emit(f"{of}.start", metadata)
    try:
        yield
    except BaseException as error:
        events.emit(f"{of}.exception", metadata | described(error), duration=time.monotonic() - began)
        raise
    events.emit(f"{of}.stop", metadata, duration=time.monotonic() - began)


def described(error: BaseException) -> dict[str, Any]:
    """The metadata of an error."""
    return {"error": type(error).__name__, "message": words_of(error)[:_LONGEST]}
