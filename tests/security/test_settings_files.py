"""Another user's pyproject.toml names no code that runs with our rights."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from snakepit_trio import UsageError
from snakepit_trio._config import settings_file
from snakepit_trio._config.settings_file import SHOWCASE, default_adapter

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a pyproject.toml that names an adapter."""
    settings_file._warn.cache_clear()
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    (folder / "pyproject.toml").write_text('[tool.snakepit]\nadapter = "evil:Code"\n')
    (folder / "pyproject.toml").chmod(0o644)
    monkeypatch.delenv("SNAKEPIT_ADAPTER", raising=False)
    monkeypatch.chdir(folder)
    return folder


def _chown(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _write_of_all(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _sticky(path: Path) -> None:
    path.chmod(0o1777)


def _write_of_group(path: Path) -> None:
    os.chown(path, -1, 1)  # a group of the system
    path.chmod(path.stat().st_mode | 0o020)


ATTACKS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "foreign-file": (_chown, "pyproject.toml", f"pyproject.toml belongs to uid {NOBODY}"),
    "foreign-folder": (_chown, ".", f"project belongs to uid {NOBODY}"),
    "open-file": (_write_of_all, "pyproject.toml", "pyproject.toml can be written by everybody"),
    "open-folder": (_write_of_all, ".", "project can be written by everybody"),
    "sticky-folder": (_sticky, ".", "project can be written by everybody"),
    "file-of-a-group": (_write_of_group, "pyproject.toml", "pyproject.toml can be written by the group 1"),
    "folder-of-a-group": (_write_of_group, ".", "project can be written by the group 1"),
}


@as_root
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_others_could_have_written_is_ignored(
    attack: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, name, why = ATTACKS[attack]
    change(project / name)
    assert [default_adapter(), default_adapter()] == [SHOWCASE] * 2
    (record,) = caplog.records
    assert f"{project / 'pyproject.toml'} is ignored, because {project}" in record.getMessage()
    assert why in record.getMessage()
    assert "SNAKEPIT_ADAPTER" in record.getMessage()


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_hides_nothing(link: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own folder, with a link to a file in a folder that all may write; and a way through such a folder."""
    ours = tmp_path / "ours"
    if link == "folder":
        ours.symlink_to(project)
    else:
        ours.mkdir()
        (ours / "pyproject.toml").symlink_to(project / "pyproject.toml")
    monkeypatch.chdir(ours)
    assert default_adapter() == "evil:Code"
    _write_of_all(project)
    assert default_adapter() == SHOWCASE


def test_an_unreadable_text_of_others_is_no_error(project: Path) -> None:
    (project / "pyproject.toml").write_text("[[[")
    with pytest.raises(UsageError, match="cannot be read"):
        default_adapter()
    _write_of_all(project)
    assert default_adapter() == SHOWCASE


def test_the_search_goes_on_above_a_file_of_others(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[tool.snakepit]\nadapter = "other:Code"\n')
    monkeypatch.chdir(inner)
    assert default_adapter() == "other:Code"
    _write_of_all(inner)
    assert default_adapter() == "evil:Code"


@pytest.mark.parametrize(("members", "is_read"), [([], True), (["me"], True), (["me", "friend"], False)])
def test_the_private_group_of_the_user_may_write(
    members: list[str], is_read: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with umask 002. Users and groups cannot be made for real on the machine of the tests."""
    _, password, uid, gid, *rest = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("me", password, uid, gid, *rest)))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("me", "x", gid, members)))
    for path in (project, project / "pyproject.toml"):
        os.chown(path, uid, gid)
        path.chmod(path.stat().st_mode | 0o020)
    assert default_adapter() == ("evil:Code" if is_read else SHOWCASE)
