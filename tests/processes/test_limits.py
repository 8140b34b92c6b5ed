"""What bounds a worker process: limits of the kernel, and the variables of numeric libraries."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

import snakepit_trio as snakepit
from snakepit_trio._config.limits import THREAD_VARIABLES
from tests.helpers.workers import TOOLS

MIB = 1024 * 1024


async def test_limits_hold_soft_and_hard() -> None:
    limits = snakepit.Limits(address_space=2048 * MIB, cpu_seconds=50, open_files=100, nice=7)
    async with snakepit.open_pool(TOOLS, workers=1, limits=limits) as pool:
        assert await pool.execute("limits") == {
            "address_space": [2048 * MIB] * 2,
            "cpu": [50, 51],
            "files": [100, 100],
            "nice": 7,
        }


async def test_without_limits_a_worker_has_those_of_its_host() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, limits=snakepit.Limits()) as pool:
        limits = await pool.execute("limits")
    assert limits["files"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert limits["address_space"] == list(resource.getrlimit(resource.RLIMIT_AS))
    assert limits["nice"] == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_memory_beyond_the_limit_is_an_error_of_the_tool(concurrency: int) -> None:
    limits = snakepit.Limits(address_space=1024 * MIB)
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, limits=limits) as pool:
        with pytest.raises(snakepit.ToolError) as caught:
            await pool.execute("make_bytes", {"size": 1024 * MIB})
        assert caught.value.type == "MemoryError"
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


async def test_too_many_open_files_are_an_error_of_the_tool() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, limits=snakepit.Limits(open_files=32)) as pool:
        with pytest.raises(snakepit.ToolError, match="Too many open files"):
            await pool.execute("open_files", {"n": 32})
        assert await pool.execute("add", {"a": 1}) == 2


async def test_cpu_time_used_up_costs_the_worker(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, limits=snakepit.Limits(cpu_seconds=2)) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="SIGXCPU") as caught:
            await pool.execute("burn", timeout=60)
        assert caught.value.signal is signal.SIGXCPU
        await pool.await_ready(20)
        assert await pool.execute("add", {"a": 1}) == 2


async def test_a_limit_that_cannot_be_set_ends_the_start() -> None:
    # Over what the kernel gives to anybody: fs.nr_open.
    too_many = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(TOOLS, workers=1, limits=snakepit.Limits(open_files=too_many)):
            pytest.fail("the block was entered")
    assert caught.value.exit_code == 1
    (line,) = caught.value.stderr_tail
    assert line in str(caught.value)
    assert line.startswith(f"the limit open_files={too_many} cannot be set: not allowed to raise maximum")
    assert "(the hard limit is " in line


async def test_a_worker_finds_the_variables_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "9")
    async with snakepit.open_pool(TOOLS, workers=1, threads=4, env={"BLIS_NUM_THREADS": "8"}) as pool:
        found = await pool.execute("variables")
    expected = {**dict.fromkeys(THREAD_VARIABLES, "4"), "MKL_NUM_THREADS": "9", "BLIS_NUM_THREADS": "8"}
    assert {name: found.get(name) for name in THREAD_VARIABLES} == expected
    async with snakepit.open_pool(TOOLS, workers=1, threads=None) as pool:
        assert "OMP_NUM_THREADS" not in await pool.execute("variables")
