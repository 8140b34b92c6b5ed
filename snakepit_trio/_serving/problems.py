"""What went wrong with a request, as problem+json (RFC 9457), and the statuses of our errors."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs
import msgspec

from bridge_py.wire.errors import (
    AccessDenied,
    CallTimeout,
    CodecError,
    DebuggerQuit,
    DecodeError,
    EncodeError,
    InvalidArguments,
    InvalidCall,
    InvalidValue,
    NotAllowed,
    ProgramNotFound,
    ProtocolError,
    QuotaExceeded,
    RemoteError,
    SessionError,
    SessionNotFound,
    SnakepitError,
    StaleEpoch,
    StoreCorrupt,
    StoredObjectLost,
    StoredObjectNotFound,
    StoreUnavailable,
    ToolError,
    UnknownTool,
    VariableError,
    VariableNotFound,
    WrongCallKind,
)
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import (
    CallCancelled,
    OutOfResources,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolSaturated,
    ResourcesNotOffered,
    Tainted,
    WorkerBusy,
    WorkerCrashed,
    WorkerError,
)

from .asgi import Answer, Header

PROBLEM_JSON: Final = "application/problem+json"
PREFIX: Final = "urn:snakepit-trio:problem:"
_LONGEST: Final = 4000  # characters of a detail
logger = get_logger("snakepit.http")


class Problem(Exception):
    """An answer that says what went wrong.

    `name` ends the URI of the problem's type, and `title` is the same for all problems of a type. `detail` is about
    this one. `more` are further members, and `headers` further headers of the answer.
    """

    def __init__(
        self, status: int, name: str, title: str, detail: str, *, headers: tuple[Header, ...] = (), **more: Any
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.headers = headers
        if len(detail) > _LONGEST:
            detail = f"{detail[:_LONGEST]}..."
        self.members: dict[str, Any] = {
            "type": PREFIX + name,
            "title": title,
            "status": status,
            "detail": detail.encode("utf-8", "backslashreplace").decode(),
            **more,
        }

    def body(self) -> bytes:
        """The problem as JSON, on one line."""
        return msgspec.json.encode(self.members)

    def answer(self) -> Answer:
        """The problem as a response."""
        return Answer(self.status, self.body(), PROBLEM_JSON, self.headers)


@attrs.frozen
class Kind:
    """How a class of errors is answered. `retry_after`, in seconds, is when to try again; 0 says nothing about that."""

    error: type[SnakepitError]
    status: int
    name: str
    title: str
    retry_after: float = 0


#: The first row whose class an error belongs to is the one that counts. docs/http.md has the same table.
KINDS: Final = (
    Kind(InvalidArguments, 422, "invalid-arguments", "The arguments do not fit the tool"),
    Kind(UnknownTool, 404, "unknown-tool", "There is no such tool"),
    Kind(NotAllowed, 403, "not-allowed", "The call is not allowed"),
    Kind(AccessDenied, 403, "not-allowed", "The call is not allowed"),
    Kind(InvalidCall, 422, "invalid-call", "The call cannot be made"),
    Kind(InvalidValue, 422, "invalid-value", "A value does not fit"),
    Kind(WrongCallKind, 409, "tool-changed", "The tool has changed meanwhile"),
    Kind(SessionNotFound, 404, "session-not-found", "There is no such session"),
    Kind(QuotaExceeded, 507, "quota-exceeded", "The session, or the store of sessions, is full"),
    Kind(StaleEpoch, 409, "stale-epoch", "The session was taken over meanwhile"),
    Kind(StoreUnavailable, 503, "store-unavailable", "The store of sessions cannot be used now", 5),
    Kind(StoreCorrupt, 500, "store-corrupt", "The store of sessions holds data that cannot be read"),
    Kind(StoredObjectLost, 410, "object-lost", "A stored object is gone with its worker"),
    Kind(VariableNotFound, 404, "variable-not-found", "The session has no such variable"),
    Kind(ProgramNotFound, 404, "program-not-found", "There is no such program"),
    Kind(StoredObjectNotFound, 404, "object-not-found", "The session has no such stored object"),
    Kind(SessionError, 409, "session-conflict", "The session cannot do that"),
    Kind(VariableError, 409, "session-conflict", "The session cannot do that"),
    Kind(ToolError, 500, "tool-error", "The tool raised an exception"),
    Kind(EncodeError, 500, "unsendable", "A value of the call cannot be sent"),
    Kind(CallTimeout, 504, "timeout", "The time of the call is used up"),
    Kind(CallCancelled, 503, "cancelled", "The call was cancelled by the owner of the server"),
    Kind(DebuggerQuit, 503, "cancelled", "The call was cancelled by the owner of the server"),
    Kind(WorkerCrashed, 502, "worker-crashed", "The worker that ran the call died"),
    Kind(WorkerError, 503, "no-worker", "No worker can run the call", 5),
    Kind(PoolSaturated, 503, "queue-full", "The queue is full", 1),
    Kind(WorkerBusy, 503, "worker-busy", "The worker of the session is busy", 1),
    Kind(Tainted, 503, "tainted", "Calls like this one have killed workers, and are refused for a while", 1),
    Kind(OutOfResources, 503, "out-of-resources", "The server lacks memory, descriptors or disk space", 5),
    # Trying again does not help: nobody says when.
    Kind(ResourcesNotOffered, 503, "resources-not-offered", "No worker offers what the call needs"),
    Kind(PoolDeadlock, 503, "deadlock", "The call would have waited for ever", 1),
    Kind(PoolClosed, 503, "closing", "The server is closing", 5),
    Kind(PoolError, 503, "pool", "The pool cannot run the call", 1),
    Kind(CodecError, 502, "bad-answer", "The worker's answer cannot be read"),
    Kind(DecodeError, 502, "bad-answer", "The worker's answer cannot be read"),
    Kind(ProtocolError, 502, "bad-answer", "The worker's answer cannot be read"),
    Kind(RemoteError, 502, "bad-answer", "The worker's answer cannot be read"),
)


def problem_of(error: Exception) -> Problem:
    """How an exception is answered. What is neither ours nor a tool's is logged, and its text stays here."""
    if isinstance(error, Problem):
        return error
    for kind in KINDS:
        if isinstance(error, kind.error):
            return Problem(
                kind.status, kind.name, kind.title, _detail(error), headers=_retry_after(kind, error), **_more(error)
            )
    logger.error("a request failed inside the server", exc_info=error)
    return Problem(500, "internal", "The server has an error", "the log of the server says what happened")


def _detail(error: SnakepitError) -> str:
    # A tool's own text, without the worker's name. A traceback stays in the server.
    return f"{error.type}: {error.message}" if isinstance(error, ToolError) else str(error)


def _more(error: SnakepitError) -> dict[str, Any]:
    if isinstance(error, InvalidArguments) and error.parameter:
        pointer = "/" + error.parameter.replace("~", "~0").replace("/", "~1")
        return {"errors": [{"detail": str(error)[:_LONGEST], "pointer": f"#{pointer}"}]}
    if isinstance(error, ToolError):
        return {"exception": error.type}
    return {}


def _retry_after(kind: Kind, error: SnakepitError) -> tuple[Header, ...]:
    seconds = error.seconds if isinstance(error, Tainted) else kind.retry_after
    return (("retry-after", str(max(1, math.ceil(seconds)))),) if kind.retry_after else ()
