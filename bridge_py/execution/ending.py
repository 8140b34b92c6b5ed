"""How worker processes end, and the children that tools fork from them.

Both leave without finalizing the interpreter. Threads that are left behind would enter it afterwards: the process would
die of SIGSEGV, or wait for them. In a forked child it would besides run what the parent has registered for its own end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Final, NoReturn

_EXECUTORS: Final = 1.0  # seconds for executors to end their threads and processes


def leave(code: int) -> NoReturn:
    """End this process: what `atexit` has, and what is buffered, but no thread is waited for. On the main thread."""
    # Whoever sends SIGTERM wants no more of it. A tool may have left another handler.
    signal.signal(signal.SIGTERM, lambda *_: _exit(code))
    _end_executors()
    atexit._run_exitfuncs()
    _exit(code)


def code_of(error: BaseException) -> int:
    """The exit code of a program that ends by an exception, which is shown as Python does."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def end_forked(parent: int, error: BaseException | None = None) -> None:
    """End this process if it was forked from the worker `parent`, as a program ends that has come to its end.

    A tool that forks returns twice. Its child has the worker's memory, but none of its threads, and no link.
    """
    if os.getpid() != parent:
        leave_child(0 if error is None else error)


def leave_child(code: int | BaseException) -> NoReturn:
    """End a forked child with an exit code, or with that of an exception. What its parent has for `atexit` stays."""
    status = 1
    try:
        status = code if isinstance(code, int) else code_of(code)
    finally:
        _exit(status)


@contextlib.contextmanager
def forks_end() -> Iterator[None]:
    """Children that are forked in the block end with it."""
    parent = os.getpid()
    try:
        yield
    except BaseException as error:
        end_forked(parent, error)
        raise
    end_forked(parent)


def _end_executors() -> None:
    # What Python does for concurrent.futures before `atexit`: without it, multiprocessing's function there waits for
    # processes that nobody ends. It waits for threads, which may never end.
    functions = getattr(threading, "_threading_atexits", [])
    thread = threading.Thread(target=_call_all, args=(list(reversed(functions)),), daemon=True)
    if functions:
        thread.start()
        thread.join(_EXECUTORS)


def _call_all(functions: list[object]) -> None:
    for function in functions:
        if callable(function):
            function()


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
