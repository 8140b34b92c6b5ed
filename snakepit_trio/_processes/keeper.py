"""Keeps one worker process: starts it clean, and ends all that it has started. Run as a script: standard library only.

The keeper is the worker's parent and its subreaper. Whatever a descendant of the worker does (a session or group of its
own, a daemon's double fork, another environment or title), it becomes the keeper's child when its parents have ended.
No other process becomes the keeper's child. So the keeper kills and reaps its children until it has none: this ends all
descendants of the worker, and nothing else.

The host is at the other end of the keeper's socket. The keeper writes one line when the worker has started or cannot
start, and one line when the worker has ended. The end of the keeper says that nothing is left. Each byte that the
keeper reads is the number of a signal for the worker. SIGKILL ends everything; the end of the socket, or of the host,
also ends everything.

A template is kept in the same way, with one difference: it forks keepers, which keep its workers and have sockets of
their own. When the template ends, these keepers become children of the template's keeper, which lets them go on. Only
the end of its socket, or of the host, ends them too. A forked keeper runs the code of this file in the copy of the
template that it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` takes as long to import as the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SET_PARENT_DEATH_SIGNAL = 1
_CLEANERS = 1.0  # seconds for processes that clean up after others
_PASS = 0.01  # seconds between two rounds of killing
_LOOK = 1000  # milliseconds between two looks for what a dead template has left

# The names of processes that a template's keeper lets go on. A forked process has its parent's name until it has its
# own, so the template is named before it forks.
TEMPLATE_NAME = "snakepit-fork"
KEEPER_NAME = "snakepit-keeper"


class Keeper:
    """Keeps one worker until nothing of it is left.

    `host` is the descriptor of the socket, and `host_ended` is one that becomes readable when the host has ended.
    `of_template`: what it keeps is a template.
    """

    def __init__(self, host: int, host_ended: int | None, *, of_template: bool = False) -> None:
        self.worker = 0
        self.has_children = False
        self._host = host
        self._host_ended = host_ended
        self._is_of_template = of_template
        self._child_ended, self._wakeup = _note_ends_of_children()

    def keep(self, become: Callable[[int], NoReturn], descriptors: list[int]) -> None:
        """Start the worker, and return when it and all that it has started have ended.

        `become` is called in a child of this process, and becomes the worker. It gets the writing end of a pipe. It
        closes the pipe, or writes to it why it cannot. `descriptors` are the worker's, which this process lets go of.
        """
        if problem := self._start(become, descriptors):
            self._tell(b"error %s" % problem)
            return
        self._tell(b"pid %d" % self.worker)
        self._wait()
        self._end_all()

    def let_go(self) -> None:
        """Close the keeper's own descriptors, in a forked worker, which executes no program."""
        # Asyncio, if a template has imported it, has unset it in the fork already: that is why the keeper notes it.
        signal.set_wakeup_fd(-1)
        for descriptor in (self._host, self._host_ended, self._child_ended, self._wakeup):
            if descriptor is not None:
                os.close(descriptor)

    def _start(self, become: Callable[[int], NoReturn], descriptors: list[int]) -> bytes:
        failure, told = os.pipe()
        try:
            self.worker = os.fork()
        except OSError as error:
            return describe(error)
        if not self.worker:
            os.close(failure)
            become(told)
        self.has_children = True
        os.close(told)
        _let_go_of(descriptors)
        with os.fdopen(failure, "rb") as file:
            return file.read()

    def _wait(self) -> None:
        """Wait until the worker has ended, or everything shall end. Keepers that a template has left go on first."""
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        if self._host_ended is not None:
            poll.register(self._host_ended, select.POLLIN)
        while self.worker or (self._is_of_template and self.has_children):
            if not self.worker:
                self._kill(_children(), but=is_keeper)
            ready = {descriptor for descriptor, _ in poll.poll(None if self.worker else _LOOK)}
            if self._host_ended in ready or (self._host in ready and not self._obey()):
                return
            if self._child_ended in ready:
                os.read(self._child_ended, 4096)
            self._reap()

    def _obey(self) -> bool:
        """Pass signals on to the worker. Returns False if everything shall end."""
        numbers = os.read(self._host, 4096)
        for number in numbers:
            if number == signal.SIGKILL and not self._is_of_template:
                return False
            self._signal_worker(number)
        return bool(numbers)

    def _signal_worker(self, number: int) -> None:
        # The worker is our child and not reaped yet, so no other process has its pid. It may have left its own group.
        if not self.worker:
            return
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
            if all(self._ends_by_itself(pid) for pid in children):
                patience_ends = min(patience_ends, time.monotonic() + _CLEANERS)
            is_patient = time.monotonic() < patience_ends
            self._kill(children, but=self._ends_by_itself if is_patient else None)
            self._pause()
            self._reap()

    def _ends_by_itself(self, pid: int) -> bool:
        return (not self.worker and _is_cleaner(pid)) or (self._is_of_template and is_keeper(pid))

    def _kill(self, children: set[int], *, but: Callable[[int], bool] | None) -> None:
        for pid in children:
            if but is None or not but(pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

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
        die_with_keeper()
        _reset_signals()
        settle(options)
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - the command is the caller's own
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        os.write(told, describe(error))
    finally:
        os._exit(127)


def die_with_keeper() -> None:
    """Have this process die with its parent, the keeper, and lead a process group of its own."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    os.setpgid(0, 0)


def settle(options: dict[str, Any]) -> None:
    """Give this process its umask, its CPUs and its working directory. Raises `OSError`."""
    if options["umask"] is not None:
        os.umask(options["umask"])
    _bind(options["cpus"])
    _enter(options["folder"], options["folder_descriptor"])


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


def describe(error: BaseException) -> bytes:
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


def _note_ends_of_children() -> tuple[int, int]:
    """A descriptor that becomes readable when a child has ended, and the one that Python's signal handler writes to."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading, writing


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


def is_keeper(pid: int) -> bool:
    """Whether a process is a keeper that a template has forked, or is about to become one."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode("ascii", "replace").strip() in (TEMPLATE_NAME, KEEPER_NAME)
    except OSError:
        return False


def _pidfd_of(host: int) -> int | None:
    try:
        return os.pidfd_open(host)
    except OSError:
        return None  # it is gone already, or the kernel is too old: the socket will tell


def _prctl(*numbers: int) -> None:
    ctypes.CDLL(None).prctl(*[ctypes.c_ulong(int(number)) for number in (*numbers, 0, 0, 0, 0)[:5]])


def become_keeper(host: int) -> None:
    """Make this process a keeper: the subreaper of all that it starts, and deaf to signals. `host` is its socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(host, False)
    _prctl(_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Name this process, in 15 bytes at the most: `ps` and `top` show the name, and forked children inherit it."""
    with open("/proc/self/comm", "wb") as file:
        file.write(name.encode("ascii", "replace")[:15])


def _main(host: int, host_pid: int, options: dict[str, Any], command: list[str]) -> None:
    if options["is_behind"]:
        host_pid = _step_behind(host_pid)
    become_keeper(host)
    if options["folder_descriptor"] is not None:
        os.set_inheritable(options["folder_descriptor"], False)
    host_ended = _pidfd_of(host_pid)
    if os.getppid() != host_pid:
        return  # the host had ended before we looked
    keeper = Keeper(host, host_ended, of_template=options["of_template"])
    keeper.keep(functools.partial(_become, command, options), options["descriptors"])


def _step_behind(host_pid: int) -> int:
    """Go on in a child of this process, and return the pid of this process, whose end is the host's from then on.

    Ray kills the children of its own processes when it ends these. A keeper that is killed ends its worker, but not
    what the worker has started. So Ray may kill this process, and its child notices.
    """
    if os.getppid() != host_pid:
        os._exit(0)
    here = os.getpid()
    if child := os.fork():
        os.closerange(0, 1 << 20)
        os.waitpid(child, 0)
        os._exit(0)
    return here


def _options(descriptors: str, folder: str, folder_descriptor: str, umask: str, cpus: str, kind: str) -> dict[str, Any]:
    """Read the options; an empty number is none. `json` would take a sixth of the keeper's start to import."""
    return {
        "descriptors": [int(number) for number in descriptors.split()],
        "folder": folder,
        "folder_descriptor": int(folder_descriptor) if folder_descriptor else None,
        "umask": int(umask) if umask else None,
        "cpus": {int(number) for number in cpus.split()},
        "of_template": kind == "template",
        "is_behind": kind == "behind",
    }


if __name__ == "__main__":
    try:
        _main(int(sys.argv[1]), int(sys.argv[2]), _options(*sys.argv[3:9]), sys.argv[9:])
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(0)  # finalizing the interpreter would take as long as everything else
