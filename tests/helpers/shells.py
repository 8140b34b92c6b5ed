"""Real shells on a terminal: what is typed is completed by Tab, as users do it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.helpers.command import command, environment

_PATIENCE: Final = 60.0  # seconds for an answer of a shell
_CONTROL: Final = re.compile(
    r"\x1b(?:\[[0-9;?>=]*[A-Za-z~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>()][0-9A-Z]?|[A-Z78])|[\r\x08\x07]"
)
_START: Final = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
_SETUP: Final = {
    "bash": 'PS1="> "; bind "set enable-bracketed-paste off"; eval "$(snakepit completion bash)"',
    "zsh": 'PS1="> "; autoload -U compinit; compinit -u -D; eval "$(snakepit completion zsh)"',
    "fish": 'function fish_prompt; echo -n "> "; end; snakepit completion fish | source',
}


class Shell:
    """A shell on a terminal."""

    def __init__(self, terminal: int, name: str) -> None:
        self._terminal = terminal
        self._name = name
        self._read = ""
        self._typed = 0

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._terminal, text.encode())

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read what the shell shows, without colours and the like, until it fits the pattern."""
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, _CONTROL.sub("", self._read))) is None:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{self._name} shows {self._read!r} and no {pattern!r}"
            self._read += os.read(self._terminal, 4096).decode("utf-8", "replace")
            self._answer()
        self._read = ""
        return found

    def _answer(self) -> None:
        # fish asks the terminal what it is, and waits for the answer for a while.
        if "\x1b[c" in self._read or "\x1b[0c" in self._read:
            self._read = self._read.replace("\x1b[c", "").replace("\x1b[0c", "")
            self.type("\x1b[?62c")

    def complete(self, text: str) -> str:
        """Type a text, then Tab, and return the whole line by which the shell would call the command."""
        self.type(f"{text}\t")
        # What is typed next stands behind what Tab has added: the shell reads it only then.
        # The number tells it from the line before, which the shell may draw once more.
        self._typed += 1
        self.type(f"END{self._typed}")
        found = self.read_until(rf"(snakepit (?:(?!snakepit |END)[^\n])*?) ?END{self._typed}")
        self.type("\x15")  # kills the line
        return found[1].strip()


@contextmanager
def shell(name: str, folder: Path) -> Iterator[Shell]:
    """A shell in a folder, where the command `snakepit` is that of this tree."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "snakepit"
    program.write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    program.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *_START[name]],  # the terminal must be its own, as users have it
        cwd=folder,
        env=environment(PATH=path, HOME=str(folder), TERM="xterm", COLUMNS="200"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        found = Shell(ours, name)
        found.type(f"{_SETUP[name]}; echo rea''dy\n")
        # Behind its prompt, the shell reads keys itself. Before, the terminal would show what is typed, as it is.
        found.read_until(r"ready\n[\s\S]*?> ")
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
