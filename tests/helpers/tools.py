"""The tools that the tests call: they work, wait, misbehave and die."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool


class CustomError(Exception):
    """What `fail` raises."""


LOGGER = logging.Logger("quiet")  # noqa: LOG001 - not for the host
LOCK = threading.Lock()
LOGGER.addHandler(logging.StreamHandler(io.StringIO()))


class Tools(BaseAdapter):
    """All of them."""

    @tool
    def add(self, a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    @tool
    async def add_async(self, a: int, b: int = 1) -> int:
        """Add, in a coroutine."""
        await asyncio.sleep(0)
        return a + b

    @tool
    def pid(self) -> int:
        """The worker's pid."""
        return os.getpid()

    @tool
    def fail(self, text: str) -> None:
        """Raise."""
        raise CustomError(text)

    @tool
    def fail_with_surrogate(self) -> None:
        """Raise with a text that is no valid Unicode."""
        raise CustomError("half a pair: \ud800")

    @tool
    def exit(self, code: int) -> None:
        """End the process at once."""
        print("about to exit", file=sys.stderr, flush=True)
        os._exit(code)

    @tool
    def segfault(self) -> None:
        """Die by a signal."""
        signal.raise_signal(signal.SIGSEGV)  # in this thread: one to the process may come after it has gone on

    @tool
    def sleep(self, seconds: float, path: str = "") -> str:
        """Sleep in one system call; writes to `path` before and after."""
        _mark(path, "begin")
        try:
            time.sleep(seconds)
        finally:
            _mark(path, "end")
        return "slept"

    @tool
    async def sleep_async(self, seconds: float, path: str = "") -> str:
        """Sleep in a coroutine; writes to `path` before and after."""
        _mark(path, "begin")
        try:
            await asyncio.sleep(seconds)
        finally:
            _mark(path, "end")
        return "slept"

    @tool
    def spin(self, path: str) -> None:
        """Loop in Python, adding to `path` all the time."""
        while True:
            _mark(path, "tick")

    @tool
    def keep_the_interpreter(self, path: str) -> None:
        """Loop in Python, and let no other thread run meanwhile, not even the one that hears the host."""
        _mark(path, "tick")
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        try:
            while True:
                pass
        finally:
            sys.setswitchinterval(interval)

    @tool
    def stubborn(self, path: str, context: SessionContext) -> None:
        """Loop in Python and swallow every interrupt."""
        while True:
            try:
                _mark(path, "cancelled" if context.cancelled else "tick")
                time.sleep(0.01)
            except BaseException:
                continue

    @tool
    def log_all_the_time(self) -> None:
        """Log, through a handler that all calls of the worker share."""
        while True:
            LOGGER.info("a record")

    @tool
    def take_locks_all_the_time(self) -> None:
        """Take a lock that all calls of the worker share, again and again."""
        while True:
            with LOCK:
                pass

    @tool
    def lock_is_free(self) -> bool:
        """Whether nobody has the lock."""
        return not LOCK.locked()

    @tool
    def lock_of_logging_is_free(self) -> bool:
        """Whether another thread could log."""
        with ThreadPoolExecutor(1) as other:
            lock = LOGGER.handlers[0].lock
            assert lock is not None
            return other.submit(lock.acquire, timeout=0.5).result()

    @tool
    def import_slowly(self, folder: str) -> int:
        """Import the module `slow` from a folder."""
        sys.path[:0] = [folder] if folder not in sys.path else []
        value: int = importlib.import_module("slow").VALUE
        return value

    @tool
    def spawn_and_wait(self) -> None:
        """Start a process that outlives us if nobody ends it, print its pid, and swallow interrupts."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, file=sys.stderr, flush=True)
        while True:
            try:
                child.wait()
            except BaseException:
                continue

    @tool
    def leave_behind(self) -> int:
        """Start a process in a session of its own, and return its pid."""
        code = "import time; time.sleep(600)"
        return subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid

    @tool
    def count(self, n: int, path: str = "") -> Iterator[int]:
        """Yield the numbers below `n`; writes how far it came."""
        number = -1
        try:
            for number in range(n):
                yield number
        finally:
            _mark(path, f"stopped at {number}")

    @tool
    async def count_async(self, n: int, path: str = "") -> AsyncIterator[int]:
        """Yield the numbers below `n` from an async generator."""
        number = -1
        try:
            for number in range(n):
                yield number
        finally:
            _mark(path, f"stopped at {number}")

    @tool
    def blobs(self, n: int, size: int, path: str = "") -> Iterator[bytes]:
        """Yield as many bytes, `n` times; writes how often it did."""
        number = 0
        try:
            while number < n:
                yield bytes(size)
                number += 1
        finally:
            _mark(path, f"stopped at {number}")

    @tool
    async def blobs_async(self, n: int, size: int, path: str = "") -> AsyncIterator[bytes]:
        """Yield as many bytes, `n` times, from an async generator."""
        number = 0
        try:
            while number < n:
                yield bytes(size)
                number += 1
        finally:
            _mark(path, f"stopped at {number}")

    @tool
    def sleep_and_count(self, seconds: float) -> Iterator[int]:
        """Sleep, then yield."""
        time.sleep(seconds)
        yield 0

    @tool
    def count_then_fail(self, n: int) -> Iterator[int]:
        """Yield, then raise."""
        yield from range(n)
        raise CustomError("enough")

    @tool
    def print_lines(self, n: int) -> int:
        """Flood stdout and stderr."""
        for number in range(n):
            print(f"out {number} " + "x" * 100)
            print(f"err {number} " + "x" * 100, file=sys.stderr)
        return n

    @tool
    def make_text(self, size: int) -> str:
        """A result of a size, in characters."""
        return "x" * size

    @tool
    def make_bytes(self, size: int) -> bytes:
        """A result of a size."""
        return bytes(size)

    @tool
    def unsendable(self) -> object:
        """A result that cannot be sent."""
        return object()

    @tool
    def about(self, context: SessionContext) -> dict[str, Any]:
        """What the context says."""
        return {
            "call_id": context.call_id,
            "session": context.session_id,
            "left": context.time_left(),
            "cancelled": context.cancelled,
        }

    @tool
    def environment(self, name: str) -> list[str | None]:
        """A variable and the working directory."""
        return [os.environ.get(name), os.getcwd()]

    @tool
    def hold_the_gil(self, seconds: float, path: str = "") -> None:
        """Sleep in C without giving the interpreter free."""
        _mark(path, "begin")
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    @tool
    def hold_the_gil_with_children(self, path: str) -> None:
        """Start two processes, one of them in a session of its own, write their pids, and hold the GIL."""
        code = "import time; time.sleep(600)"
        children = [subprocess.Popen([sys.executable, "-c", code], start_new_session=new) for new in (False, True)]
        _mark(path, f"{children[0].pid} {children[1].pid}")
        ctypes.PyDLL(None).usleep(600_000_000)

    @tool
    def run_in_some_way(self, how: str, path: str) -> None:
        """Run on and on, adding to `path`: in Python, in a system call, in C, or in another process."""
        _mark(path, "begin")
        if how == "loop":
            while True:
                _mark(path, "tick")
        elif how == "sleep":
            time.sleep(600)
        elif how == "C":
            ctypes.CDLL(None).usleep(600_000_000)  # others of the worker's threads run meanwhile
        else:
            code = f"import time\nwhile True: open({path!r}, 'a').write('tick\\n'); time.sleep(0.01)"
            subprocess.run([sys.executable, "-c", code], check=True)
        _mark(path, "end")

    @tool
    def ignore_signals(self, seconds: float, path: str) -> None:
        """Sleep, whatever comes."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _mark(path, "begin")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                time.sleep(0.01)
            except BaseException:
                continue

    @tool
    def grow(self, mebibytes: int) -> None:
        """Keep memory."""
        time.sleep(0.1)
        self.hoard = bytearray(os.urandom(1) * (mebibytes * 2**20))

    @tool(idempotent=True)
    def die_twice(self, path: str, times: int = 2) -> int:
        """Kill the worker, but not the third time."""
        runs = Path(path).read_text().count("run") if Path(path).exists() else 0
        _mark(path, "run")
        if runs < times:
            os.kill(os.getpid(), signal.SIGKILL)
        return runs + 1

    @tool
    def die_and_tell(self, path: str) -> None:
        """Kill the worker."""
        _mark(path, "die")
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def exit_if(self, really: bool) -> None:
        """End the process, or not."""
        if really:
            os._exit(1)

    @tool(cancel="cooperative")
    def polite(self, path: str, context: SessionContext) -> str:
        """Loop until told, and note every exception that is raised inside."""
        _mark(path, "begin")
        try:
            while not context.cancelled:
                time.sleep(0.005)
        except BaseException as error:
            _mark(path, repr(error))
            raise
        _mark(path, "returned")
        return "done"

    @tool(cancel="cooperative")
    def deaf(self, path: str) -> None:
        """Loop, and never look whether it is cancelled."""
        while True:
            _mark(path, "tick")

    @tool(cancel="cooperative")
    def count_politely(self, n: int, path: str = "") -> Iterator[int]:
        """Yield the numbers below `n`; writes what ended it."""
        try:
            yield from range(n)
        except BaseException as error:
            _mark(path, type(error).__name__)
            raise

    @tool(cancel="kill")
    def hold_gil(self, path: str) -> None:
        """Sit in C code that lets no Python thread run."""
        _mark(path, "begin")
        ctypes.PyDLL(None).sleep(60)

    @tool(cancel="kill")
    async def sleep_to_death(self, path: str) -> None:
        """Sleep in a coroutine."""
        _mark(path, "begin")
        await asyncio.sleep(60)

    @tool(cancel="kill", idempotent=True)
    def count_to_death(self, n: int) -> Iterator[int]:
        """Yield the numbers below `n`."""
        yield from range(n)

    @tool
    def limits(self) -> dict[str, Any]:
        """The soft and hard limits and the niceness."""
        kinds = {"address_space": resource.RLIMIT_AS, "cpu": resource.RLIMIT_CPU, "files": resource.RLIMIT_NOFILE}
        found: dict[str, Any] = {name: resource.getrlimit(kind) for name, kind in kinds.items()}
        return {**found, "nice": os.getpriority(os.PRIO_PROCESS, 0)}

    @tool
    def variables(self) -> dict[str, str]:
        """The environment."""
        return dict(os.environ)

    @tool
    def die_by(self, number: int) -> None:
        """Send a signal to the own process."""
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)

    @tool
    def print_and_wait(self) -> None:
        """Say so, and wait."""
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(60)

    @tool
    def burn(self) -> None:
        """Use CPU time and nothing else."""
        while True:
            pass

    @tool
    def open_files(self, n: int) -> None:
        """Have so many files open at a time."""
        with contextlib.ExitStack() as files:
            for _ in range(n):
                files.enter_context(Path(os.devnull).open())

    @tool
    def devour(self, path: str) -> None:
        """Take memory until there is none."""
        held = []
        while True:
            held.append(b"x" * 2**24)
            _mark(path, f"{len(held) * 16} MiB")

    @tool
    def fill(self, mebibytes: int) -> None:
        """Take so much memory, a mebibyte after another, and wait."""
        held = []
        for _ in range(mebibytes):
            held.append(b"x" * 2**20)
            time.sleep(0.001)
        time.sleep(60)


class StartsOnce(BaseAdapter):
    """Starts once, and then only after the file that it makes is gone."""

    def setup(self) -> None:
        """Make the file, or end."""
        try:
            Path(os.environ["FLAG"]).touch(exist_ok=False)
        except FileExistsError:
            os._exit(3)

    @tool
    def ready(self) -> bool:
        """Whether it runs."""
        return True


class DiesAtStart(BaseAdapter):
    """Ends by a signal."""

    def setup(self) -> None:
        """End."""
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)


class InGroup(Tools):
    """Moves itself into the control group that the environment names."""

    def setup(self) -> None:
        """Move."""
        Path(os.environ["TEST_GROUP"], "cgroup.procs").write_text(str(os.getpid()))


def _mark(path: str, text: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(f"{text}\n")
