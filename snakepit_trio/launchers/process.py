"""What all worker processes on this machine have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from snakepit_trio._connections.base import REAP_SECONDS
from snakepit_trio._processes.guardian import RUN_VARIABLE, WORKER_VARIABLE
from snakepit_trio._processes.oom import OomWatch
from snakepit_trio._processes.proc import is_stopped, resident_bytes
from snakepit_trio._processes.registry import ProcessRegistry
from snakepit_trio._util.log import get_logger

from .kept_process import KeptProcess
from .place import Place

logger = get_logger("snakepit.processes")
P = TypeVar("P")


class OwnProcess:
    """A process of this machine that leads a process group of its own."""

    reap_seconds = REAP_SECONDS
    node: str | None = None

    def __init__(self, process: KeptProcess, registry: ProcessRegistry, key: str) -> None:
        self._process = process
        self._registry = registry
        self._key = key
        self._oom = OomWatch(process.pid)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the number of the signal that killed the process, or None while it lives."""
        return self._process.exit_code

    @property
    def last_words(self) -> str:
        """Why the worker could not start, in its own words; empty if it has said nothing, or has no way to."""
        return ""

    async def wait(self) -> None:
        """Wait until the process has ended. It is reaped then."""
        await self._process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants that stayed in its group."""
        self._process.signal(number)

    def is_ready(self) -> None:
        """Note that the worker has introduced itself."""
        # The process may have moved itself to another control group while it started.
        with logger.tolerates("finding out who counts its memory"):
            self._oom = OomWatch(self.pid)

    def is_stopped(self) -> bool:
        """Whether the process has been stopped, by a debugger or a signal."""
        return is_stopped(self.pid)

    def resident_bytes(self) -> int:
        """The resident memory of the process, in bytes; 0 if it is not known."""
        return resident_bytes(self.pid)

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed the process because memory ran out. Ask once, after its death by SIGKILL."""
        return self._oom.was_victim()

    async def release(self) -> None:
        """Give back what the host holds for the process. Call it after the process has ended."""
        try:
            self._registry.forget(self._key)
        finally:
            self._process.close()


async def spawn(
    place: Place,
    registry: ProcessRegistry,
    key: str,
    command: Sequence[str],
    variables: dict[str, str],
    make: Callable[[KeptProcess], P],
    *,
    pass_fds: Sequence[int] = (),
    with_stdin: bool = False,
) -> P:
    """Start a process of a run, and return what `make` makes of it.

    Raises `OSError`, and what `make` raises. If this raises, no process is left.
    """
    marks = {RUN_VARIABLE: registry.run_id, WORKER_VARIABLE: f"{registry.run_id}/{key}"}
    process = await KeptProcess.start(place, command, {**variables, **marks}, pass_fds=pass_fds, with_stdin=with_stdin)
    try:
        registry.activate(key, process.pid, process.keeper)
        return make(process)
    except BaseException:
        await process.end_now()  # noqa: ASYNC102 - shielded and bounded in there
        raise
