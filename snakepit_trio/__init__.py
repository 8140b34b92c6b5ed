"""A structured-concurrency runtime for work in worker processes: when a call is over, it is over."""

from bridge_py.wire.errors import (
    CallTimeout,
    CodecError,
    DecodeError,
    EncodeError,
    InvalidArguments,
    ProtocolError,
    SnakepitError,
    ToolError,
    UnknownTool,
    UsageError,
    WrongCallKind,
)
from bridge_py.wire.registry import register_codec

from .adapters import Adapter, GrpcPython
from .config import PoolConfig
from .errors import (
    PoolClosed,
    PoolError,
    PoolNotReady,
    PoolSaturated,
    Tainted,
    WorkerBusy,
    WorkerCrashed,
    WorkerError,
    WorkerStartError,
)
from .limits import Limits
from .policy import RecyclePolicy, RetryPolicy
from .pool import Pool, PoolStats, open_pool, run_as_script
from .streams import Chunks, Results
from .telemetry import Event
from .worker import WorkerState
from .workers import PoolHealth, WorkerInfo

__all__ = [
    "Adapter",
    "CallTimeout",
    "Chunks",
    "CodecError",
    "DecodeError",
    "EncodeError",
    "Event",
    "GrpcPython",
    "InvalidArguments",
    "Limits",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolHealth",
    "PoolNotReady",
    "PoolSaturated",
    "PoolStats",
    "ProtocolError",
    "RecyclePolicy",
    "Results",
    "RetryPolicy",
    "SnakepitError",
    "Tainted",
    "ToolError",
    "UnknownTool",
    "UsageError",
    "WorkerBusy",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerStartError",
    "WorkerState",
    "WrongCallKind",
    "open_pool",
    "register_codec",
    "run_as_script",
]
__version__ = "0.1.0"
