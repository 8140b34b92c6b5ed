"""`snakepit mcp`: a pool's tools for agents, by the Model Context Protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from .endings import ending
from .servers import say
from .values import adapters

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("adapter", required=False, shell_complete=adapters)
@click.option("--http", metavar="HOST:PORT", help="Serve streamable HTTP there, and not stdin and stdout.")
@click.option(
    "--token-file",
    type=_FILE,
    help="A file with the token that clients over HTTP must send.",
)
@click.option("--certfile", type=_FILE, help="The certificates of the server over HTTP, for TLS, in PEM.")
@click.option("--keyfile", type=_FILE, help="The certificate's key.")
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Worker processes.")
@click.option(
    "--timeout", type=click.FloatRange(0), help="Seconds for each call. By default, those of the tool, or 30."
)
def mcp(adapter: str | None, http: str | None, workers: int, timeout: float | None, **options: Path | None) -> None:
    """Serve the tools of ADAPTER to agents, by the Model Context Protocol.

    ADAPTER is package.module:Class or path/to/file.py:Class; by default it is what SNAKEPIT_ADAPTER or pyproject.toml
    names, else the showcase, which comes with snakepit. Over stdin and stdout there is one client, and the server ends
    when that client closes its end. Clients on other machines need a token; give a certificate for TLS, or put a proxy
    in front.

    The exit code is 0 when the client has closed its end, 2 for a wrong option or adapter, 3 if a worker cannot start,
    130 after Ctrl-C, and else 1.

    \b
    Examples:
      snakepit mcp my_app.tools:Tools
      snakepit mcp my_app.tools:Tools --http 127.0.0.1:8000 --timeout 60
      snakepit mcp my_app.tools:Tools --http 0.0.0.0:8443 --token-file token --certfile c.pem --keyfile k.pem
    """  # noqa: D301 - \b is click's mark of lines to keep
    if (options["certfile"] is None) != (options["keyfile"] is None):
        raise click.UsageError("TLS needs both --certfile and --keyfile")
    if http is None and any(options.values()):
        raise click.UsageError("--token-file, --certfile and --keyfile are for --http")
    with ending():
        import trio

        serve = _over_stdio(timeout) if http is None else _over_http(http, timeout, **options)
        trio.run(serve, adapter, workers)


def _over_stdio(timeout: float | None) -> Callable[[str | None, int], Any]:
    from snakepit_trio import open_pool
    from snakepit_trio._calls.call import DEFAULT
    from snakepit_trio._serving.mcp_app import Streams, load_sdk, serve_stdio

    load_sdk()
    _check_open()

    async def serve(adapter: str | None, workers: int) -> None:
        # Before the workers start, which inherit the process's own stdout.
        with Streams() as streams:
            async with open_pool(adapter, workers=workers, name="mcp") as pool:
                await serve_stdio(pool, streams, DEFAULT if timeout is None else timeout, "snakepit")

    return serve


def _check_open() -> None:
    # Else a file of trio's own would have their numbers.
    for number, name in ((0, "stdin"), (1, "stdout")):
        try:
            os.fstat(number)
        except OSError as error:
            raise click.ClickException(f"{name} is closed: start the command with pipes, or give --http") from error


def _over_http(
    http: str, timeout: float | None, *, token_file: Path | None, certfile: Path | None, keyfile: Path | None
) -> Callable[[str | None, int], Any]:
    from bridge_py.contract.listening import is_loopback, listen
    from bridge_py.wire.errors import UsageError
    from snakepit_trio import open_pool
    from snakepit_trio._calls.call import DEFAULT
    from snakepit_trio._serving.mcp_app import load_sdk

    load_sdk()
    host, port = _host_and_port(http)
    token = _token(token_file)

    async def serve(adapter: str | None, workers: int) -> None:
        with ExitStack() as stack:
            socket = stack.enter_context(listen(host.strip("[]"), port, other_machines=True))
            address, number = socket.getsockname()[:2]
            if (is_open := not is_loopback(address)) and token is None:
                raise UsageError(f"other machines reach {http}: give --token-file, or serve on 127.0.0.1")
            async with open_pool(adapter, workers=workers, name="mcp") as pool:
                app = pool.mcp_app(
                    timeout=DEFAULT if timeout is None else timeout,
                    name="snakepit",
                    token=token,
                    allowed_hosts=["*"] if is_open else None,
                )
                shown = f"[{address}]" if ":" in address else address
                say(f"serving MCP at http{'s' if certfile else ''}://{shown}:{number}/mcp", err=True)
                await _hypercorn(app, socket.fileno(), certfile, keyfile)

    return serve


def _host_and_port(http: str) -> tuple[str, int]:
    from bridge_py.contract.listening import parse_address
    from bridge_py.wire.errors import UsageError

    try:
        host, port, _ = parse_address(http)
    except UsageError:
        host = port = None
    if host is None or port is None:
        raise UsageError(f"--http {http}: write it as 127.0.0.1:8000")
    return host, port


def _token(path: Path | None) -> str | None:
    from bridge_py.wire.errors import UsageError

    token = None if path is None else path.read_text("utf-8").strip()
    if token == "":
        raise UsageError(f"{path} is empty: write a token into it")
    return token


async def _hypercorn(app: Any, socket: int, certfile: Path | None, keyfile: Path | None) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    from .http_server import guarded_connections

    config = Config()
    config.bind = [f"fd://{os.dup(socket)}"]  # which its own socket object closes
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 1
    if certfile is not None and keyfile is not None:
        config.certfile, config.keyfile = str(certfile), str(keyfile)
    with guarded_connections():
        await serve(app, config)
