"""A worker on another machine, and the network between is cut. Network namespaces are the machines."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio import Pool, SessionHandle, WorkerCrashed
from snakepit_trio.launchers.agent import Order
from snakepit_trio.launchers.remote import RemoteProcess, silence_of
from tests.helpers import namespaces
from tests.helpers.namespaces import Machine, Sniffer
from tests.helpers.remote_launcher import Here, ProcessAgent, Remote

TOOLS: Final = "tests.helpers.remote_tools:RemoteTools"
QUICK: Final[dict[str, Any]] = {"ping_interval": 0.4, "ping_timeout": 0.4, "missed_pings": 2}
HERE: Final = str(os.stat("/proc/self/ns/net").st_ino)
MISSING: Final = namespaces.why_not()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def far() -> Iterator[Machine]:
    """Another machine."""
    with namespaces.machine() as machine:
        yield machine


@asynccontextmanager
async def open_far(*places: Machine | Here, **config: Any) -> AsyncIterator[tuple[Pool, Remote]]:
    """A pool with one worker at each place."""
    launcher = Remote(*places)
    settings: dict[str, Any] = {"workers": len(places), "start_timeout": 60, **QUICK, **config}
    try:
        async with snakepit.open_pool(TOOLS, launcher=launcher, **settings) as pool:
            yield pool, launcher
    finally:
        with trio.CancelScope(shield=True):
            await launcher.end_agents()


async def until(condition: Any, seconds: float = 60) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


async def fails_typed(function: Any, *args: Any) -> None:
    with pytest.raises(WorkerCrashed, match="was lost"):
        await function(*args)


def ticks(folder: Path, process: RemoteProcess) -> int:
    """How much a worker has done."""
    return sum(file.stat().st_size for file in folder.glob(f"*-{process.pid}"))


async def test_calls_buffers_and_streams_cross_and_nobody_can_read_them(far: Machine) -> None:
    secret = os.urandom(32).hex()
    with Sniffer(far.cable) as sniffer:
        async with open_far(far, buffer_threshold=1024) as (pool, launcher):
            assert await pool.execute("machine") != str(os.stat("/proc/self/ns/net").st_ino)
            assert await pool.execute("echo", {"value": secret}) == secret
            large = secret.encode() * 10_000
            assert await pool.execute("echo", {"value": large}) == large
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
                plain.sendto(b"this is in plain text", (far.host, 9))
        await trio.to_thread.run_sync(sniffer.__exit__, None, None, None)
        heard = sniffer.heard
    assert b"this is in plain text" in heard
    assert len(heard) > 2 * len(large)
    hello = launcher.orders[0].secret
    assert not any(text.encode() in heard for text in (secret, hello, "snakepit.bridge", "RemoteTools", "echo"))


@pytest.mark.parametrize("agent", ["reachable", "cut off"])
async def test_a_cut_link_is_noticed_and_its_call_fails_when_it_is_over(
    far: Machine, tmp_path: Path, agent: str
) -> None:
    await cut_and_heal(far, tmp_path, agent, 0)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["reachable", "cut off"])
async def test_a_link_is_cut_for_thirty_seconds(far: Machine, tmp_path: Path, agent: str) -> None:
    await cut_and_heal(far, tmp_path, agent, 30, ping_interval=1.0, ping_timeout=1.0)


async def cut_and_heal(far: Machine, folder: Path, agent: str, seconds: float, **config: Any) -> None:
    async with open_far(far, Here(), max_restarts=100, **config) as (pool, launcher), trio.open_nursery() as nursery:
        lost, other = sorted(launcher.processes, key=lambda process: process.node == "node at 127.0.0.1")
        failures: list[WorkerCrashed] = []

        async def linger() -> None:
            try:
                await pool.execute("linger", {"folder": str(folder)}, timeout=120)
            except WorkerCrashed as error:
                failures.append(error)
                assert not psutil.pid_exists(lost.pid)

        nursery.start_soon(linger)
        nursery.start_soon(linger)
        await until(lambda: all(ticks(folder, process) for process in (lost, other)))
        if agent == "cut off":
            launcher.agent_of(lost).is_cut = True
        began = trio.current_time()
        far.pull()
        limit = silence_of(pool.config)
        with trio.fail_after(3 * limit + 20):
            while not failures:
                await trio.sleep(0.02)
        took = trio.current_time() - began
        assert "was lost: nothing has come from the other machine" in str(failures[0])
        assert took > limit - 1
        done = ticks(folder, lost)
        await trio.sleep(0.2)
        assert ticks(folder, lost) == done
        assert psutil.pid_exists(other.pid)
        await trio.sleep(max(0.0, began + seconds - trio.current_time()))
        far.plug_in()
        (folder / "end").touch()
        with trio.fail_after(60):
            while pool.get_stats().ready < 2:
                await trio.sleep(0.05)
        assert ticks(folder, lost) == done
        assert lost.exit_code == (None if agent == "cut off" else -signal.SIGKILL)
        assert lost.last_started is None or agent == "reachable"


async def test_a_worker_behind_a_cut_link_is_not_reached_and_its_address_is_named(far: Machine) -> None:
    async def before(agent: ProcessAgent, _order: Order) -> None:
        far.pull()

    launcher = Remote(far, before=before)
    said = (
        rf"was not reached within 2 s: {far.host}:\d+( does not answer|: .*No route to host.*): see that the host can"
    )
    try:
        with trio.fail_after(60), pytest.raises(snakepit.WorkerStartError, match=said):
            async with snakepit.open_pool(TOOLS, workers=1, launcher=launcher, start_timeout=2):
                pass
    finally:
        await launcher.end_agents()


async def test_a_call_that_may_run_again_goes_on_elsewhere(far: Machine, tmp_path: Path) -> None:
    async with open_far(far, Here()) as (pool, launcher), trio.open_nursery() as nursery:
        lost, other = sorted(launcher.processes, key=lambda process: process.node == "node at 127.0.0.1")
        outcomes: list[str] = []

        async def linger() -> None:
            outcomes.append(await pool.execute("linger_again", {"folder": str(tmp_path)}, retries=1))

        nursery.start_soon(linger)
        nursery.start_soon(linger)
        await until(lambda: all(ticks(tmp_path, process) for process in (lost, other)))
        launcher.agent_of(lost).is_cut = True
        far.pull()
        await until(lambda: pool.get_stats().crashed >= 1)
        assert not psutil.pid_exists(lost.pid)
        (tmp_path / "end").touch()
        await until(lambda: len(outcomes) == 2)
        assert set(outcomes) == {str(os.stat("/proc/self/ns/net").st_ino)}
        far.plug_in()


async def test_a_late_worker_writes_no_state(far: Machine, tmp_path: Path) -> None:
    """It stood still while the link was cut, so it has noticed nothing."""
    async with open_far(far, max_restarts=100) as (pool, launcher), pool.session() as session:
        (late,) = launcher.processes
        launcher.agents[0].is_cut = True
        await session.register_variable("number", value=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_typed, session.execute, "write_on", {"folder": str(tmp_path)})
            await until(lambda: ticks(tmp_path, late))
            os.kill(late.pid, signal.SIGSTOP)
            far.pull()
        assert psutil.pid_exists(late.pid)
        written = await session.get_variable_value("number")
        assert written >= 1
        far.plug_in()
        done = ticks(tmp_path, late)
        os.kill(late.pid, signal.SIGCONT)
        await until(lambda: not psutil.pid_exists(late.pid))
        assert ticks(tmp_path, late) <= done + 5
        assert await session.get_variable_value("number") == written


async def test_a_session_goes_on_elsewhere_and_its_late_worker_cannot_write_any_more(
    far: Machine, tmp_path: Path
) -> None:
    """The late worker stood still in the middle of its writes, so it goes on with them when the link has healed."""
    async with open_far(far, Here(), max_restarts=100) as (pool, launcher), far_session(pool, tmp_path) as session:
        late, other = sorted(launcher.processes, key=lambda process: process.node == "node at 127.0.0.1")
        ids = {worker.pid: worker.id for worker in pool.list_workers()}
        launcher.agent_of(late).is_cut = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_typed, session.execute, "write_on", {"folder": str(tmp_path)})
            await until(lambda: ticks(tmp_path, late))
            before = await session.info()
            os.kill(late.pid, signal.SIGSTOP)
            far.pull()
            began = trio.current_time()
            await until(lambda: pool.get_stats().ready < 2)
            assert trio.current_time() - began < silence_of(pool.config) + 10  # a busy machine is late
        assert await session.execute("write", {"value": -1}) == HERE
        after = await session.info()
        assert (before.worker_id, after.worker_id) == (ids[late.pid], ids[other.pid])
        assert after.epoch == before.epoch + 1
        assert psutil.pid_exists(late.pid)
        far.plug_in()
        done = ticks(tmp_path, late)
        os.kill(late.pid, signal.SIGCONT)
        await until(lambda: not psutil.pid_exists(late.pid))
        assert ticks(tmp_path, late) <= done + 5
        assert await session.get_variable_value("number") == -1
        assert (await session.info()).epoch == after.epoch


@asynccontextmanager
async def far_session(pool: Pool, folder: Path) -> AsyncIterator[SessionHandle]:
    """A session that has a variable, and that the far worker serves: the other one was busy when it began."""
    first, second = folder / "first", folder / "second"
    async with pool.session() as session:
        await session.register_variable("number", value=0)
        async with trio.open_nursery() as nursery:
            for calls in (first, second):
                calls.mkdir()
                nursery.start_soon(pool.execute, "linger", {"folder": str(calls)})
                await until(lambda calls=calls: [*calls.iterdir()])
                if [*calls.glob(f"{HERE}-*")]:
                    break
            if calls == second:
                (first / "end").touch()  # it has had the far worker
            assert await session.execute("write", {"value": 0}) != HERE
            (calls / "end").touch()
        yield session


async def test_a_tool_that_holds_the_gil_is_no_silent_worker(far: Machine) -> None:
    """It reads no ping for longer than a silent link lives, and nobody ends it."""
    async with open_far(far) as (pool, launcher):
        held = math.ceil(silence_of(pool.config) * 1.5)
        assert await pool.execute("hold_the_gil", {"seconds": held}) == "held"
        assert launcher.processes[0].pid == await pool.execute("pid")


async def test_a_host_whose_loop_stands_still_keeps_its_workers(far: Machine) -> None:
    """It sends no ping for longer than its worker waits, but its machine acknowledges the worker's probes."""
    async with open_far(far) as (pool, _):
        pid = await pool.execute("pid")
        time.sleep(2 * silence_of(pool.config))  # noqa: ASYNC251 - an application that blocks
        assert await pool.execute("pid") == pid
        assert pool.get_stats().crashed == 0
