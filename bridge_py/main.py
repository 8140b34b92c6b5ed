"""Runs a worker process, from its command line to its end."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import logging
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .buffers.buffer_sets import Sizes
from .execution.asyncio_policy import restore_asyncio
from .execution.ending import code_of, forks_end, leave
from .execution.executor import ConcurrentExecutor, Executor, Pack, Replies, SerialExecutor
from .execution.ledger import LEDGER_BYTES, note_failure, take_secret
from .execution.limits import apply_limits
from .link.server import LinkServer
from .tools.adapter import BaseAdapter
from .tools.context import mark_worker
from .tools.targets import attribute_of, module_of
from .wire.environment import OPTIONS_VARIABLE, PATH_VARIABLE, READY_VARIABLE, TOKEN_VARIABLE
from .wire.errors import UsageError

if TYPE_CHECKING:
    from .contract.service import ContractServer

_NO_OPTIONS: Final[Mapping[str, Any]] = {}


def main(arguments: list[str]) -> int:
    """Run a worker until its host says goodbye; returns the exit code."""
    options = _parser().parse_args(arguments)
    mark_worker()
    _line_buffered(sys.stdout)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    ledger = None if options.ledger_fd is None else mmap.mmap(options.ledger_fd, LEDGER_BYTES)
    try:
        serve = _start(options, ledger)
    except BaseException as error:  # noqa: ASYNC103 - the exit code tells it
        return _fail(options, ledger, error)  # noqa: ASYNC104 - this is no task of a loop: the process ends by it
    return serve()


def _start(options: argparse.Namespace, ledger: mmap.mmap | None) -> Callable[[], int]:
    _limit(options.limits)
    secret = "" if ledger is None else take_secret(ledger)
    _extend_path(os.environ.pop(PATH_VARIABLE, ""))
    host_token = os.environ.pop(TOKEN_VARIABLE, None)  # before code of the adapter runs
    adapter_options, first_call = _adapter_options(options.options_fd)
    with forks_end():
        adapter = load_adapter(options.adapter, adapter_options)
        restore_asyncio()  # the adapter's module may have imported trio-asyncio
        starting = adapter.setup()
    if options.listen_fd is None:
        return _start_contract(adapter, options, starting, host_token)
    return _start_link(adapter, options, secret, ledger, starting, first_call)


def _adapter_options(descriptor: int | None) -> tuple[dict[str, Any], bytes]:
    """Read the options of the adapter, and the call of the pool's initializer."""
    if descriptor is None:
        return json.loads(os.environ.pop(OPTIONS_VARIABLE, "{}")), b""
    with open(descriptor, "rb") as file:
        text, _, first_call = file.read().partition(b"\n")
    return json.loads(text or b"{}"), first_call


def _limit(limits: dict[str, int]) -> None:
    try:
        apply_limits(limits)
    except UsageError as error:
        sys.exit(str(error))  # a traceback of our own code would help nobody


def _fail(options: argparse.Namespace, ledger: mmap.mmap | None, error: BaseException) -> int:
    """Note why the worker cannot start; returns the exit code.

    The process then exits without waiting for its threads, which might never end.
    """
    if ledger is not None:
        note_failure(ledger, error)
        with contextlib.suppress(OSError):
            os.close(options.listen_fd)  # the host learns of it now, whatever this process still has to do
    return code_of(error)


def load_adapter(target: str, options: Mapping[str, Any] = _NO_OPTIONS) -> BaseAdapter:
    """Make the adapter that `package.module:Class` or `path/to/file.py:Class` names.

    Raises `UsageError` if the class does not exist, is no adapter, or does not take the options, or if its module is in
    the working directory and that is not on `sys.path`. Other errors of the import are not caught.
    """
    place, _, name = target.rpartition(":" if ":" in target else ".")
    if not place or not name:
        raise UsageError(f"adapter {target!r}: write it as 'package.module:Class' or 'path/to/file.py:Class'")
    found = attribute_of(module_of(place, f"adapter {target!r}"), name)
    if not (isinstance(found, type) and issubclass(found, BaseAdapter)):
        raise UsageError(f"adapter {target!r}: {place} has no class {name} that derives from bridge_py.BaseAdapter")
    return make_adapter(found, options)


def make_adapter(adapter: type[BaseAdapter], options: Mapping[str, Any]) -> BaseAdapter:
    """Make an instance; options are named as its constructor's parameters. Raises `UsageError` for unknown options."""
    for name in options:
        if name not in (known := _options_of(adapter)):
            there = ", ".join(known) or "none"
            raise UsageError(f"adapter {adapter.__qualname__} has no option {name!r}; there are: {there}")
    return adapter(**options)


def _options_of(adapter: type[BaseAdapter]) -> list[str]:
    """List the parameters of an adapter's constructor, and of base constructors that get its `**options`."""
    found: list[str] = []
    for kind in adapter.__mro__[:-1]:
        if "__init__" not in vars(kind):
            continue
        _, *parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
        found += [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        if all(each.kind is not each.VAR_KEYWORD for each in parameters):
            break
    return found


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
    parser.add_argument("--concurrency", type=int, default=1, help="calls at a time")
    parser.add_argument("--sizes", type=_sizes, default=Sizes(), help="a JSON object of the link's sizes, in bytes")
    parser.add_argument("--limits", type=json.loads, default={}, help="a JSON object of limits of this process")
    parser.add_argument("--worker-id", default="", help="shows in process listings")
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


def _sizes(text: str) -> Sizes:
    return msgspec.json.decode(text, type=Sizes)


def _start_link(
    adapter: BaseAdapter,
    options: argparse.Namespace,
    secret: str,
    ledger: mmap.mmap | None,
    starting: object,
    first_call: bytes,
) -> Callable[[], int]:
    executor: Executor
    listener = socket.socket(fileno=options.listen_fd)

    def end() -> None:
        executor.stop()

    server = LinkServer(adapter, listener, secret, options.sizes, end, _lane(options.lane_fds))
    executor = _executor(server.end, ledger, server.end.pack, options.concurrency)
    with forks_end():
        executor.complete(starting)
        if first_call:
            from .tools.functions import call_at_start  # only here: workers start sooner

            executor.complete(call_at_start(first_call))
    return partial(_serve_link, adapter, server, executor)


def _lane(descriptors: list[int]) -> tuple[int, int] | None:
    if not descriptors:
        return None
    reading, writing = descriptors
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # for the programs that tools start
    return reading, writing


def _serve_link(adapter: BaseAdapter, server: LinkServer, executor: Executor) -> int:
    server.start(executor)
    try:
        executor.run()
        return _close(adapter, executor)
    finally:
        server.stop()


def _close(adapter: BaseAdapter, executor: Executor) -> int:
    code = 0
    try:
        with forks_end():
            executor.complete(adapter.close())
    except BaseException as error:  # noqa: ASYNC103 - the exit code tells it
        code = code_of(error)
    return code


def _start_contract(
    adapter: BaseAdapter, options: argparse.Namespace, starting: object, host_token: str | None
) -> Callable[[], int]:
    from .contract.credentials import of_client, reachable
    from .contract.listening import listen, listen_unix
    from .contract.service import ContractServer

    credentials = of_client(host_token, options.elixir_ca)
    if options.elixir_address:
        reachable(options.elixir_address, credentials)
    ready_file = os.environ.get(READY_VARIABLE)
    listener = listen_unix(options.listen) if options.listen else listen("127.0.0.1", options.port)
    where = "unix" if options.listen else str(listener.getsockname()[1])
    server = ContractServer(
        adapter,
        listener,
        options.elixir_address,
        partial(_say_ready, where, ready_file),
        bool(ready_file),
        options.open_to,
        credentials,
    )
    executor = _executor(server, None, server.pack, options.concurrency)
    # SIGTERM does not wait for a tool that runs. A host that wants the tool to end must end the tool's call before.
    signal.signal(signal.SIGTERM, lambda *_: leave(0))
    with forks_end():
        executor.complete(starting)
    return partial(_serve_contract, server, executor)


def _serve_contract(server: ContractServer, executor: Executor) -> int:
    """Serve the wire contract until SIGTERM."""
    server.start(executor)
    executor.run()
    return 0


def _executor(replies: Replies, ledger: mmap.mmap | None, pack: Pack, concurrency: int) -> Executor:
    if concurrency == 1:
        return SerialExecutor(replies, ledger, pack)
    return ConcurrentExecutor(replies, ledger, pack, concurrency)


def _say_ready(where: str, ready_file: str | None) -> None:
    print(f"GRPC_READY:{where}", flush=True)
    if ready_file:
        draft = f"{ready_file}.{os.getpid()}"
        Path(draft).write_text(where, "ascii")
        os.rename(draft, ready_file)


def _extend_path(entries: str) -> None:
    known = set(sys.path)
    sys.path.extend(entry for entry in entries.split(os.pathsep) if entry and entry not in known)


def _line_buffered(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(line_buffering=True)
