"""What `snakepit doctor` checks of the machine: memory, folders, sockets, processes and clocks."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .checks import MIB, Finding

_DEV_SHM: Final = "/dev/shm"  # noqa: S108 - only looked at
_OLDEST: Final = (3, 11)
_ROOM: Final = MIB  # bytes that are written to a folder, and to shared memory
_LITTLE: Final = 16 * MIB
_LONGEST_FOLDER: Final = 70  # multiprocessing's sockets take 30 bytes more, and 107 is the most
_PATIENCE: Final = 30.0  # seconds for the start of a process
_EARLIEST: Final = 1_735_689_600  # Unix time: 2025 has begun; certificates are not valid before they are made


def _python() -> Finding:
    from bridge_py.wire.errors import UsageError
    from snakepit_trio._processes.children import interpreter

    text = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    if sys.version_info < _OLDEST:
        return "fail", text, f"use Python {'.'.join(map(str, _OLDEST))} or later"
    try:
        interpreter(sys.executable)
    except UsageError as error:
        return "fail", text, str(error)
    if platform.python_implementation() != "CPython":
        return "warn", text, "use CPython: nothing else is tested"
    return "ok", text


def _platform() -> Finding:
    text = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"
    return ("ok", text) if sys.platform == "linux" else ("fail", text, "use Linux: nothing else is supported")


def _shared_memory() -> Finding:
    from bridge_py.buffers.shared_memory import fix_size, make_memory

    try:
        memory = make_memory("snakepit-doctor")
    except OSError as error:
        return "fail", f"memfd_create: {error.strerror}", "have the container's seccomp profile allow memfd_create"
    try:
        try:
            os.posix_fallocate(memory, 0, _ROOM)
        except OSError as error:
            remedy = "raise the limit of the size of files (ulimit -f), or of the container's memory"
            return "fail", f"memfd_create: no room for {_ROOM // MIB} MiB: {error.strerror}", remedy
        fix_size(memory)
    except OSError as error:
        remedy = "have the container's seccomp profile allow fcntl seals"
        return "fail", f"seals of memfd_create: {error.strerror}", remedy
    finally:
        os.close(memory)
    return "ok", "memfd_create, with seals"


def _dev_shm() -> Finding:
    # Pools do not use it, but libraries in tools do.
    try:
        found = shutil.disk_usage(_DEV_SHM)
    except OSError as error:
        return "warn", f"{_DEV_SHM}: {error.strerror}", "mount it, if tools use multiprocessing or torch's data loaders"
    text = f"{found.total // MIB} MiB, {found.free // MIB} MiB free"
    if found.free < 64 * MIB:
        remedy = "make it larger (docker run --shm-size=1g), if tools use multiprocessing or torch's loaders"
        return "warn", text, remedy
    return "ok", text


def _run_folder() -> Finding:
    from bridge_py.wire.errors import UsageError
    from snakepit_trio._processes.registry import FOLDER_VARIABLE, runs_folder

    try:
        folder = runs_folder()
        _use(folder)
        free = shutil.disk_usage(folder).free
    except UsageError as error:
        return "fail", str(error), f"set {FOLDER_VARIABLE} to a short path, of a folder of your own with mode 700"
    except OSError as error:
        remedy = f"set {FOLDER_VARIABLE} to a folder of your own, on a local disk with room"
        return "fail", f"cannot be used: {error}", remedy
    text = f"{folder}, {free // MIB} MiB free"
    return ("ok", text) if free >= _LITTLE else ("warn", text, f"free space there, or set {FOLDER_VARIABLE}")


def _use(folder: Path) -> None:
    """Do in a folder what a pool does there. Raises `OSError`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        with open(f"{name}/lock", "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(bytes(65536))
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(f"{name}/link")
            listener.listen(1)
            client.connect(f"{name}/link")


def _temporary_folder() -> Finding:
    remedy = "set TMPDIR to a folder that you can write to"
    if named := next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), None):
        try:
            with tempfile.NamedTemporaryFile(dir=named, prefix="snakepit-doctor-") as file:
                file.write(bytes(_ROOM))
        except OSError as error:
            # Python takes another folder then, silently; programs in other languages do not.
            return "fail", f"TMPDIR={named}: {error.strerror}", f"{remedy}, with room, or unset it"
    folder = tempfile.gettempdir()  # raises a FileNotFoundError that says where it has looked
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free // MIB} MiB free"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        return "warn", f"{text}: the path is too long for sockets of multiprocessing in tools", "set TMPDIR=/tmp"
    return ("ok", text) if free >= _LITTLE else ("warn", text, f"free space there, or {remedy}")


def _left_overs() -> Finding:
    from bridge_py.wire.errors import UsageError
    from snakepit_trio._processes.registry import runs

    try:
        dead = [run for run in runs() if not run.is_alive]
    except (UsageError, OSError):
        return "warn", "none are found without a run folder", "correct the run folder, as it says above"
    if not dead:
        return "ok", "no dead host has left anything"
    alive = sum(worker.is_alive for run in dead for worker in run.workers)
    hosts = ", ".join(f"{run.host_pid} ({run.pool})" for run in dead[:5])
    text = f"{len(dead)} dead hosts have left files, and {alive} workers that run: {hosts}"
    return "warn", text, "snakepit sweep; the next pool that opens, such as that below, does the same"


def _loopback() -> Finding:
    remedy = "bring up the loopback interface (ip link set lo up): servers and workers of the wire contract need it"
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address, timeout=5):
                return "ok", f"127.0.0.1 listens and connects (port {address[1]} was free)"
    except OSError as error:
        return "warn", f"127.0.0.1: {error}", remedy


def _clocks() -> Finding:
    from snakepit_trio._processes.guardian import start_ticks

    ticks = start_ticks(os.getpid())
    if ticks is None:
        return "fail", "/proc does not show when processes started", "mount /proc: pools know their processes by that"
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if time.time() < _EARLIEST:
        return "fail", f"it is {now} UTC, by the system's clock", "set the clock (timedatectl set-ntp true)"
    return "ok", f"{now} UTC, {os.sysconf('SC_CLK_TCK')} ticks a second; this process started at tick {ticks}"


def _new_processes() -> Finding:
    began = time.monotonic()
    command = [sys.executable, "-I", "-S", "-c", ""]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return "fail", f"Python did not start in {_PATIENCE:g} s", "look at the load of this machine and its disks"
    except OSError as error:
        remedy = "raise ulimit -u, or have the container's seccomp profile allow fork and exec"
        return "fail", f"no process can be started: {error}", remedy
    took = 1000 * (time.monotonic() - began)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return "fail", f"Python ends with {done.returncode}: {said}", "unset PYTHON* variables; install Python again"
    return "ok", f"Python starts, without its packages, in {took:.0f} ms"


MACHINE_CHECKS: Final[dict[str, Callable[[], Finding]]] = {
    "Python": _python,
    "platform": _platform,
    "shared memory": _shared_memory,
    _DEV_SHM: _dev_shm,
    "run folder": _run_folder,
    "left-overs": _left_overs,
    "temporary folder": _temporary_folder,
    "loopback": _loopback,
    "clocks": _clocks,
    "new processes": _new_processes,
}
