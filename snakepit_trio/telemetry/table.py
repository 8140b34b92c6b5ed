"""All events that a pool makes: one table, which the documentation and the tests are held against."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import attrs

from bridge_py.wire.errors import UsageError


@attrs.frozen
class EventKind:
    """A kind of event: its name, when it happens, and what its metadata and its measurements mean."""

    name: str
    when: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    measurements: Mapping[str, str] = attrs.field(factory=dict)


#: What the names of events of foreign workers begin with: they must not pass for events of the pool.
FOREIGN: Final = "foreign."
_WORKER: Final = {"worker": "id of the worker", "pid": "its process id"}
_CALL: Final = {
    "call": "number of the call in this process",
    "name": "tool or function",
    "session": "id of its session, or empty",
    "parent": "number of the call whose host tool made it, or None",
}
_ENDED: Final = {**_CALL, "worker": "id of the worker that had it, or None"}
_ERROR: Final = {"error": "name of the exception's class", "message": "its first 500 characters"}
_SENT: Final = {"sent_bytes": "size of its arguments in bytes"}
_TIMES: Final = {
    "queued": "seconds in the queue",
    "sent": "seconds on the way to the worker",
    "ran": "seconds in the tool",
    "returned": "seconds on the way back",
    "total": "seconds from its start to its end",
    "sent_bytes": "size of its arguments in bytes",
    "returned_bytes": "size of its result in bytes; 0 if there is none",
}
_TOOL: Final = {"name": "host tool", "call": "number of the call that asked for it", "worker": "id of its worker"}
_PROGRAM: Final = {"command": "such as create_program", "program": "id of the program, or empty", "session": "its id"}
_SECONDS: Final = {"duration": "seconds from its start to its end"}


def _span(of: str, what: str, metadata: Mapping[str, str], **kinds: Mapping[str, str]) -> tuple[EventKind, ...]:
    """Start, stop and exception of what takes time. Every start has one of the other two."""
    ended, times = kinds.get("ended", metadata), kinds.get("times", _SECONDS)
    return (
        EventKind(f"{of}.start", f"{what} begins", metadata, kinds.get("begins", {})),
        EventKind(f"{of}.stop", f"{what} has ended well", ended, times),
        EventKind(f"{of}.exception", f"{what} has failed, or was cancelled", {**ended, **_ERROR}, times),
    )


EVENTS: Final = (
    EventKind("pool.opened", "all workers of a new pool are ready", {}, {"workers": "how many"}),
    EventKind("pool.closed", "a pool has closed"),
    EventKind("pool.resized", "`resize` has changed the number of workers", {}, {"workers": "how many now"}),
    EventKind(
        "pool.scaled",
        "autoscaling has changed the number of workers",
        {"reason": "why"},
        {"workers": "how many now", "before": "how many before"},
    ),
    EventKind("pool.scaling_failed", "autoscaling could not start a worker", {"problem": "why"}),
    EventKind("worker.ready", "a worker takes calls from now on", _WORKER),
    EventKind("worker.spare_ready", "a spare has started; it gets no calls until it steps in", _WORKER),
    EventKind("worker.stepped_in", "a spare takes calls from now on", {**_WORKER, "replaced": "id of the other one"}),
    EventKind(
        "worker.crashed", "a worker has died, or was killed; its calls have failed", {**_WORKER, "problem": "why"}
    ),
    EventKind(
        "worker.ended",
        "the process of a worker is gone",
        {**_WORKER, "exit_code": "of its process, or None", "in_order": "whether it ended by itself, as asked"},
    ),
    *_span("call", "a call", _CALL, ended=_ENDED, begins=_SENT, times=_TIMES),
    EventKind(
        "call.progress",
        "the code of a call has reported progress",
        {"worker": "id of the worker", "call": "number of the call", "name": "tool or function", "note": "a text"},
        {"done": "how much is done", "total": "of how much; left out if that is not known"},
    ),
    EventKind(
        "call.tainted",
        "calls of a kind are refused from now on, because they have killed workers",
        {"kind": "command (a tool or function), or session", "name": "which one"},
        {"deaths": "how many workers have died"},
    ),
    *_span("stream", "the block of a stream", _CALL, ended=_ENDED, begins=_SENT, times=_TIMES),
    EventKind("session.started", "a session was made", {"session": "its id"}),
    EventKind("session.ended", "a session was deleted, or has expired", {"session": "its id"}),
    EventKind(
        "variable.changed",
        "a variable of a session is new, or has changed",
        {"session": "its id", "variable": "its name"},
        {"version": "of the variable"},
    ),
    EventKind("variable.deleted", "a variable was deleted", {"session": "its id", "variable": "its name"}),
    *_span("program", "a command for a program of a session", _PROGRAM),
    *_span("tool", "the run of a host tool", _TOOL),
    EventKind(
        f"{FOREIGN}*",
        "a foreign worker has told of an event; its own name and facts come as well",
        {**_WORKER, "correlation_id": "the worker's own; left out if there is none"},
    ),
)
_NAMES: Final = frozenset(kind.name for kind in EVENTS)


def events() -> tuple[EventKind, ...]:
    """All kinds of events that pools make."""
    return EVENTS


def check_pattern(pattern: object) -> str:
    """Return a pattern of names of events. Raises `UsageError` if it matches none of them."""
    if not isinstance(pattern, str):
        raise UsageError(f"{pattern!r} is no pattern of events; give a str, such as 'worker.*'")
    if not pattern.startswith(FOREIGN) and not any(fnmatchcase(name, pattern) for name in _NAMES):
        raise UsageError(f"no event matches {pattern!r}; give a name, or a pattern such as 'worker.*', of: {_listed()}")
    return pattern


def _listed() -> str:
    return ", ".join(kind.name for kind in EVENTS)
