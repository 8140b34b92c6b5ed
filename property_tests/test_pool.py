"""The whole pool in memory, under random faults and cancellations: when a call is over, it is over, and the pool heals.

Each example is a seed, from which all of a scenario follows, also the order in which trio's tasks run. After each call
no code of it runs, on either side; afterwards nothing is left, each restart had a reason, and the pool works.
"""

from __future__ import annotations

import logging

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_trio import testing

from .pool_machine import Machine, RealMachine
from .scenarios import FOR_EVER, Scenario


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Deaths are logged, and there are many."""
    caplog.set_level(logging.CRITICAL)


@given(st.integers(0, 2**32))
@pytest.mark.slow
@settings(max_examples=500, deadline=None)
def test_when_a_call_is_over_it_is_over(seed: int) -> None:
    testing.run(Scenario(seed).run, seed=seed, limit=FOR_EVER)


class Credulous(Scenario):
    """Takes it that no worker ever dies in the middle of a call."""

    async def _call(self) -> None:
        await super()._call()
        assert all(how != "WorkerCrashed" for _, how, _, _ in self.story), f"a worker died at {trio.current_time()}"


def outcome_of(seed: int) -> tuple[str, object, object]:
    """All that is known of a scenario when it has ended."""
    scenario = Credulous(seed)
    try:
        testing.run(scenario.run, seed=seed, limit=FOR_EVER)
        end = "passed"
    except Exception as error:
        end = str(_first(error)).partition("\n")[0]  # below it pytest tells of objects by their address
    return end, scenario.story, [(each.time, each.worker, each.at) for each in scenario.faults.happened]


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def test_a_failing_seed_fails_the_same_way_each_time() -> None:
    failing = [seed for seed in range(60) if outcome_of(seed)[0] != "passed"]
    assert len(failing) >= 10
    for seed in failing[:5]:
        first = outcome_of(seed)
        assert "a worker died at" in first[0]
        assert all(outcome_of(seed) == first for _ in range(50))


TestInMemory = Machine.TestCase
TestInMemory.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)

TestRealProcesses = pytest.mark.processes(RealMachine.TestCase)
TestRealProcesses.settings = settings(max_examples=5, stateful_step_count=15, deadline=None)
