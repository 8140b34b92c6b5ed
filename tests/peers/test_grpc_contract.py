"""Foreign workers: any process that follows the wire contract, in whatever language, and with whatever habits."""

from __future__ import annotations

import functools
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import trio

import bridge_py
import snakepit_trio as snakepit

ROOT = Path(__file__).resolve().parents[2]
GOOGLE = ROOT / "tests" / "helpers" / "google_peer" / "worker.py"
NODE = ROOT / "docs" / "examples" / "node_worker"
OWN = Path(bridge_py.__file__).with_name("__main__.py")
OUR_TOOLS = "tests.helpers.contract_tools:ContractTools"
Contract = Literal["0.4", "0.13"]


@pytest.fixture(scope="session")
def node() -> Path:
    """The worker in Node.js, with its packages."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm: the worker in Node.js cannot run without them")
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, capture_output=True)
    return NODE / "worker.js"


def google(contract: Contract = "0.4", *habits: str) -> snakepit.GrpcBridge:
    """A worker that shares no code with ours."""
    args: list[str] = ["--contract", contract, "--habits", ",".join(habits)]
    return snakepit.GrpcBridge(script=GOOGLE, contract=contract, args=args)


def open_google(stubs: Path, contract: Contract = "0.4", *habits: str, **config: Any) -> Any:
    """A pool of them."""
    return snakepit.open_pool(google(contract, *habits), env={"GOOGLE_STUBS": str(stubs)}, **config)


@pytest.fixture(params=["link", "ours-0.4", "ours-0.13", "google-0.4", "google-0.13", "node"])
def opened(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Opens a pool of each kind of worker, whose tools are the same."""
    kind, _, contract = request.param.partition("-")
    env: dict[str, str] = {}
    adapter: Any = OUR_TOOLS
    if kind == "ours":
        adapter = snakepit.GrpcBridge(script=OWN, adapter=OUR_TOOLS, contract=contract)
    elif kind == "google":
        adapter, env = google(contract), {"GOOGLE_STUBS": str(request.getfixturevalue("stubs"))}
    elif kind == "node":
        adapter = snakepit.GrpcBridge(script=request.getfixturevalue("node"), python="node")
    return functools.partial(snakepit.open_pool, adapter, env=env)


# What every worker does, our own over the link too.

VALUES = [None, True, 0, -7, 2**40, 1.5, "", "text", "ünï\n\x00", [], [1, [2, "x"]], {}, {"a": {"b": [None]}}]


async def test_results(opened: Any) -> None:
    async with opened(workers=1) as pool:
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        for value in VALUES:
            assert await pool.execute("echo", {"value": value}) == value


async def test_failures(opened: Any) -> None:
    async with opened(workers=1) as pool:
        with pytest.raises(snakepit.ToolError, match="boo"):
            await pool.execute("fail", {"message": "boo"})
        with pytest.raises(snakepit.SnakepitError, match=r"no tool .nope."):
            await pool.execute("nope")
        with pytest.raises(snakepit.SnakepitError, match="b"):
            await pool.execute("add", {"a": 1})
        with pytest.raises(snakepit.EncodeError, match="value"):
            await pool.execute("echo", {"value": object()})
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        assert pool.get_stats().restarts == 0


async def test_streams(opened: Any) -> None:
    async with opened(workers=1) as pool:
        for n in (0, 1, 200):
            async with pool.stream("count", {"n": n}) as chunks:
                assert [chunk async for chunk in chunks] == [{"i": i} for i in range(n)]
        async with pool.stream("fail_after", {"n": 3, "message": "at last"}) as chunks:
            assert [await anext(chunks) for _ in range(3)] == [{"i": 0}, {"i": 1}, {"i": 2}]
            with pytest.raises(snakepit.ToolError, match="at last"):
                await anext(chunks)
        async with pool.stream("count", {"n": 10**9}) as chunks:
            assert await anext(chunks) == {"i": 0}
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_sessions(opened: Any) -> None:
    async with opened(workers=1) as pool, pool.session() as session:
        await session.register_variable("x", "float", 0.5, constraints={"max": 10})
        assert await session.execute("get_var", {"name": "x"}) == 0.5
        assert await session.execute("set_var", {"name": "x", "value": 1.5}) == 2
        assert await session.get_variable_value("x") == 1.5
        assert await session.execute("set_var", {"name": "y", "value": {"a": [1, 2]}}) == 1
        assert await session.get_variable_value("y") == {"a": [1, 2]}
        with pytest.raises(snakepit.SnakepitError, match="max"):
            await session.execute("set_var", {"name": "x", "value": 11.5})
        with pytest.raises(snakepit.SnakepitError, match="not found"):
            await session.execute("get_var", {"name": "z"})


async def test_host_tools(opened: Any) -> None:
    async with opened(workers=1) as pool, pool.session() as session:

        def triple(n: int) -> int:
            return 3 * n

        async def broken() -> None:
            raise KeyError("k")

        pool.expose(triple)
        session.expose(broken)
        assert await session.execute("host_tools") == ["broken", "triple"]
        assert await session.execute("call_host", {"tool": "triple", "args": {"n": 14}}) == 42
        assert await pool.execute("call_host", {"tool": "triple", "args": {"n": 14}}) == 42
        with pytest.raises(snakepit.ToolError, match="KeyError"):
            await session.execute("call_host", {"tool": "broken", "args": {}})
        with pytest.raises(snakepit.SnakepitError, match=r"no tool .broken."):
            await pool.execute("call_host", {"tool": "broken", "args": {}})
        with pytest.raises(snakepit.SnakepitError, match="'n' does not fit"):
            await session.execute("call_host", {"tool": "triple", "args": {"n": "x"}})


async def test_arrays(opened: Any) -> None:
    async with opened(workers=1) as pool:
        for shape in ((2, 3), (100, 200)):
            array = np.arange(math.prod(shape), dtype=float).reshape(shape)
            assert await pool.execute("sum", {"tensor": array}) == array.sum()


async def test_timeouts_and_cancellation(opened: Any) -> None:
    async with opened(workers=1) as pool:
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("slow", {"seconds": 60}, timeout=0.5)
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        with trio.move_on_after(0.5):
            await pool.execute("slow", {"seconds": 60})
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_deaths(opened: Any) -> None:
    async with opened(workers=2) as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("die")
        assert caught.value.exit_code == 3
        await pool.await_ready()
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


@pytest.mark.slow
async def test_nested_calls(opened: Any) -> None:
    async with opened(workers=6) as pool:
        depths = []

        async def down(depth: int, leaf: str) -> Any:
            depths.append(depth)
            if depth > 1:
                args = {"tool": "down", "args": {"depth": depth - 1, "leaf": leaf}}
                return [depth, await pool.execute("call_host", args)]
            if leaf == "sleep":
                await trio.sleep_forever()
            return await pool.execute("add", {"a": depth, "b": 1})

        pool.expose(down)
        args = {"tool": "down", "args": {"depth": 5, "leaf": ""}}
        assert await pool.execute("call_host", args) == [5, [4, [3, [2, 2]]]]
        depths.clear()
        args = {"tool": "down", "args": {"depth": 5, "leaf": "sleep"}}
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("call_host", args, timeout=3)
        assert depths == [5, 4, 3, 2, 1]
        stats = pool.get_stats()
        assert (stats.running, stats.queued) == (0, 0)
        await pool.await_ready()
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


# Bad habits.


@pytest.mark.slow
@pytest.mark.parametrize("contract", ["0.4", "0.13"])
@pytest.mark.parametrize(
    "habits",
    [
        ["flood", "ignore_term"],
        ["end_twice", "unimplemented"],
        ["no_final", "slow_ready"],
        ["split_ready", "flood", "end_twice"],
        ["die_in_stream"],
    ],
    ids=",".join,
)
async def test_many_calls_of_a_worker_with_bad_habits(stubs: Path, contract: Contract, habits: list[str]) -> None:
    if contract == "0.13" and "unimplemented" in habits:
        habits = ["end_twice"]  # a worker of 0.13 without Heartbeat is the host's to bear, not to have
    async with open_google(stubs, contract, *habits, workers=2, shutdown_timeout=1.5) as pool:
        outcomes = {"right": 0, "crashed": 0}
        calls = 50 if "die_in_stream" in habits else 100 if "flood" in habits else 250

        async def call(n: int) -> None:
            try:
                if n % 5:
                    # A flood of logs comes before each answer, and all calls are made at once.
                    assert await pool.execute("add", {"a": n, "b": 1}, timeout=100) == n + 1
                else:
                    async with pool.stream("count", {"n": 5}) as chunks:
                        assert [chunk["i"] async for chunk in chunks] == list(range(5))
            except snakepit.WorkerCrashed:
                outcomes["crashed"] += 1
            else:
                outcomes["right"] += 1

        async with trio.open_nursery() as nursery:
            for n in range(calls):
                nursery.start_soon(call, n)
        assert outcomes["right"] + outcomes["crashed"] == calls
        assert outcomes["crashed"] == (calls // 5 if "die_in_stream" in habits else 0)


async def test_a_worker_that_is_never_ready(stubs: Path) -> None:
    with pytest.raises(snakepit.WorkerStartError, match="was not ready within"):
        async with open_google(stubs, "0.4", "never_ready", start_timeout=1.5):
            pass


@pytest.mark.parametrize(("habit", "says"), [("garbage_result", "unknown.Type"), ("not_json_result", "no JSON")])
async def test_results_that_cannot_be_read(stubs: Path, habit: str, says: str) -> None:
    async with open_google(stubs, "0.4", habit, workers=1) as pool:
        with pytest.raises(snakepit.DecodeError, match=says):
            await pool.execute("echo", {"value": 1})
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5


async def test_chunks_that_are_no_json(stubs: Path) -> None:
    async with open_google(stubs, workers=1) as pool, pool.stream("raw_count", {"n": 3}) as chunks:
        assert [chunk async for chunk in chunks] == [b"\xff0", b"\xff1", b"\xff2"]


# What a foreign worker may do, and what is left of its calls.


async def test_sessions_of_other_calls_are_closed(opened: Any) -> None:
    async with opened(workers=1) as pool, pool.session("theirs") as session:
        await session.register_variable("x", "float", 1.0)
        with pytest.raises(snakepit.SnakepitError):
            await pool.execute("get_var", {"name": "x"})
        assert await pool.sessions.list_sessions() == ["theirs"]


async def test_what_foreign_calls_make_goes_with_them(stubs: Path) -> None:
    async with open_google(stubs, workers=1) as pool:
        assert await pool.execute("set_var", {"name": "x", "value": 1}) == 1
        assert await pool.sessions.list_sessions() == []
        assert {"count", "add"} <= {tool.name for tool in pool.tools.list_tools()}
        assert pool.tools.get_tool(None, "count").spec.streaming


async def test_limits_hold_for_foreign_workers(stubs: Path) -> None:
    limits = snakepit.Limits(open_files=64)
    async with open_google(stubs, workers=1, limits=limits) as pool:
        pid = await pool.execute("pid")
        limit = Path(f"/proc/{pid}/limits").read_text().split("Max open files")[1].split()[0]
        assert limit == "64"


# Adapters.


async def test_the_first_adapter_that_works(stubs: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapters: list[snakepit.Adapter | str] = [
        snakepit.GrpcBridge(script="/nowhere/worker.js", python="node"),
        snakepit.GrpcBridge(script=GOOGLE, python="no-such-interpreter"),
        "tests.helpers.contract_tools:NoSuchClass",
        google("0.4"),
        OUR_TOOLS,
    ]
    async with snakepit.open_pool(adapters=adapters, env={"GOOGLE_STUBS": str(stubs)}, workers=1) as pool:
        assert await pool.execute("add", {"a": 2, "b": 3}) == 5
        assert pool.config.adapter == adapters[3]
        reasons = [why for _, why in pool.passed_over]
        assert "there is no script '/nowhere/worker.js'" in reasons[0]
        assert "no executable 'no-such-interpreter'" in reasons[1]
        assert "no class NoSuchClass" in reasons[2] or "ended before it was ready" in reasons[2]
        assert caplog.text.count("is passed over") == 3


async def test_no_adapter_works() -> None:
    adapters = [snakepit.GrpcBridge(script="/nowhere/a"), snakepit.GrpcBridge(script="/nowhere/b")]
    with pytest.raises(snakepit.UsageError, match=r"(?s)/nowhere/a.*/nowhere/b"):
        async with snakepit.open_pool(adapters=adapters):
            pass
    with pytest.raises(snakepit.UsageError, match="there is no script '/nowhere/a'"):
        async with snakepit.open_pool(adapters[0]):
            pass
    with pytest.raises(snakepit.UsageError, match="not both"):
        async with snakepit.open_pool(OUR_TOOLS, adapters=adapters):
            pass


class Careful(snakepit.GrpcPython):
    """An adapter that has a say in its calls."""

    def supported_commands(self) -> list[str]:
        return ["add", "echo", "slow"]

    def validate_command(self, name: str, args: Any) -> None:
        super().validate_command(name, args)
        if name == "add" and args.get("a", 0) < 0:
            raise ValueError("a must not be negative")

    def prepare_args(self, name: str, args: Any) -> Any:
        return {"b": 100, **args} if name == "add" else args

    def process_response(self, name: str, response: Any) -> Any:
        return {"sum": response} if name == "add" else response

    def command_timeout(self, name: str, args: Any) -> float | None:
        return 0.3 if name == "slow" else None


async def test_an_adapter_has_a_say_in_calls() -> None:
    async with snakepit.open_pool(Careful(OUR_TOOLS), workers=1) as pool:
        assert await pool.execute("add", {"a": 1}) == {"sum": 101}
        assert await pool.execute("echo", {"value": 1}) == 1
        with pytest.raises(snakepit.UnknownTool, match="no tool 'count'; there are: add, echo, slow"):
            await pool.execute("count", {"n": 1})
        with pytest.raises(ValueError, match="must not be negative"):
            await pool.execute("add", {"a": -1})
        with pytest.raises(snakepit.CallTimeout, match="within 0.3 s"):
            await pool.execute("slow", {"seconds": 30})
        assert await pool.execute("slow", {"seconds": 0.5}, timeout=20) == "done"


# Our own client and server.


async def test_our_client() -> None:
    async with (
        snakepit.open_pool(OUR_TOOLS, workers=1, bridge_server=True) as pool,
        snakepit.open_client(pool.bridge_address) as client,
    ):
        pool.expose(lambda n: n * 3, name="triple")
        assert await client.ping("hi") == "hi"
        opened = await client.initialize_session("s", {"who": "me"})
        assert set(opened.available_tools) == {"triple"}
        assert await client.heartbeat("s")
        assert not await client.heartbeat("t")
        await client.register_variable("s", "x", "float", 1, constraints={"max": 5})
        assert (await client.get_variable("s", "x")).value == 1.0
        assert await client.set_variable("s", "x", 2.0, expected_version=1) == 2
        with pytest.raises(snakepit.VersionConflict):
            await client.set_variable("s", "x", 2.0, expected_version=1)
        with pytest.raises(snakepit.InvalidValue, match="max"):
            await client.set_variable("s", "x", 6.0)
        with pytest.raises(snakepit.VariableNotFound):
            await client.get_variable("s", "nope")
        with pytest.raises(snakepit.SessionNotFound):
            await client.get_session("nope")
        with pytest.raises(snakepit.VariableExists):
            await client.register_variable("s", "x", "float", 1)
        versions, errors = await client.set_variables("s", {"x": 3.0, "nope": 1})
        assert versions == {"x": 3}
        assert "not found" in errors["nope"]
        found, missing = await client.get_variables("s", ["x", "nope"])
        assert (found["x"].version, missing) == (3, ["nope"])
        assert [entry.version for entry in await client.get_variable_history("s", "x", 2)] == [3, 2]
        assert (await client.rollback_variable("s", "x", 1)).value == 1.0
        await client.register_variable("s", "y", "tensor", np.arange(5000.0).reshape(50, 100))
        assert (await client.get_variable("s", "y")).value.shape == (50, 100)
        await client.add_dependency("s", "y", "x")
        assert await client.start_optimization("s", "x", "me")
        assert (await client.get_variable("s", "x")).optimizing
        assert await client.stop_optimization("s", "x") == 1.0
        assert [each.name for each in await client.list_variables("s")] == ["x", "y"]
        await client.delete_variable("s", "y")
        updates = client.watch_variables("s", ["x"])
        assert (await anext(updates)).update_type == "initial"
        await client.set_variable("s", "x", 4.0)
        changed = (await anext(updates)).variable
        assert changed is not None
        assert changed.version == 5
        await updates.aclose()
        assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3
        assert await client.execute_tool("get_var", {"name": "x"}, session_id="s") == 4.0
        with pytest.raises(snakepit.ToolError, match="boo"):
            await client.execute_tool("fail", {"message": "boo"})
        assert [c async for c in client.execute_streaming_tool("count", {"n": 3})] == [{"i": i} for i in range(3)]
        with pytest.raises(snakepit.ToolError, match="late"):
            [c async for c in client.execute_streaming_tool("fail_after", {"n": 1, "message": "late"})]
        early = client.execute_streaming_tool("count", {"n": 10**9})
        assert await anext(early) == {"i": 0}
        await early.aclose()
        assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3
        assert await client.execute_host_tool("triple", {"n": 2}) == 6
        assert [tool.name for tool in await client.get_exposed_tools("s")] == ["triple"]
        assert await client.register_tools("s", [snakepit.ToolSpec("theirs")], "w") == {"theirs": "s:theirs"}
        assert (await client.get_session("s")).variable_count == 1
        events = client.stream_telemetry()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_crash, pool)
            while (await anext(events)).event_parts[0] != "worker":
                pass  # the call has events of its own
        await events.aclose()
        assert await client.cleanup_session("s") == 1
        with trio.move_on_after(0.3) as scope:
            await client.execute_tool("slow", {"seconds": 60})
        assert scope.cancelled_caught
        assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3


async def _crash(pool: snakepit.Pool) -> None:
    await trio.sleep(0.3)  # for the stream to be there
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute("die")


async def test_a_client_connects_again() -> None:
    async with trio.open_nursery() as nursery:
        async with snakepit.open_pool(OUR_TOOLS, workers=1, bridge_server=True) as pool:
            address = pool.bridge_address
            client = await nursery.start(_hold_client, address)
            assert await client.ping("one") == "one"
        with pytest.raises(snakepit.RemoteError, match="UNAVAILABLE"):
            await client.ping("two")
        async with snakepit.open_pool(OUR_TOOLS, workers=1, bridge_server=address):
            assert await client.ping("three") == "three"
        nursery.cancel_scope.cancel()
    with pytest.raises(snakepit.UsageError, match="cannot be used"):
        async with snakepit.open_pool(OUR_TOOLS, workers=1, bridge_server="192.0.2.1:1"):
            pass
    with pytest.raises(snakepit.UsageError, match="write it as"):
        async with snakepit.open_pool(OUR_TOOLS, workers=1, bridge_server="localhost"):
            pass


async def _hold_client(address: str, task_status: trio.TaskStatus[snakepit.Client]) -> None:
    async with snakepit.open_client(address, connect_timeout=0.5) as client:
        task_status.started(client)
        await trio.sleep_forever()


def test_no_worker_is_left_when_the_host_is_killed(stubs: Path, tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "import os, trio, snakepit_trio as s\n"
        "async def main():\n"
        f"    adapter = s.GrpcBridge(script={str(GOOGLE)!r}, args=['--habits', 'ignore_term'])\n"
        f"    async with s.open_pool(adapter, workers=2, env={{'GOOGLE_STUBS': {str(stubs)!r}}}) as pool:\n"
        "        print(*[w.pid for w in pool.list_workers()], flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, cwd=ROOT)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
