"""Checks of sessions."""

from __future__ import annotations

from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    PATIENCE,
    STRING_VALUE,
    Client,
    Code,
    check,
    is_now,
    packed_json,
    pb2,
    refused,
    request_of,
    typed,
)


@check("host", "worker", "alone", "unreachable")
def ping(client: Client) -> None:
    response = client.call("Ping", message="häi\n")
    assert response.message == "häi\n"
    assert is_now(response.server_time)
    assert client.call("Ping").message == ""


@check("host")
def sessions(client: Client) -> None:
    config = pb2.SessionConfig(enable_caching=True, cache_ttl_seconds=7, enable_telemetry=True)
    first = client.open("sessions", metadata={"who": "me", "what": "x"}, config=config)
    client.register("sessions", "x", "float", 1.5)
    joined = client.open("sessions", metadata={"what": "y"})
    # Variables may be large, and a worker opens a session for each call: it asks for those that it needs.
    assert not first.initial_variables
    assert not joined.initial_variables
    found = client.call("GetSession", session_id="sessions")
    assert found.session_id == "sessions"
    assert found.metadata == {"who": "me", "what": "y"}
    assert is_now(found.created_at)
    assert found.variable_count == 1
    assert found.tool_count == len(joined.available_tools)
    gone = client.call("CleanupSession", session_id="sessions")
    assert gone.success
    assert gone.resources_cleaned == 1
    with refused(Code.NOT_FOUND, says="not found"):
        client.call("GetSession", session_id="sessions")
    assert not client.open("sessions").initial_variables


@check("host")
def session_ids(client: Client) -> None:
    with refused(Code.INVALID_ARGUMENT, says="session_id"):
        client.call("InitializeSession")
    client.open("ünï/ 1\n")
    assert client.call("GetSession", session_id="ünï/ 1\n").session_id == "ünï/ 1\n"


@check("host")
def tools_of_a_session(client: Client) -> None:
    tools = client.open("tools").available_tools
    assert {"triple", "broken", "later", "numbers"} <= tools.keys()
    triple = tools["triple"]
    assert triple.name == "triple"
    assert triple.description == "Three times n."
    assert [(each.name, each.required) for each in triple.parameters] == [("n", True)]
    assert not triple.supports_streaming
    assert tools["numbers"].supports_streaming
    assert [(each.name, each.required) for each in tools["later"].parameters] == [("value", True), ("by", False)]


@check("host")
def defaults_of_parameters(client: Client) -> None:
    tools = client.open("defaults").available_tools
    for tool, name, default in (("later", "by", 2), ("broken", "message", "boo")):
        by = parameter(tools[tool], name)
        assert by.default_value == packed_json(STRING_VALUE, default), by
        assert not by.required
    # One that is no literal, and none at all.
    for tool, name, required in (("grid", "dtype", False), ("grid", "n", True)):
        found = parameter(tools[tool], name)
        assert not found.HasField("default_value"), found
        assert found.required is required


def parameter(tool: Any, name: str) -> Any:
    (found,) = [each for each in tool.parameters if each.name == name]
    return found


@check("host")
def heartbeats(client: Client) -> None:
    client.open("heartbeats")
    request = request_of("Heartbeat", session_id="heartbeats")
    request.client_time.GetCurrentTime()
    response = client.stub.Heartbeat(request, timeout=PATIENCE)
    assert response.session_valid
    assert is_now(response.server_time)
    assert not client.call("Heartbeat", session_id="no such").session_valid
    assert not client.call("Heartbeat").session_valid


SESSION_RPCS: dict[str, dict[str, Any]] = {
    "GetSession": {},
    "RegisterVariable": {"name": "x", "type": "float", "initial_value": typed("float", 1)},
    "GetVariable": {"variable_identifier": "x"},
    "SetVariable": {"variable_identifier": "x", "value": typed("float", 1)},
    "GetVariables": {"variable_identifiers": ["x"]},
    "SetVariables": {"updates": {"x": typed("float", 1)}},
    "ListVariables": {},
    "DeleteVariable": {"variable_identifier": "x"},
    "AddDependency": {"from_variable": "x", "to_variable": "y"},
    "StartOptimization": {"variable_identifier": "x", "optimizer_id": "o"},
    "StopOptimization": {"variable_identifier": "x"},
    "GetVariableHistory": {"variable_identifier": "x"},
    "RollbackVariable": {"variable_identifier": "x", "target_version": 1},
}


@check("host")
def missing_sessions(client: Client) -> None:
    for rpc, fields in SESSION_RPCS.items():
        for session_id in ("no such", ""):
            with refused(Code.NOT_FOUND, says="not found"):
                client.call(rpc, session_id=session_id, **fields)
    for names in ([], ["x"]):
        with refused(Code.NOT_FOUND, says="not found"):
            next(client.stream("WatchVariables", session_id="no such", variable_identifiers=names))


@check("host")
def ending_missing_sessions(client: Client) -> None:
    for session_id in ("no such", ""):
        gone = client.call("CleanupSession", session_id=session_id)
        assert gone.success
        assert gone.resources_cleaned == 0


@check("host")
def registering_tools_of_missing_sessions(client: Client) -> None:
    tools = [pb2.ToolRegistration(name="mine")]
    with refused(Code.NOT_FOUND, says="not found"):
        client.call("RegisterTools", session_id="no such", tools=tools, worker_id="w")


@check("host")
def listing_tools_of_missing_sessions(client: Client) -> None:
    with refused(Code.NOT_FOUND, says="not found"):
        client.call("GetExposedElixirTools", session_id="no such")


@check("host")
def calling_host_tools_of_missing_sessions(client: Client) -> None:
    with refused(Code.NOT_FOUND, says="not found"):
        client.execute_host_tool("triple", "no such", n=14)


@check("host")
def calling_tools_in_missing_sessions(client: Client) -> None:
    with refused(Code.NOT_FOUND, says="not found"):
        client.respond("add", "no such", a=1, b=2)
    with refused(Code.NOT_FOUND, says="not found"):
        list(client.chunks("count", "no such", n=3))
    assert client.execute("add", a=1, b=2) == 3


@check("host")
def missing_variables(client: Client) -> None:
    client.open("missing variables")
    client.register("missing variables", "y", "float", 1)
    rpcs = SESSION_RPCS.keys() - {
        "GetSession", "RegisterVariable", "GetVariables", "SetVariables", "ListVariables",
    }  # fmt: skip
    for rpc in sorted(rpcs):
        with refused(Code.NOT_FOUND, says="not found"):
            client.call(rpc, session_id="missing variables", **SESSION_RPCS[rpc])
    fields: dict[str, Any] = {"session_id": "missing variables", "variable_identifiers": ["y", "x"]}
    with refused(Code.NOT_FOUND, says="not found"):
        next(client.stream("WatchVariables", **fields))
