"""The calls that are under way, as the owner of a pool sees them."""

from __future__ import annotations

import math
from typing import Literal

import attrs
import trio

from snakepit_trio._calls.call import Call, CallState
from snakepit_trio._calls.timing import is_started
from snakepit_trio._calls.under_way import CallsUnderWay


@attrs.frozen
class CallInfo:
    """One call that is under way, at the moment of asking.

    `id` is its number in this process, as in events. It stays the same when `retries` runs the call again. `tool` is
    the name of its tool or function. `state` is where it is:

    - "waiting": it is not in the queue. It waits for room for its large arguments, or before it runs again.
    - "queued": it is in the queue, or in a batch that is being collected.
    - "sent": its worker has it, and has not started it.
    - "running": its code runs.
    - "stopping": its caller has given it up, or it was cancelled. Its code may still run.

    `session_id` is None without a session. `worker_id` and `pid` are None while no worker has it. `priority` is from
    -100 to 100. `is_stream` says whether its tool sends chunks. `queued` is how many seconds it has been in the queue,
    and `on_worker` how many seconds its worker has had it; both are of its last run. `time_left` is how many seconds
    are left until its deadline, below 0 when that has passed, and None without a deadline. `parent` is the id of the
    call whose host tool made it, or None. That call may be over.
    """

    id: int
    tool: str
    state: Literal["waiting", "queued", "sent", "running", "stopping"]
    session_id: str | None
    worker_id: str | None
    pid: int | None
    priority: int
    is_stream: bool
    queued: float
    on_worker: float
    time_left: float | None
    parent: int | None


def info_of(call: Call, calls: CallsUnderWay) -> CallInfo:
    """Describe a call."""
    now, worker = trio.current_time(), call.worker if not calls.is_held_up(call) else None
    return CallInfo(
        id=call.number,
        tool=call.name,
        state=_state_of(call, calls),
        session_id=call.session_id or None,
        worker_id=None if worker is None else worker.id,
        pid=None if worker is None else worker.pid,
        priority=call.priority,
        is_stream=call.credit is not None,
        queued=max(0.0, (now if worker is None else call.assigned_at) - call.created_at),
        on_worker=0.0 if worker is None else now - call.assigned_at,
        time_left=None if call.deadline == math.inf else call.deadline - now,
        parent=None if call.parent is None else call.parent.number,
    )


def _state_of(call: Call, calls: CallsUnderWay) -> Literal["waiting", "queued", "sent", "running", "stopping"]:
    if call.abandoned or call.unwanted is not None:
        return "stopping"
    if calls.is_held_up(call):
        return "waiting"
    if call.worker is None or call.state is not CallState.ASSIGNED:
        return "queued"
    return "running" if is_started(calls.sent_as(call)) else "sent"
