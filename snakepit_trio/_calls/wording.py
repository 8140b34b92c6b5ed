"""What callers are told about a call that was too late, or whose worker has died."""

from __future__ import annotations

from typing import Protocol

from bridge_py.wire.amounts import shown

from .call import Call, CallState
from .timing import is_started, timing_of


class Load(Protocol):
    """How busy a pool is, in numbers of calls."""

    @property
    def queued(self) -> int:
        """Calls that wait."""
        ...

    @property
    def running(self) -> int:
        """Calls that workers have."""
        ...


def lateness(call: Call, pool: Load, workers: int) -> str:
    """What has become of a call whose time is over."""
    if call.state is CallState.NEW:
        return f"never started: there was no room for its large arguments for {call.timeout} s"
    if call.worker is None:
        return (
            f"never started: it did not leave the queue within {call.timeout} s"
            f" (queued={pool.queued}, running={pool.running}, workers={workers}"
            f"{''.join(f', {limit!r}' for limit in call.limits)}"
            f"{(call.needs and f', it needs {shown(dict(call.needs))}') or ''})"
        )
    queued, there, ran, _ = timing_of(call)
    if not is_started(call):
        return (
            f"never started within {call.timeout} s: it waited {queued:.3f} s in the queue, and worker"
            f" {call.worker.id} was busy for the other {there:.3f} s"
        )
    return (
        f"was stopped: it did not end within {call.timeout} s: it waited {queued:.3f} s in the queue, and ran for"
        f" {ran:.3f} s on worker {call.worker.id}"
    )


def meanwhile(call: Call, last_started: int | None, calls: int) -> str:
    """What a dead worker was doing with a call, as far as that is known."""
    others = f" and {calls - 1} other{'s' * (calls > 2)}" if calls > 1 else ""
    if last_started is None:
        return f"while it had {call.name!r}{others}"
    if call.id > last_started:
        return f"before it started {call.name!r}, which is worker number {call.returns} that died with it"
    return f"while it ran {call.name!r}{others}"
