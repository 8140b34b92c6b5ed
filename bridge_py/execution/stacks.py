"""The stacks of a worker's threads, for `snakepit dump`: a signal has them written to a file in memory.

`faulthandler` writes them in the signal's own handler, in C. So it needs no lock of the interpreter, and it works while
a tool holds that lock. A process that looks opens the file by /proc/PID/fd; the host has no part in it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
from typing import Final

FILE_NAME: Final = "snakepit-stacks"
SIGNAL: Final = signal.SIGRTMAX - 3


def offer_stacks() -> None:
    """Have the signal write the stacks of this process. Without room for the file, they cannot be asked for."""
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create(FILE_NAME)
        # A reader empties the file afterwards; what is written next then goes to its beginning.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        faulthandler.register(SIGNAL, file=descriptor, all_threads=True)
