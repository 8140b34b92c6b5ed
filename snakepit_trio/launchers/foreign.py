"""Worker processes that speak the wire contract."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bridge_py.execution.limited
from bridge_py.contract.listening import UNIX, listen, listen_unix
from snakepit_trio._config.adapters import DEFAULT_VARIABLES, LOG_LEVEL_VARIABLE, GrpcBridge
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._connections.base import Connection, ConnectionContext, Output
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .kept_process import KeptProcess
from .place import Place
from .process import OwnProcess, spawn

if TYPE_CHECKING:
    from snakepit_trio._connections.contract import ContractConnection

#: What workers of 0.13 call the levels, the highest first.
_LEVELS: Final = {logging.ERROR: "error", logging.WARNING: "warning", logging.INFO: "info", 0: "debug"}
_OWN_WORKER: Final = Path(bridge_py.__file__).with_name("__main__.py")


class ForeignProcess(OwnProcess):
    """A worker process that speaks the wire contract, and the listener where it reaches the host."""

    def __init__(
        self,
        registry: ProcessRegistry,
        key: str,
        listener: socket.socket,
        folder: Path,
        config: PoolConfig,
        loop: AsyncioLoop,
        process: KeptProcess,
    ) -> None:
        super().__init__(process, registry, key)
        self._loop = loop
        self._listener = listener
        self._folder = folder
        self._config = config
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
        stdout = Output(pipes.stdout, logging.INFO, hear=hear, has_levels=True)
        return stdout, Output(pipes.stderr, logging.WARNING, True, has_levels=True)

    def connect(self, context: ConnectionContext) -> Connection:
        """Make the connection to the process."""
        from snakepit_trio._connections.contract import ContractConnection  # imports grpclib, which few programs need

        self._connection = ContractConnection(
            context,
            self._loop,
            self._listener,
            self._folder / "ready",
            worker_socket=self._folder / "work" if _uses_unix_sockets(self._config) else None,
            open_to=self._config.open_to,
            bridge=_bridge(self._config),
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
    adapter = _bridge(config)
    key = registry.reserve(worker_id)
    with contextlib.ExitStack() as undo:
        undo.callback(registry.forget, key)
        folder = Path(tempfile.mkdtemp(dir=registry.folder))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        # The host listens before the worker starts, so the worker can connect at any time.
        listener, address, more = _listen(config, folder)
        undo.enter_context(listener)
        command = [*within_limits(config), *adapter.command(config.python, address, registry.run_id), *more]
        make = partial(ForeignProcess, registry, key, listener, folder, config, loop)
        variables = _without_chosen({**adapter.variables(folder / "ready"), **_log_level(config)}, place)
        process = await spawn(place, registry, key, command, variables, make)
        undo.pop_all()
    return process


def _without_chosen(variables: dict[str, str], place: Place) -> dict[str, str]:
    """The variables without the defaults that the user has set, in `env` or in the environment."""
    chosen = DEFAULT_VARIABLES.keys() & {*os.environ, *place.env}
    return {name: value for name, value in variables.items() if name not in chosen}


def _log_level(config: PoolConfig) -> dict[str, str]:
    """The variable that tells a worker of 0.13 from which level on it shall log."""
    if _bridge(config).contract == "0.4":
        return {}
    return {LOG_LEVEL_VARIABLE: next(word for level, word in _LEVELS.items() if config.log_level >= level)}


def _is_ours(config: PoolConfig) -> bool:
    return os.path.realpath(_bridge(config).script_path()) == os.path.realpath(_OWN_WORKER)


def _uses_unix_sockets(config: PoolConfig) -> bool:
    """Whether host and worker use sockets in the run's folder, which is closed to other users: our own worker can."""
    return config.open_to == "user" and _is_ours(config)


def _listen(config: PoolConfig, folder: Path) -> tuple[socket.socket, str, list[str]]:
    """The socket at which the host listens, its address, and further arguments if the worker is our own program."""
    more = [f"--log-level={config.log_level}"] if _is_ours(config) else []
    if _uses_unix_sockets(config):
        return listen_unix(folder / "host"), f"{UNIX}{folder / 'host'}", [*more, "--listen", str(folder / "work")]
    listener = listen("127.0.0.1", 0)
    return listener, f"127.0.0.1:{listener.getsockname()[1]}", more


def _bridge(config: PoolConfig) -> GrpcBridge:
    assert isinstance(config.adapter, GrpcBridge)
    return config.adapter


def within_limits(config: PoolConfig) -> list[str]:
    """The beginning of a command that sets the pool's limits for the process; empty if there are none."""
    if config.limits is None:
        return []
    return [sys.executable, bridge_py.execution.limited.__file__, json.dumps(config.limits.chosen())]
