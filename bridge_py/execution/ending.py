"""How worker processes end, and the child processes that tools fork from them.

Both exit without finalizing the interpreter. Otherwise threads that are left behind would enter it afterwards: the
process would die of SIGSEGV, or wait for them. A forked child would also run the functions that its parent has
registered for its own end.
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
    """End this process: run the functions of `atexit` and flush output, but wait for no thread. On the main thread."""
    # A SIGTERM from now on ends the process at once. A tool may have left another handler.
    signal.signal(signal.SIGTERM, lambda *_: _exit(code))
    _end_executors()
    atexit._run_exitfuncs()
    _exit(code)


def code_of(error: BaseException) -> int:
    """Return the exit code of a program that ends by an exception, and show the exception as Python does."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def end_forked(parent: int, error: BaseException | None = None) -> None:
    """End this process if it was forked from the worker `parent`, with exit code 0 or the code for `error`.

    A tool that forks returns twice. The child process has the worker's memory, but none of its threads, and no link.
    """
    if os.getpid() != parent:
        leave_child(0 if error is None else error)


def leave_child(code: int | BaseException) -> NoReturn:
    """End a forked child with an exit code, or the code for an exception, without its parent's `atexit` functions."""
    status = 1
    try:
        status = code if isinstance(code, int) else code_of(code)
    finally:
        _exit(status)


@contextlib.contextmanager
def forks_end() -> Iterator[None]:
    """End child processes that are forked in the block when they come to its end."""
    parent = os.getpid()
    try:
        yield
    except BaseException as error:
        end_forked(parent, error)
        raise
    end_forked(parent)


def _end_executors() -> None:
    # Python does this for concurrent.futures before `atexit`. Without it, multiprocessing's `atexit` function would
    # wait for processes that nobody ends. It waits for threads, which may never end, so its time is limited.
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
