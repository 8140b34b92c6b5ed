"""Both wheels as strangers install them: in environments that have nothing but them and what they ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.command import ROOT, environment
from tests.helpers.wheels import build_ours, build_worker, make_empty_environment

pytest.importorskip("hatchling", reason="hatchling is not installed here: make .venv/.run")

TOOLS: Final = """
import importlib.util, sys
from bridge_py import BaseAdapter, tool


class Tools(BaseAdapter):
    @tool
    def where(self) -> dict:
        hosts = [name for name in ("trio", "snakepit_trio", "click") if importlib.util.find_spec(name)]
        version = "%d.%d" % sys.version_info[:2]
        return {"prefix": sys.prefix, "hosts": hosts, "version": version}

    @tool
    def double(self, n: int) -> int:
        return 2 * n
"""


def _run(command: list[str], folder: Path) -> str:
    """Run a command as a user who has no sources of ours on the path."""
    kept = {name: value for name, value in environment().items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_demo_runs_with_both_wheels_and_what_they_ask_for(tmp_path: Path) -> None:
    venv = make_empty_environment(tmp_path / "venv", *build_ours(tmp_path / "wheels"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("def f(x):\n    return 1 if x else 2\n")
    printed = _run([str(venv / "bin" / "snakepit"), "demo", "--path", "code", "--workers", "1"], tmp_path)
    assert "0 worker processes left" in printed
    assert _run([str(venv / "bin" / "snakepit"), "version"], tmp_path).startswith(f"snakepit {snakepit.__version__},")
    place = _run([str(venv / "bin" / "python"), "-c", "import bridge_py; print(bridge_py.__file__)"], tmp_path)
    assert place.startswith(str(venv))


@pytest.mark.slow
def test_a_worker_s_package_of_another_version_is_named(tmp_path: Path) -> None:
    """pip does not install such a pair by itself. The older package has no name that came later."""
    venv = make_empty_environment(tmp_path / "venv", *build_ours(tmp_path / "wheels"))
    (packages,) = venv.glob("lib/python*/site-packages")
    (about,) = packages.glob("snakepit_trio_worker-*.dist-info")
    metadata = about / "METADATA"
    metadata.write_text(metadata.read_text().replace(f"Version: {snakepit.__version__}", "Version: 0.0.9"))
    about.rename(packages / "snakepit_trio_worker-0.0.9.dist-info")
    errors = packages / "bridge_py" / "wire" / "errors.py"
    errors.write_text(errors.read_text().replace("StaleEpoch", "Other"))
    code = """
try:
    import snakepit_trio
    snakepit_trio.Pool
except ImportError as error:
    assert "StaleEpoch" in str(error.__cause__)
    print(error)
"""
    here = snakepit.__version__
    printed = _run([str(venv / "bin" / "python"), "-c", code], tmp_path)
    expected = f"snakepit-trio {here} needs snakepit-trio-worker {here}, and 0.0.9 is installed: pip install "
    assert printed == f"{expected}'snakepit-trio-worker=={here}'\n"


async def test_workers_run_in_an_environment_with_the_worker_s_wheel_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their Python finds neither trio nor the host's package there."""
    _look_away(monkeypatch, tmp_path)
    venv = make_empty_environment(tmp_path / "venv", build_worker(tmp_path / "wheels"))
    await _use(str(venv / "bin" / "python"), tmp_path, f"3.{sys.version_info.minor}")
    text = _run([str(venv / "bin" / "python"), "-m", "bridge_py", "--help"], tmp_path)
    assert "A worker of snakepit-trio." in text


def _look_away(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Hide our sources from workers: they find what is in the working directory, and on PYTHONPATH."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)


async def _use(python: str, folder: Path, version: str) -> None:
    (folder / "their_tools.py").write_text(TOOLS)
    with trio.fail_after(60):
        async with snakepit.open_pool(f"{folder / 'their_tools.py'}:Tools", workers=1, python=python) as pool:
            assert await pool.execute("double", {"n": 21}) == 42
            found = await pool.execute("where")
    assert found["prefix"] == str(Path(python).parents[1])
    assert found["version"] == version
    assert found["hosts"] == []


def _others() -> Iterator[str]:
    """Other Pythons of this machine from 3.11 on, one of each version."""
    for minor in range(11, 16):
        versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob(f"versions/3.{minor}.*/bin/python")
        path = next((str(found) for found in versions), None) or shutil.which(f"python3.{minor}")
        if path is not None and minor != sys.version_info.minor:
            yield path


@pytest.mark.slow
@pytest.mark.parametrize("minor", range(11, 16))
async def test_workers_of_another_python(minor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their packages have the versions and hashes of `make`. It is left out where there is no such Python, or index."""
    _look_away(monkeypatch, tmp_path)
    await _use(_environment_of(minor, tmp_path), tmp_path, f"3.{minor}")


def _environment_of(minor: int, folder: Path) -> str:
    pythons = [path for path in _others() if _version(path) == f"3.{minor}"]
    if not pythons:
        pytest.skip(f"there is no other Python 3.{minor} here")
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([pythons[0], "-m", "venv", str(folder / "venv")], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    (folder / "locked.txt").write_text(_locked({"grpclib", "h2", "hpack", "hyperframe", "msgspec", "multidict"}))
    locked = [*pip, "--only-binary=:all:", "--require-hashes", "--requirement", str(folder / "locked.txt")]
    if subprocess.run(locked, capture_output=True, check=False).returncode:
        pytest.skip("pip has no index here, or there are no wheels for this Python")
    subprocess.run([*pip, "--no-index", str(build_worker(folder / "wheels"))], check=True)
    return python


def _version(python: str) -> str:
    code = "import sys; print('{0}.{1}'.format(*sys.version_info))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def _locked(names: set[str]) -> str:
    parts = (ROOT / "requirements" / "run.txt").read_text().replace(" \\\n", " ").splitlines()
    return "\n".join(part for part in parts if part.partition("==")[0] in names)
