"""`snakepit doctor` as users run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import TOOLS, command, environment, snakepit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    return tmp_path


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_where_all_is_well(folder: Path) -> None:
    done = snakepit("doctor", "given:Tools", "--json", folder=folder)
    found = checks(done)
    failed = {name: check for name, check in found.items() if check["state"] == "fail"}
    assert (done.returncode, failed, done.stderr) == (0, {}, "")
    steps = ["pool", "process", "interpreter", "imports", "adapter", "hello", "first call", "end"]
    assert list(found)[-8:] == steps
    assert [name for name, check in found.items() if check["seconds"] is not None] == steps
    assert found["hello"]["text"] == "given:Tools is set up, 14 tools"
    assert {"trio", "extras"} <= set(found)


def test_its_lines(folder: Path) -> None:
    done = snakepit("doctor", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    Python: CPython 3.")
    assert all(line[:4] in ("ok  ", "warn") or line.startswith("      -> ") for line in lines)
    assert lines[-1].startswith("ok    end: worker ended, nothing left (")


@pytest.mark.parametrize(
    ("source", "text", "stderr"),
    [
        (
            "print('looking', file=__import__('sys').stderr)\nraise OSError('no database')",
            "OSError: no database",
            "looking",
        ),
        ("import os\nos.write(2, b'\\x1b[31mlast words')\nos._exit(7)", "(exit code 7)", "\\x1b[31mlast words"),
    ],
    ids=["raises", "exits"],
)
def test_a_worker_that_cannot_start(folder: Path, source: str, text: str, stderr: str) -> None:
    (folder / "given.py").write_text(source)
    done = snakepit("doctor", "given:Tools", "--json", folder=folder)
    found = checks(done)
    assert (done.returncode, done.stderr) == (1, "")
    assert list(found)[-6:] == ["pool", "process", "interpreter", "imports", "adapter", "worker"]
    assert found["worker"]["state"] == "fail"
    assert text in found["worker"]["text"]
    assert stderr in found["worker"]["stderr"]
    shown = snakepit("doctor", "given:Tools", folder=folder).stdout
    assert f"      stderr: {stderr}\n" in shown


def test_an_adapter_that_cannot_be(folder: Path) -> None:
    found = checks(snakepit("doctor", "given", "--json", folder=folder))
    assert found["worker"]["text"] == "adapter 'given': write it as 'package.module:Class'"


def test_a_run_folder_that_others_can_read(folder: Path) -> None:
    (folder / "runs").mkdir(mode=0o755)
    done = snakepit("doctor", "given:Tools", "--json", folder=folder, SNAKEPIT_RUN_DIR=str(folder / "runs"))
    found = checks(done)
    assert done.returncode == 1
    assert "must be a folder of your own that is closed to others" in found["run folder"]["text"]
    assert found["worker"]["state"] == "fail"


def test_few_descriptors_are_a_warning(folder: Path) -> None:
    line = 'ulimit -n 100; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command("doctor", "given:Tools", "--json")],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0
    assert checks(done)["descriptors"]["state"] == "warn"


@pytest.mark.parametrize("name", ["doctor", "tools"])
def test_head_ends_it_quietly(folder: Path, name: str) -> None:
    line = 'set -o pipefail; "$@" | true'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command(name, "given:Tools")],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
