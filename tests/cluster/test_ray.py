"""Pools on a Ray cluster: calls, sessions, streams, what can be changed while they run, and their ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.launchers import Ray

from .conftest import POOL, RayCluster, actors, all_gone, of_pool, processes
from .ray_tools import Tools, double

pytestmark = pytest.mark.slow
_FAR = """
import os
from bridge_py import BaseAdapter, tool

class Far(BaseAdapter):
    @tool
    def where(self) -> tuple[str, str]:
        return os.getcwd(), os.environ["OF_RAY"]
"""


@asynccontextmanager
async def pool_on(
    cluster: RayCluster, adapter: Any = Tools, *, runtime_env: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[snakepit.Pool]:
    """A pool on the cluster. Nothing of it is left afterwards."""
    made = Ray(cluster.address, runtime_env=runtime_env)
    with trio.fail_after(120):
        async with snakepit.open_pool(adapter, name=POOL, launcher=made, start_timeout=60, **settings) as pool:
            yield pool
    assert all_gone()


async def test_eight_workers_on_three_nodes_serve_calls_streams_and_sessions(cluster: RayCluster) -> None:
    async with pool_on(cluster, workers=8, affinity="strict") as pool:
        workers = pool.list_workers()
        nodes = {worker.node for worker in workers}
        assert len(workers) == 8
        assert len(nodes) == 3
        assert None not in nodes
        while any((worker.resident_bytes or 0) < 1e6 for worker in pool.list_workers()):
            await trio.sleep(0.05)  # the last look was at a process that had hardly begun
        async with pool.map(double, range(40)) as results:
            assert sorted([result async for result in results]) == [2 * number for number in range(40)]
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        async with pool.stream("count", {"n": 500}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(500))
        async with pool.session("sunny") as session:
            pids = {await session.execute("pid") for _ in range(20)}
        assert len(pids) == 1
        assert pids <= {worker.pid for worker in workers}
        assert {process.pid for process in of_pool()} >= {worker.pid for worker in workers}


async def test_large_buffers_host_tools_lambdas_and_logs_travel(
    cluster: RayCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with pool_on(cluster, workers=1, pickle=True, env={"FROM_HOST": "yes"}, options={"word": "hi"}) as pool:
        array = np.arange(4_000_000, dtype="f8")
        assert np.array_equal(await pool.execute("increase", {"value": array}), array + 1)
        factor = 3
        assert await pool.run(lambda x: x * factor, 14) == 42
        pool.expose(lambda name: f"hello {name}", name="greet")
        assert await pool.execute("ask", {"name": "node"}) == "hello node"
        assert await pool.execute("surroundings") == ["yes", "hi", 0]
        await pool.execute("say", {"text": "printed on a node"})
        with trio.fail_after(30):
            while "printed on a node" not in caplog.text:
                await trio.sleep(0.01)


async def test_cancelled_and_late_calls_are_over(cluster: RayCluster) -> None:
    async with pool_on(cluster, workers=1) as pool:
        pid = await pool.execute("pid")
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("wait", {"seconds": 1000}, timeout=0.5)
        with trio.move_on_after(0.5):
            await pool.execute("wait_async", {"seconds": 1000})
        assert await pool.execute("pid") == pid  # they have cost no worker
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("resist", timeout=0.5)
        assert await pool.execute("pid") != pid


async def test_resize_spares_recycling_and_reload(cluster: RayCluster) -> None:
    async with pool_on(cluster, workers=1, spares=1) as pool:
        await pool.resize(3)
        assert len({worker.pid for worker in pool.list_workers()}) == 4
        before = {worker.pid for worker in pool.list_workers()}
        await pool.reload()
        assert not before & {worker.pid for worker in pool.list_workers()}
        await pool.resize(1)
        assert len(pool.list_workers()) == 2
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3


async def test_load_has_ray_start_more_workers(cluster: RayCluster) -> None:
    async with pool_on(cluster, workers=(1, 3), scale_up_after=0.1, idle_timeout=0.5) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pool.execute, "wait", {"seconds": 1000})
            while len([worker for worker in pool.list_workers() if worker.state is snakepit.WorkerState.BUSY]) < 3:
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        while len(pool.list_workers()) > 1:
            await trio.sleep(0.05)


async def test_a_working_dir_takes_the_code_to_the_nodes(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "far_tools.py").write_text(_FAR)
    environment = {"working_dir": str(tmp_path), "env_vars": {"OF_RAY": "set"}}
    async with pool_on(cluster, "far_tools:Far", runtime_env=environment, workers=1) as pool:
        folder, variable = await pool.execute("where")
    assert folder != str(tmp_path)
    assert variable == "set"


async def test_workers_differ_and_start_functions_run(cluster: RayCluster) -> None:
    def differ(number: int) -> snakepit.WorkerOptions:
        return snakepit.WorkerOptions(env={"FROM_HOST": f"{number}"}, options={"word": f"w{number}"})

    async with pool_on(cluster, workers=2, per_worker=differ, initializer=double, initargs=(1,)) as pool:
        found = {tuple(await pool.execute("surroundings")) for _ in range(20)}
    assert found <= {("0", "w0", 0), ("1", "w1", 1)}


async def test_a_worker_that_cannot_start_says_why(cluster: RayCluster) -> None:
    with pytest.raises(snakepit.WorkerStartError, match="there is no fuel"):
        async with pool_on(cluster, workers=1, options={"word": "broken"}):
            pass
    assert all_gone()


async def test_resources_that_never_come(cluster: RayCluster) -> None:
    needs = {"CPU": 1, "warp_drive": 2}
    began = trio.current_time()
    with pytest.raises(snakepit.WorkerStartError) as failed:
        async with snakepit.open_pool(
            Tools, name=POOL, launcher=Ray(cluster.address, resources=needs), start_timeout=3
        ):
            pass
    assert trio.current_time() - began < 30
    assert "It needs CPU: 1, warp_drive: 2; the cluster has CPU: 12 (" in str(failed.value)
    assert "free), no warp_drive. Add nodes" in str(failed.value)
    assert all_gone()


async def test_a_pool_that_is_cancelled_while_it_opens_leaves_no_actor(cluster: RayCluster) -> None:
    with trio.move_on_after(2):
        async with snakepit.open_pool(Tools, name=POOL, workers=4, launcher=Ray(cluster.address)):
            pass
    assert all_gone()
    assert not processes("launchers/ray_process.py")


async def test_what_cannot_be_is_refused(cluster: RayCluster) -> None:
    made = Ray(cluster.address)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"template": True}, "template= is for processes of this machine"),
        ({"debug": True}, "debug"),
        ({"per_worker": lambda number: snakepit.WorkerOptions(cpus={0})}, "per_worker.0.: Ray chooses"),
        ({"adapter": snakepit.StdioJson(__file__)}, "need an adapter of a Python class"),
    ]
    for settings, why in refused:
        with pytest.raises(snakepit.UsageError, match=why):
            async with snakepit.open_pool(**{"adapter": Tools, "launcher": made, "workers": 1, **settings}):
                pass


async def test_code_that_the_nodes_lack_is_named(cluster: RayCluster) -> None:
    class_ = snakepit.GrpcPython("nowhere_to_be_found:Tools")
    with pytest.raises(snakepit.WorkerStartError, match="No module named 'nowhere_to_be_found'"):
        async with snakepit.open_pool(class_, name=POOL, workers=1, launcher=Ray(cluster.address)):
            pass
    assert not actors() or all_gone()
