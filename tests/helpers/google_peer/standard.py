"""gRPC's own services, as Google's clients use them: health and reflection."""

from __future__ import annotations

from typing import Any

import grpc
from connection import PATIENCE, Client, Code, check, refused  # type: ignore[import-not-found]
from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FileDescriptorProto  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

pb2: Any = reflection_pb2
CONTRACT = "snakepit.bridge.BridgeService"
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    CONTRACT,
]
SERVING = health_pb2.HealthCheckResponse.SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@check("host", "worker", "alone", "unreachable")
def health(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", CONTRACT):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status == SERVING
    with refused(Code.NOT_FOUND, says="there is no service other\\x1b here"):
        stub.Check(health_pb2.HealthCheckRequest(service="other\x1b"), timeout=PATIENCE)
    found = stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE).statuses
    assert {name: each.status for name, each in found.items()} == {"": SERVING, CONTRACT: SERVING}


@check("host", "worker", "alone")
def health_is_watched(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service, status in (("", SERVING), (CONTRACT, SERVING), ("other", UNKNOWN)):
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert next(watching).status == status
        watching.cancel()


@check("host", "worker", "alone")
def reflection_tells_enough_to_call(client: Client) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert sorted(database.get_services()) == SERVICES
    pool = descriptor_pool.DescriptorPool(database)  # it asks for the files, and for all that they import
    for name in SERVICES:
        assert pool.FindServiceByName(name).full_name == name
    method = pool.FindServiceByName(CONTRACT).methods_by_name["Ping"]
    asked, answered = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
    call = client.channel.unary_unary(
        f"/{CONTRACT}/{method.name}",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    assert call(asked(message="hello"), timeout=PATIENCE).message == "hello"


@check("host", "worker", "alone")
def reflection_on_one_stream(client: Client) -> None:
    extension = pb2.ExtensionRequest(containing_type="snakepit.bridge.Variable", extension_number=1)
    requests = [
        pb2.ServerReflectionRequest(host="h", list_services=""),
        pb2.ServerReflectionRequest(file_by_filename="google/protobuf/any.proto"),
        pb2.ServerReflectionRequest(file_containing_symbol="snakepit.bridge.Variable.Source"),
        pb2.ServerReflectionRequest(file_containing_symbol=f"{CONTRACT}.ExecuteTool"),
        pb2.ServerReflectionRequest(all_extension_numbers_of_type="snakepit.bridge.Variable"),
        pb2.ServerReflectionRequest(file_by_filename="../generate.py"),
        pb2.ServerReflectionRequest(file_containing_symbol="snakepit.bridge.Nothing"),
        pb2.ServerReflectionRequest(file_containing_extension=extension),
        pb2.ServerReflectionRequest(),
    ]
    for version in ("v1", "v1alpha"):
        ask = client.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb2.ServerReflectionResponse.FromString,
        )
        answers = list(ask(iter(requests), timeout=PATIENCE))
        assert [each.original_request for each in answers] == requests
        assert answers[0].valid_host == "h"
        assert [each.name for each in answers[0].list_services_response.service] == SERVICES
        files = [file_of(each) for each in answers[1:4]]
        assert files == ["google/protobuf/any.proto", "snakepit_bridge.proto", "snakepit_bridge.proto"]
        numbers = answers[4].all_extension_numbers_response
        assert (numbers.base_type_name, list(numbers.extension_number)) == ("snakepit.bridge.Variable", [])
        codes = [each.error_response.error_code for each in answers[5:]]
        assert codes == [grpc.StatusCode.NOT_FOUND.value[0]] * 3 + [grpc.StatusCode.INVALID_ARGUMENT.value[0]]


def file_of(answer: Any) -> str:
    (data,) = answer.file_descriptor_response.file_descriptor_proto
    return str(FileDescriptorProto.FromString(data).name)
