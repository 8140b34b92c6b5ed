"""Policies: restart, taint, recycle, retry. Time is an argument, so all of it is checked without waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_trio._config.policies import Circuit, RecyclePolicy, RestartPolicy, RetryPolicy, TaintPolicy

FIRST, LONGEST, QUARANTINE = 0.05, 1.0, 5.0


class Restarts(RuleBasedStateMachine):
    """One worker ends again and again, in vain or not."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.vain: list[float] = []
        self.jitter = 0.5
        self.policy = RestartPolicy(
            max_restarts=4,
            restart_period=10,
            quarantine=QUARANTINE,
            first_delay=FIRST,
            longest_delay=LONGEST,
            jitter=lambda: self.jitter,
        )
        self.pause = 0.0

    @rule(jitter=st.floats(0, 1), after=st.floats(0, 20))
    def ends_in_vain(self, jitter: float, after: float) -> None:
        self.jitter = jitter
        self.now += after
        was_closed = self.policy.circuit is Circuit.CLOSED
        self.pause = self.policy.ended(self.now, served=False)
        self.vain = [at for at in self.vain if at >= self.now - 10] + [self.now]
        if not was_closed or len(self.vain) > 4:
            assert (self.policy.circuit, self.pause) == (Circuit.OPEN, QUARANTINE)
        else:
            longest = 0.0 if len(self.vain) == 1 else min(LONGEST, FIRST * 2 ** (len(self.vain) - 2))
            assert longest / 2 <= self.pause <= longest

    @rule()
    def ends_after_it_served(self) -> None:
        self.pause = self.policy.ended(self.now, served=True)
        self.vain = []
        assert (self.policy.circuit, self.pause) == (Circuit.CLOSED, 0.0)

    @precondition(lambda self: self.policy.circuit is Circuit.OPEN)
    @rule()
    def trial(self) -> None:
        self.now += self.pause
        self.policy.starting()
        assert self.policy.circuit is Circuit.HALF_OPEN

    @invariant()
    def never_waits_longer_than_the_quarantine(self) -> None:
        assert 0 <= self.pause <= QUARANTINE


TestRestarts = Restarts.TestCase


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 30)), max_size=60))
def test_taint_counts_deaths_in_a_row(history: list[tuple[str, bool, float]]) -> None:
    policy = TaintPolicy(after=3, period=60)
    row = dict.fromkeys("abc", 0)
    until = dict.fromkeys("abc", 0.0)
    now = 0.0
    for key, died, after in history:
        now += after
        if died:
            row[key] += 1
            tainted = row[key] >= 3
            assert policy.killed(key, now) is tainted
            if tainted:
                until[key] = now + 60
        else:
            policy.succeeded(key)
            row[key], until[key] = 0, 0.0
        for other in "abc":
            assert policy.left(other, now) == max(0.0, until[other] - now)
        assert bool(policy.deaths) is any(row.values())


def test_suspects_are_bounded() -> None:
    policy = TaintPolicy(after=2, period=60)
    policy.killed("first", 0)
    policy.killed("first", 0)
    assert policy.left("first", 0) == 60
    for number in range(10_000):
        policy.killed(number, 0)
    assert policy.left("first", 0) == 0


@given(st.integers(0, 100), st.floats(0, 1e4), st.integers(0, 2**40))
def test_recycling_names_the_reason(calls: int, age: float, resident: int) -> None:
    policy = RecyclePolicy(calls=50, age=100, resident_bytes=2**30)
    reason = policy.reason(calls=calls, age=age, resident_bytes=resident)
    assert (reason is not None) is (calls >= 50 or age >= 100 or resident >= 2**30)
    assert RecyclePolicy().reason(calls=calls, age=age, resident_bytes=resident) is None


@given(st.integers(1, 1000), st.floats(0, 10), st.floats(0, 10))
def test_retry_pauses_double_up_to_the_longest(run: int, first: float, longest: float) -> None:
    policy = RetryPolicy(first_delay=first, longest_delay=longest)
    assert policy.delay(1) == min(first, longest)
    assert policy.delay(run) <= policy.delay(run + 1) <= longest or run == 1
