"""A test that may start no process, and does, fails and is told where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import os, subprocess, sys
import pytest

def test_popen():
    subprocess.run([sys.executable, "--version"])

def test_fork():
    if os.fork() == 0:
        os._exit(0)

def test_swallowed():
    with pytest.raises(RuntimeError, match="starts no process"):
        os.system("true")

@pytest.mark.processes
def test_that_may():
    subprocess.run([sys.executable, "--version"], check=True)

def test_that_does_not():
    pass
"""


def test_whoever_starts_a_process_fails(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = processes\n")
    (tmp_path / "test_them.py").write_text(TESTS)
    plugins = ["-p", "tests.helpers.no_processes", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert "2 failed, 3 passed, 3 errors" in done.stdout, done.stdout
    assert "tests of tests/unit go to another folder" in done.stdout
