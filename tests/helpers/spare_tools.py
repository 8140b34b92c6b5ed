"""Workers whose start waits for a file or fails, and code that changes between one start and the next."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bridge_py import BaseAdapter, SessionContext, tool


class Gated(BaseAdapter):
    """Starts when the file `open` is in the folder that `GATE` names, and not while a file `fail` is there."""

    def setup(self) -> None:
        """Load the model."""
        folder = Path(os.environ["GATE"])
        if (folder / "fail").exists():
            print("the model is missing", file=sys.stderr, flush=True)
            os._exit(3)
        while not (folder / "open").exists():
            time.sleep(0.005)

    @tool
    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    @tool
    def number(self, context: SessionContext) -> int | None:
        """Its number."""
        return context.worker_number

    @tool
    def hold(self, path: str, until: str) -> int:
        """Note that it runs, and wait for a file."""
        Path(path).touch()
        while not os.path.exists(until):
            time.sleep(0.005)
        return os.getpid()
