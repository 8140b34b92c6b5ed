"""The host really runs short: of descriptors, of disk, of its folders, of threads. It heals when there are some again.

Each host is a program of its own (`tests.helpers.short_host`), for it starves itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_trio._processes.registry import FOLDER_VARIABLE

ROOT = Path(__file__).parents[2]
LONGEST = 30


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of runs of its own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=300,mode=700", "none", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run_host(*words: str, **environment: str) -> dict[str, Any]:
    """Run a host to its end. What it has left and what went wrong must be nothing; returns what it has told."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.short_host", *words],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COVERAGE_PROCESS_CONFIG": "", **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["problems"] == []
    assert (told["left"], told["children"]) == ([], [])
    return told


@pytest.mark.parametrize("spare", [0, 3, 6, 12])
def test_workers_die_while_there_are_no_descriptors(spare: int, folder: Path) -> None:
    told = run_host("descriptors", str(spare), **{FOLDER_VARIABLE: str(folder)})
    assert told["outcomes"]["right"] > 10


def test_pools_open_or_say_why_not_with_few_descriptors(folder: Path) -> None:
    told = run_host("descriptors_when_opening", **{FOLDER_VARIABLE: str(folder)})
    assert sum(told["outcomes"].values()) == 15
    assert set(told["outcomes"]) - {"worked"}, "there were always enough"


def test_workers_die_while_the_disk_of_the_folder_of_runs_is_full(small_disk: Path) -> None:
    told = run_host("disk", str(small_disk), **{FOLDER_VARIABLE: str(small_disk)})
    assert told["outcomes"]["right"] > 10
    assert told["opened"][-1] == "worked" != told["opened"][0], told["opened"]


def test_workers_die_while_the_disk_of_temporary_files_is_full(small_disk: Path) -> None:
    told = run_host("disk", str(small_disk), TMPDIR=str(small_disk), **{FOLDER_VARIABLE: ""})
    assert told["outcomes"]["right"] > 10
    assert told["opened"][-1] == "worked" != told["opened"][0], told["opened"]


def test_a_pool_closes_on_a_full_disk(small_disk: Path) -> None:
    told = run_host("close_on_a_full_disk", str(small_disk), **{FOLDER_VARIABLE: str(small_disk)})
    assert told["outcomes"]["right"] > 10, "calls need no disk"
    assert told["seconds"] < LONGEST


@pytest.mark.parametrize("what", ["ours", "all"])
def test_workers_die_after_a_cleaner_has_removed_our_folder(what: str, folder: Path) -> None:
    runs = folder / "runs"
    told = run_host("cleaned", what, **{FOLDER_VARIABLE: str(runs)})
    assert told["outcomes"]["right"] > 10
    assert told["runs"] == [True]


def test_threads_of_the_application_that_wait_keep_no_worker_from_being_replaced(folder: Path) -> None:
    told = run_host("threads", "60", **{FOLDER_VARIABLE: str(folder)})
    assert (told["done"], told["right"]) == (60, True)
    assert told["health"] == "healthy"
    assert told["seconds"] < LONGEST
