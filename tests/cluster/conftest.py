"""A Ray cluster that the tests of this folder share. They run by `make test-cluster`, one after another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

ROOT: Final = Path(__file__).parent.parent.parent
NODES: Final = 3
CPUS: Final = 4  # of each node, for Ray's arithmetic alone
_LONGEST: Final = 60.0
#: The name of the tests' pools: other programs of this machine may have pools too.
POOL: Final = f"rays{os.getpid()}"


class RayCluster:
    """The cluster, in processes that are no children of the tests. `folder` is in the command lines of them all."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
        command = [sys.executable, "-m", "tests.cluster.ray_nodes", folder, str(NODES), str(CPUS)]
        with open(f"{folder}/nodes.log", "w") as log:
            self._process = subprocess.Popen(
                ["setsid", "--fork", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process.wait()
        self.address = self._answer()

    def tell(self, *request: str) -> Any:
        """Have the cluster changed: "add", or "kill" and the beginning of a node's id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, Path(f"{self.folder}/nodes.log").read_text()
        return json.loads(line)

    def end(self) -> None:
        """End it. Raises `AssertionError` if a process is left, which is killed then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        deadline = time.monotonic() + _LONGEST
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            process.kill()
        assert not left

    def _processes(self) -> list[psutil.Process]:
        return processes(self.folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """Three nodes with four CPUs each, and a head that runs no workers."""
    if sys.version_info >= (3, 15):
        pytest.skip("Ray has no wheels for Python 3.15")
    pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets are in it
    found = RayCluster(folder)
    try:
        yield found
    finally:
        found.end()
        shutil.rmtree(folder)


def processes(*words: str) -> list[psutil.Process]:
    """Living processes that have all of the words in their command lines."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.info["status"] != psutil.STATUS_ZOMBIE and all(word in command for word in words):
            found.append(process)
    return found


def of_pool(name: str = POOL) -> list[psutil.Process]:
    """The living workers and keepers of a pool, wherever they descend from."""
    return processes("bridge_py/__main__.py", f"--worker-id={name}-")


def actors() -> list[psutil.Process]:
    """The living actors of workers, of all pools."""
    return processes("ray::SnakepitWorker")


def all_gone(name: str = POOL, seconds: float = 30) -> bool:
    """Wait until no worker, keeper and actor is left."""
    deadline = time.monotonic() + seconds
    while (of_pool(name) or actors()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not (of_pool(name) or actors())


def kill(pid: int) -> None:
    """Kill a process."""
    os.kill(pid, signal.SIGKILL)
