"""What the commands that serve print, even if nobody reads it."""

from __future__ import annotations

import click

from .endings import silence


def say(text: str, *, err: bool = False) -> None:
    """Print a line. A server goes on even if nobody reads what it prints, or the disk is full."""
    try:
        click.echo(text, err=err)
    except OSError:
        silence(2 if err else 1)  # the text would be written again when Python ends, and cost the exit code
