"""What sites share that start processes of this machine."""

from __future__ import annotations

from pathlib import Path

import trio

from snakepit_trio._config.config import PoolConfig, Site
from snakepit_trio._processes.guardian_client import GuardianClient
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .place import Place


class OwnSite(Site):
    """A site with a place, which it closes, a run in the registry, a guardian, and a loop of asyncio."""

    def __init__(self, config: PoolConfig, place: Place) -> None:
        self._place = place
        try:
            self._loop = AsyncioLoop()
            self._registry = ProcessRegistry.open(config.name)
        except BaseException:
            place.close()
            raise

    @property
    def folder(self) -> Path | None:
        return self._registry.folder

    @property
    def loop(self) -> AsyncioLoop:
        return self._loop

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(GuardianClient(self._registry, self._place.python).run)
            await nursery.start(self._loop.run)
            await self._start_services(nursery)
            task_status.started()

    async def _start_services(self, nursery: trio.Nursery) -> None:
        """Start what else the site needs while it is open. It ends when the nursery is cancelled."""

    def close(self) -> None:
        try:
            self._registry.close()
        finally:
            self._place.close()
