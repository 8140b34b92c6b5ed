"""`snakepit serve`: the command line."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge_py.wire.extras import install

from .endings import ending
from .values import adapters

if TYPE_CHECKING:
    from .http_server import Plan

_TOKEN: Final = "SNAKEPIT_TOKEN"  # noqa: S105 - the name of a variable
_NOTHING_ELSE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("adapter", shell_complete=adapters)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free port.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes; 2 if not given.")
@click.option("--concurrency", type=click.IntRange(1), help="Calls that a worker runs at once; 1 if not given.")
@click.option(
    "--token-file",
    type=_NOTHING_ELSE,
    help=f"A file with the token that clients must send as `Authorization: Bearer`. ${_TOKEN} may have it instead.",
)
@click.option(
    "--open-to",
    type=click.Choice(["user", "machine"]),
    default="user",
    show_default=True,
    help="Which users of this machine may connect: you (and root), or all.",
)
@click.option("--no-token", is_flag=True, help="Serve other machines without a token: everybody may call.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name that the server has in Host; repeatable.")
@click.option("--certfile", type=_NOTHING_ELSE, help="The certificates of the server, for TLS, in PEM.")
@click.option("--keyfile", type=_NOTHING_ELSE, help="The certificate's key.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    help="Seconds that running calls have to finish after SIGTERM or Ctrl-C.",
)
@click.option("--reload", "reloads", is_flag=True, help="Watch files, and reload the workers when one changes.")
@click.option("--reload-dir", type=_FOLDER, multiple=True, help="A folder to watch; the current one if not given.")
def serve(adapter: str, **options: Any) -> None:
    """Serve the tools of ADAPTER, such as my_app.tools:Tools, over HTTP.

    The exit code is 0 after SIGTERM or Ctrl-C, 2 for a wrong option or adapter, 3 if a worker cannot start, and else 1,
    such as for an address in use.

    \b
    Examples:
      snakepit serve my_app.tools:Tools --workers 4
      snakepit serve my_app.tools:Tools --port 0 --reload
      snakepit serve my_app.tools:Tools --host 0.0.0.0 --token-file token --certfile c.pem --keyfile k.pem
    """  # noqa: D301 - \b is click's mark of lines to keep
    with ending():
        try:
            from . import http_server

            if options["reloads"] or options["reload_dir"]:
                import watchfiles as _  # noqa: F401 - missing, it is to be told before anything starts
        except ModuleNotFoundError as error:
            raise click.ClickException(needs(error.name or "a package")) from error
        # Ctrl-C that comes before the server has its own way to end is 130.
        http_server.run(_plan(adapter, **options))


def needs(package: str) -> str:
    """The message for a package that is not there."""
    return f"`snakepit serve` needs {package.partition('.')[0]}: {install('serve')}"


def _plan(adapter: str, **options: Any) -> Plan:
    from .http_server import Plan, is_loopback

    token = _token(options.pop("token_file"))
    if token is None and not options.pop("no_token") and not is_loopback(options["host"]):
        raise click.UsageError(
            f"other machines can reach {options['host']}: give --token-file, or ${_TOKEN}, or --no-token if everybody"
            " there may call"
        )
    options.pop("no_token", None)
    if math.isnan(options["grace"]):
        raise click.UsageError("--grace is nan: give seconds, 0 or more")
    if (options["certfile"] is None) != (options["keyfile"] is None):
        raise click.UsageError("TLS needs both --certfile and --keyfile")
    folders = options.pop("reload_dir")
    reloads = options.pop("reloads")
    watched = folders or (Path.cwd(),) if reloads or folders else ()
    return Plan(adapter=adapter, token=token, hosts=options.pop("allow_host"), watched=watched, **options)


def _token(path: Path | None) -> str | None:
    if path is not None:
        return path.read_text().strip()
    return os.environ.get(_TOKEN) or None
