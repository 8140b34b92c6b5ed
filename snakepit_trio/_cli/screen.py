"""A live view that has a terminal for itself: it follows the terminal's size, and leaves nothing on it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
import trio

from bridge_py.wire.errors import UsageError
from bridge_py.wire.readable import readable

from .endings import ReaderLeft
from .rendering import Console

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live

_PLAIN_WIDTH: Final = 120
_SIZES: Final = ("COLUMNS", "LINES")  # a shell may have exported the size that the terminal had
_MOST_KEPT: Final = 100


class OurConsole(Console):
    """A console for results: it raises `ReaderLeft` when nobody reads them any more."""

    def on_broken_pipe(self) -> None:
        """Say so, in place of an exit with code 1."""
        raise ReaderLeft from None


def make_console(stdout: TextIO | None) -> Console:
    """A console that writes control codes only to terminals, leaves names as they are, and follows the terminal.

    Raises `UsageError` if stdout is closed.
    """
    if stdout is None:
        raise UsageError("stdout is closed: send it somewhere, such as to /dev/null")
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="replace")  # names may have characters that the terminal's encoding lacks
    is_terminal = stdout.isatty()
    variables = {name: value for name, value in os.environ.items() if not (is_terminal and name in _SIZES)}
    return OurConsole(
        file=stdout,
        force_terminal=is_terminal,
        width=None if is_terminal or "COLUMNS" in variables else _PLAIN_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
        _environ=variables,
    )


def has_screen(console: Console) -> bool:
    """Whether a live view can be shown."""
    return console.is_terminal and not console.is_dumb_terminal


Picture = Callable[[int], "Group"]  # makes the picture for a number of lines


class _Kept(logging.Handler):
    """Keeps what is logged meanwhile: on the screen it would be drawn over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record, once."""
        if len(self.texts) < _MOST_KEPT:
            self.texts[record.getMessage()] = None


class Screen:
    """The other screen of a terminal, which has no history and is not wrapped anew when its size changes."""

    def __init__(self, console: Console, picture: Picture) -> None:
        self._console = console
        self._picture = picture
        self._live = self._make()

    def _make(self) -> Live:
        from rich.live import Live

        return Live(
            get_renderable=self._get,
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def _get(self) -> RenderableType:
        return self._picture(self._console.size.height)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the picture during the block. Then the terminal is as before, and the warnings of the block follow."""
        kept, ours = _Kept(), logging.getLogger("snakepit")
        ours.addHandler(kept)
        try:
            self._live.start()
            yield
        finally:
            ours.removeHandler(kept)
            self._live.stop()
            for text in kept.texts:
                click.echo(readable(text), err=True)

    def refresh(self) -> None:
        """Draw the picture anew: each cell of the screen is written."""
        self._live.refresh()

    async def follow(self, *ends: signal.Signals) -> signal.Signals:
        """Draw anew when the size of the terminal changes, and after a pause by Ctrl-Z.

        Returns when one of the signals `ends` comes.
        """
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, *ends) as signals:
            async for number in signals:
                if number in ends:
                    return signal.Signals(number)
                if number == signal.SIGTSTP:
                    self._pause()
                self._console.clear()
                self.refresh()
        raise AssertionError("the receiver of signals has ended")

    def _pause(self) -> None:
        # The shell gets its own screen and its own mode of the terminal.
        self._live.stop()
        with cooked():
            os.kill(os.getpid(), signal.SIGSTOP)
        self._live = self._make()
        self._live.start()


async def until_key(key: bytes) -> None:
    """Wait for a key. Never returns if stdin is no terminal, or another program's at the moment."""
    fd = 0
    while _is_ours(fd):
        await trio.lowlevel.wait_readable(fd)
        typed = os.read(fd, 1024)
        if key in typed.lower():
            return
        if not typed:  # the terminal is gone
            break
    await trio.sleep_forever()


@contextmanager
def raw_keys() -> Iterator[None]:
    """Get keys at once, and without an echo, during the block. Ctrl-C and Ctrl-Z stay signals."""
    if not _is_ours(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield
    finally:
        _set(before)


@contextmanager
def cooked() -> Iterator[None]:
    """Give a terminal that `raw_keys` has taken back, for the time of the block."""
    if not _is_ours(0):
        yield
        return
    before = termios.tcgetattr(0)
    usual: list[Any] = [*before]
    usual[3] |= termios.ECHO | termios.ICANON
    _set(usual)
    try:
        yield
    finally:
        _set(before)


def _set(attributes: list[Any]) -> None:
    with contextlib.suppress(termios.error):  # the terminal is gone
        termios.tcsetattr(0, termios.TCSADRAIN, attributes)


def _is_ours(fd: int) -> bool:
    try:
        return sys.stdin is not None and os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
