"""What a test has left behind: processes, file descriptors, files of pools, and threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final

from snakepit_trio._processes.registry import FOLDER_VARIABLE, runs, runs_folder

from .extra import MissingPackage

try:
    import psutil
except ModuleNotFoundError:
    raise MissingPackage("psutil") from None

Found = dict[Hashable, str]
_SHARED: Final = Path("/dev/shm")  # noqa: S108 - where shared memory with names is
_LONGEST: Final = 300  # characters of a command line


def processes() -> Found:
    """Our living descendants: name, pid and command line, by pid and start time."""
    found: Found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid, process.create_time()] = _describe(process)
        except psutil.NoSuchProcess:
            continue
    return found


def descriptors() -> Found:
    """Our open file descriptors: number and target."""
    found: Found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found[name, target] = f"descriptor {name}: {target}"
    return found


def files() -> Found:
    """Files of pools, in shared memory and in the folder of all runs.

    If `SNAKEPIT_RUN_DIR` names the folder, the folder is taken as the tests' own, and everything in it counts. All
    programs of a user share the usual folder: there, only runs of this process count.
    """
    folder = runs_folder()
    if os.environ.get(FOLDER_VARIABLE):
        ours = [folder / name for name in os.listdir(folder)]
    else:
        ours = [run.folder for run in runs() if run.host_pid == os.getpid()]
    shared = list(_SHARED.glob("snakepit-*"))
    return {str(path): f"file {path}" for path in [*ours, *shared]}


def threads() -> Found:
    """Our threads, without the threads that trio keeps for reuse and ends by itself."""
    return {thread: f"thread {thread.name}" for thread in threading.enumerate() if not thread.name.startswith("Trio")}


CHECKS: Final[tuple[Callable[[], Found], ...]] = (processes, descriptors, files, threads)


class LeakCheck:
    """Finds what has been added since it was made. It does not check tasks: trio does that."""

    def __init__(self) -> None:
        self._before = [check() for check in CHECKS]

    def left(self, patience: float = 2) -> list[str]:
        """What has been left behind, one line for each thing. What goes away within `patience` seconds does not count.

        For example, the wakeup sockets of a trio run are garbage that is closed a moment after the run.
        """
        deadline = time.monotonic() + patience
        while (left := self._now()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def _now(self) -> list[str]:
        return [
            text
            for check, before in zip(CHECKS, self._before, strict=True)
            for key, text in check().items()
            if key not in before
        ]


def _describe(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        command = "?"
    return f"process {process.name()}, pid {process.pid}: {command[:_LONGEST]}"
