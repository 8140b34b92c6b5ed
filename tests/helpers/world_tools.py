"""Tools that start processes in all the ways there are, and tell in which state they have been started themselves."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from bridge_py import BaseAdapter, tool

_SUBREAPER = 36  # prctl(2), PR_SET_CHILD_SUBREAPER
SLEEP = "import time; time.sleep(600)"


class Tools(BaseAdapter):
    """All of them."""

    @tool
    def add(self, a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    @tool
    def pid(self) -> int:
        """The worker's pid."""
        return os.getpid()

    @tool
    def exit(self, code: int) -> None:
        """End the process at once."""
        os._exit(code)

    @tool
    def die_by(self, number: int) -> None:
        """Send a signal to the own process."""
        os.kill(os.getpid(), number)

    @tool
    def spin(self) -> None:
        """Loop in Python."""
        while True:
            pass

    @tool
    def state(self) -> dict[str, Any]:
        """The signals that are blocked and ignored, here and in a child, the umask and where we are."""
        child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        umask = os.umask(0o022)
        os.umask(umask)
        here = Path("/proc/self/status").read_text()
        return {"worker": _signals(here), "child": _signals(child), "umask": umask, "python": sys.executable}

    @tool
    def leave(self, how: str) -> list[int]:
        """Start processes in a way, and return their pids."""
        return START[how]()

    @tool
    def leave_and_insist(self, how: str, path: str) -> None:
        """Start processes in a way, write their pids and ours, and swallow every interrupt."""
        draft = Path(path + ".new")
        draft.write_text(" ".join(map(str, [*START[how](), os.getpid()])))
        draft.rename(path)
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                continue

    @tool
    def share_memory(self) -> str:
        """Make shared memory with a name that nobody unlinks."""
        self.shared = SharedMemory(create=True, size=4096)
        return self.shared.name

    @tool
    def fork_and_exit(self) -> int:
        """Start a forked process that leaves by `sys.exit`, and return its exit code."""
        pid = os.fork()
        if not pid:
            sys.exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @tool
    def import_it(self, name: str) -> str:
        """Import a module, and return its `VALUE`."""
        return str(__import__(name).VALUE)


def _signals(status: str) -> dict[str, list[int]]:
    fields = dict(line.split(":", 1) for line in status.splitlines())
    masks = {"blocked": int(fields["SigBlk"], 16), "ignored": int(fields["SigIgn"], 16)}
    usual = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores these two itself
    usual |= {32, 33}  # type: ignore[arg-type]  # the C library's own, which nobody else can set: signal(7)
    numbers = [number for number in range(1, 65) if number not in usual]
    return {what: [number for number in numbers if mask >> (number - 1) & 1] for what, mask in masks.items()}


def _child() -> list[int]:
    return [subprocess.Popen([sys.executable, "-c", SLEEP]).pid]


def _session() -> list[int]:
    return [subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True).pid]


def _own_group() -> list[int]:
    """Its own process moves into the group of a child."""
    child = subprocess.Popen([sys.executable, "-c", SLEEP], process_group=0)
    os.setpgid(0, child.pid)
    return [child.pid]


def _new_group() -> list[int]:
    """A child in a group of its own, without the environment."""
    return [subprocess.Popen(["sleep", "600"], process_group=0, env={}).pid]


def _without_environment() -> list[int]:
    """As what sets its title overwrites its environment."""
    return [subprocess.Popen(["sleep", "600"], start_new_session=True, env={}).pid]


def _daemon() -> list[int]:
    """Forked twice, in a session of its own, without the environment."""
    reading, writing = os.pipe()
    if not (first := os.fork()):
        os.setsid()
        if not os.fork():
            os.write(writing, str(os.getpid()).encode())
            os.closerange(0, 64)
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
    os.waitpid(first, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        return [int(file.read())]


def _subreaper() -> list[int]:
    """A process that reaps what its descendants leave, with such a daemon below it."""
    reading, writing = os.pipe()
    if not (middle := os.fork()):
        os.setsid()
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        (daemon,) = _daemon()
        os.write(writing, str(daemon).encode())
        os.closerange(0, 64)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os.close(writing)
    with os.fdopen(reading) as file:
        return [middle, int(file.read())]


START = {
    "child": _child,
    "session": _session,
    "own group": _own_group,
    "new group": _new_group,
    "without environment": _without_environment,
    "daemon": _daemon,
    "subreaper": _subreaper,
}
