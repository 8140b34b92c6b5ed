"""The calls that one worker has: sent, stopped, and ended by what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

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
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._calls.call import Call, CallWorker, stopped
from snakepit_trio._calls.queues import Slot
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, WorkerProcess
from snakepit_trio._util.nurseries import told
from snakepit_trio.errors import WorkerCrashed

from .due import Due
from .health import Heartbeat
from .life import Life, Phase


class WorkerEvents(Protocol):
    """To whom a worker reports what becomes of it, and of its calls."""

    tools: dict[str, ToolSpec]  # by name, as the workers describe them

    def worker_ready(self, worker: CallWorker) -> None:
        """A worker takes calls from now on."""

    def worker_leaving(self, worker: CallWorker) -> None:
        """A worker takes no more calls; those it has may still end."""

    def worker_gone(self, worker: CallWorker, last_started: int | None, failure: WorkerCrashed | None) -> None:
        """A worker's process is no more: settle the calls it had. `last_started`: None if that is not known."""

    def tell_end(self, worker: CallWorker, exit_code: int | None) -> None:
        """A worker's process is gone, and its calls are settled."""

    def call_over(self, worker: CallWorker, call: Call, final: Frame, failure: Exception | None) -> None:
        """A call has ended on its worker."""

    def call_failed(self, call: Call, error: Exception) -> None:
        """A call has ended on its worker, and something was raised on the way to tell: it fails, and no other."""

    def call_returned(self, worker: CallWorker, call: Call) -> None:
        """A worker has given a call back that it had not started."""


class WorkerCalls(ABC):
    """What a worker is for its calls. Its life is that of a `Worker`."""

    def __init__(self, id: str, config: PoolConfig, reports: WorkerEvents) -> None:
        self.id = id
        self.slot: Slot[Call] = Slot()
        self.calls: dict[int, Call] = {}
        self.calls_served = 0
        self.tools: dict[str, ToolSpec] = {}  # by name
        self.health = Heartbeat(config)
        self.due = Due(config.recycle)
        self.failure: WorkerCrashed | None = None  # what its calls fail with, once it has crashed
        self.is_killed_by_us = False
        self._reports = reports
        self._process: WorkerProcess | None = None
        self._connection: Connection | None = None
        self._life = Life()

    @property
    def has_left(self) -> bool:
        """Whether it takes no more calls, and never will again."""
        return self._life.has_left

    @property
    @abstractmethod
    def exit_reason(self) -> str:
        """Why it has left."""

    @abstractmethod
    def kill(self, problem: str, *, for_a_call: bool = False) -> None:
        """Kill its process group at once; `problem` goes into the error of its calls.

        `for_a_call`: the worker itself is well, but only its end stops a call.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it in order: goodbye, SIGTERM, SIGKILL, each with a bounded wait."""

    @abstractmethod
    def _check_due(self) -> None: ...

    @property
    def pid(self) -> int | None:
        """The process id, or None before there is a process."""
        return None if self._process is None else self._process.pid

    @property
    def kills_to_cancel(self) -> bool:
        """Whether its calls can be stopped in no other way than by killing it."""
        return self._connection is not None and self._connection.kills_to_cancel

    def start(self, call: Call) -> None:
        """Send a call."""
        assert self._connection is not None
        call.worker = self
        call.id = self._connection.open(call, call.microseconds_left())
        self.calls[call.id] = call

    def cancel(self, call: Call) -> None:
        """Ask for the end of a call, and end what the host does for it."""
        if self._connection is None:
            return
        self._connection.host_work.cancel_for(call)
        if call.id not in self.calls:
            return
        for frame in self._connection.cancel(call.id):
            # What it ended with is not all there, and never will be.
            if frame.kind != Kind.CHUNK:
                self._call_ended(self.calls.pop(call.id), frame, stopped(call))

    def end_session(self, session_id: str) -> None:
        """Tell it that a session has ended of which it may hold something."""
        if self._connection is not None and not self._life.is_over:
            self._connection.end_session(session_id)

    def is_killed_to_stop(self, call: Call) -> bool:
        """Whether a call's tool is one that is stopped by killing its worker."""
        tool = self.tools.get(call.name)
        return self.kills_to_cancel or (tool is not None and tool.cancel == "kill")

    def must_be_killed_to_stop(self, call: Call) -> bool:
        """Whether a call runs, by the ledger, whose tool is stopped by killing its worker."""
        return self.is_killed_to_stop(call) and self._is_open(call) and self.has_started(call)

    def has_started(self, call: Call) -> bool:
        """Whether a call that was sent has started, by the ledger."""
        return self._process is not None and self._process.last_started >= call.id

    def recall(self, call: Call) -> None:
        """Ask for a call back if it has not started."""
        if self._connection is not None and self._is_open(call):
            self._connection.recall(call.id)

    def grant(self, call: Call, chunks: int) -> None:
        """Let a stream go on."""
        if self._connection is not None and self._is_open(call):
            self._connection.grant(call.id, chunks)

    def _is_open(self, call: Call) -> bool:
        return self._connection is not None and call.id in self.calls and self._connection.is_open(call.id)

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Call `then` when the host does nothing more for a call that has ended here; what it does is stopped."""
        if self._connection is None:
            then()
        else:
            self._connection.host_work.when_over(call, then)

    def _handle(self, frame: Frame) -> None:
        if self._life.phase is Phase.STOPPED:
            return  # its calls have been settled
        try:
            self._take(frame)
        except (ProtocolError, DecodeError):
            raise
        except Exception as error:
            self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        # At once: the link breaks by this, the worker dies of that, and its death might be seen first.
        self.kill(f"lost its link by a fault of the host: {told(error)}")

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULT | Kind.END | Kind.ERROR:
                self._ends(frame)
            case Kind.CHUNK:
                call = self.calls.get(frame.call_id)
                if call is not None and not call.abandoned:
                    call.chunks.append(frame)
                    call.wake()
            case Kind.PONG:
                self.health.answer(frame.number, trio.current_time())
            case _:
                raise RemoteProtocolError(f"a frame of kind {frame.kind}, which a worker does not send")

    def _ends(self, frame: Frame) -> None:
        call = self.calls.pop(frame.call_id, None)
        if call is None:
            return
        try:
            if frame.kind == Kind.ERROR:
                self._ends_by(call, frame, codec.decode_fault(frame.body))
            else:
                self._call_ended(call, frame, None)
        except DecodeError:
            self.calls[frame.call_id] = call  # settled with the worker, which ends by this
            raise
        except Exception as error:
            self._reports.call_failed(call, error)

    def _ends_by(self, call: Call, frame: Frame, fault: Fault) -> None:
        if fault.code == NOT_STARTED and not call.abandoned:
            self._reports.call_returned(self, call)
            self._stop_if_drained()
        elif fault.code == CANCELLED:
            # Either its caller no longer listens, or it is ours: a worker that is told to end stops its calls.
            self._call_ended(call, frame, stopped(call))
        else:
            self._call_ended(call, frame, raised_by(error_of(fault), call.name, self.id))

    def _call_ended(self, call: Call, frame: Frame, failure: Exception | None) -> None:
        # What the host still does for it, for a thread that the tool has left behind say, is its code too.
        if self._connection is not None and call.id in self._connection.host_work.serving:
            self._connection.host_work.when_over(call, lambda: self._call_over(call, frame, failure))
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
        if self._life.phase is Phase.DRAINING:
            self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if self._life.phase is Phase.DRAINING and not self.calls:
            self.stop()
