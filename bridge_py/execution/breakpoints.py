"""`breakpoint()` in a worker process.

Python's own would read the worker's stdin, which is empty, and the tool would fail with a bare `BdbQuit`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from bridge_py.wire.errors import UsageError

#: Python's own `input`, which a worker takes from its tools.
read_line = input
Hook = Callable[..., object]
_CHOICE: Final = "PYTHONBREAKPOINT"
_OURS: Final = ("", "pdb.set_trace")  # the choices that stand for Python's own debugger


def install(hook: Hook) -> None:
    """Have `breakpoint()` call `hook`, unless the variable PYTHONBREAKPOINT chooses otherwise, now or later."""
    if sys.breakpointhook is sys.__breakpointhook__:  # else somebody has chosen already
        sys.breakpointhook = _unless_chosen(hook)


def refuse(*_args: object, **_kwargs: object) -> None:
    """Raise an error that says how to get a debugger."""
    raise UsageError(
        "breakpoint() finds no debugger: open the pool with debug=True, or run the tool with `snakepit debug`"
        f" ({_CHOICE}=0 passes over breakpoints)"
    )


def _unless_chosen(hook: Hook) -> Hook:
    def call(*args: Any, **kwargs: Any) -> object:
        choice = "" if sys.flags.ignore_environment else os.environ.get(_CHOICE, "")
        if choice in _OURS:
            return hook(*args, **kwargs)
        return sys.__breakpointhook__(*args, **kwargs)

    return call
