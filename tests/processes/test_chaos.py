"""Short runs of `make chaos`."""

from __future__ import annotations

import random

from benchmarks.chaos import Report, run
from benchmarks.host_chaos import Trouble, small_disk


def patient(seconds: float) -> Report:
    """A report that asks only that all ends; how fast is for `make chaos`."""
    return Report(seconds, late=60.0, full_strength=29.0)


async def test_a_storm_of_deaths_loses_no_call(untraced_workers: None) -> None:
    report = patient(6)
    await run(report)
    assert report.problems == []
    assert report.outcomes["idempotent: right"] > 20
    assert sum(report.kills.values()) > 3
    assert report.restarts > 2


async def test_a_host_in_trouble_loses_no_call(untraced_workers: None) -> None:
    report = patient(8)
    with small_disk() as disk:
        await run(report, rate=2.5, trouble=Trouble(report.troubles, random.Random(14), disk).run)
    assert report.problems == []
    assert report.outcomes["idempotent: right"] > 20
    assert len(report.troubles) > 1
    assert report.started == report.stopped + report.outcomes.total()
