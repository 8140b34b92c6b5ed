"""Rules of launchers: how their pools begin, change and end."""

from __future__ import annotations

from typing import Final

import trio

from snakepit_trio._config.policies import RecyclePolicy

from .check import Rules, equal, that
from .launchers import Launchers, Running, Watched

rules: Rules[Launchers] = Rules()

_SUM: Final = {"a": 2, "b": 3}


@rules
async def workers_end_in_order(given: Launchers) -> None:
    """After a goodbye, workers end with exit code 0, are reaped and released, and their site is closed."""
    async with given.watched() as watched:
        async with given.pool_of(watched, workers=2) as pool:
            equal([process.exit_code for process in watched.processes], [None] * 2, "exit_code while they live")
            await pool.execute("add", _SUM)
        equal([process.exit_code for process in watched.processes], [0, 0], "exit_code after the pool")
        watched.check_nothing_is_left()


@rules
async def nothing_is_left_of_calls_that_run(given: Launchers) -> None:
    """A pool that ends while calls run stops these calls."""
    async with given.watched() as watched:
        async with trio.open_nursery() as nursery:
            async with given.pool_of(watched, workers=2) as pool:
                running = Running(pool, "wait")
                nursery.start_soon(running)
                await running.begun.until_all()
            await running.over("the end of its pool")
        that(running.error is not None, "a call that runs when its pool ends: expected an error, but it returned")
        watched.check_nothing_is_left()


@rules
async def one_worker_can_be_stopped(given: Launchers) -> None:
    """A worker that is stopped ends in order, and its exit code stays known. The other workers live on."""
    async with given.watched() as watched:
        async with given.pool_of(watched, workers=2) as pool:
            gone, *_ = pool.list_workers()
            await pool.workers.stop(gone.id)
            codes = {process.pid: process.exit_code for process in watched.processes}
            equal(codes.pop(gone.pid or 0), 0, "exit_code of the worker that was stopped")
            equal(list(codes.values()), [None], "exit_code of the other one")
            equal(await pool.execute("add", _SUM), 5, "add, in the other one")
        watched.check_nothing_is_left()


@rules
async def a_pool_that_is_cancelled_while_it_opens_leaves_nothing(given: Launchers) -> None:
    """If a pool is cancelled while it opens, workers that were launched and not ready are ended and released."""
    async with given.watched() as watched:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_open_for_ever, given, watched)
            await watched.until_launched()
            nursery.cancel_scope.cancel()
        watched.check_nothing_is_left()


@rules
async def workers_are_recycled(given: Launchers) -> None:
    """A worker that has served its calls is replaced by a fresh one. No call fails, and the worker ends in order."""
    async with given.watched() as watched:
        async with given.pool_of(watched, recycle=RecyclePolicy(calls=3)) as pool:
            for number in range(10):
                equal(await pool.execute("add", {"a": number, "b": 1}), number + 1, "add, while workers are recycled")
            with trio.move_on_after(10):
                while pool.get_stats().recycled < 1:  # noqa: ASYNC110 - counts tell nobody
                    await trio.sleep(0.01)
            that(pool.get_stats().recycled >= 1, "expected that a worker is recycled after 3 calls, but none was")
        codes = [process.exit_code for process in watched.processes if process.last_started]
        equal(codes, [0] * len(codes), "exit_code of those that had served")
        watched.check_nothing_is_left()


@rules
async def a_pool_can_be_resized(given: Launchers) -> None:
    """Resizing adds and removes workers. A removed worker has ended when it is no longer listed."""
    async with given.watched() as watched:
        async with given.pool_of(watched) as pool:
            await pool.resize(3)
            pids = [worker.pid for worker in pool.list_workers()]
            equal(len(set(pids)), 3, "workers that differ in their pids, after resize(3)")
            await pool.resize(1)
            equal(len(pool.list_workers()), 1, "workers after resize(1)")
            ended = [process for process in watched.processes if process.exit_code is not None]
            equal(len(ended), 2, "processes that have ended after resize(1)")
            equal(await pool.execute("add", _SUM), 5, "add, afterwards")
        watched.check_nothing_is_left()


@rules
async def one_launcher_serves_many_pools(given: Launchers) -> None:
    """One launcher serves several pools, at the same time and one after another."""
    async with given.watched() as watched:
        async with given.pool_of(watched) as first, given.pool_of(watched) as second:
            equal(await first.execute("add", _SUM), 5, "add in the first pool")
            equal(await second.execute("add", _SUM), 5, "add in the second pool")
        async with given.pool_of(watched) as third:
            equal(await third.execute("add", _SUM), 5, "add in a third pool")
        watched.check_nothing_is_left()


@rules
async def a_site_has_a_clock(given: Launchers) -> None:
    """`clock` is Unix time in seconds, and never goes back."""
    async with given.pool() as (_, watched):
        (site,) = watched.sites
        times = [site.clock() for _ in range(100)]
        that(times == sorted(times) and times[0] > 1e9, f"expected Unix times that grow, but {times[:3]} came")


async def _open_for_ever(given: Launchers, watched: Watched) -> None:
    async with given.pool_of(watched, workers=2):
        await trio.sleep_forever()
