"""A program on a pseudo-terminal that controls it, as the terminal of a user does."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.command import environment

_LONGEST = 30.0  # seconds


class Screen:
    """A program, and what it has written."""

    def __init__(self, command: Sequence[str], folder: Path, **variables: str) -> None:
        self.file, theirs = pty.openpty()
        self.before = termios.tcgetattr(self.file)
        self.text = ""  # what has come and was not expected yet
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(TERM="dumb", **variables),
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - this process has one thread
        )
        os.close(theirs)

    def expect(self, text: str) -> str:
        """Wait until a text comes. Returns what has come up to its end."""
        end = time.monotonic() + _LONGEST
        while text not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{text!r} did not come, but {self.text!r}")
        before, _, self.text = self.text.partition(text)
        return before + text

    def expect_any(self, *texts: str) -> str:
        """Wait until one of some texts comes. Returns what has come up to its end."""
        end = time.monotonic() + _LONGEST
        while not (found := [text for text in texts if text in self.text]):
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"none of {texts} came, but {self.text!r}")
        return self.expect(min(found, key=self.text.index))

    def _read(self, seconds: float) -> bool:
        if not select.select([self.file], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.file, 4096)
        except OSError:  # nobody has the terminal any more
            return False
        self.text += data.decode()
        return True

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self.file, text.encode())

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal has the settings that it had at first."""
        return termios.tcgetattr(self.file) == self.before

    def ends(self) -> int:
        """Wait for the end of the program; returns its exit code, and reads the rest."""
        while self._read(_LONGEST):
            pass
        return self.process.wait(_LONGEST)


@contextmanager
def screen(command: Sequence[str], folder: Path, **variables: str) -> Iterator[Screen]:
    """Run a program. It is killed after the block if it has not ended."""
    made = Screen(command, folder, **variables)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            os.kill(made.process.pid, signal.SIGKILL)
        made.process.wait()
        os.close(made.file)
