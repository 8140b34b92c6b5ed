"""Launches workers as processes of this machine. The adapter names their protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import trio

from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._connections.base import WorkerProcess
from snakepit_trio._processes.capacity import check_room
from snakepit_trio._processes.guardian_client import GuardianClient
from snakepit_trio._processes.registry import ProcessRegistry, sweep_at_start
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import OutOfResources

from .place import Place

__all__ = ["Local"]

logger = get_logger("snakepit.processes")

Launch = Callable[[Place, str, ProcessRegistry, AsyncioLoop], Awaitable[WorkerProcess]]


class Local(Launcher):
    """The default launcher: each worker is a process of this machine, and nothing of it outlives this process."""

    def open(self, config: PoolConfig) -> Site:
        try:
            return _LocalSite(config)
        except (OSError, MemoryError) as error:
            raise OutOfResources(f"pool {config.name!r} cannot open: {error or type(error).__name__}") from error


class _LocalSite(Site):
    def __init__(self, config: PoolConfig) -> None:
        self._loop = AsyncioLoop()
        self._launch = _launch_of(config.adapter.protocol)
        self._place = Place.of(config)
        try:
            self._registry = ProcessRegistry.open(config.name)
        except BaseException:
            self._place.close()
            raise

    def check_room(self, workers: int) -> None:
        check_room(workers)

    @property
    def loop(self) -> AsyncioLoop:
        return self._loop

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(GuardianClient(self._registry, self._place.python).run)
            await nursery.start(self._loop.run)
            nursery.start_soon(_sweep)
            task_status.started()

    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        return await self._launch(self._place.of_worker(number), worker_id, self._registry, self._loop)

    def close(self) -> None:
        try:
            self._registry.close()
        finally:
            self._place.close()


def _launch_of(protocol: Literal["link", "grpc", "stdio"]) -> Launch:
    # Imported when needed: the wire contract takes a fifth of the import time of everything else together.
    if protocol == "grpc":
        from . import foreign

        return foreign.launch
    if protocol == "stdio":
        from . import stdio

        return stdio.launch
    from . import local

    return local.launch


async def _sweep() -> None:
    # A sweep may take long, and can be abandoned: nobody owns the processes and files that it removes.
    try:
        await trio.to_thread.run_sync(sweep_at_start, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
    except Exception as error:  # the pool works without the sweep
        logger.warning("what dead runs have left could not be swept: %s", error)
