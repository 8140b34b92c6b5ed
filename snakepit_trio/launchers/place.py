"""The place where the workers of a pool start.

It is settled when the pool opens, whatever happens later to folders and to this process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Self

import attrs

from bridge_py.wire.environment import PATH_VARIABLE
from snakepit_trio._config.config import PoolConfig
from snakepit_trio._config.limits import thread_variables
from snakepit_trio._processes import guardian, keeper
from snakepit_trio._processes.children import interpreter, script


@attrs.frozen
class Place:
    """What all worker processes of a pool have in common.

    `folder` is the absolute path of their working directory. `descriptor` refers to the directory itself, so that it
    can be entered even when it has been deleted; None if the directory is not there. `python` runs keepers and
    guardians.
    """

    config: PoolConfig
    folder: str
    descriptor: int | None
    python: str
    keeper: str

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

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """The environment of a worker: this process's own, the pool's `env`, and the `given` variables."""
        config = self.config
        path = [os.path.join(self.folder, entry) for entry in sys.path]
        if config.python != sys.executable:  # packages of this interpreter are of no use there
            path = [entry for entry in path if os.path.realpath(entry) == os.path.realpath(self.folder)]
        environment = {**os.environ, **(config.env or {}), **given, PATH_VARIABLE: os.pathsep.join(filter(None, path))}
        return {**thread_variables(config.threads, environment), **environment}
