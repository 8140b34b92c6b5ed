"""How a worker process comes to be, by the protocol that its adapter names."""

from __future__ import annotations

import importlib
from typing import Final

from snakepit_trio.config import PoolConfig
from snakepit_trio.lines import WorkerProcess
from snakepit_trio.processes import ProcessRegistry

#: Modules, which are loaded when they are needed: the wire contract takes a fifth of what all else takes to import.
_LAUNCHERS: Final = {"link": ".local", "grpc": ".foreign", "stdio": ".stdio"}


async def launch(config: PoolConfig, worker_id: str, registry: ProcessRegistry) -> WorkerProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    launcher = importlib.import_module(_LAUNCHERS[config.adapter.protocol], __name__)
    process: WorkerProcess = await launcher.launch(config, worker_id, registry)
    return process
