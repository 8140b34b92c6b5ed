"""The host's side of templates: starts one, has it fork workers, and starts another when it has ended.

A template is a process with one thread. It imports the modules of the workers once and forks a keeper for each worker;
the keeper forks the worker. See `bridge_py.template` for the other side.
"""

from __future__ import annotations

import array
import contextlib
import enum
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import trio

from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Output
from snakepit_trio._connections.output import log_lines
from snakepit_trio._connections.worker_logs import WorkerLogs
from snakepit_trio._processes.children import Child
from snakepit_trio._processes.guardian import WORKER_VARIABLE
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import told

from .kept_process import KeptProcess
from .place import Place
from .process import spawn

#: A variable of the template that keeps room in its environment for the marks of the workers that it forks.
ROOM_VARIABLE: Final = "SNAKEPIT_TEMPLATE"
_LONGEST_KEY: Final = 64  # bytes of a worker's key, beside the pool's name
_TRIES: Final = 3
_LONGEST_FORK: Final = 10.0  # seconds
_LONGEST_END: Final = 2.0
_LAST_WORDS: Final = 0.5
_FIRST_PAUSE: Final = 0.1  # seconds between the end of a template and the start of the next
_LONGEST_PAUSE: Final = 5.0
_GOOD_LIFE: Final = 10.0  # seconds after which an end counts as the first
_PASS: Final = 0.01

logger = get_logger("snakepit.template")


class _Phase(enum.Enum):
    STARTING = enum.auto()  # it imports
    READY = enum.auto()
    OVER = enum.auto()


class _Template:
    """One template process, from its start to its end."""

    def __init__(self, config: PoolConfig) -> None:
        self.phase = _Phase.STARTING
        self.problem = ""  # why it never became ready
        self.settled = trio.Event()  # it is ready, or over
        self.over = trio.Event()
        self._has_said_all = trio.Event()
        # One request at a time: a user may have so many descriptors under way, and no more (unix(7), ETOOMANYREFS).
        self._forking = trio.Lock()
        self._config = config
        self._control: trio.socket.SocketType | None = None
        self._process: KeptProcess | None = None
        self._tail: deque[str] = deque(maxlen=config.stderr_lines)
        self._logs = WorkerLogs(f"{config.name}/template", logger, self._tail)

    async def live(self, place: Place, registry: ProcessRegistry) -> None:
        """Start it, and return when it and all keepers that it has forked have ended. If cancelled, ends it first."""
        try:
            key = registry.reserve(f"{self._config.name}/template")
            with contextlib.ExitStack() as undo:
                undo.callback(registry.forget, key)
                async with self._started(place, registry, key) as process:
                    await self._accompany(process)
        except Exception as error:
            self._end(f"the template could not be started: {told(error)}")
        finally:
            self._end()

    @contextlib.asynccontextmanager
    async def _started(self, place: Place, registry: ProcessRegistry, key: str) -> AsyncIterator[KeptProcess]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = trio.socket.from_stdlib_socket(ours)
        with contextlib.closing(self._control):
            with contextlib.closing(theirs):
                variables = {ROOM_VARIABLE: "-" * _room(self._config, registry)}
                command = _command(place, theirs.fileno())
                process = await spawn(place, registry, key, command, variables, _same, pass_fds=[theirs.fileno()])
            self._process = process
            if self.phase is _Phase.OVER:  # it was retired before it had a process
                process.signal(signal.SIGKILL)
            try:
                yield process
            finally:
                self._end()
                await process.end_now()  # noqa: ASYNC102 - shielded and bounded in there

    async def _accompany(self, process: KeptProcess) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_lines, Output(process.pipes.stdout, logging.INFO), self._logs)
            nursery.start_soon(self._read_stderr, process)
            nursery.start_soon(self._hear, process)
            await process.wait()
            with trio.move_on_after(_LONGEST_END + _LAST_WORDS):
                await self.over.wait()  # it may be found out only now why the template has ended
            nursery.cancel_scope.cancel()

    async def _hear(self, process: KeptProcess) -> None:
        with trio.move_on_after(self._config.start_timeout) as importing:
            if await self._receive() and self.phase is _Phase.STARTING:  # it may have been retired just before
                self.phase = _Phase.READY
                self.settled.set()
                importing.deadline = float("inf")
                await self._receive()
        if importing.cancelled_caught:
            self._end(f"the template did not import its modules within {self._config.start_timeout} s")
            return
        was_ready = self.phase is _Phase.READY
        with trio.move_on_after(_LONGEST_END):
            while process.exit_code is None:  # noqa: ASYNC110 - its keeper tells right away
                await trio.sleep(_PASS)
        with trio.move_on_after(_LAST_WORDS):
            await self._has_said_all.wait()
        code, words = process.exit_code, "; ".join(list(self._tail)[-1:])
        if was_ready:
            logger.warning("the template (pid %d) ended, exit code %s; another one takes its place", process.pid, code)
        self._end(f"the template ended while it imported its modules, exit code {code}{words and ': '}{words}")

    async def _read_stderr(self, process: KeptProcess) -> None:
        await log_lines(Output(process.pipes.stderr, logging.WARNING, True), self._logs)
        self._has_said_all.set()

    async def _receive(self) -> bytes:
        assert self._control is not None
        try:
            return await self._control.recv(64)
        except OSError:
            return b""

    def _end(self, problem: str = "") -> None:
        """Have it end, and give it no more to do. The keepers that it has forked go on."""
        if self.phase is _Phase.OVER:
            return
        self.problem = problem if self.phase is _Phase.STARTING else ""
        self.phase = _Phase.OVER
        self.settled.set()
        self.over.set()
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    retire = _end

    async def fork(
        self, place: Place, command: Sequence[str], variables: dict[str, str], pass_fds: Sequence[int], pipes: list[int]
    ) -> Child | None:
        """Fork a worker, and return its keeper; None if there is none. Raises `OSError` if it refuses to fork."""
        async with self._forking:
            if self.phase is not _Phase.READY:
                return None
            ours = await self._ask(place, command, variables, pass_fds, pipes)
            if ours is None:
                return None
            with trio.move_on_after(_LONGEST_FORK):
                return await Child.forked(ours)
            return None

    async def _ask(
        self, place: Place, command: Sequence[str], variables: dict[str, str], pass_fds: Sequence[int], pipes: list[int]
    ) -> socket.socket | None:
        """Send the request for a worker, and return the socket to its keeper; None if the template has ended."""
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as close:
            close.callback(theirs.close)
            undo = close.enter_context(contextlib.ExitStack())
            undo.callback(ours.close)
            descriptors = close.enter_context(_descriptors(place, theirs, pass_fds, pipes))
            request = close.enter_context(_request(place, command[2:], variables, descriptors[1:], pipes))
            rights = array.array("i", [request, *descriptors])
            try:
                await self._control.sendmsg([b"fork"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            except (OSError, trio.ClosedResourceError):
                return None
            undo.pop_all()
        return ours


class Templates:
    """Keeps one template for a pool. It is a `Forks`: launches wait for a template that is ready."""

    def __init__(self, place: Place, registry: ProcessRegistry) -> None:
        self._place = place.of_template()
        self._registry = registry
        self._current = _Template(place.config)
        self._replaced = trio.Event()
        self._is_renewed = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have a template until cancelled. Then no process of a template is left."""
        pause = _FIRST_PAUSE
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                began = trio.current_time()
                nursery.start_soon(self._current.live, self._place, self._registry)
                await self._current.over.wait()
                lived = trio.current_time() - began
                if not self._is_renewed:
                    pause = _FIRST_PAUSE if lived > _GOOD_LIFE else pause
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._is_renewed = False
                self._current = _Template(self._place.config)
                self._replaced.set()
                self._replaced = trio.Event()

    def renew(self) -> None:
        """Have the workers that start from now on forked from a new template, which imports their modules anew.

        The workers that live go on. Launches under way get a worker of either template.
        """
        self._is_renewed = True
        self._current.retire()

    async def fork(
        self, place: Place, command: Sequence[str], variables: dict[str, str], pass_fds: Sequence[int], pipes: list[int]
    ) -> Child:
        """Fork a worker, and return its keeper. Waits for a template that is ready.

        Raises `OSError` if the template cannot be started, or refuses to fork. If this is cancelled, a worker that was
        forked ends.
        """
        for _ in range(_TRIES):
            template = await self._ready()
            keeper = await template.fork(place, command, variables, pass_fds, pipes)
            if keeper is not None:
                return keeper
            template.retire()
        raise OSError(f"{_TRIES} templates ended, or did not answer, while they forked it")

    async def _ready(self) -> _Template:
        while True:
            template = self._current
            if template.phase is _Phase.OVER:
                await self._replaced.wait()
                continue
            await template.settled.wait()
            if template.phase is _Phase.READY:
                return template
            if template.problem:
                raise OSError(template.problem)
            # It was retired. Another one may have its place already, so look again before waiting for that.


def _same(process: KeptProcess) -> KeptProcess:
    return process


def _command(place: Place, control: int) -> list[str]:
    config = place.config
    return [
        config.adapter.executable_path(config.python),
        config.adapter.script_path(),
        "--template",
        f"--control-fd={control}",
        f"--keeper={place.keeper}",
        *config.adapter.script_args(),
        f"--preload={','.join(config.preloads)}",
        f"--log-level={config.log_level}",
    ]


def _room(config: PoolConfig, registry: ProcessRegistry) -> int:
    return len(f"{WORKER_VARIABLE}={registry.run_id}/{config.name}".encode()) + _LONGEST_KEY


@contextlib.contextmanager
def _descriptors(
    place: Place, theirs: socket.socket, pass_fds: Sequence[int], pipes: Sequence[int]
) -> Iterator[list[int]]:
    """What the fork gets: the keeper's socket, this process by a pidfd, the folder, the pipes, and the worker's own."""
    host = os.pidfd_open(os.getpid())
    folder = [] if place.descriptor is None else [place.descriptor]
    try:
        yield [theirs.fileno(), host, *folder, *pipes, *pass_fds]
    finally:
        os.close(host)


@contextlib.contextmanager
def _request(
    place: Place, arguments: Sequence[str], variables: dict[str, str], descriptors: Sequence[int], pipes: Sequence[int]
) -> Iterator[int]:
    """A file in memory with what the fork shall become: an environment may be larger than a message."""
    stdout, stderr = pipes
    host, *_ = descriptors
    request: dict[str, Any] = {
        "arguments": list(arguments),
        "descriptors": list(descriptors),
        "host": host,
        "stdout": stdout,
        "stderr": stderr,
        "folder": place.folder,
        "folder_descriptor": place.descriptor,
        "umask": place.config.umask,
        "cpus": sorted(place.options.cpus or ()),
        "environment": place.environment(variables),
        "mark": f"{WORKER_VARIABLE}={variables[WORKER_VARIABLE]}",
        "own": sorted(place.options.env or ()),
    }
    file = os.memfd_create("snakepit-request")
    try:
        with open(file, "wb", closefd=False) as writing:
            writing.write(json.dumps(request).encode())
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)
