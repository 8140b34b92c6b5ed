"""A stream of events: it is bounded, counts what it loses, and keeps only the latest event of one call."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from snakepit_trio.telemetry import Event, Events, EventStream

STEPS = st.one_of(st.sampled_from(["take", "end"]), st.tuples(st.sampled_from(["a.1", "a.2", "b"]), st.integers(0, 2)))


@given(
    steps=st.lists(STEPS, max_size=60),
    most=st.integers(1, 5),
    patterns=st.sampled_from([("*",), ("a*",), ("a.1", "b*")]),
)
def test_of_each_call_the_latest_waits_and_beyond_the_bound_the_oldest_is_lost(
    steps: list[str | tuple[str, int]], most: int, patterns: tuple[str, ...]
) -> None:
    stream = EventStream(patterns, most)
    model: list[tuple[object, Event]] = []
    heard = taken = dropped = replaced = 0
    has_ended = False

    async def take() -> Event | None:
        return await anext(stream, None)

    async def main() -> None:
        nonlocal heard, taken, dropped, replaced, has_ended
        for step in steps:
            if step == "end":
                stream.end()
                has_ended = True
            elif isinstance(step, tuple):
                name, call = step
                event = Event(name, {"number": heard})
                stream._hear(event, f"call {call}" if call else None)
                if has_ended or not any(fnmatchcase(name, pattern) for pattern in patterns):
                    continue
                heard += 1
                places = [at for at, (key, _) in enumerate(model) if key == f"call {call}"]
                if places:
                    model[places[0]] = (f"call {call}", event)
                    replaced += 1
                    continue
                if len(model) == most:
                    model.pop(0)
                    dropped += 1
                model.append((f"call {call}" if call else object(), event))
            elif model or has_ended:
                expected = model.pop(0)[1] if model else None
                assert await take() is expected
                taken += expected is not None
        assert (stream.dropped, stream.replaced) == (dropped, replaced)
        assert heard == taken + dropped + replaced + len(model)

    trio.run(main)


async def test_a_listener_that_fails_is_told_of_the_end_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        told = 0

        def _hear(self, event: Event, latest_of: object) -> None:
            raise MemoryError

        def end(self) -> None:
            self.told += 1

    events, failing, stream = Events(), Failing(), EventStream(("*",), 10)
    with events.tell(failing), events.tell(stream):
        events.emit("a", {})
        events.emit("b", {})
        assert failing.told == 1
        assert [(await anext(stream)).name for _ in range(2)] == ["a", "b"]
    assert failing.told == 1
    assert "a watch of events failed" in caplog.text
    assert not events.is_heard
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_that_begins_after_the_end_ends_at_once() -> None:
    events, stream = Events(), EventStream(("*",), 10)
    events.close()
    with events.tell(stream):
        events.emit("a", {})
        assert [event async for event in stream] == []
    assert not events.is_heard


async def test_cancelling_loses_no_event_and_a_second_task_is_refused() -> None:
    stream = EventStream(("*",), 10)
    with trio.move_on_after(0):
        await anext(stream)
    stream._hear(Event("a"), None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)
    assert (await anext(stream)).name == "a"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, stream, None)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="takes from this watch"):
            await anext(stream)
        stream.end()
