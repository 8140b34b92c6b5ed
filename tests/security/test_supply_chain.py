"""What is installed with the library, and what is in it: nothing that is not named here."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ["snakepit_trio", "bridge_py"]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS: Final = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def _requirements() -> Iterator[Requirement]:
    project = PROJECT["project"]
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, texts)


def test_the_wheel_holds_the_two_packages_and_nothing_else() -> None:
    """No further key of the build may add files, run code, or take files from elsewhere."""
    assert PROJECT["tool"]["hatch"] == {"build": {"targets": {"wheel": {"packages": PACKAGES}}}}
    assert PROJECT["build-system"]["build-backend"] == "hatchling.build"
    (builder,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert str(builder.specifier).startswith("==")
    assert "dynamic" not in PROJECT["project"]
    assert PROJECT["project"]["scripts"] == {"snakepit": "snakepit_trio._cli.main:main"}


def test_the_packages_hold_sources_and_nothing_else() -> None:
    """The wheel takes every file below its packages that git does not ignore: notes, keys and programs too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this is no checkout of git: {done.stderr}")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    assert len(paths) > 100
    odd = [path for path in paths if path.suffix != ".py" and path.name != "py.typed"]
    odd += [path for path in paths if path.is_symlink() or path.name.startswith(".")]
    assert odd == []


@pytest.mark.parametrize(
    ("name", "specifier"), [("h2", ">=4.4.1"), ("hpack", ">=4.2"), ("betterproto2", "<0.11,>=0.10")]
)
def test_the_bounds_of_what_reads_bytes_of_peers(name: str, specifier: str) -> None:
    """Older versions of h2 and hpack have known weaknesses; messages are generated for one line of betterproto2."""
    assert [str(found.specifier) for found in _requirements() if found.name == name] == [specifier]


def test_the_library_pins_no_version_exactly() -> None:
    """Else an application could not take a mended one."""
    found = map(Requirement, PROJECT["project"]["dependencies"])
    assert [str(each) for each in found if "==" in str(each.specifier)] == []


def test_everything_that_is_named_has_an_exact_version_in_the_constraints() -> None:
    for requirement in _requirements():
        if requirement.name != "snakepit-trio" and (requirement.marker is None or requirement.marker.evaluate()):
            pinned = PINS.get(canonicalize_name(requirement.name))
            assert pinned is not None, f"{requirement.name} is not in constraints.txt"
            assert requirement.specifier.contains(pinned, prereleases=True), f"{requirement}, but {pinned} is pinned"


def test_the_constraints_hold_exact_versions_and_nothing_else() -> None:
    """No address, no file, no option of pip."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!-]+( *;.*)?( *#.*)?", line)] == []
