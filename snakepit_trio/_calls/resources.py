"""Calls that need resources, which wait for a worker that has enough of them left. Plain state, as in `scheduler`.

A worker offers amounts of resources by name. A call takes what it needs in the same step in which it gets a place of a
worker, and gives it back with the place. When the worker takes no more calls, its amounts are gone with it.

Waiting calls that need the same share a queue (`SameNeeds`). A worker with room looks at the first call of each queue.
So a step costs the more, the more different needs wait, but not the more calls wait.

Reservations: calls with small needs could start again and again in front of a call that needs much, and never leave
enough of a worker to it. So each queue has a reservation at one worker that offers enough, as soon as it finds its
first call short of something. There no later call starts that needs one of the same resources, until that first call
has started, there or anywhere else. All other workers go on. A queue makes no reservation while one of its limits is
full, because it would hold up others for the sake of a call that cannot run anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic

from bridge_py.wire.amounts import shown, thousandths
from bridge_py.wire.specs import ToolSpec
from snakepit_trio.errors import ResourcesNotOffered

from .queues import C, CallQueue, Key, Limit, Needs, Schedulable, Slot

_Same = tuple[Needs, tuple[Limit, ...], str, bool]
Offers = Mapping[str, int]


class SameNeeds(Generic[C]):
    """Waiting calls that need the same: amounts, places of limits and, if they are strict, a session's worker."""

    __slots__ = ("limits", "names", "needs", "passes", "queue", "reserved", "session_id")

    def __init__(self, needs: Needs, limits: tuple[Limit, ...], session_id: str, passes: bool) -> None:
        self.needs = needs
        self.names = frozenset(name for name, _ in needs)
        self.limits = limits
        self.session_id = session_id  # empty if any worker will do
        self.passes = passes  # no reservation holds them up
        self.queue: CallQueue[C] = CallQueue()
        self.reserved: Slot[C] | None = None

    @property
    def is_limited(self) -> bool:
        """Whether a limit is full of which its calls need a place."""
        return any(limit.is_full for limit in self.limits)


class NeedyCalls(Generic[C]):
    """The waiting calls of a pool that need resources."""

    def __init__(self, slots: Iterable[Slot[C]], home: Callable[[str], Slot[C] | None]) -> None:
        """`slots` are the workers, and `home` finds the worker of a session."""
        self.queued = 0
        self.loosened: list[Slot[C]] = []  # workers at which a reservation holds up fewer calls than before
        self._slots = slots
        self._home = home
        self._queues: dict[_Same, SameNeeds[C]] = {}

    def __iter__(self) -> Iterator[C]:
        for same in self._queues.values():
            yield from same.queue

    @property
    def needs(self) -> set[Needs]:
        """What waiting calls need."""
        return {same.needs for same in self._queues.values()}

    def with_needs(self, needs: Needs) -> list[C]:
        """The waiting calls that need just that."""
        return [call for same in self._queues.values() if same.needs == needs for call in same.queue]

    @property
    def has_limits(self) -> bool:
        """Whether any of the calls has limits."""
        return any(same.limits for same in self._queues.values())

    def fits(self, further: Sequence[Offers]) -> bool:
        """Whether one of some further workers, with these offers, would take a waiting call."""
        return any(
            any(offers_enough(offers, same.needs) for offers in further)
            for same in self._queues.values()
            if not same.is_limited and not (same.session_id and self._able_home(same.session_id, same.needs))
        )

    def home(self, call: C) -> Slot[C] | None:
        """The worker of a call's session. None if it has none, or one that can never give the call what it needs."""
        return self._able_home(call.session_id, call.needs) if call.session_id else None

    def _able_home(self, session_id: str, needs: Needs) -> Slot[C] | None:
        home = self._home(session_id)
        return home if home is not None and offers_enough(home.offers, needs) else None

    def append(self, call: C) -> None:
        """Add a new call."""
        same = self._queue_of(call)
        same.queue.append(call)
        self._added(same)

    def put_back(self, call: C) -> None:
        """Add a call at the place of its key."""
        same = self._queue_of(call)
        same.queue.put_back(call)
        self._added(same)

    def remove(self, call: C) -> bool:
        """Take out a waiting call; False if it is not here."""
        same = self._queues.get(_same(call))
        if same is None or not same.queue.remove(call):
            return False
        self.queued -= 1
        if not same.queue:
            del self._queues[_same(call)]
        if (slot := self._reserved(same)) is not None:
            self.loosened.append(slot)
        return True

    def choose(self, call: C, slots: Iterable[Slot[C]]) -> Slot[C] | None:
        """The first worker at which a new call may start. Looks at all of `slots` if none may take it."""
        same = self._queues.get(_same(call))
        if same is not None and same.queue.head < (call.rank, call.order) and call.affinity != "strict_fail_fast":
            return None  # an earlier call would have started
        closed = self._closed_to(call)
        return next((slot for slot in slots if slot not in closed and has_enough(slot, call.needs)), None)

    def _closed_to(self, call: C) -> set[Slot[C]]:
        if call.passes:
            return set()
        key, names = (call.rank, call.order), {name for name, _ in call.needs}
        earlier = [same for same in self._queues.values() if same.queue.head < key and not names.isdisjoint(same.names)]
        return {slot for same in earlier if (slot := self._reserved(same)) is not None}

    def first_for(self, slot: Slot[C]) -> SameNeeds[C] | None:
        """The queue whose first call may start at a worker that has a place, and goes before all others that may."""
        held: set[str] = set()
        for same in sorted(self._queues.values(), key=_head):
            home = self._able_home(same.session_id, same.needs) if same.session_id else None
            if home is not None and home is not slot:
                continue
            if not same.is_limited:
                if has_enough(slot, same.needs) and (same.passes or held.isdisjoint(same.names)):
                    return same
                self._reserve(same)
            if self._reserved(same) is slot:
                held |= same.names
        return None

    def reserve(self) -> None:
        """Make the reservations that are missing: a worker has come or gone."""
        for same in sorted(self._queues.values(), key=_head):
            if same.reserved is not None and same.reserved.is_gone:
                same.reserved = None
            if not same.is_limited:
                self._reserve(same)

    def mend(self, held: Iterable[C], forget: Callable[[C], bool]) -> None:
        """Rebuild the state after an error in the middle of a change. Workers have `held`, which may wait here too."""
        orders = {call.order for call in held}
        waiting = [call for call in self if not forget(call) and call.order not in orders]
        self.queued, self._queues = 0, {}
        for slot in self._slots:
            slot.free = dict(slot.offers)
            for call in slot.calls.values():
                occupy(slot, call)
        for call in sorted(waiting, key=lambda call: (call.rank, call.order)):  # the first reserves first
            self.put_back(call)

    def _queue_of(self, call: C) -> SameNeeds[C]:
        same = self._queues.get(_same(call))
        if same is None:
            same = self._queues[_same(call)] = SameNeeds(*_same(call))
        return same

    def _added(self, same: SameNeeds[C]) -> None:
        self.queued += 1
        if not same.is_limited:
            self._reserve(same)

    def _reserve(self, same: SameNeeds[C]) -> None:
        """Reserve the worker that lacks the least. One at which no other call waits like this is better."""
        if same.reserved is not None:
            return
        others = [other for other in self._queues.values() if not same.names.isdisjoint(other.names)]
        taken = {other.reserved for other in others}
        able = [slot for slot in self._slots if offers_enough(slot.offers, same.needs)]
        same.reserved = min(able, key=lambda slot: (slot in taken, _lack(slot, same.needs)), default=None)

    def _reserved(self, same: SameNeeds[C]) -> Slot[C] | None:
        """The worker that a queue has reserved: that of its session, if it is to run there."""
        if same.reserved is None or not same.session_id:
            return same.reserved
        return self._able_home(same.session_id, same.needs) or same.reserved


def _same(call: Schedulable) -> _Same:
    session_id = "" if call.affinity == "hint" else call.session_id
    return call.needs, call.limits, session_id, call.passes


def _head(same: SameNeeds[C]) -> Key:
    return same.queue.head


def _lack(slot: Slot[Any], needs: Needs) -> int:
    return sum(max(0, amount - slot.free.get(name, 0)) for name, amount in needs)


def has_enough(slot: Slot[C], needs: Needs) -> bool:
    """Whether a worker has enough left."""
    return offers_enough(slot.free, needs)


def offers_enough(offers: Offers, needs: Needs) -> bool:
    """Whether each amount that is needed is offered."""
    return all(offers.get(name, 0) >= amount for name, amount in needs)


def occupy(slot: Slot[C], call: C) -> None:
    """Take what a call needs from a worker."""
    for name, amount in call.needs:
        slot.free[name] = slot.free.get(name, 0) - amount


def give_back(slot: Slot[C], call: C) -> None:
    """Give back to a worker what a call has needed."""
    for name, amount in call.needs:
        slot.free[name] += amount


class Supply:
    """What the workers of a pool offer, those that are being started or restarted among them."""

    def __init__(self, offers: Callable[[], Sequence[Offers]]) -> None:
        self.offers = offers
        self.of_tools: dict[str, dict[str, int]] = {}  # what tools need, by name
        self._met: set[Needs] = set()  # needs for which a worker was found

    def note_tools(self, tools: Iterable[ToolSpec]) -> None:
        """Note what tools need, in place of what they needed before."""
        self.of_tools = {tool.name: thousandths(tool.resources) for tool in tools if tool.resources}
        self.changed()

    def needs_of(self, tool: str, asked: Needs) -> Needs:
        """What a call needs: what it asks for, and else what its tool needs."""
        amounts = {**self.of_tools.get(tool, {}), **dict(asked)}
        return tuple(sorted((name, amount) for name, amount in amounts.items() if amount))

    def check(self, name: str, needs: Needs) -> None:
        """Raise `ResourcesNotOffered` if no worker can ever run a call of this name."""
        if needs and needs not in self._met:
            if (missing := self.missing(needs)) is not None:
                raise ResourcesNotOffered(f"{name!r} cannot run: {missing}")
            self._met.add(needs)

    def missing(self, needs: Needs) -> str | None:
        """What no worker offers of some needs, in words; None if one of the workers offers them all."""
        offers = self.offers()
        if any(offers_enough(offer, needs) for offer in offers):
            return None
        for name, amount in needs:
            most = max((offer.get(name, 0) for offer in offers), default=0)
            if amount > most:
                offered = shown({name: most})
                return _told({name: amount}, f"the most that a worker of the pool offers is {offered}")
        return _told(dict(needs), "no worker of the pool offers all of it together")

    def changed(self) -> None:
        """Note that the workers, or what tools need, may have changed."""
        self._met.clear()


def _told(needs: Offers, problem: str) -> str:
    remedy = "Need less, or open the pool with resources= or per_worker= that offer it"
    return f"it needs {shown(needs)}, and {problem}. {remedy}"
