"""What is installed with the library: nothing that is not named here. test_packages.py has what is in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.imports import packages

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The project of the workers' wheel. Both are installed from their sources.
WORKER: Final[dict[str, Any]] = tomllib.loads((ROOT / "bridge_py" / "pyproject.toml").read_text())
DEPENDENCIES: Final[list[str]] = [
    *(text for text in PROJECT["project"]["dependencies"] if not text.startswith(WORKER["project"]["name"])),
    *WORKER["project"]["dependencies"],
]
#: The files of `make`, with the extras and the groups of pyproject.toml that each must hold.
STEPS: Final[Mapping[str, tuple[list[str], list[str]]]] = {
    "run": (["cli", "fast", "grpc"], ["build"]),
    "dev": (["dev"], []),
    "bench": (["bench"], []),
    "lock": ([], ["lock"]),
}
_LINE: Final = re.compile(r"([a-z0-9][a-z0-9-]*)==([a-z0-9.+!]+)( ; [^#@]+?)?((?: --hash=sha256:[0-9a-f]{64})+)")
_TINY: Final = "tiny_package-1.0"
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def _locked(step: str) -> dict[str, tuple[str, str, frozenset[str]]]:
    """The version, the marker and the hashes of each package of a file."""
    text = (ROOT / "requirements" / f"{step}.txt").read_text().replace(" \\\n   ", "")
    found = {}
    for line in text.splitlines():
        matched = _LINE.fullmatch(line)
        assert matched is not None, f"requirements/{step}.txt has more than a version and hashes: {line:.200}"
        name, version, marker, hashes = matched.groups()
        assert name not in found, f"requirements/{step}.txt names {name} twice"
        found[name] = (version, marker or "", frozenset(hashes.split()))
    return found


def _requirements() -> Iterator[Requirement]:
    project = PROJECT["project"]
    for texts in (DEPENDENCIES, *project["optional-dependencies"].values()):
        yield from map(Requirement, texts)


def _of_extras(extras: Iterable[str]) -> list[str]:
    """The requirements of extras, with those of the library's own extras that they name."""
    texts, left, seen = list[str](), list(extras), set[str]()
    while left:
        if (extra := left.pop()) not in seen:
            seen.add(extra)
            for text in PROJECT["project"]["optional-dependencies"][extra]:
                requirement = Requirement(text)
                if requirement.name == PROJECT["project"]["name"]:
                    left += requirement.extras
                else:
                    texts.append(text)
    return texts


def _needed(extras: Iterable[str], groups: Iterable[str]) -> Iterator[Requirement]:
    """What a step of `make` asks for, on this machine."""
    texts = _of_extras(extras) + ([] if "lock" in groups else DEPENDENCIES)
    for group in groups:
        texts += PROJECT["dependency-groups"][group]
    return (found for found in map(Requirement, texts) if _counts(found))


def _counts(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _needed_by(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed package needs; nothing where it is not installed."""
    try:
        texts = importlib.metadata.requires(requirement.name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield from (found for found in map(Requirement, texts) if _counts(found, requirement.extras))


# What `make` installs


@pytest.mark.parametrize("step", STEPS)
def test_each_package_that_make_installs_has_one_version_and_hashes(step: str) -> None:
    """No address, no file, no option of pip."""
    assert all(hashes for _, _, hashes in _locked(step).values())


def test_the_steps_of_make_agree() -> None:
    """Markers may differ: an extra may need a package on more systems."""
    seen: dict[str, tuple[str, frozenset[str]]] = {}
    for step in STEPS:
        for name, (version, _, hashes) in _locked(step).items():
            assert seen.setdefault(name, (version, hashes)) == (version, hashes), f"{name} differs in {step}.txt"


@pytest.mark.parametrize("step", STEPS)
def test_the_files_hold_all_that_their_extras_need(step: str) -> None:
    """Also what the packages need themselves: pip is told to look for nothing more."""
    locked = _locked(step)
    left, seen = list(_needed(*STEPS[step])), set[str]()
    assert left
    while left:
        requirement = left.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        assert name in locked, f"requirements/{step}.txt lacks {requirement}: make requirements"
        version, marker, _ = locked[name]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, but {version} is locked"
        assert _counts(Requirement(f"{name}{marker}")), f"{name} is needed here, and its marker says no: {marker}"
        left += _needed_by(requirement)


def test_every_extra_is_in_a_step_of_make() -> None:
    reached: set[str] = set()
    left = [extra for extras, _ in STEPS.values() for extra in extras]
    while left:
        reached.add(extra := left.pop())
        found = map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
        left += [name for each in found if each.name == "snakepit-trio" for name in each.extras]
    assert reached == set(PROJECT["project"]["optional-dependencies"])
    assert {group for _, groups in STEPS.values() for group in groups} == set(PROJECT["dependency-groups"])
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == set(STEPS)


def test_what_builds_the_library_is_what_its_metadata_asks_for() -> None:
    (builder,) = PROJECT["build-system"]["requires"]
    assert builder in PROJECT["dependency-groups"]["build"]
    assert builder == f"hatchling=={_locked('run')['hatchling'][0]}"


@needs_make
def test_make_lets_pip_install_nothing_without_a_hash_but_the_library(tmp_path: Path) -> None:
    done = _make(tmp_path, "--dry-run", "--always-make", "requirements", "check", "bench", cwd=ROOT)
    commands = [line for line in done.stdout.splitlines() if " -m pip " in line]
    assert len(commands) >= len(STEPS) + 1
    for command in commands:
        words = command.split()
        assert "--no-deps" in words
        if "--editable" in words:
            assert words[-5:] == ["--no-build-isolation", "--editable", "bridge_py", "--editable", "."]
        else:
            assert re.fullmatch(r".* --require-hashes( \S+)? +--requirement requirements/\w+\.txt", command), command
    others = [line for line in done.stdout.splitlines() if re.search(r"\b(pip|uv)\b.* (install|sync|add|run)\b", line)]
    assert others == commands


def _make(folder: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run make with an environment in a folder, and a pip that knows no registry."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    command = ["make", f"PYTHON={sys.executable}", f"VENV={folder}/.venv", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _put_wheel(folder: Path) -> str:
    """Make a wheel that needs another package. Return its hash."""
    path, metadata = folder / f"{_TINY}-py3-none-any.whl", f"{_TINY}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_package.py", "")
        wheel.writestr(
            f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\nRequires-Dist: six\n"
        )
        wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{metadata}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _put_sources(folder: Path, canary: Path) -> str:
    """Make a package of sources whose build leaves a canary. Return its hash."""
    path = folder / "sources_only-1.0.tar.gz"
    texts = {
        "setup.py": f"open({str(canary)!r}, 'w')",
        "PKG-INFO": "Metadata-Version: 2.1\nName: sources-only\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as sources:
        for name, text in texts.items():
            member = tarfile.TarInfo(f"sources_only-1.0/{name}")
            member.size = len(text)
            sources.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@needs_make
def test_make_refuses_what_has_another_hash_or_must_be_built(tmp_path: Path) -> None:
    """The real make and the real pip, with packages of the test's own in place of a registry."""
    canary = tmp_path / "canary"
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bridge_py").mkdir()
    shutil.copy(ROOT / "bridge_py" / "pyproject.toml", tmp_path / "bridge_py")
    wheel, sources = _put_wheel(tmp_path), _put_sources(tmp_path, canary)

    def made(line: str) -> tuple[str, set[str]]:
        (tmp_path / "requirements" / "run.txt").write_text(line)
        done = _make(tmp_path, f"{tmp_path}/.venv/.run", cwd=tmp_path)
        assert done.returncode  # the library itself is not here
        folders = (tmp_path / ".venv").glob("lib/python*/site-packages/*.dist-info")
        return done.stdout + done.stderr, {
            path.name for path in folders if not path.name.startswith(("pip-", "setuptools-"))
        }

    text, installed = made(f"tiny-package==1.0 --hash=sha256:{wheel[::-1]}\n")
    assert "DO NOT MATCH THE HASHES" in text
    assert installed == set()
    text, installed = made("tiny-package==1.0\n")
    assert "Hashes are required" in text
    assert installed == set()
    if sys.version_info < (3, 15):
        text, installed = made(f"sources-only==1.0 --hash=sha256:{sources}\n")
        assert "No matching distribution found for sources-only" in text
    assert installed == set()
    assert not canary.exists()
    text, installed = made(f"tiny-package==1.0 --hash=sha256:{wheel}\n")
    assert installed == {f"{_TINY}.dist-info"}, text


# What the library asks for


@pytest.mark.parametrize(
    ("name", "specifier"), [("h2", "<5,>=4.4.1"), ("hpack", ">=4.2"), ("betterproto2", "<0.11,>=0.10")]
)
def test_the_bounds_of_what_reads_bytes_of_peers(name: str, specifier: str) -> None:
    """Older versions of h2 and hpack have known weaknesses; messages are generated for one line of betterproto2."""
    assert {str(found.specifier) for found in _requirements() if found.name == name} == {specifier}


def test_a_plain_install_is_light() -> None:
    """At most 15 packages beside our own two; what fewer programs need is in extras."""
    found = packages()
    assert set(found) >= {"snakepit-trio", "snakepit-trio-worker", "trio"}
    assert len(found) <= 15 + 2, sorted(found)


def test_the_library_pins_no_version_exactly() -> None:
    """Else an application could not take a mended one."""
    assert [each for each in map(Requirement, DEPENDENCIES) if "==" in str(each.specifier)] == []
