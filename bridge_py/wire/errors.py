"""The errors that both sides know, and how an error crosses the wire.

The root is `SnakepitError`. Its branches say where the fault lies: with the caller (`UsageError`), the tool
(`ToolError`), the state (`SessionError`, `VariableError`), the clock (`CallTimeout`) or the link
(`ProtocolError`). The host adds its own branches for processes and capacity in `snakepit_trio.errors`.
"""

from __future__ import annotations

import traceback

import msgspec

from .readable import readable
from .timing import Timing


class SnakepitError(Exception):
    """Root of every error that snakepit-trio raises on purpose.

    `timing` tells how the time of the call was spent that has failed. It is None for errors of no call.
    """

    timing: Timing | None = None


class UsageError(SnakepitError):
    """The caller asked for something impossible; asking again in the same way will not help."""


class InvalidArguments(UsageError, TypeError):
    """A tool's arguments do not fit its signature. `parameter` names the wrong one, or is empty.

    Raised before the tool runs.
    """

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownTool(UsageError, LookupError):
    """The adapter has no tool of that name; the message lists similar names."""


class WrongCallKind(UsageError):
    """A streaming tool was executed as a plain call, or the other way round."""


class EncodeError(UsageError, TypeError):
    """A value cannot be sent. Raised on the side that holds the value, before anything is sent."""


class DecodeError(SnakepitError, ValueError):
    """Bytes from the peer are not a value."""


class InvalidValue(UsageError, ValueError):
    """A value does not fit its variable's type, or a constraint. `type` and `constraint` name them, or are empty."""

    def __init__(self, message: str, type: str = "", constraint: str = "") -> None:
        super().__init__(message)
        self.type = type
        self.constraint = constraint


class InvalidCall(UsageError):
    """A dynamic call, or a call that stores objects, asks for something impossible. The message says what to do."""


class NotAllowed(UsageError):
    """A dynamic call would reach something that is not on the adapter's allow-list. Nothing was run."""


class CodecError(UsageError, DecodeError):
    """A value has come, but its library or its codec is missing here, or fails. The message names the library or codec.

    It is a `DecodeError` that is not the peer's fault.
    """


class SessionError(SnakepitError):
    """A session cannot do what was asked."""


class SessionNotFound(SessionError, LookupError):
    """There is no session of that id, or it has expired."""


class QuotaExceeded(SessionError):
    """A store or a session is full: it may not hold more."""


class StaleEpoch(SessionError):
    """The session was taken over by another host, worker or handle since the caller began. Nothing was written.

    Do not repeat the write: read the session again first, in a new call or with a new handle.
    """


class StoreUnavailable(SessionError):
    """The store of sessions cannot be reached, or has no room: what it acknowledged is kept. Try again later.

    The message says what is wrong. It also says so where a change may have been made or not.
    """


class StoreCorrupt(SessionError):
    """The store holds data that cannot be read: somebody else wrote it, or it was damaged. The message names it."""


class ProgramNotFound(SessionError, LookupError):
    """The session, or the store, has no program of that id."""


class StoredObjectNotFound(SessionError, LookupError):
    """The session has no stored object of that name, and never had; the message lists the session's objects."""


class StoredObjectLost(SessionError):
    """A stored object is gone with the worker that held it. Store it again, next time perhaps with `durable=True`."""


class VariableError(SnakepitError):
    """A variable cannot do what was asked. For a value that does not fit, `InvalidValue` is raised."""


class VariableNotFound(VariableError, LookupError):
    """The session has no variable of that name or id."""


class VariableExists(VariableError):
    """The session has a variable of that name already."""


class VersionConflict(VariableError):
    """The variable has another version than the caller expected, because somebody else changed it first."""


class AccessDenied(VariableError):
    """The variable's rules do not let the caller do that."""


class ToolError(SnakepitError):
    """The tool raised. Carries `type`, `message` and `remote_traceback`, and `tool` and `worker_id`, all `str`.

    The last two are empty where they are not known. The remote traceback is a note of the exception, so that it is
    printed below the local one.
    """

    _where = "in the worker"

    def __init__(self, message: str, type: str = "", remote_traceback: str = "") -> None:
        super().__init__(f"{type}: {message}" if type else message)
        self.type = type
        self.message = message
        self.remote_traceback = remote_traceback
        self.tool = self.worker_id = ""
        self._raised = b""  # the exception itself, as `raised.describe` describes it
        self._pickled = b""
        if remote_traceback:
            self.add_note(f"Traceback {self._where}:\n{remote_traceback.rstrip()}")

    def __str__(self) -> str:
        return f"{_by(self.tool, self.worker_id)} raised {super().__str__()}" if self.tool else super().__str__()


class HostToolError(ToolError):
    """Code in a worker called a host tool, and the host tool raised.

    `type`, `message` and `remote_traceback` describe its exception, and `tool` is the host tool's name; all are `str`.
    """

    _where = "on the host"

    def __init__(self, message: str, type: str = "", remote_traceback: str = "", tool: str = "") -> None:
        super().__init__(message, type, remote_traceback)
        self.tool = tool

    def __str__(self) -> str:
        return f"host tool {self.tool!r} raised {SnakepitError.__str__(self)}"


class RemoteError(SnakepitError):
    """A peer of the wire contract has answered with a status that stands for none of our errors.

    `status` is its name, for example "UNIMPLEMENTED".
    """

    def __init__(self, message: str, status: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class CallTimeout(SnakepitError, TimeoutError):
    """A call's budget (queueing, wire and tool together) is used up. Its work has been stopped."""


class DebuggerQuit(SnakepitError):
    """A call stood at a breakpoint. Its debugger was left with `quit`, or has lost its terminal. The call has ended."""


class ToolCancelled(BaseException):
    """Raised inside a running sync tool whose call was cancelled. Let it pass.

    It is no `Exception`, so that `except Exception` does not catch it.
    """


class ProtocolError(SnakepitError):
    """The rules of the link were broken."""


class LocalProtocolError(ProtocolError):
    """Our side tried to send a frame that the rules forbid."""


class RemoteProtocolError(ProtocolError):
    """The peer sent data that the rules forbid; the link cannot go on."""


class FrameTooLarge(LocalProtocolError):
    """A frame would be larger than the link allows; nothing was sent."""


class Fault(msgspec.Struct, omit_defaults=True):
    """The body of an error frame: an exception in a form that every peer can read."""

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    parameter: str = ""
    #: The exception of a tool, as `raised.describe` describes it; empty if it cannot be made again.
    raised: bytes = b""
    #: The same as a pickle, of a function that is called with pickles.
    pickled: bytes = b""


_LONGEST_TEXT = 20_000
_LONGEST_NAME = 1_000
CANCELLED = "cancelled"
NOT_STARTED = "not_started"

_BY_CODE: dict[str, type[SnakepitError]] = {
    "invalid_call": InvalidCall,
    "not_allowed": NotAllowed,
    "invalid_arguments": InvalidArguments,
    "unknown_tool": UnknownTool,
    "wrong_call_kind": WrongCallKind,
    "encode": EncodeError,
    "codec": CodecError,
    "decode": DecodeError,
    "invalid_value": InvalidValue,
    "session": SessionError,
    "session_not_found": SessionNotFound,
    "quota_exceeded": QuotaExceeded,
    "stale_epoch": StaleEpoch,
    "store_unavailable": StoreUnavailable,
    "store_corrupt": StoreCorrupt,
    "program_not_found": ProgramNotFound,
    "stored_object_not_found": StoredObjectNotFound,
    "stored_object_lost": StoredObjectLost,
    "variable_not_found": VariableNotFound,
    "variable_exists": VariableExists,
    "version_conflict": VersionConflict,
    "access_denied": AccessDenied,
    "debugger_quit": DebuggerQuit,
    "tool": ToolError,
}
_CODE_OF = {error: code for code, error in _BY_CODE.items()}


def fault_of(error: BaseException) -> Fault:
    """Describe an exception for the peer: one of our own by its code, any other one as the tool's."""
    code = _CODE_OF.get(type(error), "tool") if isinstance(error, SnakepitError) else "tool"
    if isinstance(error, InvalidValue):
        return Fault(code, _text_of(error), type=error.type, parameter=error.constraint)
    if isinstance(error, HostToolError):
        return Fault("host_tool", error.message, error.type, error.remote_traceback, error.tool)
    if type(error) is ToolError:
        return Fault(code, error.message, error.type, error.remote_traceback)
    if code != "tool":
        return Fault(code, _text_of(error), parameter=getattr(error, "parameter", ""))
    return Fault(code, _text_of(error), type=type_name(error), traceback=_traceback_of(error))


def host_tool_error(error: BaseException, tool: str) -> HostToolError:
    """Make the error that a worker gets when a host tool raises `error`."""
    return HostToolError(_text_of(error), type_name(error), _traceback_of(error), tool)


def tool_error(error: BaseException, prefix: str) -> ToolError:
    """Make an error that a tool may raise in place of an error of user code; `prefix` says at which of its steps."""
    return ToolError(prefix + _text_of(error), type_name(error), _traceback_of(error))


def type_name(error: BaseException) -> str:
    """The name of an exception's class, with its module unless it is builtin or ours."""
    kind = type(error)
    if kind.__module__ == "builtins" or isinstance(error, SnakepitError):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def error_of(fault: Fault) -> SnakepitError:
    """Rebuild the exception that a fault describes.

    Its texts are the peer's: control characters in them are escaped, and texts of more than 40,000 characters are cut.
    """
    raised, pickled, fault = fault.raised, fault.pickled, _readable(fault)
    if fault.code == "invalid_arguments":
        return InvalidArguments(fault.message, fault.parameter)
    if fault.code == "invalid_value":
        return InvalidValue(fault.message, fault.type, fault.parameter)
    if fault.code == "tool":
        error = ToolError(fault.message, fault.type, fault.traceback)
        error._raised, error._pickled = raised, pickled
        return error
    if fault.code == "host_tool":
        return HostToolError(fault.message, fault.type, fault.traceback, fault.parameter)
    return _BY_CODE.get(fault.code, ProtocolError)(fault.message)


def _readable(fault: Fault) -> Fault:
    texts = fault.message, fault.type, fault.traceback, fault.parameter
    if all(map(_is_plain, texts)):
        return fault
    message, kind, trace, parameter = texts
    return Fault(
        fault.code,
        readable(message),
        readable(kind, _LONGEST_NAME),
        readable(trace),
        readable(parameter, _LONGEST_NAME),
    )


def _is_plain(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and text.isprintable()


def raised_by(error: SnakepitError, tool: str, worker_id: str) -> SnakepitError:
    """Return the error that a call has ended with, after adding the names of the call's tool and worker."""
    if type(error) is ToolError:
        error.tool, error.worker_id = tool, worker_id
    elif type(error) is EncodeError:
        error = EncodeError(f"{_by(tool, worker_id)} gave what cannot be sent: {error}")
    else:
        error.add_note(f"raised by {_by(tool, worker_id)}")
    return error


def _by(tool: str, worker_id: str) -> str:
    return f"tool {tool!r} on worker {worker_id}"


def _clip(text: str) -> str:
    # An error must always fit into a frame, even with half of an array or a lone surrogate in its message.
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def words_of(error: BaseException) -> str:
    """The text of an exception of user code, whose `str()` may raise."""
    try:
        return str(error)
    except Exception as broken:
        return f"<its str() raised {type(broken).__name__}>"


def _text_of(error: BaseException) -> str:
    return _clip(words_of(error))


def _traceback_of(error: BaseException) -> str:
    # The outermost frames called the tool; they tell a user nothing. Their modules are marked with `__calls_tools__`.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_globals.get("__calls_tools__") is True:
        trace = trace.tb_next
    try:
        return _clip("".join(traceback.format_exception(type(error), error, trace)))
    except Exception as broken:
        return f"<the traceback could not be formatted: {type(broken).__name__}>"
