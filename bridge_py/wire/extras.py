"""The extras of both packages, and the one sentence that says how a missing one is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Final, NoReturn

from .errors import UsageError

#: What each extra is for. The names are those of pyproject.toml.
EXTRAS: Final = frozenset(
    {
        *("cli", "dspy", "fast", "grpc", "mcp", "ml", "numpy", "opentelemetry", "pandas", "pickle", "polars"),
        *("prometheus", "ray", "redis", "serve", "testing", "zstd"),
    }
)


def install(extra: str) -> str:
    """Return the command that installs what an extra needs."""
    assert extra in EXTRAS, extra
    return f"pip install 'snakepit-trio[{extra}]'"


def is_installed(module: str) -> bool:
    """Whether a module can be found. Imports nothing."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was loaded in an odd way, or is hidden on purpose
        return False


def need(module: str, extra: str, what: str) -> None:
    """Raise `UsageError` if a module of an extra is not installed; `what` needs it. Imports nothing."""
    if not is_installed(module):
        raise UsageError(f"{what} needs the package {module}: {install(extra)}")


def absent(module: str, extra: str, what: str) -> Callable[..., NoReturn]:
    """Return what stands for `what` while its extra is not installed: a function that raises what `need` raises."""

    def refuse(*_args: object, **_options: object) -> NoReturn:
        need(module, extra, what)
        raise UsageError(f"{what} needs {module}, which has been installed meanwhile: start the program again")

    return refuse
