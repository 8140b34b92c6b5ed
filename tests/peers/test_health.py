"""The health of a pool, while its workers come and go, as a probe with Google's code sees it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trio

import snakepit_trio as snakepit
from tests.peers.test_grpc_server import TOOLS, read_line, started

WATCH = Path(__file__).resolve().parents[1] / "helpers" / "google_peer" / "watch_health.py"


async def test_health_follows_the_workers() -> None:
    async with trio.open_nursery() as nursery:
        over = trio.Event()
        told: list[str] = []
        async with snakepit.open_pool(TOOLS, workers=1, bridge_server=True) as pool:
            await nursery.start(watch, pool.bridge_address, told, over)
            (worker,) = pool.list_workers()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            await until(told, ["SERVING", "NOT_SERVING", "SERVING"])
        with trio.fail_after(30):
            await over.wait()
        # Closing says so before the connection ends.
        assert told[3:] == ["NOT_SERVING", "UNAVAILABLE"]


async def watch(address: str, told: list[str], over: trio.Event, task_status: trio.TaskStatus[None]) -> None:
    async with started([sys.executable, str(WATCH), address]) as (process, line):
        told.append(line.decode().strip())
        task_status.started()
        assert process.stdout is not None
        while told[-1] != "UNAVAILABLE":
            told.append((await read_line(process.stdout)).decode().strip())
        over.set()


async def until(told: list[str], expected: list[str]) -> None:
    with trio.fail_after(60):
        while told != expected:
            await trio.sleep(0.01)
