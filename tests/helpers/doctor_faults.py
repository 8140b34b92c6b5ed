"""Faults of a machine, of limits, variables, folders, packages and adapters, planted for `snakepit doctor`.

Each one is a fixture's step: it changes a folder, variables, or the program that starts the doctor.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from tests.helpers.command import ROOT, TOOLS, environment

#: The start of the installed command: a script in a folder of its own.
SCRIPT: Final = "import sys\nfrom snakepit_command import main\nsys.exit(main())\n"
_LIKE: Final = "import ctypes, os, signal, sys, time\n{}\nos.execv(sys.argv[1], sys.argv[1:])"
_BLOCK: Final = """
import sys
class No:
    def find_spec(self, name, *_):
        if name.split('.')[0] == {!r}:
            raise ImportError({!r})
sys.meta_path.insert(0, No())
"""
# struct sock_filter: load the number of the system call; if it is that of memfd_create, answer EPERM; else allow it.
_NO_MEMFD: Final = """
import platform, struct
number = {"x86_64": 319, "aarch64": 279}[platform.machine()]
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""


@attrs.define
class Patient:
    """What the doctor looks at: it runs in `folder`, with `variables`, started by the command `before`."""

    folder: Path
    variables: dict[str, str]
    before: list[str] = attrs.field(factory=list)
    python: str = sys.executable
    adapter: str = "given:Tools"

    def bash(self, line: str) -> None:
        """Have bash run a line first."""
        self.before = [*self.before, "bash", "-c", f'{line}; exec "$@"', "bash"]

    def like(self, line: str) -> None:
        """Have Python run a line first, in the process that becomes the doctor."""
        self.before = [*self.before, sys.executable, "-c", _LIKE.format(line)]

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    def examine(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the doctor."""
        command = [*self.before, self.python, str(self.folder / "bin" / "snakepit"), "doctor", self.adapter, *options]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def healthy(folder: Path) -> Patient:
    """Make a patient without a fault."""
    # Not measured for coverage either: who may write no file, or becomes another user, could not store the measures.
    left_out = ("PYTHON", "TMP", "COVERAGE")
    variables = {name: value for name, value in environment().items() if not name.startswith(left_out)}
    (folder / "runs").mkdir(mode=0o700)
    patient = Patient(folder, {**variables, "PYTHONPATH": str(ROOT), "SNAKEPIT_RUN_DIR": str(folder / "runs")})
    patient.write("given.py", TOOLS)
    patient.write("bin/snakepit", SCRIPT)
    return patient


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The checks that the doctor has printed as JSON, by name."""
    return {check["name"]: check for check in json.loads(done.stdout)}


@attrs.frozen
class Fault:
    """A fault: how it is planted, the check that must find it, what that says, and which others fail by it too.

    `needs_root` is for faults that only root can plant, in a namespace or a control group of its own.
    """

    plant: Callable[[Patient], None]
    check: str
    text: str
    remedy: str
    also: frozenset[str] = frozenset()
    state: str = "fail"
    needs_root: bool = False


def _long_folder(patient: Patient) -> None:
    patient.variables["SNAKEPIT_RUN_DIR"] = str(patient.folder / ("x" * 80))


def _open_folder(patient: Patient) -> None:
    (patient.folder / "runs").chmod(0o755)


def _full_disk(patient: Patient) -> None:
    line = "mount -t tmpfs -o size=64k,mode=700 none runs && head -c 64k /dev/zero > runs/.full"
    patient.before = ["unshare", "-m", *patient.before]
    patient.bash(line)


def _small_shm(patient: Patient) -> None:
    patient.before = ["unshare", "-m", *patient.before]
    patient.bash("mount -t tmpfs -o size=1m none /dev/shm")


def _no_temporary_folder(patient: Patient) -> None:
    patient.variables["TMPDIR"] = "/proc/self"


def _long_temporary_folder(patient: Patient) -> None:
    (patient.folder / ("y" * 80)).mkdir()
    patient.variables["TMPDIR"] = str(patient.folder / ("y" * 80))


def _hidden_here(patient: Patient) -> None:
    patient.write("random.py", "raise OSError('a file of the user')")


def _hidden_by_path(patient: Patient) -> None:
    patient.write("lib/json.py", "raise OSError('a file of the user')")
    patient.variables["PYTHONPATH"] = f"{patient.folder / 'lib'}{os.pathsep}{ROOT}"


def _hidden_unneeded(patient: Patient) -> None:
    patient.write("lib/antigravity/__init__.py", "")
    patient.variables["PYTHONPATH"] = f"{patient.folder / 'lib'}{os.pathsep}{ROOT}"


def broken(package: str) -> Callable[[Patient], None]:
    def plant(patient: Patient) -> None:
        patient.write("lib/sitecustomize.py", _BLOCK.format(package, f"{package}.so: undefined symbol: made_up"))
        patient.variables["PYTHONPATH"] = f"{patient.folder / 'lib'}{os.pathsep}{ROOT}"

    return plant


def _environment_without(patient: Patient, package: str) -> Path:
    """Make a virtual environment with links to the packages of this one, but for one package."""
    made = patient.folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    (target,) = made.glob("lib/python*/site-packages")
    for path in (path for folder in site.getsitepackages() for path in Path(folder).iterdir()):
        if path.name.partition("-")[0] != package and path.suffix != ".pth":
            (target / path.name).symlink_to(path)
    patient.python = str(made / "bin" / "python")
    return target


def _missing(package: str) -> Callable[[Patient], None]:
    def plant(patient: Patient) -> None:
        _environment_without(patient, package)

    return plant


def _too_old(patient: Patient) -> None:
    target = _environment_without(patient, "rich")
    (there,) = (path for folder in site.getsitepackages() for path in Path(folder).glob("rich"))
    (target / "rich").symlink_to(there)
    patient.write(str(target / "rich-9.1.dist-info" / "METADATA"), "Metadata-Version: 2.1\nName: rich\nVersion: 9.1\n")


def _few_pids(patient: Patient) -> None:
    group = Path("/sys/fs/cgroup/pids" if Path("/sys/fs/cgroup/pids").is_dir() else "/sys/fs/cgroup")
    group /= f"doctor-{os.getpid()}-{time.monotonic_ns()}"
    lines = f"mkdir {group} && echo 6 > {group}/pids.max && echo $$ > {group}/cgroup.procs"
    patient.bash(lines)
    patient.variables["GROUP"] = str(group)


def remove_group(patient: Patient) -> None:
    """Remove the control group, if one was made. The kernel may still count its last process."""
    deadline = time.monotonic() + 20
    while (group := Path(patient.variables.get("GROUP", "/nowhere"))).is_dir():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _no_loopback(patient: Patient) -> None:
    patient.before = ["unshare", "-n", *patient.before]


def _left_overs(patient: Patient) -> None:
    patient.write("runs/0123456789ab/lock", "")
    patient.write("runs/0123456789ab/host.json", json.dumps({"pid": 999999, "pool": "old", "started_at": 1.0}))
    (patient.folder / "runs/0123456789ab/workers").mkdir()
    (patient.folder / "runs/0123456789ab").chmod(0o700)


def _adapter(source: str) -> Callable[[Patient], None]:
    def plant(patient: Patient) -> None:
        patient.write("given.py", source)

    return plant


def _slow(patient: Patient) -> None:
    patient.write("heavy.py", "import time\ntime.sleep(2.5)\n")
    patient.write("given.py", f"import heavy\n{TOOLS}")


_WORKER: Final = frozenset({"worker"})
_HEAD: Final = "class Tools(BaseAdapter):"
_HANGS: Final = TOOLS.replace(_HEAD, f"{_HEAD}\n    def setup(self): time.sleep(600)")
FAULTS: Final[dict[str, Fault]] = {
    "few descriptors": Fault(
        lambda patient: patient.bash("ulimit -n 70"), "descriptors", "70 (RLIMIT_NOFILE", "raise it: ulimit -n 4096"
    ),
    "small files": Fault(
        lambda patient: patient.bash("ulimit -f 100"),
        "file size",
        "0.1 MiB (RLIMIT_FSIZE)",
        "ulimit -f unlimited",
        frozenset({"shared memory"}),
    ),
    "few addresses": Fault(
        lambda patient: patient.bash("ulimit -v 400000"), "address space", "390 MiB", "ulimit -v unlimited"
    ),
    "little processor time": Fault(
        lambda patient: patient.bash("ulimit -t 50"), "processor time", "after 50 s", "ulimit -t unlimited"
    ),
    "few pids": Fault(
        _few_pids, "processes", "6, 1 used (control group): at most 1 workers", "--pids-limit", _WORKER, needs_root=True
    ),
    "a long run folder": Fault(
        _long_folder, "run folder", "longer than the 60 bytes", "set SNAKEPIT_RUN_DIR to a short path", _WORKER
    ),
    "an open run folder": Fault(_open_folder, "run folder", "closed to others (mode 700)", "mode 700", _WORKER),
    "a full disk": Fault(
        _full_disk, "run folder", "No space left on device", "on a local disk with room", _WORKER, needs_root=True
    ),
    "no temporary folder": Fault(
        _no_temporary_folder, "temporary folder", "TMPDIR=/proc/self: ", "set TMPDIR to a folder that you can write to"
    ),
    "a long temporary folder": Fault(
        _long_temporary_folder, "temporary folder", "the path is too long", "set TMPDIR=/tmp", state="warn"
    ),
    "no memfd_create": Fault(
        lambda patient: patient.like(_NO_MEMFD),
        "shared memory",
        "memfd_create: Operation not permitted",
        "seccomp profile allow memfd_create",
        _WORKER,
    ),
    "small /dev/shm": Fault(
        _small_shm, "/dev/shm", "1 MiB, 1 MiB free", "docker run --shm-size=1g", state="warn", needs_root=True
    ),
    "no loopback": Fault(
        _no_loopback, "loopback", "Network is unreachable", "ip link set lo up", state="warn", needs_root=True
    ),
    "SIGCHLD ignored": Fault(
        lambda patient: patient.like("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"),
        "signals",
        "SIGCHLD is ignored: exit codes",
        "correct the program or service that starts this one",
    ),
    "SIGTERM blocked": Fault(
        lambda patient: patient.like("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"),
        "signals",
        "SIGTERM is blocked: pools do not end",
        "for SIGTERM",
    ),
    "SIGINT ignored": Fault(
        lambda patient: patient.like("signal.signal(signal.SIGINT, signal.SIG_IGN)"),
        "signals",
        "SIGINT is ignored: Ctrl-C ends no program",
        "for SIGINT",
        state="warn",
    ),
    "a harmful variable": Fault(
        lambda patient: patient.variables.update(PYTHONTRACEMALLOC="1"),
        "variables",
        "PYTHONTRACEMALLOC=1: workers run slowly",
        "unset PYTHONTRACEMALLOC",
        state="warn",
    ),
    "a file hides a module": Fault(_hidden_here, "standard library", "random.py: programs that start here", "rename"),
    "PYTHONPATH hides a module": Fault(
        _hidden_by_path, "standard library", "lib/json.py: all programs get these", "folder from PYTHONPATH", _WORKER
    ),
    "PYTHONPATH hides what nobody needs": Fault(
        _hidden_unneeded, "standard library", "lib/antigravity: all programs get", "if something needs", state="warn"
    ),
    "left-overs": Fault(_left_overs, "left-overs", "1 dead hosts have left files", "snakepit sweep", state="warn"),
    "a package is missing": Fault(
        _missing("msgspec"),
        "msgspec",
        "is not installed",
        "-m pip install 'msgspec>=0.19'",
        _WORKER,
    ),
    "a package is too old": Fault(_too_old, "rich", "9.1, but it must be >=14.0", "pip install 'rich>=14.0'"),
    "click is broken": Fault(broken("click"), "click", "cannot be imported", "install --force-reinstall 'click>=8.1'"),
    "trio is broken": Fault(broken("trio"), "trio", "trio.so", "reinstall 'trio>", _WORKER | {"trio-asyncio"}),
    "msgspec is broken": Fault(
        broken("msgspec"), "msgspec", "undefined symbol: made_up", "--force-reinstall 'msgspec", _WORKER
    ),
    "an adapter that is broken": Fault(
        _adapter("raise OSError('no database')"), "worker", "OSError: no database", "correct what its stderr tells"
    ),
    "an adapter that lacks a package": Fault(
        _adapter("import not_there"), "worker", "No module named 'not_there'", "-m pip install"
    ),
    "an adapter without its class": Fault(_adapter(""), "worker", "has no class Tools", "correct the adapter's name"),
    "an adapter that exits": Fault(
        _adapter("import os\nos._exit(7)"), "worker", "(exit code 7)", "correct what its stderr tells"
    ),
    "an adapter that imports slowly": Fault(
        _slow, "adapter", "the slowest: heavy 25", "template=True and spares=1", state="warn"
    ),
    "an adapter that never answers": Fault(
        _adapter(_HANGS), "worker", "was not ready within 30", "setup() waits, after the import of"
    ),
}
