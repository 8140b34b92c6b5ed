"""A worker on trial, for `snakepit doctor`: started, called and ended, with the time of each step."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

import snakepit_trio as snakepit
from snakepit_trio._config.config import Launcher, PoolConfig, Site
from snakepit_trio._config.settings_file import default_adapter
from snakepit_trio._connections.base import WorkerProcess
from snakepit_trio._serving.schemas import tool_schemas
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio.errors import WorkerFailure
from snakepit_trio.launchers import Local

from .checks import Check
from .import_times import VARIABLE, ImportTimes, is_of_imports

_SLOW: Final = 2.0  # seconds
_LINES: Final = 100  # of a worker's stderr; a traceback alone may have twenty
_LINES_OF_IMPORTS: Final = 20_000
_LOAD: Final = "look at the load of this machine"
Tell = Callable[[Check], None]


class Steps:
    """Tells of the steps of one worker, each with its seconds since the step before."""

    def __init__(self, tell: Tell, imports: ImportTimes) -> None:
        self._tell = tell
        self._imports = imports
        self._before = time.monotonic()

    def took(self, name: str, text: str, remedy: str = "", seconds: float | None = None) -> None:
        """Tell that a step is done. The remedy is for steps that take long.

        `seconds` is for steps that were measured elsewhere: the next step begins so long after this one.
        """
        if seconds is None:
            seconds = time.monotonic() - self._before
        self._before += seconds
        is_slow = bool(remedy) and seconds > _SLOW
        self._tell(Check(name, "warn" if is_slow else "ok", text, remedy if is_slow else "", seconds))

    def python_started(self) -> None:
        """Tell of the interpreter and its imports, as far as the worker has got; nothing of workers without Python."""
        imports = self._imports
        if imports.started is None:
            return
        # The host may have heard of it late. What the imports took is exact.
        until = min(imports.started, time.monotonic() - imports.own - imports.others)
        self.took("interpreter", "Python has started", _LOAD, max(0.0, until - self._before))
        self.took("imports", "the worker's own modules", f"{_LOAD}, and at its disks", imports.own)
        if imports.has_own:
            slowest = f"; the slowest: {imports.slowest}" if imports.slowest else ""
            remedy = (
                "import these later, in setup() or in the tool; template=True and spares=1 hide the time of imports"
            )
            self.took("adapter", f"the modules that the adapter imports{slowest}", remedy, imports.others)

    def failed(self, error: Exception) -> None:
        """Tell that the step under way has failed."""
        stderr: tuple[str, ...] = ()
        text = str(error) or type(error).__name__
        if isinstance(error, WorkerFailure):
            lines = [line for line in error.stderr_tail if not is_of_imports(line)]
            stderr = tuple(lines[-_LINES:])
            self.python_started()
        seconds = time.monotonic() - self._before
        self._tell(Check("worker", "fail", text, self._remedy(error, text), seconds, stderr))

    def _remedy(self, error: Exception, text: str) -> str:
        is_usage = isinstance(error, snakepit.UsageError) or "that derives from" in text
        if is_usage and "adapter" in text:
            return "correct the adapter's name, or its class: package.module:Class or path/to/file.py:Class"
        if "No module named" in text:
            return f"install what is missing ({sys.executable} -m pip install ...), or start in the adapter's folder"
        if "was not ready within" in text:
            last = f", after the import of {self._imports.last}" if self._imports.last else ""
            return f"see where its module or its setup() waits{last}: py-spy dump --pid PID while it starts"
        if isinstance(error, WorkerFailure):
            return "correct what its stderr tells; the adapter's module must be importable from this folder"
        return "correct what has failed above; else look the error up in the guide"


class _Timed(Launcher):
    """Launches as pools do by default, and tells of the starts of processes."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def open(self, config: PoolConfig) -> Site:
        return _TimedSite(Local().open(config), self._steps)


@attrs.define(eq=False)
class _TimedSite(Site):
    _site: Site
    _steps: Steps

    def check_room(self, workers: int) -> None:
        self._site.check_room(workers)

    @property
    def loop(self) -> AsyncioLoop:
        return self._site.loop

    async def run(  # noqa: ASYNC128 - the site tells when it has started
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self._site.run(task_status)

    async def launch(self, worker_id: str, number: int) -> WorkerProcess:
        self._steps.took("pool", "opened: its folder, guardian and loop")
        process = await self._site.launch(worker_id, number)
        self._steps.took("process", f"worker and keeper started, pid {process.pid}", _LOAD)
        return process

    def close(self) -> None:
        self._site.close()


async def try_worker(adapter: str | None, tell: Tell) -> None:
    """Start a worker with the adapter, make one call, and end it; `tell` is called after each step.

    What goes wrong is told, and not raised. When this ends, or is cancelled, the worker has ended.
    """
    with _heard() as imports:
        steps = Steps(tell, imports)
        try:
            await _try(adapter or default_adapter(), steps)
        except Exception as error:
            steps.failed(error)


async def _try(adapter: str, steps: Steps) -> None:
    async with snakepit.open_pool(
        adapter, workers=1, name="doctor", launcher=_Timed(steps), stderr_lines=_LINES_OF_IMPORTS
    ) as pool:
        [worker] = pool.list_workers()
        steps.python_started()
        text = f"{adapter} is set up, {len(pool.tools.list_tools())} tools"
        steps.took("hello", text, "look at what the adapter's module and setup() do")
        await tool_schemas(pool)
        steps.took("first call", f"answered by worker {worker.id}", _LOAD)
    steps.took("end", "worker ended, nothing left", "look at what the adapter's close() does")


@contextmanager
def _heard() -> Iterator[ImportTimes]:
    """Have workers that start in the block print the times of their imports, and hear them."""
    imports = ImportTimes()
    logger = logging.getLogger("snakepit.worker")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    logger.addHandler(imports)
    try:
        yield imports
    finally:
        logger.removeHandler(imports)
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
