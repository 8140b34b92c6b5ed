"""Which calls wait for which worker: queues in the order of their calls' keys, and sessions that keep to a worker.

Plain state, as in `scheduler`: no await, no I/O, no clock. While all calls have one priority, a step takes the same
time however long a queue is. Heaps find the first of the calls that overtake others, and of the sessions whose calls
wait for one worker.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from snakepit_trio._config.policies import Affinity

#: A call's rank and its order. The call with the smallest key goes first. A call keeps its key as long as it lives.
Key = tuple[float, int]

NEVER: Final = float("inf")
LAST: Final[Key] = (NEVER, 0)  # comes after all keys of calls
#: Amounts of resources in thousandths, each above 0, by name and in the order of the names.
Needs = tuple[tuple[str, int], ...]
_SPARE: Final = 16  # outdated entries that a heap may have before they are removed


class Schedulable(Protocol):
    """What the scheduler reads and writes on a call."""

    order: int
    rank: float
    assigned_at: float

    @property
    def priority(self) -> int:
        """How many steps it is ahead of calls of priority 0. The scheduler makes its rank from that."""
        ...

    @property
    def size(self) -> int:
        """The bytes that it holds while it waits."""
        ...

    @property
    def weight(self) -> int:
        """How many callers it counts for while it waits: a batch counts for several."""
        ...

    @property
    def session_id(self) -> str:
        """The id of its session; empty if it has none."""
        ...

    @property
    def affinity(self) -> Affinity:
        """How it keeps to the worker of its session. All waiting calls of a session have the same affinity."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of which it holds a place each while it runs. They do not change while it waits or runs."""
        ...

    @property
    def needs(self) -> Needs:
        """What it needs of its worker while it runs. This does not change while it waits or runs."""
        ...

    @property
    def passes(self) -> bool:
        """Whether no reservation holds it up, because a call that holds resources waits for it."""
        ...


C = TypeVar("C", bound=Schedulable)


class CallQueue(Generic[C]):
    """Waiting calls, in the order of their keys.

    A new call that goes after all others joins the end of a FIFO, as every call does while all have one priority. The
    others, which overtake calls or come back from a worker, are kept apart, and a heap finds the first of them.
    """

    __slots__ = ("_apart", "_fifo", "_heap", "_last_rank")

    def __init__(self) -> None:
        self._fifo: OrderedDict[int, C] = OrderedDict()  # by order; each key is above the one before it
        self._last_rank = 0.0  # no rank in the FIFO is above it
        self._apart: dict[int, C] = {}  # by order
        self._heap: list[Key] = []  # of the calls that are kept apart; some entries may be outdated

    def __len__(self) -> int:
        return len(self._fifo) + len(self._apart)

    def __iter__(self) -> Iterator[C]:
        yield from self._apart.values()
        yield from self._fifo.values()

    @property
    def head(self) -> Key:
        """The key of the first call; `LAST` if none waits."""
        first = _key_of(next(iter(self._fifo.values()), None))
        return min(first, self._head_apart()) if self._apart else first

    @property
    def first(self) -> C:
        """The first call; there must be one."""
        order = self.head[1]
        return self._apart[order] if order in self._apart else self._fifo[order]

    def append(self, call: C) -> None:
        """Add a new call, whose order is above that of all others."""
        if call.rank >= self._last_rank or not self._fifo:
            self._last_rank = call.rank
            self._fifo[call.order] = call
        else:
            self.put_back(call)

    def put_back(self, call: C) -> None:
        """Add a call at the place of its key, which may be anywhere."""
        heapq.heappush(self._heap, (call.rank, call.order))  # first: a call without an entry would never be found
        self._apart[call.order] = call
        self._trim()

    def pop(self) -> C | None:
        """Take the first call, if there is one."""
        if self._apart:
            key = self._head_apart()
            if key < _key_of(next(iter(self._fifo.values()), None)):
                return self._apart.pop(key[1])
        return self._fifo.popitem(last=False)[1] if self._fifo else None

    def remove(self, call: C) -> bool:
        """Take out a call; False if it is not here."""
        if self._fifo.pop(call.order, None) is not None:
            return True
        if self._apart.pop(call.order, None) is None:
            return False
        self._trim()
        return True

    def _head_apart(self) -> Key:
        """The key of the first call that is kept apart; there must be one."""
        heap = self._heap
        while heap[0][1] not in self._apart:
            heapq.heappop(heap)
        return heap[0]

    def _trim(self) -> None:
        if len(self._heap) > 2 * len(self._apart) + _SPARE:
            heap = [(call.rank, call.order) for call in self._apart.values()]
            heapq.heapify(heap)
            self._heap = heap


def _key_of(call: Schedulable | None) -> Key:
    return LAST if call is None else (call.rank, call.order)


class Slot(Generic[C]):
    """A worker as the scheduler sees it: the calls that it holds, in order of assignment, and how quick it has been.

    `offers` are the amounts of resources that its calls may need together, in thousandths by name.
    """

    __slots__ = ("calls", "free", "group", "is_gone", "last_progress", "offers", "pace", "place", "recalled")

    def __init__(self, offers: Mapping[str, int] | None = None) -> None:
        self.offers: Mapping[str, int] = offers or {}
        self.free = dict(self.offers)  # what its calls leave of that
        self.calls: OrderedDict[int, C] = OrderedDict()
        self.pace = NEVER  # smoothed seconds between two ends of calls while it was busy
        self.last_progress = 0.0
        self.recalled = False
        self.is_gone = False
        self.group: Group[SessionQueue[C]] = Group()  # sessions whose calls wait for this worker
        self.place: OrderedDict[Slot[C], None] | None = None  # where the scheduler finds it, if it has room for a call


class HasHead(Protocol):
    """Waiting calls of some kind, of which it knows the first."""

    @property
    def head(self) -> Key:
        """The key of the first call; `LAST` if none waits."""
        ...


class Member:
    """Something with waiting calls that a group orders by their first ones."""

    __slots__ = ("group", "key")

    def __init__(self) -> None:
        self.group: Group[Any] | None = None  # the group that it is in while a call waits
        self.key: Key = LAST  # of its entry in the group's heap: never above the key of its first call

    def __lt__(self, other: Member) -> bool:
        return False  # of two entries with one key, one is outdated


class Listed(Protocol):
    """What a group reads and writes on its members."""

    group: Group[Any] | None
    key: Key

    @property
    def queue(self) -> HasHead:
        """The calls of the member."""
        ...


M = TypeVar("M", bound=Listed)


class SessionQueue(Member, Generic[C]):
    """A session: the worker that served it last, and its calls that wait for one worker and no other."""

    __slots__ = ("id", "queue", "slot")

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = id
        self.slot: Slot[C] | None = None
        self.queue: CallQueue[C] = CallQueue()

    @property
    def home(self) -> Slot[C] | None:
        """The worker that the session is bound to, as long as that worker takes calls; else None."""
        return None if self.slot is None or self.slot.is_gone else self.slot


class Group(Generic[M]):
    """Sessions whose calls wait for the same worker, or for any worker, or other members. Finds the first call."""

    __slots__ = ("_heap", "_size")

    def __init__(self) -> None:
        self._heap: list[tuple[Key, M]] = []  # some entries may be outdated
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def head(self) -> Key:
        """The key of the first call; `LAST` if none waits."""
        heap = self._heap
        while heap:
            key, member = heap[0]
            if not self._is_valid(key, member):
                heapq.heappop(heap)
            elif (first := member.queue.head) != key:  # its first call was withdrawn
                member.key = first
                heapq.heapreplace(heap, (first, member))
            else:
                return key
        return LAST

    def pop(self) -> M:
        """Take out the member with the first call; there must be one."""
        assert self.head is not LAST
        member = heapq.heappop(self._heap)[1]
        self.leave(member)
        return member

    def first(self) -> M | None:
        """The member with the first call; None if no call waits."""
        return None if self.head is LAST else self._heap[0][1]

    def join(self, member: M) -> None:
        """Add a member: its calls wait in this group from now on."""
        member.group = self
        self._size += 1
        self._list(member)

    def renew(self, member: M) -> None:
        """Update the entry of a member after a call has joined it that may be its first."""
        if member.queue.head < member.key:
            self._list(member)

    def leave(self, member: M) -> None:
        """Remove a member: its calls do not wait in this group any more."""
        member.group = None
        self._size -= 1
        if len(self._heap) > 2 * self._size + _SPARE:
            self._heap = [*{entry for entry in self._heap if self._is_valid(*entry)}]
            heapq.heapify(self._heap)

    def merge(self, other: Group[M]) -> Group[M]:
        """Merge both groups and return the merged one. Only the entries of the smaller group are moved."""
        if other._size > self._size:
            return other.merge(self)
        for _, member in other._heap:
            if member.group is other:
                self.join(member)
        return self

    def _list(self, member: M) -> None:
        member.key = member.queue.head
        heapq.heappush(self._heap, (member.key, member))

    def _is_valid(self, key: Key, member: M) -> bool:
        return member.group is self and member.key == key


class Limit(Member):
    """Places that calls share, at most `most` of them. A call holds one while it runs, wherever that is."""

    __slots__ = ("__weakref__", "most", "name", "queue", "taken")

    def __init__(self, name: str, most: int) -> None:
        super().__init__()
        self.name = name  # as messages call it
        self.most = most
        self.taken = 0
        self.queue: Group[SameLimits[Any]] = Group()  # of the waiting calls that need a place, those that are put here

    def __repr__(self) -> str:
        return f"{self.name} ({self.taken} of {self.most} places taken)"

    @property
    def is_full(self) -> bool:
        """Whether no place is free."""
        return self.taken >= self.most


class SameLimits(Member, Generic[C]):
    """Waiting calls that need places of the same limits."""

    __slots__ = ("limits", "queue")

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        super().__init__()
        self.limits = limits
        self.queue: CallQueue[C] = CallQueue()


class SessionQueues(Generic[C]):
    """The sessions of a pool. Of the sessions without waiting calls, the `most` that were used last are remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: OrderedDict[str, SessionQueue[C]] = OrderedDict()  # no call waits; last used at the end
        self._waiting: dict[str, SessionQueue[C]] = {}
        self._kept: dict[str, Slot[C] | None] = {}  # sessions that `keep` holds, and their workers
        self.unbound: Group[SessionQueue[C]] = Group()  # sessions whose calls may go to any worker
        self.queued = 0

    def __len__(self) -> int:
        return len(self._idle) + len(self._waiting)

    def __iter__(self) -> Iterator[C]:
        for session in self._waiting.values():
            yield from session.queue

    @property
    def homes(self) -> set[Slot[C]]:
        """The workers that sessions are bound to. Takes longer the more sessions there are."""
        found = {session.home for session in (*self._idle.values(), *self._waiting.values())}
        return {slot for slot in found if slot is not None} | self.kept_homes

    @property
    def kept_homes(self) -> set[Slot[C]]:
        """The workers of the sessions that `keep` holds."""
        return {slot for slot in self._kept.values() if slot is not None}

    def home(self, id: str) -> Slot[C] | None:
        """The worker that a session is bound to, if that worker takes calls; else None."""
        if (kept := self._kept.get(id)) is not None and not kept.is_gone:
            return kept
        session = self._waiting.get(id) or self._idle.get(id)
        return None if session is None else session.home

    def keep(self, id: str) -> None:
        """Keep a session with its worker, or with the next one that serves it, until that worker takes no more calls.

        A kept session is not forgotten. If one of its calls runs on another worker, the session does not move there.
        """
        self._kept.setdefault(id, self.home(id))

    def let_go(self, id: str) -> None:
        """Undo `keep`: the session is still bound to its worker, but may move and be forgotten again."""
        home = self.home(id)
        if self._kept.pop(id, None) is not None and home is not None and id not in self._waiting:
            self._keep(self._idle.get(id) or SessionQueue(id)).slot = home

    def keeps(self, id: str) -> bool:
        """Whether `keep` holds for a session."""
        return id in self._kept

    def bind(self, id: str, slot: Slot[C]) -> None:
        """Note that a worker serves a session. Its waiting calls go there too, unless the session is kept elsewhere."""
        if id in self._kept:
            slot = self._kept[id] = self.home(id) or slot
        session = self._waiting.get(id)
        if session is None:
            self._keep(self._idle.get(id) or SessionQueue(id)).slot = slot
            return
        session.slot = slot
        if session.group is not slot.group:
            if session.group is not None:
                session.group.leave(session)
            slot.group.join(session)

    def append(self, call: C) -> None:
        """Add a new call. It waits for its session's worker, or for any worker if there is none."""
        session = self._wait(call.session_id)
        session.queue.append(call)
        self._join(session)

    def put_back(self, call: C) -> Slot[C] | None:
        """Put back a call that was assigned. Returns the worker that it waits for, or None for any worker."""
        session = self._wait(call.session_id)
        session.queue.put_back(call)
        self._join(session)
        return session.home

    def take(self, group: Group[SessionQueue[C]]) -> C:
        """Take the first call of a group that is not empty. The caller binds the session to a worker."""
        session = group.pop()
        call = session.queue.pop()
        assert call is not None
        try:
            self._waits_less(session)
        except BaseException:
            session.queue.put_back(call)
            raise
        return call

    def remove(self, call: C) -> bool:
        """Take out a waiting call; False if it is not here."""
        session = self._waiting.get(call.session_id)
        if session is None or not session.queue.remove(call):
            return False
        if not session.queue and session.group is not None:
            session.group.leave(session)
        self._waits_less(session)
        return True

    def drop(self, call: C) -> None:
        """Take out a call, if it waits. Leaves the other state wrong: the caller must call `mend` next."""
        session = self._waiting.get(call.session_id)
        if session is not None:
            session.queue.remove(call)

    def mend(self, slots: Iterable[Slot[C]]) -> None:
        """Rebuild the groups and the count from the sessions' queues, after an error in the middle of a change."""
        self.unbound = Group()
        for slot in slots:
            slot.group = Group()
        for session in list(self._waiting.values()):
            session.group = None
            if session.queue:
                self._join(session)
            else:
                del self._waiting[session.id]
                self._keep(session)
        self.queued = sum(len(session.queue) for session in self._waiting.values())

    def unbind(self, slot: Slot[C]) -> None:
        """A worker takes no more calls: let the calls that wait for it go to any worker."""
        self.unbound = self.unbound.merge(slot.group)
        slot.group = Group()

    def _wait(self, id: str) -> SessionQueue[C]:
        self.queued += 1
        session = self._waiting.get(id)
        if session is None:
            session = self._idle.get(id)
            if session is None:
                session = SessionQueue(id)
                session.slot = self._kept.get(id)
            else:
                del self._idle[id]
            self._waiting[id] = session
        return session

    def _join(self, session: SessionQueue[C]) -> None:
        if session.group is not None:
            session.group.renew(session)
        else:
            home = session.home
            (self.unbound if home is None else home.group).join(session)

    def _waits_less(self, session: SessionQueue[C]) -> None:
        self.queued -= 1
        if not session.queue:
            self._keep(session)  # first, so that no error loses the session
            del self._waiting[session.id]

    def _keep(self, session: SessionQueue[C]) -> SessionQueue[C]:
        self._idle[session.id] = session
        self._idle.move_to_end(session.id)
        if len(self._idle) > self._most:
            self._idle.popitem(last=False)
        return session
