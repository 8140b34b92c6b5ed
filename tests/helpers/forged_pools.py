"""Pools whose workers are forged."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs

import snakepit_trio as snakepit

ROOT = Path(__file__).parents[2]


@attrs.frozen
class ForgedAdapter(snakepit.Adapter):
    """Runs tests/helpers/forged_worker.py."""

    def executable_path(self, python: str) -> str:
        return python

    def script_path(self) -> str:
        return str(ROOT / "tests" / "helpers" / "forged_worker.py")

    def script_args(self) -> list[str]:
        return []


def open_forged(**config: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of forged workers, one unless `workers` says more."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    config = {"workers": 1, "shutdown_timeout": 1, **config}
    return snakepit.open_pool(ForgedAdapter(), env={"PYTHONPATH": path}, **config)
