"""What a worker's environment and files show to other programs of the machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import psutil
import pytest

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool

SECRET = "5ec2e7" * 5


class Looking(BaseAdapter):
    """A tool that looks for the secret in its own process."""

    @tool
    def ledger(self) -> bytes:
        """The page that the worker shares with its host."""
        for name in os.listdir("/proc/self/fd"):
            path = f"/proc/self/fd/{name}"
            if os.readlink(path).startswith("/memfd:snakepit-ledger"):
                return Path(path).read_bytes()
        raise LookupError("no ledger")


async def test_the_secret_of_the_link_is_in_no_environment_no_command_and_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen from outside, in all processes of the pool, while the worker lives."""
    random = secrets.token_hex
    monkeypatch.setattr("secrets.token_hex", lambda size: SECRET if size == 16 else random(size))
    async with snakepit.open_pool(Looking, workers=1) as pool:
        ledger = await pool.execute("ledger")
        assert any(ledger)
        assert SECRET.encode() not in ledger
        processes = psutil.Process().children(recursive=True)
        assert {worker.pid for worker in pool.list_workers()} < {process.pid for process in processes}
        for process in processes:
            for file in ("environ", "cmdline"):
                assert SECRET.encode() not in Path(f"/proc/{process.pid}/{file}").read_bytes()
