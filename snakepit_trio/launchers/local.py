"""Worker processes that speak our own protocol, the link."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from bridge_py.execution.ledger import LEDGER_BYTES, failure_of, give_secret, last_started
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, ConnectionContext, Output
from snakepit_trio._connections.lane import Pipes
from snakepit_trio._processes.proc import is_computing
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .kept_process import KeptProcess
from .memory_files import make_ledger, make_options
from .place import Place
from .process import OwnProcess, spawn


class LocalProcess(OwnProcess):
    """One worker process, its socket, and its ledger."""

    def __init__(
        self,
        registry: ProcessRegistry,
        key: str,
        folder: Path,
        ledger: mmap.mmap,
        secret: str,
        loop: AsyncioLoop,
        pipes: Pipes | None,
        breakpoints: socket.socket | None,
        process: KeptProcess,
    ) -> None:
        super().__init__(process, registry, key)
        self._loop = loop
        self._folder = folder
        self._ledger = ledger
        self._last_started = 0  # once the ledger is closed: the timing of a call may be asked for later
        self._secret = secret
        self._pipes = pipes
        self._breakpoints = breakpoints

    @property
    def last_started(self) -> int:
        """Id of the last call that the worker has started. For a dead worker, it is exact to the last instruction."""
        return self._last_started if self._ledger.closed else last_started(self._ledger)

    @property
    def last_words(self) -> str:
        """Why the worker could not start, in its own words; empty if it has said nothing."""
        return failure_of(self._ledger)

    @property
    def outputs(self) -> Sequence[Output]:
        """The output streams of the process that must be read, from the first byte on."""
        pipes = self._process.pipes
        return Output(pipes.stdout, logging.INFO), Output(pipes.stderr, logging.WARNING, True)

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        from snakepit_trio._connections.grpc_link import GrpcLink  # imports grpclib, for pools only

        path = str(self._folder / "link")
        link = GrpcLink(context, self._loop, path, self._secret, self.pid, self._hide_link, self._pipes, self._nudge)
        link.breakpoints = self._breakpoints
        return link

    def _nudge(self) -> None:
        # A main thread that waits in a system call leaves the GIL to others, or it holds the GIL in C code. That code
        # might fail by the signal, and go on with what it has not got.
        if is_computing(self.pid):
            self.signal_group(signal.SIGURG)

    def _hide_link(self) -> None:
        """Remove the socket's file. Open connections stay open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def release(self) -> None:
        """Give back what the host holds for the process. Call it after the process has ended."""
        try:
            self._hide_link()
        finally:
            if not self._ledger.closed:
                self._last_started = last_started(self._ledger)
            self._ledger.close()
            if self._breakpoints is not None:
                self._breakpoints.close()
            if self._pipes is not None:
                self._pipes.close()
            await super().release()  # noqa: ASYNC102 - it waits for nothing


async def launch(place: Place, worker_id: str, registry: ProcessRegistry, loop: AsyncioLoop) -> LocalProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    secret = secrets.token_hex(16)
    key = registry.reserve(worker_id)
    # The host closes its copies, so that the connection is reset if the worker dies before it accepts.
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as close:
        undo.callback(registry.forget, key)
        folder = Path(tempfile.mkdtemp(dir=registry.folder))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        ledger_fd = make_ledger()
        close.callback(os.close, ledger_fd)
        ledger = undo.enter_context(mmap.mmap(ledger_fd, LEDGER_BYTES))
        give_secret(ledger, secret)
        listener = close.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "link"))
        listener.listen(1)
        pipes = _make_pipes(undo, close) if place.config.lane else None
        options_fd = make_options(_options_of(place))
        close.callback(os.close, options_fd)
        given = [listener.fileno(), ledger_fd, options_fd, *(() if pipes is None else pipes.theirs)]
        command = _command(place.config, worker_id, *given)
        breakpoints, theirs = _make_breakpoints(undo, close) if place.config.debug else (None, None)
        if theirs is not None:
            given.append(theirs.fileno())
            command += _debug_options(place.config, theirs)
        make = partial(LocalProcess, registry, key, folder, ledger, secret, loop, pipes, breakpoints)
        process = await spawn(place, registry, key, command, {}, make, pass_fds=given)
        undo.pop_all()
    return process


def _options_of(place: Place) -> bytes:
    return json.dumps(place.adapter_options).encode() + b"\n" + place.config.first_call


def _make_pipes(undo: contextlib.ExitStack, close: contextlib.ExitStack) -> Pipes:
    pipes = Pipes()
    undo.callback(pipes.close)
    close.callback(pipes.give)
    return pipes


def _make_breakpoints(undo: contextlib.ExitStack, close: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    undo.callback(ours.close)
    close.callback(theirs.close)
    ours.setblocking(False)
    return ours, theirs


def _debug_options(config: PoolConfig, theirs: socket.socket) -> list[str]:
    return [f"--debug-fd={theirs.fileno()}", *(["--post-mortem"] if config.debug == "post-mortem" else [])]


def _command(
    config: PoolConfig, worker_id: str, listen_fd: int, ledger_fd: int, options_fd: int, *lane_fds: int
) -> list[str]:
    adapter = config.adapter
    command = [
        adapter.executable_path(config.python),
        adapter.script_path(),
        *adapter.script_args(),
        f"--listen-fd={listen_fd}",
        f"--ledger-fd={ledger_fd}",
        f"--options-fd={options_fd}",
        *worker_arguments(config, worker_id),
    ]
    if lane_fds:
        command += ["--lane-fds", *map(str, lane_fds)]
    return command


def worker_arguments(config: PoolConfig, worker_id: str) -> list[str]:
    """The arguments of a worker that are no descriptors, wherever it runs."""
    arguments = [
        f"--concurrency={config.concurrency}",
        f"--sizes={msgspec.json.encode(config.sizes).decode()}",
        f"--worker-id={worker_id}",
        f"--log-level={config.log_level}",
    ]
    if config.preloads:
        arguments.append(f"--preload={','.join(config.preloads)}")
    if config.limits is not None:
        arguments.append(f"--limits={json.dumps(config.limits.chosen())}")
    return arguments
