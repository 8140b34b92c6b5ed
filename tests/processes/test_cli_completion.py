"""`snakepit completion`: shells accept the scripts, and complete by them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from snakepit_trio._cli import values
from tests.helpers.command import environment, snakepit
from tests.helpers.debian import why_missing
from tests.helpers.shells import shell

SHELLS = ["bash", "zsh", "fish"]
TOOLS = """
import bridge_py
from bridge_py import BaseAdapter, tool

raise SystemExit("completion runs no code")

class Base(BaseAdapter):
    @bridge_py.tool
    def double(self, n): ...

class Tools(Base):
    @tool(timeout=3)
    async def count(self): ...

    def helper(self): ...

class Other: ...
"""
#: What is typed, and what it becomes by Tab.
COMPLETED = [
    ("snakepit doc", "snakepit doctor"),
    ("snakepit deb", "snakepit debug"),
    ("snakepit tools --js", "snakepit tools --json"),
    ("snakepit run my_app", "snakepit run my_app.tools:Tools"),
    ("snakepit run my_app.tools:To", "snakepit run my_app.tools:Tools"),
    ("snakepit run my_app.tools:Tools do", "snakepit run my_app.tools:Tools double"),
    ("snakepit debug my_app.tools:Tools do", "snakepit debug my_app.tools:Tools double"),
    ("snakepit bench my_app/tools.py:Tools c", "snakepit bench my_app/tools.py:Tools count"),
    ("snakepit serve bri", "snakepit serve bridge_py.adapters.showcase:Showcase"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_app").mkdir()
    (tmp_path / "my_app" / "tools.py").write_text(TOOLS.replace("Base(", "_Base(").replace("(Base)", "(_Base)"))
    (tmp_path / "my_app" / "broken.py").write_text("from bridge_py import (")
    return tmp_path


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_accepts_its_script(name: str) -> None:
    done = snakepit("completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_SNAKEPIT_COMPLETE={name}_complete" in done.stdout
    if shutil.which(name):
        line = [name, "-n"]
        checked = subprocess.run(
            line, input=done.stdout, capture_output=True, text=True, timeout=60, check=False, env=environment()
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_completes(folder: Path, name: str) -> None:
    if why := why_missing(name):
        pytest.skip(why)
    with shell(name, folder) as found:
        assert [found.complete(text) for text, _ in COMPLETED] == [line for _, line in COMPLETED]


def test_adapters_and_tools_are_read_from_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my_app" / "__init__.py").write_text(TOOLS)
    (folder / "venv").mkdir()
    (folder / "venv" / "hidden.py").write_text(TOOLS)
    monkeypatch.chdir(folder)
    names = {name for path in values._sources() for name in values._names(path, by_path=False)}
    assert names == {"my_app:Base", "my_app:Tools", "my_app.tools:Tools"}
    assert sorted(values._tools_of("my_app:Tools")) == ["count", "double"]
    assert list(values._tools_of("my_app.tools:Nothing")) == []
    assert list(values._tools_of("nothing")) == list(values._tools_of("")) == []


def test_another_shell_is_refused() -> None:
    done = snakepit("completion", "csh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
