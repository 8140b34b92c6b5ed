"""An adapter whose module does at its import what TROUBLE says, and whose tools tell what a forked worker is like."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np

from bridge_py import BaseAdapter, tool

IMPORTED_BY = os.getpid()
TROUBLE, _, WHERE = os.environ.get("TROUBLE", "").partition(" ")
OTHER = os.environ.get("OTHER", "")
os.environ["BY_IMPORT"] = "yes"
signal.signal(signal.SIGHUP, signal.SIG_IGN)
_kept = []

#: A process without the worker's environment, in a session of its own.
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


def _start_daemon(path: str) -> int:
    Path(path).unlink(missing_ok=True)
    subprocess.Popen([sys.executable, "-I", "-S", "-c", DAEMON, path], env={}, start_new_session=True)
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.005)
    return int(Path(path).read_text())


if TROUBLE == "thread":
    threading.Thread(target=time.sleep, args=(600,), daemon=True, name="a poller").start()
elif TROUBLE == "short thread":
    brief = threading.Thread(target=time.sleep, args=(0,))
    brief.start()
    brief.join()
elif TROUBLE == "cuda":
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)  # type: ignore[attr-defined]
    sys.modules["torch"] = torch
elif TROUBLE == "connection":
    _kept.append(socket.create_connection(("127.0.0.1", int(WHERE))))
elif TROUBLE == "error":
    raise RuntimeError("no licence")
elif TROUBLE == "exit":
    print("this module gives up", file=sys.stderr, flush=True)
    os._exit(7)
elif TROUBLE == "hang":
    if WHERE:
        Path(WHERE).write_text(str(os.getpid()))
    time.sleep(600)
elif TROUBLE == "daemon":
    _start_daemon(WHERE)


class TemplateTools(BaseAdapter):
    """Tells about its process."""

    def setup(self) -> None:
        """Note who runs it."""
        self.set_up_by = os.getpid()

    @tool
    def pids(self) -> list[int]:
        """Who imported the module, who made the adapter ready, and who this is."""
        return [IMPORTED_BY, self.set_up_by, os.getpid()]

    @tool
    def numbers(self) -> list[float]:
        """A random number of each kind."""
        return [random.random(), float(np.random.random())]

    @tool
    def state(self) -> dict[str, str]:
        """What a worker is to have for itself."""
        umask = os.umask(0)
        os.umask(umask)
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP)
        return {
            "signals": " ".join(str(int(signal.getsignal(each) == signal.SIG_IGN)) for each in signals),
            "mask": str(set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "group": str(os.getpgid(0) == os.getpid()),
            "cwd": os.getcwd(),
            "umask": oct(umask),
            "cpus": str(sorted(os.sched_getaffinity(0))),
            "threads": str(sorted(thread.name.rstrip("0123456789") for thread in threading.enumerate())),
            "multiprocessing": multiprocessing.current_process().name,
            "stdin": os.readlink("/proc/self/fd/0"),
            "variables": str([name for name in os.environ if name.startswith("SNAKEPIT_")]),
        }

    @tool
    def variable(self, name: str) -> str | None:
        """A variable of the environment, as a program that this process starts has it."""
        found = subprocess.run(["env"], stdout=subprocess.PIPE, text=True, check=True).stdout
        return next((line.partition("=")[2] for line in found.splitlines() if line.startswith(f"{name}=")), None)

    @tool
    def descriptors(self) -> list[str]:
        """The kinds of what this process has open."""
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
            except OSError:
                continue
        return sorted(each for each in found if each in ("pipe", "socket") or "memfd" in each)

    @tool
    def daemon(self, path: str) -> int:
        """Start a process that nothing here is the parent of."""
        return _start_daemon(path)

    @tool
    def daemon_and_sleep(self, path: str) -> None:
        """Start such a process, and be busy for ever."""
        _start_daemon(path)
        time.sleep(600)

    @tool
    def fork(self) -> int:
        """Fork a process, in a session of its own, and do not wait for it."""
        pid = os.fork()
        if not pid:
            os.setsid()
            time.sleep(600)
        return pid

    @tool
    def leave(self, code: int) -> None:
        """End this process."""
        os._exit(code)

    @tool
    def spawned(self) -> int:
        """What a process of multiprocessing returns."""
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(len, ("abc",))
