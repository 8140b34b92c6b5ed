"""What the kernel tells of a process."""

from __future__ import annotations

import psutil


def resident_bytes(pid: int | None) -> int:
    """Resident memory of a process, in bytes; 0 if there is none."""
    if pid is None:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except Exception:  # whatever the cause: nothing depends on the answer
        return 0


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped, by a debugger or a signal."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except Exception:  # whatever the cause: nothing depends on the answer
        return False
