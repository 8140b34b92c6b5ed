"""The pool: what an application holds."""

from __future__ import annotations

import importlib.metadata
import inspect
import itertools
import os
import platform
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any, Final, NoReturn, TypeVar

import attrs
import msgspec
import trio

from bridge_py import BaseAdapter
from bridge_py.cargo import Cargo, load_of
from bridge_py.wire import codec
from bridge_py.wire.conversation import PROTOCOL_VERSION
from bridge_py.wire.errors import CallTimeout, CodecError, DecodeError, RemoteProtocolError, UsageError
from bridge_py.wire.frames import Frame

from . import processes
from .adapters import Adapter
from .affinity import Affinity
from .bridge.desk import Bridge
from .call import Call
from .config import PoolConfig
from .deadlines import Deadlines
from .dispatcher import Dispatcher
from .errors import PoolClosed, PoolError, PoolNotReady, WorkerCrashed
from .freight import Freight
from .guard import Guard
from .handle import DEFAULT, Default, SessionHandle, open_session
from .link import AsyncioLoop
from .nurseries import background_nursery
from .policy import RetryPolicy
from .signals import interruption
from .state.store import MemoryStore
from .stats import PoolStats
from .streams import Chunks, Results
from .supervisor import Supervisor
from .worker import Worker, WorkerState
from .workers import PoolHealth, WorkerInfo, Workers

_SUSPECTS_WAIT: Final = 1.0  # seconds

T = TypeVar("T")
Arguments = Mapping[str, Any]


@asynccontextmanager
async def open_pool(
    adapter: str | type[BaseAdapter] | Adapter | None = None,
    *,
    workers: int = 2,
    concurrency: int = 1,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    python: str | os.PathLike[str] = sys.executable,
    name: str | None = None,
    **config: Any,
) -> AsyncIterator[Pool]:
    """Open a pool of worker processes.

    Use it as `async with open_pool("my_app.tools:Tools") as pool`.

    The block is entered when all workers are ready. When it is left, in whatever way, all calls are
    stopped and all workers ended and reaped, in `shutdown_timeout` seconds at the most; what the
    block raised leaves as itself. Without an adapter: the one that `SNAKEPIT_ADAPTER` or `[tool.snakepit]`
    in pyproject.toml names, else the showcase. Further settings: see `PoolConfig`.

    In the main thread, SIGINT and SIGTERM end the pool in order: the first one cancels the block and then
    raises `KeyboardInterrupt` or `SystemExit(143)`, unless the application handles that signal itself.

    Raises `UsageError`, `TypeError` or `ValueError` for a configuration that cannot be, and
    `WorkerStartError`, at once, if a worker cannot start.
    """
    try:
        settings = PoolConfig(
            adapter=adapter,
            workers=workers,
            concurrency=concurrency,
            env=env,
            cwd=cwd,
            python=os.fspath(python),
            name=name,
            **config,
        )
    except TypeError as error:
        raise _better(error) from None
    pool = Pool(settings)
    with interruption() as signals:
        try:
            async with background_nursery() as nursery:
                await nursery.start(pool._serve)
                try:
                    with signals.scope:
                        await pool._start()
                        yield pool
                finally:
                    with trio.CancelScope(shield=True):
                        await pool._close()
        finally:
            signals.check()


class Pool:
    """A pool of worker processes. Made by `open_pool`."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self._loop = AsyncioLoop()
        self._dispatcher = Dispatcher(config)
        self._deadlines = Deadlines()
        self._registry = processes.ProcessRegistry.open(config.name)
        self._supervisor = Supervisor(config, self._make_worker, self._dispatcher.workers_changed)
        #: Where sessions are kept. `pool.sessions.of(session_id)` is what one of them holds.
        self.sessions = config.store or MemoryStore(quotas=config.quotas)
        self._bridge = Bridge(self.sessions, config.sizes, config.workers)
        self._affinities: dict[str, Affinity] = {}  # of sessions that have one of their own
        #: The workers, one by one.
        self.workers = Workers(self._supervisor)
        #: What happens in the pool, as it happens.
        self.events = self._dispatcher.events
        self._services = trio.CancelScope(shield=True)
        self._opened_at = time.monotonic()
        self._cancelled = self._timed_out = self._retried = 0
        self._sizes = config.sizes
        # As many as may run, and one for each worker to go on with.
        self._freight = Freight(config.workers * (config.concurrency + 1))

    # Calls.

    async def execute(
        self,
        name: str,
        args: Arguments | None = None,
        *,
        timeout: float | None = 30,
        session: str | None = None,
        retries: int | RetryPolicy | None = None,
    ) -> Any:
        """Run a tool in a worker and return its result.

        `timeout`, in seconds, covers queueing, wire and tool; None for no limit. If the call is
        cancelled or times out, its code is stopped before this returns; code that does not stop
        within `cancel_grace` seconds costs its worker's life. A call that still waits for a worker
        just leaves the line. Calls of one `session` keep to one worker, as `affinity` says.

        `retries` says how often the call may be run again, on another worker and within the same
        `timeout`, if its worker crashes; by default never, or as `PoolConfig.retry` says if the
        tool is declared idempotent. Nothing else is ever run twice.

        Raises `InvalidArguments`, `UnknownTool`, `EncodeError`, `ToolError` (the tool raised),
        `CallTimeout`, `WorkerCrashed` (of the last run) and `PoolClosed`; without running, `Tainted`,
        `PoolSaturated` if `max_queue` calls wait already, and `WorkerBusy` with `affinity="strict_fail_fast"`.
        """
        call = self._new_call(name, args, timeout, session, None)
        try:
            await self._finish(call)
            if call.failure is not None:
                call = await self._retry(call, retries)
        finally:
            self._unload(call)
        assert call.final is not None
        return self._decode(call, call.final)

    @asynccontextmanager
    async def stream(
        self, name: str, args: Arguments | None = None, *, timeout: float | None = 300, session: str | None = None
    ) -> AsyncIterator[Chunks]:
        """Run a streaming tool; use it as `async with pool.stream(...) as chunks`, then `async for chunk in chunks`.

        The tool is never more than `stream_window` chunks ahead of the consumer. Leaving the block
        early stops the tool, in the same way as cancelling `execute`. Errors are raised where the
        chunks are taken; `PoolClosed`, `PoolSaturated` and `WorkerBusy` on entering.
        """
        call = self._new_call(name, args, timeout, session, self.config.stream_window)
        try:
            await self._submit(call)
            yield Chunks(call, self.config.stream_window, self._decode, self._time_out)
        except trio.Cancelled:
            self._cancelled += not call.is_over
            raise
        finally:
            self._deadlines.remove(call)
            await self._abandon(call)  # noqa: ASYNC102 - shielded and bounded in there
            self._unload(call)

    async def execute_stream(
        self,
        name: str,
        args: Arguments | None,
        callback: Callable[[Any], Awaitable[object] | object],
        *,
        timeout: float | None = 300,
        session: str | None = None,
    ) -> None:
        """Run a streaming tool and call `callback` with each chunk; an awaitable it returns is awaited.

        What the callback raises stops the tool and leaves as itself.
        """
        async with self.stream(name, args, timeout=timeout, session=session) as chunks:
            async for chunk in chunks:
                answer = callback(chunk)
                if inspect.isawaitable(answer):
                    await answer

    @asynccontextmanager
    async def map(
        self,
        name: str,
        args: Iterable[Arguments] | AsyncIterable[Arguments],
        *,
        limit: int | None = None,
        ordered: bool = False,
        timeout: float | None = 30,
        session: str | None = None,
    ) -> AsyncIterator[Results[Arguments, Any]]:
        """Run a tool for each of many arguments: `async with pool.map(...) as results`, then iterate.

        Draws from `args`, also an async iterable, only as fast as results are taken: at most `limit`
        calls (twice the pool's capacity by default) are under way or wait to be taken. Results come as
        they are ready, or with `ordered` in the order of `args`. A failed call raises where its result
        would have come; leaving the block stops what is still under way. `timeout` is for each call.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; give at least 1, or None for twice the pool's capacity")
        limit = limit or 2 * self.config.workers * self.config.concurrency
        results: Results[Arguments, Any] = Results(args, limit, ordered)

        async def call(item: Arguments) -> Any:
            return await self.execute(name, item, timeout=timeout, session=session)

        async with background_nursery() as nursery:
            nursery.start_soon(results.feed, call)
            yield results

    def session(
        self,
        session_id: str | None = None,
        *,
        ttl: float | Default | None = DEFAULT,
        affinity: Affinity | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[SessionHandle]:
        """A session: `async with pool.session() as session`. See `SessionHandle` for what it can do.

        Without an id it is a new one, which ends with the block. With an id it is the one of that id, or a new one, and
        lives on for `ttl` seconds after its last use (`session_ttl` by default; None: for ever). While the block runs,
        its calls go to workers as `affinity` says, by default that of the pool.

        Raises `SessionError` for a ttl that cannot be, `UsageError` for such an affinity, and `QuotaExceeded`.
        """
        seconds = self.config.session_ttl if isinstance(ttl, Default) else ttl
        return open_session(self, self._affinities, session_id, seconds, affinity, metadata or {})

    # Looking at it.

    def get_stats(self) -> PoolStats:
        """The pool's counts."""
        states = [starter.state for starter in self._supervisor.starters.values()]
        dispatcher = self._dispatcher
        return PoolStats(
            workers=self._supervisor.target,
            ready=states.count(WorkerState.READY) + states.count(WorkerState.BUSY),
            busy=states.count(WorkerState.BUSY),
            queued=dispatcher.queued,
            running=dispatcher.running,
            calls=dispatcher.submitted,
            succeeded=dispatcher.succeeded,
            failed=dispatcher.failed,
            cancelled=self._cancelled,
            timed_out=self._timed_out,
            crashed=dispatcher.crashed,
            retried=self._retried,
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
        """Change the number of workers; returns when they are ready, or retired after their calls.

        Raises `WorkerStartError` if one cannot start; those that can stay.
        """
        if workers < 1:
            raise UsageError(f"resize to {workers} workers: a pool has at least 1")
        missing = workers - self._supervisor.target
        if missing > 0:
            await self.workers.start(missing)
        else:
            await self._supervisor.shrink(-missing)

    async def await_ready(self, timeout: float = 30) -> None:
        """Wait until all workers are ready. Raises `PoolNotReady` after `timeout` seconds."""
        with trio.move_on_after(timeout) as waiting:
            while (missing := self._supervisor.missing()) and not self._dispatcher.is_closed:
                await self._dispatcher.workers_changed.wait()
        if waiting.cancelled_caught:
            raise PoolNotReady(f"{missing} of {self._supervisor.target} workers were not ready within {timeout} s")
        if self._dispatcher.is_closed:
            raise PoolClosed("the pool is closed")

    # Running a call.

    def _new_call(
        self, name: str, args: Arguments | None, timeout: float | None, session: str | None, credit: int | None
    ) -> Call:
        if timeout is not None and not timeout >= 0:
            raise UsageError(f"timeout is {timeout!r}; give seconds, or None for no limit")
        if args is not None and not isinstance(args, Mapping):
            raise UsageError(f"the arguments of {name!r} are a {type(args).__name__}; give a dict by parameter name")
        session = session or ""
        load = load_of(args or {}, f"{name}: args", self._sizes, 4 * (len(name) + len(session)))
        affinity = self._affinities.get(session, self.config.affinity)
        return Call(name, load, session, timeout, credit, affinity)

    async def _submit(self, call: Call) -> None:
        if self._dispatcher.is_suspect(call):
            self._dispatcher.check_taint(call)
            await self._until_whole(call)
        if call.cargo is not None and call.cargo.is_large and self._sizes.shared:
            await self._share(call, call.cargo)
        self._dispatcher.submit(call)
        self._deadlines.add(call)

    async def _share(self, call: Call, cargo: Cargo) -> None:
        with trio.move_on_after(max(0.0, call.time_left())) as budget:
            await self._freight.load(cargo)
        if budget.cancelled_caught:
            await self._time_out(call)

    def _unload(self, call: Call) -> None:
        if call.cargo is not None:
            self._freight.unload(call.cargo)

    async def _finish(self, call: Call) -> None:
        await self._submit(call)
        try:
            while not call.is_over and not call.is_late:
                await call.wait()
        except BaseException:
            self._cancelled += 1
            await self._abandon(call)  # noqa: ASYNC102 - shielded and bounded in there
            raise
        finally:
            self._deadlines.remove(call)
        if not call.is_over:
            await self._time_out(call)

    async def _retry(self, call: Call, retries: int | RetryPolicy | None) -> Call:
        """Run a failed call again as often as that may help. Raises its failure when it does not."""
        policy = self._retry_policy(call, retries)
        for run in itertools.count(1):
            failure = call.failure
            assert failure is not None
            pause = policy.delay(run)
            if not isinstance(failure, WorkerCrashed) or run > policy.retries or call.time_left() <= pause:
                raise failure
            await trio.sleep(pause)
            self._retried += 1
            call = call.again()
            try:
                await self._finish(call)
            except PoolError as refusal:
                failure.add_note(f"not run again: {refusal}")
                raise failure from None
            if call.failure is None:
                break
        return call

    def _retry_policy(self, call: Call, retries: int | RetryPolicy | None) -> RetryPolicy:
        if isinstance(retries, RetryPolicy):
            return retries
        if retries is not None:
            return attrs.evolve(self.config.retry, retries=retries)
        tool = self._dispatcher.tools.get(call.name)
        return self.config.retry if tool is not None and tool.idempotent else attrs.evolve(self.config.retry, retries=0)

    async def _until_whole(self, call: Call) -> None:
        # What may kill one worker after another does not get the next while the last is missing: so others
        # are served throughout.
        with trio.move_on_after(min(_SUSPECTS_WAIT, max(0.0, call.time_left()))):
            while self._supervisor.missing():
                await self._dispatcher.workers_changed.wait()

    async def _abandon(self, call: Call) -> None:
        if not call.is_over:
            with trio.CancelScope(shield=True):
                await self._dispatcher.abandon(call)

    async def _time_out(self, call: Call) -> NoReturn:
        self._timed_out += 1
        await self._abandon(call)
        raise CallTimeout(f"{call.name!r} was stopped: it did not end within {call.timeout} s")

    def _decode(self, call: Call, frame: Frame) -> Any:
        try:
            return codec.decode(frame.body, frame.attached)
        except CodecError:
            raise
        except DecodeError as error:
            if call.worker is not None:
                call.worker.kill(f"broke the protocol: {error}")
            raise RemoteProtocolError(f"{call.name!r} sent back what cannot be read: {error}") from error

    # Opening and closing.

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        # Shielded from the outside, so that bodies unwind while their services still run.
        with self._services, closing(self._registry), closing(self._freight), closing(self._bridge.freight):
            async with trio.open_nursery() as outer:
                await outer.start(Guard(self._registry).run)
                await outer.start(self._loop.run)
                async with trio.open_nursery() as inner:
                    await inner.start(self._supervisor.run)
                    inner.start_soon(self._dispatcher.watch_stalls)
                    inner.start_soon(self._deadlines.run)
                    inner.start_soon(self.sessions.run_reaper, self.config.cleanup_interval)
                    inner.start_soon(trio.to_thread.run_sync, processes.sweep_at_start)
                    task_status.started()
                outer.cancel_scope.cancel()

    def _make_worker(self, id: str) -> Worker:
        return Worker(id, self.config, self._loop, self._dispatcher, self._registry, self._bridge)

    async def _start(self) -> None:
        await self.workers.start(self.config.workers)

    async def _close(self) -> None:
        self._dispatcher.close()
        with trio.move_on_after(self.config.shutdown_timeout):
            await self._supervisor.stop()
        self._services.cancel()


def run_as_script(
    function: Callable[[Pool], Awaitable[T]],
    adapter: str | type[BaseAdapter] | Adapter | None = None,
    *,
    timeout: float = 15,
    **config: Any,
) -> T:
    """Run `await function(pool)` with a pool of its own, from a plain script, and return its result.

    Starts trio. When this returns or raises, no process of the pool is left; ending them takes
    `timeout` seconds at the most. `config` is that of `open_pool`.
    """
    config.setdefault("shutdown_timeout", timeout)

    async def main() -> T:
        async with open_pool(adapter, **config) as pool:
            return await function(pool)

    return trio.run(main)


def _better(error: TypeError) -> Exception:
    text = str(error)
    if "unexpected keyword argument" not in text:
        return error
    known = ", ".join(field.name for field in attrs.fields(PoolConfig))
    return UsageError(f"open_pool {text.partition('() ')[2]}; the settings are: {known}")
