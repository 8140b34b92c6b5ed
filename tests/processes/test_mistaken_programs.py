"""Mistakes in opening a pool are told by one message, which names the cause and the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.mistaken_programs import PROGRAMS, SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SETTINGS)
async def test_a_mistaken_setting(name: str) -> None:
    mistake = SETTINGS[name]
    settings: Any = mistake.settings
    with trio.fail_after(60), pytest.raises((snakepit.UsageError, snakepit.WorkerStartError)) as caught:
        async with snakepit.open_pool(**settings):
            pytest.fail("the block was entered")
    told = str(caught.value)
    assert mistake.said in told
    assert mistake.remedy in told
    assert "\n" not in told


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_mistaken_program(name: str, tmp_path: Path) -> None:
    mistake = PROGRAMS[name]
    (tmp_path / "main.py").write_text(mistake.main)
    (tmp_path / f"{mistake.name}.py").write_text(mistake.module)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # it has no packages
    python.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{mistake.limits}exec {sys.executable} main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert any(mistake.said in line and mistake.remedy in line for line in done.stderr.splitlines()), done.stderr
