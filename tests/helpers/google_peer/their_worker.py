"""The worker of worker.py, with the habits of the Elixir system's Python workers for arrays. Run as a script.

They take `.binary` for a pickle, whatever its description says, and read JSON of any size. They count only the outer
list when they choose between the two. They do not tell what they read.
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import worker  # type: ignore[import-not-found]  # beside this script
from values import PREFIX, STRING_VALUE, encode_json, set_any  # type: ignore[import-not-found]

THRESHOLD = 10_240


def decode(packed: Any, binary: bytes) -> Any:
    """A value as they read it; tensors are dicts of shape and data."""
    if packed.type_url.endswith(".binary") and binary:
        data = pickle.loads(binary)
        kind = packed.type_url.split(".")[-2]
        return {"shape": json.loads(packed.value)["shape"], "data": data} if kind == "tensor" else data
    found = json.loads(packed.value) if packed.value else ""
    return float(found) if packed.type_url.endswith(".float") else found


def encode(packed: Any, value: Any) -> bytes:
    """Write a value as they do. Returns the bytes that travel beside it."""
    kind = kind_of(value)
    data = value["data"] if kind == "tensor" else value
    if kind in ("tensor", "embedding") and 8 * len(data) > THRESHOLD:
        shape = value["shape"] if kind == "tensor" else [len(data)]
        about = {"shape": shape, "dtype": "float32", "binary_format": "pickle", "type": kind}
        set_any(packed, f"{PREFIX}snakepit.{kind}.binary", encode_json(about))
        return pickle.dumps(data, pickle.HIGHEST_PROTOCOL)
    set_any(packed, f"{PREFIX}snakepit.{kind}" if kind else STRING_VALUE, json.dumps(value).encode())
    return b""


def kind_of(value: Any) -> str:
    if isinstance(value, dict) and {"shape", "data"} <= value.keys():
        return "tensor"
    is_numbers = isinstance(value, list) and value and all(type(item) in (int, float) for item in value)
    return "embedding" if is_numbers else ""


class TheirHost(worker.Host):
    """Their requests to the host."""

    def get_variable(self, session_id: str, name: str) -> Any:
        request = worker.pb2.GetVariableRequest(session_id=session_id, variable_identifier=name)
        variable = self._stub.GetVariable(request).variable
        return decode(variable.value, variable.binary_value)

    def set_variable(self, session_id: str, name: str, value: Any) -> int:
        request = worker.pb2.SetVariableRequest(session_id=session_id, variable_identifier=name)
        request.binary_value = encode(request.value, value)
        response = self._stub.SetVariable(request)
        worker.check(response)
        return int(response.new_version)

    def run(self, session_id: str, name: str, arguments: dict[str, Any]) -> Any:
        request = worker.pb2.ExecuteElixirToolRequest(session_id=session_id, tool_name=name)
        for key, value in arguments.items():
            set_any(request.parameters[key], STRING_VALUE, json.dumps(value).encode())
        response = self._stub.ExecuteElixirTool(request)
        worker.check(response)
        return decode(response.result, b"")

    def field_4(self, session_id: str) -> int:
        request = worker.pb2.GetSessionRequest(session_id=session_id)
        return int(self._stub.GetSession(request).variable_count)


class TheirWorker(worker.Worker):
    """Their way of reading arguments and of writing results."""

    def _arguments(self, request: Any) -> dict[str, Any]:
        found = {name: decode(packed, b"") for name, packed in request.parameters.items()}
        for name, binary in request.binary_parameters.items():
            found[name] = pickle.loads(binary)
        return found

    def _set_result(self, response: Any, _name: str, value: Any) -> None:
        response.binary_result = encode(response.result, value)


def types(_call: Any, value: Any) -> list[str]:
    """The types of the numbers that have come."""
    return sorted({type(item).__name__ for item in worker.flat(value["data"] if isinstance(value, dict) else value)})


def form(_call: Any, value: Any) -> str:
    """How a tensor has come: as JSON it is a dict."""
    return "json" if isinstance(value, dict) else "pickle"


def session_field_4(call: Any) -> int:
    """The field of GetSession's answer that the versions use for different things."""
    return int(call.host.field_4(call.session_id))


if __name__ == "__main__":
    worker.TOOLS.update(types=types, form=form, session_field_4=session_field_4)
    worker.main(TheirHost, TheirWorker)
