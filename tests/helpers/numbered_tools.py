"""Tools that tell what their worker has of its own, and a worker that shares its file with no other process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool


class Numbered(BaseAdapter):
    """Tells its options, its number, its CPUs and its environment."""

    def __init__(self, model: str = "none", level: int = 0) -> None:
        self.options = [model, level]

    @tool
    def report(self, context: SessionContext) -> dict[str, Any]:
        """What this worker has."""
        return {
            "pid": os.getpid(),
            "options": self.options,
            "number": context.worker_number,
            "cpus": sorted(os.sched_getaffinity(0)),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "variable": os.environ.get("SNAKEPIT_WORKER_NUMBER"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }


class Exclusive(BaseAdapter):
    """Cannot start while another process has the file of its GPU."""

    def setup(self) -> None:
        self._file = open(os.environ["GPU"], "w")  # noqa: SIM115 - held until the process ends
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @tool
    def gpu(self) -> str:
        """The file."""
        return os.environ["GPU"]

    @tool
    def hold(self, path: str, until: str) -> str:
        """Note the GPU in a folder, and wait for a file."""
        Path(path, Path(os.environ["GPU"]).name).touch()
        while not os.path.exists(until):
            time.sleep(0.005)
        return os.environ["GPU"]
