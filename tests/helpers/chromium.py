"""Where Chromium is. It is Debian's package, which root installs when it is missing; nobody else needs it."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from typing import Final

from tests.helpers.debian import why_missing

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


@functools.cache
def why_no_browser() -> str | None:
    """Why no test can start a browser here; None if one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return None if find() else why_missing("chromium") or None


def find() -> str | None:
    """The path of Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
