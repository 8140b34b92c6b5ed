"""Fixtures that all tests share. One of them fails any test that leaves something behind."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from snakepit_trio.processes import FOLDER_VARIABLE, runs_folder

TOOLS = "tests.tools:Tools"
# Other programs of this user may have pools too.
os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="snakepit-test-")
atexit.register(shutil.rmtree, os.environ[FOLDER_VARIABLE])
# Who is started in the background of a shell ignores SIGINT, and so do the programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes() -> set[tuple[int, str]]:
    """Our living descendants, by pid and name."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add((process.pid, process.name()))
        except psutil.NoSuchProcess:
            continue
    return found


def descriptors() -> set[tuple[int, str]]:
    """Our open file descriptors, by number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue
    return found


def files() -> set[str]:
    """Our files: those of runs, and in shared memory."""
    shared = {name for name in os.listdir("/dev/shm") if name.startswith("snakepit-")}
    return {*os.listdir(runs_folder()), *shared}


def threads() -> set[str]:
    """Our threads, but for those that trio keeps for reuse and ends by itself."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio")}


CHECKS: list[Callable[[], set[object]]] = [processes, descriptors, files, threads]  # type: ignore[list-item]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, a descriptor, a file of ours or a thread. Tasks are trio's to check."""
    before = [check() for check in CHECKS]
    yield
    for check, was in zip(CHECKS, before, strict=True):
        # The garbage of trio's own run (its wakeup sockets) is closed a moment after the run.
        deadline = time.monotonic() + 2
        while (left := check() - was) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"{check.__name__} left behind: {left}"


@pytest.fixture
def untraced_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are not measured for coverage, which would make their start several times as slow."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file that tools write to."""
    return tmp_path / "log"
