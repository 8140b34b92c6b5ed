"""The place where the workers of a pool start.

It is settled when the pool opens, whatever happens later to folders and to this process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, Self

import attrs

from bridge_py.wire.environment import NUMBER_VARIABLE, PATH_VARIABLE, search_path
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.limits import thread_variables
from snakepit_trio._config.worker_options import WorkerOptions
from snakepit_trio._processes import guardian, keeper
from snakepit_trio._processes.children import Child, interpreter, script


class Forks(Protocol):
    """What forks workers in place of starting them as programs."""

    async def fork(
        self, place: Place, command: Sequence[str], variables: dict[str, str], pass_fds: Sequence[int], pipes: list[int]
    ) -> Child:
        """Fork a worker below a keeper of its own, and return the keeper. Raises `OSError`."""
        ...


@attrs.frozen
class Place:
    """The place where a worker process of a pool starts; all but its `number` is the same for all workers.

    `folder` is the absolute path of their working directory. `descriptor` refers to the directory itself, so that it
    can be entered even when it has been deleted; None if the directory is not there. `python` runs keepers and
    guardians. `number` is the number of the worker that starts here; None for a template. `template` forks the worker;
    None if it is started as a program.
    """

    config: PoolConfig
    folder: str
    descriptor: int | None
    python: str
    keeper: str
    number: int | None = 0
    template: Forks | None = None

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """The place of a pool that opens now. Raises `UsageError` if no helper process can be run, and `OSError`."""
        python, keeper_script = interpreter(config.python), script(keeper.__file__)
        script(guardian.__file__)
        folder = os.fspath(config.cwd or os.curdir)
        descriptor = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            folder = os.path.abspath(folder)
        except FileNotFoundError:
            folder = ""  # the working directory of this process has been deleted: there is only the descriptor
        return cls(config, folder, descriptor, python, keeper_script)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor is not None:
            os.close(self.descriptor)

    def of_worker(self, number: int, template: Forks | None = None) -> Self:
        """The place of one worker. It has the same descriptor, and is not to be closed."""
        return attrs.evolve(self, number=number, template=template)

    def of_template(self) -> Self:
        """The place of a template. It has the same descriptor, and is not to be closed."""
        return attrs.evolve(self, number=None)

    @property
    def is_of_template(self) -> bool:
        """Whether a template starts here."""
        return self.number is None

    @property
    def options(self) -> WorkerOptions:
        """What differs for the worker; nothing for a template."""
        return WorkerOptions() if self.number is None else self.config.worker_options.of(self.number)

    @property
    def adapter_options(self) -> dict[str, Any]:
        """The keyword arguments for the adapter class of the worker."""
        return {**self.config.options, **self.options.options}

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that the user has given for the worker."""
        return {**(self.config.env or {}), **(self.options.env or {})}

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """The environment of a worker: this process's own, the user's `env`, and the `given` variables."""
        config = self.config
        path = [os.path.join(self.folder, entry) for entry in sys.path if isinstance(entry, str)]
        if config.python != sys.executable:  # packages of this interpreter are of no use there
            path = [entry for entry in path if os.path.realpath(entry) == os.path.realpath(self.folder)]
        ours = {PATH_VARIABLE: search_path(path)}
        if self.number is not None:
            ours[NUMBER_VARIABLE] = str(self.number)
        environment = {**os.environ, **self.env, **given, **ours}
        return {**thread_variables(self._threads(), environment), **environment}

    def _threads(self) -> int | None:
        threads, cpus = self.config.threads, self.options.cpus
        return threads if threads is None or cpus is None else min(threads, len(cpus))
