"""Errors as statuses of gRPC, and as the text in an answer of the wire contract; and back."""

from __future__ import annotations

import json
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bridge_py.wire.errors import (
    AccessDenied,
    DecodeError,
    Fault,
    InvalidValue,
    ProgramNotFound,
    QuotaExceeded,
    RemoteError,
    SessionError,
    SessionNotFound,
    SnakepitError,
    UnknownTool,
    UsageError,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
    fault_of,
)

# The first that fits counts.
_STATUSES: Final[list[tuple[type[SnakepitError], Status]]] = [
    (VariableNotFound, Status.NOT_FOUND),
    (SessionNotFound, Status.NOT_FOUND),
    (ProgramNotFound, Status.NOT_FOUND),
    (UnknownTool, Status.NOT_FOUND),
    (VersionConflict, Status.ABORTED),
    (VariableExists, Status.ALREADY_EXISTS),
    (AccessDenied, Status.PERMISSION_DENIED),
    (QuotaExceeded, Status.RESOURCE_EXHAUSTED),
    (UsageError, Status.INVALID_ARGUMENT),
    (DecodeError, Status.INVALID_ARGUMENT),
    (SessionError, Status.FAILED_PRECONDITION),
    (VariableError, Status.FAILED_PRECONDITION),
]
_ERRORS: Final[dict[Status, type[SnakepitError]]] = {
    Status.NOT_FOUND: VariableNotFound,
    Status.ABORTED: VersionConflict,
    Status.ALREADY_EXISTS: VariableExists,
    Status.PERMISSION_DENIED: AccessDenied,
    Status.RESOURCE_EXHAUSTED: QuotaExceeded,
    Status.INVALID_ARGUMENT: InvalidValue,
    Status.FAILED_PRECONDITION: SessionError,
}


def status_of(error: BaseException) -> GRPCError:
    """The status that an exception is told as."""
    if isinstance(error, GRPCError):
        return error
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), Status.INTERNAL)
    text = str(error) or type(error).__name__
    if status is Status.NOT_FOUND and "not found" not in text:
        text = f"not found: {text}"  # clients look for these words
    return GRPCError(status, text)


def error_of_status(error: GRPCError) -> SnakepitError:
    """The exception that a status stands for."""
    message = error.message or ""
    kind = _ERRORS.get(error.status)
    if kind is None:
        return RemoteError(message, error.status.name)
    if kind is VariableNotFound and "session" in message.partition("not found")[0]:
        return SessionNotFound(message)
    return kind(message)


def plain_text(fault: Fault) -> str:
    """A tool's failure, as 0.4 tells it."""
    return f"{fault.type}: {fault.message}" if fault.type and fault.code in ("tool", "host_tool") else fault.message


def json_text(fault: Fault) -> str:
    """A tool's failure, as 0.13 tells it."""
    return json.dumps({"type": fault.type or fault.code, "message": fault.message, "stacktrace": fault.traceback})


def failure_of(text: str) -> Fault:
    """A tool's failure, from either."""
    try:
        told: Any = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "message" not in told:
        return Fault("tool", text or "it failed, and did not say why")
    trace = told.get("stacktrace") or ""
    lines = "\n".join(map(str, trace)) if isinstance(trace, list) else str(trace)
    return Fault("tool", str(told["message"]), str(told.get("type") or ""), lines)


def text_of(error: BaseException) -> str:
    """An exception, as 0.4 tells it."""
    return plain_text(fault_of(error))
