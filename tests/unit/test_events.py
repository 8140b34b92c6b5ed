"""Handlers of events: what they are attached to, what they hear, and what becomes of those that fail."""

from __future__ import annotations

import gc
import importlib
import threading
from pathlib import Path
from typing import Any

import pytest

from bridge_py.wire.errors import UsageError
from snakepit_trio import telemetry
from snakepit_trio.telemetry import Event, Events
from snakepit_trio.telemetry.spans import told

PAGE = Path(__file__).parent.parent.parent / "docs/observability.md"


def test_a_pattern_selects_events() -> None:
    events, heard = Events(), list[str]()
    events.attach("worker.*", lambda event: heard.append(event.name))
    events.attach("call.stop", lambda event: heard.append(f"only {event.name}"))
    for name in ("worker.ready", "call.start", "call.stop", "worker.ended"):
        events.emit(name, {})
    assert heard == ["worker.ready", "only call.stop", "worker.ended"]


@pytest.mark.parametrize("pattern", ["wroker.*", "worker", "", "call.", "call.stopped", 5, None], ids=str)
def test_a_pattern_that_matches_nothing_is_refused(pattern: Any) -> None:
    for attach in (Events().attach, telemetry.attach):
        with pytest.raises(UsageError, match=r"'worker\.\*'"):
            attach(pattern, print)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match=r"attach\('worker\.\*', print\)"):
        telemetry.attach("call.*", "worker.*")  # type: ignore[arg-type]  # the mistake


async def _await(event: Event) -> None:
    """A coroutine function, which nobody would await."""


def test_a_coroutine_function_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    for attach in (events.attach, telemetry.attach):
        with pytest.raises(UsageError, match="which nobody awaits; give a plain function"):
            attach("call.*", _await)
    events.attach("*", lambda event: [_await(event)][0])  # this one is noticed when it is called
    events.emit("pool.opened", {})
    assert "which nobody awaits" in caplog.text
    assert not events.is_heard


def test_handlers_of_all_pools_hear_pools_that_come_later_too() -> None:
    heard: list[Event] = []
    early = Events()
    detach = telemetry.attach("pool.*", heard.append)
    late = Events()
    early.emit("pool.opened", {}, workers=1)
    late.emit("pool.opened", {}, workers=2)
    detach()
    detach()  # once more does no harm
    early.emit("pool.opened", {}, workers=3)
    assert [event.measurements["workers"] for event in heard] == [1, 2]
    assert not early.is_heard
    assert not late.is_heard


def test_detaching_by_the_handler() -> None:
    heard: list[Event] = []
    hear, events = heard.append, Events()
    telemetry.attach("pool.*", hear)
    telemetry.attach("call.*", hear)
    events.attach("*", hear)
    assert telemetry.detach(hear)
    assert not telemetry.detach(hear)
    events.emit("pool.opened", {})
    assert len(heard) == 1
    assert events.detach(hear)
    assert not events.detach(hear)
    assert not events.is_heard


def test_a_handler_that_fails_is_detached_everywhere_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise ZeroDivisionError

    one, other, heard = Events(), Events(), list[str]()
    telemetry.attach("*", fail)
    one.attach("*", fail)
    one.attach("*", lambda event: heard.append(event.name))
    one.emit("pool.opened", {})
    one.emit("pool.resized", {})
    assert heard == ["pool.opened", "pool.resized"]
    assert [record.getMessage() for record in caplog.records] == [
        "the handler of '*' failed; it gets no more events"
    ] * 2
    assert not other.is_heard


def test_a_handler_may_detach_and_attach_others_while_it_hears() -> None:
    events, heard = Events(), list[str]()

    def once(event: Event) -> None:
        events.detach(once)
        events.attach("*", lambda event: heard.append(event.name))

    events.attach("*", once)
    events.emit("pool.opened", {})
    events.emit("pool.resized", {})
    assert heard == ["pool.resized"]


def test_attaching_from_other_threads_loses_none() -> None:
    events = [Events() for _ in range(20)]
    heard: list[Event] = []

    def attach_many() -> None:
        for detach in [telemetry.attach("*", heard.append) for _ in range(200)]:
            detach()

    threads = [threading.Thread(target=attach_many) for _ in range(4)]
    keep = telemetry.attach("pool.closed", heard.append)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(each.is_heard for each in events)
    keep()
    assert not any(each.is_heard for each in events)


def test_pools_that_are_gone_are_forgotten() -> None:
    module = importlib.import_module("snakepit_trio.telemetry.handlers")
    gc.collect()
    before = len(module._everywhere._pools)
    kept = Events()
    Events()
    gc.collect()
    assert len(module._everywhere._pools) == before + 1
    del kept


def test_a_span_tells_how_its_block_ended() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    events, heard = Events(), list[Event]()
    events.attach("tool.*", heard.append)
    with told(events, "tool", {"name": "a"}):
        pass
    with pytest.raises(Silent), told(events, "tool", {"name": "b"}):
        raise Silent
    assert [event.name for event in heard] == ["tool.start", "tool.stop", "tool.start", "tool.exception"]
    assert heard[1].measurements["duration"] >= 0
    assert heard[3].metadata == {"name": "b", "error": "Silent", "message": "<its str() raised ValueError>"}


def test_the_page_has_the_table() -> None:
    rows = [
        f"| `{kind.name}` | {kind.when} | {_listed(kind.metadata)} | {_listed(kind.measurements)} |"
        for kind in telemetry.events()
    ]
    missing = [row for row in rows if row not in PAGE.read_text()]
    assert not missing, "docs/observability.md lacks these rows:\n" + "\n".join(missing)


def _listed(facts: Any) -> str:
    return ", ".join(f"`{name}`" for name in facts)


def test_names_are_unique_and_spans_are_whole() -> None:
    names = [kind.name for kind in telemetry.events()]
    assert len(set(names)) == len(names)
    for name in names:
        if name.endswith(".start"):
            assert {name.replace(".start", ".stop"), name.replace(".start", ".exception")} <= set(names)
