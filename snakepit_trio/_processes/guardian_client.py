"""The host's side of the guardian: starts it, tells it of workers, replaces it if it dies."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from typing import Final

import trio

from snakepit_trio._util.log import get_logger

from . import guardian
from .children import Child, script
from .registry import ProcessRegistry

_GOODBYE: Final = 1.0  # seconds for it to end by itself
_PAUSE: Final = 1.0  # seconds between the end of one and the start of the next, in case they keep ending

logger = get_logger("snakepit.processes")


class GuardianClient:
    """Keeps one guardian for a run. `python` runs it."""

    def __init__(self, registry: ProcessRegistry, python: str) -> None:
        self._registry = registry
        self._python = python
        self._has_failed = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have a guardian until cancelled. Then the guardian gets a goodbye and is reaped."""
        while True:
            child = await self._start()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            if child is not None:
                await self._accompany(child)
                logger.warning("the guardian (pid %d) ended; another one takes its place", child.pid)
            await trio.sleep(_PAUSE)

    async def _start(self) -> Child | None:
        try:
            child = await Child.start(self._spawn)
        except Exception as error:
            # Keepers and links still end the workers of a host that dies.
            if not self._has_failed:
                logger.error("no guardian can be started, and it is tried again every %.0f s: %s", _PAUSE, error)
            self._has_failed = True
            return None
        if self._has_failed:
            logger.warning("a guardian (pid %d) has been started again", child.pid)
        self._has_failed = False
        self._registry.set_guardian(child)
        return child

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        command = [self._python, "-I", "-S", script(guardian.__file__)]
        # Its environment is empty: it must not look like a process of this run, or of an enclosing run.
        return subprocess.Popen(
            [*command, self._registry.run_id, str(self._registry.folder), str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={},
        )

    async def _accompany(self, child: Child) -> None:
        try:
            await child.until_reaped()
        finally:
            self._registry.set_guardian(None)
            with trio.CancelScope(shield=True):
                await _see_off(child)


async def _see_off(child: Child) -> None:
    child.tell(b"bye\n")
    try:
        with trio.move_on_after(_GOODBYE):
            await child.until_reaped()
        if child.process.returncode is None:
            with contextlib.suppress(OSError):
                child.process.kill()
            with trio.move_on_after(_GOODBYE):
                await child.until_reaped()
    finally:
        child.let_go()
