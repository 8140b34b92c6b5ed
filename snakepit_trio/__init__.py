"""A structured-concurrency runtime for work in worker processes: when a call is over, it is over."""

from typing import TYPE_CHECKING, Any

from bridge_py.system import check_system

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
    "Client",
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
    "open_client",
    "open_pool",
    "register_codec",
    "run_as_script",
    "session_helpers",
    "variables",
]

check_system()
if TYPE_CHECKING:
    from . import errors as errors
    from . import launchers as launchers
    from . import state as state
    from . import telemetry as telemetry
    from ._contract.client import Client, open_client
    from ._public import *

    __version__: str
else:
    # Hidden from type checkers: with a `__getattr__`, they would accept any name.
    def __getattr__(name: str) -> Any:
        """Load all public names on first use of one: programs that need none, such as most commands, start sooner.

        The contract's client is loaded alone, because its messages take long.
        """
        from importlib import import_module

        if name == "__version__":
            return import_module("bridge_py.version").VERSION
        # Whoever looks at all names, such as an editor or a star, meets them without their extra too.
        extras = import_module("bridge_py.wire.extras")
        if name in ("Client", "open_client") and not extras.is_installed("betterproto2"):
            return extras.absent("betterproto2", "grpc", f"snakepit_trio.{name}")
        # While a thread loads the names, others wait here. What it asks for itself meanwhile is a module, which the
        # import system looks for after the error.
        try:
            import_module("._contract.client" if name in ("Client", "open_client") else "._public", __name__)
        except ImportError as error:
            if found := import_module("._util.versions", __name__).mismatch():
                raise ImportError(found) from error
            raise
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
