"""The host's side of the guardian: starts it, tells it of workers, replaces it if it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

from . import guardian
from .processes import ProcessRegistry

_GOODBYE: Final = 1.0  # seconds for it to end by itself
_PAUSE: Final = 1.0  # between the end of one and the start of the next, should they keep ending

logger = logging.getLogger("snakepit.processes")


class Guard:
    """Keeps one guardian for a run."""

    def __init__(self, registry: ProcessRegistry) -> None:
        self._registry = registry
        self._pipe: int | None = None
        self.pid: int | None = None
        registry.tell = self._tell

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have a guardian until cancelled; then it gets a goodbye and is reaped."""
        while True:
            process = await self._start()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            if process is not None:
                await self._accompany(process)
                logger.warning("the guardian (pid %d) ended; another one takes its place", process.pid)
            await trio.sleep(_PAUSE)

    async def _start(self) -> trio.Process | None:
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        command = [sys.executable, "-I", "-S", str(Path(guardian.__file__))]
        arguments = [self._registry.run_id, str(self._registry.folder), str(os.getpid())]
        try:
            # Its environment is empty: it must not look like a process of this run, nor of one around it.
            with trio.CancelScope(shield=True):
                process = await trio.lowlevel.open_process(
                    [*command, *arguments],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                    env={},
                )
        except OSError as error:
            logger.error("no guardian can be started: %s", error)
            self._close_pipe()
            return None
        finally:
            os.close(reading)
        self.pid = process.pid
        for pid in self._registry.pids.values():
            self._tell(f"+ {pid}")
        return process

    async def _accompany(self, process: trio.Process) -> None:
        try:
            await process.wait()
        except trio.Cancelled:
            self._tell("bye")
            raise
        finally:
            self._close_pipe()
            with trio.CancelScope(shield=True):
                with trio.move_on_after(_GOODBYE):
                    await process.wait()
                process.kill()
                await process.wait()

    def _tell(self, line: str) -> None:
        if self._pipe is None:
            return
        # One that does not read, because it is stopped or dead, is replaced when it ends.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._pipe, f"{line}\n".encode())

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
