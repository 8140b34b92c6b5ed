"""The whole pool in memory, under random faults and cancellations: when a call is over, it is over, and the pool heals.

Each example is a seed, from which all of a scenario follows, also the order in which trio's tasks run. After each call
no code of it runs, on either side; afterwards nothing is left, each restart had a reason, and the pool works.
"""

from __future__ import annotations

import logging

import pytest
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
@settings(max_examples=500, deadline=None)
def test_when_a_call_is_over_it_is_over(seed: int) -> None:
    testing.run(Scenario(seed).run, seed=seed, limit=FOR_EVER)


TestInMemory = Machine.TestCase
TestInMemory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)

TestRealProcesses = RealMachine.TestCase
TestRealProcesses.settings = settings(max_examples=5, stateful_step_count=15, deadline=None)
