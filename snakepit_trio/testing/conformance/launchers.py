"""The input of the rules for a `Launcher`: launchers, and pools of them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Unpack

import trio

import snakepit_trio._pool.opening
from bridge_py import BaseAdapter
from snakepit_trio._config.adapters import GrpcPython
from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._config.options import FurtherOptions
from snakepit_trio._connections.base import Connection, ConnectionContext, Output, WorkerProcess
from snakepit_trio._pool.pool import Pool
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from . import tools
from .check import LeftOut, made_by, that

Made = Launcher | Awaitable[Launcher] | AbstractAsyncContextManager[Launcher]


#: Seconds after which a call must be over if it was stopped, or if its worker was.
_LONGEST_CALL: Final = 15.0


class Launchers:
    """Makes the launchers that the rules check, and pools of them."""

    def __init__(self, make: Callable[..., Any], is_here: bool, find_tools: str, config: FurtherOptions) -> None:
        self._make = make
        self._is_here = is_here
        self._find_tools = find_tools
        self._config = config

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watched]:
        """A launcher, with a record of its processes."""
        async with made_by(self._make, Launcher) as made:
            yield Watched(made)

    @asynccontextmanager
    async def pool(
        self, adapter: type[BaseAdapter] = tools.Tools, **config: Unpack[FurtherOptions]
    ) -> AsyncIterator[tuple[Pool, Watched]]:
        """An open pool of one worker, unless `config` says otherwise, and its launcher."""
        async with self.watched() as watched, self.pool_of(watched, adapter, **config) as pool:
            yield pool, watched

    def pool_of(
        self, watched: Watched, adapter: type[BaseAdapter] = tools.Tools, **config: Unpack[FurtherOptions]
    ) -> AbstractAsyncContextManager[Pool]:
        """A pool of a launcher, still to be opened."""
        target = GrpcPython(f"{self._find_tools}:{adapter.__qualname__}", adapter)
        settings: dict[str, Any] = {"workers": 1, **self._config, **config}
        return snakepit_trio._pool.opening.open_pool(target, launcher=watched, **settings)

    def needs_processes(self, watched: Watched, why: str) -> None:
        """Leave the check out if the launcher runs workers in this process."""
        if watched.runs_inline:
            raise LeftOut(f"its site says runs_inline: {why}")

    def needs_this_machine(self, watched: Watched, why: str) -> None:
        """Leave the check out if the workers are no processes of this machine."""
        self.needs_processes(watched, why)
        if not self._is_here:
            raise LeftOut(f"is_here=False: {why}")


class Watched(Launcher):
    """A launcher, with a record of the processes that it has launched."""

    def __init__(self, inner: Launcher) -> None:
        self.processes: list[WatchedProcess] = []
        self.sites: list[WatchedSite] = []
        self._inner = inner
        self._launched = trio.Event()

    @property
    def runs_inline(self) -> bool:
        """Whether the launcher's latest site says `runs_inline`. It must have a site already."""
        return self.sites[-1].runs_inline

    def open(self, config: PoolConfig) -> Site:
        self.sites.append(WatchedSite(self._inner.open(config), self))
        return self.sites[-1]

    def note(self, process: WorkerProcess) -> WorkerProcess:
        """Record a process that was launched."""
        self.processes.append(WatchedProcess(process))
        self._launched.set()
        return self.processes[-1]

    async def until_launched(self) -> None:
        """Wait for the first process."""
        await self._launched.wait()

    def check_nothing_is_left(self) -> None:
        """Check that all processes have ended and were released, and that all sites were closed."""
        for process in self.processes:
            that(
                process.exit_code is not None,
                f"expected that process {process.pid} has ended after its pool, but its exit_code is None",
            )
            that(process.is_released, f"expected that process {process.pid} is released after its pool")
        that(all(site.is_closed for site in self.sites), "expected that its site is closed after its pool")


class WatchedSite(Site):
    """A site that notes what it launches."""

    def __init__(self, inner: Site, watched: Watched) -> None:
        self.runs_inline = inner.runs_inline
        self.is_closed = False
        self._inner = inner
        self._watched = watched

    def clock(self) -> float:
        return self._inner.clock()

    @property
    def loop(self) -> AsyncioLoop:
        return self._inner.loop

    async def run(  # noqa: ASYNC128 - the inner one says that it has started
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self._inner.run(task_status)

    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        return self._watched.note(await self._inner.launch(worker_id, number))

    def close(self) -> None:
        self.is_closed = True
        self._inner.close()


class WatchedProcess:
    """A process, with a record of its connection's calls, and of whether it was released."""

    def __init__(self, inner: WorkerProcess) -> None:
        self.is_released = False
        self.context: ConnectionContext | None = None
        self._inner = inner
        self._is_leaving = False
        self._last_started: int | None = 0
        self.reap_seconds = inner.reap_seconds
        self.pid = inner.pid
        self.node = inner.node

    def call_ids(self) -> list[int]:
        """The ids of the calls that the worker has."""
        return [] if self.context is None else list(self.context.calls)

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the number of the signal that killed the process, or None while it lives."""
        return self._inner.exit_code

    @property
    def last_words(self) -> str:
        """Why the worker could not start, in its own words; empty if it has said nothing, or has no way to."""
        return self._inner.last_words

    @property
    def last_started(self) -> int | None:
        """Id of the last call that the worker has started. After the release, it is the last value before."""
        if not self._is_leaving:
            self._last_started = self._inner.last_started
        return self._last_started

    @property
    def outputs(self) -> Sequence[Output]:
        """The output streams of the process that must be read, from the first byte on."""
        return self._inner.outputs

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        self.context = context
        return self._inner.connect(context)

    def is_ready(self) -> None:
        """Note that the worker has introduced itself."""
        self._inner.is_ready()

    def is_stopped(self) -> bool:
        """Whether the process has been stopped, by a debugger or a signal."""
        return self._inner.is_stopped()

    def resident_bytes(self) -> int:
        """The resident memory of the process, in bytes; 0 if it is not known."""
        return self._inner.resident_bytes()

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed the process because memory ran out. Ask once, after its death by SIGKILL."""
        return self._inner.was_killed_for_memory()

    async def wait(self) -> None:
        """Wait until the process has ended. It is reaped then."""
        await self._inner.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants that stayed in its group."""
        self._inner.signal_group(number)

    async def release(self) -> None:
        """Give back what the host holds for the process. Call it after the process has ended."""
        self._last_started = self._inner.last_started
        self._is_leaving = True
        await self._inner.release()
        self.is_released = True


class Meeting:
    """A host tool that waits until the expected number of calls have come."""

    def __init__(self, pool: Pool, expected: int, name: str = "meet") -> None:
        self._left = expected
        self._all = trio.Event()
        pool.expose(self.come, name=name)

    async def come(self) -> None:
        """Wait for the others."""
        self._left -= 1
        if self._left <= 0:
            self._all.set()
        await self._all.wait()

    async def until_all(self) -> None:
        """Wait until all have come."""
        await self._all.wait()


class Running:
    """A call that `nursery.start_soon(running)` makes. `begun` tells when it has begun in its worker."""

    def __init__(self, pool: Pool, name: str) -> None:
        self.begun = Meeting(pool, 1, "begun")
        self.scope = trio.CancelScope()
        self.outcome: Any = None
        self.error: Exception | None = None
        self._pool = pool
        self._name = name
        self._over = trio.Event()

    async def __call__(self) -> None:
        """Make the call."""
        with self.scope:
            try:
                self.outcome = await self._pool.execute(self._name, timeout=None)
            except Exception as error:
                self.error = error
        self._over.set()

    async def over(self, after: str) -> None:
        """Wait until the call is over. Raises `AssertionError` if it takes too long."""
        with trio.move_on_after(_LONGEST_CALL) as waiting:
            await self._over.wait()
        that(
            not waiting.cancelled_caught,
            f"expected that a call of {self._name!r} is over after {after}, but it is under way still after"
            f" {_LONGEST_CALL:.0f} s",
        )
