"""How a worker's death is told: exit codes, signals, our own kills, and the kernel's when memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import oom
from tests.helpers.kernel_counts import EVENTS, make_proc
from tests.helpers.workers import TOOLS


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a process 7."""
    return make_proc(tmp_path)


# Deaths of workers.


@pytest.fixture
def count(proc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A counter in place of the kernel's, for every worker that starts."""
    monkeypatch.setattr(oom, "find_counter", lambda _pid, _proc: proc / "memory.events")
    return proc / "memory.events"


async def test_a_kill_that_the_kernel_counted_is_named(count: Path, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        (worker,) = pool.list_workers()
        assert worker.pid is not None
        count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.WorkerCrashed, match="was killed by the kernel: out of memory") as caught:
            await pool.execute("die_by", {"number": signal.SIGKILL})
        assert caught.value.signal is signal.SIGKILL
        assert caught.value.stderr_tail == ("about to die",)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_other_kills_are_not(number: int, count: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        if number == signal.SIGTERM:  # not how the kernel kills
            count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.WorkerCrashed, match="died") as caught:
            await pool.execute("die_by", {"number": number})
        assert caught.value.signal == number


async def test_our_own_kills_are_not(count: Path, log: Path) -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, concurrency=2, cancel_grace=0.2) as pool,
        trio.open_nursery() as nursery,
    ):

        async def other() -> None:
            with pytest.raises(snakepit.WorkerCrashed, match="'stubborn' did not end within 0.2 s") as caught:
                await pool.execute("print_and_wait")
            assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGKILL, signal.SIGKILL)
            assert caught.value.stderr_tail == ("waiting",)

        nursery.start_soon(other)
        while pool.get_stats().running < 1:
            await trio.sleep(0.005)
        count.write_text(EVENTS.format(4))
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("stubborn", {"path": str(log)}, timeout=0.3)


async def test_a_start_that_ends_by_a_signal() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="ended before it was ready.*SIGTERM") as caught:
        async with snakepit.open_pool("tests.helpers.tools:DiesAtStart", workers=1):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGTERM, signal.SIGTERM)
    assert caught.value.stderr_tail == ("about to die",)


async def test_a_start_that_we_end() -> None:
    with pytest.raises(snakepit.WorkerStartError, match="was not ready") as caught:
        async with snakepit.open_pool("tests.helpers.start_tools:SlowStart", workers=1, start_timeout=0.5):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal) == (-signal.SIGKILL, signal.SIGKILL)


async def test_a_start_without_a_process() -> None:
    with pytest.raises(snakepit.WorkerStartError) as caught:
        async with snakepit.open_pool(TOOLS, workers=1, python="/no/such/python"):
            pytest.fail("the block was entered")
    assert (caught.value.exit_code, caught.value.signal, caught.value.stderr_tail) == (None, None, ())


async def test_an_exit_is_no_signal() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("exit", {"code": 7})
    assert (caught.value.exit_code, caught.value.signal) == (7, None)
    assert caught.value.stderr_tail == ("about to exit",)


async def test_a_signal_without_a_name() -> None:
    number = signal.SIGRTMIN + 3
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match=f"signal {number}, unknown") as caught:
            await pool.execute("die_by", {"number": number})
    assert caught.value.signal == number


@pytest.mark.skipif(
    "SNAKEPIT_TEST_GROUP" not in os.environ,
    reason="SNAKEPIT_TEST_GROUP names no memory-limited control group in which a worker may be killed",
)
async def test_a_real_kill_by_the_kernel(log: Path) -> None:
    """Memory really runs out, for the worker alone: it moves itself into a group with a limit of its own.

    Which group that may be is for the owner of the machine to say, so by default this is skipped. As root, with
    version 2: `mkdir /sys/fs/cgroup/oom; echo 256M >/sys/fs/cgroup/oom/memory.max; echo 0 >.../memory.swap.max`.
    """
    group = {"TEST_GROUP": os.environ["SNAKEPIT_TEST_GROUP"]}
    async with snakepit.open_pool("tests.helpers.tools:InGroup", workers=1, env=group) as pool:
        with pytest.raises(snakepit.WorkerCrashed, match="was killed by the kernel: out of memory"):
            await pool.execute("devour", {"path": str(log)}, timeout=60)
        await pool.await_ready(20)
        with pytest.raises(snakepit.WorkerCrashed, match="died"):
            await pool.execute("die_by", {"number": signal.SIGKILL})
