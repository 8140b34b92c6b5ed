"""Packages that only some of the helpers for tests need."""

from __future__ import annotations

from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install


class MissingPackage(UsageError, ImportError):
    """A helper for tests needs a package that is not installed. The message says how to get it."""

    def __init__(self, package: str, extra: str = "testing") -> None:
        super().__init__(f"the package {package} is missing: {install(extra)}")
        self.name = package
