"""What peers run in their workers. It imports the standard library only, so that any interpreter can import it."""

from __future__ import annotations

import time
from pathlib import Path


def empty(payload: str) -> str:
    """Give the payload back."""
    return payload


def meet(folder: str, number: int, workers: int) -> None:
    """Wait in this worker until all of them are here."""
    (Path(folder) / str(number)).touch()
    while len(list(Path(folder).iterdir())) < workers:
        time.sleep(0.002)
