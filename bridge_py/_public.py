"""All public names of the package, which loads this on first use."""

from .tools.adapter import BaseAdapter, tool
from .tools.context import AsyncSessionContext, SessionContext, current_context
from .wire.errors import CodecError, HostToolError, InvalidArguments, SnakepitError, ToolCancelled, UsageError
from .wire.public_names import expose
from .wire.registry import register_codec
from .wire.trace_context import correlation_id, trace_headers

__all__ = [
    "AsyncSessionContext",
    "BaseAdapter",
    "CodecError",
    "HostToolError",
    "InvalidArguments",
    "SessionContext",
    "SnakepitError",
    "ToolCancelled",
    "UsageError",
    "correlation_id",
    "current_context",
    "register_codec",
    "tool",
    "trace_headers",
]

expose("bridge_py", {name: globals()[name] for name in __all__})
