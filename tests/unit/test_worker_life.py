"""A worker's life as a table: what it promises."""

from __future__ import annotations

from itertools import product

import pytest

from snakepit_trio._workers import life
from snakepit_trio._workers.life import Event, Life, Phase, Reason

REASONS = {name: value for name, value in vars(life).items() if isinstance(value, Reason)}


def after(*events: Event) -> Life:
    """A life in which these events have come."""
    found = Life()
    for event in events:
        found.take(event)
    return found


def test_every_order_of_events_ends_or_goes_on_and_nothing_comes_back() -> None:
    order = [Phase.STARTING, Phase.SPARE, Phase.READY, Phase.DRAINING, Phase.ENDING, Phase.STOPPED]
    for events in product(Event, repeat=5):
        found, seen = Life(), [Phase.STARTING]
        for event in events:
            before = found.phase
            assert found.take(event) == (found.phase is not before)
            seen.append(found.phase)
        assert seen == sorted(seen, key=order.index), events
        assert found.was_ready == (Phase.SPARE in seen)
        assert found.has_left == (found.phase not in (Phase.STARTING, Phase.SPARE, Phase.READY))
        assert found.is_over == (found.phase in (Phase.ENDING, Phase.STOPPED))


def test_who_has_ended_is_never_ready() -> None:
    found = after(Event.END, Event.HELLO)
    assert found.phase is Phase.ENDING
    assert not found.was_ready
    assert not found.take(Event.HELLO)


def test_the_first_reason_stays() -> None:
    found = after(Event.HELLO)
    assert found.end(life.KILLED, "was killed: {it} was silent")
    assert not found.end(life.EXITED)
    assert (found.reason, found.problem) == (life.KILLED, "was killed: {it} was silent")


@pytest.mark.parametrize("name", REASONS)
def test_each_reason_is_told_in_words(name: str) -> None:
    reason = REASONS[name]
    details = (1.0, 2.0)[: (reason.words or "").count("{")]
    for ready in (True, False):
        found = after(Event.HELLO) if ready else Life()
        assert found.end(reason, *details)
        assert (found.problem is None) == (reason is life.ASKED)
        assert "{" not in (found.problem or "")
        assert found.is_believed == (reason is not life.PROTOCOL_BROKEN)


def test_a_link_that_ends_gives_its_process_time_to_tell_more() -> None:
    started, starting = after(Event.HELLO), Life()
    for found in (started, starting):
        found.end(life.LINK_LOST)
    assert starting.patience > started.patience > 0
    started.name(life.EXITED)
    starting.name(life.EXITED)
    assert (started.problem, starting.problem) == ("died", life.EXITED.at_start)


def test_a_broken_protocol_is_not_believed_though_it_had_to_end_anyway() -> None:
    found = after(Event.HELLO)
    found.end(life.ASKED)
    found.end(life.PROTOCOL_BROKEN, "two results")
    assert found.problem is None
    assert not found.is_believed
