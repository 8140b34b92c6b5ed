"""Calls of batch tools: the pool collects them, and a worker runs the calls of a batch together.

For the scheduler and on the wire, a batch is a call of its own: it has a place in the queue, takes a place of its
worker and of each limit, is sent ahead and recalled, and comes back when its worker dies before it has started. Its
callers wait each for a call of their own, which is in the batch and nowhere else.

A batch is collected until it is full, or for the `wait` of its tool. Then it goes to a worker, or waits for one in the
queue, and takes further calls there until it is full or starts. Calls share a batch if they are of the same tool, of
one priority, have the same limits, and need the same resources.

Workers of one pool may have different code, while a reload goes on. So a batch that is about to be sent may be larger
than its worker takes, or its tool may be no batch tool there. Calls that are too many go back into the queue: in
batches that fit, or alone.

A caller that gives up leaves its batch. Unless it is the last one, its call is over for it at once, and the batch goes
on for the others. The last one stops the batch as any call is stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import trio

from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.wire import codec
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import BATCH, ToolSpec
from snakepit_trio._util.log import get_logger

from .call import Call, CallState, CallWorker, failure_of
from .queues import Limit, Needs, Slot
from .scheduler import Scheduler

_Kind = tuple[str, int, tuple[Limit, ...], Needs]  # calls of the same kind share a batch
_NOTHING = EncodedValue(b"", None)

logger = get_logger("snakepit.dispatcher")


class Batch(Call):
    """Calls that run together. `members` are those of them that have no outcome yet.

    While it is collected, it is `NEW`.
    """

    __slots__ = ("_batches", "due", "end", "kind", "members", "weight")

    def __init__(self, kind: _Kind, due: float, batches: Batches) -> None:
        name, priority, limits, needs = kind
        super().__init__(name, _NOTHING, "", None, credit=0, priority=priority)
        self.tool = BATCH
        self.limits = limits
        self.needs = needs
        self.claim = self._send
        self.kind = kind
        self.due = due  # when it goes to a worker, even if it is not full
        self.members: dict[Call, None] = {}
        self.weight = 0
        self.end: Frame | None = None  # came before the results of some of its calls, which are still being fetched
        self._batches = batches

    def _send(self, worker: CallWorker) -> bool:
        """Send the calls, just before the batch itself. Returns whether there is any."""
        self._batches.close(self)
        self.state = CallState.ASSIGNED  # first: it has left the queue
        for call in list(self.members):
            try:
                worker.open_item(self, call)
            except Exception as error:  # the others may have room
                self._batches.drop(call)
                call.finish(None, failure_of(call, error))
        self.body = codec.encode_plain([self.name, [call.id for call in self.members]])
        return bool(self.members)

    def drop(self, call: Call) -> None:
        """Note that a call of the batch is over."""
        self._batches.drop(call)

    def came_back(self) -> None:
        """Note that its worker had not started it."""
        for call in self.members:
            call.worker, call.id, call.state = None, 0, CallState.QUEUED

    def finish(self, final: Frame | None, failure: Exception | None = None) -> None:
        """Set the outcome. Calls that have none of their own get `failure`."""
        super().finish(final, failure)
        self._batches.close(self)
        left = list(self.members)
        for call in left:
            self._batches.drop(call)
            if not call.is_over:
                call.finish(None, None if call.abandoned else self._failure_for(call))
        for call in left:
            if call.worker is not None:
                call.worker.drop_item(call)

    def _failure_for(self, call: Call) -> Exception:
        if self.failure is None:
            return RemoteProtocolError(f"{call.name!r} ended in its worker without an outcome")
        return _copied(self.failure)


def _copied(error: Exception) -> Exception:
    """Copy an error, without its `__init__`: each caller raises its own, which gets a traceback, and maybe notes."""
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    copied.__cause__ = error.__cause__
    return copied


class Batches:
    """The batches of one pool that have not ended. `put` brings a batch to a worker or into the queue."""

    def __init__(self, scheduler: Scheduler[Call], put: Callable[[Batch], None]) -> None:
        self.tools: dict[str, ToolSpec] = {}  # the batch tools, by name
        self._scheduler = scheduler
        self._put = put
        self._open: dict[_Kind, Batch] = {}  # those that take more calls
        self._of: dict[Call, Batch] = {}
        self._nap = trio.CancelScope()

    @property
    def collected(self) -> int:
        """Calls in batches that are being collected."""
        return sum(batch.weight for batch in self._open.values() if batch.state is CallState.NEW)

    def note_tools(self, tools: Mapping[str, ToolSpec]) -> None:
        """Note which tools there are."""
        self.tools = {name: tool for name, tool in tools.items() if tool.batch is not None}

    def most(self, name: str | None) -> int:
        """How many calls of a tool may run together; 1 for all others."""
        tool = None if name is None else self.tools.get(name)
        return 1 if tool is None or tool.batch is None else tool.batch

    def takes(self, call: Call) -> bool:
        """Whether a call is to run in a batch.

        A call that a host tool makes runs alone: it may be what the places wait for that its batch would wait for.
        """
        return call.tool in self.tools and call.parent is None and call.claim is None and call.credit is None

    def join(self, call: Call, now: float) -> None:
        """Put a new call into a batch. Raises `QueueFull`, and then keeps nothing of the call."""
        tool = self.tools[call.tool]
        kind = call.name, call.priority, call.limits, call.needs
        batch = self._open.get(kind) or Batch(kind, now + tool.wait, self)
        if batch.state is CallState.QUEUED:
            self._scheduler.count_more(1, call.size)
        else:
            size = sum(each.size for each in self.collecting())
            self._scheduler.check_more(self.collected + 1, size + call.size)
        self._scheduler.number(call)
        self._open[kind] = self._of[call] = batch
        batch.members[call] = None
        batch.weight += 1
        batch.size += call.size
        call.state = CallState.QUEUED
        assert tool.batch is not None
        if batch.weight >= tool.batch:
            self.close(batch)
            if batch.state is CallState.NEW:
                self._put(batch)
        elif batch.weight == 1 and batch.due < self._nap.deadline:
            self._nap.deadline = batch.due

    def split(self, batch: Batch, worker: CallWorker, now: float) -> list[tuple[Slot[Call], Call]]:
        """Queue the calls again that a worker does not run together with the others. Returns the assignments.

        `batch` has left the queue for this worker. If this raises an error, calls that are not in the queue have it.
        """
        assignments: list[tuple[Slot[Call], Call]] = []
        parts = self._surplus(batch, worker)
        try:
            while parts:
                assignments += self._scheduler.requeue(parts[-1], now)
                parts.pop()
        except Exception as error:
            for part in parts:
                part.finish(None, failure_of(part, error))
            raise
        return assignments

    def _surplus(self, batch: Batch, worker: CallWorker) -> list[Call]:
        tool = worker.tools.get(batch.name)
        most = 0 if tool is None else tool.batch or 0
        if len(batch.members) <= most:
            return []
        self.close(batch)
        batch.state = CallState.ASSIGNED  # first: it has left the queue
        surplus = list(batch.members)[most:]
        for call in surplus:
            self.drop(call)
        parts = [self._part(batch, surplus[at : at + most]) for at in range(0, len(surplus), most)] if most else surplus
        for part in parts:
            part.rank, part.state = batch.rank, CallState.QUEUED
        return parts

    def _part(self, batch: Batch, calls: Sequence[Call]) -> Call:
        part = Batch(batch.kind, batch.due, self)
        self._scheduler.number(part)
        for call in calls:
            self._of[call] = part
            part.members[call] = None
            part.weight += 1
            part.size += call.size
        return part

    def drop(self, call: Call) -> None:
        """Take a call out of its batch, if it is in one."""
        batch = self._of.pop(call, None)
        if batch is None:
            return
        batch.members.pop(call, None)
        if batch.state is CallState.QUEUED:
            self._scheduler.count_more(-1, -call.size)
        batch.weight -= 1
        batch.size -= call.size

    def leave(self, call: Call) -> Call:
        """Take out a call whose caller has given up. Returns what must be stopped now: the call, or its batch.

        If others are left in the batch, or it is not even in the queue, the call is over.
        """
        batch = self._of.get(call)
        if batch is None:
            return call
        call.abandoned = True
        if len(batch.members) > 1:
            self.drop(call)
            if call.worker is not None:
                call.worker.drop_item(call)
            call.finish(None)
            return call
        if batch.state is CallState.NEW:
            batch.finish(None)
        return batch

    def close(self, batch: Batch) -> None:
        """Let a batch take no more calls."""
        if self._open.get(batch.kind) is batch:
            del self._open[batch.kind]

    def collecting(self) -> list[Batch]:
        """The batches that are being collected."""
        return [batch for batch in self._open.values() if batch.state is CallState.NEW]

    async def run(self) -> NoReturn:
        """Until cancelled, send each batch that has been collected for long enough."""
        while True:
            now = trio.current_time()
            for batch in [batch for batch in self.collecting() if batch.due <= now]:
                with logger.tolerates("sending a batch"):
                    self._put(batch)
            due = min((batch.due for batch in self.collecting()), default=math.inf)
            with trio.CancelScope(deadline=due) as self._nap:
                await trio.sleep_forever()
