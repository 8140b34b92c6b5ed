"""Converts errors to gRPC statuses or to the error texts in answers of the wire contract, and back."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

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
    StaleEpoch,
    UnknownTool,
    UsageError,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
    fault_of,
)
from bridge_py.wire.readable import LONGEST, readable

from .requests import NotTaken

# The first class that an error is an instance of decides.
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
# How gRPC's libraries, and our own servers, refuse a message for its size.
_TOO_LARGE: Final = re.compile(
    "message larger than|message of [0-9]+ bytes|message length exceeds|message too large", re.IGNORECASE
)


def status_of(error: BaseException) -> GRPCError:
    """Convert an exception to the gRPC error with its status."""
    if isinstance(error, GRPCError):
        return error
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), Status.INTERNAL)
    text = str(error) or type(error).__name__
    if status is Status.NOT_FOUND and "not found" not in text:
        text = f"not found: {text}"  # clients look for these words
    return GRPCError(status, text)


def error_of_status(error: GRPCError) -> SnakepitError:
    """Convert a gRPC error to the exception that its status stands for."""
    # A tool's failure may be in it as JSON, which is several times as long.
    message = readable(error.message or "", 4 * LONGEST)
    kind = _ERRORS.get(error.status)
    if error.status is Status.RESOURCE_EXHAUSTED and _TOO_LARGE.search(message):
        return RemoteError(f"{message}: the message is too large for the peer", error.status.name)
    if kind is None:
        return RemoteError(message, error.status.name)
    if kind is VariableNotFound and "session" in message.partition("not found")[0]:
        return SessionNotFound(message)
    if kind is SessionError and message.startswith("stale epoch:"):
        return StaleEpoch(message)
    return kind(message)


def plain_text(fault: Fault) -> str:
    """Write the text for a tool's failure that version 0.4 of the contract has."""
    return f"{fault.type}: {fault.message}" if fault.type and fault.code in ("tool", "host_tool") else fault.message


def json_text(fault: Fault) -> str:
    """Write the JSON text for a tool's failure that version 0.13 of the contract has."""
    return json.dumps({"type": fault.type or fault.code, "message": fault.message, "stacktrace": fault.traceback})


def failure_of(text: str) -> Fault:
    """Read a tool's failure from a text of either version."""
    try:
        told: Any = json.loads(text)
        if isinstance(told, dict) and "message" in told:
            return _failure_of(told)
    except (ValueError, RecursionError):  # it is no JSON, or nested too deeply
        pass
    return Fault("tool", text or "it failed, and did not say why")


def _failure_of(told: dict[str, Any]) -> Fault:
    trace = told.get("stacktrace") or ""
    lines = "\n".join(map(str, trace)) if isinstance(trace, list) else str(trace)
    return Fault("tool", str(told["message"]), str(told.get("type") or ""), lines)


def text_of(error: BaseException) -> str:
    """Write the text for an exception that version 0.4 of the contract has."""
    return plain_text(fault_of(error))


class translated:  # noqa: N801 - used like a function
    """Turns exceptions of grpclib and of the operating system into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GRPCError):
            raise error_of_status(error) from None
        if isinstance(error, TimeoutError):
            text = str(error) if isinstance(error, NotTaken) else "there was no answer in time"
            raise RemoteError(text, "DEADLINE_EXCEEDED") from None
        if isinstance(error, (OSError, StreamTerminatedError, EOFError)):
            raise RemoteError(f"the peer cannot be reached: {error or type(error).__name__}", "UNAVAILABLE") from error
