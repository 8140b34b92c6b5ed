"""Carries out what the scheduler decides, and ends calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio

from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._util.changes import Changes
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import (
    PoolClosed,
    PoolSaturated,
    ResourcesNotOffered,
    WorkerBusy,
    WorkerCrashed,
)
from snakepit_trio.telemetry import Events

from .batches import Batch, Batches
from .call import Call, CallState, CallWorker, Displaced, failure_of, stopped
from .counting import is_counted
from .deadlocks import Deadlocks
from .limits import Limits
from .progress import CallProgress, Progress
from .queues import Limit, Slot
from .resources import Offers, Supply
from .scheduler import PlaceTaken, QueueFull, Scheduler
from .stalls import Stalls
from .taints import Taints, keys_of
from .timing import TimeSpent, note_timing
from .wording import meanwhile

Assignments = Sequence[tuple[Slot[Call], Call]]
_MOST_RETURNS: Final = 3
# Python 3.11 takes as long to look up an enum's member as to call a function.
_QUEUED: Final = CallState.QUEUED
_ASSIGNED: Final = CallState.ASSIGNED

logger = get_logger("snakepit.dispatcher")


class Dispatcher:
    """Brings calls to workers and outcomes to calls. Never blocks."""

    def __init__(self, config: PoolConfig) -> None:
        self._concurrency = config.concurrency
        self._max_queue = config.max_queue
        self._max_queue_bytes = math.inf if config.max_queue_bytes is None else config.max_queue_bytes
        self._scheduler: Scheduler[Call] = Scheduler(
            concurrency=config.concurrency,
            ahead=config.ahead,
            most=config.max_queue,
            most_bytes=self._max_queue_bytes,
            sessions=config.affinity_sessions,
        )
        self._workers: dict[Slot[Call], CallWorker] = {}
        self._leaving: dict[Slot[Call], CallWorker] = {}  # take no more calls, and may have some
        self._closed = False
        self._now = trio.lowlevel.current_clock().current_time  # `trio.current_time` takes three times as long
        self.stalls = Stalls(self._scheduler, self._workers)
        self.deadlocks = Deadlocks(self._scheduler, self._workers, config.concurrency, self.withdraw)
        self._limits = Limits()
        self.batches = Batches(self._scheduler, self._put)
        self.supply = Supply(
            lambda: [config.worker_options.resources_of(number) for number in range(config.bounds.most)]
        )
        self._has_rules = False  # whether any tool has a limit, needs resources, or is a batch tool
        self.workers_changed = Changes()
        self.events = Events()
        self.taints = Taints(config, self.events)
        self.tools: dict[str, ToolSpec] = {}  # by name, as the workers describe them
        self.submitted = self.succeeded = self.failed = self.crashed = self.dropped_logs = 0
        self.time_spent = TimeSpent()

    @property
    def is_closed(self) -> bool:
        """Whether calls are refused."""
        return self._closed

    @property
    def takes_calls(self) -> bool:
        """Whether calls are not refused, and a worker takes them."""
        return not self._closed and bool(self._workers)

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return self._scheduler.queued + self.batches.collected

    @property
    def queued_with_limits(self) -> int:
        """Those of them that have limits."""
        return self._scheduler.queued_with_limits

    def unserved(self, further: Sequence[Offers]) -> int:
        """Queued calls that a further worker would take. `further` is what further workers would offer.

        Those of one session count as one, as do all with limits, and all that need resources.
        """
        return self._scheduler.unserved(further)

    def has_sessions(self) -> set[Slot[Call]]:
        """The slots of workers that sessions are bound to. Takes longer the more sessions there are."""
        return self._scheduler.homes

    def has_kept_sessions(self) -> set[Slot[Call]]:
        """The slots of workers with sessions that `keep_session` holds."""
        return self._scheduler.kept_homes

    @property
    def running(self) -> int:
        """Calls that workers have, also those that take no further ones."""
        workers = (*self._workers.values(), *self._leaving.values())
        return sum(call.weight for worker in workers for call in worker.calls.values())

    def submit(self, call: Call) -> None:
        """Bring a call to a worker, or put it into the queue.

        Raises `PoolClosed`, `PoolSaturated`, `WorkerBusy` or `Tainted`. Then the pool keeps nothing of the call.
        """
        if self._closed:
            raise PoolClosed(
                f"{call.name!r} cannot run: the pool is closed. Call it inside of the block of its open_pool"
            )
        if (self.taints.has_suspects or self._has_rules or call.resources) and self._follow_rules(call):
            return
        try:
            slot = self._scheduler.submit(call, self._now())
            self.submitted += 1
            call.state = _QUEUED
            if slot is not None:
                if others := self._start(slot, call):
                    self._carry_out(others)
            elif call.parent is not None:
                self.deadlocks.note(call)
        except QueueFull:
            raise self._saturated(call) from None
        except PlaceTaken:
            raise self._busy(call) from None
        except Exception as error:
            self._mend(error, call)
            if not call.is_over and not _is_sent(call):
                raise failure_of(call, error) from error

    def _follow_rules(self, call: Call) -> bool:
        """Check a call; give it the limit and the needs of its tool. Returns whether it has gone into a batch."""
        if self.taints.has_suspects:
            self.taints.check(call)
        limit = self._limits.of_tools.get(call.tool)
        if limit is not None and limit not in call.limits:  # else it is the same call again
            call.limits = (*call.limits, limit)
        if call.resources or call.tool in self.supply.of_tools:
            call.needs = self.supply.needs_of(call.tool, call.resources)
            call.passes = any(above.needs for above in call.ancestors())
            self.supply.check(call.name, call.needs)
        if self.batches.takes(call):
            self._join_batch(call)
            return True
        return False

    def _join_batch(self, call: Call) -> None:
        try:
            self.batches.join(call, self._now())
            self.submitted += 1
        except QueueFull:
            raise self._saturated(call) from None
        except Exception as error:
            self.batches.drop(call)
            self._mend(error, call)
            if not call.is_over:
                raise failure_of(call, error) from error

    def _put(self, batch: Batch) -> None:
        """Bring a batch to a worker, or put it into the queue. Whatever happens, its calls get their outcomes."""
        try:
            self.supply.check(batch.name, batch.needs)  # again: while it was collected, workers may have gone
            slot = self._scheduler.submit(batch, self._now())
            batch.state = _QUEUED
            if slot is not None:
                self._carry_out([(slot, batch)])
        except QueueFull:
            batch.finish(None, self._saturated(batch))
        except ResourcesNotOffered as error:
            batch.finish(None, error)
        except Exception as error:
            self._mend(error, batch)
            if not batch.is_over and not _is_sent(batch):
                batch.finish(None, failure_of(batch, error))

    def _saturated(self, call: Call) -> PoolSaturated:
        limit, bound = "max_queue", f"max_queue={self._max_queue}"
        if self.queued + call.weight <= self._max_queue:
            limit = "max_queue_bytes"
            bound = f"queued_bytes={self._scheduler.queued_bytes}, max_queue_bytes={self._max_queue_bytes}"
            bound += f", the call's bytes={call.size}"
        return PoolSaturated(
            f"{call.name!r} was not taken: the queue is full (queued={self.queued}, {bound}, running={self.running},"
            f" workers={len(self._workers)}). Call again later, draw calls through pool.map, or open the pool with more"
            f" workers or a larger {limit}"
        )

    def _busy(self, call: Call) -> WorkerBusy:
        slot = self._scheduler.home(call.session_id)
        assert slot is not None
        lack = " place, or too little left of what the call needs" if call.needs else " place"
        return WorkerBusy(
            f"{call.name!r} was not taken: worker {self._workers[slot].id} of session {call.session_id!r} has no free"
            f"{lack} (running={len(slot.calls)}, concurrency={self._concurrency}). Call again later, or open the pool"
            " with affinity='strict' to wait for it"
        )

    def keep_session(self, session_id: str) -> None:
        """Keep a session with its worker as long as that takes calls. Calls with affinity "hint" wait for it too."""
        self._scheduler.keep(session_id)

    def let_session_go(self, session_id: str) -> None:
        """Undo `keep_session`: from now on the affinity of a call alone decides where it goes."""
        self._scheduler.let_go(session_id)

    def keeps_session(self, session_id: str) -> bool:
        """Whether `keep_session` holds for a session."""
        return self._scheduler.keeps(session_id)

    def withdraw(self, call: Call) -> bool:
        """Take a call out of its queue, even if the scheduler fails. Returns False if the call does not wait."""
        try:
            found = self._scheduler.withdraw(call)
            if call.limits or call.needs:
                self._carry_out(self._scheduler.admit(trio.current_time()))
            return found
        except Exception as error:
            self._mend(error, call)
            return call.worker is None

    def limit_of(self, key: object, most: object) -> Limit:
        """The limit of a key, which has `most` places from now on. Raises `UsageError` for a bad key or number."""
        limit = self._limits.of_key(key, most)
        self._resize([limit])
        return limit

    async def watch_supply(self) -> None:
        """Until cancelled, fail waiting calls for which no worker is left that offers what they need."""
        while True:
            await self.workers_changed.wait()
            self.supply.changed()
            with logger.tolerates("looking for calls whose resources are gone"):
                for needs in self._scheduler.needy.needs:
                    if (missing := self.supply.missing(needs)) is not None:
                        self._refuse_waiting(self._scheduler.needy.with_needs(needs), missing)

    def _refuse_waiting(self, calls: Sequence[Call], missing: str) -> None:
        for call in calls:
            if self.withdraw(call):
                call.finish(None, ResourcesNotOffered(f"{call.name!r} cannot run any more: {missing}"))

    def _resize(self, limits: Sequence[Limit]) -> None:
        """Assign calls that waited for limits which may have more places now."""
        try:
            for limit in limits:
                self._carry_out(self._scheduler.resized(limit, self._now()))
        except Exception as error:
            self._mend(error)

    # What workers report.

    def spare_ready(self, worker: CallWorker) -> None:
        """A spare has started. It gets no calls until it steps in."""
        self.events.emit("worker.spare_ready", {"worker": worker.id, "pid": worker.pid})
        self.workers_changed.notify()

    def spare_stepped_in(self, worker: CallWorker, replaced: str) -> None:
        """A spare takes calls from now on, in place of the worker of the id `replaced`."""
        self.events.emit("worker.stepped_in", {"worker": worker.id, "pid": worker.pid, "replaced": replaced})

    def worker_ready(self, worker: CallWorker) -> None:
        """A worker takes calls from now on."""
        self._workers[worker.slot] = worker
        self._note_tools({**self.tools, **worker.tools} if worker.kills_to_cancel else worker.tools)
        self.events.emit("worker.ready", {"worker": worker.id, "pid": worker.pid})
        self.workers_changed.notify()
        self._assign(self._scheduler.add, worker.slot)

    def forget_tools(self) -> None:
        """Forget tools that no worker has any more: all workers are new."""
        if self._workers:
            self._note_tools({name: tool for worker in self._workers.values() for name, tool in worker.tools.items()})

    def _note_tools(self, tools: dict[str, ToolSpec]) -> None:
        self.tools = tools
        limited = {name: tool.limit for name, tool in tools.items() if tool.limit is not None}
        if limited or self._limits.of_tools:
            self._resize(self._limits.note_tools(limited))
        self.batches.note_tools(tools)
        self.supply.note_tools(tools.values())
        self._has_rules = bool(limited or self.batches.tools or self.supply.of_tools)

    def worker_leaving(self, worker: CallWorker) -> None:
        """A worker takes no more calls; the calls that it has may still end."""
        if self._workers.pop(worker.slot, None) is not None:
            self._leaving[worker.slot] = worker
            self._assign(lambda slot, now: self._scheduler.remove(slot, now)[1], worker.slot)
            self.workers_changed.notify()

    def worker_gone(self, worker: CallWorker, last_started: int | None, failure: WorkerCrashed | None) -> None:
        """A worker's process has ended: settle the calls that it had.

        `last_started` is the id of the last call that it has started, or None if that is not known for certain.
        Calls that it never started go back into the queue.
        """
        self._leaving.pop(worker.slot, None)
        calls = dict(worker.calls)
        worker.calls.clear()  # others look into it: it must not have calls that run elsewhere by then
        suspects: set[tuple[str, str]] = set()
        for call_id, call in calls.items():
            call.returns += 1
            # The limit is for a call that kills its worker by merely arriving: it would kill one worker after another.
            never_started = last_started is not None and call_id > last_started and call.returns <= _MOST_RETURNS
            if never_started and not call.abandoned and not self._closed:
                self._return(call)
                continue
            # With a concurrency of 1, the calls before the last one had ended. Only their replies are lost.
            if self._concurrency > 1 or call_id == last_started:
                suspects.update(keys_of(call))
            if failure is not None and not is_counted(call):
                self.crashed += call.weight
            told = None if failure is None else failure.of_call(call.name, meanwhile(call, last_started, len(calls)))
            self._settle(worker, call, told or stopped(call))
        # The event and the blame come after the calls, so that every call has its outcome first.
        if failure is not None:
            self.events.emit("worker.crashed", {"worker": worker.id, "pid": worker.pid, "problem": str(failure)})
        if failure is not None and not worker.is_killed_by_us:
            self.taints.killed(suspects)

    def _settle(self, worker: CallWorker, call: Call, failure: Exception) -> None:
        try:
            worker.when_over(call, partial(self._end, call, failure))
        except Exception:
            logger.exception("stopping what the host does for %r failed", call.name)
            self._end(call, failure)

    def _end(self, call: Call, failure: Exception) -> None:
        """End a call that no worker holds any more."""
        call.finish(None, failure)  # first: whatever comes next may fail
        note_timing(call, failure)
        if call.limits:
            try:
                self._carry_out(self._scheduler.end(call, trio.current_time()))
            except Exception as error:
                self._mend(error)

    def tell_end(self, worker: CallWorker, exit_code: int | None) -> None:
        """A worker's process is gone, and its calls are settled."""
        self.events.emit(
            "worker.ended",
            {
                "worker": worker.id,
                "pid": worker.pid,
                "exit_code": exit_code,
                "in_order": worker.failure is None,
            },
        )

    def call_over(self, worker: CallWorker, call: Call, final: Frame, failure: Exception | None) -> None:
        """A call has ended on its worker."""
        if self.taints.has_suspects:
            self.taints.succeeded(call)
        if call.progress is not None:
            self._emit_progress(worker, call, call.progress)
        if failure is None:
            self.succeeded += not is_counted(call)
        elif not is_counted(call):
            self.failed += call.weight
        self.time_spent.note(call, final, failure, now := self._now())
        call.finish(final, failure)
        if others := self._scheduler.release(worker.slot, call, now):
            self._carry_out(others)

    def batch_over(self, worker: CallWorker, batch: Batch, final: Frame) -> None:
        """A batch has ended on its worker. Its calls have ended before it."""
        batch.finish(final)
        if others := self._scheduler.release(worker.slot, batch, self._now()):
            self._carry_out(others)

    def call_progressed(self, worker: CallWorker, call: Call, progress: Progress) -> None:
        """The code of a call has reported progress."""
        told = call.progress
        if told is None:
            told = call.progress = CallProgress(None)
        told.take(progress)
        if told.handler is not None:
            call.wake()
        if told.may_be_heard(self._now()):
            self._emit_progress(worker, call, told)

    def _emit_progress(self, worker: CallWorker, call: Call, told: CallProgress) -> None:
        progress, told.unheard = told.unheard, None
        if progress is not None and self.events.is_heard:
            metadata = {"worker": worker.id, "call": call.number, "name": call.name, "note": progress.note}
            total = {} if progress.total is None else {"total": progress.total}
            self.events.emit("call.progress", metadata, told, done=progress.done, **total)

    def call_failed(self, call: Call, error: Exception) -> None:
        """A call has ended on its worker, but telling its caller raised an error: only this call fails."""
        self.batches.drop(call)
        if call.is_over:
            call.wake()  # the error may have come before its caller was woken
        else:
            call.finish(None, failure_of(call, error, "what became of it could not be told"))
        self._mend(error)

    def call_returned(self, worker: CallWorker, call: Call) -> None:
        """A worker has given back a call that it had not started."""
        if self._closed:
            self._end(call, stopped(call))
        else:
            self._return(call, worker.slot)

    def _return(self, call: Call, slot: Slot[Call] | None = None) -> None:
        call.worker, call.id, call.state = None, 0, CallState.QUEUED
        if isinstance(call, Batch):
            call.came_back()
        try:
            if call.parent is not None:
                self.deadlocks.note(call)
            if slot in self._workers:
                self._carry_out(self._scheduler.give_back(slot, call, trio.current_time()))
            else:
                self._carry_out(self._scheduler.requeue(call, trio.current_time()))
        except Exception as error:
            self._mend(error, call)
            if not call.is_over and not _is_sent(call):
                call.finish(None, failure_of(call, error))

    def close(self) -> None:
        """Take no more calls, and end the queued calls with `PoolClosed`."""
        self._closed = True
        self.workers_changed.notify()
        for call in (*self._scheduler.clear(), *self.batches.collecting()):
            call.finish(None, stopped(call))

    def _assign(self, change: Callable[[Slot[Call], float], Assignments], slot: Slot[Call]) -> None:
        """Change the scheduler's state, and carry out the assignments that it returns."""
        try:
            self._carry_out(change(slot, trio.current_time()))
        except Exception as error:
            self._mend(error)

    def _mend(self, error: Exception, lost: Call | None = None) -> None:
        """Repair the scheduler's state after an error in the middle of a change.

        The call `lost` is dropped if it was not sent. All other calls go on.
        """
        logger.error("a step of the scheduler failed; its state is rebuilt, and all other calls go on", exc_info=error)

        def forget(call: Call) -> bool:
            return call.state in (CallState.OVER, CallState.NEW) or (call is lost and not _is_sent(call))

        self._scheduler.mend(trio.current_time(), forget)
        self._carry_out([(slot, call) for slot, call in self._scheduler.held() if not _is_sent(call)])

    def _carry_out(self, assignments: Assignments) -> None:
        waiting = list(assignments)
        for slot, call in waiting:  # and what comes in place of those that fail
            if isinstance(call, Batch):
                waiting += self.batches.split(call, self._workers[slot], self._now())
            waiting += self._start(slot, call)

    def _start(self, slot: Slot[Call], call: Call) -> Assignments:
        """Send a call. If that fails, returns the assignments that take its place."""
        worker = self._workers[slot]
        try:
            if call.claim is not None and not call.claim(worker):
                raise Displaced(f"{call.name!r} cannot run on worker {worker.id}")
            call.state = _ASSIGNED
            worker.start(call)
        except Exception as error:
            # Only this call has failed: the code that starts it may work for another caller.
            if not _is_sent(call):
                call.finish(None, failure_of(call, error))
                return self._scheduler.unassign(slot, call, trio.current_time())
        if len(slot.calls) > self._concurrency:
            self.stalls.note()
        return ()


def _is_sent(call: Call) -> bool:
    return call.id != 0  # even if it has ended there, and the host still works for it
