"""What the host and our own workers serve of the wire contract, as a client sees it that shares no code with ours.

The checks are those of tests/helpers/google_peer/client.py, which runs in a process of its own, because grpcio
leaves threads and descriptors in its process.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.workers import is_alive

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "tests" / "helpers" / "google_peer" / "client.py"
WORKER = ROOT / "bridge_py" / "__main__.py"
TOOLS = "tests.helpers.contract_tools:ContractTools"
READY = b"GRPC_READY:"
LONGEST = 240  # seconds for all checks of one mode, which take some ten

pytestmark = pytest.mark.timeout(LONGEST + 60)


# The client.


async def run_checks(stubs: Path, mode: str, address: str, **env: str) -> str:
    """Run the checks of a mode; fail if one of them does. What they have printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with trio.fail_after(LONGEST):
        done = await trio.run_process(
            [sys.executable, CLIENT, mode, address],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=kept | env | {"GOOGLE_STUBS": str(stubs)},
        )
    printed = done.stdout.decode()
    assert done.returncode == 0, printed
    return printed


# The host.


@asynccontextmanager
async def open_host() -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(TOOLS, workers=2, bridge_server=True) as pool:
        for function in (triple, broken, later, numbers, grid):
            pool.expose(function)
        yield pool


def triple(n: int) -> int:
    """Three times n."""
    return 3 * n


def broken(message: str = "boo") -> None:
    """Raise."""
    raise KeyError(message)


async def later(value: Any, by: int = 2) -> Any:
    """By times the value, which takes by tenths of a second from ten on."""
    if by > 10:
        await trio.sleep(by / 10)
    return value * by


def numbers(n: int) -> Any:
    """Count."""
    yield from range(n)


def grid(n: int, dtype: Any = float) -> Any:
    """An array."""
    return np.arange(n, dtype=dtype)


async def test_the_host(stubs: Path) -> None:
    async with open_host() as pool:
        await run_checks(stubs, "host", pool.bridge_address)
        assert {"mine", "flow"} <= {tool.name for tool in pool.tools.list_tools("register")}
        mine = pool.tools.get_tool("register", "mine")
        assert (mine.worker_id, mine.spec.description) == ("w2", "Mine.")
        assert [(each.name, each.required) for each in mine.spec.parameters] == [("text", True), ("limit", False)]
        assert pool.tools.get_tool("register", "flow").spec.streaming
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        async with pool.session("versions") as session:
            found = await session.get_variable("x")
            assert (found.value, found.version, found.source) == (3.0, 3, "worker")
        stats = pool.get_stats()
        assert (stats.queued, stats.running) == (0, 0)


# Our own worker.


@asynccontextmanager
async def open_worker(host_address: str = "", **env: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """A worker of ours in contract mode, started by hand, and its address."""
    async with started(worker_command(host_address), **env) as (process, line):
        yield process, f"127.0.0.1:{port_of(line)}"


def worker_command(host_address: str) -> list[str]:
    address = ["--elixir-address", host_address] if host_address else []
    adapter = ["--adapter", "tests.helpers.contract_tools.ContractTools"]
    return [sys.executable, str(WORKER), *adapter, *address, "--port", "0", "--snakepit-run-id", "x"]


@asynccontextmanager
async def started(command: list[str], **env: str) -> AsyncIterator[tuple[trio.Process, bytes]]:
    """A process, which is ended with the block, and its first line."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                trio.run_process, command, cwd=ROOT, stdout=subprocess.PIPE, check=False, env={**os.environ, **env}
            )
        )
        assert process.stdout is not None
        async with process.stdout:
            yield process, await read_line(process.stdout)
        nursery.cancel_scope.cancel()


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    with trio.fail_after(60):
        while not line.endswith(b"\n"):
            piece = await stream.receive_some(1)
            assert piece, f"it has ended after {line!r}"
            line += piece
    return line


def port_of(line: bytes) -> int:
    assert line.startswith(READY), line
    assert line.endswith(b"\n"), line
    return int(line[len(READY) :])


async def exit_code(process: trio.Process) -> int:
    with trio.fail_after(60):
        return await process.wait()


async def test_a_worker(stubs: Path) -> None:
    async with open_host() as pool, open_worker(pool.bridge_address) as (process, address):
        await run_checks(stubs, "worker", address, GOOGLE_HOST=pool.bridge_address, GOOGLE_CONTRACT="0.4")
        # It has told the host of its tools, once it had a call of the session.
        told = pool.tools.get_tool("with worker", "count")
        assert (told.worker_id, told.spec.streaming) == (str(process.pid), True)
        process.terminate()
        assert await exit_code(process) == 0


async def test_a_worker_of_0_13(stubs: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready" / "file"
    ready.parent.mkdir()
    async with (
        open_host() as pool,
        open_worker(pool.bridge_address, SNAKEPIT_READY_FILE=str(ready), SNAKEPIT_OTEL_CONSOLE="false") as (
            process,
            address,
        ),
    ):
        with trio.fail_after(60):
            while not ready.exists():
                await trio.sleep(0.01)
        # It is renamed, so that it is never there without its content, and nothing else is left.
        assert ready.read_bytes() == address.rpartition(":")[2].encode()
        assert os.listdir(ready.parent) == [ready.name]
        await run_checks(stubs, "worker", address, GOOGLE_HOST=pool.bridge_address, GOOGLE_CONTRACT="0.13")
        process.terminate()
        assert await exit_code(process) == 0


async def test_a_worker_without_a_host(stubs: Path) -> None:
    async with open_worker() as (process, address):
        await run_checks(stubs, "alone", address)
        process.terminate()
        assert await exit_code(process) == 0


async def test_a_worker_whose_host_cannot_be_reached(stubs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    async with open_worker(nobody) as (_, address):
        await run_checks(stubs, "unreachable", address)


async def test_a_worker_that_a_tool_ends(stubs: Path) -> None:
    async with open_worker() as (process, address):
        await run_checks(stubs, "die", address)
        assert await exit_code(process) == 3


async def test_a_worker_that_is_terminated_while_a_tool_runs(stubs: Path) -> None:
    async with open_worker() as (process, address):
        await run_checks(stubs, "term", address)
        assert await exit_code(process) == 0


# Starts the rest of its command line, whose output is its own, and stays.
PARENT = """
import subprocess, sys
process = subprocess.Popen(sys.argv[1:])
print(process.pid, flush=True)
process.wait()
"""


@asynccontextmanager
async def open_grandchild() -> AsyncIterator[tuple[trio.Process, int, str]]:
    """A worker that is the child of another process: that one, the worker's pid and address."""
    command = [sys.executable, "-c", PARENT, *worker_command("")]
    async with started(command) as (parent, line):
        assert parent.stdout is not None
        second = await read_line(parent.stdout)
        ready, pid = (line, second) if line.startswith(READY) else (second, line)
        yield parent, int(pid), f"127.0.0.1:{port_of(ready)}"


async def is_gone(pid: int) -> None:
    with trio.fail_after(30):
        while is_alive(pid):
            await trio.sleep(0.05)


async def test_a_worker_whose_parent_dies() -> None:
    async with open_grandchild() as (parent, pid, _):
        assert is_alive(pid)
        parent.kill()
        await is_gone(pid)


async def test_a_worker_whose_parent_dies_while_a_tool_runs(stubs: Path) -> None:
    async with open_grandchild() as (_, pid, address):
        await run_checks(stubs, "orphan", address)
        await is_gone(pid)


@pytest.mark.parametrize("tool", ["slow", "count_slowly"])
async def test_a_worker_stops_at_the_time_that_the_client_gives(tool: str) -> None:
    given = {"timeout_ms": "300"}
    async with open_worker() as (_, address), snakepit.open_client(address) as client:
        with trio.fail_after(60), pytest.raises(snakepit.RemoteError, match=r"DEADLINE_EXCEEDED.*the 0.3 s that"):
            if tool == "slow":
                await client.execute_tool("slow", {"seconds": 600}, metadata=given)
            else:
                async with aclosing(client.execute_streaming_tool(tool, {}, metadata=given)) as chunks:
                    assert [chunk async for chunk in chunks] == [0]
        # The tool has ended: the worker runs one at a time.
        with trio.fail_after(60):
            assert await client.execute_tool("add", {"a": 1, "b": 2}, metadata={"timeout_ms": "9" * 15}) == 3
