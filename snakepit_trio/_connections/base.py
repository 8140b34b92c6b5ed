"""What carries calls to one worker process, whatever protocol that speaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import ToolSpec

if TYPE_CHECKING:
    import signal

    from snakepit_trio._calls.call import Call
    from snakepit_trio._requests.services import HostServices


@attrs.frozen
class Hello:
    """What a worker says of itself when it is ready."""

    tools: Sequence[ToolSpec] = ()
    python: str = ""


@attrs.frozen
class ConnectionContext:
    """What a line needs to know of its worker and its pool, and whom it tells.

    `on_tools` is called with tools that the worker has beyond those of its hello, `on_frame` with each frame
    that concerns a call, or answers a ping. They must not block and should not raise, but for `RemoteProtocolError`.
    `on_fault` is called with what the host itself raised in reading what the worker sent: before the connection ends
    by it, so that its end is not taken for the worker's doing.
    """

    worker_id: str
    services: HostServices
    calls: dict[int, Call]
    on_ready: Callable[[Hello], None]
    on_tools: Callable[[Sequence[ToolSpec]], None]
    on_frame: Callable[[Frame], None]
    on_fault: Callable[[Exception], None]


class HostWork(Protocol):
    """What the host does for the calls of one worker: host tools, and other questions that take their time."""

    def cancel_for(self, call: Call) -> None:
        """A call is being stopped: so is what the host does for it."""

    @property
    def serving(self) -> Container[int]:
        """The ids of the calls for which the host runs anything."""
        ...

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """A call has ended in its worker: stop what runs for it on the host, and call `then` when nothing does."""


class Connection(ABC):
    """One worker's line. Calls have ids, which grow; their outcomes come as frames."""

    #: Whether a call can be stopped in no other way than by killing the worker.
    kills_to_cancel = False
    #: What the host does for its calls.
    host_work: HostWork

    @abstractmethod
    async def run(self) -> None:
        """Connect, and carry until the connection ends, which is always by an exception.

        Raises `LinkLost`, or `ProtocolError` if the worker broke the rules.
        """

    @abstractmethod
    def open(self, call: Call, timeout_us: int) -> int:
        """Send a call; `timeout_us` is the time it has, 0 for no limit. Returns its id."""

    @abstractmethod
    def cancel(self, call_id: int, /) -> list[Frame]:
        """Ask for the end of a call. Returns frames of it that had come, and will not be delivered any more."""

    @abstractmethod
    def recall(self, call_id: int, /) -> None:
        """Ask for a call back if it has not started."""

    @abstractmethod
    def grant(self, call_id: int, chunks: int) -> None:
        """Let a stream go on."""

    @abstractmethod
    def is_open(self, call_id: int) -> bool:
        """Whether a call has not ended."""

    @abstractmethod
    def ping(self, number: int) -> None:
        """Ask the worker whether it is there."""

    @abstractmethod
    def goodbye(self) -> bool:
        """Tell the worker that it is to end. Returns False if its protocol has no word for that."""

    def end_session(self, session_id: str) -> None:
        """Tell the worker that a session has ended, if its protocol has a word for that."""


@attrs.frozen
class Output:
    """A stream that a worker process writes to; `hear` gets each line that comes."""

    stream: trio.abc.ReceiveStream
    level: int
    is_stderr: bool = False
    hear: Callable[[str], None] | None = None


class WorkerProcess(Protocol):
    """One process that runs a worker, with what the host shares with it. It leads a process group of its own."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the signal that killed it, or None while it lives."""

    @property
    def last_started(self) -> int:
        """Id of the last call the worker has started. True to the last instruction of a dead worker."""
        ...

    @property
    def last_words(self) -> str:
        """Why it could not start, in its own words; empty if it has said nothing, or has no way to."""
        ...

    @property
    def outputs(self) -> Sequence[Output]:
        """What is to be read from it, from its first byte on."""
        ...

    def connect(self, context: ConnectionContext) -> Connection:
        """The connection to it."""
        ...

    def is_ready(self) -> None:
        """It has introduced itself."""

    def is_stopped(self) -> bool:
        """Whether it has been stopped, by a debugger or a signal."""
        ...

    def resident_bytes(self) -> int:
        """Its resident memory; 0 if that is not known."""
        ...

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel ended it because memory ran out. Asked once, after its death by SIGKILL."""
        ...

    async def wait(self) -> None:
        """Wait until it has ended; it is reaped then."""

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants that stayed in its group."""

    async def release(self) -> None:
        """Give back what the host holds for it. After its end."""
