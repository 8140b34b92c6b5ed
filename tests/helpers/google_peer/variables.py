"""Checks of variables: their values, types, constraints and versions, one by one and many at once."""

from __future__ import annotations

import json
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    PREFIX,
    STRING_VALUE,
    VALUE,
    Client,
    Code,
    check,
    is_now,
    packed_json,
    pb2,
    real_string,
    refused,
    tensor_about,
    typed,
)

# Type, the JSON that is sent, the JSON that is kept.
KEPT: list[tuple[str, bytes, bytes]] = [
    ("float", b"42", b"42.0"),
    ("float", b"42.0", b"42.0"),
    ("float", b"-1e-3", b"-0.001"),
    ("float", b'"NaN"', b'"NaN"'),
    ("float", b'"Infinity"', b'"Infinity"'),
    ("float", b'"-Infinity"', b'"-Infinity"'),
    ("integer", b"42", b"42"),
    ("integer", b"42.0", b"42"),
    ("integer", b"123456789012345678901234567890", b"123456789012345678901234567890"),
    ("integer", b"true", b"1"),
    ("string", b'"text"', b'"text"'),
    ("string", '"ünï\\n\\u0000"'.encode(), '"ünï\\n\\u0000"'.encode()),
    ("string", b'""', b'""'),
    ("boolean", b"true", b"true"),
    ("boolean", b"false", b"false"),
    ("choice", b'"a"', b'"a"'),
    ("module", b'"pkg.Class"', b'"pkg.Class"'),
    ("module", b'""', b'""'),
    ("embedding", b"[1, 2, 3]", b"[1.0, 2.0, 3.0]"),
    ("embedding", b"[]", b"[]"),
    ("tensor", b'{"shape":[2,3],"data":[[1,2,3],[4,5,6]]}', b'{"shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]}'),
    ("tensor", b'{"shape":[2,3],"data":[1,2,3,4,5,6]}', b'{"shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]}'),
    ("tensor", b'{"shape": [2], "data": ["NaN", 1.5]}', b'{"shape": [2], "data": ["NaN", 1.5]}'),
    ("tensor", b'{"shape":[2],"data":[NaN,1],"dtype":"float32"}', b'{"shape": [2], "data": ["NaN", 1]}'),
    ("tensor", b'{"shape": [2], "data": [null, 1.5]}', b'{"shape": [2], "data": ["NaN", 1.5]}'),
    ("embedding", b"[Infinity, null]", b'["Infinity", "NaN"]'),
]  # fmt: skip


@check("host")
def values_of_all_types(client: Client) -> None:
    client.open("types")
    for number, (kind, sent, kept) in enumerate(KEPT):
        name = f"v{number}"
        key = client.register("types", name, kind, sent)
        found = client.variable("types", name)
        assert same(found.value, kind, kept), (sent, found.value)
        assert (found.id, found.name, found.type, found.version) == (key, name, kind, 1)
        assert client.set("types", key, kind, sent) == 2
        assert same(client.variable("types", name).value, kind, kept)
    listed = client.call("ListVariables", session_id="types").variables
    assert all(same(each.value, kind, kept) for each, (kind, _, kept) in zip(listed, KEPT, strict=True))


def same(found: Any, type: str, kept: bytes) -> bool:
    """Whether the bytes are those; white space may differ inside of lists."""
    if type in ("embedding", "tensor"):
        return bool(found.type_url == typed(type, b"").type_url and squeezed(found.value) == squeezed(kept))
    return bool(found == typed(type, kept))


def squeezed(data: bytes) -> bytes:
    return data.replace(b" ", b"")


REFUSED: list[tuple[str, bytes]] = [
    ("integer", b"3.14"),
    ("integer", b'"42"'),
    ("integer", b'"NaN"'),
    ("float", b'"nan"'),
    ("float", b"true"),
    ("float", b"null"),
    ("float", b"4 2"),
    ("float", b""),
    ("float", b"\xff\xfe"),
    ("string", b"1"),
    ("boolean", b"1"),
    ("choice", b"[]"),
    ("embedding", b'[1, "x"]'),
    ("embedding", b"[[1]]"),
    ("embedding", b"3"),
    ("tensor", b'{"shape": [2, 2], "data": [1, 2, 3]}'),
    ("tensor", b'{"shape": [2]}'),
    ("tensor", b'{"shape": [-1], "data": [1]}'),
    ("tensor", b'"x"'),
    ("no_such_type", b"1"),
]


@check("host")
def values_that_do_not_fit(client: Client) -> None:
    client.open("refused")
    for kind, sent in REFUSED:
        with refused(Code.INVALID_ARGUMENT):
            client.register("refused", "x", kind, sent)
    with refused(Code.INVALID_ARGUMENT, says="whole number"):
        client.register("refused", "x", "integer", typed("float", b"3.14"))
    with refused(Code.INVALID_ARGUMENT, says="unknown.Type"):
        client.register("refused", "x", "float", packed_json(PREFIX + "unknown.Type", b"1"))
    assert not client.call("ListVariables", session_id="refused").variables


@check("host")
def values_of_another_type_url(client: Client) -> None:
    client.open("urls")
    sent = [
        ("integer", typed("float", b"42.0"), b"42"),
        ("float", typed("integer", b"42"), b"42.0"),
        ("float", packed_json(VALUE, b"42"), b"42.0"),
        ("boolean", packed_json(VALUE, b"true"), b"true"),
        ("string", real_string("text"), b'"text"'),
        ("string", packed_json(STRING_VALUE, b'"text"'), b'"text"'),
        ("integer", packed_json(STRING_VALUE, b"7"), b"7"),
    ]
    for number, (kind, packed, kept) in enumerate(sent):
        client.register("urls", f"v{number}", kind, packed)
        assert client.variable("urls", f"v{number}").value == typed(kind, kept)


# Type, constraints, a value that fits, a value that does not.
CONSTRAINTS: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("float", {"max": 1, "min": 0}, 0.5, 1.5),
    ("integer", {"min": 0}, 0, -1),
    ("string", {"max_length": 3, "min_length": 2}, "ab", "abcd"),
    ("string", {"pattern": "^a+$"}, "aa", "ab"),
    ("string", {"enum": ["a", "b"]}, "a", "c"),
    ("choice", {"choices": ["a", "b"]}, "b", "c"),
    ("module", {"choices": ["m.A"]}, "m.A", "m.B"),
    ("embedding", {"dimensions": 2}, [1, 2], [1, 2, 3]),
    ("tensor", {"shape": [2, None]}, {"shape": [2, 1], "data": [[1], [2]]}, {"shape": [1], "data": [1]}),
]


@check("host")
def constraints(client: Client) -> None:
    client.open("constraints")
    for number, (kind, bounds, good, bad) in enumerate(CONSTRAINTS):
        name, text = f"v{number}", json.dumps(bounds)
        with refused(Code.INVALID_ARGUMENT, says=next(iter(bounds))):
            client.register("constraints", name, kind, bad, constraints_json=text)
        client.register("constraints", name, kind, good, constraints_json=text)
        assert json.loads(client.variable("constraints", name).constraints_json) == bounds
        with refused(Code.INVALID_ARGUMENT):
            client.set("constraints", name, kind, bad)
        assert client.variable("constraints", name).version == 1
    for text in ("{", "[]", '{"no_such": 1}', '{"min": "x"}', '{"min": 2, "max": 1}'):
        with refused(Code.INVALID_ARGUMENT):
            client.register("constraints", "x", "float", 1, constraints_json=text)


@check("host")
def variables(client: Client) -> None:
    client.open("variables")
    key = client.register("variables", "x", "float", 1, metadata={"unit": "m"})
    found = client.variable("variables", "x")
    assert client.variable("variables", key) == found
    assert found.source == pb2.Variable.PYTHON
    assert found.metadata == {"unit": "m"}
    assert is_now(found.last_updated_at)
    assert not found.optimization_status.optimizing
    assert found.binary_value == b""
    with refused(Code.ALREADY_EXISTS, says="x"):
        client.register("variables", "x", "float", 2)
    with refused(Code.INVALID_ARGUMENT):
        client.register("variables", "", "float", 2)
    client.register("variables", "y", "", typed("integer", 7))
    assert client.variable("variables", "y").type == "integer"
    assert client.variable("variables", "y").id != key


@check("host")
def expected_versions(client: Client) -> None:
    client.open("versions")
    key = client.register("versions", "x", "float", 1)
    assert client.set("versions", "x", "float", 2, expected_version=1, metadata={"by": "me"}) == 2
    for wrong in (1, 3, -1):
        with refused(Code.ABORTED, says="version"):
            client.set("versions", "x", "float", 3, expected_version=wrong)
    assert client.set("versions", key, "float", 3) == 3
    found = client.variable("versions", "x")
    assert (found.value.value, found.version, found.metadata["by"]) == (b"3.0", 3, "me")


@check("host")
def many_at_once(client: Client) -> None:
    client.open("batch")
    ids = {name: client.register("batch", name, "integer", 1) for name in ("a", "b", "c")}
    asked = ["a", ids["b"], "nope", "nope2"]
    found = client.call("GetVariables", session_id="batch", variable_identifiers=asked, include_metadata=True)
    assert found.variables.keys() == {"a", ids["b"]}
    assert found.variables[ids["b"]].name == "b"
    assert found.missing_variables == ["nope", "nope2"]
    assert not client.call("GetVariables", session_id="batch").variables
    done = client.call(
        "SetVariables",
        session_id="batch",
        updates={"a": typed("integer", 2), ids["b"]: typed("integer", 3)},
        metadata={"by": "me"},
        atomic=True,
    )
    assert done.success
    assert not done.errors
    assert done.new_versions == {"a": 2, ids["b"]: 2}
    assert [client.variable("batch", name).value.value for name in "abc"] == [b"2", b"3", b"1"]
    assert client.variable("batch", "a").metadata == {"by": "me"}


@check("host")
def many_with_bad_ones(client: Client) -> None:
    client.open("bad ones")
    for name in ("a", "b"):
        client.register("bad ones", name, "integer", 1)
    updates = {"a": typed("integer", 2), "b": typed("float", b"3.14"), "nope": typed("integer", 1)}
    refusal = client.call("SetVariables", session_id="bad ones", updates=updates, atomic=True)
    assert not refusal.success
    assert refusal.errors.keys() == {"b", "nope"}
    assert not refusal.new_versions
    assert client.variable("bad ones", "a").version == 1
    partly = client.call("SetVariables", session_id="bad ones", updates=updates)
    assert not partly.success
    assert "3.14" in partly.errors["b"]
    assert "not found" in partly.errors["nope"]
    assert partly.new_versions == {"a": 2}
    assert [client.variable("bad ones", name).value.value for name in "ab"] == [b"2", b"1"]


# A value that nothing can be read from.
UNREADABLE = [
    typed("integer", b"{"),
    typed("integer", b"\xff\xfe"),
    typed("integer", b""),
    packed_json(PREFIX + "unknown.Type", b"1"),
    tensor_about([2], "float64"),
    typed("tensor.binary", b"{"),
]


@check("host")
def many_with_one_that_is_unreadable(client: Client) -> None:
    client.open("unreadable")
    for name in ("a", "b", "c"):
        client.register("unreadable", name, "integer", 1)
    for version, unreadable in enumerate(UNREADABLE, start=2):
        updates = {"a": typed("integer", version), "b": unreadable, "c": typed("integer", version)}
        refusal = client.call("SetVariables", session_id="unreadable", updates=updates, atomic=True)
        assert not refusal.success
        assert refusal.errors.keys() == {"b"}
        assert refusal.errors["b"]
        assert not refusal.new_versions
        assert [client.variable("unreadable", name).version for name in "abc"] == [version - 1, 1, version - 1]
        partly = client.call("SetVariables", session_id="unreadable", updates=updates)
        assert not partly.success
        assert partly.errors == refusal.errors
        assert partly.new_versions == {"a": version, "c": version}
        values = [client.variable("unreadable", name).value.value for name in "abc"]
        assert values == [b"%d" % version, b"1", b"%d" % version]
    # Among other errors.
    updates = {"a": typed("integer", 99), "b": typed("integer", b"{"), "nope": typed("integer", 1)}
    for atomic in (True, False):
        told = client.call("SetVariables", session_id="unreadable", updates=updates, atomic=atomic)
        assert not told.success
        assert {"b"} <= told.errors.keys() <= {"b", "nope"}
        assert told.new_versions == ({} if atomic else {"a": len(UNREADABLE) + 2})
    assert "not found" in told.errors["nope"]


@check("host")
def listing_and_deleting(client: Client) -> None:
    client.open("list")
    ids = {name: client.register("list", name, "float", 1) for name in ("a_1", "a_2", "b_1")}
    for pattern, names in {"": ids, "*": ids, "a_*": ["a_1", "a_2"], "?_1": ["a_1", "b_1"], "nope": []}.items():
        found = client.call("ListVariables", session_id="list", pattern=pattern).variables
        assert [each.name for each in found] == list(names), pattern
    assert client.call("DeleteVariable", session_id="list", variable_identifier="a_1").success
    assert client.call("DeleteVariable", session_id="list", variable_identifier=ids["b_1"]).success
    assert [each.name for each in client.call("ListVariables", session_id="list").variables] == ["a_2"]
    with refused(Code.NOT_FOUND, says="not found"):
        client.variable("list", "a_1")
    client.register("list", "a_1", "string", "new")
    assert client.variable("list", "a_1").version == 1
