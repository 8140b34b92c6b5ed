"""The package that runs inside a worker: write tools as methods of a `BaseAdapter` and mark them with `@tool`.

This package imports neither trio nor snakepit_trio, so that a worker starts light and may run in
any interpreter from Python 3.11 on.
"""

from .tools.adapter import BaseAdapter, tool
from .tools.context import AsyncSessionContext, SessionContext, current_context
from .wire.errors import CodecError, HostToolError, InvalidArguments, SnakepitError, ToolCancelled, UsageError
from .wire.public_names import publish
from .wire.registry import register_codec

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
    "current_context",
    "register_codec",
    "tool",
]

publish(__name__, __all__)
