"""Systems and Pythons that workers cannot run on are refused at the import, in one plain sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.command import ROOT, environment


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("platform", "name"), [("darwin", "macOS"), ("win32", "Windows"), ("sunos5", "sunos5")])
@pytest.mark.parametrize("package", ["snakepit_trio", "bridge_py", "snakepit_trio.testing"])
def test_other_systems_are_refused(package: str, platform: str, name: str) -> None:
    done = _python(f"import sys; sys.platform = {platform!r}\nimport {package}")
    assert done.returncode == 1
    said = f"snakepit-trio runs on Linux alone so far, and this is {name}: use a Linux machine, a container"
    assert done.stderr.splitlines()[-1].startswith(f"bridge_py.system.UnsupportedSystem: {said}")


def test_an_older_python_is_refused() -> None:
    done = _python("import sys; sys.version_info = (3, 10, 13, 'final', 0)\nimport snakepit_trio")
    assert done.returncode == 1
    assert "snakepit-trio needs Python 3.11 or later, and this is 3.10" in done.stderr


@pytest.mark.parametrize("command", ["demo", "doctor", "--help"])
def test_the_command_says_it_without_a_traceback(command: str) -> None:
    code = "import sys; sys.platform = 'darwin'; import snakepit_command; snakepit_command.main()"
    done = _python(code, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: snakepit-trio runs on Linux alone so far, and this is macOS")
    assert len(done.stderr.splitlines()) == 1
