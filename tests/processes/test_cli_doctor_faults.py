"""`snakepit doctor` finds faults that are planted for real, says what to do, and checks all else none the less."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import ROOT
from tests.helpers.doctor_faults import FAULTS, Patient, broken, checks, healthy, remove_group

_ALWAYS = {
    *("Python", "platform", "shared memory", "/dev/shm", "run folder", "left-overs", "temporary folder", "loopback"),
    *("clocks", "new processes", "descriptors", "processes", "address space", "file size", "processor time", "memory"),
    *("variables", "standard library", "signals", "snakepit-trio", "attrs", "click", "msgspec", "trio"),
    "extras",
}
_STEPS = ["pool", "process", "interpreter", "imports", "adapter", "hello", "first call", "end"]


@pytest.fixture
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    # Not `tmp_path`, whose name is as long as that of the test: run folders must be short.
    found = healthy(tmp_path_factory.mktemp("d"))
    yield found
    remove_group(found)


def _can_be_root() -> str:
    """Why the faults that need root cannot be planted; empty if they can."""
    if os.geteuid() != 0:
        return "only root can plant this fault"
    done = subprocess.run(["unshare", "-m", "-n", "true"], capture_output=True, text=True, check=False)
    return f"unshare -m -n: {done.stderr}" if done.returncode else ""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "never" in name else []) for name in FAULTS]
)
def test_a_planted_fault(patient: Patient, name: str) -> None:
    fault = FAULTS[name]
    if fault.needs_root and (why := _can_be_root()):
        pytest.skip(why)
    fault.plant(patient)
    done = patient.examine("--json")
    found = checks(done)
    check = found[fault.check]
    assert check["state"] == fault.state, done.stdout
    assert fault.text in check["text"]
    assert fault.remedy in check["remedy"]
    failed = {name for name, each in found.items() if each["state"] == "fail"}
    assert failed == fault.also | ({fault.check} if fault.state == "fail" else set()), done.stdout
    assert all(each["remedy"] for each in found.values() if each["state"] != "ok")
    assert set(found) >= _ALWAYS
    assert list(found)[-1] == ("worker" if "worker" in failed else "end")
    assert (done.returncode, done.stderr) == (int(bool(failed)), "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "package",
    ["attr", "attrs", "click", "grpclib", "h2", "hpack", "msgspec", "outcome", "trio", "trio_asyncio"],
)
def test_any_package_of_its_own_may_be_broken(patient: Patient, package: str) -> None:
    broken(package)(patient)
    done = patient.examine("--json")
    found = checks(done)
    told = found[{"attr": "attrs", "trio_asyncio": "trio-asyncio"}.get(package, package)]
    assert told["state"] == "fail"
    assert "undefined symbol: made_up" in told["text"]
    assert set(found) >= _ALWAYS
    assert (done.returncode, done.stderr) == (1, "")


def test_no_fault(patient: Patient) -> None:
    done = patient.examine("--json")
    found = checks(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name for name, each in found.items() if each["state"] == "fail"} == set()
    assert list(found)[-len(_STEPS) :] == _STEPS
    assert all(each["seconds"] >= 0 for name, each in found.items() if name in _STEPS)
    assert not any((patient.folder / "runs").iterdir())


def test_in_lines(patient: Patient) -> None:
    FAULTS["few descriptors"].plant(patient)
    done = patient.examine()
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nfail  descriptors: 70 (RLIMIT_NOFILE" in done.stdout
    assert "\n      -> raise it: ulimit -n 4096" in done.stdout
    assert "\nok    end: worker ended, nothing left (" in done.stdout
    assert "\x1b" not in done.stdout


def test_other_commands_say_which_package_is_broken(patient: Patient) -> None:
    FAULTS["trio is broken"].plant(patient)
    command = [patient.python, str(patient.folder / "bin" / "snakepit"), "tools"]
    done = subprocess.run(
        command, cwd=patient.folder, env=patient.variables, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: trio.so: undefined symbol: made_up\n`snakepit doctor` says")


def test_another_user_with_an_empty_home(patient: Patient) -> None:
    """As nobody, whose home is empty. The folders on the way to this Python are opened in a namespace of its own."""
    (home := patient.folder / "home").mkdir()
    for path in (patient.folder, *patient.folder.rglob("*")):
        os.chown(path, 65534, 65534) if os.geteuid() == 0 else None
    patient.variables["HOME"] = str(home)
    del patient.variables["SNAKEPIT_RUN_DIR"]
    if os.geteuid() == 0:
        if why := _can_be_root():
            pytest.skip(why)
        _become_nobody(patient)
    done = patient.examine("--json")
    found = checks(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name for name, each in found.items() if each["state"] == "fail"} == set()
    assert list(found)[-1] == "end"
    assert not list(home.iterdir())


def _become_nobody(patient: Patient) -> None:
    needed = [Path(sys.base_prefix), Path(sys.prefix), ROOT, patient.folder]
    closed = {path: top for path in needed if (top := _closed(path)) is not None}
    lines = ["mount -t tmpfs -o mode=755 none /mnt"]
    lines += [f"mkdir /mnt/{n} && mount --bind {path} /mnt/{n}" for n, path in enumerate(closed)]
    lines += [f"mount -t tmpfs -o mode=755 none {top}" for top in sorted(set(closed.values()))]
    lines += [f"mkdir -p {path} && mount --bind /mnt/{n} {path}" for n, path in enumerate(closed)]
    patient.before = ["unshare", "-m"]
    patient.bash(" && ".join([*lines, f"cd {patient.folder}"]))
    patient.before += ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def _closed(path: Path) -> Path | None:
    """The highest folder on the way to a path that not everybody may pass."""
    above = [each for each in reversed(path.resolve().parents) if not each.stat().st_mode & 0o001]
    return above[0] if above else None
