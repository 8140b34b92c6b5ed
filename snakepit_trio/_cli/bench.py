"""`snakepit bench`: measures calls on this machine, beside a ProcessPoolExecutor."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import click

from .endings import ending
from .values import adapters, tools

if TYPE_CHECKING:
    from .bench_figures import Results


@click.command()
@click.argument("adapter", required=False, shell_complete=adapters)
@click.argument("tool", required=False, shell_complete=tools)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Worker processes.")
@click.option("--callers", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Calls at a time.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=0.5,
    show_default=True,
    help="For each figure, in each round.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Figures are their medians.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the values of each round.")
def bench(adapter: str | None, tool: str | None, arguments: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Measure calls on this machine, or those of TOOL of ADAPTER.

    Without ADAPTER and TOOL: a tool that gives back a short text, arrays both ways, a stream, and the time from a
    worker's death to the next result. A ProcessPoolExecutor takes turns with the pool, and runs the same code. The
    ratio is the median of the rounds' ratios. Ctrl-C prints what was measured by then.

    The exit code is 0, 130 after Ctrl-C, and else as that of `snakepit run`.

    \b
    Examples:
      snakepit bench
      snakepit bench my_app.tools:Tools double n=21 --callers 64 --workers 4
      snakepit bench --seconds 2 --rounds 5 --json
    """  # noqa: D301 - \b is click's mark of lines to keep
    if adapter is not None and tool is None:
        raise click.UsageError("name a TOOL of the adapter too, or no adapter")
    if math.isnan(options["seconds"]):
        raise click.UsageError("--seconds is nan: give seconds")
    with ending():
        from .bench_figures import Results

        results = Results({"adapter": adapter, "tool": tool, **options})
        try:
            _run(adapter, tool, arguments, options, results)
        finally:
            if results.figures:
                _print(results, as_json)


def _run(
    adapter: str | None, tool: str | None, arguments: tuple[str, ...], options: dict[str, Any], results: Results
) -> None:
    import trio

    from .arguments import read_pairs
    from .bench_run import Plan, measure

    plan = Plan(adapter=adapter, tool=tool, given=read_pairs(arguments), tell=_tell, **options)
    trio.run(measure, plan, results)


def _tell(text: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(text, err=True)


def _print(results: Results, as_json: bool) -> None:
    if as_json:
        click.echo(results.as_json())
        return
    about = results.about
    click.echo(
        f"{about['workers']} workers, {about['rounds']} rounds of {about['seconds']:g} s for each figure; medians"
        f"{'' if results.is_complete else ', as far as measured'}"
    )
    for line in results.as_lines():
        click.echo(line)
