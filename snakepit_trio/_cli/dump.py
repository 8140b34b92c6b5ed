"""`snakepit dump`: prints what the workers and the host of a pool are doing."""

from __future__ import annotations

import sys

import click

from .endings import ending


@click.command()
@click.argument("pid", type=click.IntRange(1))
@click.option("--all", "has_all", is_flag=True, help="Show the pool's own tasks, and the frames inside its calls, too.")
def dump(pid: int, has_all: bool) -> None:
    """Print the stacks of a pool: those of its workers' threads, and the tree of tasks of its host.

    PID is the host, which has the pools, or one of its workers. Nothing of it is stopped. If the host does not answer,
    its stacks come from py-spy, if that is installed. The exit code is 0; it is 1 if there is no such pool or if its
    host does not answer, and 130 after Ctrl-C.

    \b
    Examples:
      snakepit dump 4242
      snakepit dump 4242 --all > stacks.txt
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending(runs_code=False):
        import trio

        from .dumping import dump_of

        lines, is_whole = trio.run(dump_of, pid, has_all)
        click.echo("\n".join(lines))
        sys.exit(0 if is_whole else 1)
