"""Checks of tools: those of the host, those of workers, and what these do with sessions."""

from __future__ import annotations

import json
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    ADDRESS,
    LARGE,
    MODE,
    PATIENCE,
    PREFIX,
    STRING_VALUE,
    VALUE,
    Client,
    Code,
    check,
    doubles,
    failure_of,
    host,
    is_binary,
    packed_json,
    parameters,
    pb2,
    real_string,
    refused,
    request_of,
    result_of,
    tensor_about,
    text_in,
    typed,
)


@check("host")
def registering_tools(client: Client) -> None:
    client.open("register")
    limit = pb2.ParameterSpec(name="limit", type="integer", default_value=packed_json(STRING_VALUE, 5))
    text = pb2.ParameterSpec(name="text", type="string", required=True, validation_json='{"min_length": 1}')
    tools = [
        pb2.ToolRegistration(name="mine", description="Mine.", parameters=[text, limit], metadata={"k": "v"}),
        pb2.ToolRegistration(name="flow", supports_streaming=True),
    ]
    response = client.call("RegisterTools", session_id="register", tools=tools, worker_id="w1")
    assert response.success
    assert response.tool_ids.keys() == {"mine", "flow"}
    assert len(set(response.tool_ids.values())) == 2
    again = client.call("RegisterTools", session_id="register", tools=tools, worker_id="w2")
    assert again.tool_ids == response.tool_ids
    assert client.call("RegisterTools", session_id="register", worker_id="w1").success
    exposed = {tool.name for tool in client.call("GetExposedElixirTools", session_id="register").tools}
    assert not exposed & {"mine", "flow"}


@check("host")
def exposed_tools(client: Client) -> None:
    opened = client.open("exposed")
    for session_id in ("exposed", ""):
        tools = client.call("GetExposedElixirTools", session_id=session_id).tools
        assert {tool.name: tool for tool in tools} == dict(opened.available_tools)


@check("host")
def host_tools(client: Client) -> None:
    client.open("host tools")
    for session_id in ("host tools", ""):
        response = client.execute_host_tool("triple", session_id, n=14)
        assert response.success, response
        assert result_of(response) == 42
        assert response.result == packed_json(STRING_VALUE, b"42")
        assert response.execution_time_ms >= 0
        assert result_of(client.execute_host_tool("later", session_id, value="x", by=3)) == "xxx"
        assert result_of(client.execute_host_tool("later", session_id, value=real_string("y"))) == "yy"
        assert result_of(client.execute_host_tool("triple", session_id, n=packed_json(VALUE, b"5"))) == 15


@check("host")
def host_tools_that_fail(client: Client) -> None:
    failure = failure_of(client.execute_host_tool("broken"))
    assert "KeyError" in failure
    assert "boo" in failure
    assert "nope" in failure_of(client.execute_host_tool("nope"))
    assert "n" in failure_of(client.execute_host_tool("triple"))
    assert "'n'" in failure_of(client.execute_host_tool("triple", n="x"))
    assert "'m'" in failure_of(client.execute_host_tool("triple", n=1, m=2))
    assert "stream" in failure_of(client.execute_host_tool("numbers", n=2))
    assert "add" in failure_of(client.execute_host_tool("add", a=1, b=2))
    assert "unknown.Type" in failure_of(client.execute_host_tool("triple", n=packed_json(PREFIX + "unknown.Type", 1)))
    assert result_of(client.execute_host_tool("triple", n=1)) == 3


@check("host")
def large_results_of_host_tools(client: Client) -> None:
    response = client.execute_host_tool("grid", n=LARGE)
    assert response.success
    is_binary(response.result, response.binary_result, [LARGE], "float64")
    assert response.binary_result == doubles(LARGE)


@check("host")
def host_tools_that_are_cancelled(client: Client) -> None:
    request = request_of("ExecuteElixirTool", tool_name="later", parameters=parameters({"value": "x", "by": 10**9}))
    with refused(Code.DEADLINE_EXCEEDED):
        client.stub.ExecuteElixirTool(request, timeout=0.5)
    assert result_of(client.execute_host_tool("triple", n=1)) == 3


# Tools of workers.

VALUES: list[Any] = [
    None,
    True,
    0,
    -7,
    2**40,
    1.5,
    "",
    "text",
    "ünï\n\x00",
    [],
    [1, [2, "x"]],
    {},
    {"a": {"b": [None]}},
]


@check("host", "worker", "alone")
def results(client: Client) -> None:
    for value in VALUES:
        assert client.execute("echo", value=value) == value
        if value != "":
            assert client.execute("echo", value=packed_json(VALUE, value)) == value
    for text in ("", "text", "42", '"quoted"', "ünï\n\x00", "x" * 200, "\n\x0a"):
        assert client.execute("echo", value=real_string(text)) == text
    assert client.execute("add", a=1, b=2.5) == 3.5
    assert client.execute("add", a=packed_json(VALUE, 1), b=packed_json(VALUE, 2)) == 3
    assert client.execute("add", a=typed("float", 1), b=typed("integer", 2)) == 3


@check("host", "worker")
def times_of_calls(client: Client) -> None:
    response = client.respond("slow", seconds=0.3)
    assert result_of(response) == "done"
    assert 300 <= response.execution_time_ms < 1000 * PATIENCE


@check("host", "worker", "alone")
def failures(client: Client) -> None:
    told = text_in(client.fail("fail", message="boo"))
    assert "ValueError" in told
    assert "boo" in told
    assert "'nope'" in text_in(client.fail("nope"))
    assert "'b'" in text_in(client.fail("add", a=1))
    assert "'c'" in text_in(client.fail("add", a=1, b=2, c=3))
    assert "'a'" in text_in(client.fail("add", a="x", b=2))
    assert "'a'" in text_in(client.fail("add", a=packed_json(STRING_VALUE, b"{"), b=2))
    assert "unknown.Type" in text_in(client.fail("add", a=packed_json(PREFIX + "unknown.Type", 1), b=2))
    assert "stream" in text_in(client.fail("count", n=3))
    assert text_in(client.fail(""))
    assert client.execute("add", a=1, b=2) == 3


EXAMPLE = (
    b"\x0a\x02s1\x12\x03add\x1a\x39\x0a\x01a\x12\x34\x0a\x2ftype.googleapis.com/google.protobuf.StringValue\x12\x011"
)


@check("host", "worker", "alone")
def the_bytes_of_a_request(client: Client) -> None:
    request = request_of("ExecuteTool", session_id="s1", tool_name="add", parameters=parameters({"a": 1}))
    assert request.SerializeToString(deterministic=True) == EXAMPLE
    if MODE == "host":
        assert client.raw("InitializeSession", b"\x0a\x02s1")[:2] == b"\x08\x01"
    response = pb2.ExecuteToolResponse.FromString(client.raw("ExecuteTool", EXAMPLE))
    assert "'b'" in text_in(failure_of(response))
    other = b"\x1a\x39\x0a\x01b\x12\x34\x0a\x2ftype.googleapis.com/google.protobuf.StringValue\x12\x012"
    response = pb2.ExecuteToolResponse.FromString(client.raw("ExecuteTool", EXAMPLE + other))
    assert response.success, response
    assert result_of(response) == 3


@check("host", "worker")
def bytes_that_are_no_request(client: Client) -> None:
    with refused(Code.INTERNAL, Code.INVALID_ARGUMENT, Code.UNKNOWN):
        client.raw("ExecuteTool", b"\x0a\xff")
    # A field of a later contract.
    later = request_of("Ping", message="x").SerializeToString() + b"\xa2\x06\x02hi"
    assert pb2.PingResponse.FromString(client.raw("Ping", later)).message == "x"
    assert client.execute("add", a=1, b=2) == 3


@check("host", "worker", "alone")
def large_results_for_clients_that_tell_nothing(client: Client) -> None:
    silent, about = Client(ADDRESS, reads_raw=False), tensor_about([LARGE], "float64")
    binaries = {"value": doubles(LARGE)}
    response = silent.call("ExecuteTool", tool_name="echo", parameters={"value": about}, binary_parameters=binaries)
    assert response.success, response.error_message
    assert response.binary_result == b""
    assert response.result.type_url == f"{PREFIX}snakepit.tensor"
    assert json.loads(response.result.value) == {"shape": [LARGE], "data": list(range(LARGE))}
    silent.close()


@check("host", "worker")
def tensors_of_tools(client: Client) -> None:
    for data in ([[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6]):
        assert client.execute("sum", tensor=typed("tensor", {"shape": [2, 3], "data": data})) == 21
    assert client.execute("sum", tensor=typed("embedding", [1, 2, 3])) == 6
    for count in (4, 4000, 1 << 20):
        response = respond_to_tensor(client, "sum", "tensor", count, doubles(count))
        assert response.success, response
        assert result_of(response) == count * (count - 1) // 2
    assert "tensor" in text_in(failure_of(respond_to_tensor(client, "sum", "tensor", 4, b"x")))


@check("host", "worker")
def tensors_from_tools(client: Client) -> None:
    for count in (LARGE, 1 << 20):
        response = respond_to_tensor(client, "echo", "value", count, doubles(count))
        assert response.success, response
        is_binary(response.result, response.binary_result, [count], "float64")
        assert response.binary_result == doubles(count)
    response = respond_to_tensor(client, "echo", "value", 2, doubles(2))
    assert response.result.type_url == f"{PREFIX}snakepit.tensor"
    assert result_of(response) == {"shape": [2], "data": [0, 1]}
    assert response.binary_result == b""


def respond_to_tensor(client: Client, tool: str, parameter: str, count: int, binary: bytes) -> Any:
    return client.call(
        "ExecuteTool",
        tool_name=tool,
        parameters={parameter: tensor_about([count], "float64")},
        binary_parameters={parameter: binary},
    )


@check("host")
def tools_and_sessions(client: Client) -> None:
    client.open("with tools")
    client.register("with tools", "x", "float", 0.5, constraints_json='{"max": 10}')
    state_in_tools(client, client, "with tools")


@check("worker")
def tools_and_sessions_of_the_host(client: Client) -> None:
    owner = host()
    owner.open("with worker")
    owner.register("with worker", "x", "float", 0.5, constraints_json='{"max": 10}')
    state_in_tools(client, owner, "with worker")
    owner.close()


def state_in_tools(client: Client, owner: Client, session_id: str) -> None:
    assert client.execute("get_var", session_id, name="x") == 0.5
    assert client.execute("set_var", session_id, name="x", value=1.5) == 2
    assert owner.variable(session_id, "x").value.value == b"1.5"
    assert owner.set(session_id, "x", "float", 2.5) == 3
    assert client.execute("get_var", session_id, name="x") == 2.5
    assert "max" in text_in(client.fail("set_var", session_id, name="x", value=11.5))
    assert "not found" in text_in(client.fail("get_var", session_id, name="nope"))
    assert client.execute("set_var", session_id, name="new", value={"a": [1]}) == 1
    assert json.loads(owner.variable(session_id, "new").value.value) == {"a": [1]}
    assert client.execute("host_tools", session_id) == ["broken", "grid", "later", "numbers", "triple"]
    assert client.execute("call_host", session_id, tool="triple", args={"n": 14}) == 42
    assert client.execute("call_host", session_id, tool="later", args={"value": "x"}) == "xx"
    told = text_in(client.fail("call_host", session_id, tool="broken", args={}))
    assert "KeyError" in told
    assert "boo" in told
    assert "nope" in text_in(client.fail("call_host", session_id, tool="nope", args={}))
    assert "'n'" in text_in(client.fail("call_host", session_id, tool="triple", args={"n": "x"}))


@check("host", "worker")
def tools_without_a_session(client: Client) -> None:
    assert client.execute("call_host", tool="triple", args={"n": 14}) == 42
    assert text_in(client.fail("get_var", name="x"))
    assert text_in(client.fail("set_var", name="x", value=1))
