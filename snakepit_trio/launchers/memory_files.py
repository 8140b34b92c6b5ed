"""Files in memory that a worker inherits. No other program can open them by a name."""

from __future__ import annotations

import os

from bridge_py.buffers.shared_memory import fix_size, make_memory
from bridge_py.execution.ledger import LEDGER_BYTES


def make_ledger() -> int:
    """Make the file of a ledger; returns its descriptor. Raises `OSError` if there is no room for it.

    Its memory is allocated here: else the first process that writes to the ledger would get a SIGBUS where there is no
    room. So would the host if the worker could shrink it.
    """
    ledger = make_memory("snakepit-ledger")
    try:
        os.posix_fallocate(ledger, 0, LEDGER_BYTES)
        fix_size(ledger)
    except BaseException:
        os.close(ledger)
        raise
    return ledger


def make_options(data: bytes) -> int:
    """Make a file that a worker reads once, such as the adapter's options; returns its descriptor. Raises `OSError`.

    An environment variable would show passwords among the options as long as the worker lives.
    """
    options = os.memfd_create("snakepit-options")
    try:
        with open(options, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(options, 0, os.SEEK_SET)
    except BaseException:
        os.close(options)
        raise
    return options
