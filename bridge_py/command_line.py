"""The command line of a worker process. It imports little, so that help and mistakes are told at once."""

from __future__ import annotations

import argparse
from typing import Any, Final

_INFO: Final = 20  # logging's


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read a worker's command line."""
    return _parser().parse_args(arguments)


def modules(text: str) -> list[str]:
    """Read names of modules, with commas between them."""
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bridge_py", description="A worker of snakepit-trio.")
    parser.add_argument("--adapter", required=True, help="package.module:Class")
    parser.add_argument("--listen-fd", type=int, help="a listening socket; without it, the worker speaks the contract")
    parser.add_argument(
        "--ledger-fd", type=int, help="a page that tells the host which call was started last, or why none can be"
    )
    parser.add_argument("--options-fd", type=int, help="a file with the adapter's options, a JSON object")
    parser.add_argument(
        "--lane-fds", type=int, nargs=2, default=[], help="two pipes, to read from and to write to: the link's lane"
    )
    parser.add_argument("--tls-fd", type=int, help="a file with the certificates of a link over TCP, a JSON object")
    parser.add_argument("--debug-fd", type=int, help="a socket by which the host lends its terminal to breakpoints")
    parser.add_argument("--post-mortem", action="store_true", help="open the debugger where tools raise")
    parser.add_argument("--concurrency", type=int, default=1, help="calls at a time")
    parser.add_argument("--sizes", default="{}", help="a JSON object of the link's sizes, in bytes")
    parser.add_argument("--limits", type=_object, default={}, help="a JSON object of limits of this process")
    parser.add_argument("--preload", type=modules, default=[], help="names of modules to import first, with commas")
    parser.add_argument("--worker-id", default="", help="shows in process listings")
    parser.add_argument(
        "--log-level", type=int, default=_INFO, help="the least level of log records, a number as in `logging`"
    )
    contract = parser.add_argument_group("the wire contract, see docs/contract.md")
    contract.add_argument("--port", type=int, default=0, help="where to serve it, on 127.0.0.1; 0 for any")
    contract.add_argument("--listen", default="", help="a Unix socket to make and serve it at, in place of --port")
    contract.add_argument("--elixir-address", default="", help="host:port of the host, or unix:/path")
    contract.add_argument(
        "--elixir-ca", default="", help="for TLS with the host: a PEM file of who signed the host's certificate"
    )
    contract.add_argument(
        "--open-to", choices=["user", "machine"], default="user", help="whose programs may connect; root's always may"
    )
    contract.add_argument("--snakepit-run-id", default="", help="shows in process listings")
    return parser


def _object(text: str) -> Any:
    import json  # only here: the help needs none

    return json.loads(text)
