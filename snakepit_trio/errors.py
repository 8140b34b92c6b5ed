"""The host's errors: what can go wrong with a worker process or with the pool.

Errors that worker code can see too are in `bridge_py.wire.errors`.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from bridge_py.wire.errors import (
    AccessDenied,
    ProgramNotFound,
    QuotaExceeded,
    SessionError,
    SessionNotFound,
    SnakepitError,
    StaleEpoch,
    StoreCorrupt,
    StoredObjectLost,
    StoredObjectNotFound,
    StoreUnavailable,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)

__all__ = [
    "AccessDenied",
    "CallCancelled",
    "OutOfResources",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolNotReady",
    "PoolSaturated",
    "ProgramNotFound",
    "QuotaExceeded",
    "ResourcesNotOffered",
    "SessionError",
    "SessionNotFound",
    "StaleEpoch",
    "StoreCorrupt",
    "StoreUnavailable",
    "StoredObjectLost",
    "StoredObjectNotFound",
    "Tainted",
    "VariableError",
    "VariableExists",
    "VariableNotFound",
    "VersionConflict",
    "WorkerBusy",
    "WorkerCrashed",
    "WorkerError",
    "WorkerFailure",
    "WorkerStartError",
]


ENDED_EARLY: Final = "ended before it was ready"


class WorkerError(SnakepitError):
    """Something is wrong with a worker process."""


class WorkerFailure(WorkerError):
    """Base of the errors that tell how a worker process ended.

    `worker_id` is a `str`. `exit_code` is an `int` or None; a negative one is minus the number of the signal
    that killed the process. `signal` is the number of this signal, a `signal.Signals` if the signal has a name,
    or None if no signal killed the process. `stderr_tail` is a tuple of the last lines that the worker wrote to
    stderr. `problem` says what went wrong.
    """

    def __init__(
        self, worker_id: str, problem: str, exit_code: int | None = None, stderr_tail: Sequence[str] = ()
    ) -> None:
        self.worker_id = worker_id
        self.problem = problem
        self.exit_code = exit_code
        self.signal = _signal_of(exit_code)
        self.stderr_tail = tuple(stderr_tail)
        super().__init__(self._headline())
        if stderr_tail:
            self.add_note("last lines of its stderr:\n" + "\n".join(f"  {line}" for line in stderr_tail))

    def _headline(self) -> str:
        return f"worker {self.worker_id} {self.problem}{_ending(self.exit_code)}"


class WorkerStartError(WorkerFailure):
    """A worker could not start: the adapter failed to load, or the process ended or stalled.

    `last_words` is the reason in the worker's own words, such as "ValueError: no database". It is empty if the worker
    could not give a reason.
    """

    def __init__(
        self,
        worker_id: str,
        problem: str,
        exit_code: int | None = None,
        stderr_tail: Sequence[str] = (),
        last_words: str = "",
    ) -> None:
        self.last_words = last_words
        super().__init__(worker_id, problem, exit_code, stderr_tail)

    def _headline(self) -> str:
        # If the worker has told its reason, the message shows nothing else: how the process ended, and how the host
        # noticed that, is chance.
        if self.last_words:
            return f"worker {self.worker_id} could not start: {self.last_words}"
        if self.problem != ENDED_EARLY:
            return f"worker {self.worker_id} {self.problem}"
        return ": ".join((super()._headline(), *self.stderr_tail[-1:]))


class WorkerCrashed(WorkerFailure):
    """The worker that ran the call died, or broke the protocol and was killed. `tool` is the name of the call's tool.

    The call may have run in part. It is run again only if `retries` allows that.
    """

    tool = ""
    _meanwhile = ""

    def of_call(self, tool: str, meanwhile: str) -> WorkerCrashed:
        """Make the error of one of the worker's calls.

        `meanwhile` says what the worker did with the call, such as "while it ran 'double'".
        """
        error = WorkerCrashed(self.worker_id, self.problem, self.exit_code, self.stderr_tail)
        error.tool = tool
        error._meanwhile = f" {meanwhile}"
        return error

    def __str__(self) -> str:
        return f"{super().__str__()}{self._meanwhile}"


class CallCancelled(SnakepitError):
    """The call was cancelled by `Pool.cancel_call`, or on the pool's dashboard. None of its code runs any more.

    It may have run in part. `reason` is what the canceller gave as a reason; it may be empty.
    """

    def __init__(self, tool: str, reason: str = "") -> None:
        super().__init__(f"{tool!r} was cancelled through the pool{reason and f': {reason}'}")
        self.tool = tool
        self.reason = reason

    def __reduce__(self) -> tuple[type[CallCancelled], tuple[str, str]]:
        return type(self), (self.tool, self.reason)


class PoolError(SnakepitError):
    """The pool cannot take or finish the call."""


class PoolClosed(PoolError):
    """The pool's block has been left, or is being left."""


class Tainted(PoolError):
    """Calls of this command, or of this session, killed one worker after another, and are refused for a while.

    `kind` is "command" or "session". `name` is the name of the command, or the id of the session. `seconds` says how
    long its calls are still refused.
    """

    def __init__(self, kind: str, name: str, deaths: int, seconds: float) -> None:
        super().__init__(
            f"{kind} {name!r} is refused for {seconds:.1f} s more: its calls killed {deaths} workers in a row"
            " (taint_after, taint_period)"
        )
        self.kind = kind
        self.name = name
        self.seconds = seconds


class PoolSaturated(PoolError):
    """The queue is full: `max_queue` calls wait for a worker, or they hold `max_queue_bytes` of arguments.

    The call was not taken; other calls are unharmed.

    Call again later, or bound how many calls are under way: `Pool.map` never has more than `limit` under way.
    """


class WorkerBusy(PoolError):
    """With `affinity="strict_fail_fast"`: the worker of the call's session has no free place.

    The call was not taken. Call again when another call of that worker has ended.
    """


class PoolDeadlock(PoolError):
    """A host tool's call would wait for ever: calls that wait for it hold every place that it could take.

    The call was not run. A host tool that calls the pool needs one more place at each level of nesting. Open the pool
    with more workers, or with a higher `concurrency`. With a strict affinity, the worker of the call's session needs
    the place.
    """


class OutOfResources(PoolError):
    """The host lacks memory, descriptors, threads or disk space: it could not send a call, or could not open a pool.

    No code of the call has run, unless the message says that the host could not read the call's result, or could not
    tell what became of the call. Other calls are unharmed. `__cause__` is the error of the system. Try again later.
    """


class ResourcesNotOffered(PoolError):
    """The call needs more of a resource than any worker of the pool offers, so it could never run.

    None of its code has run. Need less, or open the pool with workers that offer more (`resources=`, `per_worker=`). A
    call that waits gets this error too, when the last worker that offers enough is taken out of the pool.
    """


class PoolNotReady(PoolError, TimeoutError):
    """Not all workers were ready in time."""


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    number = _signal_of(exit_code)
    if number is None:
        return f" (exit code {exit_code})"
    return f" (killed by signal {number:d}, {getattr(number, 'name', 'unknown')})"


def _signal_of(exit_code: int | None) -> int | None:
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code)
    except ValueError:
        return -exit_code
