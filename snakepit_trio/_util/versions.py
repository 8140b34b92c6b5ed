"""Compares the versions of the two packages, where one of them lacks what the other imports."""

from __future__ import annotations

from importlib import metadata

_HOST, _WORKER = "snakepit-trio", "snakepit-trio-worker"


def mismatch() -> str:
    """Say what to install if the installed packages have two versions; empty if they have one, or are not installed."""
    try:
        host, worker = metadata.version(_HOST), metadata.version(_WORKER)
    except metadata.PackageNotFoundError:
        return ""
    if host == worker:
        return ""
    return f"{_HOST} {host} needs {_WORKER} {host}, and {worker} is installed: pip install '{_WORKER}=={host}'"
