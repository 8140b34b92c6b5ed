"""How workers come to be: what a pool needs of whatever runs them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from snakepit_trio._connections.base import WorkerProcess
    from snakepit_trio._util.asyncio_loop import AsyncioLoop

    from .config import PoolConfig


class Site(ABC):
    """What one pool has of a launcher, from its opening to its end."""

    #: Whether nothing may run in threads, nor be shared with workers but through the link.
    runs_inline = False

    def clock(self) -> float:
        """Unix time in seconds, for sessions and their expiry."""
        return time.time()

    def check_room(self, workers: int) -> None:
        """Raise `UsageError` for more workers than it can hold."""

    @property
    @abstractmethod
    def loop(self) -> AsyncioLoop:
        """The asyncio loop of the pool's connections, which runs as long as `run` does."""

    @abstractmethod
    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what its workers need, until cancelled. Workers are launched, and ended, while it runs."""

    @abstractmethod
    async def launch(self, worker_id: str) -> WorkerProcess:
        """Start a worker; returns before it is ready. Raises `OSError`."""

    @abstractmethod
    def close(self) -> None:
        """The pool has ended, or never began."""


class Launcher(ABC):
    """Where the workers of pools run. One launcher serves any number of pools."""

    @abstractmethod
    def open(self, config: PoolConfig) -> Site:
        """What a pool needs. Raises `UsageError` for a configuration that it cannot serve."""
