"""A structured-concurrency runtime for work in worker processes: when a call is over, it is over."""

from typing import TYPE_CHECKING, Any

from bridge_py.references import RemoteRef, Verbatim
from bridge_py.wire.errors import (
    AccessDenied,
    CallTimeout,
    CodecError,
    DecodeError,
    EncodeError,
    HostToolError,
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
    StoredObjectLost,
    StoredObjectNotFound,
    ToolError,
    UnknownTool,
    UsageError,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
    WrongCallKind,
)
from bridge_py.wire.registry import register_codec
from bridge_py.wire.variable import AccessRules, HistoryEntry, Optimization, Variable

from . import session_helpers, variables
from .adapters import Adapter, GrpcBridge, GrpcPython
from .config import PoolConfig
from .errors import (
    OutOfResources,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolNotReady,
    PoolSaturated,
    Tainted,
    WorkerBusy,
    WorkerCrashed,
    WorkerError,
    WorkerStartError,
)
from .handle import SessionHandle
from .launcher import Launcher, Site
from .limits import Limits
from .policy import RecyclePolicy, RetryPolicy
from .pool import Pool, open_pool
from .python import PythonAPI
from .scripts import run_as_script
from .shelves import Step
from .state.context import BridgedState, Context, LocalState
from .state.provider import StateProvider
from .state.quotas import Quotas
from .state.session import Change, Session
from .state.store import MemoryStore, SessionStore, StoreStats
from .state.view import SessionInfo, SessionView
from .state.watching import Update, Watcher
from .stats import PoolStats
from .stdio import StdioJson, StdioMsgpack
from .streams import Chunks, Results
from .telemetry import Event
from .tools import HostCall, RegisteredTool, ToolRegistry, ToolSpec
from .worker_state import WorkerState
from .workers import PoolHealth, WorkerInfo

__all__ = [
    "AccessDenied",
    "AccessRules",
    "Adapter",
    "BridgedState",
    "CallTimeout",
    "Change",
    "Chunks",
    "Client",
    "CodecError",
    "Context",
    "DecodeError",
    "EncodeError",
    "Event",
    "GrpcBridge",
    "GrpcPython",
    "HistoryEntry",
    "HostCall",
    "HostToolError",
    "InvalidArguments",
    "InvalidCall",
    "InvalidValue",
    "Launcher",
    "Limits",
    "LocalState",
    "MemoryStore",
    "NotAllowed",
    "Optimization",
    "OutOfResources",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolDeadlock",
    "PoolError",
    "PoolHealth",
    "PoolNotReady",
    "PoolSaturated",
    "PoolStats",
    "ProgramNotFound",
    "ProtocolError",
    "PythonAPI",
    "QuotaExceeded",
    "Quotas",
    "RecyclePolicy",
    "RegisteredTool",
    "RemoteError",
    "RemoteRef",
    "Results",
    "RetryPolicy",
    "Session",
    "SessionError",
    "SessionHandle",
    "SessionInfo",
    "SessionNotFound",
    "SessionStore",
    "SessionView",
    "Site",
    "SnakepitError",
    "StateProvider",
    "StdioJson",
    "StdioMsgpack",
    "Step",
    "StoreStats",
    "StoredObjectLost",
    "StoredObjectNotFound",
    "Tainted",
    "ToolError",
    "ToolRegistry",
    "ToolSpec",
    "UnknownTool",
    "Update",
    "UsageError",
    "Variable",
    "VariableError",
    "VariableExists",
    "VariableNotFound",
    "Verbatim",
    "VersionConflict",
    "Watcher",
    "WorkerBusy",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerStartError",
    "WorkerState",
    "WrongCallKind",
    "open_client",
    "open_pool",
    "register_codec",
    "run_as_script",
    "session_helpers",
    "variables",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from .bridge.client import Client, open_client


def __getattr__(name: str) -> Any:
    """The client of the wire contract, whose messages take a fifth of what all else takes to import."""
    if name not in ("Client", "open_client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .bridge import client

    return getattr(client, name)
