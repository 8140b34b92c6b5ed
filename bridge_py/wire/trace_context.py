"""The trace context of a call: its correlation id, and the headers of W3C Trace Context and Baggage.

It belongs to a task or thread, as context variables do: the caller's on the host, and the tool's in a worker. It goes
over the link as lines of "HEADER: VALUE". All of it may come from a hostile peer, so parts that the standards do not
allow are left out, and a context without any part is no context.
https://www.w3.org/TR/trace-context/, https://www.w3.org/TR/baggage/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from .errors import UsageError

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
#: The name of the correlation id on the link and in the metadata of the contract. It is not in the baggage: tracing
#: libraries send that to all services, which the application did not ask for.
CORRELATION: Final = "correlation_id"
_HEADERS: Final = (TRACEPARENT, TRACESTATE, BAGGAGE)

_MOST_BYTES: Final = 10_000
_LONGEST_PARENT: Final = 512  # characters; versions to come may add fields
_LONGEST_STATE: Final = 512
_MOST_STATES: Final = 32
_LONGEST_BAGGAGE: Final = 8192
_MOST_ENTRIES: Final = 64
_CORRELATION_ID: Final = re.compile(r"[!-~]{1,128}")
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_STATE: Final = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[!-+\--<>-~ ]{0,255}[!-+\--<>-~]"
)
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - of HTTP
_VALUE: Final = r"[!#-+\--:<-\[\]-~]*"
_ENTRY: Final = re.compile(rf"{_TOKEN}[ \t]*=[ \t]*{_VALUE}(?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*{_VALUE})?)*")


class TraceContext:
    """The context of a call. Each part is valid, or empty."""

    __slots__ = ("baggage", "correlation_id", "text", "traceparent", "tracestate")

    def __init__(
        self, correlation_id: str = "", traceparent: str = "", tracestate: str = "", baggage: str = ""
    ) -> None:
        self.correlation_id = correlation_id if _CORRELATION_ID.fullmatch(correlation_id) else ""
        self.traceparent = _checked_parent(traceparent)
        self.tracestate = _checked_state(tracestate) if self.traceparent else ""
        self.baggage = _checked_baggage(baggage)
        #: As it goes over the link; empty if there is nothing.
        self.text = "\n".join(f"{name}: {value}" for name, value in self._parts())

    def _parts(self) -> Iterator[tuple[str, str]]:
        for name in (CORRELATION, *_HEADERS):
            if value := getattr(self, name):
                yield name, value

    @classmethod
    def read(cls, text: str) -> TraceContext | None:
        """Read what has come over the link; None if there is nothing valid. Raises nothing."""
        if not text or len(text) > _MOST_BYTES:
            return None
        lines = (line.partition(": ") for line in text.split("\n"))
        return cls.of({name: value for name, _, value in lines})

    @classmethod
    def of(cls, parts: Mapping[str, str]) -> TraceContext | None:
        """Make one of headers and a correlation id, by their names; None if there is nothing valid. Raises nothing."""
        found = cls(*(parts.get(name) or "" for name in (CORRELATION, *_HEADERS)))
        return found if found.text else None

    @property
    def metadata(self) -> dict[str, str]:
        """The parts that are there, by their names: what the wire contract has as metadata of a call."""
        return dict(self._parts())

    @property
    def headers(self) -> dict[str, str]:
        """The headers of W3C that are there, for a request to another service."""
        return {name: value for name, value in self._parts() if name != CORRELATION}


def _checked_parent(text: str) -> str:
    """A traceparent of version 00; empty for one that is not valid."""
    found = _PARENT.match(text) if len(text) <= _LONGEST_PARENT else None
    if found is None:
        return ""
    version, trace, span, flags = found.groups()
    rest = text[found.end() :]
    if version == "ff" or not trace.strip("0") or not span.strip("0"):
        return ""
    if rest and (version == "00" or not rest.startswith("-")):
        return ""
    return f"00-{trace}-{span}-{flags}"  # what is made of a later version is of the version that we know


def _checked_state(text: str) -> str:
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    is_valid = len(text) <= _LONGEST_STATE and len(keys) == len(members) <= _MOST_STATES
    return ",".join(members) if is_valid and all(map(_STATE.fullmatch, members)) else ""


def _checked_baggage(text: str) -> str:
    if len(text) > _LONGEST_BAGGAGE:
        return ""
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    return ",".join(members) if len(members) <= _MOST_ENTRIES and all(map(_ENTRY.fullmatch, members)) else ""


#: The context of this task or thread.
current_trace: Final[ContextVar[TraceContext | None]] = ContextVar("snakepit_trace", default=None)


def correlation_id() -> str | None:
    """Return the correlation id of this task or thread; None if there is none.

    On the host it is that of `snakepit_trio.telemetry.correlated`. In a tool, and in a host tool, it is that of the
    call which it serves; tasks and threads have it as they have other context variables.
    """
    context = current_trace.get()
    return None if context is None else context.correlation_id or None


def trace_headers() -> dict[str, str]:
    """Return the headers traceparent, tracestate and baggage of this task or thread, as far as it has any.

    Send them with requests to other services, so that these join the trace. It is as `correlation_id` about where it
    may be called.
    """
    context = current_trace.get()
    return {} if context is None else context.headers


@contextmanager
def correlated(
    correlation_id: str | None = None, *, headers: Mapping[str, str] | None = None
) -> Iterator[TraceContext | None]:
    """Give the calls that are made in the block a correlation id, and the trace that headers of a request name.

    The id is 1 to 128 visible characters of ASCII. It goes with each call to its tool, to host tools and to their
    calls, and into a note of each error. Without one, and where `headers` have no valid traceparent or baggage, what
    held before the block goes on.

    `headers` are those of an incoming request, by their names in lower case: traceparent, tracestate and baggage. What
    is invalid in them is ignored, as W3C asks. Raises `UsageError` for an invalid id, which is not shown.
    """
    if correlation_id is not None and not (isinstance(correlation_id, str) and is_correlation_id(correlation_id)):
        raise UsageError("a correlation id is a str of 1 to 128 visible characters of ASCII, without spaces")
    before = current_trace.get()
    parts = {} if before is None else before.metadata
    given = TraceContext.of({name: value for name in _HEADERS if (value := (headers or {}).get(name))})
    if given is not None:
        if given.traceparent:
            parts.pop(TRACESTATE, None)  # it belongs to the other traceparent
        parts |= given.metadata
    if correlation_id is not None:
        parts[CORRELATION] = correlation_id
    context = TraceContext.of(parts)
    current_trace.set(context)
    try:
        yield context
    finally:
        current_trace.set(before)  # not `reset`, which raises where a fixture or a generator ends in another context


def note_correlation(error: BaseException, text: str) -> None:
    """Note the correlation id of a call, whose trace context is `text`, on its error; nothing if it has none."""
    context = TraceContext.read(text)
    if context is not None and context.correlation_id:
        note = f"correlation id: {context.correlation_id}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def is_correlation_id(text: str) -> bool:
    """Whether a text may be a correlation id."""
    return _CORRELATION_ID.fullmatch(text) is not None
