"""Keeps one worker process: starts it clean, and ends all that it has started. Run as a script: standard library only.

The keeper is the worker's parent and its subreaper. Whatever a descendant of the worker does (a session or group of its
own, a daemon's double fork, another environment or title), it becomes the keeper's child when its parents have ended.
No other process becomes the keeper's child. So the keeper kills and reaps its children until it has none: this ends all
descendants of the worker, and nothing else.

The host is at the other end of the keeper's socket. The keeper writes one line when the worker has started or cannot
start, and one line when the worker has ended. The end of the keeper says that nothing is left. Each byte that the
keeper reads is the number of a signal for the worker. SIGKILL ends everything; the end of the socket, or of the host,
also ends everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` takes as long to import as the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SET_PARENT_DEATH_SIGNAL = 1
_CLEANERS = 1.0  # seconds for processes that clean up after others
_PASS = 0.01  # seconds between two rounds of killing


class Keeper:
    """Keeps one worker until nothing of it is left."""

    def __init__(self, host: int, host_pid: int) -> None:
        self.worker = 0
        self.has_children = False
        self._host = host  # the socket's descriptor
        self._host_pid = host_pid
        self._child_ended = _note_ends_of_children()

    def keep(self, command: list[str], options: dict[str, Any]) -> None:
        """Start the worker, and return when it and all that it has started have ended."""
        if problem := self._start(command, options):
            self._tell(b"error %s" % problem)
            return
        self._tell(b"pid %d" % self.worker)
        self._wait()
        self._end_all()

    def _start(self, command: list[str], options: dict[str, Any]) -> bytes:
        failure, told = os.pipe()
        try:
            self.worker = os.fork()
        except OSError as error:
            return _describe(error)
        if not self.worker:
            _become(command, options, told)
        self.has_children = True
        os.close(told)
        _let_go_of(options["descriptors"])
        with os.fdopen(failure, "rb") as file:
            return file.read()

    def _wait(self) -> None:
        """Wait until the worker has ended, or everything shall end."""
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        host_ended = _pidfd_of(self._host_pid)
        if host_ended is not None:
            poll.register(host_ended, select.POLLIN)
        if os.getppid() != self._host_pid:
            return  # the host had ended before we looked
        while self.worker:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if host_ended in ready or (self._host in ready and not self._obey()):
                return
            if self._child_ended in ready:
                os.read(self._child_ended, 4096)
                self._reap()

    def _obey(self) -> bool:
        """Pass signals on to the worker. Returns False if everything shall end."""
        numbers = os.read(self._host, 4096)
        for number in numbers:
            if number == signal.SIGKILL:
                return False
            self._signal_worker(number)
        return bool(numbers)

    def _signal_worker(self, number: int) -> None:
        # The worker is our child and not reaped yet, so no other process has its pid. It may have left its own group.
        with contextlib.suppress(OSError):
            if os.getpgid(self.worker) != self.worker:
                os.kill(self.worker, number)
        with contextlib.suppress(OSError):
            os.killpg(self.worker, number)

    def _reap(self) -> None:
        """Reap the children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.has_children = False
                return
            if not pid:
                return
            if pid == self.worker:
                self.worker = 0
                self._tell(b"exit %d" % status)

    def _end_all(self) -> None:
        """Kill and reap children until there are none. The children of a killed process become ours."""
        patience_ends = math.inf
        self._reap()
        while self.has_children:
            children = _children()
            cleaners = set() if self.worker else {pid for pid in children if _is_cleaner(pid)}
            if cleaners == children:
                patience_ends = min(patience_ends, time.monotonic() + _CLEANERS)
            if time.monotonic() < patience_ends:
                children -= cleaners
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self._pause()
            self._reap()

    def _pause(self) -> None:
        select.select([self._child_ended], [], [], _PASS)
        with contextlib.suppress(BlockingIOError):
            os.read(self._child_ended, 4096)

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._host, line + b"\n")


def _become(command: list[str], options: dict[str, Any], told: int) -> NoReturn:
    """Become the worker. The forked child has one thread, so all of this may be done before the exec."""
    try:
        _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.setpgid(0, 0)
        _reset_signals()
        if options["umask"] is not None:
            os.umask(options["umask"])
        _bind(options["cpus"])
        _enter(options["folder"], options["folder_descriptor"])
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - the command is the caller's own
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        os.write(told, _describe(error))
    finally:
        os._exit(127)


def _reset_signals() -> None:
    # The signals that the host ignores or blocks are inherited, even across an exec.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _bind(cpus: set[int]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        shown = ", ".join(map(str, sorted(cpus)))
        raise OSError(error.errno, f"it cannot be bound to CPU {shown}: {error.strerror}") from None


def _enter(folder: str, descriptor: int | None) -> None:
    # The path comes first: by now it may name a new folder, and the folder that it named may have been deleted.
    try:
        os.chdir(folder)
    except OSError:
        if descriptor is None:
            raise
        os.fchdir(descriptor)


def _describe(error: BaseException) -> bytes:
    if isinstance(error, OSError) and error.strerror:
        name = f": {os.fsdecode(error.filename)!r}" if error.filename else ""
        text = f"[Errno {error.errno}] {error.strerror}{name}"
    else:
        text = f"{type(error).__name__}: {error}"
    return text.encode("utf-8", "surrogateescape")


def _let_go_of(descriptors: list[int]) -> None:
    # Whether these pipes and sockets are open must depend on the worker only. So the keeper closes its copies.
    for descriptor in descriptors:
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _note_ends_of_children() -> int:
    """A descriptor that becomes readable when a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def _children() -> set[int]:
    """The children of this process, which has one thread: proc_pid_task(5)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {int(name) for name in os.listdir("/proc") if name.isdigit() and _parent_of(name) == os.getpid()}
    except OSError:
        return set()  # no resources now: we look again


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _is_cleaner(pid: int) -> bool:
    """Whether a process is a resource tracker of multiprocessing or loky, or the guardian of a pool in the worker."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
        return b"resource_tracker" in command or b"snakepit_trio/_processes/guardian.py" in command
    except OSError:
        return False


def _pidfd_of(host: int) -> int | None:
    try:
        return os.pidfd_open(host)
    except OSError:
        return None  # it is gone already, or the kernel is too old: the socket will tell


def _prctl(*numbers: int) -> None:
    ctypes.CDLL(None).prctl(*[ctypes.c_ulong(int(number)) for number in (*numbers, 0, 0, 0, 0)[:5]])


def _main(host: int, host_pid: int, options: dict[str, Any], command: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (host, options["folder_descriptor"]):
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
    _prctl(_SET_CHILD_SUBREAPER, 1)
    Keeper(host, host_pid).keep(command, options)


def _options(descriptors: str, folder: str, folder_descriptor: str, umask: str, cpus: str) -> dict[str, Any]:
    """Read the options; an empty number is none. `json` would take a sixth of the keeper's start to import."""
    return {
        "descriptors": [int(number) for number in descriptors.split()],
        "folder": folder,
        "folder_descriptor": int(folder_descriptor) if folder_descriptor else None,
        "umask": int(umask) if umask else None,
        "cpus": {int(number) for number in cpus.split()},
    }


if __name__ == "__main__":
    try:
        _main(int(sys.argv[1]), int(sys.argv[2]), _options(*sys.argv[3:8]), sys.argv[8:])
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(0)  # finalizing the interpreter would take as long as everything else
