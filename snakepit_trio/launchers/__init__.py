"""Launches workers: `Local` as processes of this machine, by the protocol of their adapter; `Ray` on a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import trio

from bridge_py.wire.public_names import publish
from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._connections.base import WorkerProcess
from snakepit_trio._processes.capacity import check_room
from snakepit_trio._processes.registry import ProcessRegistry, sweep_at_start
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import OutOfResources

from .authority import GivenCertificates
from .on_ray import Ray
from .own_site import OwnSite
from .place import Place

if TYPE_CHECKING:
    from .template import Templates

__all__ = ["GivenCertificates", "Local", "Ray"]

logger = get_logger("snakepit.processes")

Launch = Callable[[Place, str, ProcessRegistry, AsyncioLoop], Awaitable[WorkerProcess]]


class Local(Launcher):
    """The default launcher: each worker is a process of this machine, and nothing of it outlives this process."""

    has_templates = True

    def open(self, config: PoolConfig) -> Site:
        try:
            return _LocalSite(config)
        except (OSError, MemoryError) as error:
            raise OutOfResources(f"pool {config.name!r} cannot open: {error or type(error).__name__}") from error


class _LocalSite(OwnSite):
    def __init__(self, config: PoolConfig) -> None:
        self._launch = _launch_of(config.adapter.protocol)
        super().__init__(config, Place.of(config))
        self._templates = _templates_of(self._place, self._registry)

    def check_room(self, workers: int) -> None:
        check_room(workers)

    async def _start_services(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(_sweep)
        if self._templates is not None:
            await nursery.start(self._templates.run)

    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        return await self._launch(self._place.of_worker(number, self._templates), worker_id, self._registry, self._loop)

    def renew_template(self) -> None:
        if self._templates is not None:
            self._templates.renew()


def _templates_of(place: Place, registry: ProcessRegistry) -> Templates | None:
    if place.config.template is False:
        return None
    from .template import Templates  # only here: hosts without templates start sooner

    return Templates(place, registry)


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


publish(__name__, __all__)
