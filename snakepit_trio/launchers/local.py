"""Worker processes that speak the link: our own."""

from __future__ import annotations

import json
import logging
import mmap
import os
import secrets
import shutil
import socket
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from bridge_py.executor import LEDGER_BYTES
from bridge_py.worker import OPTIONS_VARIABLE, SECRET_VARIABLE
from snakepit_trio.channel import ChannelLink
from snakepit_trio.config import PoolConfig
from snakepit_trio.lines import Line, Output, Surroundings
from snakepit_trio.loop import AsyncioLoop
from snakepit_trio.processes import ProcessRegistry

from .process import OwnProcess, spawn


class LocalProcess(OwnProcess):
    """One worker process, its socket, and its ledger."""

    def __init__(
        self,
        process: trio.Process,
        folder: Path,
        ledger: mmap.mmap,
        secret: str,
        registry: ProcessRegistry,
        key: str,
        loop: AsyncioLoop,
    ) -> None:
        super().__init__(process, registry, key)
        self._loop = loop
        self._folder = folder
        self._ledger = ledger
        self._secret = secret

    @property
    def last_started(self) -> int:
        """See `WorkerProcess`."""
        (call_id,) = struct.unpack_from("<Q", self._ledger)
        return int(call_id)

    @property
    def outputs(self) -> Sequence[Output]:
        """See `WorkerProcess`."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return Output(self._process.stdout, logging.INFO), Output(self._process.stderr, logging.WARNING, True)

    def line(self, surroundings: Surroundings) -> Line:
        """See `WorkerProcess`."""
        return ChannelLink(
            surroundings, self._loop, str(self._folder / "link"), self._secret, self.pid, self._hide_link
        )

    def _hide_link(self) -> None:
        """Remove the socket's file; what is connected stays connected."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def release(self) -> None:
        """See `WorkerProcess`."""
        self._hide_link()
        self._ledger.close()
        await super().release()


async def launch(config: PoolConfig, worker_id: str, registry: ProcessRegistry, loop: AsyncioLoop) -> LocalProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    secret = secrets.token_hex(16)
    key = registry.reserve(worker_id)
    folder = Path(tempfile.mkdtemp(dir=registry.folder))
    listener = socket.socket(socket.AF_UNIX)
    ledger_fd, ledger_path = tempfile.mkstemp(dir=folder)
    ledger = None
    try:
        os.unlink(ledger_path)
        os.truncate(ledger_fd, LEDGER_BYTES)
        ledger = mmap.mmap(ledger_fd, LEDGER_BYTES)
        listener.bind(str(folder / "link"))
        listener.listen(1)
        command = _command(config, worker_id, listener.fileno(), ledger_fd)
        pass_fds = (listener.fileno(), ledger_fd)
        variables = {SECRET_VARIABLE: secret, OPTIONS_VARIABLE: json.dumps(dict(config.options))}
        process = await spawn(config, registry, key, command, variables, pass_fds=pass_fds)
    except BaseException:
        registry.forget(key)
        shutil.rmtree(folder, ignore_errors=True)
        if ledger is not None:
            ledger.close()
        raise
    finally:
        # With the host's copy closed, a worker that dies before it accepts resets the connection.
        listener.close()
        os.close(ledger_fd)
    return LocalProcess(process, folder, ledger, secret, registry, key, loop)


def _command(config: PoolConfig, worker_id: str, listen_fd: int, ledger_fd: int) -> list[str]:
    adapter = config.adapter
    command = [
        adapter.executable_path(config.python),
        adapter.script_path(),
        *adapter.script_args(),
        f"--listen-fd={listen_fd}",
        f"--ledger-fd={ledger_fd}",
        f"--concurrency={config.concurrency}",
        f"--sizes={msgspec.json.encode(config.sizes).decode()}",
        f"--worker-id={worker_id}",
    ]
    if config.limits is not None:
        command.append(f"--limits={json.dumps(config.limits.chosen())}")
    return command
