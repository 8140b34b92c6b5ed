"""Checks of what happens to variables in time: watching, dependencies, optimization, history."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    LARGE,
    PREFIX,
    Client,
    Code,
    check,
    doubles,
    has_ended,
    is_now,
    pb2,
    refused,
    tensor_about,
    typed,
)


def update_of(updates: Any) -> tuple[str, str, bytes, int]:
    update = next(updates)
    assert is_now(update.timestamp)
    return update.update_type, update.variable.name, update.variable.value.value, update.variable.version


@check("host")
def watching(client: Client) -> None:
    client.open("watch")
    ids = {name: client.register("watch", name, "float", 1) for name in ("x", "y", "z")}
    asked: dict[str, Any] = {
        "session_id": "watch",
        "variable_identifiers": ["x", ids["y"]],
        "include_initial_values": True,
    }
    updates = client.stream("WatchVariables", **asked)
    assert [update_of(updates) for _ in range(2)] == [("initial", "x", b"1.0", 1), ("initial", "y", b"1.0", 1)]
    client.set("watch", "z", "float", 2)
    client.set("watch", "x", "float", 2)
    changed = next(updates)
    assert (changed.variable_id, changed.update_type, changed.variable.version) == (ids["x"], "changed", 2)
    assert changed.variable == client.variable("watch", "x")
    client.call("DeleteVariable", session_id="watch", variable_identifier="y")
    deleted = next(updates)
    assert (deleted.update_type, deleted.variable.name) == ("deleted", "y")
    updates.cancel()
    with refused(Code.CANCELLED):
        next(updates)
    assert client.set("watch", "x", "float", 3) == 3


@check("host")
def the_id_of_a_deleted_variable(client: Client) -> None:
    client.open("deleted")
    key = client.register("deleted", "x", "float", 1)
    updates = client.stream("WatchVariables", session_id="deleted", include_initial_values=True)
    assert next(updates).variable_id == key
    client.call("DeleteVariable", session_id="deleted", variable_identifier="x")
    deleted = next(updates)
    assert deleted.update_type == "deleted"
    assert deleted.variable_id == key
    updates.cancel()


@check("host")
def watching_all(client: Client) -> None:
    client.open("watch all")
    client.register("watch all", "x", "float", 1)
    updates = client.stream("WatchVariables", session_id="watch all", include_initial_values=True)
    assert update_of(updates) == ("initial", "x", b"1.0", 1)
    # Without initial values, nothing tells when the watch has begun: it has, when the other one is answered later.
    silent = client.stream("WatchVariables", session_id="watch all")
    for version in itertools.count(2):
        client.set("watch all", "x", "float", version)
        if arrived(silent, wait=0.5):
            break
    client.register("watch all", "large", "tensor", {"shape": [LARGE], "data": [0.0] * LARGE})
    assert any(len(update.variable.binary_value) == 8 * LARGE for update in updates)
    client.call("CleanupSession", session_id="watch all")
    assert [update for update in updates if update.update_type == "initial"] == []
    has_ended(updates, Code.OK)
    silent.cancel()


def arrived(stream: Any, wait: float) -> bool:
    """Whether a stream has sent something; to be asked again and again about the same one."""
    if stream not in ARRIVALS:
        ARRIVALS[stream] = threading.Event()
        threading.Thread(target=watch_for_arrival, args=(stream,), daemon=True).start()
    return ARRIVALS[stream].wait(wait)


ARRIVALS: dict[Any, threading.Event] = {}


def watch_for_arrival(stream: Any) -> None:
    assert next(stream).update_type == "changed"
    ARRIVALS[stream].set()


@check("host")
def dependencies(client: Client) -> None:
    client.open("depend")
    for name in ("a", "b", "c"):
        client.register("depend", name, "float", 1)
    for name, on in (("b", "a"), ("c", "b")):
        fields: dict[str, Any] = {"session_id": "depend", "from_variable": name, "to_variable": on}
        assert client.call("AddDependency", dependency_type="data", **fields).success
    for name, on in (("a", "c"), ("a", "b"), ("a", "a")):
        with refused(Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, says="depend"):
            client.call("AddDependency", session_id="depend", from_variable=name, to_variable=on)
    asked: dict[str, Any] = {"session_id": "depend", "variable_identifiers": ["c"], "include_initial_values": True}
    updates = client.stream("WatchVariables", **asked)
    assert update_of(updates) == ("initial", "c", b"1.0", 1)
    client.set("depend", "a", "float", 2)
    update = next(updates)
    assert (update.update_type, update.variable.name, update.variable.version) == ("dependency", "c", 1)
    assert "a" in update.update_metadata.values()
    updates.cancel()


@check("host")
def optimization(client: Client) -> None:
    client.open("optimize")
    client.register("optimize", "x", "float", 1)
    fields: dict[str, Any] = {"session_id": "optimize", "variable_identifier": "x"}
    begun = client.call("StartOptimization", optimizer_id="o1", optimizer_config={"rate": "0.1"}, **fields)
    assert begun.success
    assert begun.optimization_id
    status = client.variable("optimize", "x").optimization_status
    assert (status.optimizing, status.optimizer_id) == (True, "o1")
    assert is_now(status.started_at)
    with refused(Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION, says="o1"):
        client.call("StartOptimization", optimizer_id="o2", **fields)
    client.set("optimize", "x", "float", 7)
    ended = client.call("StopOptimization", **fields)
    assert ended.success
    assert ended.final_value == typed("float", b"7.0")
    assert not client.variable("optimize", "x").optimization_status.optimizing


@check("host")
def final_values_have_no_binary_field(client: Client) -> None:
    client.open("final")
    about = tensor_about([LARGE], "float64")
    client.register("final", "t", "tensor", about, initial_binary_value=doubles(LARGE))
    fields: dict[str, Any] = {"session_id": "final", "variable_identifier": "t"}
    client.call("StartOptimization", optimizer_id="o", **fields)
    (entry,) = client.call("GetVariableHistory", **fields).entries
    for packed in (client.call("StopOptimization", **fields).final_value, entry.value):
        assert packed.type_url == f"{PREFIX}snakepit.tensor"
        assert json.loads(packed.value) == {"shape": [LARGE], "data": list(range(LARGE))}


@check("host")
def history(client: Client) -> None:
    client.open("history")
    client.register("history", "x", "integer", 10)
    for version in (2, 3):
        assert client.set("history", "x", "integer", 10 * version, metadata={"n": str(version)}) == version
    fields: dict[str, Any] = {"session_id": "history", "variable_identifier": "x"}
    for limit, versions in ((0, [3, 2, 1]), (2, [3, 2]), (1, [3]), (99, [3, 2, 1])):
        entries = client.call("GetVariableHistory", limit=limit, **fields).entries
        assert [entry.version for entry in entries] == versions
        assert [entry.value for entry in entries] == [typed("integer", 10 * version) for version in versions]
        assert all(is_now(entry.timestamp) and entry.changed_by for entry in entries)
    assert entries[0].metadata == {"n": "3"}


@check("host")
def rollback(client: Client) -> None:
    client.open("rollback")
    client.register("rollback", "x", "integer", 10)
    client.set("rollback", "x", "integer", 20)
    fields: dict[str, Any] = {"session_id": "rollback", "variable_identifier": "x"}
    back = client.call("RollbackVariable", target_version=1, **fields)
    assert back.success
    assert (back.variable.value.value, back.variable.version) == (b"10", 3)
    assert back.variable == client.variable("rollback", "x")
    for wrong in (0, 9, -1):
        with refused(Code.ABORTED, Code.NOT_FOUND, Code.INVALID_ARGUMENT, says="version"):
            client.call("RollbackVariable", target_version=wrong, **fields)
    assert client.variable("rollback", "x").version == 3


@check("host")
def the_source_of_a_rollback(client: Client) -> None:
    client.open("source")
    client.register("source", "x", "integer", 10)
    client.set("source", "x", "integer", 20)
    assert client.variable("source", "x").source == pb2.Variable.PYTHON
    client.call("RollbackVariable", session_id="source", variable_identifier="x", target_version=1)
    assert client.variable("source", "x").source == pb2.Variable.PYTHON
