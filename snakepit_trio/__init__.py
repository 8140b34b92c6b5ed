"""A structured-concurrency runtime for work in worker processes: when a call is over, it is over."""

from typing import TYPE_CHECKING, Any

import bridge_py
from bridge_py import current_context
from bridge_py.dynamic.references import RemoteRef, Verbatim
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
from bridge_py.wire.public_names import publish
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
from ._pool.calls import Calls
from ._pool.context import BridgedState, Context, LocalState
from ._pool.pool import Pool, open_pool
from ._pool.scripts import run_as_script
from ._pool.session import SessionHandle
from ._pool.stats import PoolStats
from ._pool.worker_info import PoolHealth, WorkerInfo
from ._processes.registry import force_cleanup_all
from ._python.api import PythonAPI
from ._python.placements import Step
from ._requests.tool_registry import HostCall, RegisteredTool, ToolRegistry, ToolSpec
from ._workers.worker_state import WorkerState
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
from .state.provider import StateProvider
from .state.quotas import Quotas
from .state.session import Change, Session
from .state.store import MemoryStore, SessionStore, StoreStats
from .state.view import SessionInfo, SessionView
from .state.watching import Update, Watcher
from .telemetry import Event

__all__ = [
    "AccessDenied",
    "AccessRules",
    "Adapter",
    "BridgedState",
    "CallTimeout",
    "Calls",
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
    "WorkerOptions",
    "WorkerStartError",
    "WorkerState",
    "WrongCallKind",
    "current_context",
    "force_cleanup_all",
    "open_client",
    "open_pool",
    "register_codec",
    "run_as_script",
    "session_helpers",
    "variables",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from ._contract.client import Client, open_client
else:
    # Hidden from type checkers: with a `__getattr__`, they would accept any name.
    def __getattr__(name: str) -> Any:
        """Import the contract's client on first use: its messages take a fifth as long to import as everything else."""
        if name not in ("Client", "open_client"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._contract import client

        found = globals()[name] = getattr(client, name)
        publish(__name__, [name])
        return found


# A worker knows the names of `bridge_py` without this package, so they keep `bridge_py` as their module.
publish(__name__, set(__all__) - set(bridge_py.__all__))
