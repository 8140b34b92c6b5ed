"""A real Redis server as a process in a folder of its own: killed, paused, started again, made a replica."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.helpers.debian import why_missing

_PATIENCE: Final = 30.0  # seconds for a server to be ready, or to end
#: What the promises of the store are made for: an update is on the disk before it is acknowledged.
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")


def why_no_redis() -> str:
    """Why no test can start a Redis server here; empty if one can."""
    # The package starts a service of its own, on the usual port, where there is an init system.
    return why_missing("redis-server")


class RedisServer:
    """One server, on a Unix socket, and on a port of this machine if it has one."""

    def __init__(self, folder: Path, *settings: str, port: int = 0, tls: bool = False) -> None:
        self.folder = folder
        self.port = port
        self._tls = tls
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a store finds it."""
        scheme = "rediss" if self._tls else "redis"
        return f"{scheme}://127.0.0.1:{self.port}" if self.port else f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "redis.sock"

    def start(self) -> None:
        """Start the server, with the data that it had when it ended. Returns once it answers."""
        line = [
            "redis-server",
            "--dir",
            str(self.folder),
            "--unixsocket",
            str(self._socket),
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ]
        line += ["--port", "0", "--tls-port"] if self._tls else ["--port"]
        line += [str(self.port), "--bind", "127.0.0.1", *self._settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_until("PING", "")  # an answer that says "NOAUTH" is one, too

    def ask(self, *command: str) -> str:
        """Send a command, and return the answer as redis-cli shows it."""
        line = ["redis-cli", "-s", str(self._socket), *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        return (done.stdout or done.stderr).strip()

    def wait_until(self, *command_and_answer: str) -> None:
        """Send a command until its answer contains the last text."""
        *command, wanted = command_and_answer
        deadline = time.monotonic() + _PATIENCE
        while wanted not in (answer := self.ask(*command)) or "LOADING" in answer or "Could not connect" in answer:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"{command} gives {answer!r} and no {wanted!r}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it by SIGKILL; what it has not written to the disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def pause(self) -> None:
        """Stop it by SIGSTOP: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def follow(self, primary: RedisServer) -> None:
        """Make it a replica. Returns once it has all the data."""
        self.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        self.wait_until("INFO", "replication", "master_link_status:up")

    def promote(self) -> None:
        """Make it a primary."""
        assert self.ask("REPLICAOF", "NO", "ONE") == "OK"


@contextmanager
def redis_server(*settings: str, has_port: bool = False, tls: bool = False) -> Iterator[RedisServer]:
    """A running server. At the end its folder is gone, too."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:  # a short path: that of a socket is bounded
        server = RedisServer(Path(folder), *settings, port=_free_port() if has_port else 0, tls=tls)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
