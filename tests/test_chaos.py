"""A short run of `make chaos`."""

from __future__ import annotations

from benchmarks.chaos import Report, run


async def test_a_storm_of_deaths_loses_no_call(untraced_workers: None) -> None:
    report = Report(seconds=6)
    await run(report)
    assert report.problems == []
    assert report.outcomes["idempotent: right"] > 100
    assert sum(report.kills.values()) > 10
    assert report.restarts > 5
