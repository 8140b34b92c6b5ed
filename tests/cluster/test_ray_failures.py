"""Pools on a Ray cluster when something dies: a node, an actor, a worker, the process that joins Ray, the host."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.launchers import Ray

from .conftest import POOL, ROOT, RayCluster, actors, all_gone, kill, of_pool, processes
from .ray_tools import Tools
from .test_ray import pool_on

pytestmark = pytest.mark.slow
_CALLS = 200


async def test_a_node_dies_under_load(cluster: RayCluster) -> None:
    """Each call ends: with its result, maybe of a second try, or with a typed error. The pool is complete again."""
    outcomes: dict[int, object] = {}

    async def call(pool: snakepit.Pool, number: int, tool: str) -> None:
        try:
            outcomes[number] = await pool.execute(tool, {"number": number}, timeout=240)
        except Exception as error:
            outcomes[number] = error

    async with pool_on(cluster, workers=8, ping_interval=0.5, ping_timeout=0.5) as pool:
        spawned = [psutil.Process(await pool.execute("spawn")) for _ in range(16)]
        by_node: dict[str | None, int] = {}
        for worker in pool.list_workers():
            by_node[worker.node] = by_node.get(worker.node, 0) + 1
        victim = max(by_node, key=lambda node: by_node[node])
        assert victim is not None
        async with trio.open_nursery() as nursery:
            for number in range(_CALLS):
                nursery.start_soon(call, pool, number, "slow_double" if number % 2 else "once_double")
            await trio.sleep(0.2)
            await trio.to_thread.run_sync(cluster.tell, "kill", victim.partition("/")[2])
        failed = {number: error for number, error in outcomes.items() if isinstance(error, Exception)}
        assert all(outcome == 2 * number for number, outcome in outcomes.items() if number not in failed)
        assert len(outcomes) == _CALLS
        assert all(isinstance(error, snakepit.WorkerCrashed) for error in failed.values()), failed
        assert not any(number % 2 for number in failed)  # what is idempotent was tried again
        assert len(failed) <= by_node[victim]
        await trio.to_thread.run_sync(cluster.tell, "add")
        with trio.fail_after(60):
            await pool.await_ready(timeout=240)
        workers = pool.list_workers()
        assert len(workers) == 8
        assert victim not in {worker.node for worker in workers}
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        ours = {process.pid for process in of_pool() if "keeper.py" not in " ".join(process.cmdline())}
        assert ours == {worker.pid for worker in workers}
    for process in spawned:
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _replaced(pool: snakepit.Pool, pid: int) -> None:
    with trio.fail_after(60):
        while any(worker.pid == pid for worker in pool.list_workers()):
            await trio.sleep(0.02)
        await pool.await_ready(timeout=240)


@pytest.mark.parametrize("what", ["worker", "actor", "keeper"])
async def test_what_stands_beside_a_call_is_killed(cluster: RayCluster, what: str) -> None:
    async with pool_on(cluster, workers=1) as pool:
        spawned = psutil.Process(await pool.execute("spawn"))
        pid = await pool.execute("pid")
        victims = {"worker": [psutil.Process(pid)], "actor": actors(), "keeper": processes("keeper.py", f"{POOL}-")}
        with pytest.RaisesGroup(snakepit.WorkerCrashed):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.execute, "wait", {"seconds": 1000})
                while not pool.list_calls() or pool.list_calls()[0].pid is None:
                    await trio.sleep(0.01)
                for victim in victims[what]:
                    kill(victim.pid)
        await _replaced(pool, pid)
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        with trio.fail_after(30):
            while spawned.is_running() and spawned.status() != psutil.STATUS_ZOMBIE:
                await trio.sleep(0.02)


async def test_the_process_that_joins_ray_is_killed(cluster: RayCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(cluster, workers=2) as pool:
        pids = {worker.pid for worker in pool.list_workers()}
        (driver,) = [each for each in processes("ray_process.py") if "keeper.py" not in " ".join(each.cmdline())]
        kill(driver.pid)
        with trio.fail_after(60):
            while pids & {worker.pid for worker in pool.list_workers()}:
                await trio.sleep(0.02)
            await pool.await_ready(timeout=240)
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert "the process that speaks with Ray has ended" in caplog.text


def _host(cluster: RayCluster) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cluster.ray_host", cluster.address, POOL]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_host_that_is_killed_leaves_nothing_on_the_cluster(cluster: RayCluster) -> None:
    host = _host(cluster)
    assert host.stdout is not None
    spawned = psutil.Process(int(host.stdout.readline()))
    assert len(actors()) == 3
    host.kill()
    host.communicate()
    assert all_gone()
    deadline = time.monotonic() + 10
    while processes("ray_process.py") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes("ray_process.py")
    assert not spawned.is_running() or spawned.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_ends_a_host_in_order_and_ray_says_nothing(cluster: RayCluster) -> None:
    host = _host(cluster)
    assert host.stdout is not None
    assert host.stdout.readline()
    host.send_signal(signal.SIGINT)
    _, errors = host.communicate(timeout=240)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "raylet" not in errors
    assert all_gone()


async def _refused(address: str, **settings: Any) -> str:
    with trio.fail_after(60), pytest.raises(snakepit.UsageError) as refused:
        async with snakepit.open_pool(Tools, workers=1, launcher=Ray(address), **settings):
            pass
    return str(refused.value)


async def test_there_is_no_cluster(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await _refused("127.0.0.1:1", start_timeout=3)
    assert found.startswith("no Ray cluster can be joined at '127.0.0.1:1'")
    assert "Start one by `ray start --head`" in found
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    async with snakepit.open_pool(Tools, name=POOL, workers=1, launcher=Ray(), start_timeout=240) as pool:
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
    assert all_gone()
