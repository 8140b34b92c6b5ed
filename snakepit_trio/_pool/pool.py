"""The pool: what an application holds."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import attrs
import msgspec
import trio

from bridge_py.execution.ending import forks_end
from bridge_py.wire.errors import UsageError
from bridge_py.wire.hellos import PROTOCOL_VERSION
from bridge_py.wire.large import LARGE
from snakepit_trio._calls.call import DEFAULT, Default
from snakepit_trio._calls.deadlines import Deadlines
from snakepit_trio._calls.dispatcher import Dispatcher
from snakepit_trio._calls.runner import CallRunner
from snakepit_trio._calls.shared_copies import SharedCopies
from snakepit_trio._config.adapters import Adapter
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.options import AdapterLike, FurtherOptions
from snakepit_trio._config.policies import Affinity
from snakepit_trio._python.api import PythonAPI
from snakepit_trio._requests.services import HostServices
from snakepit_trio._requests.tool_registry import ToolRegistry
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.ownership import require_trio
from snakepit_trio._util.signals import for_the_application, interruption
from snakepit_trio._util.validation import check_seconds, check_whole, refuse
from snakepit_trio._workers.supervisor import Supervisor
from snakepit_trio._workers.worker_process import Worker
from snakepit_trio._workers.worker_state import WorkerState
from snakepit_trio.errors import PoolClosed, PoolNotReady, WorkerStartError
from snakepit_trio.launchers import Local
from snakepit_trio.state.store import MemoryStore

from .calls import Calls
from .session import SessionHandle, open_session
from .stats import PoolStats
from .worker_info import PoolHealth, WorkerInfo, Workers

if TYPE_CHECKING:
    from snakepit_trio._contract.bridge_server import BridgeServer

logger = get_logger("snakepit.pool")
F = TypeVar("F", bound=Callable[..., Any])


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_pool(
    adapter: AdapterLike | None = None,
    *,
    adapters: Sequence[AdapterLike] = (),
    **config: Unpack[FurtherOptions],
) -> AsyncIterator[Pool]:
    """Open a pool of worker processes.

    Use it as `async with open_pool("my_app.tools:Tools") as pool`.

    The block is entered when all workers are ready. When it is left, in whatever way, all calls are
    stopped, and all workers are ended and reaped, in `shutdown_timeout` seconds at the most. An exception
    of the block comes out unchanged. Without an adapter, the pool uses the adapter that `SNAKEPIT_ADAPTER` or
    `[tool.snakepit]` in pyproject.toml names, else the showcase. By default there are two workers (`workers=2`), and
    each runs one call at a time (`concurrency=1`). `PoolOptions` has all settings with their types. The fields of
    `PoolConfig` with the same names tell what each setting means, its unit and its default.

    With `adapters` in place of `adapter`, the pool tries them in order, and uses the first adapter whose workers can
    start. The reasons against the others are logged, and are in `Pool.passed_over`. If no adapter can be used, the
    `UsageError` has all the reasons.

    In the main thread, SIGINT and SIGTERM end the pool in order. The first signal cancels the block and then
    raises `KeyboardInterrupt` or `SystemExit(143)`, unless the application handles that signal itself. A further
    signal while the pool closes kills its workers at once. A further signal before that breaks into the block, as it
    would without a pool.

    With `pickle=True`, `run`, `iterate` and `map` take lambdas, local functions and any object that cloudpickle can
    pickle. Pickles run code where they are read: a worker can then run any code in this process.

    Raises `UsageError` for an invalid configuration, and outside of trio. Raises, at once, `WorkerStartError` if a
    worker cannot start, and `OutOfResources` if this process lacks disk space, descriptors or memory.
    """
    require_trio()
    if isinstance(adapters, str) or not isinstance(adapters, Sequence):
        raise refuse("adapters", adapters, "give a list of adapters, or adapter= for one")
    if adapters and adapter is not None:
        raise UsageError("give adapter= or adapters=, not both")
    made_of: dict[str, Any] = {**config}  # `PoolConfig` converts from wider types than its fields have
    try:
        settings = [PoolConfig(adapter=each, **made_of) for each in (*adapters, adapter) if each or not adapters]
    except TypeError as error:
        raise _better(error) from None
    async with AsyncExitStack() as stack:
        yield await (_open_first(stack, settings) if adapters else _open_only(stack, settings[0]))


@trio.lowlevel.enable_ki_protection
async def _open_only(stack: AsyncExitStack, settings: PoolConfig) -> Pool:
    if settings.adapter.protocol != "link" and (reason := settings.adapter.unavailable(settings.python)):
        raise UsageError(f"{settings.adapter!r} cannot be used here: {reason}")
    return await stack.enter_async_context(_opened(Pool(settings)))


@trio.lowlevel.enable_ki_protection
async def _open_first(stack: AsyncExitStack, candidates: Sequence[PoolConfig]) -> Pool:
    passed_over: list[tuple[Adapter, str]] = []
    for settings in candidates:
        reason = settings.adapter.unavailable(settings.python)
        if reason is None:
            try:
                pool = await stack.enter_async_context(_opened(Pool(settings, tuple(passed_over))))
            except WorkerStartError as error:
                reason = str(error)
            else:
                return pool
        logger.warning("%r is passed over: %s", settings.adapter, reason)
        passed_over.append((settings.adapter, reason))
    raise UsageError("no adapter can be used here: " + "; ".join(f"{each!r}: {why}" for each, why in passed_over))


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _opened(pool: Pool) -> AsyncIterator[Pool]:
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


class Pool(Calls):
    """A pool of worker processes. Made by `open_pool`."""

    def __init__(self, config: PoolConfig, passed_over: tuple[tuple[Adapter, str], ...] = ()) -> None:
        self.config = config
        #: Of several adapters: the adapters that could not be used, and why.
        self.passed_over = passed_over
        self._dispatcher = Dispatcher(config)
        self._deadlines = Deadlines()
        self._supervisor = Supervisor(config, self._make_worker, self._dispatcher.workers_changed)
        self._site = (config.launcher or Local()).open(config)
        #: The store of sessions. `pool.sessions.of(session_id)` is a view of one session.
        self.sessions = config.store or MemoryStore(quotas=config.quotas, clock=self._site.clock)
        #: Functions of the application that workers may call, and the workers' tools.
        threads = None if self._site.runs_inline else config.host_threads
        self.tools = ToolRegistry(self.sessions.hub, self.execute, lambda: self._dispatcher.tools, threads)
        # A pool in memory is played again step by step, so it has no threads.
        self._most_at_once = sys.maxsize if self._site.runs_inline else LARGE
        self._services = HostServices(
            self.sessions, self.tools, config.sizes, config.session_ttl, self._dispatcher.events, self._most_at_once
        )
        #: The workers, one by one.
        self.workers = Workers(self._supervisor, self._site, config.worker_options)
        #: What happens in the pool, as it happens.
        self.events = self._dispatcher.events
        try:
            self._bridge_server = self._make_bridge_server(config)
        except BaseException:
            self._site.close()
            raise
        self._service_scope = trio.CancelScope(shield=True)
        self._serving = trio.Event()
        self._was_opened = False
        self._goodbyes = trio.CancelScope(shield=True)  # the steps of closing that may take their time
        self._opened_at = time.monotonic()
        # One for each call that may run, and one for the next call of each worker.
        self._shared_copies = SharedCopies(config.workers * (config.concurrency + 1))
        self._python: PythonAPI | None = None
        runner = CallRunner(
            config, self._dispatcher, self._supervisor, self._deadlines, self._shared_copies, self._most_at_once
        )
        super().__init__(runner, 2 * config.workers * config.concurrency)

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

    # Looking at the pool.

    def get_stats(self) -> PoolStats:
        """The pool's counts."""
        states = [starter.state for starter in self._supervisor.starters.values()]
        dispatcher = self._dispatcher
        return PoolStats(
            workers=self._supervisor.target,
            ready=states.count(WorkerState.READY) + states.count(WorkerState.BUSY),
            busy=states.count(WorkerState.BUSY),
            queued=dispatcher.queued,
            limited=dispatcher.queued_with_limits,
            running=dispatcher.running,
            calls=dispatcher.submitted,
            succeeded=dispatcher.succeeded,
            failed=dispatcher.failed,
            cancelled=self._runner.cancelled,
            timed_out=self._runner.timed_out,
            crashed=dispatcher.crashed,
            retried=self._runner.retried,
            restarts=self._supervisor.restarts,
            recycled=self._supervisor.recycled,
            uptime=time.monotonic() - self._opened_at,
        )

    def list_workers(self) -> list[WorkerInfo]:
        """The workers, in the order of their start; the same as `workers.list()`."""
        return self.workers.list()

    def get_health(self) -> PoolHealth:
        """Whether the pool can work, and how its workers answer."""
        return PoolHealth.of(self.workers.list(), self._supervisor.target, self._dispatcher.is_closed)

    def get_info(self) -> dict[str, Any]:
        """What this pool is: name, versions, settings and the workers' tools, as plain values."""
        return {
            "name": self.config.name,
            "version": importlib.metadata.version("snakepit-trio"),
            "python": platform.python_version(),
            "worker_python": sorted({worker.python for worker in self._supervisor.ready()}),
            "protocol": PROTOCOL_VERSION,
            "adapter": str(self.config.adapter),
            "workers": self._supervisor.target,
            "concurrency": self.config.concurrency,
            "tools": msgspec.to_builtins(list(self._dispatcher.tools.values())),
        }

    async def resize(self, workers: int) -> None:
        """Change the number of workers. Returns when new ones are ready, or surplus ones have ended after their calls.

        Raises `UsageError` for more workers than this machine can hold, and `WorkerStartError` if a worker cannot
        start; the workers that can start stay.
        """
        require_trio()
        check_whole("workers", workers, 1)
        missing = workers - self._supervisor.target
        if missing > 0:
            await self.workers.start(missing)
        else:
            await self._supervisor.shrink(-missing)

    async def await_ready(self, timeout: float = 30) -> None:
        """Wait until all workers are ready. Raises `PoolNotReady` after `timeout` seconds."""
        require_trio()
        check_seconds("timeout", timeout, or_zero=True)
        missing = 0
        with trio.move_on_after(timeout) as waiting:
            while (missing := self._supervisor.missing()) and not self._dispatcher.is_closed:
                await self._dispatcher.workers_changed.wait()
        if waiting.cancelled_caught:
            raise PoolNotReady(f"{missing} of {self._supervisor.target} workers were not ready within {timeout} s")
        if self._dispatcher.is_closed:
            raise PoolClosed("the pool is closed")

    # Opening and closing.

    @contextmanager
    def _resources(self) -> Iterator[None]:
        """Hold the pool's resources, and give them back when nothing of the pool runs any more."""
        with closing(self._site), closing(self._shared_copies), closing(self._services):
            yield

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
                inner.start_soon(self._dispatcher.deadlocks.watch, self._supervisor.missing)
                inner.start_soon(self._deadlines.run)
                reaper = partial(self.sessions.run_reaper, self.config.cleanup_interval)
                inner.start_soon(for_the_application, reaper)
                self._serving.set()
            outer.cancel_scope.cancel()

    def _make_bridge_server(self, config: PoolConfig) -> BridgeServer | None:
        if not config.bridge_server:
            return None
        if self._site.runs_inline:
            raise UsageError("a pool in memory has no connections, and serves no clients: leave bridge_server out")
        from bridge_py.contract.credentials import Credentials
        from snakepit_trio._contract.access import PoolAccess
        from snakepit_trio._contract.bridge_server import BridgeServer
        from snakepit_trio._contract.server import BridgeService

        address = "127.0.0.1:0" if config.bridge_server is True else str(config.bridge_server)
        access = PoolAccess(self._services, self, config.session_ttl, config.allow_pickle)
        credentials = Credentials(config.bridge_token, config.bridge_tls)
        return BridgeServer(address, BridgeService(access, self.events), config.open_to, credentials)

    def _make_worker(self, id: str, number: int) -> Worker:
        return Worker(id, number, self.config, self._site, self._dispatcher, self._services)

    async def _open(self) -> None:
        await self._serving.wait()
        await self.workers.start(self.config.workers)
        self._was_opened = True

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
                steps.callback(self.tools.abandon_threads)
                steps.callback(self._supervisor.hurry)

    async def _end_in_order(self) -> None:
        with ExitStack() as steps:
            if self._python is not None:
                steps.callback(self._python.close)
            steps.callback(self._dispatcher.close)
        await self._supervisor.stop()

    def _hurry(self) -> None:
        self._goodbyes.cancel()


def _better(error: TypeError) -> Exception:
    text = str(error)
    if "unexpected keyword argument" not in text:
        return error
    known = ", ".join(field.name for field in attrs.fields(PoolConfig) if field.init)
    what = text.partition("() ")[2]
    stop = "" if what.endswith("?") else "."  # from Python 3.13 on: "Did you mean ...?"
    return UsageError(f"open_pool {what}{stop} The settings are: {known}")
