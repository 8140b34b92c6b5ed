"""The pool: what an application holds."""

from __future__ import annotations

import itertools
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio

from bridge_py.execution.ending import forks_end
from bridge_py.version import VERSION
from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import need
from bridge_py.wire.hellos import PROTOCOL_VERSION
from bridge_py.wire.large import LARGE
from snakepit_trio._calls.call import DEFAULT, Default
from snakepit_trio._calls.deadlines import Deadlines
from snakepit_trio._calls.dispatcher import Dispatcher
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._calls.shared_copies import SharedCopies
from snakepit_trio._config.adapters import Adapter
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.policies import Affinity, bounds_of
from snakepit_trio._python.api import PythonAPI
from snakepit_trio._requests.services import HostServices
from snakepit_trio._requests.tool_registry import ToolRegistry
from snakepit_trio._util.blocks import block
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.signals import for_the_application, interruption
from snakepit_trio._util.validation import check_seconds, check_whole, refuse
from snakepit_trio._workers.autoscaling import AutoscalingPolicy
from snakepit_trio._workers.renewal import Renewal
from snakepit_trio._workers.supervisor import Supervisor
from snakepit_trio._workers.worker_process import Worker
from snakepit_trio._workers.worker_state import WorkerState
from snakepit_trio.errors import PoolNotReady
from snakepit_trio.launchers import Local
from snakepit_trio.state.store import MemoryStore
from snakepit_trio.telemetry import EventStream
from snakepit_trio.telemetry.table import check_pattern

from .apps import Apps
from .autoscaler import Autoscaler
from .call_info import CallInfo, info_of
from .calls import Calls
from .inspection import Answers, Inspection
from .near_misses import no_method
from .session import SessionHandle, open_session
from .session_events import tell_of_session
from .snapshot import host_snapshot, pool_snapshot
from .stats import PoolStats
from .worker_info import PoolHealth, WorkerInfo, Workers

if TYPE_CHECKING:
    from snakepit_trio._contract.bridge_server import BridgeServer

F = TypeVar("F", bound=Callable[..., Any])


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def opened(pool: Pool) -> AsyncIterator[Pool]:
    """Open a pool, and close it."""
    with interruption(pool._hurry) as signals, pool._resources():
        async with background_nursery() as nursery:
            # Not `nursery.start`: if it were cancelled, the shielded services would go on, and nothing would end them.
            nursery.start_soon(signals.guard, pool._serve)
            try:
                # A forked child has a copy of this loop, and must not tell the workers of its parent to end.
                with signals.scope, forks_end():
                    await pool._open()
                    yield pool
            finally:
                # In a task of its own, so that no KeyboardInterrupt gets into it. The nursery waits for this task.
                signals.is_closing = True
                nursery.start_soon(signals.guard, pool._close)


class Pool(Calls, Apps):
    """A pool of worker processes. Made by `open_pool`."""

    def __init__(self, config: PoolConfig, passed_over: tuple[tuple[Adapter, str], ...] = ()) -> None:
        #: The settings, all of them.
        self.config = config
        #: Of several adapters: the adapters that could not be used, and why.
        self.passed_over = passed_over
        self._dispatcher = Dispatcher(config)
        self._deadlines = Deadlines()
        self._supervisor = Supervisor(config, self._make_worker, self._dispatcher.workers_changed)
        self._dispatcher.supply.offers = lambda: self._supervisor.offers(self._autoscaler.most)
        self._site = (config.launcher or Local()).open(config)
        #: The store of sessions. `pool.sessions.of(session_id)` is a view of one session.
        self.sessions = config.store or MemoryStore(quotas=config.quotas, clock=self._site.clock)
        threads = None if self._site.runs_inline else config.host_threads
        #: Functions of the application that workers may call, and the workers' tools.
        self.tools = ToolRegistry(self.sessions.hub, self.execute, lambda: self._dispatcher.tools, threads)
        # A pool in memory is played again step by step, so it has no threads.
        self._most_at_once = sys.maxsize if self._site.runs_inline else LARGE
        self._services = HostServices(
            self.sessions, self.tools, config.sizes, config.session_ttl, self._dispatcher.events, self._most_at_once
        )
        self._renewal = Renewal(self._supervisor.starters, self._dispatcher.workers_changed)
        policy = AutoscalingPolicy(
            config.bounds, scale_up_after=config.scale_up_after, idle_timeout=config.idle_timeout
        )
        #: The workers, one by one: `start(n)`, `stop(id)`, `restart(id)`, `list()`, `count()`, `get(id)`, and
        #: `by_pid(pid)`; see docs/workers.md.
        self.workers = Workers(self._supervisor, self._renewal, self._site, config, policy)
        self._autoscaler = Autoscaler(policy, config, self._supervisor, self._dispatcher, self.workers)
        #: What happens in the pool, as it happens: `attach(pattern, handler)` and `detach`, see `Events`.
        self.events = self._dispatcher.events
        try:
            self._bridge_server = self._make_bridge_server(config)
        except BaseException:
            self._site.close()
            raise
        answers: Answers = {"pool": partial(pool_snapshot, self), "host": host_snapshot}
        self._inspection = Inspection(config.name, lambda: self._site.folder, answers)
        self._service_scope = trio.CancelScope(shield=True)
        self._serving = trio.Event()
        self._was_opened = False
        self._goodbyes = trio.CancelScope(shield=True)  # the steps of closing that may take their time
        self._opened_at = time.monotonic()
        # One for each call that may run, and one for the next call of each worker.
        self._shared_copies = SharedCopies(config.bounds.most * (config.concurrency + 1))
        self._python: PythonAPI | None = None
        self._token = trio.lowlevel.current_trio_token()
        runner = CallRunner(
            config,
            self._dispatcher,
            self._supervisor,
            self._deadlines,
            self._shared_copies,
            self._most_at_once,
            self.sessions,
        )
        Calls.__init__(self, runner, 2 * config.bounds.most * config.concurrency)
        Apps.__init__(self)

    def session(
        self,
        session_id: str | None = None,
        *,
        ttl: float | Default | None = DEFAULT,
        affinity: Affinity | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[SessionHandle]:
        """Open a session: `async with pool.session() as session`. It has variables, programs and calls of its own.

        Without an id, the session is new and ends with the block. With an id, it is the session of that id, or a new
        one, and lives on for `ttl` seconds after its last use (`session_ttl` by default; None: for ever). While the
        block runs, its calls go to workers as `affinity` says; the default is the affinity of the pool.

        Raises `SessionError` for an invalid ttl, `UsageError` for an unknown affinity, and `QuotaExceeded`.
        """
        seconds = self.config.session_ttl if isinstance(ttl, Default) else ttl
        return open_session(self, self._runner.affinities, session_id, seconds, affinity, metadata or {})

    def expose(self, function: F, *, name: str | None = None, description: str | None = None) -> F:
        """Let the code of all workers call a function: `context.call_host_tool(name, ...)`. Usable as a decorator.

        Returns the function. It may be a plain function, which runs in one of `host_threads` threads, a coroutine
        function of trio, a generator or an async generator. When the call that it runs for ends, the function is
        cancelled, and the call is over only when the function has ended. A plain function cannot be cancelled: the call
        waits for it, and calls of the pool that the function waits for end with `ToolCancelled`. A pool that closes
        waits for it until `shutdown_timeout` is over. Arguments are checked in the same way as arguments of tools. A
        parameter annotated with `HostCall` gets the call that the function serves.

        Raises `UsageError` if the name is taken, or if the function cannot be called by parameter names.
        """
        return self.tools.register_host_tool(None, function, name=name, description=description)

    @property
    def python(self) -> PythonAPI:
        """Dynamic calls of everything that Python can import, by its name. The adapter must be a `PythonCalls`."""
        if self._python is None:
            self._python = PythonAPI(self._runner, self.sessions, self._dispatcher, self.config.session_ttl)
        return self._python

    @property
    def bridge_address(self) -> str:
        """The address at which clients of the contract reach this pool, as "host:port".

        Raises `UsageError` if the pool serves no clients.
        """
        if self._bridge_server is None:
            raise UsageError("this pool serves no clients: open it with bridge_server=True")
        return self._bridge_server.address

    if not TYPE_CHECKING:  # type checkers would take any attribute for one of a pool

        def __getattr__(self, name: str) -> Any:
            raise no_method(self, name)

    # Looking at the pool.

    @block("async with pool.watch(...) as events")
    async def watch(self, *patterns: str, most: int = 1000) -> AsyncIterator[EventStream]:
        """Watch events as they happen: `async with pool.watch("call.progress") as events`, then `async for`.

        The stream has the events whose name matches any of `patterns`, such as "worker.*", or all events if none is
        given. It never holds up the pool: at most `most` events wait to be taken, and beyond that the oldest is lost
        (`events.dropped`). Of the progress of one call only the latest report waits (`events.replaced`). The stream
        ends when the pool has closed, or with the block. It begins when the block is entered, without a checkpoint.

        Raises `UsageError` for a pattern that no event matches, and for `most` that is no whole number from 1 on.
        """
        check_whole("most", most, 1)
        stream = EventStream(tuple(map(check_pattern, patterns)) or ("*",), most)
        with self.events.tell(stream):
            yield stream  # noqa: ASYNC119 - `block` makes a context manager

    def get_stats(self) -> PoolStats:
        """The pool's counts, and where the time of its calls went. Cheap: it asks no worker."""
        states = [starter.state for starter in self._supervisor.starters.values()]
        dispatcher = self._dispatcher
        return PoolStats(
            workers=self._supervisor.target,
            ready=states.count(WorkerState.READY) + states.count(WorkerState.BUSY),
            busy=states.count(WorkerState.BUSY),
            spares=states.count(WorkerState.SPARE),
            queued=dispatcher.queued,
            limited=dispatcher.queued_with_limits,
            running=dispatcher.running,
            calls=dispatcher.submitted,
            succeeded=dispatcher.succeeded,
            failed=dispatcher.failed,
            cancelled=self._runner.cancelled + self._runner.under_way.cancelled,
            timed_out=self._runner.timed_out,
            crashed=dispatcher.crashed,
            retried=self._runner.retried,
            restarts=self._supervisor.restarts,
            recycled=self._supervisor.recycled,
            queue_time=dispatcher.time_spent.queued,
            link_time=dispatcher.time_spent.on_link,
            run_time=dispatcher.time_spent.ran,
            uptime=time.monotonic() - self._opened_at,
            dropped_logs=dispatcher.dropped_logs,
        )

    def list_workers(self) -> list[WorkerInfo]:
        """The workers, in the order of their start; the same as `workers.list()`."""
        return self.workers.list()

    def list_calls(self, most: int | None = None) -> list[CallInfo]:
        """The calls that are under way: those that workers have first, then those in the queue; at most `most` of them.

        Calls in a batch are listed one by one. So are calls that host tools have made. Takes longer the more calls
        there are. Raises `UsageError` for `most` that is no whole number from 0 on.
        """
        if most is not None:
            check_whole("most", most, 0)
        calls = self._runner.under_way
        return [info_of(call, calls) for call in itertools.islice(calls, most)]

    def cancel_call(self, call_id: int, reason: str = "") -> bool:
        """Cancel one call by the id that `list_calls` tells. Its caller gets `CallCancelled`, which has the `reason`.

        Returns True if its caller will get that error, and False if the call is over, or its caller has given it up.
        The call is stopped at once, also a stream whose consumer is busy. Its caller gets the error when none of its
        code runs any more: code that does not end within `cancel_grace` seconds costs its worker, as with any other
        cancellation. `retries` do not run it again. Does not wait.

        Raises `UsageError` for an id that is no int, and for a reason that is no str.
        """
        if not isinstance(call_id, int) or isinstance(call_id, bool):
            raise refuse("cancel_call", call_id, "give the id of a call, as list_calls() tells it")
        if not isinstance(reason, str):
            raise refuse("reason", reason, "give a text for the caller")
        return self._runner.under_way.cancel(call_id, reason)

    def get_health(self) -> PoolHealth:
        """Whether the pool can work, and how its workers answer. Asks no worker: it tells of their latest pings."""
        return PoolHealth.of(self.workers.list(), self._supervisor.target, self._dispatcher.is_closed)

    def get_info(self) -> dict[str, Any]:
        """What this pool is: name, versions, settings and the workers' tools, as plain values."""
        return {
            "name": self.config.name,
            "version": VERSION,
            "python": platform.python_version(),
            "worker_python": sorted({worker.python for worker in self._supervisor.ready()}),
            "protocol": PROTOCOL_VERSION,
            "adapter": str(self.config.adapter),
            "workers": self._supervisor.target,
            "concurrency": self.config.concurrency,
            "tools": msgspec.to_builtins(list(self._dispatcher.tools.values())),
        }

    async def resize(self, workers: int | tuple[int, int]) -> None:
        """Change `workers=`: to a number, or to the least and the most, between which the load decides.

        Returns when new workers are ready, or surplus ones have ended after their calls. If cancelled, no more workers
        are started, starts under way go on, and surplus workers still end.

        Raises `UsageError` for no such number, and for more workers than this machine can hold; then nothing changes.
        Raises `WorkerStartError`, at once, if a worker cannot start; the workers that can start stay. Raises
        `PoolClosed` if the pool closes.
        """
        require_trio()
        bounds = bounds_of(workers)
        self._supervisor.check_open()
        self.workers._prepare(bounds.most)
        self._autoscaler.change_bounds(bounds)
        target = self._supervisor.target
        if target < bounds.least:
            await self.workers._add(bounds.least - target)
        else:
            await self._supervisor.shrink(max(0, target - bounds.most))
        self._supervisor.check_open()
        self.events.emit("pool.resized", {}, workers=self._supervisor.target)

    async def reload(self) -> None:
        """Replace all workers and spares by fresh ones, which import the code as it is now. No call fails by this.

        They are replaced one at a time. Each fresh worker starts first; then the old one takes no more calls, finishes
        those that it has, and ends. Spares are replaced first, and step in with the new code. Until then, a call gets
        an old worker or a new one. Returns when all workers that take calls, and all spares, are new; old ones may
        still finish their calls. From then on `pool.tools` has the tools of the new workers alone. This process keeps
        the code that it has imported.

        Raises `WorkerStartError`, at once, if a fresh worker cannot start: the old one, and all that have not been
        replaced yet, stay in service, and those that have been replaced stay new. (With `per_worker`, an old worker
        without a spare ends before the fresh one starts. Then the pool tries to start it again, in the usual way.)
        Raises `PoolClosed` if the pool closes. If cancelled, no further worker is replaced.

        A second reload waits for the first, and then replaces the workers that were started before it was called.
        Workers that `resize` adds or takes out meanwhile need no replacement.
        """
        require_trio()
        self._supervisor.check_open()
        self._site.renew_template()
        await self._renewal.reload()
        self._supervisor.check_open()
        self._dispatcher.forget_tools()

    async def await_ready(self, timeout: float = 30) -> None:
        """Wait until all workers are ready, for `timeout` seconds at the most.

        Returns at once if they are. Raises `PoolNotReady` when the time is over, `PoolClosed` if the pool closes, and
        `UsageError` for a timeout that is no number of seconds from 0 on.
        """
        require_trio()
        check_seconds("timeout", timeout, or_zero=True)
        missing = 0
        with trio.move_on_after(timeout) as waiting:
            while (missing := self._supervisor.missing()) and not self._dispatcher.is_closed:
                await self._dispatcher.workers_changed.wait()
        if waiting.cancelled_caught:
            raise PoolNotReady(
                f"{missing} of {self._supervisor.target} workers were not ready within {timeout} s: the log says why"
                " workers ended, and get_health() tells where each one is; or wait longer with timeout="
            )
        self._supervisor.check_open()

    # Opening and closing.

    @contextmanager
    def _resources(self) -> Iterator[None]:
        """Hold the pool's resources, and give them back when nothing of the pool runs any more."""
        end_telling = self.sessions.hub.observe(partial(tell_of_session, self.events))
        try:
            with closing(self.events), closing(self._site), closing(self._shared_copies), closing(self._services):
                yield
        finally:
            end_telling()

    async def _serve(self) -> None:
        # Shielded from the outside, so that bodies unwind while their services still run.
        try:
            with self._service_scope:
                await self._run_services()
        finally:
            # However the services have ended: without them, a queued call would wait for ever.
            self._dispatcher.close()

    async def _run_services(self) -> None:
        async with trio.open_nursery() as outer:
            await outer.start(self._site.run)
            if self._bridge_server is not None:
                await outer.start(self._bridge_server.run, self._site.loop)
            async with trio.open_nursery() as inner:
                await inner.start(self._supervisor.run)
                inner.start_soon(self._dispatcher.stalls.watch)
                inner.start_soon(self._dispatcher.deadlocks.watch, self._supervisor.coming, self._autoscaler.may_grow)
                inner.start_soon(self._autoscaler.run)
                inner.start_soon(self._dispatcher.watch_supply)
                inner.start_soon(self._deadlines.run)
                inner.start_soon(self._inspection.run)
                inner.start_soon(self._dispatcher.batches.run)
                inner.start_soon(self._runner.under_way.run)
                inner.start_soon(self._background.run)
                reaper = partial(self.sessions.run_reaper, self.config.cleanup_interval)
                inner.start_soon(for_the_application, reaper)
                self._serving.set()
            outer.cancel_scope.cancel()

    def _make_bridge_server(self, config: PoolConfig) -> BridgeServer | None:
        if not config.bridge_server:
            return None
        if self._site.runs_inline:
            raise UsageError("a pool in memory has no connections, and serves no clients: leave bridge_server out")
        need("betterproto2", "grpc", "bridge_server=")
        from bridge_py.contract.credentials import Credentials
        from snakepit_trio._contract.access import PoolAccess
        from snakepit_trio._contract.bridge_server import BridgeServer, PoolServing
        from snakepit_trio._contract.server import BridgeService

        address = "127.0.0.1:0" if config.bridge_server is True else str(config.bridge_server)
        access = PoolAccess(self._services, self, config.session_ttl, config.allow_pickle)
        credentials = Credentials(config.bridge_token, config.bridge_tls)
        service = BridgeService(access, self.events)
        serving = PoolServing(lambda: self._dispatcher.takes_calls, self._dispatcher.workers_changed)
        return BridgeServer(address, service, serving, config.open_to, credentials)

    def _make_worker(self, id: str, number: int) -> Worker:
        return Worker(id, number, self.config, self._site, self._dispatcher, self._services)

    async def _open(self) -> None:
        await self._serving.wait()
        least, most = self.config.bounds
        self.workers._prepare(most)  # what an autoscaled pool cannot have is refused before its load asks for it
        await self.workers._add(least)
        self._supervisor.keep_spares(self.config.spares)
        self._was_opened = True
        self.events.emit("pool.opened", {}, workers=self._supervisor.target)
        self._autoscaler.begin()

    async def _close(self) -> None:
        try:
            with self._goodbyes:
                self._goodbyes.deadline = trio.current_time() + self.config.shutdown_timeout
                if not self._was_opened:
                    self._goodbyes.cancel()  # its workers have served no call
                await self._end_in_order()
        finally:
            # Each of these steps is done, even if another raises.
            with ExitStack() as steps:
                steps.callback(self._service_scope.cancel)
                steps.callback(self.tools._abandon_threads)
                steps.callback(self._supervisor.hurry)

    async def _end_in_order(self) -> None:
        with ExitStack() as steps:
            if self._python is not None:
                steps.callback(self._python.close)
            steps.callback(self._autoscaler.stop)
            steps.callback(self._dispatcher.close)
        await self._supervisor.stop()

    def _hurry(self) -> None:
        self._goodbyes.cancel()
