"""An adapter whose workers end with something left."""

from __future__ import annotations

import atexit
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from bridge_py import BaseAdapter, tool


def _log(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text} ")


class EndingTools(BaseAdapter):
    """What is left, by its name. `close` does what it is told to."""

    def __init__(self, log: str = "", close: str = "") -> None:
        self._log = log
        self._close = close

    def setup(self) -> None:
        """Have something to be done at the end."""
        if self._log:
            atexit.register(_log, self._log, "atexit")

    def close(self) -> None:
        """End in the way that the class names."""
        if self._log:
            _log(self._log, "close")
        if self._close == "raises":
            raise ValueError("raised in close")
        if self._close == "exits":
            sys.exit(3)
        if self._close == "forks" and os.fork() != 0:
            os.wait()

    @tool
    def nothing(self) -> str:
        """Leave nothing."""
        return "left"

    @tool
    def thread(self) -> str:
        """Leave a thread that Python would wait for."""
        threading.Thread(target=time.sleep, args=(600,)).start()
        return "left"

    @tool
    def executors(self) -> str:
        """Leave a thread and a process of executors."""
        self._threads = concurrent.futures.ThreadPoolExecutor(1)
        self._threads.submit(time.sleep, 0)
        fork = multiprocessing.get_context("fork")
        self._processes = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)
        assert self._processes.submit(os.getpid).result() != os.getpid()
        return "left"

    @tool
    def busy_executor(self) -> str:
        """Leave an executor's thread that does not end."""
        self._threads = concurrent.futures.ThreadPoolExecutor(1)
        self._threads.submit(time.sleep, 600)
        return "left"

    @tool
    def folder(self) -> str:
        """Leave a temporary folder."""
        self._folder = tempfile.TemporaryDirectory()
        return self._folder.name

    @tool
    def unwritten(self) -> str:
        """Leave an unfinished line."""
        print("an unfinished line", end="")
        return "left"

    @tool
    def slow_atexit(self) -> str:
        """Leave something that takes long, and ignore who does not want to wait."""
        atexit.register(time.sleep, 600)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return "left"
