"""Batches in memory, by a seed: whatever callers do, each has its own outcome, and nothing runs for nobody.

Callers come at random times, some with bad arguments, some with deadlines, some are cancelled. The tool returns
exceptions for some, raises for all, is slow, ignores its cancellation for a while, or its worker dies.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from snakepit_trio import testing
from snakepit_trio.testing import InMemory

FOR_EVER = 200.0  # seconds of a clock that jumps
MOST = 4


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Deaths are logged, and there are many."""
    caplog.set_level(logging.CRITICAL)


class Tools(BaseAdapter):
    """Batch tools that note for whom they run."""

    running: ClassVar[Counter[int]] = Counter()  # by token
    scenario: Scenario

    async def _run(self, token: list[int], what: list[str]) -> list[Any]:
        assert 1 <= len(token) == len(what) <= MOST
        Tools.running.update(token)
        try:
            for each in sorted(what):
                await self._do(each)
            return [ValueError(each) if kind == "fails" else each for each, kind in zip(token, what, strict=True)]
        finally:
            Tools.running.subtract(token)

    async def _do(self, what: str) -> None:
        if what == "kills":
            self.scenario.kill()
        elif what == "raises":
            raise RuntimeError("all")
        elif what == "slow":
            await asyncio.sleep(1.0)
        else:
            await asyncio.sleep(0.01)

    @tool(batch=MOST, wait=0.1)
    async def wait(self, token: list[int], what: list[str]) -> list[Any]:
        """Collected for a while."""
        return await self._run(token, what)

    @tool(batch=MOST, limit=1, idempotent=True)
    async def at_once(self, token: list[int], what: list[str]) -> list[Any]:
        """Whatever is there, one batch at a time; run again after a death."""
        return await self._run(token, what)

    @tool(batch=2, wait=0.05, cancel="kill")
    async def deadly(self, token: list[int], what: list[str]) -> list[Any]:
        """Stopped by its worker's end."""
        return await self._run(token, what)


class Scenario:
    """What happens, by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tokens = itertools.count(1)
        self.launcher = InMemory()
        self.pool: snakepit.Pool

    def kill(self) -> None:
        """Kill any worker."""
        workers = self.launcher.workers()
        if workers:
            self.launcher.kill(self.random.choice(workers))

    async def run(self) -> None:
        """All of it."""
        Tools.running.clear()
        Tools.scenario = self
        rnd = self.random
        async with snakepit.open_pool(
            Tools,
            launcher=self.launcher,
            workers=rnd.randint(1, 2),
            concurrency=rnd.choice([1, 1, 2]),
            send_ahead=rnd.choice([0, 32]),
            cancel_grace=rnd.choice([0.5, 5.0]),
            max_queue=rnd.choice([3, 100]),
            recycle=snakepit.RecyclePolicy(calls=rnd.choice([None, None, 5])),
            taint_after=1000,
        ) as self.pool:
            async with trio.open_nursery() as nursery:
                for _ in range(rnd.randint(1, 20)):
                    nursery.start_soon(self._call)
            await trio.sleep(2)  # what was left behind by those who have gone is over by then
            stats = self.pool.get_stats()
            assert (stats.queued, stats.running, stats.limited) == (0, 0, 0), stats
            assert not +Tools.running, "code runs for nobody"
            await self.pool.await_ready(60)
            token = next(self.tokens)
            assert await self.pool.execute("wait", {"token": token, "what": "good"}) == token
        assert self.launcher.workers() == []

    async def _call(self) -> None:
        rnd, token = self.random, next(self.tokens)
        name = rnd.choice(["wait", "wait", "at_once", "deadly"])
        what: Any = rnd.choice(["good"] * 8 + ["slow"] * 4 + ["fails", "raises", "kills", 7])
        timeout = rnd.choice([60.0, 60.0, 0.0, rnd.random() * 2])
        patience = rnd.choice([1000.0, 1000.0, 0.0, rnd.random() * 2])
        await trio.sleep(rnd.choice([0, 0, rnd.random() * 2]))
        found: Any = None
        with trio.move_on_after(patience):
            try:
                args = {"token": token, "what": what}
                found = await self.pool.execute(name, args, timeout=timeout, priority=rnd.choice([0, 0, 1]))
            except snakepit.SnakepitError as error:
                found = error
            self._check(found, token, what, timeout)

    def _check(self, found: Any, token: int, what: Any, timeout: float) -> None:
        if isinstance(found, snakepit.ToolError):
            told = (found.type, found.message)
            assert told == ("RuntimeError", "all") or (what == "fails" and told == ("ValueError", str(token)))
        elif isinstance(found, snakepit.SnakepitError):
            may: dict[type, bool] = {snakepit.InvalidArguments: what == 7, snakepit.CallTimeout: timeout < 60}
            assert may.get(type(found), isinstance(found, (snakepit.WorkerCrashed, snakepit.PoolSaturated))), found
        else:
            assert found == token
            assert what in ("good", "slow", "kills")
            assert Tools.running[token] == 0, "its batch has ended"


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_each_caller_has_its_own_outcome_and_nothing_runs_for_nobody(seed: int) -> None:
    testing.run(Scenario(seed).run, seed=seed, limit=FOR_EVER)


class Alone(Scenario):
    """The last caller of a batch leaves: then none of its code runs."""

    async def run(self) -> None:
        """Callers of one batch leave one after the other."""
        Tools.running.clear()
        Tools.scenario = self
        async with snakepit.open_pool(Tools, launcher=self.launcher, workers=1) as self.pool:
            name = self.random.choice(["wait", "deadly", "at_once"])
            left: list[int] = []
            callers = self.random.randint(1, 2)

            async def call(seconds: float) -> None:
                with trio.move_on_after(seconds):
                    await self.pool.execute(name, {"token": 1, "what": "slow"}, priority=5)
                left.append(1)
                assert len(left) < callers or Tools.running[1] == 0

            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(call, self.random.random())


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_when_the_last_caller_has_left_none_of_the_code_runs(seed: int) -> None:
    testing.run(Alone(seed).run, seed=seed, limit=FOR_EVER)
