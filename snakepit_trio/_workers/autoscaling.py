"""How many workers an autoscaled pool should have. Plain state: no await, no clock, times are arguments, in seconds.

The pool grows while calls wait that a further worker would take, and shrinks by workers that nobody has used for a
while. What keeps it from flapping:

- Growing takes a queue that has been there for `scale_up_after`, and then again as long for each further step.
- A step starts no more workers than waiting calls would keep busy, and at most doubles the workers that are ready.
  Workers that are starting count: a model that takes a minute to load is not answered by ever more starts.
- Shrinking takes workers that were idle for `idle_timeout` without a break. The scheduler gives a call to the worker
  that was used last. So a steady load keeps the same workers busy, and the others are idle without a break.
- There is no shrinking within `idle_timeout` of the last growth, or while calls wait.
- A start that fails ends growth for a pause.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from snakepit_trio._config.policies import Bounds


@attrs.frozen(kw_only=True)
class Load:
    """What a pool has to do, at one moment."""

    target: int  # workers that there should be
    ready: int  # workers that take calls
    starting: int  # workers that are being started, for the first time or again; not those in quarantine
    wanted: int  # further workers that the waiting calls would keep busy
    idle_since: Sequence[float]  # since when each idle worker has had no call


class AutoscalingPolicy:
    """The decisions of one pool."""

    def __init__(self, bounds: Bounds, *, scale_up_after: float, idle_timeout: float) -> None:
        self.bounds = bounds
        self.reason = ""  # of the last decision that has changed something
        self._scale_up_after = scale_up_after
        self._idle_timeout = idle_timeout
        self._wanted_since: float | None = None
        self._grown_at = float("-inf")
        self._not_before = float("-inf")  # no growth, because a start has failed

    def is_paused(self, now: float) -> bool:
        """Whether there is no growth now, because a start has failed."""
        return now < self._not_before

    def is_surplus(self, now: float, idle_since: float) -> bool:
        """Whether a worker has been idle for so long that the pool can do without it."""
        return now - idle_since >= self._idle_timeout

    def failed(self, now: float, pause: float) -> None:
        """A worker could not start: try no other one for `pause` seconds."""
        self._not_before = now + pause

    def decide(self, now: float, load: Load) -> int:
        """The number of workers that there should be from now on."""
        least, most = self.bounds
        self._note(now, load.wanted)
        if load.target < least:
            return load.target if self.is_paused(now) else self._grow(now, least, f"there are at least {least}")
        if load.target > most:
            return self._change(most, f"there are at most {most}")
        if load.wanted:
            return min(most, self._grown(now, load))
        return max(least, self._shrunk(now, load))

    def _note(self, now: float, wanted: int) -> None:
        if not wanted:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now

    def _grown(self, now: float, load: Load) -> int:
        since = self._wanted_since
        if since is None or now - since < self._scale_up_after or self.is_paused(now):
            return load.target
        step = min(min(load.wanted, max(1, load.ready)) - load.starting, self.bounds.most - load.target)
        if step <= 0:
            return load.target
        return self._grow(now, load.target + step, f"calls have waited for {now - since:.1f} s")

    def _shrunk(self, now: float, load: Load) -> int:
        if now - self._grown_at < self._idle_timeout:
            return load.target
        surplus = sum(self.is_surplus(now, since) for since in load.idle_since)
        surplus = min(surplus, load.target - self.bounds.least)
        if surplus <= 0:
            return load.target
        return self._change(load.target - surplus, f"idle for {self._idle_timeout:g} s")

    def _grow(self, now: float, target: int, reason: str) -> int:
        self._grown_at = now
        self._wanted_since = None
        return self._change(target, reason)

    def _change(self, target: int, reason: str) -> int:
        self.reason = reason
        return target
