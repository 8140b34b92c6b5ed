"""The host's side of a worker on another machine, with a fake agent: whatever the agent does, nothing hangs or lies."""

from __future__ import annotations

import math
import signal
import socket
from typing import Any, Final, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

import snakepit_trio as snakepit
from bridge_py.link.remote import RemoteSettings
from bridge_py.link.silence import prepare
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio.launchers.agent import Ended, Look
from snakepit_trio.launchers.authority import Authority
from snakepit_trio.launchers.remote import AgentLost, RemoteProcess, check_remote, order_of, silence_of

CONFIG: Final = snakepit.PoolConfig(adapter="tests.helpers.remote_tools:RemoteTools", ping_interval=2.0)
ENDED: Final = Ended(-9, 7, "it says", was_killed_for_memory=True)
PATIENCE: Final = 2.0 + 1.5 * silence_of(CONFIG)


class FakeAgent:
    """It does what a test wants, and notes what it is told."""

    node = "far away"
    pid = 5
    address = ("10.1.2.3", 4)

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.told: list[Any] = []
        self.look_is = Look(3, 1000, is_stopped=True)
        self.over = trio.Event()
        self.signals_go = trio.Event()

    async def _or_fault(self, what: str) -> None:
        fault = self.faults.get(what)
        if fault == "hangs":
            await trio.sleep_forever()
        if fault is not None:
            raise fault

    async def signal(self, number: int) -> None:
        await self._or_fault("signal")
        await self.signals_go.wait()
        self.told.append(number)
        if number == signal.SIGKILL:
            self.over.set()

    async def wait(self) -> Ended:
        await self._or_fault("wait")
        await self.over.wait()
        return ENDED

    async def look(self) -> Look:
        await self._or_fault("look")
        return self.look_is

    async def read_output(self, *, is_stderr: bool) -> bytes:
        await self._or_fault("read_output")
        return b"stderr\n" if is_stderr else b"stdout\n"

    async def release(self) -> None:
        self.told.append("release")
        await self._or_fault("release")


def process_of(agent: FakeAgent, *, has_linked: bool = True) -> RemoteProcess:
    made = Authority().issue("default-1")
    process = RemoteProcess(CONFIG, order_of(CONFIG, "default-1", 0, made), made, agent, cast("AsyncioLoop", None))
    process._has_linked = has_linked
    return process


async def test_the_agent_tells_the_end(autojump_clock: MockClock) -> None:
    agent = FakeAgent()
    agent.signals_go.set()
    process = process_of(agent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait)
        nursery.start_soon(process.wait)  # several may wait
        await trio.sleep(1)
        assert (process.last_started, process.resident_bytes(), process.is_stopped()) == (3, 1000, True)
        process.signal_group(signal.SIGTERM)
        process.signal_group(signal.SIGKILL)
    assert agent.told == [signal.SIGTERM, signal.SIGKILL]
    assert (process.exit_code, process.last_started, process.last_words) == (-9, 7, "it says")
    assert process.was_killed_for_memory()
    assert not process.is_lost
    await process.wait()


async def test_signals_survive_a_wait_that_is_cancelled(autojump_clock: MockClock) -> None:
    agent = FakeAgent()
    process = process_of(agent)
    process.signal_group(signal.SIGTERM)
    with trio.move_on_after(1):
        await process.wait()
    assert agent.told == []
    agent.signals_go.set()
    process.signal_group(signal.SIGKILL)
    with trio.fail_after(1):
        await process.wait()
    assert agent.told == [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize("has_linked", [True, False])
@pytest.mark.parametrize("fault", [AgentLost("its machine is gone"), RuntimeError("a fault of the launcher's")])
async def test_a_lost_agent_costs_the_patience_of_its_worker(
    fault: Exception, has_linked: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    process = process_of(FakeAgent(wait=fault, look=fault, signal=fault), has_linked=has_linked)
    began = trio.current_time()
    await process.wait()
    assert trio.current_time() - began == pytest.approx(0.5 + (PATIENCE if has_linked else 2.0))
    assert process.is_lost
    assert (process.exit_code, process.last_started) == (None, None)
    assert "nobody has told how worker process 5 on far away has ended" in caplog.text


async def test_an_agent_that_hangs_is_lost_after_sigkill(autojump_clock: MockClock) -> None:
    process = process_of(FakeAgent(wait="hangs", look="hangs", signal="hangs"))
    with trio.move_on_after(1000):
        await process.wait()
    assert not process.is_lost  # as long as the link lives, the worker does
    process.signal_group(signal.SIGTERM)
    process.signal_group(signal.SIGKILL)
    with trio.fail_after(process.reap_seconds):
        await process.wait()
    assert process.is_lost


async def test_an_agent_that_hangs_is_lost_when_the_link_is(autojump_clock: MockClock) -> None:
    process = process_of(FakeAgent(wait="hangs", look="hangs", signal="hangs"))
    process._link_ends.set()
    with trio.fail_after(process.reap_seconds):
        await process.wait()
    assert process.is_lost


@pytest.mark.parametrize("fault", ["hangs", RuntimeError("a fault of the launcher's"), AgentLost()])
async def test_a_release_is_bounded_and_raises_nothing(fault: Any, autojump_clock: MockClock) -> None:
    agent = FakeAgent(release=fault)
    with trio.CancelScope() as scope:
        scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(6):
            await process_of(agent).release()
    assert agent.told == ["release"]


async def test_output_comes_by_the_agent_and_ends_with_it(autojump_clock: MockClock) -> None:
    agent = FakeAgent()
    streams = [output.stream for output in process_of(agent).outputs]
    assert [await stream.receive_some() for stream in streams] == [b"stdout\n", b"stderr\n"]
    agent.faults = {"read_output": AgentLost()}
    assert [await stream.receive_some() for stream in streams] == [b"", b""]
    for stream in streams:
        await stream.aclose()


def test_what_cannot_be_on_another_machine() -> None:
    with pytest.raises(snakepit.UsageError, match="need an adapter of a Python class"):
        check_remote(snakepit.PoolConfig(adapter=snakepit.StdioJson("worker.py")))
    with pytest.raises(snakepit.UsageError, match="give debug=False"):
        check_remote(snakepit.PoolConfig(adapter="tests.helpers.remote_tools:RemoteTools", debug=True))


@pytest.mark.parametrize("name", ["start_timeout", "ping_interval", "ping_timeout"])
@pytest.mark.parametrize("seconds", [1e5, 1e12, math.inf])
def test_times_without_bounds_are_cut_to_what_a_worker_and_a_kernel_can_read(name: str, seconds: float) -> None:
    made = Authority().issue("default-1")
    times: dict[str, Any] = {name: seconds}
    config = snakepit.PoolConfig(adapter="tests.helpers.remote_tools:RemoteTools", **times)
    settings = msgspec.json.decode(order_of(config, "default-1", 0, made).link, type=RemoteSettings)
    assert silence_of(config) == (4.0 if name == "start_timeout" else 600.0)
    assert settings.silence == 1.5 * silence_of(config)
    assert settings.silence < settings.frozen < math.inf
    assert settings.first_host < math.inf
    with socket.socket() as connection:
        prepare(connection, settings.silence)


def test_an_order_says_what_differs_for_its_worker() -> None:
    config = snakepit.PoolConfig(
        adapter="tests.helpers.remote_tools:RemoteTools",
        env={"A": "1", "B": "1"},
        per_worker=lambda number: snakepit.WorkerOptions(env={"B": str(number)}, cpus=[0]),
        cwd="/srv",
        umask=0o077,
        threads=4,
    )
    made = Authority().issue("default-3")
    order, other = (order_of(config, "default-3", 3, made) for _ in range(2))
    assert order.variables == {"A": "1", "B": "3"}
    assert (order.folder, order.umask, order.cpus, order.threads, order.python) == ("/srv", 0o077, (0,), 1, None)
    assert order.secret != other.secret
    assert order.secret not in repr(order)
