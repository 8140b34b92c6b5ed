"""Imports libraries that a tool needs and that a worker may not have."""

from __future__ import annotations

import importlib
from typing import Any

from bridge_py import UsageError
from bridge_py.wire.extras import install

_PACKAGES = {"sklearn": "scikit-learn"}


def need(module: str, tool: str) -> Any:
    """Import a module. Raises `UsageError`, which names the package and the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(
            f"{tool} needs {_PACKAGES.get(package, package)}, which the worker's Python cannot import ({error}): "
            f"{install('ml')} there"
        ) from error
