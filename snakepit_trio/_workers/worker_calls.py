"""The calls of one worker: how they are sent, stopped, and ended by the worker's answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import trio

from bridge_py.wire import codec
from bridge_py.wire.errors import (
    CANCELLED,
    NOT_STARTED,
    DecodeError,
    Fault,
    ProtocolError,
    RemoteProtocolError,
    error_of,
    raised_by,
)
from bridge_py.wire.frames import ERROR, RESULT, Frame, Kind
from bridge_py.wire.progress import read_report
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._calls.batches import Batch
from snakepit_trio._calls.call import Call, CallState, CallWorker, stopped
from snakepit_trio._calls.pauses import Pause
from snakepit_trio._calls.progress import Progress
from snakepit_trio._calls.queues import Slot
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, WorkerProcess
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import told
from snakepit_trio.errors import WorkerCrashed

from .breakpoints import Breakpoints
from .due import Due
from .health import Heartbeat
from .life import Life, Phase

# Python 3.11 takes as long to look up an enum's member as to call a function.
_DRAINING: Final = Phase.DRAINING
_STOPPED: Final = Phase.STOPPED

logger = get_logger("snakepit.worker")


class WorkerEvents(Protocol):
    """The receiver of a worker's reports about itself and its calls."""

    tools: dict[str, ToolSpec]  # by name, as the workers describe them
    dropped_logs: int  # log records of workers that did not reach the application

    def spare_ready(self, worker: CallWorker) -> None:
        """A spare has started. It gets no calls until it steps in."""

    def spare_stepped_in(self, worker: CallWorker, replaced: str) -> None:
        """A spare takes calls from now on, in place of the worker of the id `replaced`."""

    def worker_ready(self, worker: CallWorker) -> None:
        """A worker takes calls from now on."""

    def worker_leaving(self, worker: CallWorker) -> None:
        """A worker takes no more calls; the calls that it has may still end."""

    def worker_gone(self, worker: CallWorker, last_started: int | None, failure: WorkerCrashed | None) -> None:
        """A worker's process has ended: settle the calls that it had. `last_started` is None if that is not known."""

    def tell_end(self, worker: CallWorker, exit_code: int | None) -> None:
        """A worker's process is gone, and its calls are settled."""

    def call_over(self, worker: CallWorker, call: Call, final: Frame, failure: Exception | None) -> None:
        """A call has ended on its worker."""

    def batch_over(self, worker: CallWorker, batch: Batch, final: Frame) -> None:
        """A batch has ended on its worker. Its calls have ended before it."""

    def call_progressed(self, worker: CallWorker, call: Call, progress: Progress) -> None:
        """The code of a call has reported progress."""

    def call_failed(self, call: Call, error: Exception) -> None:
        """A call has ended on its worker, but telling its caller raised an error: only this call fails."""

    def call_returned(self, worker: CallWorker, call: Call) -> None:
        """A worker has given back a call that it had not started."""


class WorkerCalls(ABC):
    """The part of a worker that its calls use. Its subclass `Worker` adds the life of its process."""

    def __init__(self, id: str, config: PoolConfig, reports: WorkerEvents, slot: Slot[Call]) -> None:
        self.id = id
        self.slot = slot
        self.calls: dict[int, Call] = {}
        self.items: dict[int, tuple[Batch, Call]] = {}  # by id: the calls of batches, and their batches
        self.calls_served = 0
        self.tools: dict[str, ToolSpec] = {}  # by name
        self.health = Heartbeat(config)
        self.due = Due(config.recycle)
        self.failure: WorkerCrashed | None = None  # the error of its calls, once it has crashed
        self.is_killed_by_us = False
        self._reports = reports
        self._breakpoints: Breakpoints | None = None  # with a debugger
        self._pause: Pause | None = None  # while it stands at a breakpoint
        self._process: WorkerProcess | None = None
        self._connection: Connection | None = None
        self._life = Life()

    @property
    def has_left(self) -> bool:
        """Whether it has stopped taking calls for good."""
        return self._life.has_left

    @property
    @abstractmethod
    def exit_reason(self) -> str:
        """Why it has left."""

    @abstractmethod
    def kill(self, problem: str, *, for_a_call: bool = False) -> None:
        """Kill its process group at once; `problem` goes into the error of its calls.

        `for_a_call`: the worker itself is well, but only killing it stops one of its calls.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it in order: goodbye, SIGTERM, SIGKILL, each with a bounded wait."""

    @abstractmethod
    def _check_due(self) -> None: ...

    @property
    def stands(self) -> bool:
        """Whether it stands at a breakpoint. Then its calls have no deadlines, and nothing but its owner ends it."""
        return self._pause is not None

    def _is_cancelled(self, call_id: int) -> bool:
        if not call_id:
            return any(call.abandoned for call in self.calls.values())
        call = self.calls.get(call_id)
        return call is None or call.abandoned

    def _begin_to_stand(self) -> None:
        self._pause = Pause(self._all_calls())

    def _go_on(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.end(self._all_calls())

    def _all_calls(self) -> list[Call]:
        return [*self.calls.values(), *(call for _, call in self.items.values())]

    @property
    def pid(self) -> int | None:
        """The process id, or None before there is a process."""
        return None if self._process is None else self._process.pid

    @property
    def node(self) -> str | None:
        """The machine of the process; None for this one, and before there is a process."""
        return None if self._process is None else self._process.node

    @property
    def kills_to_cancel(self) -> bool:
        """Whether killing it is the only way to stop its calls."""
        return self._connection is not None and self._connection.kills_to_cancel

    def start(self, call: Call) -> None:
        """Send a call."""
        assert self._connection is not None
        call.worker = self
        call.id = self._connection.open(call, call.microseconds_left())
        self.calls[call.id] = call

    def open_item(self, batch: Call, call: Call) -> None:
        """Send a call of a batch. The worker runs it when the batch is started, which names it by its id."""
        assert self._connection is not None
        assert isinstance(batch, Batch)
        call.id = self._connection.open_item(call)
        call.worker, call.state, call.assigned_at = self, CallState.ASSIGNED, batch.assigned_at
        self.items[call.id] = batch, call

    def drop_item(self, call: Call) -> None:
        """Tell the worker that nobody waits for a call of a batch any more, and drop its outcome."""
        if self.items.pop(call.id, None) is not None and self._connection is not None and not self._life.is_over:
            with logger.tolerates("dropping a call of a batch"):  # what comes of it is dropped in any case
                self._connection.cancel(call.id)

    def cancel(self, call: Call) -> None:
        """Ask the worker to end a call, and cancel the host's work for the call."""
        if self._connection is None:
            return
        self._connection.host_work.cancel_for(call)
        if call.id not in self.calls:
            return
        if self._breakpoints is not None:
            self._breakpoints.hang_up(call.id)
        for frame in self._connection.cancel(call.id):
            # The call's outcome: its large buffers will not come any more, or the call was not sent.
            if frame.kind != Kind.CHUNK:
                self._call_ended(self.calls.pop(call.id), frame, stopped(call))

    def nudge(self, call: Call) -> None:
        """Help the worker to hear of a cancellation while the code of the call leaves its other threads no turn."""
        if not self.stands and self._is_open(call) and self.has_started(call):
            assert self._connection is not None
            self._connection.nudge()

    def end_session(self, session_id: str) -> None:
        """Tell the worker that a session has ended: it may still hold data of the session."""
        if self._connection is not None and not self._life.is_over:
            self._connection.end_session(session_id)

    def is_killed_to_stop(self, call: Call) -> bool:
        """Whether calls of this call's tool are stopped by killing the worker."""
        tool = self.tools.get(call.name)
        return self.kills_to_cancel or (tool is not None and tool.cancel == "kill")

    def must_be_killed_to_stop(self, call: Call) -> bool:
        """Whether the ledger shows that the call runs, and only killing the worker stops calls of its tool."""
        return self.is_killed_to_stop(call) and self._is_open(call) and self.has_started(call)

    def has_started(self, call: Call) -> bool:
        """Whether the ledger shows that a call that was sent has started."""
        if self._process is None:
            return False
        last_started = self._process.last_started
        return last_started is None or last_started >= call.id  # what nobody knows may have started

    def recall(self, call: Call) -> None:
        """Ask the worker to give back a call if it has not started it."""
        if self._connection is not None and self._is_open(call):
            self._connection.recall(call.id)

    def grant(self, call: Call, credit: int) -> None:
        """Give a stream more credit."""
        if self._connection is not None and self._is_open(call):
            self._connection.grant(call.id, credit)

    def _is_open(self, call: Call) -> bool:
        return self._connection is not None and call.id in self.calls and self._connection.is_open(call.id)

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Cancel the host's work for a call that has ended in this worker, and call `then` when that work is over."""
        if self._connection is None:
            then()
        else:
            self._connection.host_work.when_over(call, then)

    def _handle(self, frame: Frame) -> None:
        if self._life.phase is _STOPPED:
            return  # its calls have been settled
        try:
            if frame.kind == RESULT:
                self._ends(frame)
            else:
                self._take(frame)
        except (ProtocolError, DecodeError):
            raise
        except Exception as error:
            self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        # At once: this error breaks the link, the worker then dies, and its death might be seen first.
        self.kill(f"lost its link by a fault of the host: {told(error)}")

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CHUNK:
                call = self.calls.get(frame.call_id)
                if call is not None and not call.abandoned:
                    call.chunks.append(frame)
                    call.wake()
            case Kind.END:
                call = self.calls.get(frame.call_id)
                if isinstance(call, Batch):
                    self._batch_ends(call, frame)
                else:
                    self._ends(frame)
            case Kind.ERROR:
                self._ends(frame)
            case Kind.PROGRESS:
                progress = Progress(*read_report(frame.body))
                call = self.calls.get(frame.call_id)
                if call is not None and not call.abandoned:
                    with logger.tolerates("passing on the progress of a call"):  # the call goes on without it
                        self._reports.call_progressed(self, call, progress)
            case Kind.PONG:
                self.health.answer(frame.number, trio.current_time())
            case _:
                raise RemoteProtocolError(f"a frame of kind {frame.kind}, which a worker does not send")

    def _ends(self, frame: Frame) -> None:
        call, batch = self.calls.pop(frame.call_id, None), None
        if call is None:
            batch, call = self.items.pop(frame.call_id, (None, None))
            if call is None or call.id != frame.call_id or call.worker is not self:
                return
        try:
            if batch is not None:
                self._item_ends(batch, call, frame)
            elif frame.kind == ERROR:
                self._ends_by(call, frame, codec.decode_fault(frame.body))
            else:
                self._call_ended(call, frame, None)
        except DecodeError:
            if batch is None:
                self.calls[frame.call_id] = call  # it is settled with the worker, which this error ends
            raise
        except Exception as error:
            self._reports.call_failed(call, error)
            if batch is not None and batch.end is not None:
                self._batch_ends(batch, batch.end)

    def _item_ends(self, batch: Batch, call: Call, frame: Frame) -> None:
        fault = codec.decode_fault(frame.body) if frame.kind == ERROR else None
        if fault is None or fault.code != NOT_STARTED:  # else the whole batch comes back
            batch.drop(call)
            self._call_over(call, frame, None if fault is None else self._failure_by(call, fault))
        if batch.end is not None:
            self._batch_ends(batch, batch.end)

    def _batch_ends(self, batch: Batch, frame: Frame) -> None:
        batch.end = frame
        try:
            self._look_at(batch)
        except Exception as error:
            self.calls.pop(batch.id, None)
            self._reports.call_failed(batch, error)

    def _look_at(self, batch: Batch) -> None:
        """End a batch whose code has ended, once the results of its calls have come whole."""
        if batch.end is None or batch.id not in self.calls:
            return
        assert self._connection is not None
        if any(self._connection.fetches(call.id) for call in batch.members):
            return
        del self.calls[batch.id]
        self._reports.batch_over(self, batch, batch.end)
        if self._life.phase is _DRAINING:
            self._stop_if_drained()

    def _ends_by(self, call: Call, frame: Frame, fault: Fault) -> None:
        if fault.code == NOT_STARTED and not call.abandoned:
            self._reports.call_returned(self, call)
            self._stop_if_drained()
        else:
            self._call_ended(call, frame, self._failure_by(call, fault))

    def _failure_by(self, call: Call, fault: Fault) -> Exception:
        if fault.code == CANCELLED:
            # Either its caller no longer listens, or the pool told the worker to end, and so it stopped its calls.
            return stopped(call)
        return raised_by(error_of(fault), call.name, self.id)

    def _call_ended(self, call: Call, frame: Frame, failure: Exception | None) -> None:
        # The host's work for the call, such as for a thread that the tool has left behind, is its code too.
        if self._connection is not None and call.id in self._connection.host_work.serving:
            self._connection.host_work.when_over(call, partial(self._call_over, call, frame, failure))
        else:
            self._call_over(call, frame, failure)

    def _call_over(self, call: Call, frame: Frame, failure: Exception | None) -> None:
        self.calls_served += 1
        try:
            self._reports.call_over(self, call, frame, failure)
        except Exception as error:
            self._reports.call_failed(call, error)
        if self.calls_served >= self.due.most_calls:
            self._check_due()
        if self._life.phase is _DRAINING:
            self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if self._life.phase is Phase.DRAINING and not self.calls:
            self.stop()
