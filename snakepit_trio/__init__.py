"""A structured-concurrency runtime for work in worker processes: when a call is over, it is over."""

from bridge_py.wire.errors import (
    CallTimeout,
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

from .adapters import Adapter, GrpcPython
from .config import PoolConfig
from .errors import PoolClosed, PoolError, PoolNotReady, WorkerCrashed, WorkerError, WorkerStartError
from .limits import Limits
from .pool import Pool, PoolStats, WorkerInfo, open_pool, run_as_script
from .streams import Chunks, Results
from .worker import WorkerState

__all__ = [
    "Adapter",
    "CallTimeout",
    "Chunks",
    "DecodeError",
    "EncodeError",
    "GrpcPython",
    "InvalidArguments",
    "Limits",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolError",
    "PoolNotReady",
    "PoolStats",
    "ProtocolError",
    "Results",
    "SnakepitError",
    "ToolError",
    "UnknownTool",
    "UsageError",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerStartError",
    "WorkerState",
    "WrongCallKind",
    "open_pool",
    "run_as_script",
]
__version__ = "0.1.0"
