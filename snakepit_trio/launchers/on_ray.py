"""Launches workers on the nodes of a Ray cluster, which chooses the node of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install, is_installed
from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio.errors import OutOfResources

from .authority import GivenCertificates

_CLIENT: Final = "ray://"


class Ray(Launcher):
    """Each worker is the child of a Ray actor, on the node that Ray chooses. The host reaches it over TCP with TLS.

    The host must run on a machine of the cluster, because it joins as a Ray program does. `address` is that of the
    cluster's head, as `"10.0.0.1:6379"`; "auto" is the cluster of the environment variable RAY_ADDRESS, or the one that
    runs on this machine, or, if this program uses Ray itself, the one that it has joined.

    `resources` is what each worker needs, by the names that Ray shows: `{"CPU": 2, "GPU": 0.5, "big_disk": 1}`, and
    "memory" in bytes. Ray starts a worker on a node only where all of it is free. By default a worker needs one CPU.
    These amounts are Ray's; `open_pool(resources=)` is about calls.

    `runtime_env` is what Ray prepares on each node before workers start there: see Ray's documentation. All nodes need
    snakepit-trio, of the same version, and the code of the tools.

    `certificates` are for the links between host and workers; None for certificates that the pool makes for itself.

    Raises `UsageError` for invalid settings, and if the package ray is missing.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        certificates: GivenCertificates | None = None,
    ) -> None:
        if not is_installed("ray"):
            raise UsageError(f"launchers.Ray needs the package ray: {_how_to_install()}")
        self.address = _checked_address(address)
        self.resources = _checked_amounts({"CPU": 1} if resources is None else resources)
        self.runtime_env = _checked_env(runtime_env)
        if certificates is not None and not isinstance(certificates, GivenCertificates):
            raise UsageError(f"Ray(certificates={certificates!r:.200}): give launchers.GivenCertificates, or None")
        self.certificates = certificates

    def open(self, config: PoolConfig) -> Site:
        from .ray_site import RaySite  # imports grpclib, for pools only

        try:
            return RaySite(config, self.address, self.resources, self.runtime_env, self.certificates)
        except (OSError, MemoryError) as error:
            raise OutOfResources(f"pool {config.name!r} cannot open: {error or type(error).__name__}") from error


def _how_to_install() -> str:
    if sys.version_info >= (3, 15):
        return "it has none for Python 3.15 yet, so use an older one"
    return install("ray")


def _checked_address(address: object) -> str:
    if not isinstance(address, str) or not address or address == "local":
        raise UsageError(
            f"Ray(address={address!r:.200}): give 'auto', or the address of a cluster's head, as '10.0.0.1:6379'; a"
            " cluster of this machine alone is started by `ray start --head`"
        )
    if address.startswith(_CLIENT):
        raise UsageError(
            f"Ray(address={address!r:.200}): the host must run on a machine of the cluster, and {_CLIENT} is for"
            " programs elsewhere: give the address of the cluster's head, as '10.0.0.1:6379'"
        )
    return address


def _checked_amounts(resources: Mapping[str, float]) -> dict[str, float]:
    for name, amount in resources.items() if isinstance(resources, Mapping) else [("", 0)]:
        is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        if not isinstance(name, str) or not name or not is_number or not 0 <= amount < float("inf"):
            raise UsageError(
                f"Ray(resources={resources!r:.200}): give amounts by the names that Ray shows, as {{'CPU': 2}}"
            )
    return dict(resources)


def _checked_env(runtime_env: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        found = json.loads(json.dumps({} if runtime_env is None else dict(runtime_env)))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"Ray(runtime_env={runtime_env!r:.200}): give a dict of plain values, with paths as text: {error}"
        ) from None
    return dict(found)
