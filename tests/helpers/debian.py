"""Programs that some tests need, from Debian's packages: root installs what is missing; for others, the tests skip."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PATIENCE: Final = 240.0  # seconds for each of the two commands


def why_missing(program: str, package: str = "") -> str:
    """Why a program is not there, and cannot be installed; empty if it is there. The package may have another name."""
    line = ("apt-get", "install", "--yes", "--no-install-recommends", package or program)
    if shutil.which(program):
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"{program} is not installed, and only root can install it: {' '.join(line)}"
    with (Path(tempfile.gettempdir()) / "snakepit-apt.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        said = "" if shutil.which(program) else _install(line)
    return "" if shutil.which(program) else f"apt-get cannot install {package or program}: {said}"


def _install(line: tuple[str, ...]) -> str:
    """Returns the last words of apt-get."""
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    said = ""
    for command in (("apt-get", "update"), line):
        try:
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            return str(error)
        said = done.stderr.strip()[-300:]
    return said
