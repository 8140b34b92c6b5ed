"""The part of the Ray launcher that belongs to one pool."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import trio

from bridge_py.wire.errors import UsageError
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import WorkerProcess

from .authority import Authority, Issuer
from .own_site import OwnSite
from .ray_driver import RayDriver, place_of_driver
from .remote import RemoteProcess, check_remote, order_of

#: What Ray takes by names of its own, in place of `resources`.
_OWN_NAMES: Final = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


class RaySite(OwnSite):
    """Starts the workers of one pool on a cluster. Each needs `resources`; `issuer` is None for the pool's own."""

    is_here = False

    def __init__(
        self,
        config: PoolConfig,
        address: str,
        resources: Mapping[str, float],
        runtime_env: Mapping[str, Any],
        issuer: Issuer | None,
    ) -> None:
        check_remote(config)
        self._config = config
        if issuer is not None:
            issuer.issue(config.name)  # given certificates that are of no use show here, and not worker by worker
        self._issuer = issuer or Authority.of(config)
        self._options = _options_of(resources)
        settings = {"address": _address_of(address), "runtime_env": runtime_env, "namespace": "snakepit"}
        super().__init__(config, place_of_driver(config))
        self._driver = RayDriver(self._place, self._registry, settings, config.start_timeout)

    def check_room(self, workers: int) -> None:
        for number in range(workers if self._config.per_worker is not None else 0):
            if self._config.worker_options.of(number).cpus:
                raise UsageError(
                    f"per_worker({number}): Ray chooses the node of a worker, so nobody knows the numbers of its CPUs:"
                    " leave cpus= out, and say how many it needs by Ray(resources={'CPU': 2})"
                )

    async def _start_services(self, nursery: trio.Nursery) -> None:
        await nursery.start(self._driver.run)

    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        certificates = self._issuer.issue(worker_id)
        order = order_of(self._config, worker_id, number, certificates)
        agent = await self._driver.launch(sys.modules["snakepit_trio"].__version__, order, self._options)
        return RemoteProcess(self._config, order, certificates, agent, self._loop)


def _options_of(resources: Mapping[str, float]) -> dict[str, Any]:
    """The options of an actor. Without them, Ray would place it with one CPU, and then let it run with none."""
    own = {_OWN_NAMES[name]: amount for name, amount in resources.items() if name in _OWN_NAMES}
    further = {name: amount for name, amount in resources.items() if name not in _OWN_NAMES}
    return {"num_cpus": 0, **own, "resources": further}


def _address_of(address: str) -> str:
    """The address to join. What "auto" means to this program, it means to the process that joins for it."""
    ray = sys.modules.get("ray")
    if address != "auto" or ray is None or not ray.is_initialized():
        return address
    return str(ray.get_runtime_context().gcs_address)
