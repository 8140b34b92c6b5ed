"""Another local user, who tries everything that a user of the machine can do against the processes of a pool.

`python -m tests.helpers.other_user NAME ATTACK` becomes that user ("" for nobody else), reads from stdin as JSON what
the user may know, and prints as JSON what the attack has reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from tests.helpers.stranger import PREFACE, connect, import_all, use

_PIDFD_GETFD: Final = 438
_PAGE: Final = 4096
#: What /proc shows of a process to its own user alone. All users may see its command line and its status.
_CLOSED: Final = ("environ", "mem", "maps", "auxv", "io", "syscall", "stack", "pagemap", "smaps")
_OPEN: Final = ("cmdline", "comm", "status", "stat", "sched", "wchan")


@attrs.frozen
class Target:
    """The processes and folders of the pools, their TCP addresses and Unix sockets, and the texts that are secret.

    A real stranger finds the processes in /proc, and the sockets in /proc/net. `owner` is the uid of the user who has
    the pools, and `folder` the one for temporary files.
    """

    owner: int
    pids: list[int]
    folder: str
    addresses: list[str]
    secrets: list[str]


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    # A process, a file or a socket may end meanwhile.
    with contextlib.suppress(OSError, ValueError):
        yield


def sockets(target: Target) -> Iterator[str]:
    """Connect to all sockets, and speak HTTP/2; a server that answers with a single byte is reached."""
    unix = {line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines() if len(line.split()) > 7}
    ours = sorted(path for path in unix if path.startswith(target.folder) or "snakepit" in path)
    for address in [*target.addresses, *(f"unix:{path}" for path in ours)]:
        with _refused(), connect(address.replace("unix:@", "unix:\0")) as found:
            found.settimeout(1)
            found.sendall(PREFACE)
            if found.recv(1):
                yield f"{address} answers"


def servers(target: Target) -> Iterator[str]:
    """Ask all servers of the contract for what they serve."""
    for address in target.addresses:
        for what, answer in use(address).items():
            if "Error" not in str(answer) or "UNAVAILABLE" not in str(answer):
                yield f"{address}: {what}: {answer}"


def ports(target: Target) -> Iterator[str]:
    """Listen at the ports that the pools listen at, so that their clients come here."""
    for port in (int(address.rpartition(":")[2]) for address in target.addresses if not address.startswith("unix:")):
        for host in ("127.0.0.1", "0.0.0.0"):
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                with _refused(), socket.socket() as found:
                    found.setsockopt(socket.SOL_SOCKET, option, 1)
                    found.bind((host, port))
                    found.listen()
                    yield f"{host}:{port} is served by a stranger"


def environments(target: Target) -> Iterator[str]:
    """Read what /proc shows of the processes."""
    for pid in target.pids:
        for name in _CLOSED:
            with _refused(), open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(0 if name == "mem" else 16)
                yield f"{pid}: {name}"


def secrets(target: Target) -> Iterator[str]:
    """Look for secrets in what /proc shows of the processes to everybody."""
    for pid in target.pids:
        for path in (f"/proc/{pid}/{name}" for name in (*_OPEN, "environ")):
            with _refused():
                text = Path(path).read_bytes()
                yield from (f"{path}: {secret}" for secret in target.secrets if secret.encode() in text)


def descriptors(target: Target) -> Iterator[str]:
    """Open, take and map the files, the pipes and the shared memory that the processes have open."""
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in target.pids:
        with _refused():
            os.close(os.open(f"/proc/{pid}/cwd", os.O_PATH))
            os.listdir(f"/proc/{pid}/fd")
            yield f"{pid}: its descriptors"
        for number in range(64):
            with _refused():
                with open(f"/proc/{pid}/fd/{number}", "rb") as file:
                    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ).close()
                yield f"{pid}: the memory of descriptor {number}"
        with _refused():
            pidfd = os.pidfd_open(pid)
            taken = libc.syscall(_PIDFD_GETFD, pidfd, 1, 0)
            os.close(pidfd)
            if taken >= 0:
                yield f"{pid}: descriptor 1, taken"


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def memory(target: Target) -> Iterator[str]:
    """Read the memory of the processes, as a debugger does. Attaching asks the kernel for the same right."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(8)
    for pid in target.pids:
        here, there = _Piece(ctypes.addressof(buffer), 8), _Piece(_PAGE, 8)
        # Nothing is mapped there: whoever has the right gets EFAULT, and everybody else EPERM.
        libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if ctypes.get_errno() == errno.EFAULT:
            yield f"{pid}: its memory"


def signals(target: Target) -> Iterator[str]:
    """Signal the processes, and change how they run. Signal 0 needs the same right as all others, and harms nobody."""
    changes: dict[str, Callable[[int], object]] = {
        "signal": lambda pid: os.kill(pid, 0),
        "signal by descriptor": lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), 0),
        "limits": lambda pid: resource.prlimit(pid, resource.RLIMIT_CORE),
        "affinity": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid)),
        "priority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)),
        "killing first": lambda pid: open(f"/proc/{pid}/oom_score_adj", "r+b").close(),
    }
    for pid in target.pids:
        for name, change in changes.items():
            with _refused():
                change(pid)
                yield f"{pid}: {name}"
        with _refused():
            os.killpg(pid, 0)
            yield f"{pid}: its process group"


def files(target: Target) -> Iterator[str]:
    """List, read, write, add and remove files in the folders of the pools, and in the shared memory of the machine."""
    shared = [path for path in Path("/dev/shm").iterdir() if "snakepit" in path.name]
    for path in (*Path(target.folder).iterdir(), *shared):
        with _refused():
            if path.lstat().st_uid != target.owner:
                continue
            for found in (path, *_below(path)):
                yield from _use_file(found)


def _below(folder: Path) -> Iterator[Path]:
    with _refused():
        for path in folder.iterdir():
            yield path
            yield from _below(path)


def _use_file(path: Path) -> Iterator[str]:
    with _refused():
        if path.is_dir():
            os.listdir(path)
            yield f"{path} is listed"
        elif path.is_file():
            path.open("rb").close()
            yield f"{path} is read"
    with _refused():
        if path.is_dir():
            (path / "planted").touch()
            (path / "planted").unlink()
            yield f"{path} takes files"
        elif path.is_file():
            path.open("r+b").close()
            yield f"{path} is written"
    with _refused():
        path.rename(path.with_name("moved"))
        path.with_name("moved").rename(path)
        yield f"{path} is moved"


# What is planted beforehand.


def plant_settings(target: Target) -> Iterator[str]:
    """Name code in a pyproject.toml, and bring modules that programs import, where the stranger may write."""
    for name in ("sitecustomize.py", "json.py", "grpclib.py"):
        (Path(target.folder) / name).write_text("raise SystemExit('a module of a stranger')\n")
    (Path(target.folder) / "pyproject.toml").write_text('[tool.snakepit]\nadapter = "evil:Code"\n')
    yield "planted"


def plant(target: Target, how: str) -> Iterator[str]:
    """Take the name of the folder of all runs before a pool does."""
    name = Path(target.folder) / f"snakepit-{target.owner}"
    own = Path(target.folder) / "strangers"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    match how:
        case "folder":
            own.rename(name)
            (name / "workers").mkdir()
        case "closed_folder":
            own.chmod(0o700)
            own.rename(name)
        case "link_to_own":
            name.symlink_to(own)
        case "link_to_theirs":
            name.symlink_to(Path(target.folder) / "theirs")
        case "file":
            name.touch()
        case "pipe":
            os.mkfifo(name)
    yield "planted"


PLANTS: Final = ("folder", "closed_folder", "link_to_own", "link_to_theirs", "file", "pipe")
ATTACKS: Final[dict[str, Callable[[Target], Iterator[str]]]] = {
    each.__name__: each
    for each in (sockets, servers, ports, environments, secrets, descriptors, memory, signals, files)
}


def become(name: str) -> None:
    """Become a user for good, with the groups of that user alone."""
    user = pwd.getpwnam(name)
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main(name: str, attack: str) -> None:
    """Attack, and print what was reached."""
    target: Any = Target(**json.load(sys.stdin))
    import_all()  # the stranger may not read this Python's folder
    if name:
        become(name)
    found = plant(target, attack) if attack in PLANTS else {**ATTACKS, "settings": plant_settings}[attack](target)
    print(json.dumps(list(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
