"""The package that runs inside a worker: write tools as methods of a `BaseAdapter` and mark them with `@tool`.

This package imports neither trio nor snakepit_trio, so that a worker starts light and may run in
any interpreter from Python 3.11 on.
"""

from typing import TYPE_CHECKING, Any

from .system import check_system

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

check_system()
if TYPE_CHECKING:
    from ._public import *
else:
    # Hidden from type checkers: with a `__getattr__`, they would accept any name.
    def __getattr__(name: str) -> Any:
        """Load all public names on first use of one. The help of the command line needs none."""
        from importlib import import_module

        import_module("._public", __name__)  # while a thread loads them, others wait here
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
