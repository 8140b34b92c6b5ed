"""Worker processes that speak the wire contract."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bridge_py.execution.limited
from bridge_py.contract.listening import listen
from snakepit_trio._config.adapters import GrpcBridge
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, ConnectionContext, Output
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .kept_process import KeptProcess
from .place import Place
from .process import OwnProcess, spawn

if TYPE_CHECKING:
    from snakepit_trio._connections.contract import ContractConnection


class ForeignProcess(OwnProcess):
    """A worker process that speaks the wire contract, and the listener where it reaches the host."""

    def __init__(
        self,
        registry: ProcessRegistry,
        key: str,
        listener: socket.socket,
        folder: Path,
        adapter: GrpcBridge,
        loop: AsyncioLoop,
        process: KeptProcess,
    ) -> None:
        super().__init__(process, registry, key)
        self._loop = loop
        self._listener = listener
        self._folder = folder
        self._adapter = adapter
        self._connection: ContractConnection | None = None

    @property
    def last_started(self) -> int:
        """Id of the last call that was opened on the connection. An opened call counts as started."""
        return 0 if self._connection is None else self._connection.last_opened

    @property
    def outputs(self) -> Sequence[Output]:
        """The output streams of the process that must be read, from the first byte on."""
        pipes = self._process.pipes
        hear = None if self._connection is None else self._connection.hear
        return Output(pipes.stdout, logging.INFO, hear=hear), Output(pipes.stderr, logging.WARNING, True)

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        from snakepit_trio._connections.contract import ContractConnection  # imports grpclib, which few programs need

        self._connection = ContractConnection(
            context, self._loop, self._listener, self._folder / "ready", allow_pickle=self._adapter.allow_pickle
        )
        return self._connection

    async def release(self) -> None:
        """Give back what the host holds for the process. Call it after the process has ended."""
        try:
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            await super().release()  # noqa: ASYNC102 - it waits for nothing


async def launch(place: Place, worker_id: str, registry: ProcessRegistry, loop: AsyncioLoop) -> ForeignProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    config = place.config
    adapter = config.adapter
    assert isinstance(adapter, GrpcBridge)
    key = registry.reserve(worker_id)
    with contextlib.ExitStack() as undo:
        undo.callback(registry.forget, key)
        folder = Path(tempfile.mkdtemp(dir=registry.folder))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        # The host listens before the worker starts, so the worker can connect at any time.
        listener = undo.enter_context(listen("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [*within_limits(config), *adapter.command(config.python, address, registry.run_id)]
        make = partial(ForeignProcess, registry, key, listener, folder, adapter, loop)
        process = await spawn(place, registry, key, command, adapter.variables(folder / "ready"), make)
        undo.pop_all()
    return process


def within_limits(config: PoolConfig) -> list[str]:
    """The beginning of a command that sets the pool's limits for the process; empty if there are none."""
    if config.limits is None:
        return []
    return [sys.executable, bridge_py.execution.limited.__file__, json.dumps(config.limits.chosen())]
