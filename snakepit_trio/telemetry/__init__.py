"""What tells of pools: the events that happen, how long it took, and the correlation ids of calls."""

from bridge_py.wire.public_names import publish
from bridge_py.wire.timing import Timing
from bridge_py.wire.trace_context import TraceContext, correlated, correlation_id, trace_headers

from .handlers import Event, Events, attach, detach
from .streams import EventStream
from .table import EventKind, events

__all__ = [
    "Event",
    "EventKind",
    "EventStream",
    "Events",
    "Timing",
    "TraceContext",
    "attach",
    "correlated",
    "correlation_id",
    "detach",
    "events",
    "trace_headers",
]

_OF_WORKERS_TOO = {"correlation_id", "trace_headers"}  # these are `bridge_py`'s
publish(__name__, [name for name in __all__ if name not in _OF_WORKERS_TOO])
