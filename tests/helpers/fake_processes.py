"""What a worker lives on, all fake: its process, its connection, and who is told of it."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.wire.errors import Fault
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.specs import ToolSpec
from snakepit_trio import PoolConfig
from snakepit_trio._calls.batches import Batch
from snakepit_trio._calls.call import Call, CallWorker
from snakepit_trio._config.config import Site
from snakepit_trio._connections.base import REAP_SECONDS, Connection, ConnectionContext, Hello, Output
from snakepit_trio._requests.services import HostServices
from snakepit_trio._workers.worker_process import Worker
from snakepit_trio._workers.worker_state import WorkerState

#: What a process and its connection are told, in order: words, or a signal.
Told = list[Any]


class FakeConnection(Connection):
    """It notes what it is told, and hears what a test says for its worker."""

    def __init__(self, context: ConnectionContext, told: Told) -> None:
        self.host_work = self
        self.context = context
        self.pings: list[int] = []
        self.knows_goodbye = True
        self._told = told
        self._open: set[int] = set()
        self._ids = itertools.count(1, 2)
        self._end: Exception | None = None
        self._ended = trio.Event()

    async def run(self) -> None:
        await self._ended.wait()
        assert self._end is not None
        raise self._end

    def lose(self, error: Exception) -> None:
        """It ends."""
        self._end = error
        self._ended.set()

    def answer(self, call: Call, kind: Kind = Kind.RESULT, body: bytes = b"") -> None:
        """The worker says something of a call."""
        self._open.discard(call.id)
        self.context.on_frame(Frame(kind, call.id, body=body))

    def fail(self, call: Call, code: str) -> None:
        """The worker says how a call failed."""
        self.answer(call, Kind.ERROR, msgspec.msgpack.encode(Fault(code, "it says")))

    def open(self, call: Call, timeout_us: int) -> int:
        call_id = next(self._ids)
        self._open.add(call_id)
        self._told.append(f"open {call.name}")
        return call_id

    def cancel(self, call_id: int) -> list[Frame]:
        self._told.append(f"cancel {call_id}")
        return []

    def recall(self, call_id: int) -> None:
        self._told.append(f"recall {call_id}")

    def grant(self, call_id: int, credit: int) -> None:
        self._told.append(f"grant {call_id} {credit}")

    def is_open(self, call_id: int) -> bool:
        return call_id in self._open

    def ping(self, number: int) -> None:
        self.pings.append(number)

    def goodbye(self) -> bool:
        self._told.append("goodbye")
        return self.knows_goodbye

    def cancel_for(self, call: Call) -> None:
        self._told.append(f"stop what the host does for {call.name}")

    serving = frozenset[int]()

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        then()


class FakeProcess:
    """A process that ends when it is told to: by a signal of `ends_by`, or by a test."""

    pid = 7
    outputs: Sequence[Output] = ()
    reap_seconds = REAP_SECONDS
    node: str | None = None

    def __init__(self, ends_by: set[signal.Signals]) -> None:
        self.ends_by = ends_by
        self.exit_code: int | None = None
        self.last_started: int | None = 0
        self.last_words = ""
        self.is_out_of_memory = False
        self.memory: int | type[Exception] = 0  # what reading its memory returns, or raises
        self.told: Told = []
        self.connection: FakeConnection | None = None
        self.is_released = False
        self._exited = trio.Event()

    def connect(self, context: ConnectionContext) -> FakeConnection:
        self.connection = FakeConnection(context, self.told)
        return self.connection

    def is_ready(self) -> None:
        self.told.append("ready")

    def is_stopped(self) -> bool:
        return False

    def resident_bytes(self) -> int:
        if not isinstance(self.memory, int):
            raise self.memory
        return self.memory

    def was_killed_for_memory(self) -> bool:
        return self.is_out_of_memory

    async def wait(self) -> None:
        await self._exited.wait()

    def signal_group(self, number: signal.Signals) -> None:
        self.told.append(number)
        if number in self.ends_by:
            self.exit(-number)

    async def release(self) -> None:
        self.is_released = True

    async def end_soon(self, seconds: float, code: int) -> None:
        """It ends after a while."""
        await trio.sleep(seconds)
        self.exit(code)

    def exit(self, code: int) -> None:
        """It ends."""
        if self.exit_code is None:
            self.exit_code = code
            self._exited.set()


class FakeSite(Site):
    """A place for one process, or for none."""

    def __init__(self, ends_by: set[signal.Signals], failure: Exception | None = None) -> None:
        self.process = FakeProcess(ends_by)
        self._failure = failure

    @property
    def loop(self) -> Any:
        raise NotImplementedError

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise NotImplementedError

    async def launch(self, worker_id: str, number: int) -> FakeProcess:
        if self._failure is not None:
            raise self._failure
        return self.process

    def close(self) -> None:
        raise NotImplementedError


class Reports:
    """Who is told what becomes of the worker, and notes it."""

    def __init__(self) -> None:
        self.tools: dict[str, ToolSpec] = {}
        self.dropped_logs = 0
        self.heard: list[Any] = []
        self.failure: snakepit.WorkerCrashed | None = None
        self.last_started: int | None = None

    def spare_ready(self, worker: CallWorker) -> None:
        self.heard.append("spare")

    def spare_stepped_in(self, worker: CallWorker, replaced: str) -> None:
        self.heard.append(f"stepped in for {replaced}")

    def worker_ready(self, worker: CallWorker) -> None:
        self.heard.append("ready")

    def worker_leaving(self, worker: CallWorker) -> None:
        self.heard.append("leaving")

    def worker_gone(self, worker: CallWorker, last_started: int | None, failure: snakepit.WorkerCrashed | None) -> None:
        self.heard.append(f"gone with {sorted(call.name for call in worker.calls.values())}")
        self.last_started, self.failure = last_started, failure

    def tell_end(self, worker: CallWorker, exit_code: int | None) -> None:
        self.heard.append(f"ended {exit_code}")

    def call_over(self, worker: CallWorker, call: Call, final: Frame, failure: Exception | None) -> None:
        self.heard.append((call.name, type(failure).__name__))

    def batch_over(self, worker: CallWorker, batch: Batch, final: Frame) -> None:
        self.heard.append(f"batch over {batch.name}")

    def call_failed(self, call: Call, error: Exception) -> None:
        self.heard.append((call.name, error))

    def call_progressed(self, worker: CallWorker, call: Call, progress: snakepit.Progress) -> None:
        self.heard.append((call.name, progress))

    def call_returned(self, worker: CallWorker, call: Call) -> None:
        self.heard.append(f"returned {call.name}")


class Life:
    """A worker, and all that is fake around it."""

    def __init__(self, site: FakeSite, **settings: Any) -> None:
        self.process = site.process
        self.reports = Reports()
        self.worker = Worker("w", 0, PoolConfig(**settings), site, self.reports, cast("HostServices", None))
        self.failure: snakepit.WorkerStartError | None = None  # of its start

    async def run(self) -> None:
        """Its life, to the end."""
        try:
            await self.worker.run()
        except snakepit.WorkerStartError as error:
            self.failure = error

    @property
    def connection(self) -> FakeConnection:
        """What it is spoken to by."""
        assert self.process.connection is not None
        return self.process.connection

    def call(self, name: str) -> Call:
        """A call that it has."""
        call = Call(name, EncodedValue(b"", None), "", None)
        self.worker.start(call)
        return call


TERM, KILL = signal.SIGTERM, signal.SIGKILL


@asynccontextmanager
async def alive(*ends_by: signal.Signals, is_ready: bool = True, **settings: Any) -> AsyncIterator[Life]:
    """A worker that lives until its process has ended. By default nothing but SIGKILL ends that."""
    life = Life(FakeSite({*ends_by, KILL}), **{"shutdown_timeout": 9, **settings})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        await wait_all_tasks_blocked()
        if is_ready:
            life.connection.context.on_ready(Hello([ToolSpec("add")], "3.11"))
        yield life
    assert life.process.is_released
    assert life.worker.state is WorkerState.STOPPED
