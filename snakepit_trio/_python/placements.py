"""The host's account of the objects that workers keep for sessions: where they are, and which are lost.

A session's objects are in one worker at a time: this is the session's placement. The first call of a placement claims
the worker, just before the call is sent there. A call that would start on any other worker is refused before it runs,
and is made anew. When the worker leaves, the next call begins another placement. It brings along the copies that the
host has, and says which names are lost.

The account must be right although calls of a session run side by side, are given up, and answer in another order than
they ran. A worker may also die between storing and answering. So each reply carries the version of the worker's own
account, and the ids of the copies that its objects have. The use of a reply depends on what has happened since:

    the reply                                   the host's account
    ---------                                   ------------------
    of this placement, of a newer version       has the names that the worker holds, and the copies of those objects;
                                                doubts about calls that were made before it are settled
    of this placement, of an older version      gets copies only, of objects that still have their names
    of an earlier placement (it came late)      gets copies only; a stored name without a copy is lost, unless it
                                                has been stored again
    none: the call was given up                 doubts the names that the call may have stored
    none: the worker has left                   keeps names that have a copy, to be restored; all other names, and
                                                all doubtful names, are lost
    any, and the session has ended              stays empty

Plain state: no I/O, and no await but in `ObjectPlacements.open`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from bridge_py.dynamic.stored_objects import Placement
from bridge_py.wire import codec
from snakepit_trio._calls.call import CallWorker

if TYPE_CHECKING:
    from snakepit_trio._calls.dispatcher import Dispatcher
    from snakepit_trio.state.watching import Hub

_copy_ids: Final = itertools.count(1)
_HISTORY: Final = 100  # how many lost names of a session are remembered


def new_copy_id() -> int:
    """An id that no copy has had yet."""
    return next(_copy_ids)


class Copy:
    """The host's copy of an object, as bytes."""

    def __init__(self, value: Any, name: str, id: int) -> None:
        """Encode the value. Raises `EncodeError`."""
        self.id = id
        encoded = codec.encode(value, f"store: {name}")
        self._body = encoded.body
        self._area = b"".join(encoded.buffers)

    def value(self) -> Any:
        """The value, decoded anew. Arrays in it refer to the copy's memory, and are read-only."""
        return codec.decode(self._body, self._area)


class ObjectPlacement:
    """What the host knows of one session's objects."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.number = 1  # of the present placement
        self.worker: CallWorker | None = None  # the worker that the placement has claimed
        self.visited: set[CallWorker] = set()  # workers that may hold objects of the session
        self.objects: dict[str, int] = {}  # by name: the id of the copy, or 0 for no copy
        # Names that a given-up call may have stored, each with the number of calls that had been made by then.
        self.unsure: dict[str, int] = {}
        self.copies: dict[str, Copy] = {}
        self.lost: dict[str, str] = {}  # by name: the message of the error
        self.calls = 0
        self.is_over = False
        self.idle = trio.Event()  # set when the session has ended, and none of its calls is left
        self._made = 0  # calls so far
        self._version = 0
        self._has_begun = False  # the worker has all objects that this placement began with

    @property
    def holds(self) -> bool:
        """Whether the session has objects, or may have some, for which it must stay at its worker."""
        return bool(self.objects or self.unsure or self.copies)

    def placement(self) -> Placement:
        """What a call that is made now must tell its worker."""
        self._move_on()
        restore = {
            name: (copy.id, copy.value()) for name, copy in self.copies.items() if self.objects.get(name) != copy.id
        }
        self._made += 1
        return Placement(self.number, self._made, not self._has_begun, restore, self.lost)

    def claim(self, worker: CallWorker, number: int) -> bool:
        """Whether a call of placement `number` may start on a worker. The first call that may claims the worker."""
        if self.is_over or number != self.number:
            return False
        if self.worker is None:
            self.worker = worker
            self.visited = {each for each in self.visited if not each.has_left} | {worker}
        return self.worker is worker

    def hear(self, placement: Placement, reply: Mapping[str, Any], copies: Mapping[str, Copy]) -> None:
        """Take in the reply of a call. `copies` are copies of objects that the call has stored."""
        if self.is_over or "version" not in reply:
            return
        if placement.number != self.number:
            self._hear_late(placement, reply, copies)
            return
        self._has_begun = True
        if reply["version"] <= self._version:
            # The objects that the call has stored may have been replaced or deleted since.
            self.copies |= {name: copy for name, copy in copies.items() if self.objects.get(name) == copy.id}
            return
        self.copies.update(copies)
        known = {copy.id for copy in copies.values()} | {copy_id for copy_id, _ in placement.restore.values()}
        known |= set(self.objects.values())
        self._version = reply["version"]
        self.objects = dict(reply["objects"])
        # A reply settles only doubts about calls that were given up before its own call was made.
        self.unsure = {name: made for name, made in self.unsure.items() if made >= placement.order}
        for name, copy in tuple(self.copies.items()):
            if copy.id in known and self.objects.get(name) != copy.id:
                del self.copies[name]  # another object has the name now, or none
        for name in (*self.objects, *reply["settled"]):
            self.lost.pop(name, None)

    def _hear_late(self, placement: Placement, reply: Mapping[str, Any], copies: Mapping[str, Copy]) -> None:
        # The worker of the call was already leaving: of the objects that the call stored, only the copies are left.
        for name in reply["stored"]:
            if name in copies and name not in self.objects:
                self.copies[name] = copies[name]
                self.lost.pop(name, None)
            elif name not in self.objects and name not in self.copies:
                self.lost[name] = self._why_lost(name, f"the worker of placement {placement.number} was leaving")

    def doubt(self, names: Iterable[str]) -> None:
        """Note that a call was given up which may have stored objects of these names."""
        if self.worker is not None:
            self.unsure.update(dict.fromkeys(names, self._made))

    def leave(self) -> None:
        """Let the next call go to any worker, if no objects keep the session at its present one."""
        if self.worker is not None and not self.holds:
            self._begin_anew()

    def end(self) -> None:
        """Forget all objects, and tell the workers, because the session has ended."""
        self.is_over = True
        for worker in self.visited:
            worker.end_session(self.session_id)
        self.objects, self.copies, self.lost, self.unsure = {}, {}, {}, {}

    def _move_on(self) -> None:
        if self.worker is None or not self.worker.has_left:
            return
        for name in dict.fromkeys([*self.objects, *self.unsure]):
            copy = self.copies.get(name)
            if name in self.unsure or copy is None or copy.id != self.objects[name]:
                self.copies.pop(name, None)
                self.lost[name] = self._why_lost(name, self.worker.exit_reason)
        while len(self.lost) > _HISTORY:
            del self.lost[next(iter(self.lost))]
        self._begin_anew()

    def _why_lost(self, name: str, why: str) -> str:
        return (
            f"the stored object {name!r} of session {self.session_id!r} is lost: {why}. Store it again; objects that"
            " are stored with durable=True are restored"
        )

    def _begin_anew(self) -> None:
        self.number += 1
        self.worker = None
        self.objects, self.unsure = {}, {}
        self._version = 0
        self._has_begun = False


class ObjectPlacements:
    """The placements of all sessions of a pool."""

    def __init__(self, hub: Hub, dispatcher: Dispatcher) -> None:
        self._hub = hub
        self._dispatcher = dispatcher
        self._placements: dict[str, ObjectPlacement] = {}

    async def open(self, session_id: str) -> ObjectPlacement:
        """The placement of a living session. If an ended session had the same id, waits until its calls are over."""
        while (objects := self._placements.get(session_id)) is not None and objects.is_over:
            await objects.idle.wait()
        if objects is None:
            objects = self._placements[session_id] = ObjectPlacement(session_id)
            self._hub.subscribe(session_id, self, lambda changes: self._hear(session_id, changes))
        return objects

    @contextmanager
    def call(self, objects: ObjectPlacement, stores: Iterable[str]) -> Iterator[None]:
        """Keep account of one call of a session, for the block. `stores` are the names that the call may store."""
        objects.calls += 1
        self._dispatcher.keep_session(objects.session_id)
        number = objects.number
        try:
            yield
        except (trio.Cancelled, TimeoutError):
            if number == objects.number:
                objects.doubt(stores)
            raise
        finally:
            objects.calls -= 1
            if not objects.calls:
                self._is_idle(objects)

    def close(self) -> None:
        """Stop listening to sessions. For a pool that has ended."""
        for session_id in self._placements:
            self._hub.unsubscribe(session_id, self)

    def _is_idle(self, objects: ObjectPlacement) -> None:
        if not objects.holds:
            self._dispatcher.let_session_go(objects.session_id)
            objects.leave()
        if objects.is_over:
            objects.end()  # calls that had not started at that time may have begun the session again in a worker
            self._placements.pop(objects.session_id, None)
            objects.idle.set()

    def _hear(self, session_id: str, changes: object) -> None:
        if changes is None and (objects := self._placements.get(session_id)) is not None:
            objects.end()
            if not objects.calls:
                self._is_idle(objects)


@attrs.frozen
class Step:
    """One step of a pipeline: a call of `target`. If `store_as` is given, the result is stored under that name."""

    target: str
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    args: Sequence[Any] = attrs.field(default=(), kw_only=True)
    store_as: str | None = attrs.field(default=None, kw_only=True)
