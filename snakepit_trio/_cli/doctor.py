"""`snakepit doctor`: checks whether pools can work on this machine, and says what to do where they cannot."""

from __future__ import annotations

import sys

import click

from .endings import ending
from .values import adapters


@click.command()
@click.argument("adapter", required=False, shell_complete=adapters)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(adapter: str | None, as_json: bool) -> None:
    """Check whether pools can work here, and start a worker with ADAPTER.

    ADAPTER is package.module:Class or path/to/file.py:Class; by default it is what SNAKEPIT_ADAPTER or pyproject.toml
    names, else the showcase, which comes with snakepit. Each check is a line: ok, warn or fail, what was found, and
    what to do. Each step of the worker's start has its time. The exit code is 0 if nothing failed, 130 after Ctrl-C,
    and else 1.

    \b
    Examples:
      snakepit doctor
      snakepit doctor my_app.tools:Tools
      snakepit doctor --json
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        from .report import examine

        sys.exit(examine(adapter, as_json=as_json))
