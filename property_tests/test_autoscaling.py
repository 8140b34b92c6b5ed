"""The policy of autoscaled pools: within bounds, without flapping, as large as its load needs and no larger."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_trio._config.policies import Bounds
from snakepit_trio._workers.autoscaling import AutoscalingPolicy, Load

AFTER, IDLE, LOOK = 1.0, 10.0, 0.25
BOUNDS = st.tuples(st.integers(1, 5), st.integers(0, 20)).map(lambda both: Bounds(both[0], both[0] + both[1]))


def policy_of(bounds: Bounds) -> AutoscalingPolicy:
    return AutoscalingPolicy(bounds, scale_up_after=AFTER, idle_timeout=IDLE)


class Autoscaled(RuleBasedStateMachine):
    """A policy that gets any load whatever, even ones that no pool has."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.bounds = Bounds(2, 8)
        self.policy = policy_of(self.bounds)
        self.target = 2
        self.wanted_since = math.inf
        self.grown_at = -math.inf
        self.paused_until = -math.inf

    @rule(
        after=st.floats(0.01, 20),
        ready=st.integers(0, 10),
        starting=st.integers(0, 10),
        wanted=st.integers(0, 50),
        idle_for=st.lists(st.floats(0, 100), max_size=8),
    )
    def looks(self, after: float, ready: int, starting: int, wanted: int, idle_for: list[float]) -> None:
        self.now += after
        self.wanted_since = min(self.wanted_since, self.now) if wanted else math.inf
        load = Load(
            target=self.target,
            ready=ready,
            starting=starting,
            wanted=wanted,
            idle_since=[self.now - each for each in idle_for],
        )
        before, within = self.target, self.bounds.least <= self.target <= self.bounds.most
        self.target = self.policy.decide(self.now, load)
        if self.target > before:
            assert self.now >= self.paused_until
            if within:
                assert self.now - self.wanted_since >= AFTER
                assert self.target - before + starting <= min(wanted, max(1, ready))
            self.grown_at, self.wanted_since = self.now, math.inf
        elif self.target < before and within:
            assert not wanted
            assert self.now - self.grown_at >= IDLE
            assert before - self.target <= sum(self.policy.is_surplus(self.now, each) for each in load.idle_since)
        assert self.policy.reason or self.target == before

    @rule(pause=st.floats(0.1, 30))
    def cannot_start(self, pause: float) -> None:
        self.policy.failed(self.now, pause)
        self.paused_until = self.now + pause
        self.target = max(1, self.target - 1)

    @rule(bounds=BOUNDS)
    def gets_other_bounds(self, bounds: Bounds) -> None:
        self.policy.bounds = self.bounds = bounds

    @precondition(lambda self: self.now >= self.paused_until)
    @rule(after=st.floats(0.01, 20))
    def is_within_bounds_after_a_look_without_a_pause(self, after: float) -> None:
        self.looks(after, 0, 0, 0, [])
        assert self.bounds.least <= self.target <= self.bounds.most

    @invariant()
    def is_never_above_its_bounds_by_its_own_doing(self) -> None:
        assert self.target >= 1


TestAutoscaled = Autoscaled.TestCase


class Pool:
    """A model of a pool: places, calls that never end by themselves, and starts that take time.

    A call goes to the worker that was used last, as in the scheduler.
    """

    def __init__(self, bounds: Bounds, start: float, concurrency: int = 1) -> None:
        self.bounds = bounds
        self.policy = policy_of(bounds)
        self.now = 0.0
        self.start = start
        self.concurrency = concurrency
        self.workers: list[dict[str, Any]] = []  # the one that was used last comes first
        self.targets: list[int] = []
        self._add(bounds.least)
        for worker in self.workers:
            worker["ready_at"] = 0.0

    def _add(self, count: int) -> None:
        self.workers += [{"ready_at": self.now + self.start, "idle_since": self.now + self.start} for _ in range(count)]

    def spend(self, seconds: float, calls: int) -> None:
        """Time passes, while so many calls would run."""
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK
            self._look(calls)

    def _look(self, calls: int) -> None:
        ready = [worker for worker in self.workers if worker["ready_at"] <= self.now]
        used = math.ceil(calls / self.concurrency)
        for worker in ready[:used]:
            worker["idle_since"] = self.now
        waiting = max(0, calls - len(ready) * self.concurrency)
        idle: Sequence[float] = [worker["idle_since"] for worker in ready[used:]]
        load = Load(
            target=len(self.workers),
            ready=len(ready),
            starting=len(self.workers) - len(ready),
            wanted=math.ceil(waiting / self.concurrency),
            idle_since=idle,
        )
        target = self.policy.decide(self.now, load)
        if target > len(self.workers):
            self._add(target - len(self.workers))
        while target < len(self.workers):
            self.workers.remove(next(w for w in reversed(ready) if self.policy.is_surplus(self.now, w["idle_since"])))
            ready = [worker for worker in self.workers if worker["ready_at"] <= self.now]
        self.targets.append(target)
        assert self.bounds.least <= target <= self.bounds.most


def times_to_grow(bounds: Bounds, start: float) -> float:
    """Seconds in which a pool that doubles gets from its least to its most."""
    steps = math.ceil(math.log2(bounds.most / bounds.least)) + 1
    return steps * (AFTER + start + 3 * LOOK)


@given(BOUNDS, st.floats(0, 60), st.integers(0, 60), st.integers(1, 4), st.integers(0, 60))
def test_a_steady_load_leads_to_a_steady_number(
    bounds: Bounds, start: float, calls: int, concurrency: int, before: int
) -> None:
    """Whatever the load was before, the number becomes what the load needs, and then stays."""
    pool = Pool(bounds, start, concurrency)
    pool.spend(times_to_grow(bounds, start), before)
    pool.spend(times_to_grow(bounds, start) + 2 * IDLE + start, calls)
    needed = min(bounds.most, max(bounds.least, math.ceil(calls / concurrency)))
    assert pool.targets[-1] == needed
    settled = len(pool.targets)
    pool.spend(5 * IDLE, calls)
    assert set(pool.targets[settled:]) == {needed}


@given(BOUNDS, st.floats(0, 60), st.integers(1, 4))
def test_a_queue_that_stays_leads_to_the_most(bounds: Bounds, start: float, concurrency: int) -> None:
    pool = Pool(bounds, start, concurrency)
    pool.spend(times_to_grow(bounds, start), 1000)
    assert pool.targets[-1] == bounds.most
    assert pool.targets == sorted(pool.targets)


@given(BOUNDS, st.integers(0, 100))
def test_no_calls_lead_to_the_least(bounds: Bounds, calls: int) -> None:
    pool = Pool(bounds, 0.5)
    pool.spend(60, calls)
    pool.spend(2 * IDLE + 1, 0)
    assert pool.targets[-1] == bounds.least


@given(st.integers(1, 30), st.floats(2, 120))
def test_a_slow_start_is_not_answered_by_more_starts(waiting: int, start: float) -> None:
    """While workers load, no more are started than waiting calls need, and than were ready when they began."""
    pool = Pool(Bounds(2, 100), start)
    pool.spend(start, 2 + waiting)
    assert pool.targets[-1] <= 2 + min(2, waiting)


@given(st.lists(st.tuples(st.floats(0.25, 9), st.integers(0, 30)), min_size=1, max_size=60))
def test_no_worker_ends_soon_after_growth(history: list[tuple[float, int]]) -> None:
    pool = Pool(Bounds(2, 16), 0.5)
    for seconds, calls in history:
        pool.spend(seconds, calls)
    changes = [
        (number * LOOK, after - before)
        for number, (before, after) in enumerate(itertools.pairwise(pool.targets))
        if after != before
    ]
    for (at, change), (later, other) in itertools.pairwise(changes):
        assert not (change > 0 > other) or later - at >= IDLE


@given(st.floats(0, 2 * IDLE))
def test_growth_and_shrinking_are_apart(after: float) -> None:
    """Even if workers look idle for ever."""
    policy = policy_of(Bounds(1, 8))
    waits = Load(target=2, ready=2, starting=0, wanted=1, idle_since=[])
    assert policy.decide(100, waits) == 2
    assert policy.decide(100 + AFTER, waits) == 3
    idle = Load(target=3, ready=3, starting=0, wanted=0, idle_since=[0, 0])
    grown = 100 + AFTER
    assert policy.decide(grown + after, idle) == (3 if grown + after - grown < IDLE else 1)


@given(st.integers(2, 7), st.floats(0.25, 4))
def test_a_load_that_comes_and_goes_quickly_keeps_its_workers(more: int, half: float) -> None:
    """A load that changes faster than `idle_timeout` leads to one number."""
    pool = Pool(Bounds(1, 8), 0.5)
    pool.spend(30, 1 + more)
    settled = len(pool.targets)
    for _ in range(20):
        pool.spend(half, 1)
        pool.spend(half, 1 + more)
    assert set(pool.targets[settled:]) == {1 + more}
