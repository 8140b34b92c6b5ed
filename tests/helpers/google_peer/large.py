"""Checks of values that travel in binary."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    LARGE,
    PREFIX,
    Client,
    Code,
    check,
    doubles,
    failure_of,
    is_binary,
    refused,
    tensor_about,
    typed,
)


@check("host")
def the_size_from_which_binary_is_used(client: Client) -> None:
    client.open("sizes")
    for kind, count in (("tensor", LARGE - 1), ("tensor", LARGE), ("embedding", LARGE - 1), ("embedding", LARGE)):
        data: Any = [float(n) for n in range(count)]
        name = f"{kind}{count}"
        client.register("sizes", name, kind, {"shape": [count], "data": data} if kind == "tensor" else data)
        found = client.variable("sizes", name)
        if count < LARGE:
            assert found.value.type_url == f"{PREFIX}snakepit.{kind}"
            assert found.binary_value == b""
        else:
            is_binary(found.value, found.binary_value, [count], "float64", kind)
            assert found.binary_value == doubles(count)


@check("host")
def large_tensors(client: Client) -> None:
    client.open("large")
    data = {"float64": doubles(4000), "float32": struct.pack("<4000f", *range(4000)), "uint8": bytes(range(200)) * 20}
    data |= {"int32": struct.pack("<4000i", *range(4000)), "float16": struct.pack("<2000e", *range(2000)) * 2}
    for dtype, binary in data.items():
        about = tensor_about([40, 100], dtype)
        key = client.register("large", dtype, "tensor", about, initial_binary_value=binary)
        found = client.variable("large", key)
        is_binary(found.value, found.binary_value, [40, 100], dtype)
        assert found.binary_value == binary
        fields: dict[str, Any] = {"session_id": "large", "variable_identifier": dtype, "value": about}
        assert client.call("SetVariable", binary_value=binary, **fields).new_version == 2
    listed = client.call("ListVariables", session_id="large").variables
    assert {each.name: each.binary_value for each in listed} == data
    asked = client.call("GetVariables", session_id="large", variable_identifiers=list(data)).variables
    assert {name: each.binary_value for name, each in asked.items()} == data


@check("host")
def large_tensors_in_batches_and_embeddings(client: Client) -> None:
    client.open("large2")
    count = 1 << 20
    client.register("large2", "t", "tensor", {"shape": [0], "data": []})
    done = client.call(
        "SetVariables",
        session_id="large2",
        updates={"t": tensor_about([count], "float64")},
        binary_updates={"t": doubles(count)},
    )
    assert done.new_versions == {"t": 2}, done
    assert client.variable("large2", "t").binary_value == doubles(count)
    floats = struct.pack("<4000f", *range(4000))
    about = tensor_about([4000], "float32", "embedding")
    client.register("large2", "e", "embedding", about, initial_binary_value=floats)
    found = client.variable("large2", "e")
    is_binary(found.value, found.binary_value, [4000], "float64", "embedding")
    assert found.binary_value == doubles(4000)


@check("host")
def small_tensors_in_binary(client: Client) -> None:
    client.open("small")
    client.register("small", "t", "tensor", tensor_about([2, 3], "float64"), initial_binary_value=doubles(6))
    found = client.variable("small", "t")
    assert found.value.type_url == f"{PREFIX}snakepit.tensor"
    assert json.loads(found.value.value) == {"shape": [2, 3], "data": [[0, 1, 2], [3, 4, 5]]}
    assert found.binary_value == b""


@check("host")
def binary_that_does_not_fit(client: Client) -> None:
    client.open("bad binary")
    cases = [
        (tensor_about([2], "float64"), doubles(3)),
        (tensor_about([2], "float64"), b""),
        (tensor_about([2], "object"), doubles(2)),
        (tensor_about([-2], "float64"), doubles(2)),
        (tensor_about([2], "float64", binary_format="zip"), doubles(2)),
        (typed("tensor.binary", b"{"), doubles(2)),
        (typed("tensor.binary", []), doubles(2)),
        (typed("string.binary", {"shape": [1], "dtype": "uint8", "binary_format": "raw"}), b"a"),
        (tensor_about([1, 2], "float64", "embedding"), doubles(2)),
    ]
    for about, binary in cases:
        kind = "embedding" if "embedding" in about.type_url else "tensor"
        with refused(Code.INVALID_ARGUMENT):
            client.register("bad binary", "x", kind, about, initial_binary_value=binary)


@check("host")
def pickles(client: Client) -> None:
    client.open("pickles")
    client.register("pickles", "t", "tensor", {"shape": [2], "data": [1, 2]})
    about = tensor_about([2], "float64", binary_format="pickle")
    binary = pickle.dumps([1.0, 2.0])
    with refused(Code.INVALID_ARGUMENT, says="pickle"):
        client.register("pickles", "x", "tensor", about, initial_binary_value=binary)
    fields: dict[str, Any] = {"session_id": "pickles", "variable_identifier": "t", "value": about}
    with refused(Code.INVALID_ARGUMENT, says="pickle"):
        client.call("SetVariable", binary_value=binary, **fields)
    for atomic in (False, True):
        done = client.call(
            "SetVariables", session_id="pickles", updates={"t": about}, binary_updates={"t": binary}, atomic=atomic
        )
        assert not done.success
        assert "pickle" in done.errors["t"]
    response = client.call(
        "ExecuteTool", tool_name="sum", parameters={"tensor": about}, binary_parameters={"tensor": binary}
    )
    assert "pickle" in failure_of(response)
    assert client.variable("pickles", "t").version == 1
