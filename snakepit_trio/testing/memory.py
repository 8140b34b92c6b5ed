"""Workers without processes: the real pool, the real link and the real executor, joined in memory, in one trio run.

Nothing but the process, the socket and the thread is replaced. So with trio's autojump clock, timeouts, backoff, health
checks and expiry take no real time.
"""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import trio
import trio.testing

from bridge_py.adapter import BaseAdapter
from bridge_py.wire.errors import DecodeError, ProtocolError, UsageError
from bridge_py.worker import load_adapter, make_adapter
from bridge_py.worker_end import WorkerEnd
from snakepit_trio.adapters import GrpcPython
from snakepit_trio.config import PoolConfig
from snakepit_trio.launcher import Launcher, Site
from snakepit_trio.lines import Line, Output, Surroundings
from snakepit_trio.link import Link, LinkLost
from snakepit_trio.loop import AsyncioLoop

from .inline import InlineExecutor, TrioQueue

_FIRST_PID: Final = 1 << 22  # above all that Linux gives: linux/threads.h
_pids = itertools.count(_FIRST_PID)


class InMemory(Launcher):
    """Runs the workers of a pool in this process: `open_pool(Tools, launcher=InMemory())`.

    Sync tools run in place, in trio's thread: they block everything while they compute, and wait without blocking for
    what they ask of the host, or for credit. Coroutines run on an asyncio loop on top of trio, and on its clock. What
    a tool does to its process it does to this one: one that ends it, ends the tests. Killing a worker cancels its
    tasks, so its `finally` clauses run.

    Plain host functions run in place too. There is no shared memory, no guardian, nothing on disk.
    """

    def __init__(self) -> None:
        self._processes: dict[str, MemoryProcess] = {}

    def workers(self) -> list[str]:
        """The ids of the workers that live, in the order of their start."""
        return list(self._processes)

    def kill(self, worker_id: str) -> None:
        """End a worker as SIGKILL would: its tasks are cancelled, and it says nothing more.

        Raises `UsageError` if none of that id lives.
        """
        if worker_id not in self._processes:
            raise UsageError(f"no worker {worker_id!r} lives; there are: {', '.join(self._processes) or 'none'}")
        self._processes[worker_id].signal_group(signal.SIGKILL)

    def open(self, config: PoolConfig) -> Site:
        """See `Launcher`."""
        if not isinstance(config.adapter, GrpcPython):
            raise UsageError(f"{config.adapter!r}: only adapters of Python classes can run in memory")
        return _MemorySite(config, config.adapter, self._processes)


class _MemorySite(Site):
    runs_inline = True

    def __init__(self, config: PoolConfig, adapter: GrpcPython, processes: dict[str, MemoryProcess]) -> None:
        self._config = config
        self._processes = processes
        self._adapter = adapter
        self._asyncio = AsyncioLoop()
        self._nursery: trio.Nursery | None = None
        self._began = time.time() - trio.current_time()

    def clock(self) -> float:
        """Unix time at the pool's opening, and trio's from there on."""
        return self._began + trio.current_time()

    @property
    def loop(self) -> AsyncioLoop:
        raise UsageError("a pool in memory has no connections")

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._asyncio.run)
            task_status.started()
            await trio.sleep_forever()

    async def launch(self, worker_id: str) -> MemoryProcess:
        assert self._nursery is not None
        process = MemoryProcess(self._config, self._make_adapter, self._asyncio.run_coroutine)
        self._nursery.start_soon(self._run, worker_id, process)
        return process

    async def _run(self, worker_id: str, process: MemoryProcess) -> None:
        self._processes[worker_id] = process
        try:
            await process.run()
        finally:
            # A replacement may have its id by now.
            if self._processes[worker_id] is process:
                del self._processes[worker_id]

    def _make_adapter(self) -> BaseAdapter:
        made = self._adapter.adapter_class
        options = json.loads(json.dumps(dict(self._config.options)))  # as a process would get them
        return load_adapter(self._adapter.target, options) if made is None else make_adapter(made, options)

    def close(self) -> None:
        pass


class Wire:
    """One direction of a link: batches, in order, until it is closed."""

    def __init__(self) -> None:
        self._batches: deque[bytes] = deque()
        self._news = trio.Event()
        self._is_closed = False

    def put(self, batch: bytes) -> None:
        """Send a batch. Nothing is sent after the end."""
        if self._is_closed:
            return
        self._batches.append(batch)
        self._news.set()

    def close(self) -> None:
        """What was sent still comes, and then the end."""
        self._is_closed = True
        self._news.set()

    async def get(self) -> bytes | None:
        """The next batch; None at the end."""
        while not self._batches:
            if self._is_closed:
                return None
            self._news = trio.Event()
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self._batches.popleft()


class MemoryProcess:
    """What stands for a worker's process. See `WorkerProcess`."""

    def __init__(
        self,
        config: PoolConfig,
        make_adapter: Callable[[], BaseAdapter],
        run_coroutine: Callable[[Any], Any],
    ) -> None:
        self.pid = next(_pids)
        self.exit_code: int | None = None
        self.secret = secrets.token_hex(8)
        self.to_worker, self.to_host = Wire(), Wire()
        self._config = config
        self._make_adapter = make_adapter
        self._scope = trio.CancelScope()
        self._killed_by = 0
        self._exited = trio.Event()
        self._executor: InlineExecutor | None = None
        self._run_coroutine = run_coroutine
        self._stderr, self._last_words = trio.testing.memory_stream_one_way_pair()

    async def run(self) -> None:
        """Be the worker, from its start to its end."""
        code = 1
        try:
            with self._scope:
                adapter = self._make_adapter()
                adapter.setup()
                await self._serve(adapter)
                adapter.close()
                code = 0
        except Exception:
            await self._stderr.send_all(traceback.format_exc().encode())
        finally:
            self.exit_code = -self._killed_by if self._killed_by else code
            self.to_host.close()
            self._stderr.close()
            self._exited.set()

    async def _serve(self, adapter: BaseAdapter) -> None:
        driver = _Driver(self.to_host)
        end = WorkerEnd(adapter, self.secret, self._config.sizes, driver, self.to_worker.close)
        self._executor = InlineExecutor(end, end.pack, self._config.concurrency, self._run_coroutine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run, end, nursery)
            nursery.start_soon(self._executor.run_in, nursery)
            end.begin(self._executor)
            driver.flush()
            try:
                while (data := await self.to_worker.get()) is not None:
                    end.receive(data)
            except (ProtocolError, DecodeError):
                self._killed_by = signal.SIGKILL
            nursery.cancel_scope.cancel()

    # See `WorkerProcess`.

    @property
    def last_started(self) -> int:
        return 0 if self._executor is None else self._executor.last_started

    @property
    def outputs(self) -> Sequence[Output]:
        return [Output(self._last_words, logging.WARNING, True)]

    def line(self, surroundings: Surroundings) -> Line:
        return MemoryLink(surroundings, self)

    def is_ready(self) -> None:
        pass

    def is_stopped(self) -> bool:
        return False

    def resident_bytes(self) -> int:
        return 0

    def was_killed_for_memory(self) -> bool:
        return False

    async def wait(self) -> None:
        await self._exited.wait()

    def signal_group(self, number: signal.Signals) -> None:
        if not self._exited.is_set():
            self._killed_by = self._killed_by or number
            self.to_host.close()  # what its tasks say while they end, no process would have said
            self._scope.cancel()

    async def release(self) -> None:
        await self._last_words.aclose()


class MemoryLink(Link):
    """The host's end of the link to such a worker."""

    def __init__(self, surroundings: Surroundings, process: MemoryProcess) -> None:
        super().__init__(surroundings, process.secret, process.pid, lambda: None)
        self._process = process
        self._to_send = trio.Event()

    async def carry(self) -> NoReturn:
        """See `Link`."""
        problem: Exception = LinkLost("the worker closed the link")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            try:
                while (data := await self._process.to_host.get()) is not None:
                    self.receive(data)
            except (ProtocolError, DecodeError) as error:
                problem = error
            finally:
                self._process.to_worker.close()
            nursery.cancel_scope.cancel()
        raise problem

    async def _send(self) -> None:
        while True:
            while data := self.next_batch():
                self._process.to_worker.put(data)
            self._to_send = trio.Event()
            await self._to_send.wait()

    def flush(self) -> None:
        """See `Link`."""
        self._to_send.set()


class _Driver:
    """Moves a `WorkerEnd` on, in trio. See `Driver`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._soon: deque[Callable[[], None]] = deque()
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, end: WorkerEnd, nursery: trio.Nursery) -> None:
        """Do what is to be done soon, and send, until cancelled."""
        self._nursery = nursery
        while True:
            while self._soon:
                self._soon.popleft()()
            while data := end.data_to_send():
                self._wire.put(data)
            self._news = trio.Event()
            await self._news.wait()

    def soon(self, function: Callable[[], None]) -> None:
        self._soon.append(function)
        self._news.set()

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._after, seconds, function, args)

    async def _after(self, seconds: float, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        await trio.sleep(seconds)
        function(*args)

    def flush(self) -> None:
        self._news.set()

    def clock(self) -> float:
        return trio.current_time()

    def make_queue(self) -> TrioQueue:
        return TrioQueue()
