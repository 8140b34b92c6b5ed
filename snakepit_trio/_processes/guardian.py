"""Ends the processes that a dead host has left. A process of its own, started as a script: standard library only.

Its stdin is a socket, and only the host has the other end. Through it the guardian learns of the host's workers and
their keepers. When the host ends without a goodbye, in whatever way, the keepers end their workers. At the latest a
second later, the guardian kills the processes that are left, removes the run's files, and ends too.
"""

from __future__ import annotations

import contextlib
import glob
import os
import select
import shutil
import signal
import sys
import time

# In the environment of workers, and so of all that they start.
RUN_VARIABLE = "SNAKEPIT_RUN_ID"
WORKER_VARIABLE = "SNAKEPIT_WORKER_KEY"
_PASS = 0.01  # seconds between two looks for processes
_LONGEST = 10.0
_KEEPERS = 1.0


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, or None if there is none: proc(5), stat, field 22."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def pids_of(variable: str, value: str) -> set[int]:
    """The living processes that have a variable with this value.

    Processes of other users cannot be seen. The first process of the machine or container does not count: all others
    descend from it.
    """
    mark = f"{variable}={value}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0") and start_ticks(int(name)) is not None:
                    found.add(int(name))
    return found


def kill(pids: set[int]) -> None:
    """Kill processes. Processes that are gone by now are passed over.

    Nothing is killed if the pids in /proc are another namespace's, and so another process's here.
    """
    if not _proc_is_ours():
        return
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _proc_is_ours() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def parents() -> dict[int, int]:
    """The parents of all living processes that can be seen, by pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def with_descendants(pids: set[int]) -> set[int]:
    """The processes, and all their descendants."""
    if not pids:
        return set()
    found, parent_of = set(pids), parents()
    while more := {pid for pid, parent in parent_of.items() if parent in found} - found:
        found |= more
    return found


def alive(recorded: dict[int, int | None]) -> set[int]:
    """The pids of recorded processes that live. A pid alone proves nothing: by now another process may have it.

    Pid 1 and what is no pid (0, and negative numbers, which stand for groups and for everything) never count.
    """
    return {pid for pid, ticks in recorded.items() if pid > 1 and ticks is not None and start_ticks(pid) == ticks}


def kill_run(run_id: str, recorded: dict[int, int | None]) -> int:
    """Kill all processes of a run, and return how many. Takes ten seconds at the most.

    A process belongs to the run if its environment says so, if it is `recorded` (pids, each with its `start_ticks`), or
    if it descends from either. Nothing else is proof: a process group whose leader is gone may be anybody's.
    """
    killed: set[int] = set()
    quiet = 0
    deadline = time.monotonic() + _LONGEST
    while quiet < 2 and time.monotonic() < deadline:
        left = with_descendants(pids_of(RUN_VARIABLE, run_id) | alive(recorded)) - {os.getpid()}
        left = {pid for pid in left if start_ticks(pid) is not None}
        kill(left)
        killed |= left
        quiet = 0 if left else quiet + 1
        time.sleep(_PASS)
    return len(killed)


def remove_files(folder: str, run_id: str) -> None:
    """Remove what a run has on disk and in shared memory."""
    # First the file that makes the folder a run. What cannot be removed then, a later sweep removes as unfinished. If
    # that file itself stays, so does all: a folder that is half a run would be neither.
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/host.json")
        shutil.rmtree(folder, ignore_errors=True)
    for path in glob.glob(f"/dev/shm/snakepit-{glob.escape(run_id)}-*"):  # noqa: S108 - the run's own
        with contextlib.suppress(OSError):
            os.unlink(path)


def _main(run_id: str, folder: str, host: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    workers: dict[int, int | None] = {}
    if _watch(host, workers):
        _let_keepers_work(workers)
        kill_run(run_id, workers)
        remove_files(folder, run_id)


def _let_keepers_work(recorded: dict[int, int | None]) -> None:
    # Keepers know for certain which processes belong to their workers. If they were killed first, that would be lost.
    deadline = time.monotonic() + _KEEPERS
    while alive(recorded) and time.monotonic() < deadline:
        time.sleep(_PASS)


def _watch(host: int, workers: dict[int, int | None]) -> bool:
    """Wait for the host's end. Returns True if it said no goodbye."""
    poll = select.poll()
    pidfd = _pidfd_of(host)
    poll.register(0, select.POLLIN)
    if pidfd is not None:
        poll.register(pidfd, select.POLLIN)
    rest = b""
    while True:
        ready = {fd for fd, _ in poll.poll()}
        data = os.read(0, 65536) if 0 in ready else b""
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line == b"bye":
                return False
            _note(line.decode(), workers)
        if pidfd in ready and not data:
            return True
        if 0 in ready and not data:
            if pidfd is None:
                return True
            poll.unregister(0)  # the host lives: it has closed all its files, as daemons do


def _note(line: str, workers: dict[int, int | None]) -> None:
    sign, pid = line.split()
    if sign == "+":
        workers[int(pid)] = start_ticks(int(pid))
    else:
        workers.pop(int(pid), None)


def _pidfd_of(host: int) -> int | None:
    try:
        pidfd = os.pidfd_open(host)
    except OSError:
        return None  # it is gone already, or the kernel is too old: the socket will tell
    return pidfd if os.getppid() == host else None


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
