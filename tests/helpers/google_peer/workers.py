"""Checks of what is special about a worker: its sessions, its host, and its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    LONG,
    Client,
    Code,
    check,
    has_ended,
    host,
    is_busy,
    is_now,
    pb2,
    read_to_end,
    refused,
    text_in,
)

SERVED = {"Ping", "Heartbeat", "GetSession", "ExecuteTool", "ExecuteStreamingTool", "StreamTelemetry"}


@check("worker")
def rpcs_that_are_the_hosts(client: Client) -> None:
    methods = pb2.DESCRIPTOR.services_by_name["BridgeService"].methods_by_name
    for rpc in sorted(set(methods) - SERVED):
        with refused(Code.UNIMPLEMENTED):
            if methods[rpc].server_streaming:
                next(client.stream(rpc, session_id="s"))
            else:
                client.call(rpc, session_id="s")


@check("worker")
def sessions_of_a_worker(client: Client) -> None:
    with refused(Code.NOT_FOUND, says="not found"):
        client.call("GetSession", session_id="used")
    assert not client.call("Heartbeat", session_id="used").session_valid
    assert client.execute("add", "used", a=1, b=2) == 3
    found = client.call("GetSession", session_id="used")
    assert (found.session_id, found.tool_count) == ("used", 14)
    assert is_now(found.created_at)
    beat = client.call("Heartbeat", session_id="used")
    assert beat.session_valid
    assert is_now(beat.server_time)
    assert not client.call("Heartbeat", session_id="other").session_valid


@check("worker")
def no_session_is_none(client: Client) -> None:
    client.execute("add", a=1, b=2)
    assert not client.call("Heartbeat").session_valid
    with refused(Code.NOT_FOUND, says="not found"):
        client.call("GetSession")


@check("worker")
def sessions_that_the_host_has_not_yet(client: Client) -> None:
    owner = host()
    assert not owner.call("Heartbeat", session_id="not yet").session_valid
    assert client.execute("set_var", "not yet", name="x", value=7) == 1
    assert owner.variable("not yet", "x").value.value == b"7"
    assert owner.variable("not yet", "x").source == pb2.Variable.PYTHON
    owner.close()


@check("worker")
def pids(client: Client) -> None:
    pid = client.execute("pid")
    assert f"\nPid:\t{pid}\n" in Path(f"/proc/{pid}/status").read_text()


@check("alone")
def without_a_host(client: Client) -> None:
    for tool, args in STATE_CALLS.items():
        told = text_in(client.fail(tool, "some", **args))
        assert "--elixir-address" in told, (tool, told)
        told = text_in(client.fail(tool, **args))
        assert "--elixir-address" in told or "session" in told, (tool, told)
    assert client.execute("add", "some", a=1, b=2) == 3
    assert read_to_end("count", client.chunks("count", n=2)) == [{"i": 0}, {"i": 1}]


STATE_CALLS: dict[str, dict[str, Any]] = {
    "get_var": {"name": "x"},
    "set_var": {"name": "x", "value": 1},
    "call_host": {"tool": "triple", "args": {"n": 1}},
    "host_tools": {},
}


@check("unreachable")
def without_reaching_the_host(client: Client) -> None:
    assert client.execute("add", a=1, b=2) == 3
    assert "cannot be reached" in text_in(client.fail("get_var", "some", name="x"))
    assert "cannot be reached" in text_in(client.fail("call_host", tool="triple", args={"n": 1}))
    assert client.execute("add", a=1, b=2) == 3


# The end of a worker.


@check("die")
def a_tool_that_ends_the_process(client: Client) -> None:
    with refused(Code.UNAVAILABLE):
        client.respond("die")


@check("term")
def sigterm_while_a_tool_runs(client: Client) -> None:
    pid = client.execute("pid")
    running = client.start("slow", seconds=LONG)
    is_busy(client)
    os.kill(pid, signal.SIGTERM)
    has_ended(running, Code.UNAVAILABLE)


@check("orphan")
def the_death_of_the_parent_while_a_tool_runs(client: Client) -> None:
    pid = client.execute("pid")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    parent = int(status["PPid"])
    assert parent not in (1, os.getpid(), os.getppid())
    running = client.start("slow", seconds=LONG)
    is_busy(client)
    os.kill(parent, signal.SIGKILL)
    has_ended(running, Code.UNAVAILABLE)
