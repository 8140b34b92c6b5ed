"""SIGINT and SIGTERM to the host end its pools in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.workers import is_alive


@contextmanager
def host(how: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A host process and the pids of its workers."""
    command = [sys.executable, "-m", "tests.helpers.signalled", how]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()[1:]]
        try:
            yield process, pids
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["one", "nested"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_pools_in_order(how: str, number: signal.Signals, code: int) -> None:
    with host(how) as (process, pids):
        time.sleep(0.1)  # any moment will do
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=240)
        assert not any(is_alive(pid) for pid in pids)
    # An interpreter that KeyboardInterrupt ends kills itself by SIGINT, so that shells see it.
    assert (process.returncode, stdout) == (code, "still works: 2\n"), stderr
    assert stderr == "" if number is signal.SIGTERM else stderr.endswith("KeyboardInterrupt\n")


def test_a_second_sigint_breaks_into_a_body_that_blocks() -> None:
    with host("blocked") as (process, pids):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=240)
        assert not any(is_alive(pid) for pid in pids)
    assert (process.returncode, stdout) == (-signal.SIGINT, "still works: 2\n")


def test_a_handler_of_the_applications_own_is_left_alone() -> None:
    with host("own handler") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "handled\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=240)
    assert process.returncode == -signal.SIGINT
