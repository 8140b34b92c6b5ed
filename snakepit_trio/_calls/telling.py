"""The events of calls: each begins, and then it stops or fails."""

from __future__ import annotations

from typing import Any

from snakepit_trio.telemetry import Events
from snakepit_trio.telemetry.spans import described

from .call import Call
from .timing import timing_of


def tell_start(events: Events, call: Call) -> None:
    """Tell that a call begins: it has been checked and encoded, and comes to a worker or into the queue next."""
    if events.observers.active:
        events.observers.begins(call)
    events.emit(f"{_kind_of(call)}.start", _metadata(call), sent_bytes=_sent_bytes(call))


def tell_end(events: Events, call: Call, error: BaseException | None) -> None:
    """Tell that a call is over: none of its code runs any more. `error` is what its caller gets, if anything."""
    metadata = {**_metadata(call), "worker": None if call.worker is None else call.worker.id}
    if error is not None:
        metadata |= described(error)
    times = timing_of(call)
    if events.observers.active:
        events.observers.ended(call, times, error)
    events.emit(
        f"{_kind_of(call)}.{'stop' if error is None else 'exception'}",
        metadata,
        queued=times.queued,
        sent=times.sent,
        ran=times.ran,
        returned=times.returned,
        total=times.total,
        sent_bytes=_sent_bytes(call),
        returned_bytes=0
        if call.final is None
        else len(call.final.body) + max(call.final.size, len(call.final.attached)),
    )


def _kind_of(call: Call) -> str:
    return "call" if call.credit is None else "stream"


def _metadata(call: Call) -> dict[str, Any]:
    parent = None if call.parent is None else call.parent.number
    return {"call": call.number, "name": call.name, "session": call.session_id, "parent": parent}


def _sent_bytes(call: Call) -> int:
    return call.size + (0 if call.buffers is None else call.buffers.size)
