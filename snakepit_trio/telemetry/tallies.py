"""Histograms of a pool's calls, by tool. Only a pool whose metrics are in use has any."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from .handlers import Event

#: Upper bounds of the buckets. The middle is as the semantic conventions of RPC advise; most calls are quicker.
SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 30.0, 60.0, 300.0),
)
BYTES: Final = tuple(4.0**n for n in range(3, 15))  # 64 bytes to 256 MiB
#: How many tools have a label of their own. A name is sent by a worker, or made of a function: nothing else bounds it.
MOST_NAMES: Final = 200
_LONGEST_NAME: Final = 200  # characters
OTHER: Final = "other"


class Histogram:
    """Counts of values by size."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[float, int]]:
        """By upper bound, the last of which is infinite: how many values are not above it."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))


class ToolTally:
    """The histograms of one tool: seconds of its calls, and bytes of their arguments and results."""

    __slots__ = ("queue", "ran", "received", "sent", "total")

    def __init__(self) -> None:
        self.queue = Histogram(SECONDS)
        self.ran = Histogram(SECONDS)
        self.total = Histogram(SECONDS)
        self.sent = Histogram(BYTES)
        self.received = Histogram(BYTES)


class Tallies:
    """The histograms of all tools. Beyond `MOST_NAMES` of them, further tools share one, which is named `OTHER`."""

    def __init__(self) -> None:
        self._tools: dict[str, ToolTally] = {}

    def of(self, tool: str) -> ToolTally:
        """The histograms of a tool."""
        found = self._tools.get(tool)
        return self._new(tool[:_LONGEST_NAME]) if found is None else found

    def note(self, event: Event) -> None:
        """Count a call or a stream whose end an event tells."""
        times = event.measurements
        if "total" not in times:
            return  # it has begun, or reports progress
        tally = self.of(event.metadata["name"])
        tally.total.add(times["total"])
        tally.queue.add(times["queued"])
        tally.sent.add(times["sent_bytes"])
        if event.metadata["worker"] is not None:
            tally.ran.add(times["ran"])
        if event.name == "call.stop":
            tally.received.add(times["returned_bytes"])

    def _new(self, name: str) -> ToolTally:
        if len(self._tools) >= MOST_NAMES and name not in self._tools:
            name = OTHER
        return self._tools.setdefault(name, ToolTally())

    def __iter__(self) -> Iterator[tuple[str, ToolTally]]:
        return iter(list(self._tools.items()))
