"""One call on the host: its request, its state, and the task that waits for it. Below: checks of requests."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, NoReturn, Protocol

import trio

from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.wire.errors import EncodeError, InvalidCall, SnakepitError, ToolCancelled, UnknownTool, UsageError
from bridge_py.wire.frames import Frame
from bridge_py.wire.specs import RESERVED, ToolSpec
from bridge_py.wire.trace_context import note_correlation
from snakepit_trio._config.policies import Affinity, RetryPolicy
from snakepit_trio._util.nurseries import told
from snakepit_trio._util.validation import check_whole, is_utf8, is_whole, refuse
from snakepit_trio.errors import OutOfResources, PoolClosed, WorkerCrashed
from snakepit_trio.state.epochs import Tenure
from snakepit_trio.state.view import SessionView

from .progress import CallProgress
from .queues import Limit, Needs, Slot

_LONGEST_LIMIT: Final = 1e9  # seconds
_HIGHEST_PRIORITY: Final = 100


class CallState(Enum):
    """Where a call is."""

    NEW = "new"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    OVER = "over"


# Python 3.11 takes as long to look up an enum's member as to call a function.
_NEW: Final = CallState.NEW
_OVER: Final = CallState.OVER
_numbers: Final = itertools.count(1)  # of all calls of this process
_NO_CHUNKS: Final[deque[Frame]] = deque(maxlen=0)  # of all calls that are no streams


class Call:
    """A call from submission to outcome. One task at a time may wait on it."""

    #: How many callers wait for it.
    weight: int = 1

    __slots__ = (
        "_waiter",
        "abandoned",
        "affinity",
        "assigned_at",
        "body",
        "buffers",
        "children",
        "chunks",
        "claim",
        "created_at",
        "credit",
        "deadline",
        "ended_at",
        "failure",
        "final",
        "id",
        "is_late",
        "is_over",
        "limits",
        "name",
        "needs",
        "number",
        "order",
        "parent",
        "passes",
        "priority",
        "progress",
        "rank",
        "resources",
        "returns",
        "session_id",
        "size",
        "state",
        "tenure",
        "timeout",
        "tool",
        "trace",
        "unwanted",
        "worker",
    )

    def __init__(
        self,
        name: str,
        encoded: EncodedValue,
        session_id: str,
        timeout: float | None,
        credit: int | None = None,
        affinity: Affinity = "hint",
        parent: Call | None = None,
        priority: int | None = None,
    ) -> None:
        self.name = self.tool = name  # `tool` is what the worker runs
        self.affinity: Affinity = affinity  # how it keeps to the worker of its session
        self.body, self.buffers = encoded.body, encoded.buffers
        self.size = len(self.body)  # bytes; `SharedCopies` bounds its large buffers
        self.session_id = session_id
        self.tenure: Tenure | None = None  # the epochs of its session in which it may write
        self.number = next(_numbers)
        self.created_at = now = trio.current_time()
        self.deadline = math.inf if timeout is None else now + timeout
        if parent is not None and parent.deadline < self.deadline:
            self.deadline, timeout = parent.deadline, max(0.0, round(parent.deadline - now, 3))
        self.timeout = timeout
        self.is_late = False  # its deadline has passed, or it is unwanted
        # If it is to be stopped from elsewhere: makes the error that its caller gets.
        self.unwanted: Callable[[], BaseException] | None = None
        self.is_over = False  # it has its outcome: none of its code runs any more
        self.children: dict[Call, None] | None = None  # calls that host tools of this one wait for
        self.credit = credit  # of a stream: granted at the start
        self.claim: Callable[[CallWorker], bool] | None = None  # asked just before the start: may this worker start it?
        self.limits: tuple[Limit, ...] = ()  # it holds a place of each while it runs
        self.resources: Needs = ()  # as its caller names them; an amount of 0 takes back what its tool needs
        self.needs: Needs = ()  # with those of its tool: amounts that it needs of its worker while it runs
        self.passes = False  # a call that holds resources waits for it: no reservation may hold it up
        self.parent = parent  # the call whose host tool made this one
        if priority is None:  # the parent goes on only after it
            priority = 0 if parent is None else parent.priority
        self.priority: int = priority
        self.order = 0  # its position among all calls, given by the scheduler
        self.rank = 0.0  # seconds; calls of lower ranks leave the queue first; given by the scheduler
        self.assigned_at = 0.0
        self.ended_at = 0.0  # of the last run; 0 until then
        self.trace = ""  # the W3C trace context that its worker gets
        self.id = 0  # on its worker's connection; 0 until it is sent
        self.state = _NEW
        self.worker: CallWorker | None = None
        self.abandoned = False  # the caller has given up and only waits for the end
        self.returns = 0  # how many workers died before they had started it
        self.chunks: deque[Frame] = _NO_CHUNKS if credit is None else deque()
        self.final: Frame | None = None  # the frame that ended it
        self.failure: Exception | None = None  # the error that its caller gets, if it failed
        self.progress: CallProgress | None = None  # if its caller wants to hear of it, or its code has reported any
        self._waiter: trio.lowlevel.Task | None = None

    def ancestors(self) -> Iterator[Call]:
        """The calls above this one, the nearest first. The host tool of each waits for the call below it."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent

    def join_parent(self) -> None:
        """Note the call at its parent: a host tool of the parent waits for it."""
        assert self.parent is not None
        if self.parent.children is None:
            self.parent.children = {}
        self.parent.children[self] = None

    def leave_parent(self) -> None:
        """Remove the call from its parent: no host tool of the parent waits for it any more."""
        assert self.parent is not None
        if self.parent.children is not None:
            self.parent.children.pop(self, None)

    def stop_children(self) -> None:
        """Stop the calls that its host tools wait for, because these tools are stopped.

        No cancellation reaches a host tool that waits in a thread.
        """
        for child in list(self.children or ()):
            child.unwanted, child.is_late = child.unwanted or ToolCancelled, True
            child.wake()

    def time_left(self) -> float:
        """Seconds until its deadline."""
        return self.deadline - trio.current_time()

    def microseconds_left(self) -> int:
        """Microseconds from its assignment to its deadline, at least 1; 0 without a limit, or if it is far away."""
        left = self.deadline - self.assigned_at
        return 0 if left > _LONGEST_LIMIT else max(1, int(left * 1e6))

    def again(self) -> Call:
        """A copy of the call, to run it once more within the same deadline."""
        encoded = EncodedValue(self.body, self.buffers)
        call = Call(
            self.name,
            encoded,
            self.session_id,
            self.timeout,
            self.credit,
            self.affinity,
            self.parent,
            self.priority,
        )
        call.deadline, call.number = self.deadline, self.number
        call.claim, call.tool, call.limits, call.resources = self.claim, self.tool, self.limits, self.resources
        call.trace = self.trace
        call.progress = None if self.progress is None else self.progress.again()
        return call

    def finish(self, final: Frame | None, failure: Exception | None = None) -> None:
        """Set the outcome, once, and wake the task that waits."""
        self.state = _OVER
        self.is_over = True
        self.final = final
        self.failure = failure
        if failure is not None and self.trace:
            note_correlation(failure, self.trace)
        self.wake()

    def wake(self) -> None:
        """Wake the task that waits, if there is one. It looks for itself at what has changed."""
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter)

    def wait(self) -> Awaitable[object]:
        """Wait until the next `wake`. Do not call this if the call is over, or while chunks are left."""
        self._waiter = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._stop_waiting)  # noqa: ASYNC105 - its caller awaits it

    async def wait_and_tell(self) -> None:
        """Wait as `wait` does, or less long, and tell the caller's handler what the call has reported.

        What the handler raises comes out.
        """
        assert self.progress is not None
        due = self.progress.tell()
        if self.is_over or self.is_late or self.chunks:
            return
        if due == math.inf:
            await self.wait()
        else:
            with trio.CancelScope(deadline=due):
                await self.wait()

    def _stop_waiting(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class CallWorker(Protocol):
    """A worker, as its calls and the code that assigns and stops calls see it."""

    id: str
    slot: Slot[Call]
    calls: dict[int, Call]  # by id; each new call has a larger id
    tools: dict[str, ToolSpec]  # by name
    is_killed_by_us: bool

    @property
    def stands(self) -> bool:
        """Whether it stands at a breakpoint."""
        ...

    @property
    def failure(self) -> WorkerCrashed | None:
        """The error of its calls once it has crashed; None before."""

    @property
    def pid(self) -> int | None:
        """The process id, or None before there is a process."""

    @property
    def has_left(self) -> bool:
        """Whether it has stopped taking calls for good."""
        ...

    @property
    def exit_reason(self) -> str:
        """Why it has left."""
        ...

    @property
    def kills_to_cancel(self) -> bool:
        """Whether killing it is the only way to stop its calls."""
        ...

    def is_killed_to_stop(self, call: Call) -> bool:
        """Whether calls of this call's tool are stopped by killing the worker."""
        ...

    def must_be_killed_to_stop(self, call: Call) -> bool:
        """Whether the ledger shows that the call runs, and only killing the worker stops calls of its tool."""
        ...

    def has_started(self, call: Call) -> bool:
        """Whether the ledger shows that a call that was sent has started."""
        ...

    def start(self, call: Call) -> None:
        """Send a call."""

    def cancel(self, call: Call) -> None:
        """Ask the worker to end a call, and cancel the host's work for the call."""

    def nudge(self, call: Call) -> None:
        """Help the worker to hear of a cancellation while the code of the call leaves its other threads no turn."""

    def open_item(self, batch: Call, call: Call) -> None:
        """Send a call of a batch. The worker runs it when the batch is started, which names it by its id."""

    def drop_item(self, call: Call) -> None:
        """Tell the worker that nobody waits for a call of a batch any more, and drop its outcome."""

    def recall(self, call: Call) -> None:
        """Ask the worker to give back a call if it has not started it."""

    def grant(self, call: Call, credit: int) -> None:
        """Give a stream more credit."""

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Cancel the host's work for a call that has ended in this worker, and call `then` when that work is over."""

    def end_session(self, session_id: str) -> None:
        """Tell the worker that a session has ended: it may still hold data of the session."""

    def kill(self, problem: str, *, for_a_call: bool = False) -> None:
        """Kill its process group at once; `problem` goes into the error of its calls.

        `for_a_call`: the worker itself is well, but only killing it stops one of its calls.
        """


class Displaced(SnakepitError):
    """A call was assigned to a worker that must not start it (`Call.claim`). None of its code has run."""


def stopped(call: Call) -> PoolClosed:
    """The error of a call that its caller had not given up, and that ended because the pool closed."""
    return PoolClosed(f"{call.name!r} was stopped: the pool closed")


def failure_of(call: Call, error: Exception, what: str = "it could not be sent") -> SnakepitError:
    """The error of a call at which the host itself has failed."""
    if isinstance(error, SnakepitError):
        return error
    failure = OutOfResources(f"{call.name!r} failed: {what}: {told(error)}")
    failure.__cause__ = error
    return failure


# Checks of requests. Everything that is sent beside the arguments is checked before a call takes a place.


class Default(Enum):
    """The default of parameters for which None has a meaning of its own."""

    DEFAULT = "the pool's own"


DEFAULT: Final = Default.DEFAULT
Timeout = float | Default | None
Arguments = Mapping[str, Any]


def check_call(name: object, args: object, retries: object, priority: object) -> None:
    """Raise `UsageError` or `EncodeError`, naming the argument, if no call can have one of these."""
    if retries is not None:
        check_retries(retries)
    if priority is not None:
        check_priority(priority)
    if not isinstance(name, str) or name in RESERVED:
        _refuse_name(name)
    if not name.isascii():
        _check_text(name, "the tool's name")
    if args is not None:
        if type(args) is not dict and not isinstance(args, Mapping):
            raise UsageError(
                f"the arguments of {name!r} are of type {type(args).__name__}; give a dict by parameter name"
            )
        for key in args:
            if not isinstance(key, str):
                raise UsageError(f"the arguments of {name!r} have the key {key!r}; give parameter names, which are str")


def session_id_of(session: object, what: str, store: object = None) -> str | None:
    """The id of a session that is given as a handle or as an id; None for no session.

    `what` names the call or method that got it. `store`, if given, is the store that a handle must be of.

    Raises `UsageError` for anything else, and `EncodeError` for an id that cannot be sent.
    """
    if session is None:
        return None
    if isinstance(session, SessionView):
        if store is not None and not session._is_of(store):
            raise UsageError(
                f"session={session!r} of {what!r} is of another pool: open one with this pool's session(), or open both"
                " pools with the same store="
            )
        session = session.id
    if not isinstance(session, str):
        raise UsageError(
            f"session={session!r:.200} of {what!r} is no session's id, which is a str, and no handle of one: give what"
            " `async with pool.session() as session` gives"
        )
    _check_text(session, f"session= of {what!r}")
    return session


def needed_session_id(session: object, what: str) -> str:
    """The id of a session, as `session_id_of` finds it. A session is required: raises `InvalidCall` for None."""
    found = session_id_of(session, what)
    if found is None:
        raise InvalidCall(f"{what} is for a session: give session=, a handle of one or its id")
    return found


def _refuse_name(name: object) -> NoReturn:
    if isinstance(name, str):
        raise UnknownTool(f"no tool {name!r}; functions are called with run and iterate")
    its_name = getattr(name, "__name__", None)
    remedy = f"give its name, {its_name!r}" if callable(name) and its_name else "give it as a str"
    raise UsageError(f"the tool's name is {name!r}, which is no str; {remedy}")


def _check_text(text: str, what: str) -> None:
    if not text.isascii() and not is_utf8(text):
        raise EncodeError(f"{what}, {text[:100]!r}, cannot be sent: it has half a character, which UTF-8 cannot hold")


def seconds_of(timeout: Any, what: str) -> float | None:
    """A time limit in seconds, or None for no limit. Raises `UsageError`, which says that the limit is of `what`."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise UsageError(f"timeout={timeout!r} of {what}; give seconds{_as_seconds(timeout)}, or None for no limit")
    try:
        return float(timeout)
    except OverflowError:
        return math.inf


def _as_seconds(timeout: object) -> str:
    return f", such as {timeout.total_seconds():g}" if isinstance(timeout, dt.timedelta) else ""


def check_retries(retries: object) -> None:
    """Raise `UsageError` for what says nothing about retries."""
    if retries is not None and not isinstance(retries, RetryPolicy) and (not is_whole(retries) or retries < 0):
        raise refuse("retries", retries, "give a number from 0 on, a snakepit_trio.RetryPolicy, or None")


def check_priority(priority: object) -> None:
    """Raise `UsageError` for what is no priority."""
    if priority is not None:
        check_whole("priority", priority, -_HIGHEST_PRIORITY, _HIGHEST_PRIORITY)
