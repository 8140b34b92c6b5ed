"""How commands that use a worker end: their exit codes, and what they tell on stderr. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from .here import import_from_here

FAILED: Final = 1
USAGE: Final = 2
CRASHED: Final = 3
TIMED_OUT: Final = 4
INTERRUPTED: Final = 130

EXIT_CODES: Final = """\b
Exit codes:
  0    success, also if the reader of stdout has gone
  1    the tool failed, or its result could not be printed
  2    wrong usage: an unknown tool, or arguments that do not fit
  3    the worker crashed, or could not start
  4    timeout
  130  Ctrl-C"""


class ReaderLeft(Exception):
    """Nobody reads stdout any more, as after `| head`."""


@contextmanager
def ending(*, runs_code: bool = True) -> Iterator[None]:
    """Exit with the code of whatever the block raises, after a message on stderr. Faults of ours come out.

    `runs_code` is for commands that run code of the user: they import from the working directory.
    """
    try:
        if runs_code:
            import_from_here()
        yield
    except (ReaderLeft, BrokenPipeError):
        silence(1)
        sys.exit(0)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        if BaseExceptionGroup("", [error]).subgroup(KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        if (code := _code_of(error)) is None:
            raise
        tell(error)
        sys.exit(code)


def silence(file: int) -> None:
    """Have stdout or stderr lead nowhere: Python writes what they have kept when it ends, and tells if it cannot."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file)
    os.close(nowhere)


def tell(error: BaseException) -> None:
    """Print an error with its notes, such as a remote traceback, on stderr."""
    from bridge_py.wire.readable import readable
    from snakepit_trio.errors import WorkerFailure

    # What a worker has printed on stderr is there already: its note has the same lines again.
    for note in () if isinstance(error, WorkerFailure) else getattr(error, "__notes__", ()):
        click.echo(readable(note), err=True)
    click.echo(f"Error: {readable(str(error))}", err=True)


def _code_of(error: BaseException) -> int | None:
    """The exit code of an error; None if it is a fault of this program."""
    if isinstance(error, ImportError):
        return None  # and no import here, which might fail likewise
    from snakepit_trio import CallTimeout, EncodeError, SnakepitError, UsageError, WorkerCrashed, WorkerStartError

    if isinstance(error, (WorkerCrashed, WorkerStartError)):
        return CRASHED
    if isinstance(error, CallTimeout):
        return TIMED_OUT
    if isinstance(error, UsageError) and not isinstance(error, EncodeError):  # that is of a result
        return USAGE
    return FAILED if isinstance(error, (SnakepitError, OSError)) else None
