"""A trio-asyncio of our own, which leaves the application's asyncio alone.

At its import trio-asyncio replaces functions of asyncio for the whole process: those that find the running loop, and
those for policies. Programs that use asyncio become slower by that, and within trio they no longer find a loop of
asyncio's that runs in the same thread, as in Jupyter. So it is imported as a copy that nobody else sees, and asyncio
gets its own functions back. In return the copy's loop says to asyncio that it is the running one while one of its
callbacks runs, as any loop of asyncio's does.

An application may have a trio-asyncio as well, imported before or after. Its functions ask the context of the current
trio task which loop runs, so that is told there too.
"""

from __future__ import annotations

import _asyncio
import asyncio
import contextlib
import functools
import importlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import trio

from snakepit_trio.errors import OutOfResources

NAME: Final = "trio_asyncio"
_CHANGED: Final = (asyncio, asyncio.events, asyncio.tasks)  # by its import
_TOGETHER: Final = 0.001  # seconds that callbacks are run without a turn of trio
_importing = threading.Lock()
_Loop: Any = object  # trio-asyncio's class is known when it has been imported, which is when the first pool opens


def own_trio_asyncio() -> Any:
    """The copy."""
    with _importing:
        return _import()


@functools.cache
def _import() -> ModuleType:
    with _nothing_imported(), _asyncio_as_it_is(), _names_of_older_pythons(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of policies, from Python 3.14 on
        package = importlib.import_module(NAME)
    inside = vars(package)["_loop"]
    inside.TrioEventLoop = type("OwnLoop", (_OwnLoop, inside.TrioEventLoop), {})  # which `open_loop` makes
    return package


@contextmanager
def _nothing_imported() -> Iterator[None]:
    """Have the package imported afresh, and forgotten: a later import makes another one."""
    theirs = _take_modules()
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(theirs)


def _take_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == NAME or name.startswith(f"{NAME}.")]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def _asyncio_as_it_is() -> Iterator[None]:
    """Undo what the import does. Until then asyncio works as usual for code outside of trio, as in other threads."""
    before = [dict(vars(module)) for module in _CHANGED]
    set_policy = asyncio.events.set_event_loop_policy
    asyncio.events.set_event_loop_policy = lambda policy: None if _is_its_own(policy) else set_policy(policy)
    try:
        yield
    finally:
        for module, names in zip(_CHANGED, before, strict=True):
            for name, value in names.items():
                if vars(module)[name] is not value and _is_its_own(vars(module)[name]):
                    setattr(module, name, value)
        asyncio.events.set_event_loop_policy = set_policy


@contextmanager
def _names_of_older_pythons() -> Iterator[None]:
    """Lend asyncio the names that trio-asyncio 0.16 needs at its import, and that Python 3.14 has no longer."""
    wanted = {
        (asyncio.events, "BaseDefaultEventLoopPolicy"): getattr(asyncio.events, "_BaseDefaultEventLoopPolicy", None),
        (asyncio, "AbstractChildWatcher"): object,
    }
    lent = {place: value for place, value in wanted.items() if place[1] not in vars(place[0])}
    for (module, name), value in lent.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name in lent:
            delattr(module, name)


def _is_its_own(value: object) -> bool:
    module = getattr(value, "__module__", None) or type(value).__module__
    return isinstance(module, str) and module.partition(".")[0] == NAME


# From Python 3.14 on a thread has one current task, whatever loops run in it; before that, each loop has one.


def _leave_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    task = asyncio.tasks.current_task(loop) if sys.version_info >= (3, 14) else None
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    return task


def _enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        asyncio.tasks._enter_task(loop, task)


def run_inside(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call a function while a loop is the running one, whatever loop of asyncio's runs around it."""
    # By C's own functions: an application's trio-asyncio replaces those of asyncio, and tells of its own loop.
    outside = _asyncio._get_running_loop()
    task = None if outside is None else _leave_task(outside)
    _asyncio._set_running_loop(loop)
    try:
        callback(*args)
    finally:
        _asyncio._set_running_loop(outside)
        if outside is not None:
            _enter_task(outside, task)


def tell_application(loop: asyncio.AbstractEventLoop) -> None:
    """Tell the trio-asyncio of an application, if it has imported that, which loop runs in this task of trio."""
    theirs = getattr(sys.modules.get(NAME), "_loop", None)
    if theirs is not None and theirs.current_loop.get() is not loop:
        theirs.current_loop.set(loop)


class _Callbacks:
    """The queue that a loop takes its callbacks from. `tell` is called after each, in the task that will run it."""

    def __init__(self, queue: trio.MemoryReceiveChannel[Any], tell: Callable[[], None]) -> None:
        self._queue = queue
        self._tell = tell
        self.since = 0.0  # when `receive` has returned, on the monotonic clock

    async def receive(self) -> Any:
        callback = await self._queue.receive()
        self.since = time.monotonic()
        self._tell()
        return callback

    def receive_nowait(self) -> Any:
        callback = self._queue.receive_nowait()
        self._tell()
        return callback


class _OwnLoop(_Loop):  # type: ignore[misc]  # trio-asyncio has no types
    """What a loop of trio-asyncio's needs in an asyncio that knows nothing of trio. Before trio-asyncio's own class."""

    def __init__(self, queue_len: int | None = None) -> None:
        try:
            super().__init__(queue_len)
        except OSError as error:
            self._closed = True  # else `__del__` would close a loop that is half made
            raise OutOfResources(f"a pool cannot open its links: {error}") from error
        self._q_recv: Any = _Callbacks(vars(self)["_q_recv"], self._tell_application)

    async def _main_loop_one(self, no_wait: bool = False) -> None:
        # trio-asyncio gives trio a turn before each callback, and a request of HTTP/2 has fifteen of them, one after
        # another. So callbacks that are there, or that those make, are run together, for a short while.
        await super()._main_loop_one(no_wait)
        if no_wait:
            return
        with contextlib.suppress(trio.WouldBlock):
            while time.monotonic() < self._q_recv.since + _TOGETHER:
                await super()._main_loop_one(no_wait=True)

    _run_inside = run_inside

    def call_soon(self, callback: Callable[..., object], *args: Any, **context: Any) -> Any:
        return super().call_soon(self._run_inside, callback, *args, **context)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, **context: Any) -> Any:
        return super().call_soon_threadsafe(self._run_inside, callback, *args, **context)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **context: Any) -> Any:
        return super().call_later(delay, self._run_inside, callback, *args, **context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **context: Any) -> Any:
        return super().call_at(when, self._run_inside, callback, *args, **context)

    # From Python 3.15 on both are called with a context, which trio-asyncio does not know.
    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any, **_context: Any) -> Any:
        return super()._add_reader(fd, self._run_inside, callback, *args)

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any, **_context: Any) -> Any:
        return super()._add_writer(fd, self._run_inside, callback, *args)

    # An application may import trio-asyncio at any time: so its variable is set just before each callback, in the task
    # that runs it.

    async def _io_task(self, fd: Any, handle: Any, wait_ready: Any) -> None:
        async def wait(descriptor: Any) -> None:
            await wait_ready(descriptor)
            self._tell_application()

        await super()._io_task(fd, handle, wait)

    async def synchronize(self) -> None:
        """Wait until all callbacks that are there have run. After each event of a file, trio-asyncio does."""
        # A loop that waits for a callback has none.
        if not self._q_send.statistics().tasks_waiting_receive:
            await super().synchronize()

    def _tell_application(self) -> None:
        tell_application(self)
