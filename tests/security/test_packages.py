"""The two wheels and the two archives of sources: what is in them, and that the same sources give the same bytes."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridge_py.version import VERSION

ROOT: Final = Path(__file__).parents[2]
_PAGE: Final = Path("snakepit_trio/_dashboard/page")


@attrs.frozen
class Project:
    """A project: its name, its folder, its code, and what lies beside its pyproject.toml and goes out with it."""

    name: str
    folder: Path
    code: tuple[str, ...]
    prefix: str = ""  # of the code's paths, below the project's folder

    @property
    def known(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{VERSION}"

    def files(self) -> list[Path]:
        """The code's files, relative to the repository."""
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *self.code]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this is no checkout of git: {done.stderr}")
        paths = [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).exists()]
        found = [path for path in paths if str(path) not in _BESIDE]
        assert len(found) > 100
        return found


#: What lies in the worker's folder for its project, and is in no wheel.
_BESIDE: Final = {f"bridge_py/{name}" for name in ("pyproject.toml", "README.md", "LICENSE")}
HOST: Final = Project("snakepit-trio", ROOT, ("snakepit_command.py", "snakepit_trio"))
WORKER: Final = Project("snakepit-trio-worker", ROOT / "bridge_py", ("bridge_py",), "bridge_py")
PROJECTS: Final = [pytest.param(HOST, id="host"), pytest.param(WORKER, id="worker")]
#: What must not go out, relative to the repository.
_UNWANTED: Final = (
    *("snakepit_trio/notes.txt", "snakepit_trio/.env", "snakepit_trio/state/fast.so", "bridge_py/link/key.pem"),
    *(".env", "id_rsa", "secrets.py", "tests/test_a.py", "bridge_py/wire/messages/a.pyc", "setup.py"),
)


# What the projects say


def test_no_key_of_the_builds_adds_files_or_runs_code() -> None:
    host = ["/snakepit_command.py", "/snakepit_trio/**/*.py", "/snakepit_trio/py.typed", f"/{_PAGE}/*"]
    worker = {"sources": {"": "bridge_py"}, "dev-mode-dirs": [".."]}
    assert HOST.known["tool"]["hatch"] == {"version": {"path": "bridge_py/version.py"}, "build": {"include": host}}
    assert WORKER.known["tool"]["hatch"] == {
        "version": {"path": "version.py"},
        "build": {"include": ["/**/*.py", "/**/py.typed"], "targets": {"wheel": worker}},
    }
    assert HOST.known["build-system"] == WORKER.known["build-system"]
    assert HOST.known["build-system"]["build-backend"] == "hatchling.build"
    (builder,) = map(Requirement, HOST.known["build-system"]["requires"])
    assert str(builder.specifier).startswith("==")
    for project in (HOST.known["project"], WORKER.known["project"]):
        assert project["dynamic"] == ["version"]
        assert "hatch" not in project.get("entry-points", {})
    assert HOST.known["project"]["scripts"] == {"snakepit": "snakepit_command:main"}
    assert "scripts" not in WORKER.known["project"]


def test_the_host_needs_the_worker_of_its_own_version() -> None:
    """The pin is the one place beside `bridge_py/version.py` that names the version."""
    needed = HOST.known["project"]["dependencies"]
    assert [text for text in needed if "worker" in text] == [f"snakepit-trio-worker=={VERSION}"]


def test_the_projects_agree() -> None:
    host, worker = HOST.known["project"], WORKER.known["project"]
    assert worker["requires-python"] == host["requires-python"]
    assert set(worker["classifiers"]) <= set(host["classifiers"])
    assert (WORKER.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert set(worker["dependencies"]) <= set(host["dependencies"])
    ours = {name: _ours(needed, HOST.name) for name, needed in host["optional-dependencies"].items()}
    for name, needed in worker["optional-dependencies"].items():
        assert _ours(needed, WORKER.name) == ours[name], name


def _ours(needed: list[str], name: str) -> list[str]:
    return [text.replace(f"{name}[", "ours[") for text in needed]


def test_the_packages_hold_sources_and_nothing_else() -> None:
    """Notes, keys and programs do not belong there, and a link may lead to anything."""
    pages = {path for path in (ROOT / _PAGE).iterdir() if path.suffix in {".html", ".css", ".js", ".svg"}}
    files = [ROOT / path for path in (*HOST.files(), *WORKER.files())]
    others = {path for path in files if path.suffix != ".py" and path.name != "py.typed"}
    odd = sorted(others - pages) + [path for path in files if path.is_symlink() or path.name.startswith(".")]
    assert odd == []


# What is built


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, in which lies what must not go out."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here: make .venv/.run")
    copy = tmp_path_factory.mktemp("copy")
    beside = map(Path, ("pyproject.toml", "PACKAGE.md", "README.md", "LICENSE", ".gitignore", *_BESIDE))
    for path in (*HOST.files(), *WORKER.files(), *beside):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    for name in _UNWANTED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("a secret")
    return copy


@pytest.fixture(scope="module")
def built(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels and both archives."""
    out = tmp_path_factory.mktemp("built")
    for project in (HOST, WORKER):
        _build(copy / project.prefix, out)
    assert len(list(out.iterdir())) == 4
    return out


def _build(folder: Path, out: Path, *options: str, **variables: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *options]
    kept = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _wheel(project: Project, folder: Path) -> Path:
    return folder / f"{project.stem}-py3-none-any.whl"


@pytest.mark.parametrize("project", PROJECTS)
def test_a_wheel_holds_the_sources_of_its_package_and_nothing_else(project: Project, built: Path) -> None:
    about = ["METADATA", "WHEEL", "RECORD", "licenses/LICENSE"] + ["entry_points.txt"] * (project is HOST)
    expected = [*map(str, project.files()), *(f"{project.stem}.dist-info/{name}" for name in about)]
    with zipfile.ZipFile(_wheel(project, built)) as wheel:
        assert sorted(wheel.namelist()) == sorted(expected)
        for path in project.files():
            assert wheel.read(str(path)) == (ROOT / path).read_bytes()


def test_the_host_s_wheel_has_the_command(built: Path) -> None:
    with zipfile.ZipFile(_wheel(HOST, built)) as wheel:
        entries = wheel.read(f"{HOST.stem}.dist-info/entry_points.txt").decode()
    assert entries.split() == ["[console_scripts]", "snakepit", "=", "snakepit_command:main"]


@pytest.mark.parametrize("project", PROJECTS)
def test_an_archive_of_sources_holds_what_its_wheel_is_built_from(project: Project, built: Path) -> None:
    others = ("PKG-INFO", "pyproject.toml", project.known["project"]["readme"], "LICENSE", ".gitignore")
    files = (path.relative_to(project.prefix) for path in project.files())
    with tarfile.open(built / f"{project.stem}.tar.gz") as sources:
        assert sorted(sources.getnames()) == sorted(f"{project.stem}/{path}" for path in (*files, *others))
        assert all(member.isfile() for member in sources.getmembers())


@pytest.mark.parametrize("project", PROJECTS)
def test_the_same_sources_give_the_same_bytes(project: Project, built: Path, copy: Path, tmp_path: Path) -> None:
    """Later, in another folder, with files of other times; and the archive gives the wheel that lies beside it."""
    elsewhere, again, third = tmp_path / "elsewhere", tmp_path / "again", tmp_path / "third"
    shutil.copytree(copy, elsewhere, copy_function=shutil.copyfile)
    _build(elsewhere / project.prefix, again)
    for path in again.iterdir():
        assert path.read_bytes() == (built / path.name).read_bytes(), path.name
    with tarfile.open(again / f"{project.stem}.tar.gz") as sources:
        sources.extractall(tmp_path, filter="data")
    _build(tmp_path / project.stem, third, "-t", "wheel")
    assert _wheel(project, third).read_bytes() == _wheel(project, built).read_bytes()


def test_the_time_of_a_build_is_the_one_that_is_given(copy: Path, tmp_path: Path) -> None:
    _build(copy, tmp_path, "-t", "wheel", SOURCE_DATE_EPOCH="1800000000")
    with zipfile.ZipFile(_wheel(HOST, tmp_path)) as wheel:
        assert {each.date_time for each in wheel.infolist()} == {(2027, 1, 15, 8, 0, 0)}


@pytest.mark.parametrize("project", PROJECTS)
def test_the_metadata_asks_for_what_the_project_names(project: Project, built: Path) -> None:
    with zipfile.ZipFile(_wheel(project, built)) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{project.stem}.dist-info/METADATA"))
    known = project.known["project"]
    expected: set[tuple[str, str | None]] = {(_spelled(text), None) for text in known["dependencies"]}
    for extra in known["optional-dependencies"]:
        expected |= {(_spelled(text), canonicalize_name(extra)) for text in _of_extra(known, extra)}
    assert {_split(text) for text in metadata.get_all("Requires-Dist", [])} == expected
    assert set(metadata.get_all("Provides-Extra", [])) == set(known["optional-dependencies"])
    assert metadata["Requires-Python"] == known["requires-python"]
    assert (metadata["Name"], metadata["Version"]) == (project.name, VERSION)
    assert metadata["License-Expression"] == known["license"]
    # A package index shows the description, and has no other file of the project.
    assert re.findall(r"\]\((?!https:)[^)]*\)|<!--", str(metadata.get_payload())) == []


def _of_extra(known: dict[str, Any], extra: str) -> set[str]:
    """The requirements of an extra, with those of the project's own extras that it names."""
    found, left, seen = set[str](), [extra], set[str]()
    while left:
        if (name := left.pop()) not in seen:
            seen.add(name)
            for text in known["optional-dependencies"][name]:
                requirement = Requirement(text)
                if requirement.name == known["name"]:
                    left += requirement.extras
                else:
                    found.add(text)
    return found


def _spelled(text: str) -> str:
    requirement = Requirement(text)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _split(text: str) -> tuple[str, str | None]:
    """Split a requirement of the metadata into what pyproject.toml says, and the extra."""
    matched = re.fullmatch(r"(.*?)(?:;| and)? *extra == ['\"](.*)['\"]", text)
    return (_spelled(matched[1].replace("(", "").replace(")", "")), matched[2]) if matched else (_spelled(text), None)
