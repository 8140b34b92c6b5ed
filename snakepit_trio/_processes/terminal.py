"""The terminal of this process, which it lends to the debugger of one worker at a time.

The debugger gets a pseudo-terminal of its own, whose line discipline, or readline, does the editing. This process
copies between it and its own terminal, whose keys come through as they are, even Ctrl-C. So nothing here waits for a
line, and everything can be cancelled at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self

import trio

from snakepit_trio._util.log import get_logger

from . import terminal_guard
from .children import Child, interpreter, script

_CHUNK: Final = 4096
_MOST_LEFT: Final = 64  # chunks that are still copied when the debugger has left
_LOOK_AGAIN: Final = 0.2  # seconds
_GOODBYE: Final = 1.0
_INTERRUPT: Final = b"\x03"  # Ctrl-C
_FLAGS_OF_INPUT: Final = termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON
_FLAGS_OF_LINES: Final = termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN

logger = get_logger("snakepit.debugger")


class Terminal:
    """The controlling terminal of this process. Raises `OSError` if there is none."""

    def __init__(self) -> None:
        # A file of our own: not blocking, which concerns nobody else.
        self._file = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    async def until_in_front(self, tell: Callable[[], None]) -> None:
        """Wait until this process is in the foreground of its terminal: elsewhere, reading would stop it."""
        is_told = False
        while not self._is_in_front():
            if not is_told:
                tell()
            is_told = True
            await trio.sleep(_LOOK_AGAIN)

    def _is_in_front(self) -> bool:
        try:
            return os.tcgetpgrp(self._file) == os.getpgrp()
        except OSError:  # the terminal has gone: reading says so
            return True

    def say(self, text: str) -> None:
        """Write a line of our own on the terminal, as far as it takes it at once."""
        with contextlib.suppress(OSError):
            os.write(self._file, f"\n-- {text}\n".encode("utf-8", "replace"))

    @contextlib.asynccontextmanager
    async def lent(self, python: str) -> AsyncIterator[PseudoTerminal]:
        """Have a pseudo-terminal in place of the terminal during the block. Then the terminal's settings are restored.

        `python` runs the process that restores them if this one dies. Raises `OSError`.
        """
        with PseudoTerminal(self._file) as pseudo:
            guard = await _guard(python, self._file)
            try:
                settings = termios.tcgetattr(self._file)
                try:
                    self._pass_keys(settings)
                    yield pseudo
                finally:
                    pseudo.copy_rest()
                    with contextlib.suppress(termios.error, OSError):  # the terminal has gone
                        termios.tcsetattr(self._file, termios.TCSANOW, settings)
            except termios.error as error:
                raise OSError(*error.args) from None
            finally:
                if guard is not None:
                    await _see_off(guard)  # noqa: ASYNC102 - shielded and bounded in there

    def _pass_keys(self, settings: list[object]) -> None:
        changed = list(settings)
        input_flags, line_flags = changed[0], changed[3]
        assert isinstance(input_flags, int)
        assert isinstance(line_flags, int)
        changed[0], changed[3] = input_flags & ~_FLAGS_OF_INPUT, line_flags & ~_FLAGS_OF_LINES
        termios.tcsetattr(self._file, termios.TCSANOW, changed)  # type: ignore[arg-type]  # a list, as it was given


class PseudoTerminal:
    """A terminal for a debugger: `theirs` is the descriptor that it reads and writes."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._ours, self.theirs = os.openpty()
        os.set_blocking(self._ours, False)
        settings = termios.tcgetattr(self.theirs)
        settings[1] &= ~termios.OPOST  # the terminal itself makes ends of lines
        termios.tcsetattr(self.theirs, termios.TCSANOW, settings)
        self._take_size()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.given()
        os.close(self._ours)

    def given(self) -> None:
        """Close this process's copy of `theirs`: the debugger has its own."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    async def copy(self, interrupt: Callable[[], None]) -> None:
        """Copy keys to the debugger and its output to the terminal, until either end closes. `interrupt` is Ctrl-C."""
        async with trio.open_nursery() as nursery:
            for copy in (self._copy_keys, self._copy_output):
                nursery.start_soon(self._until_closed, copy, interrupt, nursery.cancel_scope)

    async def _until_closed(
        self,
        copy: Callable[[Callable[[], None]], Awaitable[None]],
        interrupt: Callable[[], None],
        scope: trio.CancelScope,
    ) -> None:
        try:
            await copy(interrupt)
        except OSError as error:
            logger.debug("the terminal of a debugger has ended: %s", error)
        finally:
            scope.cancel()

    async def _copy_keys(self, interrupt: Callable[[], None]) -> None:
        while keys := await _read(self._terminal):
            self._take_size()
            if _INTERRUPT in keys:
                interrupt()
                keys = keys.rpartition(_INTERRUPT)[2]
            with contextlib.suppress(BlockingIOError):  # it does not read: more keys would be too many
                os.write(self._ours, keys)

    async def _copy_output(self, _interrupt: Callable[[], None]) -> None:
        while output := await _read(self._ours):
            await _write(self._terminal, output)

    def copy_rest(self) -> None:
        """Copy the output that is left, as far as the terminal takes it at once."""
        with contextlib.suppress(OSError):
            for _ in range(_MOST_LEFT):
                os.write(self._terminal, os.read(self._ours, _CHUNK))

    def _take_size(self) -> None:
        # At each key: a signal would tell of a change, but signals are the application's.
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)


async def _read(file: int) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(file)
        with contextlib.suppress(BlockingIOError):
            return os.read(file, _CHUNK)


async def _write(file: int, data: bytes) -> None:
    while data:
        # It waits only if it must: a cancellation there loses what was read.
        try:
            data = data[os.write(file, data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(file)


async def _guard(python: str, file: int) -> Child | None:
    def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [interpreter(python), "-I", "-S", script(terminal_guard.__file__)],
            stdin=theirs.fileno(),
            stdout=file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends the host ends it not
            cwd="/",
            env={},
        )

    try:
        guard = await Child.start(start)
    except Exception as error:
        logger.warning("if this process dies at the breakpoint, nothing restores its terminal: %s", error)
        return None
    try:
        await guard.read_line()
    except BaseException:
        await _see_off(guard)  # noqa: ASYNC102 - shielded and bounded in there
        raise
    return guard


async def _see_off(guard: Child) -> None:
    guard.tell(terminal_guard.BYE)
    try:
        with trio.move_on_after(_GOODBYE, shield=True):
            await guard.until_reaped()
        if guard.process.returncode is None:
            with contextlib.suppress(OSError):
                guard.process.kill()
            with trio.move_on_after(_GOODBYE, shield=True):
                await guard.until_reaped()
    finally:
        guard.let_go()
