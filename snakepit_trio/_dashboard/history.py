"""What has become of the calls and workers of a pool in the last minutes, in a bounded space."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from snakepit_trio.telemetry import Event

KEPT: Final = 300  # samples: five minutes at one a second
_EVENTS_KEPT: Final = 200
_MOST_TIMES: Final = 2000  # times of calls that one sample is made of; of more, as many are chosen by chance
_LONGEST: Final = 1000  # characters of a text of an event
_COUNTS: Final = ("succeeded", "failed", "cancelled", "timed_out", "crashed")
#: What is shown of the life of workers and of the pool: the name of the event, and what it says.
_SHOWN: Final = {
    "worker.ready": "is ready",
    "worker.stepped_in": "stepped in",
    "worker.crashed": "crashed",
    "worker.ended": "ended in order",
    "call.tainted": "is refused for a while",
    "pool.scaled": "number of workers changed",
    "pool.scaling_failed": "number of workers could not change",
}


class History:
    """Samples of a pool's counts, the times of its calls, and the events of its workers."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)
        self._times: list[float] = []  # seconds; of the calls that have ended since the last sample
        self._ended = 0
        self._before: Mapping[str, int] | None = None
        self._last_at = 0.0
        self._sample_number = self._event_number = 0

    def hear(self, event: Event) -> None:
        """Take an event of the pool. Quick, because the pool waits for it."""
        if event.name in ("call.stop", "call.exception"):
            self._note_time(event.measurements["total"])
        elif event.name in _SHOWN:
            self._note_event(event)

    def _note_time(self, seconds: float) -> None:
        self._ended += 1
        if len(self._times) < _MOST_TIMES:
            self._times.append(seconds)
        elif (at := random.randrange(self._ended)) < _MOST_TIMES:  # noqa: S311 - each call has the same chance
            self._times[at] = seconds

    def _note_event(self, event: Event) -> None:
        metadata = event.metadata
        if event.name == "worker.ended" and not metadata.get("in_order", True):
            return  # it has crashed, which is told already
        self._event_number += 1
        self.events.append(
            {
                "number": self._event_number,
                "at": event.at,
                "about": str(metadata.get("worker") or metadata.get("name") or "pool")[:_LONGEST],
                "pid": metadata.get("pid"),
                "kind": event.name,
                "what": _SHOWN[event.name],
                "cause": _cause_of(event)[:_LONGEST],
            }
        )

    def take_sample(self, counts: Mapping[str, int], more: Mapping[str, Any], now: float) -> None:
        """Note how things are. `counts` are of the whole life of the pool; `now` is the time of a clock, in seconds."""
        before, seconds = self._before or counts, max(1e-3, now - self._last_at)
        rates = {name: max(0.0, (counts[name] - before[name]) / seconds) for name in _COUNTS}
        times, self._times, self._ended = sorted(self._times), [], 0
        quantiles = {f"p{percent}": quantile(times, percent / 100) for percent in (50, 95, 99)}
        self._sample_number += 1
        self._before, self._last_at = counts, now
        self.samples.append({"number": self._sample_number, "at": time.time(), **rates, **quantiles, **more})

    def samples_after(self, number: int) -> list[dict[str, Any]]:
        """The samples that came after the one of that number, the oldest first."""
        return [sample for sample in self.samples if sample["number"] > number]

    def events_after(self, number: int) -> list[dict[str, Any]]:
        """The events that came after the one of that number, the oldest first."""
        return [event for event in self.events if event["number"] > number]


def quantile(sorted_times: Sequence[float], share: float) -> float | None:
    """The time that this share of the calls did not exceed; None without calls."""
    if not sorted_times:
        return None
    return sorted_times[min(len(sorted_times) - 1, int(share * len(sorted_times)))]


def _cause_of(event: Event) -> str:
    metadata = event.metadata
    if event.name == "worker.stepped_in":
        return f"in place of {metadata.get('replaced')}"
    if event.name == "pool.scaled":
        workers, before = event.measurements.get("workers"), event.measurements.get("before")
        return f"from {before} to {workers}: {metadata.get('reason')}"
    if event.name == "call.tainted":
        return f"this {metadata.get('kind')} has killed workers"
    return str(metadata.get("problem") or "")
