"""Fixtures that all tests share. One of them fails any test that leaves something behind."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from snakepit_trio._processes.registry import FOLDER_VARIABLE
from snakepit_trio.testing.leaks import LeakCheck
from tests.helpers.openai_server import Server, serving
from tests.helpers.redis_server import RedisServer

pytest_plugins = ["snakepit_trio.testing.pytest_plugin", "tests.helpers.timeouts"]

# Other programs of this user may have pools too.
os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="snakepit-test-")
atexit.register(shutil.rmtree, os.environ[FOLDER_VARIABLE])
# Some tests run programs of administrators, which not every shell finds.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# Who is started in the background of a shell ignores SIGINT, and so do the programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests that need a cluster run only if they are named, as `make test-cluster` does."""
    is_named = any("tests/cluster" in argument for argument in config.args)
    return True if collection_path.name == "cluster" and not is_named else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell why a test of trio was skipped. pytest-trio 0.8 skips it anew without the reason, which is in the group."""
    report = yield
    group = None if call.excinfo is None else call.excinfo.value.__context__
    if report.skipped and isinstance(group, BaseExceptionGroup):
        while isinstance(group, BaseExceptionGroup):  # of one error, or pytest-trio would not skip
            (group,) = group.exceptions
        report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {group}")
    return report


@pytest.fixture(autouse=True)
def nothing_is_left_behind(worker_leak_check: LeakCheck) -> None:
    """Fail a test that leaves a process, a descriptor, a file of ours or a thread."""


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis server, with keys of many tests. A test that stops it, or changes its settings, starts one of its own."""
    from tests.helpers.redis_stores import shared_server  # most tests do without coredis

    with shared_server() as server:
        yield server


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
