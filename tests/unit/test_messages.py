"""The wire contract: every message, field, number and type of 0.4, and bytes seen on its wire."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from bridge_py.wire import frames
from bridge_py.wire.messages.google import protobuf
from bridge_py.wire.messages.snakepit import bridge

PROTO = (Path(__file__).parents[2] / "proto" / "snakepit_bridge.proto").read_text()

# For each message its fields: number, name, type.
CONTRACT = {
    "PingRequest": ("1 message string"),
    "PingResponse": ("1 message string; 2 server_time Timestamp"),
    "InitializeSessionRequest": ("1 session_id string; 2 metadata map<string, string>; 3 config SessionConfig"),
    "SessionConfig": ("1 enable_caching bool; 2 cache_ttl_seconds int32; 3 enable_telemetry bool"),
    "InitializeSessionResponse": (
        "1 success bool; 2 error_message string; 3 available_tools map<string, ToolSpec>; "
        "4 initial_variables map<string, Variable>"
    ),
    "CleanupSessionRequest": ("1 session_id string; 2 force bool"),
    "CleanupSessionResponse": ("1 success bool; 2 resources_cleaned int32"),
    "Variable": (
        "1 id string; 2 name string; 3 type string; 4 value Any; 5 constraints_json string; "
        "6 metadata map<string, string>; 7 source Variable.Source; 8 last_updated_at Timestamp; "
        "9 version int32; 10 access_control_json string; 11 optimization_status OptimizationStatus; "
        "12 binary_value bytes"
    ),
    "OptimizationStatus": ("1 optimizing bool; 2 optimizer_id string; 3 started_at Timestamp"),
    "RegisterVariableRequest": (
        "1 session_id string; 2 name string; 3 type string; 4 initial_value Any; 5 constraints_json string; "
        "6 metadata map<string, string>; 7 initial_binary_value bytes"
    ),
    "RegisterVariableResponse": ("1 success bool; 2 variable_id string; 3 error_message string"),
    "GetVariableRequest": ("1 session_id string; 2 variable_identifier string; 3 bypass_cache bool"),
    "GetVariableResponse": ("1 variable Variable; 2 from_cache bool"),
    "SetVariableRequest": (
        "1 session_id string; 2 variable_identifier string; 3 value Any; 4 metadata map<string, string>; "
        "5 expected_version int32; 6 binary_value bytes"
    ),
    "SetVariableResponse": ("1 success bool; 2 error_message string; 3 new_version int32"),
    "BatchGetVariablesRequest": (
        "1 session_id string; 2 variable_identifiers repeated string; 3 include_metadata bool; 4 bypass_cache bool"
    ),
    "BatchGetVariablesResponse": ("1 variables map<string, Variable>; 2 missing_variables repeated string"),
    "BatchSetVariablesRequest": (
        "1 session_id string; 2 updates map<string, Any>; 3 metadata map<string, string>; 4 atomic bool; "
        "5 binary_updates map<string, bytes>"
    ),
    "BatchSetVariablesResponse": ("1 success bool; 2 errors map<string, string>; 3 new_versions map<string, int32>"),
    "ListVariablesRequest": ("1 session_id string; 2 pattern string"),
    "ListVariablesResponse": ("1 variables repeated Variable"),
    "DeleteVariableRequest": ("1 session_id string; 2 variable_identifier string"),
    "DeleteVariableResponse": ("1 success bool; 2 error_message string"),
    "ToolSpec": (
        "1 name string; 2 description string; 3 parameters repeated ParameterSpec; "
        "4 metadata map<string, string>; 5 supports_streaming bool; 6 required_variables repeated string"
    ),
    "ParameterSpec": (
        "1 name string; 2 type string; 3 description string; 4 required bool; 5 default_value Any; "
        "6 validation_json string"
    ),
    "ExecuteToolRequest": (
        "1 session_id string; 2 tool_name string; 3 parameters map<string, Any>; "
        "4 metadata map<string, string>; 5 stream bool; 6 binary_parameters map<string, bytes>"
    ),
    "ExecuteToolResponse": (
        "1 success bool; 2 result Any; 3 error_message string; 4 metadata map<string, string>; "
        "5 execution_time_ms int64; 6 binary_result bytes"
    ),
    "ToolChunk": ("1 chunk_id string; 2 data bytes; 3 is_final bool; 4 metadata map<string, string>"),
    "WatchVariablesRequest": (
        "1 session_id string; 2 variable_identifiers repeated string; 3 include_initial_values bool"
    ),
    "VariableUpdate": (
        "1 variable_id string; 2 variable Variable; 3 update_source string; "
        "4 update_metadata map<string, string>; 5 timestamp Timestamp; 6 update_type string"
    ),
    "AddDependencyRequest": (
        "1 session_id string; 2 from_variable string; 3 to_variable string; 4 dependency_type string"
    ),
    "AddDependencyResponse": ("1 success bool; 2 error_message string"),
    "StartOptimizationRequest": (
        "1 session_id string; 2 variable_identifier string; 3 optimizer_id string; "
        "4 optimizer_config map<string, string>"
    ),
    "StartOptimizationResponse": ("1 success bool; 2 error_message string; 3 optimization_id string"),
    "StopOptimizationRequest": ("1 session_id string; 2 variable_identifier string; 3 force bool"),
    "StopOptimizationResponse": ("1 success bool; 2 final_value Any"),
    "GetVariableHistoryRequest": ("1 session_id string; 2 variable_identifier string; 3 limit int32"),
    "GetVariableHistoryResponse": ("1 entries repeated VariableHistoryEntry"),
    "VariableHistoryEntry": (
        "1 version int32; 2 value Any; 3 timestamp Timestamp; 4 changed_by string; 5 metadata map<string, string>"
    ),
    "RollbackVariableRequest": ("1 session_id string; 2 variable_identifier string; 3 target_version int32"),
    "RollbackVariableResponse": ("1 success bool; 2 variable Variable; 3 error_message string"),
    "GetSessionRequest": ("1 session_id string"),
    "GetSessionResponse": (
        "1 session_id string; 2 metadata map<string, string>; 3 created_at Timestamp; "
        "4 variable_count int32; 5 tool_count int32"
    ),
    "HeartbeatRequest": ("1 session_id string; 2 client_time Timestamp"),
    "HeartbeatResponse": ("1 server_time Timestamp; 2 session_valid bool"),
    "RegisterToolsRequest": ("1 session_id string; 2 tools repeated ToolRegistration; 3 worker_id string"),
    "ToolRegistration": (
        "1 name string; 2 description string; 3 parameters repeated ParameterSpec; "
        "4 metadata map<string, string>; 5 supports_streaming bool"
    ),
    "RegisterToolsResponse": ("1 success bool; 2 tool_ids map<string, string>; 3 error_message string"),
    "GetExposedElixirToolsRequest": ("1 session_id string"),
    "GetExposedElixirToolsResponse": ("1 tools repeated ToolSpec"),
    "ExecuteElixirToolRequest": (
        "1 session_id string; 2 tool_name string; 3 parameters map<string, Any>; 4 metadata map<string, string>"
    ),
    "ExecuteElixirToolResponse": (
        "1 success bool; 2 result Any; 3 error_message string; 4 metadata map<string, string>; "
        "5 execution_time_ms int64; 6 binary_result bytes"
    ),
    "TelemetryEvent": (
        "1 event_parts repeated string; 2 measurements map<string, TelemetryValue>; "
        "3 metadata map<string, string>; 4 timestamp_ns int64; 5 correlation_id string"
    ),
    "TelemetryValue": ("1 int_value int64; 2 float_value double; 3 string_value string"),
    "TelemetryControl": ("1 toggle TelemetryToggle; 2 sampling TelemetrySamplingUpdate; 3 filter TelemetryEventFilter"),
    "TelemetryToggle": ("1 enabled bool"),
    "TelemetrySamplingUpdate": ("1 sampling_rate double; 2 event_patterns repeated string"),
    "TelemetryEventFilter": ("1 allow repeated string; 2 deny repeated string"),
}


def _fields(message: str) -> set[tuple[str, str, str]]:
    """Number, name and type of each field of a message of the .proto."""
    match = re.search(rf"^message {message} {{\n(.*?)^}}", PROTO, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no message {message}"
    body = re.sub(r"enum \w+ {.*?}", "", match.group(1), flags=re.DOTALL)
    found = re.findall(r"^\s*((?:repeated )?[\w.]+(?:<[^>]*>)?) (\w+) = (\d+);", body, re.MULTILINE)
    return {(number, name, re.sub(r"google\.protobuf\.", "", kind)) for kind, name, number in found}


@pytest.mark.parametrize("message", CONTRACT)
def test_every_field_has_its_number_and_type(message: str) -> None:
    expected = set()
    for field in CONTRACT[message].split("; "):
        number, name, kind = field.split(" ", 2)
        expected.add((number, name, kind.replace("Variable.Source", "Source")))
    assert _fields(message) == expected
    generated = {field for field in inspect.get_annotations(getattr(bridge, message)) if not field.startswith("_")}
    assert generated == {name for _, name, _ in expected}


def test_the_bytes_of_a_call_are_those_of_the_contract() -> None:
    url = b"type.googleapis.com/google.protobuf.StringValue"
    expected = b"\x0a\x02s1\x12\x03add\x1a\x39\x0a\x01a\x12\x34\x0a\x2f" + url + b"\x12\x011"
    value = protobuf.Any(type_url=url.decode(), value=b"1")
    request = bridge.ExecuteToolRequest(session_id="s1", tool_name="add", parameters={"a": value})
    assert bytes(request) == expected
    assert bridge.ExecuteToolRequest.parse(expected) == request


def test_source_and_kinds_have_their_numbers() -> None:
    assert {source.name: source.value for source in bridge.VariableSource} == {"ELIXIR": 0, "PYTHON": 1}
    generated = {kind.name: kind.value for kind in bridge.Kind if kind.value}
    assert generated == {kind.name: kind.value for kind in frames.Kind}


def test_every_rpc_is_served_and_called() -> None:
    rpcs = re.findall(r"^  rpc (\w+)\(", PROTO, re.MULTILINE)
    assert len(rpcs) == 25
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower() for rpc in rpcs}
    for suffix in ("Base", "Stub"):
        there = {*dir(getattr(bridge, f"BridgeService{suffix}")), *dir(getattr(bridge, f"Link{suffix}"))}
        assert names <= there
