"""What stands beside a worker on another machine: it starts the worker, watches it, and ends it.

It runs in a process of that machine, such as an actor of Ray, and needs neither trio nor an event loop. Its methods
block, each for a bounded time, and may be called by several threads. The worker has a keeper, as on the host's machine.
So when the agent's process ends, however it ends, nothing of the worker is left.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

import bridge_py
from bridge_py.execution.ledger import LEDGER_BYTES, failure_of, give_secret, last_started
from bridge_py.wire.environment import NUMBER_VARIABLE, PATH_VARIABLE, search_path
from snakepit_trio._config.limits import thread_variables
from snakepit_trio._processes import keeper
from snakepit_trio._processes.children import interpreter, script
from snakepit_trio._processes.guardian import WORKER_VARIABLE, alive, kill, pids_of, start_ticks
from snakepit_trio._processes.oom import OomWatch
from snakepit_trio._processes.proc import is_stopped, resident_bytes

from .memory_files import make_ledger, make_options

_STARTS: Final = 10.0  # seconds until the keeper has said that the worker has started
_ENDS: Final = 5.0  # seconds until nothing is left after SIGKILL
_PASS: Final = 0.01
_CHUNK: Final = 64 * 1024


@attrs.frozen(kw_only=True)
class Order:
    """What an agent must know to start a worker. It can be pickled, and has secrets: do not log it.

    `arguments` follow the worker's script, `variables` are the user's environment variables for it. `options` is what
    the adapter is given, and `link` the settings of the link (`RemoteSettings`), both as the worker reads them.
    `python` is its interpreter, or None for the agent's own; `folder` its working directory, or None for the agent's.
    `umask`, `cpus` and `threads` are as in `PoolConfig` and `WorkerOptions`; no `cpus` stand for all.
    """

    worker_id: str
    number: int
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    options: bytes = attrs.field(repr=False)
    link: bytes = attrs.field(repr=False)
    secret: str = attrs.field(repr=False)
    python: str | None = None
    folder: str | None = None
    umask: int | None = None
    cpus: tuple[int, ...] = ()
    threads: int | None = None


@attrs.frozen
class Ended:
    """How a worker has ended.

    `exit_code` is negative for the number of a signal. `last_started` is the id of the last call that it started.
    `last_words` say why it could not start.
    """

    exit_code: int
    last_started: int
    last_words: str = ""
    was_killed_for_memory: bool = False


@attrs.frozen
class Look:
    """What a worker is like at one moment."""

    last_started: int = 0
    resident_bytes: int = 0
    is_stopped: bool = False


class WorkerAgent:
    """One worker on this machine, for a host on another. It listens at `host`, an address of this machine.

    `address` is where, and `pid` its process id. Raises `OSError` if the worker cannot be started.
    """

    def __init__(self, order: Order, host: str) -> None:
        self._output: dict[bool, int] = {}
        self._said = b""
        self._has_ended = False
        self._waiting = threading.Lock()
        self._ended: Ended | None = None
        self._mark = f"{order.worker_id}/{os.urandom(8).hex()}"
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as close:
            ledger_fd = make_ledger()
            close.callback(os.close, ledger_fd)
            self._ledger = undo.enter_context(mmap.mmap(ledger_fd, LEDGER_BYTES))
            give_secret(self._ledger, order.secret)
            listener = close.enter_context(_listen(host))
            self.address: tuple[str, int] = listener.getsockname()[:2]
            options_fd, link_fd = (_file_of(data, close) for data in (order.options, order.link))
            named = {"listen": listener.fileno(), "ledger": ledger_fd, "options": options_fd, "tls": link_fd}
            pipes = [self._make_pipe(is_stderr, undo, close) for is_stderr in (False, True)]
            self._keeper, theirs = socket.socketpair()
            undo.callback(self._keeper.close)
            close.callback(theirs.close)
            environment = _environment(order, self._mark)
            self._process = _spawn(order, named, pipes, theirs, environment)
            undo.callback(self._end_all)
            close.close()
            self.pid = self._hear_of_start()
            undo.pop_all()
        self._oom = OomWatch(self.pid)
        self._worker: dict[int, int | None] = {self.pid: None}
        with contextlib.suppress(OSError):
            self._worker[self.pid] = start_ticks(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the worker and the descendants in its group. SIGKILL ends all descendants."""
        with contextlib.suppress(OSError):
            self._keeper.send(bytes([number]))
        if number == signal.SIGKILL and self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGCONT)  # the keeper may have been stopped

    def wait(self, seconds: float) -> Ended | None:
        """Wait until the worker and all that it has started have ended, `seconds` at the most. None if it lives on."""
        deadline = time.monotonic() + seconds
        with self._waiting:
            while self._ended is None and self._reads_more(deadline):
                pass
            if self._has_ended and self._ended is None:
                self._ended = self._end()
            return self._ended

    def look(self) -> Look:
        """Look at the worker. A worker that has ended has no memory, and is not stopped."""
        if self._ledger.closed or self._ended is not None:
            return Look(0 if self._ended is None else self._ended.last_started)
        return Look(last_started(self._ledger), resident_bytes(self.pid), is_stopped(self.pid))

    def read_output(self, seconds: float, *, is_stderr: bool) -> bytes | None:
        """The next bytes that the worker has printed, 64 KiB at the most; empty at the end, None if none have come.

        What nobody reads stays in a pipe, and a worker whose pipe is full waits.
        """
        descriptor = self._output.get(is_stderr)
        if descriptor is None:
            return b""
        if not _is_readable(descriptor, seconds):
            return None
        return os.read(descriptor, _CHUNK)

    def close(self) -> None:
        """End everything at once, within some seconds, and give back what the agent holds."""
        self._end_all()
        self.wait(_ENDS)
        with self._waiting:
            self._keeper.close()
            while self._output:
                os.close(self._output.popitem()[1])
            self._ledger.close()

    def _make_pipe(self, is_stderr: bool, undo: contextlib.ExitStack, close: contextlib.ExitStack) -> int:
        reading, writing = os.pipe()
        undo.callback(os.close, reading)
        close.callback(os.close, writing)
        self._output[is_stderr] = reading
        return writing

    def _hear_of_start(self) -> int:
        deadline = time.monotonic() + _STARTS
        while b"\n" not in self._said and self._reads_more(deadline):
            pass
        line, _, self._said = self._said.partition(b"\n")
        what, _, said = line.partition(b" ")
        if what != b"pid":
            raise OSError(said.decode("utf-8", "replace") or "its keeper did not start it")
        return int(said)

    def _reads_more(self, deadline: float) -> bool:
        """Read more of what the keeper says. Returns False at its end, or when the time is over."""
        if self._has_ended or not _is_readable(self._keeper.fileno(), max(0.0, deadline - time.monotonic())):
            return False
        try:
            data = self._keeper.recv(_CHUNK)
        except OSError:
            data = b""  # it ended without reading what was sent to it
        self._said += data
        self._has_ended = not data
        return bool(data)

    def _end(self) -> Ended:
        exit_code = -int(signal.SIGKILL)
        for line in self._said.splitlines():
            what, _, said = line.partition(b" ")
            if what == b"exit":
                exit_code = os.waitstatus_to_exitcode(int(said))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS)
        self._kill_what_is_left()
        was_victim = exit_code == -signal.SIGKILL and self._oom.was_victim()
        return Ended(exit_code, last_started(self._ledger), failure_of(self._ledger), was_victim)

    def _kill_what_is_left(self) -> None:
        """Kill the descendants of a worker whose keeper was killed by somebody. A keeper leaves none."""
        deadline = time.monotonic() + _ENDS
        # A process that is ending has no environment any more, but is not dead yet.
        while (left := pids_of(WORKER_VARIABLE, self._mark) | alive(self._worker)) and time.monotonic() < deadline:
            kill(left)
            time.sleep(_PASS)

    def _end_all(self) -> None:
        self.signal(signal.SIGKILL)


def _listen(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=128)


def _file_of(data: bytes, close: contextlib.ExitStack) -> int:
    file = make_options(data)
    close.callback(os.close, file)
    return file


def _environment(order: Order, mark: str) -> dict[str, str]:
    path = search_path(map(os.path.abspath, sys.path))
    ours = {PATH_VARIABLE: path, NUMBER_VARIABLE: str(order.number), WORKER_VARIABLE: mark}
    environment = {**os.environ, **order.variables, **ours}
    return {**thread_variables(order.threads, environment), **environment}


def _spawn(
    order: Order, named: Mapping[str, int], pipes: list[int], theirs: socket.socket, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    python = sys.executable if order.python is None else order.python
    worker = [python, str(Path(bridge_py.__file__).with_name("__main__.py")), *order.arguments]
    worker += [f"--{name}-fd={descriptor}" for name, descriptor in named.items()]
    descriptors = " ".join(map(str, named.values()))
    umask = "" if order.umask is None else str(order.umask)
    folder = os.path.abspath(order.folder or os.curdir)
    options = [descriptors, folder, "", umask, " ".join(map(str, order.cpus)), "behind"]
    start = [interpreter(python), "-I", "-S", script(keeper.__file__), str(theirs.fileno()), str(os.getpid())]
    return subprocess.Popen(
        [*start, *options, *worker],
        stdin=subprocess.DEVNULL,
        stdout=pipes[0],
        stderr=pipes[1],
        pass_fds=[theirs.fileno(), *named.values()],
        process_group=0,
        cwd="/",
        env=environment,
    )


def _is_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
