"""Fixtures that all tests share. One of them fails any test that leaves something behind."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_trio._processes.registry import FOLDER_VARIABLE
from snakepit_trio.testing.leaks import LeakCheck
from tests.helpers.openai_server import Server, serving

pytest_plugins = ["snakepit_trio.testing.pytest_plugin", "tests.helpers.timeouts"]

# Other programs of this user may have pools too.
os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="snakepit-test-")
atexit.register(shutil.rmtree, os.environ[FOLDER_VARIABLE])
# Who is started in the background of a shell ignores SIGINT, and so do the programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(worker_leak_check: LeakCheck) -> None:
    """Fail a test that leaves a process, a descriptor, a file of ours or a thread."""


@pytest.fixture
def untraced_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are not measured for coverage, which would make their start several times as slow."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of a language model."""
    with serving() as server:
        yield server


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file that tools write to."""
    return tmp_path / "log"
