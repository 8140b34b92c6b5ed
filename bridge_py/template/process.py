"""The template process: it imports, looks whether it may fork, and forks a keeper for each request of its host.

Its only thread waits on a socket. Each message is one request, with descriptors. The end of the socket is its end.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from types import ModuleType
from typing import Any, Final, NoReturn

from bridge_py.command_line import modules
from bridge_py.execution.ending import forks_end
from bridge_py.execution.ledger import in_words
from bridge_py.main import import_adapter, preload, prepare

from .forked import Template, become_keeper
from .import_watch import ImportWatch

_MOST_DESCRIPTORS: Final = 32
#: Signals that a keeper handles in ways of its own. Its worker gets the handlers back that the imports have left.
_KEEPERS_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)

#: What workers import when they need it; a worker's environment may lack the first.
_LATER: Final = ("uvloop", "bridge_py.tools.functions")

logger = logging.getLogger("snakepit.template")


def serve(arguments: list[str]) -> NoReturn:
    """Be a template until the host closes the socket."""
    options = _options(arguments)
    control = socket.socket(fileno=options.control_fd)
    control.set_inheritable(False)
    environment = dict(os.environ)
    watch = ImportWatch()
    _import(options, watch)
    verdict = watch.verdict()
    template = _settle(control, _load(options.keeper), environment, watch)
    try:
        control.send(b"ready")
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 16, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not message:
                break
            _fork(template, descriptors, verdict)
    finally:
        os._exit(0)  # what the imports have registered for the end is the workers', who have copies of it


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bridge_py --template")
    parser.add_argument("--control-fd", type=int, required=True, help="the socket to the host")
    parser.add_argument("--keeper", required=True, help="the file with the keeper's code")
    parser.add_argument("--adapter", required=True, help="package.module:Class")
    parser.add_argument("--preload", type=modules, default=[], help="names of modules to import first, with commas")
    parser.add_argument("--log-level", type=int, default=logging.INFO, help="as for its workers")
    parser.set_defaults(listen_fd=-1)  # its workers have a link
    options, _of_workers = parser.parse_known_args(arguments)
    return options


def _import(options: argparse.Namespace, watch: ImportWatch) -> None:
    prepare(options)
    for name in _LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    try:
        with watch, forks_end():
            preload(options.preload)
            import_adapter(options.adapter)
    except BaseException as error:  # noqa: ASYNC103 - each worker imports by itself then, and tells what is wrong
        logger.warning("the template cannot import what its workers need, so each of them tries: %s", in_words(error))


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_snakepit_keeper", path)
    assert spec is not None
    assert spec.loader is not None
    keeper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keeper)
    return keeper


def _settle(control: socket.socket, keeper: ModuleType, environment: dict[str, str], watch: ImportWatch) -> Template:
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _KEEPERS_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps its children
    keeper.name_process(keeper.TEMPLATE_NAME)
    # A collection in a copy would write to all objects, and so copy the memory that they share.
    gc.collect()
    gc.freeze()
    return Template(control, keeper, environment, watch.read, handlers, {int(number) for number in mask})


def _fork(template: Template, descriptors: list[int], verdict: str) -> None:
    _request, host, *_ = descriptors
    try:
        if verdict:
            _tell(host, verdict)
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()  # else the copy would write it too
        if not os.fork():
            become_keeper(template, descriptors)
    except OSError as error:
        _tell(host, f"the template cannot fork: {error.strerror}")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _tell(host: int, problem: str) -> None:
    with contextlib.suppress(OSError):
        os.write(host, f"error {problem}\n".encode("utf-8", "backslashreplace"))
