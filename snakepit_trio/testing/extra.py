"""Packages that only some of the helpers for tests need."""

from __future__ import annotations

from bridge_py.wire.errors import UsageError


class MissingPackage(UsageError, ImportError):
    """A package is not installed that a helper for tests needs. The message says how to get it."""

    def __init__(self, package: str, extra: str = "testing") -> None:
        super().__init__(f"the package {package} is missing: pip install 'snakepit-trio[{extra}]'")
        self.name = package
