"""What `snakepit doctor` finds where something is wrong."""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import socket
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bridge_py.buffers import shared_memory
from snakepit_trio._cli import limit_checks, packages
from snakepit_trio._cli.checks import Check, run_checks
from snakepit_trio._cli.entry_checks import ENTRY_CHECKS
from snakepit_trio._cli.limit_checks import LIMIT_CHECKS
from snakepit_trio._cli.machine_checks import MACHINE_CHECKS
from snakepit_trio._cli.packages import Requirement, check_packages, fulfils, read_requirement
from snakepit_trio._processes import guardian, registry

CHECKS = {**MACHINE_CHECKS, **LIMIT_CHECKS, **ENTRY_CHECKS}
del CHECKS["new processes"]  # it starts one


def found() -> dict[str, Check]:
    return {check.name: check for check in run_checks(CHECKS)}


def raising(error: Exception) -> Any:
    def function(*args: object, **kwargs: object) -> Any:
        raise error

    return function


def test_each_check_has_a_line_and_what_is_not_ok_a_remedy() -> None:
    assert list(found()) == list(CHECKS)
    assert all(check.text and "\n" not in check.text for check in found().values())
    assert all(bool(check.remedy) == (check.state != "ok") for check in found().values())


@pytest.mark.parametrize(
    ("module", "name", "check", "state", "text"),
    [
        (shared_memory, "make_memory", "shared memory", "fail", "memfd_create: Operation not permitted"),
        (shared_memory, "fix_size", "shared memory", "fail", "seals of memfd_create: Operation not permitted"),
        (shutil, "disk_usage", "/dev/shm", "warn", "/dev/shm: Operation not permitted"),
        (registry, "runs_folder", "run folder", "fail", "cannot be used: [Errno 1] Operation not permitted"),
        (tempfile, "NamedTemporaryFile", "temporary folder", "fail", "TMPDIR=/tmp: Operation not permitted"),
        (socket, "create_server", "loopback", "warn", "127.0.0.1: [Errno 1] Operation not permitted"),
    ],
    ids=["memory", "seals", "dev_shm", "runs", "temporary", "loopback"],
)
def test_what_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, check: str, state: str, text: str
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(module, name, raising(OSError(errno.EPERM, "Operation not permitted")))
    one = found()[check]
    assert (one.state, one.text) == (state, text)
    assert one.remedy


@pytest.mark.parametrize(("soft", "state"), [(4096, "ok"), (100, "warn"), (70, "fail")])
def test_descriptors(monkeypatch: pytest.MonkeyPatch, soft: int, state: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 8192))
    assert found()["descriptors"].state == state
    assert str(soft) in found()["descriptors"].text


@pytest.mark.parametrize(("soft", "state"), [(4096, "ok"), (120, "warn"), (103, "fail"), (50, "fail")])
def test_processes(monkeypatch: pytest.MonkeyPatch, soft: int, state: str) -> None:
    monkeypatch.setattr(limit_checks, "_threads_of_user", lambda: 100)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 8192))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert found()["processes"].state == state


@pytest.mark.parametrize(("limit", "state"), [(8 << 30, "ok"), (1 << 29, "warn"), (1 << 25, "fail")])
@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_control_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int, state: str, version: int
) -> None:
    line, controller = ("4:memory:/a/b", "memory") if version == 1 else ("0::/a/b", "")
    monkeypatch.setattr(limit_checks, "_CGROUPS", tmp_path)
    monkeypatch.setattr(limit_checks, "_own_groups", lambda: f"9:name=systemd:/\n{line}\n")
    group = tmp_path / controller / "a" / "b"
    group.mkdir(parents=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    (group / names[0]).write_text("max\n" if version == 2 else f"{1 << 62}\n")
    (group.parent / names[0]).write_text(f"{limit}\n")
    (group / names[1]).write_text(f"{1 << 20}\n")
    one = found()["memory"]
    assert one.state == state
    assert f"{limit / 2**30:.1f} GiB for the control group" in one.text


def test_a_proc_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian, "start_ticks", lambda _: None)
    assert found()["clocks"].state == "fail"


def test_a_check_that_raises_has_failed_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", raising(RuntimeError("no release")))
    assert found()["platform"].text == "cannot be checked: RuntimeError: no release"
    assert found()["clocks"].state == "ok"


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("trio>=0.29", Requirement("trio", (">=0.29",))),
        ("h2<5,>=4.4.1", Requirement("h2", ("<5", ">=4.4.1"))),
        ("betterproto2[grpclib] (>=0.10,<0.11)", Requirement("betterproto2", (">=0.10", "<0.11"))),
        ("uvloop>=0.21; sys_platform != 'win32'", Requirement("uvloop", (">=0.21",), "", True)),
        ("numpy>=2.0; extra == 'ml'", Requirement("numpy", (">=2.0",), "ml")),
        ("ray>=2; (python_version < '3.15') and extra == 'bench'", Requirement("ray", (">=2",), "bench", True)),
        ("bare", Requirement("bare", ())),
    ],
)
def test_requirements(text: str, needed: Requirement) -> None:
    assert read_requirement(text) == needed


@pytest.mark.parametrize(
    ("version", "bound", "fits"),
    [
        ("1.10", ">=1.9", True),
        ("1.9", ">=1.10", False),
        ("5", ">=5.0", True),
        ("4.9.9", "<5", True),
        ("5.0", "<5", False),
        ("0.2.0", "==0.2", True),
        ("0.2.1", "==0.2.0", False),
        ("1.3.0.post0", ">=1.3", True),
        ("unknown", ">=1", True),
        ("1.0", "~=1.0", True),
    ],
)
def test_bounds(version: str, bound: str, fits: bool) -> None:
    assert fulfils(version, bound) == fits


def test_packages_that_lack_or_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"snakepit-trio": "0.1", "trio": "0.30", "h2": "5.1", "numpy": "1.9"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    needs = ["trio>=0.29", "h2<5,>=4", "rich>=14", "uvloop>=1; os_name == 'posix'", "numpy>=2; extra == 'n'"]
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(packages, "_problem_of_import", lambda name: "")
    monkeypatch.setattr(metadata, "requires", lambda _: [*needs, "mcp>=2; extra == 'mcp'", "x; extra == 'dev'"])
    assert [(check.name, check.state, check.text) for check in check_packages()] == [
        ("snakepit-trio", "ok", "0.1"),
        ("trio", "ok", "0.30"),
        ("h2", "fail", "5.1, but it must be <5"),
        ("rich", "fail", "is not installed"),
        ("uvloop", "warn", "is not installed"),
        ("numpy", "fail", "1.9, but it must be >=2"),
        ("extras", "ok", "n (numpy 1.9)"),
        ("other extras", "ok", "mcp (lacks mcp): pip install 'snakepit-trio[NAME]' if you need one"),
    ]
