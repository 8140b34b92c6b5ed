"""What stands beside a worker on another machine: with real workers, on this one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes.guardian import start_ticks
from snakepit_trio.launchers.agent import Order, WorkerAgent
from snakepit_trio.launchers.authority import Authority, GivenCertificates
from snakepit_trio.launchers.remote import order_of
from tests.helpers.remote_launcher import Remote
from tests.unit.test_authority import given

TOOLS: Final = "tests.helpers.remote_tools:RemoteTools"


def order(**changes: Any) -> Order:
    config = snakepit.PoolConfig(adapter=TOOLS, start_timeout=60.0)
    return attrs.evolve(order_of(config, "default-1", 0, Authority().issue("default-1")), **changes)


@contextmanager
def started(**changes: Any) -> Iterator[WorkerAgent]:
    agent = WorkerAgent(order(**changes), "127.0.0.1")
    try:
        yield agent
    finally:
        agent.close()


def test_it_starts_looks_signals_and_waits() -> None:
    with started() as agent:
        assert agent.wait(0.0) is None
        assert agent.look().resident_bytes > 0
        agent.signal(signal.SIGKILL)
        ended = agent.wait(30)
        assert ended is not None
        assert (ended.exit_code, ended.last_started, ended.was_killed_for_memory) == (-9, 0, False)
        assert agent.wait(0.0) == ended
        assert agent.look().resident_bytes == 0
        assert not psutil.pid_exists(agent.pid)


def test_a_worker_that_no_host_comes_to_ends_itself() -> None:
    link = order().link.replace(b'"first_host":60.0', b'"first_host":0.5')
    with started(link=link) as agent:
        ended = agent.wait(60)
        assert ended is not None
        assert ended.exit_code == -signal.SIGKILL
        assert b"no host has come within 0.5 s" in (agent.read_output(1.0, is_stderr=True) or b"")
        assert agent.read_output(1.0, is_stderr=True) == b""


def test_a_worker_that_cannot_start_says_why() -> None:
    with started(arguments=("--adapter", "tests.helpers.nowhere:Tools")) as agent:
        ended = agent.wait(60)
        assert ended is not None
        assert ended.exit_code == 1
        assert "No module named 'tests.helpers.nowhere'" in ended.last_words


@pytest.mark.parametrize("changes", [{"python": "/nowhere/python"}, {"folder": "/nowhere"}])
def test_what_cannot_be_run(changes: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        WorkerAgent(order(**changes), "127.0.0.1")


def test_an_address_of_another_machine_is_no_place_to_listen() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        WorkerAgent(order(), "192.0.2.1")


def test_nothing_is_left_when_the_keeper_is_killed() -> None:
    with started() as agent:
        os.kill(agent._process.pid, signal.SIGKILL)
        ended = agent.wait(30)
        assert ended is not None
        assert ended.exit_code == -signal.SIGKILL
        assert start_ticks(agent.pid) is None  # its parent, whoever that is now, may not have reaped it


async def test_when_the_agent_is_killed_the_worker_ends_and_another_takes_its_place() -> None:
    launcher = Remote()
    async with snakepit.open_pool(TOOLS, workers=1, launcher=launcher, start_timeout=60, ping_interval=0.2) as pool:
        pid = await pool.execute("pid")
        launcher.agents[0].process.kill()
        with trio.fail_after(60):
            while pool.get_stats().crashed + pool.get_stats().restarts < 1:
                await trio.sleep(0.02)
            assert await pool.execute("pid") != pid
        assert not psutil.pid_exists(pid)
    assert launcher.processes[0].is_lost


async def test_a_pool_goes_on_when_its_authority_is_renewed() -> None:
    start = datetime.now(UTC)
    times = [start - timedelta(hours=13)]
    authority = Authority(certificate_lifetime=timedelta(hours=14), now=lambda: times[0])
    launcher = Remote(issuer=authority)
    async with snakepit.open_pool(TOOLS, workers=1, launcher=launcher, start_timeout=60) as pool:
        pid = await pool.execute("pid")
        times[0] = start
        assert await pool.execute("pid") == pid
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(60):
            while (other := await _pid_or_none(pool)) in (None, pid):
                await trio.sleep(0.02)
        assert other is not None
    first, second = (json.loads(order.link)["tls"]["ca"] for order in launcher.orders)
    assert first != second


async def _pid_or_none(pool: snakepit.Pool) -> int | None:
    try:
        found: int = await pool.execute("pid")
    except snakepit.WorkerCrashed:
        return None
    return found


async def test_a_pool_with_given_certificates(tmp_path: Path) -> None:
    launcher = Remote(issuer=GivenCertificates(**given(tmp_path, as_files=True)))
    async with snakepit.open_pool(TOOLS, workers=2, launcher=launcher, start_timeout=60) as pool:
        assert await pool.execute("echo", {"value": "x"}) == "x"
