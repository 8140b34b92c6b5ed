"""What the dashboard keeps: bounded, complete for a browser that follows, and true to what happened."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_trio._dashboard.history import KEPT, History, quantile
from snakepit_trio._dashboard.log_lines import LogLines
from snakepit_trio.telemetry import Event

COUNTS = {"succeeded": 0, "failed": 0, "cancelled": 0, "timed_out": 0, "crashed": 0}


def test_rates_are_of_the_time_since_the_last_sample() -> None:
    history = History()
    history.take_sample(COUNTS, {"queued": 1}, 10.0)
    history.take_sample({**COUNTS, "succeeded": 30, "failed": 3}, {"queued": 2}, 12.0)
    first, second = history.samples
    assert (first["succeeded"], first["queued"]) == (0, 1)
    assert (second["succeeded"], second["failed"], second["queued"]) == (15, 1.5, 2)
    assert (second["p50"], second["p99"]) == (None, None)


@given(st.lists(st.floats(0, 1e6), max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_a_time_that_this_share_did_not_exceed(times: list[float], share: float) -> None:
    found = quantile(sorted(times), share)
    if not times:
        assert found is None
    else:
        assert found in times
        assert sum(each <= found for each in times) >= share * len(times)


@given(st.integers(0, 3 * KEPT), st.lists(st.integers(0, 3 * KEPT), max_size=5))
def test_a_browser_misses_nothing_that_is_kept_and_gets_nothing_twice(number: int, looks: list[int]) -> None:
    history, got = History(), []
    seen = 0
    for at in range(1, number + 1):
        history.take_sample(COUNTS, {}, float(at))
        if at in looks or at == number:
            new = history.samples_after(seen)
            got += [each["number"] for each in new]
            seen = got[-1]
    assert got == sorted(set(got))
    assert got[-KEPT:] == list(range(max(1, number - KEPT + 1), number + 1))[-len(got[-KEPT:]) :]
    assert len(history.samples) <= KEPT


def test_many_calls_in_a_second_cost_a_bounded_space() -> None:
    history = History()
    for number in range(10_000):
        history.hear(Event("call.stop", {}, {"total": number / 10_000}))
    assert len(history._times) == 2000
    history.take_sample(COUNTS, {}, 1.0)
    assert 0.4 < history.samples[-1]["p50"] < 0.6
    history.take_sample(COUNTS, {}, 2.0)
    assert history.samples[-1]["p50"] is None


@pytest.mark.parametrize(
    ("event", "about", "what", "cause"),
    [
        (Event("worker.crashed", {"worker": "w-1", "pid": 7, "problem": "died"}), "w-1", "crashed", "died"),
        (Event("worker.ended", {"worker": "w-1", "pid": 7, "in_order": True}), "w-1", "ended in order", ""),
        (Event("worker.ready", {"worker": "w-1", "pid": 8}), "w-1", "is ready", ""),
        (Event("worker.stepped_in", {"worker": "w-2", "replaced": "w-1"}), "w-2", "stepped in", "in place of w-1"),
        (
            Event("pool.scaled", {"reason": "load"}, {"workers": 3, "before": 2}),
            "pool",
            "number of workers changed",
            "from 2 to 3: load",
        ),
        (
            Event("call.tainted", {"kind": "command", "name": "boom"}),
            "boom",
            "is refused for a while",
            "this command has killed workers",
        ),
    ],
    ids=lambda each: each.name if isinstance(each, Event) else "",
)
def test_events_of_workers_are_told_in_words(event: Event, about: str, what: str, cause: str) -> None:
    history = History()
    history.hear(event)
    (told,) = history.events
    assert (told["about"], told["what"], told["cause"], told["number"]) == (about, what, cause, 1)


def test_events_are_bounded_and_a_death_is_told_once() -> None:
    history = History()
    for number in range(1000):
        history.hear(Event("call.progress"))
        history.hear(Event("worker.crashed", {"worker": f"w-{number}", "problem": "x" * 10_000}))
        history.hear(Event("worker.ended", {"worker": f"w-{number}", "in_order": False}))
    assert len(history.events) == 200
    assert history.events[-1]["about"] == "w-999"
    assert len(history.events[-1]["cause"]) == 1000
    assert [each["number"] for each in history.events_after(998)] == [999, 1000]


class Untellable:
    def __str__(self) -> str:
        raise RuntimeError


def record(message: str, *args: Any, error: BaseException | None = None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, None)
    return logging.LogRecord("snakepit.test", logging.ERROR, "", 1, message, args, trace)


def test_log_lines_are_bounded_and_never_raise() -> None:
    lines = LogLines()
    for number in range(1000):
        lines.handle(record("line %d", number))
    lines.handle(record("x" * 5000))
    lines.handle(record("it failed", error=ValueError("no")))
    lines.handle(record("%s", Untellable()))
    lines.handle(record("%d %d", 1))
    found = lines.after(0)
    assert len(found) == 500
    assert len(found[-4]["text"]) == 2003
    assert found[-3]["text"] == "it failed: ValueError('no')"
    assert [each["text"] for each in found[-2:]] == [
        "a record that cannot be shown: RuntimeError",
        "a record that cannot be shown: TypeError",
    ]
    assert lines.after(found[-2]["number"]) == found[-1:]
