"""Runs a worker process, from its command line to its end."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import io
import json
import logging
import mmap
import os
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from . import BaseAdapter  # loads the public names, so that errors show them
from .buffers.buffer_sets import Sizes
from .execution import breakpoints
from .execution.asyncio_policy import restore_asyncio
from .execution.ending import code_of, forks_end, leave
from .execution.executor import ConcurrentExecutor, Executor, Pack, PostMortem, Replies, SerialExecutor
from .execution.ledger import LEDGER_BYTES, note_failure, take_secret
from .execution.limits import apply_limits
from .execution.logs import HostHandler, install
from .execution.stacks import offer_stacks
from .link.server import LinkServer
from .tools.context import mark_worker
from .tools.targets import attribute_of, module_of
from .wire.environment import OPTIONS_VARIABLE, PATH_VARIABLE, READY_VARIABLE, TOKEN_VARIABLE
from .wire.errors import UsageError
from .wire.extras import need

if TYPE_CHECKING:
    from .contract.service import ContractServer
    from .execution.debugger import Debuggers
    from .link.remote import RemoteSettings

_NO_OPTIONS: Final[Mapping[str, Any]] = {}


def run(options: Namespace) -> int:
    """Run a worker until its host says goodbye, in a process of its own; returns the exit code."""
    logs = prepare(options)
    offer_stacks()
    debuggers = _debuggers(options)
    breakpoints.install(breakpoints.refuse if debuggers is None else debuggers.breakpoint)
    ledger = None if options.ledger_fd is None else mmap.mmap(options.ledger_fd, LEDGER_BYTES)
    try:
        serve = _start(options, ledger, logs, debuggers)
    except BaseException as error:  # noqa: ASYNC103 - the exit code tells it
        return _fail(options, ledger, error)  # noqa: ASYNC104 - this is no task of a loop: the process ends by it
    return serve()


def prepare(options: Namespace) -> HostHandler | None:
    """Make this process a worker, or a template, before any code of the adapter runs.

    Returns the handler of its log records, which go to the host of a link.
    """
    mark_worker()
    builtins.input = _no_input
    _line_buffered(sys.stdout)
    logs = None
    if options.listen_fd is None:
        logging.basicConfig(level=options.log_level, format="%(levelname)s %(name)s: %(message)s")
    else:
        logs = install(options.log_level)
    logging.getLogger("hpack").setLevel(logging.INFO)  # below that, it tells of each header, and tokens are among them
    extend_path()
    return logs


def _no_input(_prompt: object = "", /) -> NoReturn:
    raise EOFError(
        "input() has nobody to ask: a worker has no terminal. Give the text as an argument of the call, or ask"
        " through a host tool"
    )


def _debuggers(options: Namespace) -> Debuggers | None:
    if options.debug_fd is None:
        return None
    from .execution.debugger import Debuggers  # only here, because pdb imports a lot

    return Debuggers(socket.socket(fileno=options.debug_fd))


def _start(
    options: Namespace, ledger: mmap.mmap | None, logs: HostHandler | None, debuggers: Debuggers | None
) -> Callable[[], int]:
    _limit(options.limits)
    secret = "" if ledger is None else take_secret(ledger)
    host_token = os.environ.pop(TOKEN_VARIABLE, None)  # before code of the adapter runs
    adapter_options, first_call = _adapter_options(options.options_fd)
    with forks_end():
        preload(options.preload)
        adapter = load_adapter(options.adapter, adapter_options)
        restore_asyncio()  # the adapter's module may have imported trio-asyncio
        starting = adapter.setup()
    if options.listen_fd is None:
        return _start_contract(adapter, options, starting, host_token)
    post_mortem = debuggers.post_mortem if debuggers is not None and options.post_mortem else None
    return _start_link(adapter, options, secret, ledger, logs, starting, first_call, post_mortem)


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


def _fail(options: Namespace, ledger: mmap.mmap | None, error: BaseException) -> int:
    """Note why the worker cannot start; returns the exit code.

    The process then exits without waiting for its threads, which might never end.
    """
    if ledger is not None:
        note_failure(ledger, error, _remedy(error))
        with contextlib.suppress(OSError):
            os.close(options.listen_fd)  # the host learns of it now, whatever this process still has to do
    return code_of(error)


def _remedy(error: BaseException) -> str:
    try:
        from .tools.start_errors import remedy  # only here: workers start sooner

        return remedy(error)
    except Exception:  # there may be no descriptor, or no memory, for the import
        return ""


def preload(names: Sequence[str]) -> None:
    """Import modules by their names. Errors of the imports are not caught."""
    for name in names:
        importlib.import_module(name)


def load_adapter(target: str, options: Mapping[str, Any] = _NO_OPTIONS) -> BaseAdapter:
    """Make the adapter that `package.module:Class` or `path/to/file.py:Class` names.

    Raises `UsageError` if the class does not exist, is no adapter, or does not take the options, or if its module is in
    the working directory and that is not on `sys.path`. Other errors of the import are not caught.
    """
    place, name = place_of(target)
    module = import_adapter(target)
    found = attribute_of(module, name)
    if not (isinstance(found, type) and issubclass(found, BaseAdapter)):
        from .tools.start_errors import no_adapter  # only here: workers start sooner

        raise no_adapter(target, place, module, name)
    return make_adapter(found, options)


def import_adapter(target: str) -> ModuleType:
    """Import the module of an adapter. Raises `UsageError` as `load_adapter` does."""
    return module_of(place_of(target)[0], f"adapter {target!r}")


def place_of(target: str) -> tuple[str, str]:
    """The module, or the path, and the class that the name of an adapter consists of. Raises `UsageError`."""
    place, _, name = target.rpartition(":" if ":" in target else ".")
    if not place or not name:
        raise UsageError(f"adapter {target!r}: write it as 'package.module:Class' or 'path/to/file.py:Class'")
    return place, name


def make_adapter(adapter: type[BaseAdapter], options: Mapping[str, Any]) -> BaseAdapter:
    """Make an instance; options are named as its constructor's parameters. Raises `UsageError` for unknown options."""
    for name in options:
        if name not in (known := _options_of(adapter)):
            there = ", ".join(known) or "none"
            raise UsageError(f"adapter {adapter.__qualname__} has no option {name!r}; there are: {there}")
    try:
        return adapter(**options)
    except TypeError as error:
        if "argument" not in str(error) or (error.__traceback__ and error.__traceback__.tb_next):
            raise  # by the constructor itself, and not by its call
        raise UsageError(f"{error}: give the adapter's arguments by name, as open_pool(options={{...}})") from error


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


def _start_link(
    adapter: BaseAdapter,
    options: Namespace,
    secret: str,
    ledger: mmap.mmap | None,
    logs: HostHandler | None,
    starting: object,
    first_call: bytes,
    post_mortem: PostMortem | None,
) -> Callable[[], int]:
    executor: Executor
    listener = socket.socket(fileno=options.listen_fd)

    def stop() -> None:
        executor.stop()

    remote = _remote(listener, options.tls_fd)
    sizes = msgspec.json.decode(options.sizes, type=Sizes)
    server = LinkServer(adapter, listener, secret, sizes, stop, _lane(options.lane_fds), remote)
    executor = _executor(server.endpoint, ledger, server.endpoint.pack, options.concurrency)
    if logs is not None:
        logs.running, server.endpoint.logs = executor.running, logs
    executor.post_mortem = post_mortem
    with forks_end():
        executor.complete(starting)
        if first_call:
            from .tools.functions import call_at_start  # only here: workers start sooner

            executor.complete(call_at_start(first_call))
    return partial(_serve_link, adapter, server, executor)


def _remote(listener: socket.socket, descriptor: int | None) -> RemoteSettings | None:
    if descriptor is None:
        if listener.family != socket.AF_UNIX:
            raise UsageError("--listen-fd: a link over TCP needs certificates, --tls-fd")
        return None
    from .link.remote import read_settings  # only here: workers of this machine start sooner

    return read_settings(descriptor)


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
    adapter: BaseAdapter, options: Namespace, starting: object, host_token: str | None
) -> Callable[[], int]:
    need("betterproto2", "grpc", "a worker that speaks the contract")
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


def extend_path() -> None:
    """Have this process find the modules that its host finds."""
    known = set(sys.path)
    sys.path.extend(entry for entry in json.loads(os.environ.pop(PATH_VARIABLE, "[]")) if entry not in known)


def _line_buffered(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(line_buffering=True)
