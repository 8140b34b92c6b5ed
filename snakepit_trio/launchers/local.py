"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from bridge_py.executor import LEDGER_BYTES
from bridge_py.worker import PATH_VARIABLE, SECRET_VARIABLE
from snakepit_trio.config import PoolConfig
from snakepit_trio.guardian import RUN_VARIABLE
from snakepit_trio.limits import thread_variables
from snakepit_trio.processes import ProcessRegistry


class LocalProcess:
    """One worker process with what the host shares with it. It leads a process group of its own."""

    def __init__(
        self,
        process: trio.Process,
        folder: Path,
        ledger: mmap.mmap,
        secret: str,
        forget: Callable[[], None],
    ) -> None:
        self._process = process
        self._forget = forget
        self._folder = folder
        self._ledger = ledger
        self.secret = secret

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the signal that killed it, or None while it lives."""
        return self._process.returncode

    @property
    def link_path(self) -> str:
        """The socket to connect to."""
        return str(self._folder / "link")

    @property
    def last_started(self) -> int:
        """Id of the last call the worker has started. True to the last instruction of a dead worker."""
        (call_id,) = struct.unpack_from("<Q", self._ledger)
        return int(call_id)

    @property
    def outputs(self) -> tuple[trio.abc.ReceiveStream, trio.abc.ReceiveStream]:
        """What it writes to stdout and to stderr."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    async def wait(self) -> None:
        """Wait until it has ended; it is reaped then."""
        await self._process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its descendants that stayed in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def hide_link(self) -> None:
        """Remove the socket's file; what is connected stays connected."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def release(self) -> None:
        """Give back what the host holds for it. After its end."""
        self._forget()
        self.hide_link()
        self._ledger.close()
        for stream in self.outputs:
            await stream.aclose()


async def launch(config: PoolConfig, worker_id: str, registry: ProcessRegistry) -> LocalProcess:
    """Start a worker process; returns before it is ready. Raises `OSError`."""
    secret = secrets.token_hex(16)
    key = registry.reserve(worker_id)
    folder = Path(tempfile.mkdtemp(dir=registry.folder))
    listener = socket.socket(socket.AF_UNIX)
    ledger_fd, ledger_path = tempfile.mkstemp(dir=folder)
    ledger = None
    try:
        os.unlink(ledger_path)
        os.truncate(ledger_fd, LEDGER_BYTES)
        ledger = mmap.mmap(ledger_fd, LEDGER_BYTES)
        listener.bind(str(folder / "link"))
        listener.listen(1)
        # Shielded: a process that was started must not be lost to a cancellation.
        with trio.CancelScope(shield=True):
            given = {SECRET_VARIABLE: secret, RUN_VARIABLE: registry.run_id}
            process = await _spawn(config, worker_id, given, listener.fileno(), ledger_fd)
            registry.activate(key, process.pid)
    except BaseException:
        registry.forget(key)
        shutil.rmtree(folder, ignore_errors=True)
        if ledger is not None:
            ledger.close()
        raise
    finally:
        # With the host's copy closed, a worker that dies before it accepts resets the connection.
        listener.close()
        os.close(ledger_fd)
    return LocalProcess(process, folder, ledger, secret, partial(registry.forget, key))


async def _spawn(
    config: PoolConfig, worker_id: str, given: dict[str, str], listen_fd: int, ledger_fd: int
) -> trio.Process:
    adapter = config.adapter
    command = [
        adapter.executable_path(config.python),
        adapter.script_path(),
        *adapter.script_args(),
        f"--listen-fd={listen_fd}",
        f"--ledger-fd={ledger_fd}",
        f"--concurrency={config.concurrency}",
        f"--sizes={msgspec.json.encode(config.sizes).decode()}",
        f"--worker-id={worker_id}",
    ]
    if config.limits is not None:
        command.append(f"--limits={json.dumps(config.limits.chosen())}")
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(listen_fd, ledger_fd),
        process_group=0,
        cwd=config.cwd,
        env=_environment(config, given),
    )


def _environment(config: PoolConfig, given: dict[str, str]) -> dict[str, str]:
    working = os.path.abspath(config.cwd or os.curdir)
    path = [working]
    if config.python == sys.executable:
        path += [os.path.abspath(entry) for entry in sys.path]
    environment = {**os.environ, **(config.env or {}), **given, PATH_VARIABLE: os.pathsep.join(path)}
    return {**thread_variables(config.threads, environment), **environment}
