"""All public names of the package but those of the contract's client. The package loads this on first use."""

import bridge_py
from bridge_py import current_context
from bridge_py.dynamic.references import RemoteRef, Verbatim
from bridge_py.wire.errors import (
    AccessDenied,
    CallTimeout,
    CodecError,
    DebuggerQuit,
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
    StaleEpoch,
    StoreCorrupt,
    StoredObjectLost,
    StoredObjectNotFound,
    StoreUnavailable,
    ToolError,
    UnknownTool,
    UsageError,
    VariableError,
    VariableExists,
    VariableNotFound,
    VersionConflict,
    WrongCallKind,
)
from bridge_py.wire.public_names import expose
from bridge_py.wire.registry import register_codec
from bridge_py.wire.variable import AccessRules, HistoryEntry, Optimization, Variable

from . import variables
from ._calls.mapping import Results
from ._calls.progress import Progress
from ._calls.streams import Chunks
from ._config.adapters import Adapter, GrpcBridge, GrpcPython
from ._config.config import Launcher, PoolConfig, Site
from ._config.limits import Limits
from ._config.options import PoolOptions
from ._config.policies import RecyclePolicy, RetryPolicy
from ._config.stdio_adapters import StdioJson, StdioMsgpack
from ._config.worker_options import WorkerOptions
from ._pool import programs as session_helpers
from ._pool.call_info import CallInfo
from ._pool.calls import Calls
from ._pool.context import BridgedState, Context, LocalState
from ._pool.opening import open_pool
from ._pool.pool import Pool
from ._pool.scripts import run_as_script
from ._pool.session import SessionHandle
from ._pool.stats import PoolStats
from ._pool.worker_info import PoolHealth, WorkerInfo
from ._processes.registry import force_cleanup_all
from ._python.api import PythonAPI
from ._python.placements import Step
from ._requests.tool_registry import HostCall, ParameterSpec, RegisteredTool, ToolRegistry, ToolSpec
from ._workers.worker_state import WorkerState
from .errors import (
    CallCancelled,
    OutOfResources,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolNotReady,
    PoolSaturated,
    ResourcesNotOffered,
    Tainted,
    WorkerBusy,
    WorkerCrashed,
    WorkerError,
    WorkerStartError,
)
from .state.hash_ring import HashRing
from .state.provider import StateProvider
from .state.quotas import Quotas
from .state.session import Change, Session
from .state.store import MemoryStore, SessionStore, StoreStats
from .state.view import SessionInfo, SessionView
from .state.watching import Update, Watcher
from .telemetry import Event, EventStream

__all__ = [
    "AccessDenied",
    "AccessRules",
    "Adapter",
    "BridgedState",
    "CallCancelled",
    "CallInfo",
    "CallTimeout",
    "Calls",
    "Change",
    "Chunks",
    "CodecError",
    "Context",
    "DebuggerQuit",
    "DecodeError",
    "EncodeError",
    "Event",
    "EventStream",
    "GrpcBridge",
    "GrpcPython",
    "HashRing",
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
    "ParameterSpec",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolDeadlock",
    "PoolError",
    "PoolHealth",
    "PoolNotReady",
    "PoolOptions",
    "PoolSaturated",
    "PoolStats",
    "ProgramNotFound",
    "Progress",
    "ProtocolError",
    "PythonAPI",
    "QuotaExceeded",
    "Quotas",
    "RecyclePolicy",
    "RegisteredTool",
    "RemoteError",
    "RemoteRef",
    "ResourcesNotOffered",
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
    "StaleEpoch",
    "StateProvider",
    "StdioJson",
    "StdioMsgpack",
    "Step",
    "StoreCorrupt",
    "StoreStats",
    "StoreUnavailable",
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
    "WorkerOptions",
    "WorkerStartError",
    "WorkerState",
    "WrongCallKind",
    "current_context",
    "force_cleanup_all",
    "open_pool",
    "register_codec",
    "run_as_script",
    "session_helpers",
    "variables",
]

# A worker knows the names of `bridge_py` without this package, so they keep `bridge_py` as their module.
expose("snakepit_trio", {name: globals()[name] for name in __all__}, without=bridge_py.__all__)
