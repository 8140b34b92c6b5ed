"""What a template's copy becomes: a keeper, and below it its worker. Neither executes a program.

The keeper runs the code that other keepers run as a script. The worker gives up what was the template's and the
keeper's: signal handlers, descriptors, environment, the state of random numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
from functools import partial
from types import ModuleType
from typing import Any, Final, NamedTuple, NoReturn

from bridge_py.command_line import parse
from bridge_py.execution.ending import code_of, leave
from bridge_py.main import run
from bridge_py.wire.environment import NUMBER_VARIABLE

#: Variables of the template alone: the room for marks in its environment.
_ROOM: Final = b"SNAKEPIT_TEMPLATE="
_ENVIRONMENT_AT: Final = 47  # proc(5), stat: env_start, counted from the state on

logger = logging.getLogger("snakepit.template")


class Template(NamedTuple):
    """What a forked keeper and its worker must know of the template that they are copies of."""

    control: socket.socket
    #: The module with the keeper's code.
    keeper: ModuleType
    #: Its environment before the imports.
    environment: dict[str, str]
    #: Which module has read an environment variable while it was imported.
    read: dict[str, str]
    handlers: dict[int, Any]
    mask: set[int]


def become_keeper(template: Template, descriptors: list[int]) -> NoReturn:
    """Keep one worker, in a copy of the template. `descriptors` are those of the request."""
    code = template.keeper
    file, host, *given = descriptors
    try:
        os.setpgid(0, 0)
        code.name_process(code.KEEPER_NAME)
        template.control.close()
        os.write(host, b"keeper %d\n" % os.getpid())
        with open(file, "rb") as reading:
            request = json.load(reading)
        here = dict(zip(request["descriptors"], given, strict=True))
        with contextlib.suppress(OSError, ValueError):  # without it, only one of several proofs is missing
            _mark(request["mark"].encode("utf-8", "surrogateescape"))
        code.become_keeper(host)
        keeper = code.Keeper(host, here[request["host"]])
        worker = partial(_become_worker, template, request, here, keeper, os.getpid())
        keeper.keep(worker, [each for each in given if each != here[request["host"]]])
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        with contextlib.suppress(OSError):
            os.write(host, b"error %s\n" % code.describe(error).replace(b"\n", b" "))
    finally:
        os._exit(0)


def _become_worker(
    template: Template, request: dict[str, Any], here: dict[int, int], keeper: Any, keeper_pid: int, told: int
) -> NoReturn:
    try:
        template.keeper.die_with_keeper()
        if os.getppid() != keeper_pid:
            os._exit(0)  # the keeper had ended before
        options = _settle(template, request, here, keeper)
    except BaseException as error:  # noqa: ASYNC103 - there is no trio here
        os.write(told, template.keeper.describe(error))
        os._exit(127)
    try:
        os.close(told)
        code = run(options)
    except BaseException as error:  # noqa: ASYNC103 - the exit code tells it
        code = code_of(error)
    leave(code)


def _settle(template: Template, request: dict[str, Any], here: dict[int, int], keeper: Any) -> argparse.Namespace:
    keeper.let_go()
    _restore_signals(template)
    folder = request["folder_descriptor"]
    template.keeper.settle({**request, "folder_descriptor": None if folder is None else here[folder]})
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(here[request[name]], number)
    sys.argv[1:] = request["arguments"]
    options = parse(request["arguments"])
    used = _take_descriptors(options, here)
    for descriptor in set(here.values()) - used - {here[request["host"]]}:
        os.close(descriptor)
    _take_environment(template, request)
    with contextlib.suppress(OSError):
        template.keeper.name_process(options.worker_id)
    _seed()
    gc.enable()
    return options


def _restore_signals(template: Template) -> None:
    for number, handler in template.handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, template.mask)


def _take_descriptors(options: argparse.Namespace, here: dict[int, int]) -> set[int]:
    """Have the options name descriptors of this process. Returns those that the worker uses."""
    for name in ("listen_fd", "ledger_fd", "options_fd"):
        setattr(options, name, here[getattr(options, name)])
    options.lane_fds = [here[descriptor] for descriptor in options.lane_fds]
    if options.debug_fd is not None:
        options.debug_fd = here[options.debug_fd]
    debug = () if options.debug_fd is None else (options.debug_fd,)
    return {options.listen_fd, options.ledger_fd, options.options_fd, *options.lane_fds, *debug}


def _take_environment(template: Template, request: dict[str, Any]) -> None:
    """Make the environment the worker's. What the imports have changed in it stays, unless the worker's differs."""
    before, wanted = template.environment, request["environment"]
    changed = [name for name, value in wanted.items() if before.get(name) != value]
    for name in {*before, *changed} - (wanted.keys() - set(changed)):
        os.environ.pop(name, None)
    for name in changed:
        os.environ[name] = wanted[name]
    for name in {*request["own"], NUMBER_VARIABLE} & template.read.keys() & set(changed):
        logger.warning(
            "module %s has read the variable %s when the template imported it, and this worker has another value of"
            " it: read it in the adapter's setup(), or leave out template=",
            template.read[name],
            name,
        )


def _seed() -> None:
    # Python's own `random` does this by itself in each fork. Without it, all workers would draw the same numbers.
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()


def _mark(mark: bytes) -> None:
    """Write the worker's mark where the kernel shows the environment that this process has started with.

    By its mark the host finds all that a worker has forked, if somebody has killed the keeper. A fork has the
    template's environment there, with room for a mark.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = (int(field) for field in fields[_ENVIRONMENT_AT : _ENVIRONMENT_AT + 2])
    block = ctypes.string_at(begin, end - begin) if begin else b""
    variable = mark.partition(b"=")[0] + b"="
    room = block.index(b"\0" + _ROOM) + 1
    length = block.index(b"\0", room) - room
    if len(mark) > length:
        return
    theirs = block.index(b"\0" + variable) + 1 + len(variable)
    ctypes.memmove(begin + theirs, b"#", 1)  # it is the template's no more
    ctypes.memmove(begin + room, mark.ljust(length, b"\0"), length)
