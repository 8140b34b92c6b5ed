"""Other users of the machine, and hostile peers: what they reach of the servers and clients on sockets.

The attacker is a process of its own: tests/helpers/stranger.py. Its uid is one that the machine gives to nobody, where
this process may change it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

import bridge_py
import snakepit_trio as snakepit
from bridge_py import http2
from bridge_py.contract import listening, peers
from tests.helpers.hostile import LONGEST, Turns, counted_turns
from tests.helpers.stranger import FLOODS

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(bridge_py.__file__).with_name("__main__.py")
TOOLS = "tests.helpers.contract_tools:ContractTools"
STRANGER = 65534
SECRET = "only its owner reads this"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of another user")


def command(uid: int, attack: str, address: str) -> list[str]:
    return [sys.executable, "-m", "tests.helpers.stranger", str(uid), attack, address]


async def run_attack(attack: str, address: str, uid: int | None = None) -> dict[str, Any]:
    """What an attack has reached; by default it is this user's own."""
    with trio.fail_after(120):
        done = await trio.run_process(
            command(os.getuid() if uid is None else uid, attack, address), capture_stdout=True, cwd=ROOT
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(reached: dict[str, Any]) -> bool:
    """Whether nothing was reached."""
    return all(str(each).startswith("RemoteError: UNAVAILABLE") for each in reached.values())


# A pool that serves clients.


@asynccontextmanager
async def open_host(tmp_path: Path, **options: Any) -> AsyncIterator[snakepit.Pool]:
    """A pool with clients, a file that only its owner reads, and somebody's session."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    async with snakepit.open_pool(TOOLS, workers=1, bridge_server=True, **options) as pool:

        def read() -> str:
            return secret.read_text()

        pool.expose(read)
        async with pool.session("theirs") as session:
            await session.register_variable("x", "float", 1.0)
            yield pool
            value = await session.get_variable_value("x")
            assert value == (666.0 if options.get("open_to") == "machine" else 1.0)


@as_root
async def test_a_stranger_reaches_nothing_of_a_pool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_host(tmp_path) as pool:
        assert refused(await run_attack("use", pool.bridge_address, STRANGER))
        assert "uid 65534" in caplog.text
        assert 'open_to="user"' in caplog.text


@as_root
async def test_a_stranger_reaches_all_of_a_pool_that_is_open_to_the_machine(tmp_path: Path) -> None:
    async with open_host(tmp_path, open_to="machine") as pool:
        reached = await run_attack("use", pool.bridge_address, STRANGER)
        assert (reached["ping"], reached["tool"], reached["file"]) == ("x", 3, SECRET)


@as_root
async def test_the_user_and_root_reach_a_pool(tmp_path: Path) -> None:
    async with open_host(tmp_path) as pool:
        assert (await run_attack("use", pool.bridge_address))["tool"] == 3
        async with pool.session("theirs") as session:
            await session.update_variable("x", 1.0)


@as_root
async def test_refused_connections_harm_nobody_and_leave_nothing(tmp_path: Path) -> None:
    async with open_host(tmp_path) as pool, snakepit.open_client(pool.bridge_address) as client:
        await client.ping()
        before = len(os.listdir("/proc/self/fd"))
        async with trio.open_nursery() as nursery:

            async def go_on() -> None:
                while True:
                    assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3

            nursery.start_soon(go_on)
            assert await run_attack("often", pool.bridge_address, STRANGER) == {"closed": 300}
            nursery.cancel_scope.cancel()
        await client.ping()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_addresses_that_other_machines_reach_need_what_there_is_not(host: str) -> None:
    with pytest.raises(snakepit.UsageError, match="needs TLS and a token"):
        async with snakepit.open_pool(TOOLS, workers=1, bridge_server=f"{host}:0", open_to="machine"):
            pass


# Whose socket it is.


@pytest.fixture(params=["sock_diag", "tables"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the kernel tells whose socket it is."""
    if request.param == "tables":
        monkeypatch.setattr(peers, "_has_diag", lambda: False)
    return str(request.param)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that listens, as servers have it."""
    with listening.listen(request.param, 0) as found:
        yield found


def address_of(listener: socket.socket) -> str:
    return f"{listener.getsockname()[0]}:{listener.getsockname()[1]}"


@as_root
@pytest.mark.usefixtures("way")
def test_whose_connection_it_is(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    with socket.create_connection((host, port)), listener.accept()[0] as ours:
        assert peers.why_no_client(ours) is None
    done = subprocess.Popen(command(STRANGER, "often", address_of(listener)), cwd=ROOT, stdout=subprocess.DEVNULL)
    with done, listener.accept()[0] as theirs:
        assert peers.why_no_client(theirs) == "a connection comes from the user with uid 65534"
        done.kill()


@pytest.mark.usefixtures("way")
def test_a_client_of_ipv4_with_a_socket_of_ipv6() -> None:
    with listening.listen("127.0.0.1", 0) as listener, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        with listener.accept()[0] as accepted:
            assert peers.why_no_client(accepted) is None


@as_root
@pytest.mark.usefixtures("way")
def test_a_stranger_who_is_gone_before_anybody_looks_is_not_taken_for_root(listener: socket.socket) -> None:
    # The kernel lists a socket that its program has closed as one of root's.
    subprocess.run(command(STRANGER, "in_passing", address_of(listener)), cwd=ROOT, check=True, capture_output=True)
    with listener.accept()[0] as accepted:
        assert peers.why_no_client(accepted) == "a connection comes from nobody who can be found"


@pytest.fixture
def impostor() -> Iterator[int]:
    """The port at which a stranger serves, who stops serving with the test."""
    with subprocess.Popen(command(STRANGER, "serve", "127.0.0.1:0"), cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["port"]
        server.kill()


@as_root
@pytest.mark.usefixtures("way")
def test_whose_port_it_is(impostor: int) -> None:
    assert peers.why_no_server("127.0.0.1", impostor) == f"port {impostor} is served by the user with uid 65534"
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert peers.why_no_server("127.0.0.1", ours.getsockname()[1]) is None
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as ours:
        assert peers.why_no_server("127.0.0.1", ours.getsockname()[1]) is None
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        assert peers.why_no_server("127.0.0.1", port) == f"port {port} is served by nobody who can be found"


# Workers that speak the contract.


def own_worker() -> snakepit.GrpcBridge:
    return snakepit.GrpcBridge(script=OWN, adapter=TOOLS)


def disguised(folder: Path, before: str = "") -> snakepit.GrpcBridge:
    """Our own worker, as a program that the pool does not know."""
    script = folder / "worker.py"
    script.write_text(f"import runpy, sys\n{before}\nrunpy.run_path({str(OWN)!r}, run_name='__main__')\n")
    return snakepit.GrpcBridge(script=script, adapter=TOOLS)


def argument(pid: int, name: str) -> str:
    words = psutil.Process(pid).cmdline()
    return words[words.index(name) + 1]


def ports(pid: int) -> list[str]:
    """Where a process listens, by TCP."""
    found = [each.laddr for each in psutil.Process(pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return [f"{address.ip}:{address.port}" for address in found]


async def test_our_own_worker_and_its_host_have_no_ports() -> None:
    async with snakepit.open_pool(own_worker(), workers=1) as pool:
        pid = await pool.execute("pid")
        assert ports(pid) == ports(os.getpid()) == []
        for path in (argument(pid, "--listen"), argument(pid, "--elixir-address").removeprefix("unix:")):
            assert Path(path).is_socket()
            assert Path(path).parent.stat().st_mode & 0o777 == 0o700


@as_root
async def test_a_stranger_reaches_no_socket_of_our_own_worker() -> None:
    async with snakepit.open_pool(own_worker(), workers=1) as pool:
        pid = await pool.execute("pid")
        for address in (f"unix:{argument(pid, '--listen')}", argument(pid, "--elixir-address")):
            assert refused(await run_attack("use", address, STRANGER))
            assert (await run_attack("use", address))["ping"] == "x"


@as_root
async def test_a_stranger_reaches_no_port_of_a_foreign_worker_or_its_host(tmp_path: Path) -> None:
    async with snakepit.open_pool(disguised(tmp_path), workers=1, env={"PYTHONPATH": str(ROOT)}) as pool:
        pid = await pool.execute("pid")
        # This worker is ours, and guards its port itself. The port of a program of others is theirs to guard.
        for address in (*ports(pid), argument(pid, "--elixir-address")):
            assert refused(await run_attack("use", address, STRANGER))
            assert (await run_attack("use", address))["ping"] == "x"
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3


@pytest.fixture(params=["user", "machine"])
def alone(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A worker of ours that other hosts use: to whom it is open, and its address."""
    words = [sys.executable, str(OWN), "--adapter", TOOLS, "--open-to", request.param]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        yield request.param, f"127.0.0.1:{int(worker.stdout.readline().rpartition(b':')[2])}"
        worker.kill()


@as_root
async def test_a_worker_of_other_hosts_is_open_to_its_user(alone: tuple[str, str]) -> None:
    open_to, address = alone
    assert (await run_attack("use", address, os.getuid()))["ping"] == "x"
    reached = await run_attack("use", address, STRANGER)
    assert refused(reached) if open_to == "user" else reached["ping"] == "x"


@as_root
async def test_a_stranger_cannot_pose_as_a_worker(
    impostor: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A worker whose port is another program's by now.
    script = tmp_path / "worker.py"
    script.write_text(f"import time\nprint('GRPC_READY:{impostor}', flush=True)\ntime.sleep(1000)\n")
    with pytest.raises(snakepit.WorkerStartError):
        async with snakepit.open_pool(snakepit.GrpcBridge(script=script), workers=1):
            pass
    assert f"port {impostor} is served by the user with uid 65534: it is not used" in caplog.text


# Hostile peers of any user: floods.


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    """A pool with clients."""
    async with snakepit.open_pool(TOOLS, workers=1, bridge_server=True) as found:
        yield found


@asynccontextmanager
async def others_go_on(pool: snakepit.Pool) -> AsyncIterator[Turns]:
    """Another client works meanwhile. Yields how long the loop stood still."""

    async def work(client: snakepit.Client) -> None:
        while True:
            assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3

    async with snakepit.open_client(pool.bridge_address) as client, trio.open_nursery() as nursery:
        assert await client.execute_tool("add", {"a": 1, "b": 2}) == 3  # the first time takes longer
        nursery.start_soon(work, client)
        async with counted_turns() as turns:
            yield turns
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("attack", sorted(FLOODS))
async def test_a_flood_of_frames_costs_the_attacker_its_connection(pool: snakepit.Pool, attack: str) -> None:
    resident = psutil.Process().memory_info().rss
    async with others_go_on(pool) as turns:
        reached = await run_attack(attack, pool.bridge_address)
    assert reached["closed"], reached
    grown = psutil.Process().memory_info().rss - resident
    turns.tell(f"{attack}: {reached['bytes']:,} bytes; the host grew by {grown:,}")
    assert turns.own < LONGEST
    assert reached["bytes"] < 32 * 1024 * 1024  # some of them in the kernel
    assert grown < 100 * 1024 * 1024
    with trio.fail_after(60):  # the other client has left, and the server learns of it when its loop has its next turn
        while (stats := pool.get_stats()).queued or stats.running:
            await trio.sleep(0.01)


async def test_a_giant_message_is_refused_before_it_is_there(pool: snakepit.Pool) -> None:
    async with others_go_on(pool):
        reached = await run_attack("giant", pool.bridge_address)
    assert reached["status"] == "8"  # RESOURCE_EXHAUSTED
    assert reached["bytes"] < 16 * 1024 * 1024


@pytest.fixture
def liar() -> Iterator[int]:
    """The port of a server whose answer claims to be giant."""
    with subprocess.Popen(command(os.getuid(), "answer", "127.0.0.1:0"), cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["port"]
        server.kill()


async def test_a_giant_answer_is_refused_before_it_is_there(liar: int) -> None:
    async with snakepit.open_client(f"127.0.0.1:{liar}") as client:
        with trio.fail_after(60), pytest.raises(snakepit.SnakepitError, match="a message of 4294967295 bytes"):
            await client.ping("x")


async def test_a_server_takes_so_many_connections(pool: snakepit.Pool) -> None:
    async with others_go_on(pool):
        reached = await run_attack("at_once", pool.bridge_address)
    assert reached["held"] == http2.MAX_CONNECTIONS - 1
    async with snakepit.open_client(pool.bridge_address) as client:  # there is room again
        assert await client.ping("x") == "x"


async def test_tiny_frames_that_wait_take_little_room() -> None:
    acknowledged = 0

    def acknowledge(size: int) -> None:
        nonlocal acknowledged
        acknowledged += size

    buffer = http2.BoundedBuffer(acknowledge)
    for number in range(1_000_000):
        buffer.add(b"%d" % (number % 10), 1)
    assert buffer._data.__sizeof__() < 2_000_000
    assert buffer.unacked_size() == 1_000_000
    assert await buffer.read(5) == b"01234"  # which needs no more bytes, so it does not wait
    assert (acknowledged, buffer.unacked_size()) == (5, 999_995)
    buffer.eof()
    assert len(await buffer.read(999_995)) == 999_995
    assert await buffer.read(5) == b""
    assert acknowledged == 1_000_000
