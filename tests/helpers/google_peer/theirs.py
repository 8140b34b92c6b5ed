"""Checks with the habits of the Elixir system's Python client: it pickles large arrays, and knows no raw bytes."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    ADDRESS,
    LARGE,
    PATIENCE,
    PREFIX,
    Client,
    Code,
    check,
    parameters,
    refused,
    request_of,
    tensor_about,
    typed,
)

#: 1,281 numbers, 100 x 100, 1 MB and 10 MB.
SHAPES = ([LARGE], [100, 100], [131_072], [1250, 1000])


def theirs() -> Client:
    """A client that tells nothing of what it reads."""
    return Client(ADDRESS, reads_raw=False)


def numbers(shape: list[int]) -> Any:
    """Numbers in nested lists."""
    if len(shape) == 1:
        return [float(n) for n in range(shape[0])]
    return [[float(n) for n in range(shape[1])] for _ in range(shape[0])]


def encode(kind: str, shape: list[int], data: Any) -> tuple[Any, bytes]:
    """An array as they write it: they count the outer list only."""
    if 8 * len(data) > 10_240:
        about = tensor_about(shape, "float32", kind, binary_format="pickle")
        return about, pickle.dumps(data, pickle.HIGHEST_PROTOCOL)
    return typed(kind, {"shape": shape, "data": data} if kind == "tensor" else data), b""


def data_of(packed: Any, binary: bytes, kind: str = "tensor") -> Any:
    """The numbers of an array, as they read it."""
    if packed.type_url.endswith(".binary") and binary:
        assert json.loads(packed.value)["binary_format"] == "pickle"
        return pickle.loads(binary)
    assert packed.type_url == f"{PREFIX}snakepit.{kind}", packed.type_url
    found = json.loads(packed.value)
    return found["data"] if kind == "tensor" else found


@check("theirs")
def large_variables(client: Client) -> None:
    client = theirs()
    client.open("theirs")
    for shape in SHAPES:
        data, name = numbers(shape), f"t{shape}"
        about, binary = encode("tensor", shape, data)
        client.register("theirs", name, "tensor", about, initial_binary_value=binary)
        found = client.variable("theirs", name)
        assert data_of(found.value, found.binary_value) == data
        fields: dict[str, Any] = {"session_id": "theirs", "variable_identifier": name, "value": about}
        assert client.call("SetVariable", binary_value=binary, **fields).new_version == 2
        asked = client.call("GetVariables", session_id="theirs", variable_identifiers=[name]).variables
        assert data_of(asked[name].value, asked[name].binary_value) == data
    about, binary = encode("embedding", [LARGE], numbers([LARGE]))
    client.register("theirs", "e", "embedding", about, initial_binary_value=binary)
    found = client.variable("theirs", "e")
    assert data_of(found.value, found.binary_value, "embedding") == numbers([LARGE])
    listed = client.call("ListVariables", session_id="theirs", pattern="t*").variables
    assert [data_of(each.value, each.binary_value) for each in listed] == [numbers(shape) for shape in SHAPES]


@check("theirs")
def large_arguments_and_results(client: Client) -> None:
    client = theirs()
    for shape in SHAPES:
        data = numbers(shape)
        about, binary = encode("tensor", shape, data)
        binaries = {"tensor": binary} if binary else {}
        response = client.call(
            "ExecuteTool", tool_name="array", parameters={"tensor": about}, binary_parameters=binaries
        )
        assert response.success, response.error_message
        assert data_of(response.result, response.binary_result) == data
        response = client.call("ExecuteTool", tool_name="sum", parameters={"tensor": about}, binary_parameters=binaries)
        assert json.loads(response.result.value) == sum(map(math.fsum, data)) if len(shape) == 2 else math.fsum(data)
    response = client.execute_host_tool("grid", n=131_072)
    assert data_of(response.result, b"") == numbers([131_072])


@check("theirs")
def numbers_that_are_not_finite(client: Client) -> None:
    client = theirs()
    client.open("not finite")
    for kind, value in (
        ("tensor", b'{"shape": [3], "data": [NaN, Infinity, 1]}'),
        ("embedding", b"[NaN, Infinity, 1]"),
    ):
        client.register("not finite", kind, kind, value)
        found = client.variable("not finite", kind)
        assert [repr(float(n)) for n in data_of(found.value, found.binary_value, kind)] == ["nan", "inf", "1.0"]
        assert not any(isinstance(n, str) for n in data_of(found.value, found.binary_value, kind))
        response = client.call("ExecuteTool", tool_name="array", parameters={"tensor": typed(kind, value)})
        assert [repr(float(n)) for n in data_of(response.result, b"")] == ["nan", "inf", "1.0"]
        assert b'"NaN"' not in response.result.value
    response = client.call("ExecuteTool", tool_name="echo", parameters={"value": typed("float", b'"NaN"')})
    assert response.result == typed("float", b'"NaN"')


@check("theirs")
def other_names_of_types(client: Client) -> None:
    client = theirs()
    response = client.call("ExecuteTool", tool_name="echo", parameters={"value": other("dspex.variables/float", b"2")})
    assert json.loads(response.result.value) == 2.0
    response = client.call("ExecuteTool", tool_name="echo", parameters={"value": other("dspex.variables/odd", b"2")})
    assert not response.success


def other(url: str, value: bytes) -> Any:
    packed = typed("float", value)
    packed.type_url = url
    return packed


@check("theirs")
def deadlines(client: Client) -> None:
    client = theirs()
    for rpc, tool, args in (
        ("ExecuteTool", "slow", {"seconds": 60}),
        ("ExecuteElixirTool", "later", {"value": "x", "by": 600}),
    ):
        request = {"tool_name": tool, "parameters": parameters(args), "metadata": {"timeout_ms": "300"}}
        response = client.call(rpc, **request)
        assert not response.success
        assert "0.3 s" in response.error_message, response.error_message
        request["metadata"] = {"timeout_ms": "soon"}
        assert "timeout_ms='soon'" in client.call(rpc, **request).error_message
    fields = {"tool_name": "endless", "parameters": parameters({}), "metadata": {"timeout_ms": "300"}}
    with refused(Code.INTERNAL, says="0.3 s"):
        for _ in client.stub.ExecuteStreamingTool(request_of("ExecuteStreamingTool", **fields), timeout=PATIENCE):
            pass
    # Longer than the default of a call, so that it is known to count.
    response = client.call(
        "ExecuteTool", tool_name="quick", parameters=parameters({"seconds": 1}), metadata={"timeout_ms": "30000"}
    )
    assert response.success, response.error_message


@check("theirs")
def values_without_json(client: Client) -> None:
    client = theirs()
    listed = client.call("ListVariables", session_id="odd").variables
    assert [each.name for each in listed] == ["a", "z"]
    stream = client.stream("WatchVariables", session_id="odd", include_initial_values=True)
    assert [next(stream).variable.name for _ in range(2)] == ["a", "z"]
    stream.cancel()
