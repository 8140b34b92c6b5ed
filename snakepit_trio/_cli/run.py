"""`snakepit run`: runs one tool, and prints its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .endings import EXIT_CODES, ending
from .values import adapters, tools

if TYPE_CHECKING:
    from .one_call import Plan


@click.command(epilog=EXIT_CODES)
@click.argument("adapter", shell_complete=adapters)
@click.argument("tool", shell_complete=tools)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document; each chunk, as one line.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Seconds for the call, once the worker is there; else the tool's own time, else 30, or 300 for a stream.",
)
@click.option(
    "--resource",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="A resource that the worker offers, such as gpu=1; repeatable.",
)
def run(adapter: str, tool: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Run TOOL of ADAPTER in a worker, and print its result.

    ADAPTER is package.module:Class or path/to/file.py:Class. A value is what the tool takes: a number, true, false,
    null, a list or an object in JSON, and else a text. NAME=@FILE reads JSON from a file; NAME=@@TEXT is a text that
    begins with @. A stream prints a line for each chunk as it comes. stdout has results only: what the tool prints
    goes to stderr, and so does its progress if stderr is a terminal.

    \b
    Examples:
      snakepit run my_app.tools:Tools double n=21
      snakepit run tools.py:Tools train epochs=3 'sizes=[8, 4]' --timeout 60
      snakepit run tools.py:Tools classify image=@image.json --json
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        import trio

        from . import one_call

        trio.run(one_call.run, plan_of(adapter, tool, arguments, **options))


def plan_of(
    adapter: str,
    tool: str,
    arguments: tuple[str, ...],
    *,
    resource: tuple[str, ...],
    timeout: float | None,
    as_json: bool,
    debug: bool = False,
) -> Plan:
    """Make a plan of what the command line says. Raises `UsageError`."""
    from .arguments import read_pairs
    from .one_call import Plan

    return Plan(
        adapter=adapter,
        tool=tool,
        given=read_pairs(arguments),
        timeout=timeout,
        as_json=as_json,
        debug=debug,
        resources={name: _amount(pair, amount) for pair in resource for name, _, amount in [pair.partition("=")]},
    )


def _amount(pair: str, amount: str) -> float:
    from snakepit_trio import UsageError

    try:
        return float(amount)
    except ValueError:
        raise UsageError(f"--resource {pair}: write it as gpu=1") from None
