"""`snakepit ps` and `snakepit sweep`: the pools of this user on this machine, and what dead ones have left."""

from __future__ import annotations

import sys
from typing import Final

import click

from .endings import ending

_PATIENCE: Final = 0.5  # seconds that all hosts together have for their answers

# Heavy imports are inside the commands, so that `snakepit --help` is there at once.


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(as_json: bool) -> None:
    """List the pools of this user on this machine, with their workers. Pools of dead hosts are included.

    The exit code is 0, also if a host does not answer.

    \b
    Examples:
      snakepit ps
      snakepit ps --json
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending(runs_code=False):
        import trio

        from snakepit_trio._processes import registry

        from . import hosts, runs_view
        from .screen import make_console

        found = registry.runs()
        living = [run for run in found if run.is_alive]
        looks = {seen.run.id: seen.look for seen in trio.run(hosts.look_at_all, living, _PATIENCE)}
        if as_json:
            click.echo(runs_view.as_json(found, looks))
        else:
            runs_view.show(make_console(sys.stdout), found, looks)


@click.command()
def sweep() -> None:
    """Kill the workers that dead hosts have left, and remove their files. Living hosts are not touched.

    \b
    Example:
      snakepit sweep
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending(runs_code=False):
        from snakepit_trio._processes import registry

        from . import runs_view
        from .screen import make_console

        runs_view.show_swept(make_console(sys.stdout), registry.sweep())
