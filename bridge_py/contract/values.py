"""Converts our values to messages of the wire contract, and back."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from bridge_py.wire.any_values import AnyValue, LargeValues, decode_any, encode_any, encode_parameter
from bridge_py.wire.errors import DecodeError, EncodeError, InvalidValue, UsageError
from bridge_py.wire.messages.google import protobuf as google
from bridge_py.wire.messages.snakepit import bridge as messages
from bridge_py.wire.specs import ParameterSpec, ToolSpec
from bridge_py.wire.types import load_json
from bridge_py.wire.variable import AccessRules, HistoryEntry, Optimization, Variable

#: The header of a request, or of an answer, by which a peer tells that it reads large arrays in raw bytes.
LARGE_VALUES: Final = "snakepit-large-values"
_LONGEST_NUMBER: Final = 15  # digits
RAW: Final[Literal["raw"]] = "raw"


def to_any(
    value: Any, what: str, *, large_values: LargeValues = "raw", binary: bool = True
) -> tuple[google.Any, bytes]:
    """Encode a parameter or a result, as a tensor if it is an array, else as JSON.

    Returns the message and the bytes that travel beside it. `large_values` says how large arrays travel, and `binary`
    whether the request or answer has a place for these bytes. Raises `EncodeError`, which calls the value `what`.
    """
    try:
        if hasattr(value, "__array__") and hasattr(value, "dtype"):
            found = encode_any(value, "tensor", large_values=large_values, has_binary=binary)
        else:
            found = encode_parameter(value)
    except InvalidValue as error:
        raise EncodeError(f"{what}: {error}: the wire contract takes JSON, and arrays of numbers") from None
    return _any(found)


def as_json(packed: google.Any, binary: bytes) -> tuple[google.Any, bytes]:
    """Return what `to_any` has returned in a form for peers that do not read raw bytes."""
    if not binary:
        return packed, binary
    return typed_any(from_any(packed, binary), "tensor", large_values="json", binary=False)


def from_any(value: google.Any | None, binary: bytes = b"", *, allow_pickle: bool = False) -> Any:
    """Decode a parameter or a result; returns None if there is none. Raises `DecodeError`."""
    if value is None or not value.type_url:
        return None
    return decode_any(value.type_url, value.value, binary or None, allow_pickle=allow_pickle)[1]


def from_plain_any(type_url: str, value: bytes) -> Any:
    """Decode a result without raw bytes. Raises `DecodeError`."""
    return decode_any(type_url, value)[1] if type_url else None


def pack_parameters(
    args: Mapping[str, Any], what: str, *, large_values: LargeValues = "raw"
) -> tuple[dict[str, google.Any], dict[str, bytes]]:
    """Encode the arguments of a tool. Raises `EncodeError`."""
    packed, binaries = {}, {}
    for name, value in args.items():
        if not isinstance(name, str):
            raise EncodeError(f"{what}: the argument {name!r} has a name that is no text")
        packed[name], binary = to_any(value, f"{what}: {name}", large_values=large_values)
        if binary:
            binaries[name] = binary
    return packed, binaries


def unpack_parameters(
    packed: Mapping[str, google.Any], binaries: Mapping[str, bytes], *, allow_pickle: bool = False
) -> dict[str, Any]:
    """Decode the arguments of a tool. Raises `DecodeError`, which names the argument that cannot be read."""
    args = {}
    for name, value in packed.items():
        try:
            args[name] = from_any(value, binaries.get(name, b""), allow_pickle=allow_pickle)
        except DecodeError as error:
            raise DecodeError(f"argument {name!r}: {error}") from None
    return args


def value_of(value: google.Any | None, binary: bytes, *, allow_pickle: bool = False) -> Any:
    """Decode the value of a variable. Raises `InvalidValue`."""
    try:
        return from_any(value, binary, allow_pickle=allow_pickle)
    except DecodeError as error:
        raise InvalidValue(str(error)) from None


def typed_any(
    value: Any, type: str, *, large_values: LargeValues = "raw", binary: bool = True
) -> tuple[google.Any, bytes]:
    """Encode the value of a variable of the given type. Raises `InvalidValue`."""
    return _any(encode_any(value, type, large_values=large_values, has_binary=binary))


def to_variable_any(value: Any, *, large_values: LargeValues = "raw") -> tuple[google.Any, bytes]:
    """Encode the value of a variable, with the type that the value has by itself. Raises `InvalidValue`."""
    return _any(encode_any(value, large_values=large_values))


def _any(found: AnyValue) -> tuple[google.Any, bytes]:
    return google.Any(type_url=found.type_url, value=found.value), found.binary or b""


# Variables.


def variable_message(variable: Variable, *, large_values: LargeValues = "raw") -> messages.Variable:
    """Encode a variable. Raises `InvalidValue` if its value has no JSON."""
    value, binary = typed_any(variable.value, variable.type, large_values=large_values)
    running = variable.optimization
    return messages.Variable(
        id=variable.id,
        name=variable.name,
        type=variable.type,
        value=value,
        binary_value=binary,
        constraints_json=_json(variable.constraints),
        metadata=dict(variable.metadata),
        source=messages.VariableSource.ELIXIR if variable.source == "host" else messages.VariableSource.PYTHON,
        last_updated_at=timestamp(variable.updated_at),
        version=variable.version,
        access_control_json=_json({"read_only": variable.access_rules.read_only, "owner": variable.access_rules.owner}),
        optimization_status=None
        if running is None
        else messages.OptimizationStatus(
            optimizing=True, optimizer_id=running.optimizer_id, started_at=timestamp(running.started_at)
        ),
    )


def variable_of(message: messages.Variable, *, allow_pickle: bool = False) -> Variable:
    """Decode a variable. The message lacks `created_at`, so that is set to `updated_at`. Raises `InvalidValue`."""
    updated_at = seconds(message.last_updated_at)
    rules = parse_json(message.access_control_json, "access_control_json")
    running = message.optimization_status
    return Variable(
        id=message.id,
        name=message.name,
        type=message.type,
        value=value_of(message.value, message.binary_value, allow_pickle=allow_pickle),
        created_at=updated_at,
        updated_at=updated_at,
        constraints=parse_json(message.constraints_json, "constraints_json"),
        metadata=dict(message.metadata),
        version=message.version,
        source="host" if message.source == messages.VariableSource.ELIXIR else "worker",
        access_rules=AccessRules(read_only=rules.get("read_only") is True, owner=rules.get("owner")),
        optimization=None
        if running is None or not running.optimizing
        else Optimization(id="", optimizer_id=running.optimizer_id, started_at=seconds(running.started_at)),
    )


def history_message(
    entry: HistoryEntry, type: str, *, large_values: LargeValues = "raw"
) -> messages.VariableHistoryEntry:
    """Encode a version of a variable. Raises `InvalidValue` if its value has no JSON."""
    return messages.VariableHistoryEntry(
        version=entry.version,
        value=typed_any(entry.value, type, large_values=large_values, binary=False)[0],
        timestamp=timestamp(entry.timestamp),
        changed_by=entry.changed_by,
        metadata=dict(entry.metadata),
    )


def history_of(message: messages.VariableHistoryEntry) -> HistoryEntry:
    """Decode a version of a variable. Raises `InvalidValue`."""
    return HistoryEntry(
        version=message.version,
        value=value_of(message.value, b""),
        timestamp=seconds(message.timestamp),
        changed_by="worker" if message.changed_by == "worker" else "host",
        metadata=dict(message.metadata),
        size=0 if message.value is None else len(message.value.value),
    )


def parse_json(text: str, what: str) -> dict[str, Any]:
    """Read the JSON object in a text field; an empty text is an empty dict. Raises `InvalidValue`."""
    found = load_json(text.encode(), what) if text else {}
    if not isinstance(found, dict):
        raise InvalidValue(f"{what} is no JSON object: {text[:100]}")
    return found


def timestamp(at: float) -> datetime:
    """Convert Unix time in seconds to a datetime."""
    return datetime.fromtimestamp(at, UTC)


def seconds(at: datetime | None) -> float:
    """Convert a datetime to Unix time in seconds; None becomes 0."""
    return 0.0 if at is None else at.timestamp()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), default=str)


# Tools.


def tool_message(spec: ToolSpec, metadata: Mapping[str, str]) -> messages.ToolSpec:
    """Encode a tool."""
    return messages.ToolSpec(
        name=spec.name,
        description=spec.description,
        parameters=_parameters(spec),
        metadata=dict(metadata),
        supports_streaming=spec.streaming,
    )


def registration_message(spec: ToolSpec) -> messages.ToolRegistration:
    """Encode a tool of a worker for its registration at the host."""
    return messages.ToolRegistration(
        name=spec.name,
        description=spec.description,
        parameters=_parameters(spec),
        metadata={"idempotent": "true"} if spec.idempotent else {},
        supports_streaming=spec.streaming,
    )


def spec_of(message: messages.ToolSpec | messages.ToolRegistration) -> ToolSpec:
    """Decode a tool. A call of such a tool can be stopped only by killing its worker."""
    return ToolSpec(
        message.name,
        message.description,
        [_parameter_of(each) for each in message.parameters],
        message.supports_streaming,
        "kill",
        message.metadata.get("idempotent") == "true",
    )


def _parameters(spec: ToolSpec) -> list[messages.ParameterSpec]:
    return [
        messages.ParameterSpec(
            name=each.name,
            type=each.type,
            description=each.description,
            required=each.required,
            default_value=_default(each),
        )
        for each in spec.parameters
    ]


def _default(spec: ParameterSpec) -> google.Any | None:
    """Encode the default of a parameter from its `repr`; returns None for a default without JSON."""
    try:
        return None if spec.required else _any(encode_parameter(ast.literal_eval(spec.default)))[0]
    except (ValueError, SyntaxError, InvalidValue):
        return None


def _parameter_of(message: messages.ParameterSpec) -> ParameterSpec:
    return ParameterSpec(
        message.name, message.type or "Any", message.description, message.required, _default_text(message)
    )


def _default_text(message: messages.ParameterSpec) -> str:
    if message.required:
        return ""
    try:
        return "..." if message.default_value is None else repr(from_any(message.default_value))
    except DecodeError:
        return "..."


# Chunks of a stream.


def chunk_data(value: Any, what: str) -> bytes:
    """Encode a chunk: bytes as they are, anything else as JSON. Raises `EncodeError`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return to_any(value, what, binary=False)[0].value


def chunk_of(data: bytes) -> Any:
    """Decode a chunk from its JSON; data that are no JSON are the bytes themselves."""
    try:
        return load_json(data, "chunk")
    except InvalidValue:
        return data


def timeout_of(metadata: Mapping[str, str]) -> float | None:
    """The time, in seconds, that `timeout_ms` in the metadata of a request gives the call; None if it gives none.

    Raises `UsageError` if it is no number of milliseconds above 0.
    """
    text = metadata.get("timeout_ms")
    if text is None:
        return None
    if len(text) > _LONGEST_NUMBER or not text.isascii() or not text.isdigit() or not int(text):
        raise UsageError(f"timeout_ms={text!r:.100}: give a number of milliseconds above 0, or leave it out")
    return int(text) / 1000


def execution_ms(began: float, ended: float) -> int:
    """Milliseconds between two readings of a clock in seconds."""
    return math.ceil((ended - began) * 1000)
