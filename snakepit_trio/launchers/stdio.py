"""Worker processes that speak frames on their stdin and stdout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from snakepit_trio._config.stdio_adapters import StdioJson
from snakepit_trio._connections.base import Connection, ConnectionContext, Output
from snakepit_trio._connections.stdio import StdioConnection
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .foreign import within_limits
from .kept_process import KeptProcess
from .place import Place
from .process import OwnProcess, spawn


class StdioProcess(OwnProcess):
    """A worker process that speaks frames on its stdin and stdout."""

    def __init__(self, registry: ProcessRegistry, key: str, adapter: StdioJson, process: KeptProcess) -> None:
        super().__init__(process, registry, key)
        self._adapter = adapter
        self._connection: StdioConnection | None = None

    @property
    def last_started(self) -> int:
        """Id of the last call that was sent. A call that was sent counts as started."""
        return 0 if self._connection is None else self._connection.last_sent

    @property
    def outputs(self) -> Sequence[Output]:
        """The output streams of the process that must be read, from the first byte on."""
        return [Output(self._process.pipes.stderr, logging.WARNING, True, has_levels=True)]

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        pipes = self._process.pipes
        assert pipes.stdin is not None
        self._connection = StdioConnection(context, self._adapter, pipes.stdin, pipes.stdout)
        return self._connection


async def launch(
    place: Place,
    worker_id: str,
    registry: ProcessRegistry,
    loop: AsyncioLoop,  # noqa: ARG001 - its pipes are trio's
) -> StdioProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    config = place.config
    adapter = config.adapter
    assert isinstance(adapter, StdioJson)
    key = registry.reserve(worker_id)
    program = [part for part in (adapter.executable_path(config.python), adapter.script_path()) if part]
    command = [*within_limits(config), *program, *adapter.script_args()]
    make = partial(StdioProcess, registry, key, adapter)
    try:
        return await spawn(place, registry, key, command, {}, make, with_stdin=True)
    except BaseException:
        registry.forget(key)
        raise
