"""One fault in the host at each step of opening, serving and closing a pool of real processes, and what must hold then.

A step is a thing that the host asks the system for (a file, a descriptor, a process, a thread, memory) at one place of
the code. `find_steps` walks through once and lists them; a `Trial` walks again and makes one of them fail. The audit
hooks of Python see most of them, and can make them fail by raising; a few functions without one are wrapped.
"""

from __future__ import annotations

import errno
import gc
import itertools
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final
from unittest import mock

import attrs
import psutil
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import registry
from snakepit_trio.testing.leaks import LeakCheck
from snakepit_trio.testing.replay import Hanging, translated, watch

TOOLS: Final = "benchmarks.chaos_tools:Tools"
BOUND: Final = 20.0  # seconds that each part may take: opening, a call, healing, leaving
PHASES: Final = ("opening", "serving", "closing")

_TIMES: Final = 3
_LASTING: Final = 0.5  # seconds
_ROOT: Final = Path(__file__).parent.parent
_OURS: Final = (str(_ROOT / "snakepit_trio") + os.sep, str(_ROOT / "bridge_py") + os.sep)
# Reading the source for a traceback is not the pool's work, nor is what an import reads.
_NOT_OURS: Final = ("linecache.py", "/logging/__init__.py", "<frozen importlib", "/_pytest/", "/coverage/", "/execnet/")
# The audit hook sees them when the system has given what was asked for.
_AFTERWARDS: Final = {("socket.py", "socketpair"), ("socket.py", "accept"), ("socket.py", "dup")}
_EVENTS: Final = frozenset({
    "open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod",
    "mmap.__new__", "socket.__new__", "socket.bind", "socket.connect", "subprocess.Popen", "os.posix_spawn", "os.fork",
    "fcntl.flock", "_thread.start_new_thread", "_thread.start_joinable_thread",
})  # fmt: skip
_THREADS: Final = {"_thread.start_new_thread", "_thread.start_joinable_thread", "trio._threads.start_thread_soon"}
# No audit hook sees these; and trio keeps its threads for reuse.
_WRAPPED: Final = ((os, "pipe"), (os, "pipe2"), (os, "memfd_create"), (os, "pidfd_open"), (os, "posix_fallocate"),
                   (os, "ftruncate"), (socket, "socketpair"), (trio._threads, "start_thread_soon"))  # fmt: skip


class Unforeseen(Exception):
    """An error that nobody has thought of."""


FAULTS: Final[dict[str, Callable[[], Exception]]] = {
    "ENOSPC": partial(OSError, errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EMFILE": partial(OSError, errno.EMFILE, os.strerror(errno.EMFILE)),
    "EAGAIN": partial(OSError, errno.EAGAIN, os.strerror(errno.EAGAIN)),
    "no memory": MemoryError,
    "unforeseen": partial(Unforeseen, "an error that nobody has thought of"),
}
THREAD_FAULTS: Final[dict[str, Callable[[], Exception]]] = {
    "no thread": partial(RuntimeError, "can't start new thread"),
    "no memory": MemoryError,
}


@attrs.frozen(order=True)
class Step:
    """Something that the host asks for: what, in which phase, where in the code, and the how many-th time there."""

    phase: str
    event: str
    place: str
    number: int = 1

    def __str__(self) -> str:
        times = f", time {self.number}" if self.number > 1 else ""
        return f"{self.phase}: {self.event} in {self.place}{times}"

    @property
    def faults(self) -> dict[str, Callable[[], Exception]]:
        """What may go wrong with it."""
        return THREAD_FAULTS if self.event in _THREADS else FAULTS


class _Injector:
    """Counts steps, and makes those fail that `fails` says. One for a process: an audit hook cannot be removed."""

    def __init__(self) -> None:
        self.phase: str | None = None  # None: nothing is counted
        self.seen: Counter[Step] = Counter()
        self.fails: Callable[[Step], Exception | None] = lambda _step: None
        self.happened: list[Step] = []
        self._is_installed = False
        self._inside = threading.local()

    def install(self) -> None:
        """Put the hook in, once."""
        if not self._is_installed:
            self._is_installed = True
            sys.addaudithook(self._audit)

    def _audit(self, event: str, _args: tuple[object, ...]) -> None:
        if self.phase is not None and event in _EVENTS:
            self.occurs(event)

    def occurs(self, event: str) -> None:
        """Something is asked for. Raises what `fails` says."""
        phase = self.phase
        if phase is None or getattr(self._inside, "yes", False):
            return
        self._inside.yes = True
        try:
            place = _place(sys._getframe(2))
            if place is None:
                return
            first = Step(phase, event, place)
            self.seen[first] += 1
            step = attrs.evolve(first, number=self.seen[first])
            error = self.fails(step)
            if error is not None:
                self.happened.append(step)
        finally:
            self._inside.yes = False
        if error is not None:
            raise error


INJECTOR: Final = _Injector()


def _place(frame: FrameType | None) -> str | None:
    """Where it is: the innermost place in our code, else the innermost one; None if the pool has no part in it."""
    innermost = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS):
            return f"{Path(name).name}:{frame.f_code.co_qualname}"
        if any(part in name for part in _NOT_OURS):
            # Whoever is below a test in the stack may be pytest; then the pool had no part in it.
            return innermost if "/_pytest/" in name else None
        if (Path(name).name, frame.f_code.co_name) in _AFTERWARDS:
            return None
        if innermost is None and "benchmarks/host_faults.py" not in name:
            innermost = f"{Path(name).name}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return innermost


@contextmanager
def _wrapped() -> Iterator[None]:
    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            INJECTOR.occurs(name)
            return function(*args, **kwargs)

        return wrapper

    with ExitStack() as stack:
        for module, name in _WRAPPED:
            if hasattr(module, name):
                full = f"{module.__name__}.{name}"
                stack.enter_context(mock.patch.object(module, name, wrap(full, getattr(module, name))))
        yield


@contextmanager
def refused(event: str, make: Callable[[], Exception]) -> Iterator[None]:
    """Refuse all of an event to the block."""
    INJECTOR.install()
    INJECTOR.fails = lambda step: make() if step.event == event else None
    with _wrapped():
        INJECTOR.phase = "serving"
        try:
            yield
        finally:
            INJECTOR.phase = None


@attrs.define
class Walk:
    """What came out of one walk through a pool's life. `problems` is empty if all held."""

    trial: Trial | None = None
    seen: Counter[Step] = attrs.field(factory=Counter)
    happened: list[Step] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        head = "without a fault" if self.trial is None else str(self.trial)
        counts = Counter(self.problems)
        return "\n".join([head, *(f"    {problem}{f' ({n} times)' * (n > 1)}" for problem, n in counts.items())])


def find_steps() -> list[Step]:
    """The steps of a pool's life, in the order of phases; of one that is done again and again, the first times.

    The first walk is only to have all modules imported.
    """
    _walk(Walk(), lambda _step: None)
    walk = _walk(Walk(), lambda _step: None)
    assert not walk.problems, str(walk)
    firsts = sorted(walk.seen, key=lambda step: (PHASES.index(step.phase), step))
    times = {step: range(1, min(walk.seen[step], _TIMES) + 1) for step in firsts}
    return [attrs.evolve(step, number=number) for step in firsts for number in times[step]]


@attrs.frozen
class Trial:
    """One fault at one step; with `lasting`, it and all of its event fail for these seconds."""

    step: Step
    fault: str
    lasting: float = 0.0

    def __str__(self) -> str:
        return f"{self.fault}{f' for {self.lasting} s' if self.lasting else ''} at {self.step}"

    def run(self) -> Walk:
        """Walk through a pool's life in which it happens."""
        make = self.step.faults[self.fault]
        until = 0.0

        def fails(now: Step) -> Exception | None:
            nonlocal until
            if not until and now == self.step:
                until = time.monotonic() + self.lasting
                return make()
            return make() if now.event == self.step.event and time.monotonic() < until else None

        return _walk(Walk(self), fails)


def trials(steps: list[Step]) -> list[Trial]:
    """Each step with each fault; and first steps with faults that last."""
    once = [Trial(step, fault) for step in steps for fault in step.faults]
    return once + [attrs.evolve(trial, lasting=_LASTING) for trial in once if trial.step.number == 1]


def sample(steps: list[Step], seed: int) -> Iterator[Trial]:
    """All trials in an order of chance; the phases take turns."""
    by_phase = [[trial for trial in trials(steps) if trial.step.phase == phase] for phase in PHASES]
    for of_phase in by_phase:
        random.Random(seed).shuffle(of_phase)
    for turn in itertools.zip_longest(*by_phase):
        yield from filter(None, turn)


def _walk(walk: Walk, fails: Callable[[Step], Exception | None]) -> Walk:
    INJECTOR.install()
    INJECTOR.seen, INJECTOR.happened, INJECTOR.fails = walk.seen, walk.happened, fails
    leaks = LeakCheck()
    with _wrapped():
        try:
            with translated():
                trio.run(_bounded, walk)
        except Hanging as error:
            walk.problems.append(f"it hangs: {error}")
        except BaseException as error:
            walk.problems.append(f"trio's run ended with {_told(error)}")
        finally:
            INJECTOR.phase = None
    walk.problems += [f"left behind: {line}" for line in _left(leaks)]
    return walk


def _left(leaks: LeakCheck) -> list[str]:
    gc.collect()
    # Files that could not be removed may wait for the next opening, which sweeps what is not new.
    for path in registry.runs_folder().iterdir():
        os.utime(path, (0, 0))
    registry.sweep()
    left = leaks.left(5)
    for process in psutil.Process().children(recursive=True) if left else []:
        process.kill()
    return left


async def _bounded(walk: Walk) -> None:
    trio.lowlevel.spawn_system_task(watch, 6 * BOUND)
    await _live(walk)


async def _live(walk: Walk) -> None:
    """Open a pool, serve through deaths, heal, and close it."""
    problems = walk.problems
    is_open = False
    began = trio.current_time()
    INJECTOR.phase = "opening"
    try:
        async with snakepit.open_pool(TOOLS, workers=2, cancel_grace=0.3, taint_after=10**6, name="faults") as pool:
            await trio.lowlevel.checkpoint()  # if what carries the pool has failed, the block is over here
            is_open = True
            _check_time(problems, "opening", began)
            if (ready := pool.get_stats().ready) < 2:
                problems.append(f"the block was entered with {ready} of 2 workers ready")
            INJECTOR.phase = "serving"
            await _serve(pool, problems)
            INJECTOR.phase = None
            await _heals(pool, problems)
            INJECTOR.phase = "closing"
            began = trio.current_time()
    except BaseException as error:
        INJECTOR.phase = None
        _check_end(walk, error, is_open)
    INJECTOR.phase = None
    _check_time(problems, "leaving" if is_open else "opening", began)
    tasks = trio.lowlevel.current_statistics().tasks_living
    if tasks > 4:  # main, trio's init and its queue of calls from outside, and `watch`
        problems.append(f"{tasks - 4} tasks are left")


def _check_time(problems: list[str], what: str, began: float) -> None:
    seconds = trio.current_time() - began
    if seconds > BOUND:
        problems.append(f"{what} took {seconds:.1f} s")


def _check_end(walk: Walk, error: BaseException, is_open: bool) -> None:
    phase = walk.trial.step.phase if walk.trial else ""
    if phase == "opening" and not is_open:
        allowed = _is_typed(error) or isinstance(error, OSError | MemoryError | Unforeseen)
        allowed = allowed or "can't start new thread" in str(error)
    else:
        allowed = phase == "closing" and (_is_typed(error) or isinstance(error, Unforeseen | MemoryError))
    if not allowed:
        walk.problems.append(f"{'the block' if is_open else 'opening'} ended with {_told(error)}")


def _is_typed(error: BaseException) -> bool:
    return isinstance(error, snakepit.SnakepitError)


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}({', '.join(map(_told, error.exceptions))})"
    cause = f" from {_told(error.__cause__)}" if error.__cause__ else ""
    return f"{error!r}{_where(error)}{cause}"


def _where(error: BaseException) -> str:
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(_OURS):
            place = f" at {Path(code.co_filename).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


async def _serve(pool: snakepit.Pool, problems: list[str]) -> None:
    """Keep callers going while a worker and the guardian are killed, and until both are replaced."""
    load = _Load(pool, problems)
    async with trio.open_nursery() as nursery:
        for call in (load.work, load.work, load.stream, load.large, load.session, load.cancelled, load.overdue):
            nursery.start_soon(load.again_and_again, call)
        await trio.sleep(0.05)
        _kill(guardian())
        _kill(next((worker.pid for worker in pool.list_workers() if worker.pid), None))
        with trio.move_on_after(BOUND):
            while pool.get_stats().restarts < 1:
                await trio.sleep(0.01)
        with trio.move_on_after(BOUND / 2):
            await _ready(pool)
        with trio.move_on_after(3):
            while guardian() is None:
                await trio.sleep(0.02)
        load.is_over = True


async def _ready(pool: snakepit.Pool) -> bool:
    try:
        await pool.await_ready(BOUND)
    except snakepit.PoolNotReady:
        return False
    return True


async def _heals(pool: snakepit.Pool, problems: list[str]) -> None:
    """The fault is over: the pool becomes whole again, guarded, and serves."""
    if not await _ready(pool):
        problems.append(f"the pool does not heal in {BOUND} s: {pool.get_health()}")
    with trio.move_on_after(BOUND):
        while guardian() is None:
            await trio.sleep(0.05)
    if guardian() is None:
        problems.append(f"no guardian {BOUND} s after the fault")
    load = _Load(pool, problems)
    async with trio.open_nursery() as nursery:
        for call in (load.work, load.stream, load.large, load.session):
            nursery.start_soon(load.settle, call, True)
    stats = pool.get_stats()
    if stats.queued or stats.running:
        problems.append(f"{stats.queued} calls queued and {stats.running} running when all were over")


class _Load:
    """Calls of all kinds, each with a result that only it can have."""

    def __init__(self, pool: snakepit.Pool, problems: list[str]) -> None:
        self._pool = pool
        self._problems = problems
        self._token = 0
        self.is_over = False

    async def again_and_again(self, call: Callable[[int], Any]) -> None:
        """Call until it is over."""
        while not self.is_over:
            await self.settle(call)
            await trio.sleep(0.005)

    async def settle(self, call: Callable[[int], Any], must_work: bool = False) -> None:
        """One call; notes whatever it must not end with."""
        self._token += 1
        name, began = call.__name__, trio.current_time()
        try:
            if not await call(self._token):
                self._problems.append(f"a call ({name}) got a wrong result")
        except Exception as error:
            # An error that nobody has thought of may come as it is to the one call that it hit.
            if must_work or not (_is_typed(error) or isinstance(error, Unforeseen)):
                when = " when the fault was over" if must_work else ""
                self._problems.append(f"a call ({name}) failed{when}: {_told(error)}")
        _check_time(self._problems, f"a call ({name})", began)

    async def work(self, token: int) -> bool:
        """A short call."""
        result = await self._pool.execute("work", {"token": token, "seconds": 0.002}, timeout=BOUND - 5)
        return bool(result == token * 7 + 1)

    async def stream(self, token: int) -> bool:
        """A stream."""
        async with self._pool.stream("count", {"token": token, "n": 30}, timeout=BOUND - 5) as chunks:
            return [chunk async for chunk in chunks] == [token + number for number in range(30)]

    async def large(self, token: int) -> bool:
        """Arguments and a result that travel in shared memory."""
        data = token.to_bytes(8, "little") * 2**17
        return bool(await self._pool.execute("echo", {"data": data}, timeout=BOUND - 5) == data)

    async def session(self, token: int) -> bool:
        """A call of a session."""
        async with self._pool.session() as session:
            result = await session.execute("work", {"token": token, "seconds": 0.0}, timeout=BOUND - 5)
            return bool(result == token * 7 + 1)

    async def cancelled(self, token: int) -> bool:
        """A call that is cancelled while it runs."""
        with trio.move_on_after(0.02):
            await self._pool.execute("work", {"token": token, "seconds": 5.0}, timeout=BOUND - 5)
        return True

    async def overdue(self, _token: int) -> bool:
        """A call that nobody can stop costs its worker."""
        if self._token % 16:
            await trio.sleep(0.05)
            return True
        try:
            await self._pool.execute("insist", timeout=0.1)
        except snakepit.CallTimeout:
            return True
        return False


def guardian() -> int | None:
    """The pid of our guardian, if one lives."""
    with _unobserved():
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if "guardian.py" in str(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None


@contextmanager
def _unobserved() -> Iterator[None]:
    phase, INJECTOR.phase = INJECTOR.phase, None
    try:
        yield
    finally:
        INJECTOR.phase = phase


def _kill(pid: int | None) -> None:
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
