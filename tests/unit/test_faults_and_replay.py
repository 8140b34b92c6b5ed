"""Faults of workers in memory do what they say; runs replay, and end; machines find what is wrong."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from snakepit_trio import testing
from snakepit_trio.testing.machines import PoolMachine, TrioMachine, initialize, invariant, rule


class Local(BaseAdapter):
    """`began` has the calls that have begun, in any worker."""

    began = 0

    @tool
    async def nap(self, seconds: float = 0) -> str:
        """Sleep."""
        Local.began += 1
        await asyncio.sleep(seconds)
        return "awake"

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)


@pytest.fixture(autouse=True)
def none_has_begun() -> None:
    Local.began = 0


def with_faults(test: Callable[[snakepit.Pool], Any], *faults: testing.Fault, **config: Any) -> testing.Faults:
    """Run a test with a pool of one worker to which these happen."""
    planned = testing.Faults(*faults)

    async def main() -> None:
        launcher = testing.InMemory(planned)
        async with snakepit.open_pool(Local, launcher=launcher, **{"workers": 1, "send_ahead": 0} | config) as pool:
            await test(pool)
        assert launcher.workers() == []

    testing.run(main, limit=1000)
    return planned


@pytest.mark.parametrize(("when", "begins"), [("before", 2), ("during", 1), ("after", 1)])
def test_a_worker_dies_before_during_or_after_a_call(when: Any, begins: int) -> None:
    async def test(pool: snakepit.Pool) -> None:
        if when == "before":
            assert await pool.execute("nap") == "awake"  # elsewhere
        else:
            with pytest.raises(snakepit.WorkerCrashed, match="SIGKILL"):
                await pool.execute("nap", {"seconds": 5.0})
        assert await pool.execute("nap") == "awake"
        assert (pool.get_stats().restarts, Local.began) == (1, begins if when == "before" else begins + 1)

    (happened,) = with_faults(test, testing.Die(tool="n?p", when=when, after=2)).happened
    assert (happened.worker, happened.at) == ("pool-1", "nap")


def test_a_death_in_the_middle_of_a_call_comes_when_it_was_ordered() -> None:
    async def test(pool: snakepit.Pool) -> None:
        began = trio.current_time()
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("nap", {"seconds": 50.0}, timeout=None)
        assert trio.current_time() - began == pytest.approx(7)
        assert await pool.execute("nap", {"seconds": 50.0}, timeout=None) == "awake"

    with_faults(test, testing.Die(after=7))


@pytest.mark.parametrize("direction", ["to_host", "to_worker"])
def test_a_silent_worker_is_replaced_when_it_is_idle(direction: Any) -> None:
    async def test(pool: snakepit.Pool) -> None:
        await trio.sleep(10)
        await pool.await_ready()
        assert pool.get_stats().restarts == 1
        assert await pool.execute("nap") == "awake"

    with_faults(test, testing.Silence(direction=direction, skip=1))


def test_a_silent_worker_that_is_busy_is_bounded_by_its_call() -> None:
    async def test(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("nap", {"seconds": 2.0}, timeout=60)
        await pool.await_ready()
        assert pool.get_stats().restarts == 1

    with_faults(test, testing.Silence(skip=1))


def test_a_slow_link_delays_and_keeps_the_order() -> None:
    async def test(pool: snakepit.Pool) -> None:
        began = trio.current_time()
        async with pool.stream("count", {"n": 50}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(50))
        assert trio.current_time() - began == pytest.approx(30)
        assert pool.get_stats().restarts == 0

    with_faults(test, testing.Slow(seconds=30, skip=1), ping_interval=100.0)


def test_a_link_may_bring_frame_by_frame() -> None:
    async def test(pool: snakepit.Pool) -> None:
        async with pool.stream("count", {"n": 50}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(50))
        assert pool.get_stats().restarts == 0

    assert with_faults(test, testing.Split(times=None, seconds=0.01)).happened


@pytest.mark.parametrize("fault", [testing.Cut(skip=1), testing.Cut(skip=1, at=0.0), testing.Garbage(skip=1)], ids=repr)
def test_a_link_that_breaks_costs_the_worker_and_its_call(fault: testing.BatchFault) -> None:
    async def test(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("nap")
        assert await pool.execute("nap") == "awake"
        assert (pool.get_stats().restarts, Local.began) == (1, 2)

    with_faults(test, fault, ping_interval=100.0)


@pytest.mark.parametrize("fault", [testing.Cut, testing.Garbage])
def test_a_call_that_never_arrived_runs_elsewhere(fault: type[testing.BatchFault]) -> None:
    async def test(pool: snakepit.Pool) -> None:
        assert await pool.execute("nap") == "awake"
        assert (pool.get_stats().restarts, Local.began) == (1, 1)

    with_faults(test, fault(skip=1, direction="to_worker"), ping_interval=100.0)


def test_what_came_before_a_link_ended_counts() -> None:
    async def test(pool: snakepit.Pool) -> None:
        assert await pool.execute("nap") == "awake"
        assert await pool.execute("nap") == "awake"
        assert pool.get_stats().restarts == 1

    with_faults(test, testing.Cut(skip=1, at=1.0), ping_interval=100.0)


@pytest.mark.parametrize("how", ["launch", "exit", "hang"])
def test_a_worker_that_does_not_start(how: Any) -> None:
    async def test(pool: snakepit.Pool) -> None:
        raise AssertionError("the pool has opened")

    with pytest.raises(snakepit.WorkerStartError) as caught:
        with_faults(test, testing.RefuseStart(how=how), start_timeout=5.0)
    assert {
        "launch": "no process can be started",
        "exit": "could not start: RuntimeError: a fault",
        "hang": "not ready within 5.0 s",
    }[how] in str(caught.value)


def test_a_restart_that_fails_some_times() -> None:
    async def test(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("nap", {"seconds": 1})
        assert await pool.execute("nap", timeout=1000) == "awake"
        assert pool.get_stats().restarts == 4

    with_faults(test, testing.Die(), testing.RefuseStart(skip=1, times=3))


def test_a_call_that_goes_on_costs_its_worker() -> None:
    async def test(pool: snakepit.Pool) -> None:
        for restarts in (0, 1):
            with trio.move_on_after(1):
                await pool.execute("nap", {"seconds": 10**6}, timeout=None)
            await pool.await_ready()
            assert pool.get_stats().restarts == restarts

    with_faults(test, testing.IgnoreCancel(skip=1))


def test_faults_that_cannot_be() -> None:
    with pytest.raises(snakepit.UsageError, match="is no fault"):
        testing.Faults("die")  # type: ignore[arg-type]
    with pytest.raises(snakepit.UsageError, match="when='never': give one of"):
        testing.Die(when="never")  # type: ignore[arg-type]
    with pytest.raises(snakepit.UsageError, match="at=2: give a number from 0 to 1"):
        testing.Cut(at=2)
    with pytest.raises(snakepit.UsageError, match="can be read as a batch"):
        testing.Garbage(data=b"\x12\x01a")


# Replays.


async def _race() -> str:
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abcdefgh":
            nursery.start_soon(note, name)
    return "".join(order)


def test_a_seed_decides_the_order_of_tasks() -> None:
    found = {seed: testing.run(_race, seed=seed) for seed in range(20)}
    assert len(set(found.values())) > 15
    assert all(testing.run(_race, seed=seed) == order for seed, order in found.items())


def test_a_run_that_hangs_ends_and_says_where() -> None:
    async def cancellable() -> None:
        await trio.sleep_forever()

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        testing.run(cancellable, limit=10)
    with pytest.raises(testing.Hanging, match=r"not ended after 20 s(.|\n)*test_faults_and_replay.py:\d+ in shielded"):
        testing.run(shielded, limit=10)


# Machines.


def find(machine: type[TrioMachine], *, shrink: bool = False) -> None:
    """Run a machine as a test does."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    settings_of_it = settings(max_examples=20, stateful_step_count=10, deadline=None, database=None, phases=phases)
    run_state_machine_as_test(machine, settings=settings_of_it)


class Napping(PoolMachine):
    """Naps end when they should. `bound` is when."""

    adapter = Local
    pool_settings = {"workers": 1}  # noqa: RUF012 - hypothesis' classes are not dataclasses
    bound = 100.0
    seen: list[str] = []  # noqa: RUF012

    @initialize()
    async def note(self) -> None:
        self.began = trio.current_time()

    @rule(seconds=st.floats(0, 3))
    async def nap(self, seconds: float) -> None:
        assert await self.pool.execute("nap", {"seconds": seconds}) == "awake"

    @rule()
    def plain(self) -> None:
        self.nursery.start_soon(trio.sleep, 1)

    @invariant()
    async def in_time(self) -> None:
        assert trio.current_time() - self.began < self.bound, "too late"

    async def closing(self) -> None:
        self.seen.append("closing")
        assert self.pool.get_stats().restarts == 0

    async def closed(self) -> None:
        self.seen.append("closed")


def test_a_machine_that_finds_nothing() -> None:
    Napping.seen.clear()
    find(Napping)
    assert Napping.seen[:4] == ["closing", "closed", "closing", "closed"]


def test_a_machine_that_finds_something_shrinks_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Impatient(Napping):
        bound = 3.5

    with pytest.raises(AssertionError, match="too late") as caught:
        find(Impatient, shrink=True)
    steps = "\n".join(caught.value.__notes__)
    assert steps.count("state.nap(") == 2, "the shortest story: no more than two naps"


def test_what_a_background_task_raises_fails_the_machine() -> None:
    class Failing(Napping):
        @rule()
        async def start(self) -> None:
            self.nursery.start_soon(self.fail)

        async def fail(self) -> None:
            raise KeyError("in the background")

    with pytest.raises((KeyError, ExceptionGroup)) as caught:  # a group if several had been started
        find(Failing)
    assert "KeyError: 'in the background'" in "".join(traceback.format_exception(caught.value))


def test_a_step_that_hangs_fails_the_machine() -> None:
    class Hanging(Napping):
        @rule()
        async def hang(self) -> None:
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        find(Hanging)
