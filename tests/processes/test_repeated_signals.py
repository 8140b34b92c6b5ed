"""A further SIGINT or SIGTERM makes a pool's closing shorter, whenever it comes, and never longer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

INT, TERM = signal.SIGINT, signal.SIGTERM
BOUND = 40  # seconds; without a further signal it takes minutes


class Host:
    """The program, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, word: str, times: int = 1) -> None:
        """Wait until it has said something so often."""
        assert self.process.stdout is not None
        while sum(line.startswith(word) for line in self.lines) < times:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {word!r}: {self.lines}"
            self.lines.append(line)

    def send(self, *numbers: signal.Signals, pause: float = 0.2) -> None:
        """Send signals, one after another."""
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(pause)

    def ends(self) -> int:
        """Its exit code; nothing that it has started is left then."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.communicate(timeout=BOUND)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        return self.process.returncode


@contextmanager
def host(how: str) -> Iterator[Host]:
    """Start it, and end it in any case."""
    command = [sys.executable, "-m", "tests.helpers.interrupted", how]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Host(process)
        finally:
            process.kill()


pytestmark = pytest.mark.usefixtures("untraced_workers")


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((INT, INT), -INT),
        ((INT, INT, INT, INT), -INT),
        ((TERM, TERM), 143),
        ((TERM, INT, TERM), 143),
        ((INT, TERM), -INT),
    ],
)
def test_further_signals_while_it_closes(signals: tuple[signal.Signals, ...], code: int) -> None:
    with host("one") as it:
        it.until("open")
        it.send(signals[0])
        it.until("closing")
        it.send(*signals[1:], pause=0.0)  # at once: what comes when the pool has closed is not ours
        assert it.ends() == code


def test_a_first_signal_while_it_closes_lets_it_end_in_order() -> None:
    with host("closing") as it:
        it.until("closing")
        it.send(INT)
        time.sleep(2)
        assert it.process.poll() is None
        it.send(INT)
        assert it.ends() == -INT


def test_a_signal_while_it_opens() -> None:
    with host("opening") as it:
        it.until("opening")
        time.sleep(0.5)
        it.send(INT)
        assert it.ends() == -INT


@pytest.mark.parametrize("how", ["nested", "side by side"])
def test_two_pools(how: str) -> None:
    with host(how) as it:
        if how == "nested":
            it.until("closing")
            it.send(INT)
        else:
            it.until("open", 2)
            it.send(INT)
            it.until("closing", 1)
        # Those that close are hurried, and then those that close because of that.
        deadline = time.monotonic() + BOUND
        while it.process.poll() is None:
            it.send(INT, pause=0.5)
            assert time.monotonic() < deadline
        # What comes out of a nursery of the application is a group.
        assert it.process.returncode == (-INT if how == "nested" else 1)


def test_signals_break_into_a_host_tool_that_blocks() -> None:
    with host("host tool") as it:
        it.until("open")
        it.send(INT, INT)
        it.until("closing")
        it.send(INT)
        assert it.ends() == -INT


def test_a_storm_of_signals() -> None:
    with host("one") as it:
        it.until("open")
        deadline = time.monotonic() + BOUND
        while it.process.poll() is None:
            it.send(INT, pause=0.01)
            assert time.monotonic() < deadline
        assert it.process.returncode == -INT
