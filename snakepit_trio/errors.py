"""The host's errors: what can go wrong with a worker process or with the pool.

Those that worker code can see too are in `bridge_py.wire.errors`.
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
    StoredObjectLost,
    StoredObjectNotFound,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)

__all__ = [
    "AccessDenied",
    "OutOfResources",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolNotReady",
    "PoolSaturated",
    "ProgramNotFound",
    "QuotaExceeded",
    "SessionError",
    "SessionNotFound",
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

    `worker_id` is `str`, `exit_code` is `int` or None (negative: minus the signal that killed it),
    `signal` is the number of that signal, a `signal.Signals` if it has a name, or None if there was
    none; `stderr_tail` is a tuple of the last lines it wrote to stderr, and `problem` says what went wrong.
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

    `last_words` is what the worker itself has said of it, such as "ValueError: no database", and empty if it could not.
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
        # How the process ended, and how we noticed, is chance where it has told its reason.
        if self.last_words:
            return f"worker {self.worker_id} could not start: {self.last_words}"
        if self.problem != ENDED_EARLY:
            return f"worker {self.worker_id} {self.problem}"
        return ": ".join((super()._headline(), *self.stderr_tail[-1:]))


class WorkerCrashed(WorkerFailure):
    """The worker that ran the call died, or broke the protocol and was killed. `tool` is the name of the call's tool.

    The call may have run in part. It is run again only if that is allowed (`retries`).
    """

    tool = ""
    _meanwhile = ""

    def of_call(self, tool: str, meanwhile: str) -> WorkerCrashed:
        """The error of one of its calls. `meanwhile` says what it did with it, such as "while it ran 'double'"."""
        error = WorkerCrashed(self.worker_id, self.problem, self.exit_code, self.stderr_tail)
        error.tool = tool
        error._meanwhile = f" {meanwhile}"
        return error

    def __str__(self) -> str:
        return f"{super().__str__()}{self._meanwhile}"


class PoolError(SnakepitError):
    """The pool cannot take or finish the call."""


class PoolClosed(PoolError):
    """The pool's block has been left, or is being left."""


class Tainted(PoolError):
    """Calls of this command, or of this session, killed one worker after another, and are refused for a while.

    `kind` is "command" or "session", `name` which, `seconds` how long it is still refused.
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
    """As many calls wait for a worker as may (`max_queue`). The call was not taken; others are unharmed.

    Call again later, or bound how much is under way: `Pool.map` never outruns its pool.
    """


class WorkerBusy(PoolError):
    """With `affinity="strict_fail_fast"`: the worker of the call's session has no free place.

    The call was not taken. Call again when another call of that worker has ended.
    """


class PoolDeadlock(PoolError):
    """A call that a host tool made would wait for ever, for a place that is held by a call which waits for it.

    It was not run. A host tool that calls the pool needs a place more at each level: more workers, or a higher
    `concurrency`; with a strict affinity, in the worker of its session.
    """


class OutOfResources(PoolError):
    """The host lacks memory, descriptors, threads or room on its disk: a call could not be sent, or a pool not opened.

    No code of the call has run, unless the message says that what it sent back, or what became of it, could not be
    told. Others are unharmed. `__cause__` is what the system said. Try again later.
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
