"""The host's errors: what can go wrong with a worker process or with the pool.

Those that worker code can see too are in `bridge_py.wire.errors`.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from bridge_py.wire.errors import SnakepitError


class WorkerError(SnakepitError):
    """Something is wrong with a worker process."""


class WorkerFailure(WorkerError):
    """Base of the errors that tell how a worker process ended.

    `worker_id` is `str`, `exit_code` is `int` or None (negative: minus the signal that killed it),
    `signal` is the number of that signal, a `signal.Signals` if it has a name, or None if there was
    none; `stderr_tail` is a tuple of the last lines it wrote to stderr.
    """

    def __init__(
        self, worker_id: str, problem: str, exit_code: int | None = None, stderr_tail: Sequence[str] = ()
    ) -> None:
        super().__init__(f"worker {worker_id} {problem}{_ending(exit_code)}")
        self.worker_id = worker_id
        self.exit_code = exit_code
        self.signal = _signal_of(exit_code)
        self.stderr_tail = tuple(stderr_tail)
        if stderr_tail:
            self.add_note("last lines of its stderr:\n" + "\n".join(f"  {line}" for line in stderr_tail))


class WorkerStartError(WorkerFailure):
    """A worker could not start: the adapter failed to load, or the process ended or stalled."""


class WorkerCrashed(WorkerFailure):
    """The worker that ran the call died, or broke the protocol and was killed.

    The call may have run in part. It is not run again by itself.
    """


class PoolError(SnakepitError):
    """The pool cannot take or finish the call."""


class PoolClosed(PoolError):
    """The pool's block has been left, or is being left."""


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
