"""One worker: it is launched, is connected, serves calls, and is ended for certain.

A `Worker` stands for one process and is never used again after it. It reports a call as over only when it is known
that none of the call's code runs: by the frame that ends the call, or because the process has been reaped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from bridge_py.wire.errors import DecodeError, ProtocolError
from bridge_py.wire.readable import readable
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._calls.queues import Slot
from snakepit_trio._config.config import PoolConfig, Site
from snakepit_trio._connections.base import Connection, ConnectionContext, Hello, WorkerProcess
from snakepit_trio._connections.link import LinkLost, PeerLost
from snakepit_trio._connections.output import log_lines
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._requests.services import HostServices
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import told
from snakepit_trio._util.patience import comes_within
from snakepit_trio.errors import WorkerCrashed, WorkerStartError

from .breakpoints import Breakpoints
from .health import MIB, beyond
from .life import (
    ASKED,
    EXITED,
    FAILED,
    KILLED,
    LINK_LOST,
    LOST,
    NOT_STARTED,
    OUT_OF_MEMORY,
    POOL_ENDED,
    PROTOCOL_BROKEN,
    TOO_LARGE,
    TOO_LATE,
    UNREACHED,
    Event,
    Phase,
    Reason,
)
from .worker_calls import WorkerCalls, WorkerEvents
from .worker_state import WorkerState

logger = get_logger("snakepit.worker")

_LAUNCH = 5.0  # seconds to start a process; an executable on a dead file system may block the start
_LAST_WORDS = 0.5  # seconds to read the pipes of a dead process to their end
_HURRIED_REAP = 2.0  # seconds from SIGKILL to the end of the process, when the pool must end now
_LONGEST_PROBLEM = 10_000  # characters
_STATES: Final = {
    Phase.STARTING: WorkerState.STARTING,
    Phase.SPARE: WorkerState.SPARE,
    Phase.READY: WorkerState.READY,
    Phase.DRAINING: WorkerState.DRAINING,
    Phase.ENDING: WorkerState.DRAINING,
    Phase.STOPPED: WorkerState.STOPPED,
}


class Worker(WorkerCalls):
    """One worker process and its link."""

    def __init__(
        self, id: str, number: int, config: PoolConfig, site: Site, reports: WorkerEvents, services: HostServices
    ) -> None:
        super().__init__(id, config, reports, Slot(config.worker_options.resources_of(number)))
        self.number = number  # among the workers of its pool
        self.is_spare = False  # whether it waits, after its start, until it steps in
        self.started_at = site.clock()
        self.python = ""  # its version
        self.logs: WorkerLogs | None = None
        self.ended = trio.Event()  # `run` is over
        self._config = config
        self._site = site
        self._services = services
        self._has_served = False
        self._ready_or_over = trio.Event()
        self._over = trio.Event()  # it ends, or has ended
        self._exited = trio.Event()
        self._exited_or_hurried = trio.Event()
        self._is_hurried = False
        self._last_words = ""  # why it could not start
        self._stderr_tail: deque[str] = deque(maxlen=config.stderr_lines)

    def resident_bytes(self) -> int:
        """The resident memory of its process, in bytes; 0 if there is no process, or it cannot be read now."""
        if self._process is not None and self._life.phase is not Phase.STOPPED:
            with contextlib.suppress(Exception):  # it is looked at many times a second: a log would tell little else
                return self._process.resident_bytes()
        return 0

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls."""
        return self._life.phase is Phase.READY

    @property
    def is_ready_spare(self) -> bool:
        """Whether it has started, and waits until it steps in."""
        return self._life.phase is Phase.SPARE

    @property
    def is_up(self) -> bool:
        """Whether it takes calls, or waits until it steps in."""
        return self.is_ready or self.is_ready_spare

    @property
    def was_ready(self) -> bool:
        """Whether it has ever been ready to take calls."""
        return self._life.was_ready

    @property
    def has_served(self) -> bool:
        """Whether it has shown that it can serve calls."""
        return self._has_served or self.calls_served > 0

    @property
    def is_due(self) -> bool:
        """Whether it should be replaced, and has not ended by itself."""
        return self.due.reason is not None and not self._life.is_over

    @property
    def state(self) -> WorkerState:
        """Where it is in its life."""
        if self._life.phase is Phase.READY and self.calls:
            return WorkerState.BUSY
        return _STATES[self._life.phase]

    @property
    def exit_reason(self) -> str:
        """Why it has left."""
        if self.failure is not None:
            return str(self.failure)
        what = self._life.problem or (f"was replaced: {self.due.reason}" if self.due.reason else "was stopped")
        return f"worker {self.id} {what}"

    async def until_ready_or_over(self) -> None:
        """Wait until it has started, or until it is certain that it never will."""
        await self._ready_or_over.wait()

    # Its life.

    async def run(self) -> None:
        """Start the process, serve until it ends, reap it, and settle its calls.

        Raises `WorkerStartError` if it never became ready, whatever the reason. If cancelled, kills the process first.
        """
        try:
            with trio.fail_after(self._config.start_timeout + _LAUNCH):
                process = self._process = await self._site.launch(self.id, self.number)
        except Exception as error:
            why = _why(error, self._config) if self._site.is_here else told(error)
            self._finish(NOT_STARTED, why)
            raise WorkerStartError(self.id, f"could not be started: {why}") from error
        try:
            await self._live(process)
        except Exception as error:
            # A fault of our code or of the application's: the calls of the worker have been settled.
            if not self._life.was_ready:
                raise WorkerStartError(self.id, f"could not be started: {told(error)}") from error
            logger.error("worker %s ended by a fault of its host", self.id, exc_info=error)
        finally:
            with trio.CancelScope(shield=True), logger.tolerates("giving back what a worker had"):
                await process.release()
        if self._life.problem is not None and not self._life.was_ready:
            raise WorkerStartError(self.id, self._life.problem, process.exit_code, self._stderr_tail, self._last_words)

    async def _live(self, process: WorkerProcess) -> None:
        logs = self.logs = WorkerLogs(
            self.id,
            logger.child(self.id),
            self._stderr_tail,
            pid=process.pid,
            calls=self.calls,
            on_drop=self._count_drop,
        )
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as pipes:
                    # The connection comes first: it may have to hear the worker's first words.
                    self._connection = process.connect(self._connection_context(logs))
                    for stream in process.outputs:
                        pipes.start_soon(log_lines, stream, logs)
                    self._start_tasks(nursery, process, self._connection)
                    await self._until_over()
                    with trio.CancelScope(shield=True):
                        await self._end(process)
                    pipes.cancel_scope.deadline = trio.current_time() + _LAST_WORDS
            except Exception as error:
                self._finish(FAILED, told(error))
                raise
            finally:
                # Before the tasks of this nursery have ended: host tools among them may wait for calls of this worker.
                await self._reap_and_settle(process)  # noqa: ASYNC102 - shielded and bounded in there
                logs.tell_dropped()
            nursery.cancel_scope.cancel()

    def _connection_context(self, logs: WorkerLogs) -> ConnectionContext:
        return ConnectionContext(
            worker_id=self.id,
            services=self._services,
            calls=self.calls,
            on_ready=self._hear_hello,
            on_tools=self._hear_of_tools,
            on_frame=self._handle,
            on_fault=self._fail,
            logs=logs,
            concurrency=self._config.concurrency,
            max_asks=self._config.max_asks,
            max_unread_bytes=self._config.max_unread_bytes,
        )

    def _start_tasks(self, nursery: trio.Nursery, process: WorkerProcess, connection: Connection) -> None:
        nursery.start_soon(self._watch_exit, process)
        nursery.start_soon(self._run_connection, connection)
        if connection.breakpoints is not None:
            nursery.start_soon(self._serve_breakpoints, connection.breakpoints)
        nursery.start_soon(self._watch_health, process)
        if (most := self._config.recycle.max_resident_bytes) is not None:
            nursery.start_soon(self._watch_memory, most)

    def _count_drop(self, number: int) -> None:
        self._reports.dropped_logs += number

    async def _watch_exit(self, process: WorkerProcess) -> None:
        await process.wait()
        self._exited.set()
        self._exited_or_hurried.set()
        self._finish(EXITED)

    async def _watch_health(self, process: WorkerProcess) -> None:
        # Each worker keeps to the phase of its start. If pauses began at the last look, whatever holds up the host for
        # an interval would have all workers pinged in one instant from then on.
        began, interval, looks = trio.current_time(), self._config.ping_interval, 0
        while not self._life.is_over:
            looks = 1 + max(looks, int((trio.current_time() - began) / interval))
            await trio.sleep_until(began + looks * interval)
            with logger.tolerates("a look at a worker"):
                # A starting worker cannot answer: it is excused unless it is stopped, and `start_timeout` bounds that.
                # Even if it is ready by the time that the answer would be due: no ping was sent.
                is_asked = self._life.was_ready
                if await self.health.ask(self._ping, process.is_stopped, lambda: not is_asked or bool(self.calls)):  # noqa: B023 - used in here
                    self.kill(f"was killed: {self.health.complaint}")
                self._check_due()

    async def _watch_memory(self, most: int) -> None:
        held = await beyond(most, lambda: 0 if self.stands else self.resident_bytes())
        self._finish(TOO_LARGE, held / MIB, most / MIB)

    async def _serve_breakpoints(self, control: socket.socket) -> None:
        interrupt = partial(self._signal, signal.SIGINT)
        self._breakpoints = Breakpoints(
            self.id, self._config.python, control, interrupt, self._is_cancelled, self._begin_to_stand, self._go_on
        )
        with logger.tolerates("serving breakpoints"):
            await self._breakpoints.run()

    def _ping(self, number: int) -> None:
        if self._life.was_ready and self._connection is not None:
            self._connection.ping(number)

    async def _run_connection(self, connection: Connection) -> None:
        try:
            await connection.run()
        except PeerLost as error:
            self._finish(LOST, readable(str(error), _LONGEST_PROBLEM))
        except LinkLost:
            self._finish(LINK_LOST)
        except (ProtocolError, DecodeError) as error:
            self._finish(PROTOCOL_BROKEN, readable(str(error), _LONGEST_PROBLEM))
        except Exception as error:
            logger.exception("the link of worker %s failed", self.id)
            self._fail(error)  # a kill by the host: no call of the worker is to blame

    async def _until_over(self) -> None:
        while not await comes_within(self._config.start_timeout, self._ready_or_over.wait):
            if not self.stands:
                unreached = self._connection.unreached if self._connection is not None else ""
                reason = UNREACHED if unreached else TOO_LATE
                self._finish(reason, self._config.start_timeout, unreached)
        await self._over.wait()

    async def _end(self, process: WorkerProcess) -> None:
        step = self._config.shutdown_timeout / 3
        if self._life.problem is None:
            if self._say_goodbye():
                await self._exits_within(step)
            self._signal(signal.SIGTERM)
            await self._exits_within(step)
        else:
            await self._exits_within(self._life.patience)
            self._name_exit()
        self._name_oom(process)
        # Even after its exit: processes that it started may live on in its group.
        self._signal(signal.SIGKILL)
        await self._exits_within(step)

    def _name_exit(self) -> None:
        # A death shows as a lost link or as an exit first: that is a race, so both are reported as an exit.
        if self._life.reason is LINK_LOST and self._exited.is_set():
            self._life.name(EXITED)

    def _name_oom(self, process: WorkerProcess) -> None:
        # Before our own SIGKILL, which could not be told from the kernel's.
        if self._life.problem is None or process.exit_code != -signal.SIGKILL:
            return
        with logger.tolerates("looking for its cause of death"):
            if process.was_killed_for_memory():
                self._life.name(OUT_OF_MEMORY)

    async def _exits_within(self, seconds: float) -> None:
        if not self._exited_or_hurried.is_set():
            await comes_within(seconds, self._exited_or_hurried.wait)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with logger.tolerates("signalling it"):
                self._process.signal_group(number)

    def hurry(self) -> None:
        """End it now: kill it, and wait for its end for a shorter time than usual."""
        self._is_hurried = True
        self._finish(ASKED)
        self._signal(signal.SIGKILL)
        self._exited_or_hurried.set()

    def _say_goodbye(self) -> bool:
        if self._connection is None or not self._life.was_ready:
            return False
        for call in list(self.calls.values()):
            self.cancel(call)
        return self._connection.goodbye()

    async def _reap_and_settle(self, process: WorkerProcess) -> None:
        try:
            self._signal(signal.SIGKILL)
            if not self._exited.is_set():
                with logger.tolerates("waiting for its end"):
                    await self._reap(process)
        finally:
            self._settle(process)

    async def _reap(self, process: WorkerProcess) -> None:
        with trio.move_on_after(_HURRIED_REAP if self._is_hurried else process.reap_seconds, shield=True) as reaping:
            await process.wait()
        if reaping.cancelled_caught:
            logger.error("worker %s (pid %d) does not end after SIGKILL", self.id, process.pid)

    def _settle(self, process: WorkerProcess) -> None:
        # Whichever step fails, the calls get their outcome.
        last_started = None
        if self._breakpoints is not None:
            self._breakpoints.end()  # first: calls that run again take their deadlines with them
        if self._connection is not None:
            with logger.tolerates("refusing its late requests"):
                self._connection.worker_gone()
        with logger.tolerates("its leaving"):
            self._finish(POOL_ENDED)
        self._life.take(Event.SETTLE)
        if self._life.problem is not None:
            self.failure = WorkerCrashed(self.id, self._life.problem, process.exit_code, self._stderr_tail)
        with logger.tolerates("looking for its last call"):
            last_started = process.last_started if self._life.is_believed else None
            self._last_words = readable(process.last_words, _LONGEST_PROBLEM)
        self._reports.worker_gone(self, last_started, self.failure)
        self._reports.tell_end(self, process.exit_code)

    def _finish(self, reason: Reason, *details: object) -> None:
        if self._life.end(reason, *details):
            self._over.set()
            self._ready_or_over.set()
            self._reports.worker_leaving(self)

    def drain(self) -> None:
        """Take no more calls, recall the calls that have not started, and stop when the others are over."""
        if not self._life.take(Event.DRAIN):
            return
        self._reports.worker_leaving(self)
        for call in list(self.calls.values()):
            self.recall(call)
        self._stop_if_drained()

    def recycle(self, reason: str) -> None:
        """Ask for its replacement, even if a replacement has just failed."""
        if self._life.was_ready:
            self.due.ask(reason, at_once=True)

    def postpone(self) -> None:
        """Keep the worker for now, because its replacement could not start."""
        if not self._life.is_over:
            self.due.postpone()

    def _check_due(self) -> None:
        if self._life.was_ready:
            self.due.look(self.calls_served, self.resident_bytes)

    def stop(self) -> None:
        """End it in order: goodbye, SIGTERM, SIGKILL, each with a bounded wait."""
        self._finish(ASKED)

    def kill(self, problem: str, *, for_a_call: bool = False) -> None:
        """Kill its process group at once; `problem` goes into the error of its calls.

        `for_a_call`: the worker itself is well, but only killing it stops one of its calls.
        """
        if not self._life.is_over:
            self.is_killed_by_us = True
            self._has_served |= for_a_call
        self._finish(KILLED, problem)

    def _hear_hello(self, hello: Hello) -> None:
        assert self._process is not None
        self.python = hello.python
        self.tools = {**self.tools, **{tool.name: tool for tool in hello.tools}}  # it may have registered some before
        self._process.is_ready()
        if not self._life.take(Event.HELLO):
            return
        self._ready_or_over.set()
        if self.is_spare:
            self._reports.spare_ready(self)
        else:
            self.step_in()

    def step_in(self, replaced: str | None = None) -> None:
        """Take calls from now on, or as soon as it has started: `replaced` is the worker whose place it takes."""
        self.is_spare = False
        if self._life.take(Event.STEP_IN):
            self._reports.worker_ready(self)
            if replaced is not None:
                self._reports.spare_stepped_in(self, replaced)

    def _hear_of_tools(self, tools: Sequence[ToolSpec]) -> None:
        self.tools.update((tool.name, tool) for tool in tools)
        if not self.is_spare:
            self._reports.tools = {**self._reports.tools, **self.tools}


def _why(error: Exception, config: PoolConfig) -> str:
    """Say why a process cannot be started, and which setting has caused it."""
    text = told(error)
    if not isinstance(error, OSError):
        return text
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{text}: allow this process more open files (`ulimit -n 4096`), or open fewer workers"
    if config.cwd is not None and not os.path.isdir(config.cwd):
        return f"{text}: cwd={os.fspath(config.cwd)!r} is no folder, give one that exists"
    if shutil.which(config.python) is None:
        return f"{text}: python={config.python!r} is no program that can be run here, give an interpreter's path"
    return text
