"""gRPC's health service: whether a server of the contract serves, for probes and load balancers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bridge_py.wire.messages.grpc.health import v1
from bridge_py.wire.readable import readable

from .serving import ClosingStreams

CHECK: Final = "/grpc.health.v1.Health/Check"
HEALTH: Final = "grpc.health.v1.Health"
OVERALL: Final = ""  # the service that stands for the server as a whole


class Serving(ABC):
    """Whether a server serves at the moment."""

    @abstractmethod
    def is_serving(self) -> bool:
        """Whether it takes calls now."""

    @abstractmethod
    async def until(self, serving: bool) -> None:
        """Wait, in asyncio, until `is_serving()` is `serving`. Cancelling loses nothing."""


class AlwaysServing(Serving):
    """A server that serves from its start to its end."""

    def is_serving(self) -> bool:
        """Return True."""
        return True

    async def until(self, serving: bool) -> None:
        """Return at once, or never."""
        if not serving:
            await asyncio.Event().wait()


class HealthService(ClosingStreams, v1.HealthBase):
    """The service. All services of `names`, and the server as a whole, have the same status."""

    def __init__(self, serving: Serving, names: Iterable[str]) -> None:
        self._serving = serving
        self._names = (OVERALL, *names)

    async def check(self, message: v1.HealthCheckRequest) -> v1.HealthCheckResponse:
        if message.service not in self._names:
            raise GRPCError(Status.NOT_FOUND, f"there is no service {readable(message.service, 200)} here")
        return self._now()

    async def list(self, message: v1.HealthListRequest) -> v1.HealthListResponse:  # noqa: ARG002 - gRPC's
        return v1.HealthListResponse(statuses={name: self._now() for name in self._names})

    async def watch(self, message: v1.HealthCheckRequest) -> AsyncIterator[v1.HealthCheckResponse]:
        if message.service not in self._names:
            # Not an error: the protocol wants a stream that would tell if the service came.
            yield v1.HealthCheckResponse(status=v1.HealthCheckResponseServingStatus.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        while True:
            told = self._serving.is_serving()
            yield _response(told)
            await self._serving.until(not told)

    def _now(self) -> v1.HealthCheckResponse:
        return _response(self._serving.is_serving())


def _response(is_serving: bool) -> v1.HealthCheckResponse:
    statuses = v1.HealthCheckResponseServingStatus
    return v1.HealthCheckResponse(status=statuses.SERVING if is_serving else statuses.NOT_SERVING)
