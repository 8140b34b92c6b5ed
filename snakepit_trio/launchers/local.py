"""Worker processes that speak our own protocol, the link."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from bridge_py.buffers.shared_memory import fix_size, make_memory
from bridge_py.execution.ledger import LEDGER_BYTES, failure_of, give_secret, last_started
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, ConnectionContext, Output
from snakepit_trio._connections.lane import Pipes
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .kept_process import KeptProcess
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
        process: KeptProcess,
    ) -> None:
        super().__init__(process, registry, key)
        self._loop = loop
        self._folder = folder
        self._ledger = ledger
        self._secret = secret
        self._pipes = pipes

    @property
    def last_started(self) -> int:
        """Id of the last call that the worker has started. For a dead worker, it is exact to the last instruction."""
        return last_started(self._ledger)

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
        return GrpcLink(context, self._loop, path, self._secret, self.pid, self._hide_link, self._pipes)

    def _hide_link(self) -> None:
        """Remove the socket's file. Open connections stay open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def release(self) -> None:
        """Give back what the host holds for the process. Call it after the process has ended."""
        try:
            self._hide_link()
        finally:
            self._ledger.close()
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
        ledger_fd = _make_ledger()
        close.callback(os.close, ledger_fd)
        ledger = undo.enter_context(mmap.mmap(ledger_fd, LEDGER_BYTES))
        give_secret(ledger, secret)
        listener = close.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "link"))
        listener.listen(1)
        pipes = _make_pipes(undo, close) if place.config.lane else None
        options_fd = _make_options(place)
        close.callback(os.close, options_fd)
        given = [listener.fileno(), ledger_fd, options_fd, *(() if pipes is None else pipes.theirs)]
        command = _command(place.config, worker_id, *given)
        make = partial(LocalProcess, registry, key, folder, ledger, secret, loop, pipes)
        process = await spawn(place, registry, key, command, {}, make, pass_fds=given)
        undo.pop_all()
    return process


def _make_ledger() -> int:
    # The ledger is in no folder, and its memory is allocated here. If there is no room, this
    # raises. Without the allocation, the first process that writes to the ledger would get a SIGBUS. So would the host
    # if the worker could shrink it.
    ledger = make_memory("snakepit-ledger")
    try:
        os.posix_fallocate(ledger, 0, LEDGER_BYTES)
        fix_size(ledger)
    except BaseException:
        os.close(ledger)
        raise
    return ledger


def _make_options(place: Place) -> int:
    # In no environment, which would show passwords among the options as long as the worker lives.
    options = os.memfd_create("snakepit-options")
    try:
        with open(options, "wb", closefd=False) as file:
            file.write(json.dumps(place.adapter_options).encode() + b"\n" + place.config.first_call)
        os.lseek(options, 0, os.SEEK_SET)
    except BaseException:
        os.close(options)
        raise
    return options


def _make_pipes(undo: contextlib.ExitStack, close: contextlib.ExitStack) -> Pipes:
    pipes = Pipes()
    undo.callback(pipes.close)
    close.callback(pipes.give)
    return pipes


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
        f"--concurrency={config.concurrency}",
        f"--sizes={msgspec.json.encode(config.sizes).decode()}",
        f"--worker-id={worker_id}",
    ]
    if lane_fds:
        command += ["--lane-fds", *map(str, lane_fds)]
    if config.limits is not None:
        command.append(f"--limits={json.dumps(config.limits.chosen())}")
    return command
