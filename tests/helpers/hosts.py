"""Starts hosts of pools in processes of their own, for tests that look at them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.command import ROOT, environment


class Host:
    """A process of `tests.helpers.looked_at`."""

    def __init__(self, folder: Path, variables: dict[str, str], settings: dict[str, Any]) -> None:
        self.folder = folder
        self.log = folder / "host.log"
        command = [sys.executable, "-m", "tests.helpers.looked_at", str(folder), json.dumps(settings)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(**variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.pid = self.process.pid
        self.hears("open")

    def say(self, text: str, answer: str = "done") -> None:
        """Have the host do something, and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        self.hears(answer)

    def hears(self, answer: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == answer, (line, self.log.read_text())

    def close(self) -> None:
        """End it in order."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.terminate()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


@contextmanager
def host(folder: Path, *, variables: dict[str, str] | None = None, **settings: Any) -> Iterator[Host]:
    """Run a host for the time of the block."""
    it = Host(folder, variables or {}, settings)
    try:
        yield it
    finally:
        it.close()
