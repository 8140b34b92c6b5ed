"""A connection of the client, values in Any, and what its checks are made of."""

from __future__ import annotations

import importlib
import json
import math
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

sys.path.insert(0, os.environ["GOOGLE_STUBS"])
# Generated modules have no types, so there is nothing that a plain import would tell.
pb2: Any = importlib.import_module("snakepit_bridge_pb2")
services: Any = importlib.import_module("snakepit_bridge_pb2_grpc")
any_pb2: Any = importlib.import_module("google.protobuf.any_pb2")
wrappers: Any = importlib.import_module("google.protobuf.wrappers_pb2")

PREFIX = "type.googleapis.com/"
STRING_VALUE = PREFIX + "google.protobuf.StringValue"
VALUE = PREFIX + "google.protobuf.Value"
SERVICE = "/snakepit.bridge.BridgeService/"

Code: Any = grpc.StatusCode
MODE, ADDRESS = sys.argv[1:3]
PATIENCE = 60.0  # seconds until what should have come long ago is given up
LONG = 600.0  # seconds that no tool runs here, because it is stopped before
THREADS = 20
LARGE = 1281  # the smallest number of elements that travels in binary

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


class Client:
    """A connection. Every call of `call` ends within `PATIENCE`. It tells that it reads large arrays in raw bytes."""

    def __init__(self, address: str, *, reads_raw: bool = True) -> None:
        self.metadata = (("snakepit-large-values", "raw"),) if reads_raw else ()
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = services.BridgeServiceStub(self.channel)

    def call(self, rpc: str, /, timeout: float = PATIENCE, **fields: Any) -> Any:
        """The response of a unary RPC, to a request with these fields."""
        return getattr(self.stub, rpc)(request_of(rpc, **fields), timeout=timeout, metadata=self.metadata)

    def stream(self, rpc: str, /, timeout: float = PATIENCE, **fields: Any) -> Any:
        return getattr(self.stub, rpc)(request_of(rpc, **fields), timeout=timeout, metadata=self.metadata)

    def raw(self, rpc: str, data: bytes) -> bytes:
        """The bytes of the response to the bytes of a request."""
        method = self.channel.unary_unary(SERVICE + rpc, request_serializer=bytes, response_deserializer=bytes)
        found: bytes = method(data, timeout=PATIENCE, metadata=self.metadata)
        return found

    def open(self, session_id: str, **fields: Any) -> Any:
        response = self.call("InitializeSession", session_id=session_id, **fields)
        assert response.success, response
        return response

    def register(self, session_id: str, name: str, type: str, value: Any, **fields: Any) -> str:
        """The id of a new variable, whose value is JSON or an Any."""
        packed = value if isinstance(value, any_pb2.Any) else typed(type, value)
        response = self.call(
            "RegisterVariable", session_id=session_id, name=name, type=type, initial_value=packed, **fields
        )
        assert response.success, response
        assert response.variable_id
        return str(response.variable_id)

    def variable(self, session_id: str, identifier: str) -> Any:
        return self.call("GetVariable", session_id=session_id, variable_identifier=identifier).variable

    def set(self, session_id: str, identifier: str, type: str, value: Any, **fields: Any) -> int:
        response = self.call(
            "SetVariable",
            session_id=session_id,
            variable_identifier=identifier,
            value=typed(type, value),
            **fields,
        )
        assert response.success, response
        return int(response.new_version)

    def execute(self, tool: str, /, session_id: str = "", timeout: float = PATIENCE, **args: Any) -> Any:
        """The result of a tool that succeeds."""
        response = self.respond(tool, session_id, timeout, **args)
        assert response.success, response
        assert response.error_message == ""
        return result_of(response)

    def respond(self, tool: str, /, session_id: str = "", timeout: float = PATIENCE, **args: Any) -> Any:
        packed = parameters(args)
        return self.call("ExecuteTool", timeout, session_id=session_id, tool_name=tool, parameters=packed)

    def fail(self, tool: str, /, session_id: str = "", **args: Any) -> str:
        """The text of a tool that fails."""
        return failure_of(self.respond(tool, session_id, **args))

    def start(self, tool: str, /, timeout: float = LONG, **args: Any) -> Any:
        """A call of a tool, as a future."""
        request = request_of("ExecuteTool", tool_name=tool, parameters=parameters(args))
        return self.stub.ExecuteTool.future(request, timeout=timeout, metadata=self.metadata)

    def chunks(self, tool: str, /, session_id: str = "", timeout: float = PATIENCE, **args: Any) -> Any:
        fields: dict[str, Any] = {"session_id": session_id, "tool_name": tool, "parameters": parameters(args)}
        return self.stream("ExecuteStreamingTool", timeout, stream=True, **fields)

    def execute_host_tool(self, tool: str, /, session_id: str = "", **args: Any) -> Any:
        packed = parameters(args)
        return self.call("ExecuteElixirTool", session_id=session_id, tool_name=tool, parameters=packed)

    def close(self) -> None:
        self.channel.close()


REQUESTS = {
    "GetVariables": "BatchGetVariablesRequest",
    "SetVariables": "BatchSetVariablesRequest",
    "ExecuteStreamingTool": "ExecuteToolRequest",
}


def request_of(rpc: str, **fields: Any) -> Any:
    return getattr(pb2, REQUESTS.get(rpc, f"{rpc}Request"))(**fields)


# Values in Any


def packed_json(url: str, value: Any) -> Any:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return any_pb2.Any(type_url=url, value=data)


def typed(type: str, value: Any) -> Any:
    """A value of a type, which is bytes or to be JSON."""
    return packed_json(f"{PREFIX}snakepit.{type}", value)


def parameters(args: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, any_pb2.Any) else packed_json(STRING_VALUE, value)
        for name, value in args.items()
    }


def real_string(text: str) -> Any:
    packed = any_pb2.Any()
    packed.Pack(wrappers.StringValue(value=text))
    assert packed.type_url == STRING_VALUE
    return packed


def result_of(response: Any) -> Any:
    assert response.result.type_url in (STRING_VALUE, f"{PREFIX}snakepit.tensor"), response.result.type_url
    return json.loads(response.result.value)


def failure_of(response: Any) -> str:
    assert not response.success, response
    assert not response.HasField("result") or not response.result.value, response
    assert response.error_message
    return str(response.error_message)


def tensor_about(shape: list[int], dtype: str, type: str = "tensor", binary_format: str = "raw") -> Any:
    about = {"shape": shape, "dtype": dtype, "binary_format": binary_format, "type": type}
    return typed(f"{type}.binary", about)


def doubles(count: int) -> bytes:
    return struct.pack(f"<{count}d", *range(count))


def is_binary(packed: Any, binary: bytes, shape: list[int], dtype: str, type: str = "tensor") -> None:
    assert packed.type_url == f"{PREFIX}snakepit.{type}.binary"
    about = json.loads(packed.value)
    assert about == {"shape": shape, "dtype": dtype, "binary_format": "raw", "type": type}
    width = {"float64": 8, "float32": 4, "int32": 4, "uint8": 1, "float16": 2}[dtype]
    assert len(binary) == math.prod(shape) * width


# Checks


Check = Callable[[Client], None]
CHECKS: dict[str, list[Check]] = {}


def check(*modes: str) -> Callable[[Check], Check]:
    """A check of these modes."""

    def note(function: Check) -> Check:
        for mode in modes:
            CHECKS.setdefault(mode, []).append(function)
        return function

    return note


@contextmanager
def refused(*codes: Any, says: str = "") -> Iterator[list[str]]:
    """What is inside fails with one of these statuses, and a message with that text; gives the message, afterwards."""
    failure: Any = None
    said: list[str] = []
    try:
        yield said
    except grpc.RpcError as error:
        failure = error
        said.append(error.details())
    assert failure is not None, f"was not refused with {codes}"
    assert failure.code() in codes, f"{failure.code()}, not {codes}: {failure.details()}"
    assert says in said[0], f"{says!r} is not in {said[0]!r}"


def is_now(stamp: Any) -> bool:
    return bool(abs(stamp.seconds + stamp.nanos / 1e9 - time.time()) < 3600)


def has_ended(call: Any, code: Any) -> None:
    """A call ends with this status."""
    deadline = time.monotonic() + PATIENCE
    while not call.done():
        assert time.monotonic() < deadline, f"not over after {PATIENCE} s"
        time.sleep(0.01)
    assert call.code() == code, (call.code(), call.details())


def host() -> Client:
    """The host of the worker."""
    return Client(os.environ["GOOGLE_HOST"])


def text_in(failure: str) -> str:
    """The message of a tool's failure, which is the text itself in 0.4 and inside of JSON in 0.13."""
    if os.environ.get("GOOGLE_CONTRACT") != "0.13":
        return failure
    told = json.loads(failure)
    assert set(told) == {"type", "message", "stacktrace"}, failure
    return f"{told['type']}: {told['message']}"


def read_to_end(tool: str, chunks: Any) -> list[Any]:
    """The data of all chunks but the last, which is the only final one."""
    found = list(chunks)
    assert [chunk.chunk_id for chunk in found] == [f"{tool}-{n}" for n in range(len(found))]
    assert [chunk.is_final for chunk in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].data == b""
    return [json.loads(chunk.data) for chunk in found[:-1]]


def workers() -> int:
    """Calls that run at a time."""
    return 2 if MODE == "host" else 1


def is_busy(client: Client) -> None:
    """No worker has a place for a call, or will have none at once: one waits longer than it would take."""
    deadline = time.monotonic() + PATIENCE
    while has_a_place(client):
        assert time.monotonic() < deadline, "no call runs"


def has_a_place(client: Client) -> bool:
    try:
        client.execute("add", timeout=0.5, a=1, b=2)
    except grpc.RpcError as error:
        if error.code() != Code.DEADLINE_EXCEEDED:
            raise
        return False
    return True


def is_free(client: Client) -> None:
    """Every worker runs calls, long before those that were stopped would have ended."""
    calls = [client.start("slow", PATIENCE, seconds=0.1) for _ in range(2 * workers())]
    assert [result_of(call.result()) for call in calls] == ["done"] * len(calls)
