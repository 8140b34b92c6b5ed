"""A foreign worker of contract 0.4 or 0.13, with Google's gRPC and protobuf and nothing of ours.

It finds the modules that stubs.py generates in the folder GOOGLE_STUBS. Bad habits are for --habits:

- flood: 64 KB of text on stdout and on stderr before it is ready and around every tool call
- ignore_term: SIGTERM does nothing
- end_twice: a stream sends its last chunk twice, and another one
- no_final: a stream ends without a last chunk
- die_in_stream: `count` ends the process after its third chunk
- unimplemented: Ping and Heartbeat are UNIMPLEMENTED
- slow_ready: ready a second late
- split_ready: the ready line of 0.4 comes in two pieces
- never_ready: listens and does not say so
- garbage_result: `echo` answers with an unknown type
- not_json_result: `echo` answers with what is no JSON
- small_messages: requests of more than 50,000 bytes are refused
- few_streams: two requests at a time on a connection
- short_connections: a connection is to be left after half a second
"""

# ruff: noqa: N802 - methods are named as the RPCs are

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from readiness import flood, say_ready  # type: ignore[import-not-found]  # beside this script
from values import (  # type: ignore[import-not-found]  # beside this script
    PREFIX,
    STRING_VALUE,
    UNKNOWN,
    decode_any,
    encode_json,
    set_any,
    set_parameter,
    variable_type,
)

sys.path.insert(0, os.environ["GOOGLE_STUBS"])
# Generated modules have no types, so there is nothing that a plain import would tell.
pb2: Any = importlib.import_module("snakepit_bridge_pb2")
services: Any = importlib.import_module("snakepit_bridge_pb2_grpc")

HABITS = {
    "flood",
    "ignore_term",
    "end_twice",
    "no_final",
    "die_in_stream",
    "unimplemented",
    "slow_ready",
    "split_ready",
    "never_ready",
    "garbage_result",
    "not_json_result",
    "small_messages",
    "few_streams",
    "short_connections",
}

NO_READY_FILE, NO_HOST, NO_HEARTBEAT = 2, 3, 4  # exit codes of 0.13
HOST_TIMEOUT_S = 10.0
HEARTBEAT_S = 2.0
THREADS = 32

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
LIMITS = {
    "small_messages": {"grpc.max_receive_message_length": 50_000},
    "few_streams": {"grpc.max_concurrent_streams": 2},
    "short_connections": {"grpc.max_connection_age_ms": 500, "grpc.max_connection_age_grace_ms": 60_000},
}


def main(hosts: Any = None, workers: Any = None) -> None:
    """Serve until SIGTERM. Subclasses of `Host` and `Worker` may stand for these."""
    options = read_options()
    modern = options.contract == "0.13"
    handle_term(options.habits, exit_code=0 if modern else 1)
    if modern and "SNAKEPIT_READY_FILE" not in os.environ:
        sys.exit(NO_READY_FILE)
    host = (hosts or Host)(options.elixir_address, modern)
    if modern and not host.answers():
        sys.exit(NO_HOST)
    limits = {name: limit for habit in options.habits for name, limit in LIMITS.get(habit, {}).items()}
    settings = {**dict(CHANNEL_OPTIONS), "grpc.so_reuseport": 0, **limits}
    server = grpc.server(ThreadPoolExecutor(THREADS), options=tuple(settings.items()))
    services.add_BridgeServiceServicer_to_server((workers or Worker)(host, options.habits, modern), server)
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    say_ready(port, options.habits, modern)
    server.wait_for_termination()


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--adapter")
    parser.add_argument("--elixir-address", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--snakepit-run-id")
    parser.add_argument("--contract", choices=("0.4", "0.13"), default="0.4")
    parser.add_argument("--habits", type=lambda text: frozenset(text.split(",")) - {""}, default=frozenset())
    options, _ = parser.parse_known_args()
    if unknown := options.habits - HABITS:
        parser.error(f"no such habits: {', '.join(sorted(unknown))}")
    return options


def handle_term(habits: frozenset[str], exit_code: int) -> None:
    if "ignore_term" in habits:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        # An orderly exit would wait for the threads, and they for their tools.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(exit_code))


# The host


class Host:
    """What the worker asks of its host. Calls have no deadline: a host that does not answer freezes the worker."""

    def __init__(self, address: str, modern: bool) -> None:
        self._stub = services.BridgeServiceStub(grpc.insecure_channel(address, options=CHANNEL_OPTIONS))
        self._modern = modern
        self._lock = threading.Lock()
        self.begun: set[str] = set()  # sessions that have heartbeats
        self.most = 0  # heartbeats at once

    def forget(self, session_id: str) -> bool:
        """End the heartbeats of a session; returns whether there were any."""
        with self._lock:
            known = session_id in self.begun
            self.begun.discard(session_id)
        return known

    def heartbeats(self) -> tuple[int, int]:
        """How many sessions have heartbeats, and how many had at most."""
        return len(self.begun), self.most

    def beats(self, session_id: str) -> bool:
        return bool(self._stub.Heartbeat(pb2.HeartbeatRequest(session_id=session_id)).session_valid)

    def answers(self) -> bool:
        try:
            self._stub.Ping(pb2.PingRequest(message="worker"), timeout=HOST_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            print(f"the host does not answer: {error_text(error)}", file=sys.stderr, flush=True)
            return False
        return True

    def prepare(self, session_id: str) -> None:
        """What the contract asks for before a tool runs."""
        if not self._modern:
            self._initialize(session_id)
            self.tools(session_id)
            self._register(session_id)
            return
        with self._lock:
            if session_id in self.begun:
                return
            self._initialize(session_id)
            self._register(session_id)
            self.begun.add(session_id)
        self.most = max(self.most, len(self.begun))
        threading.Thread(target=self._keep_alive, args=(session_id,), daemon=True).start()

    def tools(self, session_id: str) -> list[str]:
        response = self._stub.GetExposedElixirTools(pb2.GetExposedElixirToolsRequest(session_id=session_id))
        return sorted(tool.name for tool in response.tools)

    def run(self, session_id: str, name: str, arguments: dict[str, Any]) -> Any:
        request = pb2.ExecuteElixirToolRequest(session_id=session_id, tool_name=name)
        for key, value in arguments.items():
            set_parameter(request.parameters[key], value, self._modern)
        response = self._stub.ExecuteElixirTool(request)
        check(response)
        return decode_any(response.result, response.binary_result) if response.HasField("result") else None

    def get_variable(self, session_id: str, name: str) -> Any:
        request = pb2.GetVariableRequest(session_id=session_id, variable_identifier=name)
        variable = self._stub.GetVariable(request).variable
        return decode_any(variable.value, variable.binary_value)

    def set_variable(self, session_id: str, name: str, value: Any) -> int:
        """The new version."""
        request = pb2.SetVariableRequest(session_id=session_id, variable_identifier=name)
        set_any(request.value, f"{PREFIX}snakepit.{variable_type(value)}", encode_json(value))
        try:
            response = self._stub.SetVariable(request)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return self._register_variable(session_id, name, value)
        check(response)
        return int(response.new_version)

    def _register_variable(self, session_id: str, name: str, value: Any) -> int:
        kind = variable_type(value)
        request = pb2.RegisterVariableRequest(session_id=session_id, name=name, type=kind)
        set_any(request.initial_value, f"{PREFIX}snakepit.{kind}", encode_json(value))
        check(self._stub.RegisterVariable(request))
        return 1

    def _initialize(self, session_id: str) -> None:
        check(self._stub.InitializeSession(pb2.InitializeSessionRequest(session_id=session_id)))

    def _register(self, session_id: str) -> None:
        request = pb2.RegisterToolsRequest(session_id=session_id, worker_id=f"google-{os.getpid()}")
        request.tools.extend(registration(name, tool) for name, tool in TOOLS.items())
        check(self._stub.RegisterTools(request))

    def _keep_alive(self, session_id: str) -> None:
        while session_id in self.begun:
            request = pb2.HeartbeatRequest(session_id=session_id)
            request.client_time.GetCurrentTime()
            try:
                self._stub.Heartbeat(request)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    os._exit(NO_HEARTBEAT)
            time.sleep(HEARTBEAT_S)


def check(response: Any) -> None:
    if not response.success:
        raise RuntimeError(response.error_message)


def error_text(error: Exception) -> str:
    # The str of an RpcError is a page of internals.
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)


# Tools


@dataclass(frozen=True)
class Call:
    """What a tool knows of its call."""

    host: Host
    session_id: str
    habits: frozenset[str]


def echo(call: Call, value: Any) -> Any:
    return value


def add(call: Call, a: float, b: float) -> float:
    return a + b


def fail(call: Call, message: str) -> None:
    raise ValueError(message)


def slow(call: Call, seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def get_var(call: Call, name: str) -> Any:
    return call.host.get_variable(call.session_id, name)


def set_var(call: Call, name: str, value: Any) -> int:
    return call.host.set_variable(call.session_id, name, value)


def call_host(call: Call, tool: str, args: dict[str, Any]) -> Any:
    return call.host.run(call.session_id, tool, args)


def heartbeats(call: Call) -> list[int]:
    return list(call.host.heartbeats())


def beats(call: Call, session_ids: Any) -> list[bool]:
    return [call.host.beats(session_id) for session_id in session_ids]


def sessions(call: Call) -> list[str]:
    return sorted(call.host.begun)


def host_tools(call: Call) -> list[str]:
    return call.host.tools(call.session_id)


def add_up(call: Call, tensor: dict[str, Any]) -> float:
    numbers = list(flat(tensor["data"]))
    if len(numbers) != math.prod(tensor["shape"]):
        raise ValueError(f"{len(numbers)} numbers are no tensor of shape {tensor['shape']}")
    return sum(numbers)


def flat(data: Any) -> Iterator[float]:
    if isinstance(data, list):
        for item in data:
            yield from flat(item)
    else:
        yield data


def die(call: Call) -> None:
    os._exit(3)


def variable(call: Call, name: str) -> str | None:
    return os.environ.get(name)


def pid(call: Call) -> int:
    return os.getpid()


def count(call: Call, n: int) -> Iterator[dict[str, int]]:
    for k in range(n):
        yield {"i": k}
        if k == 2 and "die_in_stream" in call.habits:
            time.sleep(0.2)  # for the third chunk to leave the process
            os._exit(5)


def raw_count(call: Call, n: int) -> Iterator[bytes]:
    for k in range(n):
        yield b"\xff%d" % k


def fail_after(call: Call, n: int, message: str) -> Iterator[dict[str, int]]:
    for k in range(n):
        yield {"i": k}
    raise ValueError(message)


STREAMS: dict[str, Callable[..., Any]] = {"count": count, "fail_after": fail_after, "raw_count": raw_count}
TOOLS: dict[str, Callable[..., Any]] = {
    "echo": echo,
    "add": add,
    "fail": fail,
    "slow": slow,
    "get_var": get_var,
    "set_var": set_var,
    "call_host": call_host,
    "heartbeats": heartbeats,
    "beats": beats,
    "sessions": sessions,
    "host_tools": host_tools,
    "sum": add_up,
    "die": die,
    "pid": pid,
    "variable": variable,
    **STREAMS,
}
PARAMETER_TYPES = {"str": "string", "float": "float", "int": "integer", "dict[str, Any]": "map", "Any": "any"}


def registration(name: str, tool: Callable[..., Any]) -> Any:
    _, *parameters = inspect.signature(tool).parameters.values()
    return pb2.ToolRegistration(
        name=name,
        description=f"{name} of the Google worker",
        parameters=[
            pb2.ParameterSpec(name=parameter.name, type=PARAMETER_TYPES[parameter.annotation], required=True)
            for parameter in parameters
        ],
        supports_streaming=name in STREAMS,
    )


def find_tool(name: str, streaming: bool) -> Callable[..., Any]:
    if name not in TOOLS:
        raise LookupError(f"no tool {name!r}; there are: {', '.join(sorted(TOOLS))}")
    if streaming != (name in STREAMS):
        raise LookupError(f"tool {name!r} {'does not stream' if streaming else 'streams'}")
    return TOOLS[name]


# The service


class Worker(services.BridgeServiceServicer):
    """What the host may call. What is not here is UNIMPLEMENTED in the generated base class."""

    def __init__(self, host: Host, habits: frozenset[str], modern: bool) -> None:
        self._host = host
        self._habits = habits
        self._modern = modern

    def Ping(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._refuse_if_unimplemented(context)
        response = pb2.PingResponse(message=request.message)
        response.server_time.GetCurrentTime()
        return response

    def Heartbeat(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._refuse_if_unimplemented(context)
        response = pb2.HeartbeatResponse(session_valid=True)
        response.server_time.GetCurrentTime()
        return response

    def CleanupSession(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._refuse_if_unimplemented(context)
        return pb2.CleanupSessionResponse(success=self._host.forget(request.session_id))

    def ExecuteTool(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._flood()
        started = time.monotonic()
        response = pb2.ExecuteToolResponse()
        try:
            self._set_result(response, request.tool_name, self._start(request, streaming=False))
            response.success = True
        except Exception as error:
            response.error_message = self._describe(error)
        response.execution_time_ms = round((time.monotonic() - started) * 1000)
        self._flood()
        return response

    def ExecuteStreamingTool(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._flood()
        numbers = itertools.count()
        try:
            for data, is_final in self._chunks(request):
                chunk_id = f"{request.tool_name}-{next(numbers)}"
                yield pb2.ToolChunk(chunk_id=chunk_id, data=data, is_final=is_final)
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, self._describe(error))
        finally:
            self._flood()

    def _chunks(self, request: Any) -> Iterator[tuple[bytes, bool]]:
        for value in self._start(request, streaming=True):
            yield value if isinstance(value, bytes) else encode_json(value), False
        if "no_final" in self._habits:
            return
        yield b"", True
        if "end_twice" in self._habits:
            yield b"", True
            yield encode_json("after the end"), False

    def _start(self, request: Any, streaming: bool) -> Any:
        """The result of a tool, or the iterator of one that streams."""
        self._host.prepare(request.session_id)
        tool = find_tool(request.tool_name, streaming)
        return tool(Call(self._host, request.session_id, self._habits), **self._arguments(request))

    def _arguments(self, request: Any) -> dict[str, Any]:
        return {
            name: decode_any(packed, request.binary_parameters.get(name, b""))
            for name, packed in request.parameters.items()
        }

    def _set_result(self, response: Any, name: str, value: Any) -> None:
        target = response.result
        if name == "echo" and "garbage_result" in self._habits:
            set_any(target, UNKNOWN, encode_json(value))
        elif name == "echo" and "not_json_result" in self._habits:
            set_any(target, STRING_VALUE, b"\xff\xfe{")
        else:
            set_any(target, STRING_VALUE, encode_json(value))

    def _describe(self, error: Exception) -> str:
        if not self._modern:
            return error_text(error)
        stacktrace = "".join(traceback.format_exception(error))
        return json.dumps({"type": type(error).__name__, "message": error_text(error), "stacktrace": stacktrace})

    def _refuse_if_unimplemented(self, context: grpc.ServicerContext) -> None:
        if "unimplemented" in self._habits:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

    def _flood(self) -> None:
        if "flood" in self._habits:
            flood()


if __name__ == "__main__":
    main()
