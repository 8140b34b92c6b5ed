"""Calls that wait for places of limits, and those that hold some. Plain state, as in `scheduler`.

A call takes a place of each of its limits in the same step in which it gets a worker: all of them, or none. So no call
holds a place and waits for another one, and there is no deadlock. Of all waiting calls whose places are free, the
first one is taken. So a call is overtaken only by calls that need no place for which it waits.

Waiting calls that need the same limits share a queue (`SameLimits`), and each such queue is at one of its limits. The
limits that have free places are in a group of their own: the first call of the first limit is looked at. If another
limit of it is full, its queue moves to that limit, and is not looked at again before a place of that one is free. So no
call whose places are all free is missed, and calls that must wait cost the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic
from weakref import WeakValueDictionary

from snakepit_trio._util.validation import check_whole, refuse

from .queues import LAST, C, Group, Key, Limit, SameLimits

_Limits = tuple[Limit, ...]


class LimitedCalls(Generic[C]):
    """The waiting calls of a pool that have limits, and the calls that hold places."""

    def __init__(self) -> None:
        self.queued = 0
        self._queues: dict[_Limits, SameLimits[C]] = {}  # of the calls that wait
        self._free: Group[Limit] = Group()  # limits with free places at which calls wait
        self._holders: dict[int, C] = {}  # the calls that hold places, by order

    def __iter__(self) -> Iterator[C]:
        for same in self._queues.values():
            yield from same.queue

    @property
    def head(self) -> Key:
        """The key of the first call whose places are all free; `LAST` if there is none."""
        same = self._first()
        return LAST if same is None else same.queue.head

    @property
    def first(self) -> C | None:
        """The first call whose places are all free."""
        same = self._first()
        return None if same is None else same.queue.first

    def holds(self, call: C) -> bool:
        """Whether a call holds its places."""
        return call.order in self._holders

    def holders(self, limit: Limit) -> list[C]:
        """The calls that hold a place of a limit."""
        return [call for call in self._holders.values() if limit in call.limits]

    def append(self, call: C) -> None:
        """Add a new call, which holds no places."""
        self._queue_of(call).queue.append(call)
        self._added(call)

    def put_back(self, call: C) -> None:
        """Add a call, which holds no places, at the place of its key."""
        self._queue_of(call).queue.put_back(call)
        self._added(call)

    def remove(self, call: C) -> bool:
        """Take out a waiting call; False if it is not here."""
        same = self._queues.get(call.limits)
        if same is None or not same.queue.remove(call):
            return False
        self.queued -= 1
        if not same.queue:
            del self._queues[call.limits]
            if (limit := _limit_of(same)) is not None:
                limit.queue.leave(same)
                self._list(limit)
        return True

    def take(self, call: C) -> None:
        """Give a call its places, which must be free."""
        self._holders[call.order] = call
        for limit in call.limits:
            limit.taken += 1
        for limit in call.limits:
            self._list(limit)

    def free(self, call: C) -> bool:
        """Take back the places of a call. False if it holds none."""
        if self._holders.pop(call.order, None) is None:
            return False
        for limit in call.limits:
            limit.taken -= 1
        for limit in call.limits:
            self._list(limit)
        return True

    def renew(self, limit: Limit) -> None:
        """Note that the number of a limit's places has changed."""
        self._list(limit)

    def mend(self, holders: Iterable[C], elsewhere: Iterable[C], forget: Callable[[C], bool]) -> None:
        """Rebuild the state after an error in the middle of a change.

        `holders` hold places for certain, and `elsewhere` are those of them that wait, but not here.
        """
        surely = {call.order: call for call in holders}
        there = {call.order for call in elsewhere}
        waiting = [call for call in self if not forget(call) and call.order not in surely and call.order not in there]
        limits = {limit: None for same in self._queues.values() for limit in same.limits}
        limits |= {limit: None for call in (*self._holders.values(), *surely.values()) for limit in call.limits}
        for limit in limits:
            limit.taken, limit.queue, limit.group = 0, Group(), None
        idle = {call.order for call in waiting}
        kept = {order: call for order, call in self._holders.items() if not forget(call) and order not in idle}
        self.queued, self._queues, self._free, self._holders = 0, {}, Group(), {}
        for call in (kept | surely).values():
            self.take(call)
        for call in waiting:
            self.put_back(call)

    def _queue_of(self, call: C) -> SameLimits[C]:
        same = self._queues.get(call.limits)
        if same is None:
            same = self._queues[call.limits] = SameLimits(call.limits)
        return same

    def _added(self, call: C) -> None:
        self.queued += 1
        same = self._queues[call.limits]
        limit = _limit_of(same)
        if limit is None:
            limit = call.limits[0]
            limit.queue.join(same)
        else:
            limit.queue.renew(same)
        self._list(limit)

    def _first(self) -> SameLimits[C] | None:
        while (limit := self._free.first()) is not None:
            same: SameLimits[C] | None = limit.queue.first()
            assert same is not None
            full = next((other for other in same.limits if other.is_full), None)
            if full is None:
                return same
            limit.queue.leave(same)
            full.queue.join(same)
            self._list(limit)
        return None

    def _list(self, limit: Limit) -> None:
        """Have a limit among the free ones if it has a free place and a call waits at it; else not."""
        is_free = limit.taken < limit.most and len(limit.queue) > 0
        if limit.group is not self._free:
            if is_free:
                self._free.join(limit)
        elif is_free:
            self._free.renew(limit)
        else:
            self._free.leave(limit)


def _limit_of(same: SameLimits[C]) -> Limit | None:
    """The limit at which a queue is: its group is that limit's."""
    return next((limit for limit in same.limits if limit.queue is same.group), None)


class Limits:
    """The limits of one pool, by the tool's name and by key."""

    def __init__(self) -> None:
        self.of_tools: dict[str, Limit] = {}
        # A key is forgotten when neither a call nor a view of the pool has it.
        self._of_keys: WeakValueDictionary[str, Limit] = WeakValueDictionary()

    def of_key(self, key: object, most: object) -> Limit:
        """The limit of a key, which has `most` places from now on. Raises `UsageError` for a bad key or number."""
        if not isinstance(key, str) or not key:
            raise refuse("key", key, "give the limit's key, which is text and not empty")
        check_whole(f"most calls of the key {key!r:.100}", most, 1)
        assert isinstance(most, int)
        limit = self._of_keys.get(key)
        if limit is None:
            limit = self._of_keys[key] = Limit(f"key {key!r:.100}", most)
        limit.most = most
        return limit

    def note_tools(self, mosts: Mapping[str, int]) -> list[Limit]:
        """Note how many calls of each limited tool may run, and return their limits.

        A tool that has a limit already keeps its places. A tool that is left out has no limit any more.
        """
        before, self.of_tools = self.of_tools, {}
        for name, most in mosts.items():
            limit = before.get(name) or Limit(f"tool {name!r:.100}", most)
            limit.most = most
            self.of_tools[name] = limit
        return list(self.of_tools.values())
