"""Limits and threads of workers as settings: wrong ones are named, and cores are shared out."""

from __future__ import annotations

import os

import pytest

import snakepit_trio as snakepit
from bridge_py.execution.limits import apply_limits
from snakepit_trio._config.limits import THREAD_VARIABLES, share_of_cores, thread_variables
from tests.helpers.workers import TOOLS

MIB = 1024 * 1024


def test_a_limit_that_there_is_not() -> None:
    with pytest.raises(snakepit.UsageError, match="there is no limit 'gravity'"):
        apply_limits({"gravity": 9})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"address_space": MIB}, "address_space=1048576: give a whole number of at least 268435456, or None"),
        ({"cpu_seconds": 0}, "cpu_seconds=0: give a whole number of at least 1"),
        ({"cpu_seconds": 1.5}, "cpu_seconds=1.5: give a whole number"),
        ({"open_files": 3}, "open_files=3: give a whole number of at least 32"),
        ({"nice": -1}, "nice=-1: give a whole number from 0 to 19"),
        ({"nice": 20}, "nice=20: give a whole number from 0 to 19"),
        ({"nice": True}, "nice=True: give"),
        ({"stack": 3}, "unexpected keyword argument 'stack'"),
    ],
)
def test_a_wrong_limit_is_named(limits: dict[str, object], message: str) -> None:
    with pytest.raises((snakepit.UsageError, TypeError), match=message):
        snakepit.Limits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {"nice": 3}}, "limits={'nice': 3}: give a snakepit_trio.Limits, or None"),
        ({"threads": 0}, "threads=0: give a whole number of at least 1"),
        ({"threads": "all"}, "threads='all': give a whole number"),
        ({"workers": "two"}, "workers='two': give a whole number of at least 1"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        snakepit.PoolConfig(adapter=TOOLS, **settings)  # type: ignore[arg-type]


# Threads of numeric libraries.


def test_workers_share_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [share_of_cores(workers) for workers in (1, cores, cores + 1)] == [cores, 1, 1]
    assert snakepit.PoolConfig(adapter=TOOLS, workers=1).threads == cores
    assert snakepit.PoolConfig(adapter=TOOLS, threads=None).threads is None


def test_what_the_environment_says_about_threads_wins() -> None:
    assert thread_variables(3, {}) == dict.fromkeys(THREAD_VARIABLES, "3")
    assert "MKL_NUM_THREADS" not in thread_variables(3, {"MKL_NUM_THREADS": "5"})
    # The others follow it, so nothing may come between.
    assert thread_variables(3, {"OMP_NUM_THREADS": "5"}) == {}
    assert thread_variables(None, {}) == {}
