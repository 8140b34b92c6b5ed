"""The interfaces of a worker process and of its connection, the same for all protocols."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import ToolSpec

from .worker_logs import WorkerLogs

if TYPE_CHECKING:
    import signal
    import socket

    from snakepit_trio._calls.call import Call
    from snakepit_trio._requests.services import HostServices


@attrs.frozen
class Hello:
    """What a worker says about itself when it is ready."""

    tools: Sequence[ToolSpec] = ()
    python: str = ""


@attrs.frozen
class ConnectionContext:
    """What a connection needs to know about its worker and its pool, and the functions that it calls.

    `on_tools` is called with tools that the worker has beyond the tools of its hello. `on_frame` is called with each
    frame that concerns a call or answers a ping. Neither may block, and neither should raise anything but
    `RemoteProtocolError`. `on_fault` is called with an exception of the host itself, raised while it read the worker's
    data. The call comes before this exception ends the connection, so that the worker is not blamed for the end.
    `logs` gets the worker's log records.
    `concurrency` is how many calls the worker runs at a time. `max_asks` bounds its requests that have no answer yet,
    and `max_unread_bytes` the answers that it has not read; None stands for no bound.
    """

    worker_id: str
    services: HostServices
    calls: dict[int, Call]
    on_ready: Callable[[Hello], None]
    on_tools: Callable[[Sequence[ToolSpec]], None]
    on_frame: Callable[[Frame], None]
    on_fault: Callable[[Exception], None]
    logs: WorkerLogs
    concurrency: int = 1
    max_asks: int | None = None
    max_unread_bytes: int | None = None


class HostWork(Protocol):
    """The host's work for the calls of one worker: host tools, and other questions that take their time."""

    def cancel_for(self, call: Call) -> None:
        """Cancel the host's work for a call, because the call is being stopped."""

    @property
    def serving(self) -> Container[int]:
        """The ids of the calls for which the host runs anything."""
        ...

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Cancel the host's work for a call that has ended in its worker, and call `then` when that work is over."""


class Connection(ABC):
    """The connection to one worker. Each call has an id, and the ids grow. Outcomes of calls come as frames."""

    #: Whether killing the worker is the only way to stop a call.
    kills_to_cancel = False
    #: The host's work for its calls.
    host_work: HostWork
    #: The socket by which breakpoints in the worker ask for the terminal of the host; None without a debugger.
    breakpoints: socket.socket | None = None

    @property
    def unreached(self) -> str:
        """Why the host has not reached a worker of another machine yet, in words; empty if it has, or cannot tell."""
        return ""

    @abstractmethod
    async def run(self) -> None:
        """Connect, and carry calls until the connection ends. The end is always an exception.

        Raises `LinkLost`, or `ProtocolError` if the worker broke the rules.
        """

    @abstractmethod
    def open(self, call: Call, timeout_us: int) -> int:
        """Send a call, and return its id. `timeout_us` is its time in microseconds, 0 for no limit."""

    @abstractmethod
    def cancel(self, call_id: int, /) -> list[Frame]:
        """Ask the worker to end a call. Returns frames of the call that had come and will not be delivered any more."""

    def open_item(self, call: Call, /) -> int:
        """Send a call of a batch, and return its id. It runs when its batch is opened."""
        raise NotImplementedError("batches are for workers of ours")

    def fetches(self, call_id: int, /) -> bool:  # noqa: ARG002 - most protocols have no such buffers
        """Whether the outcome of a call has come, and its large buffers are on their way."""
        return False

    def nudge(self) -> None:
        """Help the worker to read what it was told, if its code leaves its other threads no turn, and if that helps."""

    @abstractmethod
    def recall(self, call_id: int, /) -> None:
        """Ask the worker to give back a call if it has not started it."""

    @abstractmethod
    def grant(self, call_id: int, credit: int) -> None:
        """Give a stream more credit."""

    @abstractmethod
    def is_open(self, call_id: int) -> bool:
        """Whether a call is still open: it has not ended."""

    @abstractmethod
    def ping(self, number: int) -> None:
        """Ask the worker whether it is there."""

    @abstractmethod
    def goodbye(self) -> bool:
        """Tell the worker to end. Returns False if its protocol has no message for that."""

    def worker_gone(self) -> None:
        """Note that the worker has ended: what it has asked the host to write is refused if it comes too late.

        Called before anything is run in its place. It may be called again.
        """

    def end_session(self, session_id: str) -> None:
        """Tell the worker that a session has ended, if its protocol has a message for that."""


@attrs.frozen
class Output:
    """A stream that a worker process writes to; `hear` gets each line that comes.

    Lines become log records of `level`. With `has_levels`, a line that says its own level has that.
    """

    stream: trio.abc.ReceiveStream
    level: int
    is_stderr: bool = False
    hear: Callable[[str], None] | None = None
    has_levels: bool = False


#: Seconds from SIGKILL to the end of a process of this machine: at once, unless the kernel holds the process.
REAP_SECONDS: Final = 5.0


class WorkerProcess(Protocol):
    """One process that runs a worker, with what the host shares with it. It leads a process group of its own."""

    @property
    def reap_seconds(self) -> float:
        """The longest time in seconds from SIGKILL until `wait` returns."""
        ...

    @property
    def node(self) -> str | None:
        """The name of its machine; None for this one."""

    @property
    def pid(self) -> int:
        """The process id, on its machine."""
        ...

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the number of the signal that killed it. None while it lives, or if it is lost."""

    @property
    def last_started(self) -> int | None:
        """Id of the last call that the worker has started; None if nobody can know that any more.

        For a dead worker, it is exact to the last instruction. A worker on another machine may have started later
        calls than that while it lives.
        """
        ...

    @property
    def last_words(self) -> str:
        """Why it could not start, in its own words; empty if it has said nothing, or has no way to."""
        ...

    @property
    def outputs(self) -> Sequence[Output]:
        """The streams to read from it, from their first byte on."""
        ...

    def connect(self, context: ConnectionContext) -> Connection:
        """The connection to it."""
        ...

    def is_ready(self) -> None:
        """Note that the worker has introduced itself."""

    def is_stopped(self) -> bool:
        """Whether it has been stopped, by a debugger or a signal."""
        ...

    def resident_bytes(self) -> int:
        """Its resident memory; 0 if that is not known."""
        ...

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel ended it because memory ran out. Ask once, after its death by SIGKILL."""
        ...

    async def wait(self) -> None:
        """Wait until it has ended; it is reaped then."""

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants that stayed in its group."""

    async def release(self) -> None:
        """Give back what the host holds for it. Call this after its end."""
