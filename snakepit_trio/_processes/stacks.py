"""Asks a worker process of this user for the stacks of its threads. `bridge_py.execution.stacks` is the other side."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from pathlib import Path
from typing import BinaryIO, Final

import attrs
import trio

from bridge_py.execution.stacks import FILE_NAME, SIGNAL
from bridge_py.wire.readable import readable

from .guardian import start_ticks

_LINK: Final = f"/memfd:{FILE_NAME} (deleted)"
_PATIENCE: Final = 2.0  # seconds
_AGAIN: Final = 0.01
_LONGEST: Final = 1 << 20  # bytes
_BIT: Final = 1 << (SIGNAL - 1)
_THREAD: Final = re.compile(r"(?:Current thread|Thread) (\S+).*\(most recent call first\):")
_FRAME: Final = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')

Frame = tuple[str, int, str]  # file, line, function


@attrs.frozen
class Stack:
    """The stack of one thread, the outermost frame first."""

    thread: str
    frames: list[Frame]


class NoStacks(Exception):
    """A process has not told its stacks; the text says why."""


async def stacks_of(pid: int, ticks: int | None) -> list[Stack]:
    """The stacks of a process that has started at `ticks`. Takes four seconds at the most.

    Raises `NoStacks`. It interrupts the system calls of the process once; nothing else of it changes.
    """
    try:
        with contextlib.ExitStack() as stack:
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            if start_ticks(pid) != ticks:  # asked after the pidfd was opened: it is of this very process
                raise NoStacks("it has ended")
            file = stack.enter_context(_open(pid))
            await _alone(file)
            return parsed(await _ask(pid, pidfd, file))
    except (FileNotFoundError, ProcessLookupError):
        raise NoStacks("it has ended") from None
    except OSError as error:
        raise NoStacks(f"its stacks cannot be read: {error.strerror or error}") from None


def _open(pid: int) -> BinaryIO:
    folder = Path(f"/proc/{pid}/fd")
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(path) == _LINK and _is_caught(pid):
                return open(path, "r+b", buffering=0)
    raise NoStacks("it cannot tell its stacks: it is no Python worker of this version, or its code has closed the file")


def _is_caught(pid: int) -> bool:
    # Without a handler, the signal would kill the process.
    return bool(_mask(Path(f"/proc/{pid}/status"), "SigCgt") & _BIT)


async def _alone(file: BinaryIO) -> None:
    """Wait until no other process reads the file. Raises `NoStacks`."""
    with trio.move_on_after(_PATIENCE):
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            await trio.sleep(_AGAIN)
    raise NoStacks("another `snakepit dump` has not finished with it")


async def _ask(pid: int, pidfd: int, file: BinaryIO) -> str:
    begin = os.fstat(file.fileno()).st_size
    before = _blocking(pid)
    signal.pidfd_send_signal(pidfd, SIGNAL)
    with trio.move_on_after(_PATIENCE):
        while not _is_written(pid, before) or os.fstat(file.fileno()).st_size <= begin:  # noqa: ASYNC110 - nothing reports it
            await trio.sleep(_AGAIN)
        file.seek(begin)
        text = file.read(_LONGEST).decode("utf-8", "replace")
        os.ftruncate(file.fileno(), 0)
        return text
    raise NoStacks(f"it has not told them in {_PATIENCE:g} s: it is stopped, or its code blocks signal {SIGNAL}")


def _is_written(pid: int, before: set[str]) -> bool:
    """Whether the handler has run: the signal is not pending, and no thread blocks it that did not before.

    The kernel blocks a signal in a thread while its handler runs, from the moment when it is no longer pending.
    """
    return not _mask(Path(f"/proc/{pid}/status"), "ShdPnd") & _BIT and _blocking(pid) <= before


def _blocking(pid: int) -> set[str]:
    """The threads of a process that block the signal."""
    found = set()
    for path in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _mask(path / "status", "SigBlk") & _BIT:
                found.add(path.name)
    return found


def _mask(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1], 16)
    return 0


def parsed(text: str) -> list[Stack]:
    """Read what `faulthandler` has written."""
    found: list[Stack] = []
    for line in text.splitlines():
        if thread := _THREAD.match(line):
            found.append(Stack(thread[1], []))
        elif found and (frame := _FRAME.fullmatch(line)):
            number = int(frame[2]) if frame[2].isdigit() else 0
            found[-1].frames.insert(0, (readable(frame[1]), number, readable(frame[3])))
    return found
