"""`snakepit top`: shows the pools of running programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from bridge_py.wire.extras import install, is_installed

from .endings import ending

if TYPE_CHECKING:
    from rich.console import Console

    from .samples import Sample, Sampler

_PATIENCE: Final = 2.0  # seconds that a host has for its answer
_BETWEEN: Final = 0.5  # seconds between the two looks of `--once`


@click.command()
@click.argument("pid", type=click.IntRange(1), required=False)
@click.option("--once", is_flag=True, help="Print the pools once, and leave; the default if stdout is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the pools once, as JSON.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between two looks."
)
def top(pid: int | None, once: bool, as_json: bool, interval: float) -> None:
    """Show the pools of running programs: workers, calls, queue, rates.

    PID is a program that has open pools, or one of its workers; without it, all pools of this user are shown. q or
    Ctrl-C leaves. The exit code is 0, and 1 if there is no such pool. With --once or --json it is also 1 if a host does
    not answer, and 130 after Ctrl-C.

    \b
    Examples:
      snakepit top
      snakepit top 4242 --interval 5
      snakepit top 4242 --once
      snakepit top --json | jq '.[].stats.queued'
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending(runs_code=False):
        from .samples import Sampler
        from .screen import has_screen, make_console

        console = make_console(sys.stdout)
        if sys.stdout.isatty() and not is_installed("rich"):
            click.echo(f"the pools are shown once: a live view needs the package rich, {install('cli')}", err=True)
        sampler = Sampler(pid, _PATIENCE)
        if once or as_json or not has_screen(console):
            sys.exit(_print_once(sampler, console, as_json=as_json))
        sys.exit(_show(sampler, console, interval))


def _print_once(sampler: Sampler, console: Console, *, as_json: bool) -> int:
    import msgspec
    import trio

    from .samples import as_plain
    from .top_view import lines_of

    samples = trio.run(_look_twice, sampler)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_plain(samples)), indent=2))
    else:
        for line in lines_of(samples):
            console.print(line)
    return 0 if all(sample.seen.look is not None for sample in samples) else 1


async def _look_twice(sampler: Sampler) -> list[Sample]:
    import trio

    await sampler.sample()
    await trio.sleep(_BETWEEN)
    return await sampler.sample()


def _show(sampler: Sampler, console: Console, interval: float) -> int:
    import trio

    from .live_top import show

    try:
        return trio.run(show, sampler, console, interval)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if BaseExceptionGroup("", [error]).split(KeyboardInterrupt)[1] is not None:
            raise
        return 0  # Ctrl-C is one of the two ways to leave
