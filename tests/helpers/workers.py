"""Real workers, as tests open and kill them."""

from __future__ import annotations

import os
import signal

import psutil
import trio

import snakepit_trio as snakepit

TOOLS = "tests.helpers.tools:Tools"


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def kill_worker(pool: snakepit.Pool, pid: int) -> None:
    """Kill a worker, and wait until its end has been noticed and the pool is whole again."""
    restarts = pool.get_stats().restarts
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(60):
        while pool.get_stats().restarts == restarts:
            await pool._dispatcher.workers_changed.wait()
    await pool.await_ready()
