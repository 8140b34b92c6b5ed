"""Notes what a fork does not copy, or must not share, and which module has brought it about by its import.

A fork has one thread. Locks that other threads hold stay locked in it for ever, and their work is not done. CUDA works
in the process alone that has initialised it. A connection that several processes use mixes up their messages.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, Final, Self

_TASKS: Final = "/proc/self/task"
_DESCRIPTORS: Final = "/proc/self/fd"
_DEVICES: Final = ("/dev/nvidia-uvm", "/dev/kfd")  # what CUDA and ROCm open when they are initialised
_STREAMS: Final = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_ENDS: Final = 0.5  # seconds for threads to end that have been joined
_PASS: Final = 0.01
#: Threads of libraries that prepare their locks for a fork themselves: jemalloc, which comes with pyarrow.
_PREPARED: Final = ("jemalloc_bg_thd",)
_REMEDY: Final = "do that in the adapter's setup(), or leave out template="
_OS: Final = frozenset({"os", "_collections_abc", "collections.abc", __name__})


class ImportWatch:
    """Watches over the imports of a block, and then tells whether the process may be forked."""

    def __init__(self) -> None:
        #: Which module has read an environment variable.
        self.read: dict[str, str] = {}
        self._tasks: dict[str, str] = {}  # the module that was imported when one appeared
        self._open: dict[str, str] = {}  # sockets and devices, by what the kernel calls them
        self._cuda = ""
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._look("")
        self._wrap(importlib.machinery.SourceFileLoader, "exec_module", self._executing)
        self._wrap(type(os.environ), "__getitem__", self._reading)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        self._look("")

    def _wrap(self, owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
        is_own, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, wrap(before))
        self._undo.callback(setattr, owner, name, before) if is_own else self._undo.callback(delattr, owner, name)

    def _executing(self, execute: Any) -> Any:
        def exec_module(loader: Any, module: Any) -> None:
            try:
                execute(loader, module)
            finally:
                self._look(module.__name__)  # the innermost module is the first to end

        return exec_module

    def _reading(self, read: Any) -> Any:
        def getitem(environ: Any, name: Any) -> Any:
            if name not in self.read:
                self.read[name] = next(_modules_here(), "")
            return read(environ, name)

        return getitem

    def _look(self, module: str) -> None:
        self._tasks = {task: self._tasks.get(task, module) for task in os.listdir(_TASKS)}
        self._open = {each: self._open.get(each, module) for each in _open_here()}
        if not self._cuda and _has_cuda(self._open.keys()):
            self._cuda = module or "a module"

    def verdict(self) -> str:
        """Why this process must not be forked, in one line; empty if it may be.

        This forks once, because some libraries (OpenBLAS) end their threads before a fork and start them again when
        they need them. Only threads that are left after that are a danger.
        """
        if self._cuda:
            return f"{self._cuda} has initialised the GPU when it was imported, and no fork can use it then: {_REMEDY}"
        _fork_once()
        for task in _others():
            who = self._tasks.get(task) or "a module"
            return f"{who} has started {_name_of(task)} when it was imported, and forks have no such thread: {_REMEDY}"
        for target, descriptor in _open_here().items():
            if peer := _peer_of(descriptor):
                who = self._open.get(target) or "a module"
                return f"{who} has connected to {peer} when it was imported, and forks would share that: {_REMEDY}"
        return ""


def _modules_here() -> Iterator[str]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name not in _OS:
            yield name
        frame = frame.f_back


def _has_cuda(targets: Iterable[str]) -> bool:
    torch = sys.modules.get("torch")
    is_initialized = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    if is_initialized is not None and is_initialized():
        return True
    return any(device in targets for device in _DEVICES)


def _open_here() -> dict[str, int]:
    """The sockets and devices that this process has open, each with a descriptor of it."""
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):
            target = os.readlink(f"{_DESCRIPTORS}/{name}")
            if target.startswith(("socket:", "/dev/")):
                found[target] = int(name)
    return found


def _fork_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, of the very threads that are looked for here
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _others() -> list[str]:
    """The threads of this process except the main one, when those that are ending have ended."""
    deadline = time.monotonic() + _ENDS
    while (found := _unprepared()) and time.monotonic() < deadline:
        time.sleep(_PASS)
    return found


def _unprepared() -> list[str]:
    tasks = sorted(set(os.listdir(_TASKS)) - {str(os.getpid())}, key=int)
    return [task for task in tasks if _comm(task) not in _PREPARED]


def _comm(task: str) -> str:
    with contextlib.suppress(OSError), open(f"{_TASKS}/{task}/comm", errors="replace") as file:
        return file.read().strip()
    return "?"


def _name_of(task: str) -> str:
    for thread in threading.enumerate():
        if str(thread.native_id) == task:
            return f"thread {thread.name!r}"
    return f"a thread of native code ({_comm(task)})"


def _peer_of(descriptor: int) -> str:
    """The address at the other end of a connection to another machine or program; empty if it is no such thing."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family in _INTERNET and connection.type in _STREAMS:
            host, port, *_ = connection.getpeername()
            return f"{host}:{port}"
    return ""
