"""Limits of a worker process, set before the adapter is imported so that they hold for all of its code."""

from __future__ import annotations

import os
import resource
from typing import Final

from bridge_py.wire.errors import UsageError

_RESOURCES: Final = {
    "address_space": resource.RLIMIT_AS,
    "cpu_seconds": resource.RLIMIT_CPU,
    "open_files": resource.RLIMIT_NOFILE,
}


def apply_limits(limits: dict[str, int]) -> None:
    """Set the soft and hard limits of this process; `nice` is its niceness.

    Raises `UsageError` for a limit that cannot be set, such as one above a hard limit.
    """
    for name, value in limits.items():
        try:
            _apply(name, value)
        except (OSError, ValueError) as error:
            raise UsageError(f"the limit {name}={value} cannot be set: {error}{_ceiling(name)}") from None


def _apply(name: str, value: int) -> None:
    if name == "nice":
        os.setpriority(os.PRIO_PROCESS, 0, value)
    elif name not in _RESOURCES:
        raise UsageError(f"there is no limit {name!r}; there are: {', '.join((*_RESOURCES, 'nice'))}")
    else:
        kind = _RESOURCES[name]
        # At the hard limit of CPU time the kernel sends SIGKILL, which does not tell the reason. SIGXCPU, which it
        # sends at the soft limit, does.
        spare = name == "cpu_seconds" and resource.getrlimit(kind)[1] != value
        resource.setrlimit(kind, (value, value + spare))


def _ceiling(name: str) -> str:
    if name not in _RESOURCES:
        return ""
    hard = resource.getrlimit(_RESOURCES[name])[1]
    return " (it has no hard limit)" if hard == resource.RLIM_INFINITY else f" (the hard limit is {hard})"
