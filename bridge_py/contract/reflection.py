"""gRPC's reflection service: it describes the services of a server, for grpcurl and the like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import betterproto2
import grpclib.const
from grpclib.const import Status

from bridge_py.wire.messages.descriptors import FILE_OF_SYMBOL, FILES
from bridge_py.wire.messages.grpc.reflection import v1

from .health import HEALTH, HealthService, Serving
from .serving import ClosingStreams, ContractService

REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
CONTRACT: Final = "snakepit.bridge.BridgeService"
_RPC: Final = "ServerReflectionInfo"


def described(service: ContractService, serving: Serving) -> list[Any]:
    """A service of the contract, beside the services that tell whether it serves and what it is."""
    names = (CONTRACT, HEALTH, *REFLECTION)
    return [service, HealthService(serving, [CONTRACT]), ReflectionService(names)]


class ReflectionService(ClosingStreams, v1.ServerReflectionBase):
    """The service, under the names of v1 and v1alpha, whose messages are the same. `names` are listed as services."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        (handler,) = super().__mapping__().values()
        return {f"/{name}/{_RPC}": handler for name in REFLECTION}

    async def server_reflection_info(
        self, messages: AsyncIterator[v1.ServerReflectionRequest]
    ) -> AsyncIterator[v1.ServerReflectionResponse]:
        async for request in messages:
            yield v1.ServerReflectionResponse(
                valid_host=request.host, original_request=request, **self._answer(request)
            )

    def _answer(self, request: v1.ServerReflectionRequest) -> dict[str, Any]:
        kind, value = betterproto2.which_one_of(request, "message_request")
        asked = value if isinstance(value, str) else ""
        if kind == "list_services":
            found = [v1.ServiceResponse(name=name) for name in self._names]
            return {"list_services_response": v1.ListServiceResponse(service=found)}
        if kind == "file_by_filename":
            return _file(asked)
        if kind == "file_containing_symbol":
            return _file(FILE_OF_SYMBOL.get(asked))
        if kind == "all_extension_numbers_of_type" and asked in FILE_OF_SYMBOL:
            return {"all_extension_numbers_response": v1.ExtensionNumberResponse(base_type_name=asked)}  # it has none
        if not kind:
            return _error(Status.INVALID_ARGUMENT, "the request asks for nothing that this server knows of")
        return _error(Status.NOT_FOUND, "not found")


def _file(name: str | None) -> dict[str, Any]:
    data = None if name is None else FILES.get(name)
    if data is None:
        return _error(Status.NOT_FOUND, "not found")
    return {"file_descriptor_response": v1.FileDescriptorResponse(file_descriptor_proto=[data])}


def _error(status: Status, text: str) -> dict[str, Any]:
    return {"error_response": v1.ErrorResponse(error_code=status.value, error_message=text)}
