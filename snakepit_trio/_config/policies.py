"""When to restart, recycle, refuse and run again. Plain state: no await, no clock, times are arguments, in seconds."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import attrs

from snakepit_trio._util.validation import check_whole, is_whole, refuse, seconds, whole

#: How calls of a session keep to the worker that has served it.
Affinity = Literal["hint", "strict", "strict_fail_fast"]

_MOST_SUSPECTS: Final = 10_000


class Bounds(NamedTuple):
    """How many workers a pool has, at least and at most. If these differ, its load decides."""

    least: int
    most: int

    @property
    def is_range(self) -> bool:
        """Whether the load decides."""
        return self.least < self.most


def bounds_of(workers: object) -> Bounds:
    """Read `workers=`: a number, or the least and the most. Raises `UsageError`."""
    if not isinstance(workers, (tuple, list)):
        check_whole("workers", workers, 1)
        assert isinstance(workers, int)
        return Bounds(workers, workers)
    if len(workers) != 2 or not all(is_whole(each) for each in workers) or not 1 <= workers[0] <= workers[1]:
        raise refuse("workers", workers, "give a whole number of at least 1, or two of them as (least, most)")
    check_whole("workers", workers[1], 1)
    return Bounds(*workers)


class Circuit(StrEnum):
    """Whether a worker is restarted: the circuit breaker's states (M. Nygard, "Release It!", 2007)."""

    CLOSED = "closed"  # restarted, with growing pauses
    OPEN = "open"  # in quarantine: not restarted for a while
    HALF_OPEN = "half-open"  # one trial; the next end decides


class RestartPolicy:
    """How long to wait before one worker is started again.

    A worker that ended after it had served a call is started again at once: its end says nothing about the next
    start. An end before any call is an end in vain. Each end in vain doubles the pause, from `first_delay` to
    `longest_delay`, with "equal jitter" (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    After more than `max_restarts` ends in vain within `restart_period`, the circuit opens: there is one trial every
    `quarantine` seconds, until a worker serves a call.
    """

    def __init__(
        self,
        *,
        max_restarts: int,
        restart_period: float,
        quarantine: float,
        first_delay: float = 0.05,
        longest_delay: float = 1.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.circuit = Circuit.CLOSED
        self._max_restarts = max_restarts
        self._period = restart_period
        self._quarantine = quarantine
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._jitter = jitter
        self._vain: deque[float] = deque()  # times of ends in vain, without any other end in between

    def served(self) -> None:
        """The worker has served a call: whatever was wrong is over."""
        self.circuit = Circuit.CLOSED
        self._vain.clear()

    def ended(self, now: float, *, served: bool) -> float:
        """The worker has ended. Returns the seconds to wait before the next start."""
        if served:
            self.served()
            return 0.0
        self._vain.append(now)
        while self._vain[0] < now - self._period:
            self._vain.popleft()
        if self.circuit is not Circuit.CLOSED or len(self._vain) > self._max_restarts:
            self.circuit = Circuit.OPEN
            return self._quarantine
        return self._pause(len(self._vain) - 1)

    def starting(self) -> None:
        """The worker is started again: in quarantine, this is the trial."""
        if self.circuit is Circuit.OPEN:
            self.circuit = Circuit.HALF_OPEN

    def _pause(self, before: int) -> float:
        if before == 0:
            return 0.0
        delay = min(self._longest_delay, self._first_delay * 2.0 ** min(before - 1, 30))
        return delay / 2 + delay / 2 * self._jitter()


class TaintPolicy:
    """Which commands and sessions are refused because their calls kill workers.

    A key is a command or a session. If its calls have killed `after` workers in a row, it is tainted for `period`.
    After that, one more death taints it again, and one success clears it. Beyond ten thousand suspects, the counts of
    the least recent ones are dropped.
    """

    def __init__(self, *, after: int, period: float) -> None:
        self._after = after
        self._period = period
        self.deaths: OrderedDict[Hashable, int] = OrderedDict()
        self._until: dict[Hashable, float] = {}

    def suspects(self, key: Hashable) -> bool:
        """Whether the last call of the key killed its worker."""
        return key in self.deaths

    def killed(self, key: Hashable, now: float) -> bool:
        """A call of the key has killed its worker. Returns True if that taints the key."""
        deaths = self.deaths[key] = self.deaths.pop(key, 0) + 1
        if len(self.deaths) > _MOST_SUSPECTS:
            oldest, _ = self.deaths.popitem(last=False)
            self._until.pop(oldest, None)
        if deaths < self._after:
            return False
        self._until[key] = now + self._period
        return True

    def succeeded(self, key: Hashable) -> None:
        """A call of the key has ended on a worker that lives."""
        if self.deaths.pop(key, None) is not None:
            self._until.pop(key, None)

    def left(self, key: Hashable, now: float) -> float:
        """Seconds for which the key is still refused; 0 if it is not."""
        return max(0.0, self._until.get(key, now) - now)


@attrs.frozen(kw_only=True)
class RecyclePolicy:
    """The reasons to replace a worker by a fresh one. None: never for that reason."""

    #: Calls served.
    calls: int | None = attrs.field(default=None, validator=whole(1, or_none="never"))
    #: Seconds since its start.
    age: float | None = attrs.field(default=None, validator=seconds(or_none="never"))
    #: Resident memory, in bytes, of the worker process, shared pages included. This bounds no call: the pool looks at
    #: it once in a `ping_interval`, and calls that run then are left to end. Processes that the worker has started
    #: are not counted.
    resident_bytes: int | None = attrs.field(default=None, validator=whole(1, or_none="never"))
    #: The same memory as a hard bound: a worker that holds more is killed, its calls fail with `WorkerCrashed`, and it
    #: is replaced. The pool looks twenty times a second, so a worker may hold more for a moment. Processes that the
    #: worker has started are not counted. `Limits.address_space` bounds at once what a worker may map. A control group
    #: bounds all of its processes.
    max_resident_bytes: int | None = attrs.field(default=None, validator=whole(1, or_none="no bound"))

    def reason(self, *, calls: int, age: float, resident_bytes: int) -> str | None:
        """Why a worker is due, or None if it is not."""
        if self.calls is not None and calls >= self.calls:
            return f"it has served {calls} calls"
        if self.age is not None and age >= self.age:
            return f"it is {age:.0f} s old"
        if self.resident_bytes is not None and resident_bytes >= self.resident_bytes:
            return f"it holds {resident_bytes / 2**20:.0f} MiB"
        return None


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, and after which pauses, a call is run again after its worker crashed."""

    #: Further runs after the first.
    retries: int = attrs.field(default=5, validator=whole(0))
    #: Seconds before the first of these runs; doubled for each further run.
    first_delay: float = attrs.field(default=0.0, validator=seconds(or_zero=True))
    #: The longest pause, in seconds.
    longest_delay: float = attrs.field(default=1.0, validator=seconds(or_zero=True))

    def delay(self, run: int) -> float:
        """Seconds to wait before the `run`-th further run, counted from 1."""
        return min(self.longest_delay, self.first_delay * 2.0 ** min(run - 1, 30))
