"""Observers see each call of a pool: traces are made of what they see.

An event tells of something that has happened. An observer is called in the caller's task before the call is sent, and
may give it a trace context.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final, Protocol
from weakref import WeakSet

from bridge_py.wire.frames import Frame
from bridge_py.wire.timing import Timing
from snakepit_trio._util.log import get_logger

logger = get_logger("snakepit.telemetry")
_FAILED: Final = "%r failed; it sees no more calls of this pool"


class ObservedWorker(Protocol):
    """What observers see of a worker."""

    id: str

    @property
    def pid(self) -> int | None: ...


class ObservedCall(Protocol):
    """What observers see of a call. `created_at` is of trio's clock, in seconds."""

    name: str
    session_id: str
    trace: str  # see `bridge_py.wire.trace_context`
    created_at: float
    final: Frame | None

    @property
    def worker(self) -> ObservedWorker | None: ...


class CallObserver(Protocol):
    """Sees calls. It must not block. If it raises, it sees no more of that pool, and the call goes on."""

    def begins(self, call: ObservedCall, /) -> None:
        """See a call that is about to be sent, in its caller's task. It may set `call.trace`."""

    def ended(self, call: ObservedCall, timing: Timing, error: BaseException | None, /) -> None:
        """See that a call is over for its caller, who gets `error` from it; None if it has succeeded."""

    def host_tool(self, call: ObservedCall, name: str, trace: str, /) -> AbstractContextManager[object]:
        """See a host tool run for a call, in the block. `trace` is from the worker, and may be anything."""
        ...


class Observers:
    """The observers of one pool. `changed` is called when there are others."""

    def __init__(self, changed: Callable[[], object]) -> None:
        #: Those that see calls. Replaced and never changed, because other threads may add some.
        self.active: tuple[CallObserver, ...] = ()
        self._changed = changed
        _everywhere.join(self)

    def add(self, observer: CallObserver) -> None:
        """Have an observer see calls from now on."""
        self.active += (observer,)
        self._changed()

    def remove(self, observer: CallObserver) -> None:
        """Have an observer see no more calls. Does nothing if it sees none."""
        self.active = tuple(each for each in self.active if each is not observer)
        self._changed()

    def begins(self, call: ObservedCall) -> None:
        """Tell all of a call that is about to be sent."""
        for observer in self.active:
            try:
                observer.begins(call)
            except Exception:
                logger.exception(_FAILED, observer)
                self.remove(observer)

    def ended(self, call: ObservedCall, timing: Timing, error: BaseException | None) -> None:
        """Tell all that a call is over."""
        for observer in self.active:
            try:
                observer.ended(call, timing, error)
            except Exception:
                logger.exception(_FAILED, observer)
                self.remove(observer)

    @contextmanager
    def host_tool(self, call: ObservedCall, name: str, trace: str) -> Iterator[None]:
        """Tell all of a host tool that runs in the block. What the block raises comes out unchanged."""
        with ExitStack() as stack:
            for observer in self.active:
                try:
                    stack.enter_context(observer.host_tool(call, name, trace))
                except Exception:
                    logger.exception(_FAILED, observer)
                    self.remove(observer)
            yield


class _Everywhere:
    """The observers of all pools of the process."""

    def __init__(self) -> None:
        self.observers: tuple[CallObserver, ...] = ()
        self.pools: WeakSet[Observers] = WeakSet()
        self._changing = threading.Lock()

    def join(self, pool: Observers) -> None:
        with self._changing:
            pool.active = self.observers
            self.pools.add(pool)

    def add(self, observer: CallObserver) -> None:
        with self._changing:
            self.observers += (observer,)
            for pool in tuple(self.pools):
                pool.add(observer)

    def remove(self, observer: CallObserver) -> None:
        with self._changing:
            self.observers = tuple(each for each in self.observers if each is not observer)
            for pool in tuple(self.pools):
                pool.remove(observer)


_everywhere: Final = _Everywhere()


def observe(observer: CallObserver, observers: Observers | None = None) -> Callable[[], None]:
    """Have an observer see the calls of one pool, or of all pools of this process, also of later ones.

    Returns a function that ends it. Calls under way are seen to their end or not.
    """
    where = _everywhere if observers is None else observers
    where.add(observer)
    return partial(where.remove, observer)
