"""Reading a request: its path, headers and body. What cannot be right is a `Problem`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar

import attrs
import trio

from bridge_py.wire.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE, correlated, is_correlation_id

from .asgi import EVENTS, JSON, ClientLeft, Receive, Scope
from .problems import Problem

T = TypeVar("T")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_PRIORITY: Final = re.compile(r"[+-]?[0-9]{1,3}")
_HIGHEST_PRIORITY: Final = 100
_SESSION: Final = re.compile(r"[!-~]{1,128}")
_QUALITY: Final = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE)
_TRACE: Final = (TRACEPARENT, TRACESTATE, BAGGAGE, "x-request-id")
_SLOWEST: Final = 30.0  # seconds in which a body must have come
_DIGITS: Final = 19  # of a length in bytes: more are beyond any bound
_LINGER: Final = 5.0  # seconds in which the rest of a body that is too large may come


class Headers:
    """The headers of a request, by their names in lower case."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def one(self, name: str) -> str | None:
        """The value of a header, or None. Raises a `Problem` if the header is there twice."""
        values = self._values.get(name, [])
        if len(values) > 1:
            raise _bad_header(name, f"the header {name} is there {len(values)} times: send it once")
        return values[0] if values else None

    def all(self, name: str) -> str | None:
        """The values of a header that is a list, as one; None without the header."""
        values = self._values.get(name)
        return None if values is None else ", ".join(values)


def _bad_header(name: str, detail: str) -> Problem:
    return Problem(400, "bad-header", "A header cannot be read", detail, header=name)


@attrs.frozen
class CallOptions:
    """What the headers of a request say about its call. `timeout` is in seconds; None where they say nothing."""

    timeout: float | None
    priority: int | None
    session: str | None


def options_of(headers: Headers, most_seconds: float, highest_priority: int, *, sessions: bool) -> CallOptions:
    """Read the headers of a call; a timeout or a priority above what the server allows is lowered to that."""
    timeout = _read(headers, "request-timeout", _SECONDS, "seconds, such as 2.5", float)
    if timeout == 0:
        raise _bad_header("request-timeout", "request-timeout: 0 leaves no time: send seconds, more than 0")
    priority = _read(headers, "call-priority", _PRIORITY, "a whole number from -100 to 100", int)
    if priority is not None and abs(priority) > _HIGHEST_PRIORITY:
        raise _bad_header("call-priority", f"call-priority: {priority}: send a whole number from -100 to 100")
    session = _read(headers, "session-id", _SESSION, "1 to 128 visible characters of ASCII", str)
    if session is not None and not sessions:
        raise _bad_header("session-id", "this server takes no sessions: leave the header session-id out")
    return CallOptions(
        None if timeout is None else min(timeout, most_seconds),
        None if priority is None else min(priority, highest_priority),
        session,
    )


def trace_of(headers: Headers) -> AbstractContextManager[object]:
    """Make a block whose calls join the trace that a request names, with its X-Request-Id as their correlation id.

    What is invalid in these headers is ignored, as W3C asks.
    """
    given = {name: value for name in _TRACE if (value := headers.all(name)) is not None}
    if not given:
        return nullcontext()
    request_id = given.pop("x-request-id", "")
    return correlated(request_id if is_correlation_id(request_id) else None, headers=given)


def _read(headers: Headers, name: str, form: re.Pattern[str], wanted: str, read: Callable[[str], T]) -> T | None:
    value = headers.one(name)
    if value is None:
        return None
    if not form.fullmatch(value):
        raise _bad_header(name, f"{name}: {value[:100]!r}: send {wanted}")
    return read(value)


# What the client takes.


def quality(accept: str | None, kind: str) -> float:
    """How much a client wants a media type, from 0 to 1, by its Accept header. Without the header it takes all."""
    if accept is None:
        return 1.0
    family = kind.partition("/")[0]
    best, found = -1, 0.0
    for part in accept.split(","):
        name, *parameters = part.split(";")
        rank = {"*/*": 0, f"{family}/*": 1, kind: 2}.get(name.strip().lower(), -1)
        if rank > best:
            best, found = rank, _quality_of(parameters)
    return found


def _quality_of(parameters: list[str]) -> float:
    for parameter in parameters:
        if match := _QUALITY.fullmatch(parameter):
            return float(match[1])
    return 1.0


def wants_events(headers: Headers, *, streaming: bool) -> bool:
    """Whether a call is answered by events. Raises a `Problem` with 406 if the client takes no form of the answer.

    A stream always is. A plain tool is if the client wants events more than JSON.
    """
    accept = headers.all("accept")
    events, plain = quality(accept, EVENTS), quality(accept, JSON)
    if streaming and events > 0:
        return True
    if not streaming and max(events, plain) > 0:
        return events > plain
    offered = EVENTS if streaming else f"{JSON} or {EVENTS}"
    raise Problem(406, "not-acceptable", "The answer has no such form", f"send Accept: {offered}, or no Accept")


# The body.


def check_content_type(headers: Headers) -> None:
    """Raise a `Problem` with 415 for anything but JSON that is not compressed.

    Browsers send JSON to another site only if that site allows it, so this keeps foreign pages out as well.
    """
    kind, *parameters = (headers.one("content-type") or "").split(";")
    texts = [each.lower().replace(" ", "").replace('"', "") for each in parameters]
    if kind.strip().lower() != JSON or any(each.startswith("charset=") and each != "charset=utf-8" for each in texts):
        raise _not_json(f"send the arguments with Content-Type: {JSON}", ("accept-post", JSON))
    if (coding := headers.one("content-encoding")) not in (None, "", "identity"):
        raise _not_json(f"content-encoding: {coding!r:.100}: send the body as it is", ("accept-encoding", "identity"))


def _not_json(detail: str, header: tuple[str, str]) -> Problem:
    return Problem(415, "not-json", "The body is not JSON", detail, headers=(header,))


async def read_body(receive: Receive, headers: Headers, most: int) -> bytes:
    """Read a body of at most `most` bytes. Raises `ClientLeft`, and a `Problem` with 413 or 408.

    The rest of a body that is too large is read and dropped for a while: clients read no answer before they have sent
    all.
    """
    parts: list[bytes] = []
    is_too_large, size = _is_beyond(headers.one("content-length") or "", most), 0
    with trio.move_on_after(_LINGER if is_too_large else _SLOWEST) as waiting:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            if size > most and not is_too_large:
                is_too_large = True
                parts.clear()
                waiting.deadline = min(waiting.deadline, trio.current_time() + _LINGER)
            if not is_too_large:
                parts.append(part)
            if not message.get("more_body", False):
                break
    if is_too_large:
        raise Problem(413, "too-large", "The body is too large", f"send at most {most} bytes", limit=most)
    if waiting.cancelled_caught:
        raise Problem(408, "slow-body", "The body did not come in time", f"send it within {_SLOWEST:.0f} seconds")
    return b"".join(parts)


def _is_beyond(said: str, most: int) -> bool:
    """Whether a client has said that its body is too large. Python refuses to read thousands of digits as a number."""
    digits = said.lstrip("0") if said.isascii() and said.isdigit() else ""
    return len(digits) > _DIGITS or int(digits or "0") > most


# The path.


def path_of(scope: Scope) -> str:
    """The path below the place where the app is mounted.

    By ASGI, `path` begins with `root_path`. Some dispatchers cut it off, so it is removed only where it is there.
    """
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"
