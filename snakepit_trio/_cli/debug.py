"""`snakepit debug`: runs one tool, and opens a debugger at its breakpoints and where it raises."""

from __future__ import annotations

import click

from .endings import EXIT_CODES, ending
from .values import adapters, tools


@click.command(epilog=EXIT_CODES)
@click.argument("adapter", shell_complete=adapters)
@click.argument("tool", shell_complete=tools)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document; each chunk, as one line.")
@click.option(
    "--resource",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="A resource that the worker offers, such as gpu=1; repeatable.",
)
def debug(adapter: str, tool: str, arguments: tuple[str, ...], as_json: bool, resource: tuple[str, ...]) -> None:
    """Run TOOL of ADAPTER in a worker, with a debugger at each breakpoint() and where it raises.

    The arguments are those of `snakepit run`. The debugger is pdb, on this terminal: `c` goes on, `q` ends the call,
    `h` tells more. The call has no timeout. stdout has results only, if it leads elsewhere.

    \b
    Examples:
      snakepit debug my_app.tools:Tools double n=21
      snakepit debug tools.py:Tools train epochs=3 'sizes=[8, 4]' --json > result.json
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        import trio

        from . import one_call
        from .run import plan_of

        plan = plan_of(adapter, tool, arguments, resource=resource, timeout=None, as_json=as_json, debug=True)
        one_call.check_terminal()
        trio.run(one_call.run, plan)
