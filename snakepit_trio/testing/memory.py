"""Workers without processes: the real pool, the real link and the real executor, joined in memory, in one trio run.

Only the process, the socket and the thread are replaced. So with trio's autojump clock, timeouts, backoff, health
checks and expiry take no real time.
"""

from __future__ import annotations

import errno
import inspect
import itertools
import json
import logging
import secrets
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import trio

from bridge_py.execution.ledger import in_words
from bridge_py.execution.tool_loop import completed
from bridge_py.link.endpoint import LinkEndpoint
from bridge_py.main import load_adapter, make_adapter
from bridge_py.tools.adapter import BaseAdapter
from bridge_py.tools.functions import call_at_start
from bridge_py.wire.errors import DecodeError, ProtocolError, UsageError
from snakepit_trio._config.adapters import GrpcPython
from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._connections.base import REAP_SECONDS, Connection, ConnectionContext, Output
from snakepit_trio._connections.link import LinkConnection, LinkLost
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.validation import check_whole

from .faults import Faults, RefuseStart
from .guest_loop import GuestLoop, open_guest_loop
from .inline import CallFaults, InlineExecutor, TrioQueue
from .wire import Wire

_MOST: Final = 10_000  # workers
_FIRST_PID: Final = 1 << 22  # above all pids that Linux gives: linux/threads.h
_pids = itertools.count(_FIRST_PID)


class InMemory(Launcher):
    """Runs the workers of a pool in this process: `open_pool(Tools, launcher=InMemory())`.

    Sync tools run in place, in trio's thread: they block everything while they compute. While they wait for answers of
    the host, or for credit, they block nothing. Coroutines run on an asyncio loop on top of trio, and on trio's clock.
    Whatever a tool does to its process, it does to this process: a tool that ends its process ends the tests. Killing a
    worker cancels its tasks, so its `finally` clauses run.

    Plain host functions run in place too. There is no shared memory, no guardian, nothing on disk. `faults` says what
    goes wrong.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._processes: dict[str, MemoryProcess] = {}

    def workers(self) -> list[str]:
        """The ids of the living workers, in the order of their start."""
        return list(self._processes)

    def kill(self, worker_id: str) -> None:
        """End a worker as SIGKILL would: its tasks are cancelled, and it says nothing more.

        Raises `UsageError` if no worker of that id lives.
        """
        if worker_id not in self._processes:
            raise UsageError(f"no worker {worker_id!r} lives; there are: {', '.join(self._processes) or 'none'}")
        self._processes[worker_id].signal_group(signal.SIGKILL)

    def open(self, config: PoolConfig) -> Site:
        if not isinstance(config.adapter, GrpcPython):
            raise UsageError(f"{config.adapter!r}: only adapters of Python classes can run in memory")
        return _MemorySite(config, config.adapter, self._processes, self.faults)


class _MemorySite(Site):
    runs_inline = True

    def __init__(
        self, config: PoolConfig, adapter: GrpcPython, processes: dict[str, MemoryProcess], faults: Faults
    ) -> None:
        self._config = config
        self._processes = processes
        self._adapter = adapter
        self._faults = faults
        self._tool_loop: GuestLoop | None = None
        self._nursery: trio.Nursery | None = None
        # Whole seconds, so that sums with trio's time are rounded the same in each replay.
        self._began = int(time.time())
        self._at = trio.current_time()

    def clock(self) -> float:
        """Unix time, taken when the pool opened; from then on it goes by trio's clock."""
        return self._began + (trio.current_time() - self._at)

    def check_room(self, workers: int) -> None:
        check_whole("workers", workers, 0, _MOST)

        if self._config.per_worker is not None:
            for number in range(workers):
                self._check_options(number)

    def _check_options(self, number: int) -> None:
        options = self._config.worker_options.of(number)
        if options.env or options.cpus:
            raise UsageError(
                f"per_worker({number}): workers in memory have no env= and no cpus= of their own, because they are in"
                " this process: give only options=, or use processes"
            )

    @property
    def loop(self) -> AsyncioLoop:
        raise UsageError("a pool in memory has no connections, and so no loop for them: use processes")

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with open_guest_loop() as self._tool_loop, trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def launch(self, worker_id: str, number: int) -> MemoryProcess:
        assert self._nursery is not None
        assert self._tool_loop is not None
        refusal = self._faults.take(RefuseStart, worker_id)
        if refusal is not None and refusal.how == "launch":
            raise BlockingIOError(errno.EAGAIN, "a fault of the test: no process can be started")
        process = MemoryProcess(
            worker_id, number, self._config, partial(self._make_adapter, number), self._tool_loop, self._faults
        )
        self._nursery.start_soon(self._run, worker_id, process, refusal)
        return process

    async def _run(self, worker_id: str, process: MemoryProcess, refusal: RefuseStart | None) -> None:
        self._processes[worker_id] = process
        try:
            await process.run(refusal)
        finally:
            # A replacement, or a worker of another pool, may have the same id by now, or may have had it.
            if self._processes.get(worker_id) is process:
                del self._processes[worker_id]

    def _make_adapter(self, number: int) -> BaseAdapter:
        made = self._adapter.adapter_class
        ours = {**self._config.options, **self._config.worker_options.of(number).options}
        options = json.loads(json.dumps(ours))  # as a process would get them
        return load_adapter(self._adapter.target, options) if made is None else make_adapter(made, options)

    def close(self) -> None:
        pass


class MemoryProcess:
    """Stands in for a worker's process."""

    reap_seconds = REAP_SECONDS
    node: str | None = None

    def __init__(
        self,
        worker_id: str,
        number: int,
        config: PoolConfig,
        make_adapter: Callable[[], BaseAdapter],
        loop: GuestLoop,
        faults: Faults,
    ) -> None:
        self.pid = next(_pids)
        self.exit_code: int | None = None
        self.last_words = ""
        self.secret = secrets.token_hex(8)
        self.to_worker = Wire(faults, worker_id, "to_worker", self.die)
        self.to_host = Wire(faults, worker_id, "to_host", self.die)
        self._worker_id = worker_id
        self._number = number
        self._faults = faults
        self._config = config
        self._make_adapter = make_adapter
        self._scope = trio.CancelScope()
        self._killed_by = 0
        self._exited = trio.Event()
        self._executor: InlineExecutor | None = None
        self._loop = loop
        self._stderr = _Stderr(self._exited)

    async def run(self, refusal: RefuseStart | None) -> None:
        """Run the worker, from its start to its end."""
        code = 1
        try:
            with self._scope:
                await self._refuse(refusal)
                adapter = self._make_adapter()
                await self._complete(adapter.setup())
                if self._config.first_call:
                    await self._complete(call_at_start(self._config.first_call))
                await self._serve(adapter)
                await self._complete(adapter.close())
                code = 0
        except Exception as error:
            self.last_words = in_words(error)
            self._stderr.text = traceback.format_exc().encode()
        finally:
            self.exit_code = -self._killed_by if self._killed_by else code
            self.to_host.close()
            self._exited.set()

    async def _complete(self, returned: object) -> None:
        if inspect.isawaitable(returned):
            await self._loop.run_coroutine(completed(returned))

    async def _refuse(self, refusal: RefuseStart | None) -> None:
        if refusal is None:
            return
        if refusal.how == "hang":
            await trio.sleep_forever()
        raise RuntimeError("a fault of the test: this worker does not start")

    async def _serve(self, adapter: BaseAdapter) -> None:
        async with trio.open_nursery() as nursery:
            driver = _Driver(self.to_host, nursery)
            endpoint = LinkEndpoint(adapter, self.secret, self._config.sizes, driver, self.to_worker.close)
            driver.endpoint = endpoint
            endpoint.worker_number = self._number
            calls = CallFaults(self._faults, self._worker_id, self.die)
            self._executor = InlineExecutor(
                endpoint, endpoint.pack, self._config.concurrency, self._loop, nursery, calls
            )
            endpoint.begin(self._executor)
            driver.flush()
            try:
                while (data := await self.to_worker.get()) is not None:
                    endpoint.receive(data)
            except (ProtocolError, DecodeError):
                self.die()
            if not endpoint.is_ending:
                self.die()  # its host has gone
            # After a goodbye, the running calls may end.

    def die(self) -> None:
        """End the worker at once, as SIGKILL would."""
        self.signal_group(signal.SIGKILL)

    #

    @property
    def last_started(self) -> int:
        return 0 if self._executor is None else self._executor.last_started

    @property
    def outputs(self) -> Sequence[Output]:
        return [Output(self._stderr, logging.WARNING, True)]

    def connect(self, context: ConnectionContext) -> Connection:
        return MemoryLink(context, self)

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
            self.to_host.close()  # a killed process would not send what these tasks still send
            if self._executor is not None:
                self._executor.stop()
            self._scope.cancel()

    async def release(self) -> None:
        pass


class _Stderr(trio.abc.ReceiveStream):
    """The stderr of a worker in memory: the traceback of what has ended it. It comes when the worker has ended."""

    def __init__(self, ended: trio.Event) -> None:
        self.text = b""
        self._ended = ended

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - it comes as a whole
        await self._ended.wait()
        text, self.text = self.text, b""
        return text

    async def aclose(self) -> None:
        pass


class MemoryLink(LinkConnection):
    """The host's end of the link to a worker in memory."""

    def __init__(self, context: ConnectionContext, process: MemoryProcess) -> None:
        super().__init__(context, process.secret, process.pid, lambda: None)
        self.flush = self._send
        self._process = process

    async def carry(self) -> NoReturn:
        self._send()
        try:
            while (data := await self._process.to_host.get()) is not None:
                self.receive(data)
        finally:
            self._process.to_worker.close()
        raise LinkLost("the worker closed the link")

    def _send(self) -> None:
        while data := self.next_batch():
            self._process.to_worker.put(data)


class _Driver:
    """Drives a `LinkEndpoint` in trio. It acts at once: only batches that come off the wire wait for their turn."""

    def __init__(self, wire: Wire, nursery: trio.Nursery) -> None:
        self.endpoint: LinkEndpoint | None = None
        self._wire = wire
        self._nursery = nursery

    def post(self, verb: str) -> None:  # noqa: ARG002 - all is said at once
        assert self.endpoint is not None
        self.endpoint.take_outbox()
        self.flush()

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        self._nursery.start_soon(self._after, seconds, function, args)

    async def _after(self, seconds: float, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        await trio.sleep(seconds)
        function(*args)

    def flush(self) -> None:
        assert self.endpoint is not None
        while data := self.endpoint.data_to_send():
            self._wire.put(data)

    def clock(self) -> float:
        return trio.current_time()

    def make_queue(self) -> TrioQueue:
        return TrioQueue()
