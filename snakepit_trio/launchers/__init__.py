"""How a worker process comes to be, by the protocol that its adapter names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from snakepit_trio.config import PoolConfig
from snakepit_trio.lines import WorkerProcess
from snakepit_trio.processes import ProcessRegistry

from . import foreign, local, stdio

Launch = Callable[[PoolConfig, str, ProcessRegistry], Awaitable[WorkerProcess]]

_LAUNCHERS: Final[dict[str, Launch]] = {"link": local.launch, "grpc": foreign.launch, "stdio": stdio.launch}


async def launch(config: PoolConfig, worker_id: str, registry: ProcessRegistry) -> WorkerProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    return await _LAUNCHERS[config.adapter.protocol](config, worker_id, registry)
