"""What users install: wheels of this project and of theirs, in a virtual environment, without a network.

pip is not used, as it would ask for packages: the others are links to those that are installed here.
"""

from __future__ import annotations

import configparser
import email
import site
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.command import ROOT

_OURS = ("snakepit_trio", "snakepit_command", "bridge_py")
_SCRIPT = "#!{python}\nimport sys\nfrom {module} import {name}\nsys.exit({name}())\n"


def build(project: Path, out: Path) -> Path:
    """Build the wheel of a project."""
    before = set(out.glob("*.whl"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = set(out.glob("*.whl")) - before
    return wheel


def build_worker(out: Path) -> Path:
    """Build the wheel for the environments of workers."""
    return build(ROOT / "bridge_py", out)


def build_ours(out: Path) -> tuple[Path, Path]:
    """Build both wheels of this project: the host's, from a folder that has nothing but its sources, and the worker's.

    The host's needs the other's version file, to be built.
    """
    source = out / "source"
    source.mkdir(parents=True)
    for name in ("snakepit_trio", "snakepit_command.py", "pyproject.toml", "PACKAGE.md", "LICENSE", "bridge_py"):
        (source / name).symlink_to(ROOT / name)
    return build(source, out), build_worker(out)


def make_environment(folder: Path, *wheels: Path) -> Path:
    """Make a virtual environment with these wheels, their scripts, pytest's, and links to all other packages."""
    make_bare(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in (path for place in site.getsitepackages() for path in Path(place).iterdir()):
        if path.name.partition("-")[0].removeprefix("_").partition(".")[0] not in _OURS and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    for wheel in wheels:
        install(wheel, folder)
    [pytest] = metadata.entry_points(group="console_scripts", name="pytest")
    _write_script(folder, "pytest", pytest.value)
    return folder


def _write_scripts(folder: Path, entries: str) -> None:
    found = configparser.ConfigParser()
    found.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are
    found.read_string(entries)
    for name, target in found["console_scripts"].items():
        _write_script(folder, name, target)


def _write_script(folder: Path, name: str, target: str) -> None:
    module, _, function = target.partition(":")
    script = folder / "bin" / name
    script.write_text(_SCRIPT.format(python=folder / "bin" / "python", module=module, name=function))
    script.chmod(0o755)


def make_empty_environment(folder: Path, *wheels: Path, extras: Iterable[str] = ()) -> Path:
    """Make a virtual environment with these wheels, and links to nothing but the packages that they ask for."""
    make_bare(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    needed: list[Requirement] = []
    for wheel in wheels:
        needed += install(wheel, folder, extras)
    for name in _closure(needed):
        for top in {path.parts[0] for path in metadata.distribution(name).files or () if path.parts[0] != ".."}:
            if not (packages / top).exists() and top != "__pycache__":
                (packages / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    return folder


def make_bare(folder: Path) -> None:
    """Make a virtual environment without pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)


def install(wheel: Path, folder: Path, extras: Iterable[str] = ()) -> list[Requirement]:
    """Put a wheel into an environment, with its scripts. Returns what it asks for, but for our own packages."""
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
        names = archive.namelist()
        for entries in (name for name in names if name.endswith("entry_points.txt")):
            _write_scripts(folder, archive.read(entries).decode())
        (about,) = [name for name in names if name.endswith("METADATA")]
        texts = email.message_from_bytes(archive.read(about)).get_all("Requires-Dist", [])
    return list(_counted(texts, extras))


def _counted(texts: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _closure(needed: list[Requirement]) -> set[str]:
    found, left = set[str](), list(needed)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and not name.startswith("snakepit-trio"):
            found.add(name)
            left += _counted(metadata.requires(name) or [], requirement.extras)
    return found
