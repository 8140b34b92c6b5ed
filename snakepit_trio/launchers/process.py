"""What all worker processes on this machine have in common."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import trio

from bridge_py.worker import PATH_VARIABLE
from snakepit_trio.config import PoolConfig
from snakepit_trio.guardian import RUN_VARIABLE, WORKER_VARIABLE, kill, pids_of
from snakepit_trio.health import is_stopped, resident_bytes
from snakepit_trio.limits import thread_variables
from snakepit_trio.oom import OomWatch
from snakepit_trio.processes import ProcessRegistry

_PASS: Final = 0.01  # seconds between two looks for processes
_LONGEST: Final = 2.0

logger = logging.getLogger("snakepit.processes")


class OwnProcess:
    """A process of this machine that leads a process group of its own."""

    def __init__(self, process: trio.Process, registry: ProcessRegistry, key: str) -> None:
        self._process = process
        self._registry = registry
        self._key = key
        self._is_all_gone = False
        self._oom = OomWatch(process.pid)

    @property
    def pid(self) -> int:
        """See `WorkerProcess`."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """See `WorkerProcess`."""
        return self._process.returncode

    async def wait(self) -> None:
        """See `WorkerProcess`."""
        await self._process.wait()
        if not self._is_all_gone:
            await self._end_the_rest()
            self._is_all_gone = True

    async def _end_the_rest(self) -> None:
        # What it has started may have left its group, as daemons do.
        deadline = trio.current_time() + _LONGEST
        while left := pids_of(WORKER_VARIABLE, _mark(self._registry, self._key)):
            kill(left)
            await trio.sleep(_PASS)
            if trio.current_time() > deadline:
                logger.error("process %d, which a worker has started, does not end after SIGKILL", min(left))
                break

    def signal_group(self, number: signal.Signals) -> None:
        """See `WorkerProcess`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def is_ready(self) -> None:
        """See `WorkerProcess`."""
        # It may have moved itself to another control group while it started.
        self._oom = OomWatch(self.pid)

    def is_stopped(self) -> bool:
        """See `WorkerProcess`."""
        return is_stopped(self.pid)

    def resident_bytes(self) -> int:
        """See `WorkerProcess`."""
        return resident_bytes(self.pid)

    def was_killed_for_memory(self) -> bool:
        """See `WorkerProcess`."""
        return self._oom.was_victim()

    async def release(self) -> None:
        """See `WorkerProcess`."""
        self._registry.forget(self._key)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                await stream.aclose()


async def spawn(
    config: PoolConfig,
    registry: ProcessRegistry,
    key: str,
    command: Sequence[str],
    variables: dict[str, str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> trio.Process:
    """Start a process of a run in a group of its own. Raises `OSError`."""
    # Shielded: a process that was started must not be lost to a cancellation.
    with trio.CancelScope(shield=True):
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            process_group=0,
            cwd=config.cwd,
            env=_environment(
                config, {**variables, RUN_VARIABLE: registry.run_id, WORKER_VARIABLE: _mark(registry, key)}
            ),
        )
        registry.activate(key, process.pid)
    return process


def _mark(registry: ProcessRegistry, key: str) -> str:
    return f"{registry.run_id}/{key}"


def _environment(config: PoolConfig, given: dict[str, str]) -> dict[str, str]:
    working = os.path.abspath(config.cwd or os.curdir)
    path = [working]
    if config.python == sys.executable:
        path += [os.path.abspath(entry) for entry in sys.path]
    environment = {**os.environ, **(config.env or {}), **given, PATH_VARIABLE: os.pathsep.join(path)}
    return {**thread_variables(config.threads, environment), **environment}
